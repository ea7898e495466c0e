"""Two-dimensional Navier-Stokes flow: exact decay, a dipole's speed, rates of dissipation."""

import jax.numpy as jnp
import numpy as np
import pytest
from helpers import double, eddies, error, run, wave

import hybridgcm as hg


@pytest.mark.parametrize(("order", "viscosity"), [(1, 0.05), (2, 0.01)])
def test_taylor_green_vortices_decay_exactly(order, viscosity):
    """zeta = cos 2x cos 2y is steady but for viscosity (and drag): exp(-(nu 8^order + drag) t), any amplitude."""
    grid = double(24, 2 * np.pi)
    flow = hg.QuasiGeostrophic.navier_stokes(grid, viscosity=viscosity, drag=0.1, order=order)
    model = hg.Model(flow, hg.RK4(), dt=0.01)
    zeta = 50 * wave(grid, 2, 0)[None] * wave(grid, 0, 2)[None]
    end = model.view(run(model, model.encode({"q": zeta}), 200))["q"]
    expected = zeta * np.exp(-(viscosity * 8**order + 0.1) * 2.0)
    assert error(end, expected) < 1e-8, error(end, expected)


def lamb_dipole(grid, speed, radius):
    """Vorticity of Lamb's dipole that moves with `speed` in x, on its own: Batchelor (1967), section 7.3."""
    from math import pi

    def bessel(n, x):  # integral form: no dependency on special functions
        theta = (np.arange(200) + 0.5) * pi / 200
        return np.mean(np.cos(n * theta - np.asarray(x)[..., None] * np.sin(theta)), -1)

    k = 3.8317059702075123 / radius  # first zero of J1
    x, y = grid.x[None, :] - grid.length[1] / 2, grid.y[:, None] - grid.length[0] / 2
    r = np.hypot(x, y)
    inside = -2 * speed * k / bessel(0, k * radius) * bessel(1, k * r) * np.divide(y, r, where=r > 0, out=0 * r)
    return np.where(r < radius, inside, 0.0)


def test_a_lamb_dipole_keeps_its_speed_to_one_percent():
    grid, speed, radius = double(128, 2 * np.pi), 1.0, 2 * np.pi / 20
    flow = hg.QuasiGeostrophic.navier_stokes(grid, viscosity=1e-19, order=4)
    model = hg.Model(flow, hg.Filtered(hg.RK4(), hg.exponential_filter(grid)), dt=4e-3)
    zeta = lamb_dipole(grid, speed, radius)[None]

    def position(state):
        """Centroid of enstrophy in x by the phase of its first harmonic: the domain is periodic."""
        weight = np.asarray(model.view(state)["q"][0]) ** 2
        return np.angle((weight * np.exp(1j * grid.x[None, :])).sum())

    start = run(model, model.encode({"q": zeta}), 25)
    end = run(model, start, 150)
    found = np.angle(np.exp(1j * (position(end) - position(start)))) / (150 * 4e-3)
    assert found == pytest.approx(speed, rel=1e-2), f"{found:.4f} m/s"


def test_viscosity_is_the_same_at_every_resolution_and_named_scale():
    decay = []
    for n, scale in ((24, None), (48, None), (48, 0.3)):
        flow = hg.QuasiGeostrophic.navier_stokes(double(n, 2 * np.pi), viscosity=0.02, order=2, scale=scale)
        decay.append(float(flow.dissipation[2, 3]))
    assert decay == pytest.approx([0.02 * 13**2] * 3, rel=1e-12), decay


def test_without_viscosity_there_is_none_and_a_negative_one_is_refused():
    flow = hg.QuasiGeostrophic.navier_stokes(double(16))
    assert float(jnp.max(flow.dissipation)) == 0.0 and float(flow.Qy[0]) == 0.0
    with pytest.raises(ValueError, match="positive viscosity damps; got -1.0"):
        hg.QuasiGeostrophic.navier_stokes(double(16), viscosity=-1.0)


def test_viscous_loss_of_energy_is_twice_viscosity_times_enstrophy():
    grid = double(32, 2 * np.pi)
    flow = hg.QuasiGeostrophic.navier_stokes(grid, viscosity=0.03)
    y = {"q": grid.to_spectral(jnp.asarray(eddies(grid, 1, 2.0)))}
    tendency = flow.explicit(0.0, y)["q"] + flow.implicit(y)["q"]
    loss = -float(grid.inner(flow.invert(y["q"]), tendency)[0])
    assert loss == pytest.approx(-0.03 * float(grid.inner(y["q"], y["q"])[0]), rel=1e-10), loss
