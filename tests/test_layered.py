"""Layered quasi-geostrophy: stretching, mean flows in both directions, profiles and topography."""

import jax.numpy as jnp
import numpy as np
import pytest
from helpers import double, eddies, error, run, wave

import hybridgcm as hg

make = hg.QuasiGeostrophic.layered
DEPTHS, GRAVITY = (0.25, 0.25, 0.5), (0.2, 1 / 6)  # of GeophysicalFlows' three-layer test, f = 1
PUBLISHED = np.array([[-20.0, 20.0, 0.0], [20.0, -44.0, 24.0], [0.0, 12.0, -12.0]])


def hat(grid, a):
    return grid.to_spectral(jnp.asarray(a))


# Stretching


def test_stretching_of_three_layers_is_the_published_one_from_gravity_density_and_radii():
    grid = double(16, 2 * np.pi)
    density = [4.0, 4.8, 5.6]  # g (rho2 - rho1) / rho1 = .2, then 1/6
    radii = [np.sqrt(0.2 * 0.125), np.sqrt(1 / 6 * 0.25 * 0.5 / 0.75)]
    flows = [
        make(grid, DEPTHS, f=1.0, reduced_gravity=GRAVITY),
        make(grid, DEPTHS, f=1.0, density=density, gravity=1.0),
        make(grid, DEPTHS, radii=radii),
    ]
    for flow in flows:
        assert error(flow.stretching, PUBLISHED) < 1e-14, flow.stretching
        H = np.asarray(flow.thickness)
        assert np.allclose(H[:, None] * flow.stretching, (H[:, None] * flow.stretching).T), "energy needs symmetry"


def test_two_layers_with_a_radius_are_two_layer_and_an_abyss_makes_the_equivalent_barotropic_radius():
    grid = double(16)
    flow, known = make(grid, [500.0, 2000.0], radii=[15e3]), hg.QuasiGeostrophic.two_layer(grid)
    assert error(flow.stretching, known.stretching) < 1e-14 and error(flow.thickness, known.thickness) < 1e-14
    one = make(grid, [800.0], f=1e-4, reduced_gravity=[0.02])
    assert float(one.stretching[0, 0]) == pytest.approx(-1e-8 / (0.02 * 800.0), rel=1e-14), "-f2/(g' H)"
    above = make(grid, [500.0, 2000.0], f=1e-4, reduced_gravity=[0.01, 0.02])
    assert np.asarray(above.stretching).sum(1) == pytest.approx([0.0, -1e-8 / (0.02 * 2000.0)], abs=1e-22)


def published_fields(grid):
    """psi and q of GeophysicalFlows' two-layer test: q1 = lap psi1 + 25 (psi2 - psi1), q2 likewise."""
    c = lambda a, b: np.cos(a * grid.x)[None, :] * np.cos(b * grid.y)[:, None]
    psi = np.stack([c(2, 5) / 4 + c(3, 3) / 3, c(3, 4) + c(4, 2) / 2])
    q1 = (75 * c(4, 2) + 2 * (75 * c(3, 4) - 43 * c(3, 3)) - 81 * c(2, 5)) / 6
    q2 = (-630 * c(4, 2) + 100 * (c(3, 3) - 15 * c(3, 4)) + 75 * c(2, 5)) / 48
    return 1e-3 * psi, 1e-3 * np.stack([q1, q2])


def published_two_layer(grid, **kwargs):
    return make(grid, [0.2, 0.8], f=1.0, reduced_gravity=[0.2], **kwargs)


def test_published_potential_vorticity_and_energies_of_two_layers():
    grid = double((66, 64), 2 * np.pi)
    flow = published_two_layer(grid)
    psi, q = published_fields(grid)
    assert error(grid.to_grid(flow.potential_vorticity(hat(grid, psi))), q) < 1e-13
    assert error(grid.to_grid(flow.invert(hat(grid, q))), psi) < 1e-13
    model = hg.Model(flow, hg.RK4(), dt=1.0)
    state = model.encode({"q": q})
    psi_hat = flow.invert(state.y["q"])
    layers = -np.asarray(flow.thickness * grid.inner(psi_hat, grid.laplacian(psi_hat))) / 2
    assert layers == pytest.approx([61 / 640 * 1e-6, 3e-6], rel=1e-12), layers
    assert float(hg.diagnostics.kinetic_energy(model, state)) == pytest.approx(layers.sum(), rel=1e-12)
    assert float(hg.diagnostics.potential_energy(model, state)) == pytest.approx(1025 / 1152 * 1e-6, rel=1e-12)


# Mean flows


def test_published_manufactured_solution_with_profiles_topography_drag_and_viscosity():
    """GeophysicalFlows test_mqg_nonlinearadvection: forcing against all terms by hand keeps the state for ever."""
    grid = double((98, 96), 2 * np.pi)
    x, y = grid.x[None, :] - np.pi, grid.y[:, None] - np.pi
    psi, q = published_fields(grid)
    jets = 0.5 / np.cosh(y / (2 * np.pi / 15)) ** 2, 0.02 * np.cos(3 * y)
    bump = np.exp(
        -((x + np.pi / 4) ** 2) / (2 * (2 * np.pi / 25) ** 2) - (y - np.pi / 4) ** 2 / (2 * (np.pi / 10) ** 2)
    )
    U = np.stack([0.1 + jets[0][:, 0], 0.05 + jets[1][:, 0]])
    flow = published_two_layer(grid, beta=0.35, U=U, topography=0.8 * bump, drag=0.1, tau=20.0, order=1, scale=np.pi)

    def d(a, m_x, m_y):
        k, l = np.fft.rfftfreq(96, 1 / 96), np.fft.fftfreq(98, 1 / 98)[:, None]
        return np.fft.irfft2((1j * k) ** m_x * (1j * l) ** m_y * np.fft.rfft2(a), s=a.shape[-2:])

    jacobian = lambda a, b: d(a, 1, 0) * d(b, 0, 1) - d(a, 0, 1) * d(b, 1, 0)
    laplacian = lambda a: d(a, 2, 0) + d(a, 0, 2)
    wide = [np.broadcast_to(u[:, None], q[0].shape) for u in U]
    Qy = [0.35 - d(wide[i], 0, 2) - F * (wide[1 - i] - wide[i]) for i, F in enumerate((25, 25 / 4))]
    total = [q[0], q[1] + bump]
    forcing = [jacobian(psi[i], total[i]) + Qy[i] * d(psi[i], 1, 0) + wide[i] * d(total[i], 1, 0) for i in (0, 1)]
    forcing = np.stack(forcing) - 0.05 * laplacian(q) + np.stack([0 * psi[0], 0.1 * laplacian(psi[1])])
    lifted = flow.lift({"q": jnp.asarray(forcing)})["q"]
    state = {"q": hat(grid, q)}
    residual = flow.explicit(0.0, state)["q"] + flow.implicit(state)["q"] + lifted
    found = error(residual + lifted, lifted)
    assert found < 1e-7, f"residual {found:.1e} of the forcing"


def test_waves_on_flows_in_both_directions_follow_the_matrix_exponential():
    grid, drag, beta = double(32, 2 * np.pi), 0.4, 2.0
    U, V, (k, l), slope = np.array([0.5, 0.2, -0.1]), np.array([-0.2, 0.3, 0.1]), (3, -2), (0.7, -0.4)
    height = np.array(slope) * DEPTHS[-1]
    flow = make(grid, DEPTHS, f=1.0, reduced_gravity=GRAVITY, beta=beta, U=U, V=V, drag=drag, topography=height)
    bottom = np.array([0.0, 0.0, 1.0])
    Qx, Qy = PUBLISHED @ V + bottom * slope[0], beta - PUBLISHED @ U + bottom * slope[1]
    inverse = np.linalg.inv(PUBLISHED - (k**2 + l**2) * np.eye(3))
    linear = -1j * np.diag(k * U + l * V) - (1j * np.diag(k * Qy - l * Qx) - drag * np.diag(bottom) * 13) @ inverse
    values, vectors = np.linalg.eig(linear)
    start = np.array([1.0, -0.5, 0.3])
    end_hat = vectors @ (np.exp(values * 0.2) * np.linalg.solve(vectors, start))
    expected = np.stack([abs(c) * wave(grid, k, l, np.angle(c)) for c in end_hat])
    model = hg.Model(flow, hg.RK4(), dt=0.002)
    end = run(model, model.encode({"q": start[:, None, None] * wave(grid, k, l)}), 100)
    assert error(model.view(end)["q"], expected) < 1e-9, error(model.view(end)["q"], expected)
    assert error(flow.Qx, Qx) < 1e-14 and error(flow.Qy, Qy) < 1e-14


def test_a_profile_is_the_same_as_the_jet_in_the_state():
    grid = double(32)
    jets = np.stack([a * np.sin(2 * np.pi * m * grid.y / 1e6 + m) for a, m in ((0.1, 1), (0.05, 2), (-0.04, 1))])
    mean, args = np.array([0.03, 0.01, -0.02]), dict(radii=[2e4, 1.5e4], beta=1.5e-11)
    inside = make(grid, [500.0, 900.0, 2600.0], U=mean, **args)
    about = make(grid, [500.0, 900.0, 2600.0], U=mean[:, None] + jets, **args)
    Q, q = np.asarray(about.profile[1]), eddies(grid, 3, (5e-6, 3e-6, 1e-6))
    assert error(about.U, mean) < 1e-14
    one, other = hg.Model(inside, hg.RK4(), dt=3600.0), hg.Model(about, hg.RK4(), dt=3600.0)
    full, anomaly = run(one, one.encode({"q": q + Q}), 200), run(other, other.encode({"q": q}), 200)
    assert error(one.view(full)["q"], other.view(anomaly)["q"] + Q) < 1e-10
    assert error(other.view(anomaly)["q"], q) > 0.5, "the flow must have changed"
    assert float(one.courant(full)) == pytest.approx(float(other.courant(anomaly)), rel=1e-10)


# Topography


def test_a_flow_along_the_contours_of_topography_is_steady_and_a_mean_flow_across_them_is_not():
    grid = double(32, 2 * np.pi)
    eta = 0.3 * eddies(grid, 1, 1.0)[0]
    flow = hg.QuasiGeostrophic.barotropic(grid, topography=eta)
    psi_hat = hat(grid, -eta[None]) / (grid.eigenvalues - 4.0)  # q + eta = 4 psi: Bretherton and Haidvogel (1976)
    y = {"q": flow.potential_vorticity(psi_hat)}
    terms = flow.grid.divergence(*(a * flow.view(y)["q"] for a in flow.grid.velocity(psi_hat)))
    assert float(jnp.max(jnp.abs(flow.explicit(0.0, y)["q"]))) < 1e-13 * float(jnp.max(jnp.abs(terms)))
    windy = hg.QuasiGeostrophic.barotropic(grid, U=0.5, topography=eta)
    rest = {"q": jnp.zeros_like(y["q"])}
    assert error(windy.explicit(0.0, rest)["q"], -0.5 * grid.zonal_derivative(hat(grid, eta[None]))) < 1e-13


def test_a_plane_slope_of_the_bottom_is_a_beta_of_the_lowest_layer():
    grid = double(16)
    q_hat = hat(grid, eddies(grid, 1, 1e-5))
    sloping = hg.QuasiGeostrophic.barotropic(grid, topography=(0.0, 1.5e-11))
    plane = hg.QuasiGeostrophic.barotropic(grid, beta=1.5e-11)
    assert error(sloping.explicit(0.0, {"q": q_hat})["q"], plane.explicit(0.0, {"q": q_hat})["q"]) < 1e-12
    layered = make(grid, [500.0, 1500.0], f=1e-4, radii=[2e4], topography=(2e-4, 3e-4))
    assert error(layered.Qy, [0.0, 1e-4 / 1500 * 3e-4]) < 1e-14 and error(layered.Qx, [0.0, 1e-4 / 1500 * 2e-4]) < 1e-14


def test_energy_and_enstrophy_about_topography_are_kept():
    grid = double(32)
    flow = make(grid, [500.0, 1500.0], f=1e-4, radii=[2e4], topography=100.0 * eddies(grid, 1, 1.0, 3)[0])
    H, eta = flow.thickness, hat(grid, np.stack([np.zeros(grid.shape), np.asarray(flow.topography)]))
    model = hg.Model(flow, hg.RK4(), dt=900.0)

    def invariants(state):
        total = state.y["q"] + eta
        energy = -H @ grid.inner(flow.invert(state.y["q"]), state.y["q"]) / 2
        return np.array([energy, H @ grid.inner(total, total) / 2])

    start = model.encode({"q": eddies(grid, 2, (8e-6, 4e-6))})
    end = run(model, start, 500)
    drift = invariants(end) / invariants(start) - 1
    assert np.abs(drift).max() < 1e-10, drift
    assert error(end.y["q"], start.y["q"]) > 0.3, "the flow must have changed"


# Bad input


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(), "exactly one of reduced_gravity, density and radii; got None"),
        (dict(radii=[1e4, 1e4], density=[1.0, 2.0, 3.0]), r"exactly one .*got \['density', 'radii'\]"),
        (dict(radii=[1e4]), "3 layers need 2 values of radii, or 3 with a motionless abyss below; got 1"),
        (dict(density=[1.0, 2.0], f=1.0), "3 layers need 3 values of density, or 4 .*; got 2"),
        (dict(density=[3.0, 2.0, 1.0], f=1.0), "density that grows downward"),
        (dict(reduced_gravity=[0.1, 0.1]), r"pass f \(s-1\)"),
        (dict(radii=[1e4, 1e4], topography=(0.0, 1.0)), r"topography in m .* pass f"),
        (dict(radii=[1e4, 1e4], f=1.0, topography=np.zeros((4, 4))), r"a field \(16, 16\).*or a slope \(2,\)"),
        (dict(radii=[1e4, 1e4], U=np.zeros((3, 8))), r"profile U has shape \(layers, ny\) = \(3, 16\).*got \(3, 8\)"),
        (dict(radii=[1e4, 1e4], V=[1.0, 2.0]), r"3 layers need V \(3,\); got \(2,\)"),
    ],
)
def test_layers_say_what_they_expect(arguments, message):
    with pytest.raises(ValueError, match=message):
        make(double(16), DEPTHS, **arguments)


def test_a_forcing_of_one_layer_is_not_that_of_all():
    flow = make(double(16), DEPTHS, radii=[1e4, 1e4])
    one = jnp.zeros((1, 16, 16))
    for forcing in ({"q": one}, {"u": one, "v": one}, {"q": one[0]}):
        with pytest.raises(ValueError, match=r"expected \(3, 16, 16\) \[layer, y, x\]; one layer alone"):
            flow.lift(forcing)
    with pytest.raises(ValueError, match=r"q_hat has shape \(1, 16, 9\), expected \(3, 16, 9\)"):
        flow.lift({"q_hat": jnp.zeros((1, 16, 9), complex)})
