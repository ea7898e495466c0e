"""Surface quasi-geostrophic flow against pyqg, exact waves and its invariants."""

import jax.numpy as jnp
import numpy as np
import pytest
from helpers import double, eddies, error, run, wave

import hybridgcm as hg

make = hg.SurfaceQuasiGeostrophic


def test_reference_solution_of_pyqg():
    """pyqg's own test (1e-4) of its SQGModel, N = f = 1: two like-signed vortices of unit energy after 2,000 steps."""
    n = 64
    grid = double(n, 2 * np.pi, None)
    x = (np.arange(n) + 0.5) * 2 * np.pi / n
    gauss = lambda c: np.exp(-((2 * (x[None, :] - c * np.pi / 2)) ** 2) - (2 * (x[:, None] - np.pi)) ** 2)
    psi_hat = np.fft.rfft2(gauss(1.75) + gauss(2.25))
    kappa = np.sqrt(-np.asarray(grid.eigenvalues))
    factor = np.asarray(hg.exponential_filter(grid))
    energy = (np.asarray(grid.multiplicity) * np.abs(factor * kappa * psi_hat) ** 2).sum() / n**4 / 2
    b = np.fft.irfft2(kappa * psi_hat / np.sqrt(energy), s=(n, n))
    model = hg.Model(make(grid, 1.0), hg.Filtered(hg.AB3(), hg.exponential_filter(grid)), dt=0.0025)
    before = run(model, model.encode({"b": b[None]}), 1999)
    end = run(model, before, 1)
    fields = model.view(before)  # psi and energy of pyqg are those of one step before
    found = [float((model.view(end)["b"] ** 2).sum()), float((fields["psi"] ** 2).sum())]
    found.append(float(grid.mean(fields["u"] ** 2 + fields["v"] ** 2)[0]) / 2)
    assert found == pytest.approx([7847.5169609881032, 1346.8874163575524, 0.9579493831013508], rel=1e-9), found


@pytest.mark.parametrize("depth", [None, 0.4])
def test_inversion_of_a_wave_is_known_and_buoyancy_is_its_inverse(depth):
    grid = double((24, 32), (2 * np.pi, 4 * np.pi))
    flow = make(grid, 2.0, f=-0.5, depth=depth)
    K = np.hypot(3 / 2, 4)
    known = 1 / (2.0 * K * (1 if depth is None else np.tanh(2.0 * K * 0.4 / 0.5)))
    y = {"b": grid.to_spectral(jnp.asarray(wave(grid, 3, 4))[None])}
    assert error(flow.view(y)["psi"][0], known * wave(grid, 3, 4)) < 1e-13
    y = {"b": grid.to_spectral(jnp.asarray(eddies(grid, 1, 1.0)))}
    assert error(flow.buoyancy(flow.invert(y["b"])), y["b"]) < 1e-13


def test_a_deep_fluid_does_not_feel_its_bottom_and_a_shallow_one_is_barotropic():
    grid = double(16, 2 * np.pi)
    b_hat = grid.to_spectral(jnp.asarray(eddies(grid, 1, 1.0)))
    deep, half = make(grid, 1.0, f=1.0, depth=50.0), make(grid, 1.0)
    assert error(deep.invert(b_hat), half.invert(b_hat)) < 1e-14
    shallow = make(grid, 1.0, f=1.0, depth=1e-4)  # b = N2 K2 depth psi / f
    assert error(shallow.invert(b_hat), -grid.inverse_laplacian(b_hat) / 1e-4) < 1e-6


def test_waves_on_a_mean_gradient_have_their_dispersion_relation_and_drag_damps_them():
    grid, N, gradient, U, drag = double(32, 2 * np.pi), 1.5, 2.0, 0.3, 0.2
    model = hg.Model(make(grid, N, gradient=gradient, U=U, drag=drag), hg.RK4(), dt=0.01)
    omega = 3 * U + gradient * 3 / (N * np.sqrt(13))
    end = model.view(run(model, model.encode({"b": wave(grid, 3, 2)[None]}), 100))["b"]
    expected = np.exp(-drag) * wave(grid, 3, 2, -omega)[None]
    assert error(end, expected) < 1e-8, error(end, expected)


def test_surface_and_total_energy_are_kept():
    grid = double(48, 2 * np.pi)
    model = hg.Model(make(grid, 1.0), hg.RK4(), dt=2e-3)
    inner = lambda s: np.array(
        [grid.inner(s.y["b"], s.y["b"])[0], grid.inner(model.equation.invert(s.y["b"]), s.y["b"])[0]]
    )
    start = model.encode({"b": eddies(grid, 1, 1.0)})
    end = run(model, start, 500)
    drift = inner(end) / inner(start) - 1
    assert np.abs(drift).max() < 1e-9, drift
    assert error(end.y["b"], start.y["b"]) > 0.3, "the flow must have changed"


def test_a_surface_force_accelerates_the_flow_by_its_rotational_part():
    grid = double(32)
    flow = make(grid, 5e-3)
    psi_hat = grid.to_spectral(jnp.asarray(eddies(grid, 1, 1.0)))
    chi_x, chi_y = grid.gradient(grid.to_spectral(jnp.asarray(eddies(grid, 1, 1.0, 1))))
    u, v = grid.velocity(psi_hat)
    fields = flow.view(flow.lift({"u": u + chi_x, "v": v + chi_y}))
    assert error(fields["u"], u) < 1e-11 and error(fields["v"], v) < 1e-11


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(drag=-1.0), "positive numbers damp and stratify"),
        (dict(depth=100.0), r"needs depth > 0 \(m\) and the Coriolis parameter f"),
        (dict(depth=-1.0, f=1e-4), "needs depth > 0"),
    ],
)
def test_constructor_says_what_it_expects(arguments, message):
    with pytest.raises(ValueError, match=message):
        make(double(16), 1e-2, **arguments)
