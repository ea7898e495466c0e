"""Layered quasi-geostrophic flow against exact solutions, linear theory and its invariants."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import double, eddies, error, run, wave

import hybridgcm as hg

DAY = 86400.0
SHEARED = np.array([[-20.0, 20.0, 0.0], [20.0, -44.0, 24.0], [0.0, 12.0, -12.0]])  # m-2, depths 1 : 1 : 2
STEPPERS = {"AB3": (hg.AB3(), 1e-3, 200, 2e-7), "RK4": (hg.RK4(), 1e-2, 20, 1e-10), "SIL3": (hg.SIL3(), 1e-2, 20, 1e-7)}
every_stepper = pytest.mark.parametrize("name", STEPPERS)


def three_layer(grid, **kwargs):
    return hg.QuasiGeostrophic(grid, SHEARED, [0.25, 0.25, 0.5], **kwargs)


def no_mean(a_hat):
    return a_hat.at[..., 0, 0].set(0)


# Inversion and parameters


@pytest.mark.parametrize("make", [hg.QuasiGeostrophic.two_layer, hg.QuasiGeostrophic.barotropic, three_layer])
def test_potential_vorticity_and_streamfunction_are_inverse(make):
    length = (2 * np.pi, 6 * np.pi) if make is three_layer else (1e6, 3e6)
    flow = make(double((24, 40), length))
    q_hat = no_mean(flow.grid.to_spectral(jnp.asarray(eddies(flow.grid, flow.layers, 1e-5))))
    back = flow.potential_vorticity(flow.invert(q_hat))
    assert error(back, q_hat) < 1e-12, error(back, q_hat)
    psi_hat = flow.invert(q_hat)
    assert error(flow.invert(flow.potential_vorticity(psi_hat)), psi_hat) < 1e-12
    assert float(jnp.max(jnp.abs(flow.invert(jnp.ones_like(q_hat))[:, 0, 0]))) == 0.0, "the mean of psi is zero"


def test_inversion_of_a_wave_is_the_two_by_two_solve_by_hand():
    grid = double(32, 1e6)
    flow = hg.QuasiGeostrophic.two_layer(grid, rd=2e4, delta=0.3)
    F1, F2, k2 = 2e4**-2 / 1.3, 0.3 * 2e4**-2 / 1.3, (2 * np.pi / 1e6) ** 2 * (9 + 16)
    q = np.array([3.0, -1.0]) * 1e-6
    psi = np.linalg.solve([[-k2 - F1, F1], [F2, -k2 - F2]], q)
    found = flow.view({"q": grid.to_spectral(jnp.asarray(q[:, None, None] * wave(grid, 3, 4)))})
    assert error(found["psi"], psi[:, None, None] * wave(grid, 3, 4)) < 1e-12
    l = 2 * np.pi * 4 / 1e6
    assert error(found["u"], l * psi[:, None, None] * wave(grid, 3, 4, -np.pi / 2)) < 1e-12, "u = -dpsi/dy"


@pytest.mark.parametrize(
    ("regime", "F", "Qy", "rel"),
    [
        ({}, (3.556e-9, 8.889e-10), (1.0389e-10, -7.222e-12), 1e-4),
        ({"delta": 0.1, "beta": 1e-11, "drag": 7e-8}, (4.040e-9, 4.040e-10), (1.1101e-10, -1.01e-13), 2e-3),
    ],
    ids=["eddy", "jet"],
)
def test_two_layer_has_the_published_stretching_and_gradients(regime, F, Qy, rel):
    flow = hg.QuasiGeostrophic.two_layer(double(16), **regime)
    S = np.asarray(flow.stretching)
    assert S[0, 1] == pytest.approx(F[0], rel=2e-4) and S[1, 0] == pytest.approx(F[1], rel=2e-4)
    assert np.abs(S.sum(1)).max() == 0.0, "a flow that is the same in all layers is not stretched"
    assert np.asarray(flow.Qy) == pytest.approx(Qy, rel=rel), flow.Qy
    H = np.asarray(flow.thickness)
    assert np.allclose(H[:, None] * S, (H[:, None] * S).T, rtol=1e-15), "energy needs H S symmetric"


def test_gradients_follow_the_mean_flow_because_they_are_not_stored():
    flow = hg.QuasiGeostrophic.two_layer(double(16))
    still = eqx.tree_at(lambda f: f.U, flow, jnp.zeros(2))
    assert np.asarray(still.Qy) == pytest.approx([1.5e-11, 1.5e-11], rel=1e-12)


def test_barotropic_with_a_deformation_radius():
    grid = double(32, 2 * np.pi)
    flow = hg.QuasiGeostrophic.barotropic(grid, rd=1.23, beta=2.0, U=0.3)
    psi_hat = grid.to_spectral(jnp.asarray(wave(grid, 3, 2))[None])
    q = grid.to_grid(flow.potential_vorticity(psi_hat))
    assert error(q[0], -(13 + 1.23**-2) * wave(grid, 3, 2)) < 1e-13
    assert float(flow.Qy[0]) == pytest.approx(2.0 + 0.3 / 1.23**2, rel=1e-14)


def test_single_precision_inverts_to_single_accuracy():
    q, out = None, []
    for dtype in (jnp.float64, jnp.float32):
        flow = hg.QuasiGeostrophic.two_layer(hg.Torus(32, 1e6, dtype=dtype))
        q = eddies(flow.grid, 2, 5e-6) if q is None else q
        y = {"q": flow.grid.to_spectral(jnp.asarray(q, dtype))}
        out.append((flow.view(y), flow.explicit(0.0, y)))
        assert {a.dtype for a in jax.tree.leaves(out[-1][0])} == {jnp.dtype(dtype)}
    worst = max(error(b, a) for a, b in zip(jax.tree.leaves(out[0]), jax.tree.leaves(out[1])))
    assert worst < 2e-6, worst


# Waves


@every_stepper
@pytest.mark.parametrize("U", [0.0, 0.3])
@pytest.mark.parametrize(("rd", "omega"), [(np.inf, -0.461538), (1.23, -0.439207)])
def test_barotropic_rossby_waves_keep_their_dispersion_relation(name, rd, omega, U):
    stepper, dt, steps, tolerance = STEPPERS[name]
    grid = double(32, 2 * np.pi)
    model = hg.Model(hg.QuasiGeostrophic.barotropic(grid, rd=rd, beta=2.0, U=U), stepper, dt=dt)
    # omega = k U - (beta + U/rd2) k / (k2 + l2 + 1/rd2): the mean flow brings its own gradient of stretching.
    shifted = 3 * U - (2 + U / rd**2) * 3 / (13 + rd**-2)
    assert U or shifted == pytest.approx(omega, abs=1e-6)
    end = run(model, model.encode({"q": 1e-2 * wave(grid, 3, 2)[None]}), steps)
    expected = 1e-2 * wave(grid, 3, 2, -shifted * dt * steps)[None]
    found = error(model.view(end)["q"], expected)
    assert found < tolerance, f"{name}: relative error {found:.2e}"
    assert error(model.view(end)["q"], 1e-2 * wave(grid, 3, 2)[None]) > 1e-2, "the wave must have moved"


@every_stepper
def test_two_layer_waves_split_into_barotropic_and_baroclinic(name):
    stepper, dt, steps, _ = STEPPERS[name]
    grid, delta, beta = double(32, 2 * np.pi), 0.25, 2.0
    flow = hg.QuasiGeostrophic.two_layer(grid, rd=0.5, delta=delta, beta=beta, U=(0.0, 0.0), drag=0.0)
    model = hg.Model(flow, stepper, dt=dt)
    for modes, stretching in (((1.0, 1.0), 0.0), ((1.0, -delta), 4.0)):  # psi by layer; F1 + F2 = 1/rd2
        q = -(13 + stretching) * 1e-2 * np.array(modes)[:, None, None] * wave(grid, 3, 2)
        omega = -beta * 3 / (13 + stretching)
        end = run(model, model.encode({"q": q}), steps)
        expected = -(13 + stretching) * 1e-2 * np.array(modes)[:, None, None] * wave(grid, 3, 2, -omega * dt * steps)
        assert error(model.view(end)["q"], expected) < 2e-7, error(model.view(end)["q"], expected)


def linear_matrix(S, U, beta, k, l, drag=0.0):
    """-i omega as a matrix on q by layer, by hand: q_t = (-ik U - (ik Qy + friction) (S - kappa2)^-1) q."""
    S, U = np.asarray(S), np.asarray(U)
    kappa2 = k**2 + l**2
    inverse = np.linalg.inv(S - kappa2 * np.eye(len(U)))
    bottom = np.zeros(len(U))
    bottom[-1] = drag
    return -1j * k * np.diag(U) - (1j * k * np.diag(beta - S @ U) - np.diag(bottom) * kappa2) @ inverse


@every_stepper
def test_three_sheared_layers_follow_the_matrix_exponential(name):
    stepper, dt, steps, _ = STEPPERS[name]
    grid, U = double(32, 2 * np.pi), (0.5, 0.2, -0.1)
    model = hg.Model(three_layer(grid, beta=2.0, U=U, drag=0.4), stepper, dt=dt)
    values, vectors = np.linalg.eig(linear_matrix(SHEARED, U, 2.0, 3, 2, 0.4))
    start = np.array([1.0, -0.5, 0.3])
    end_hat = vectors @ (np.exp(values * dt * steps) * np.linalg.solve(vectors, start))
    q = start[:, None, None] * wave(grid, 3, 2)
    expected = np.stack([abs(c) * wave(grid, 3, 2, np.angle(c)) for c in end_hat])
    found = error(model.view(run(model, model.encode({"q": q}), steps))["q"], expected)
    assert found < 1e-6, f"{name}: relative error {found:.2e}"


@pytest.mark.parametrize(("drag", "published"), [(0.0, 1.680009e-7), (5.787e-7, 7.795041e-8)])
def test_phillips_growth_rate_of_eddy(drag, published):
    grid, k = double(32), 2 * np.pi * 7 / 1e6
    flow = hg.QuasiGeostrophic.two_layer(grid, drag=drag)
    F1, F2 = 15e3**-2 / 1.25, 0.25 * 15e3**-2 / 1.25
    theory = np.linalg.eigvals(linear_matrix([[-F1, F1], [F2, -F2]], (0.025, 0), 1.5e-11, k, 0.0, drag)).real.max()
    assert theory == pytest.approx(published, rel=1e-5), theory
    model = hg.Model(flow, hg.RK4(), dt=14400.0)
    start = run(model, model.encode({"q": 1e-14 * np.stack([wave(grid, 7, 0), 0 * wave(grid, 7, 0)])}), 500 * 6)
    end = run(model, start, 100 * 6)
    amplitude = lambda s: float(jnp.abs(s.y["q"][0, 0, 7]))
    growth = np.log(amplitude(end) / amplitude(start)) / (100 * DAY)
    assert growth == pytest.approx(theory, rel=1e-4), f"{growth:.6e} against {theory:.6e}: {growth / theory - 1:.1e}"


@pytest.mark.parametrize("m", [(3, 2), (0, 4), (7, -5)])
def test_a_plane_wave_does_not_advect_itself(m):
    grid = double(32, 2 * np.pi)
    flow = hg.QuasiGeostrophic.barotropic(grid)
    y = {"q": grid.to_spectral(jnp.asarray(wave(grid, *m))[None])}
    assert float(jnp.max(jnp.abs(flow.explicit(0.0, y)["q"]))) < 1e-14


# Friction and dissipation


def test_drag_is_antiparallel_to_the_flow_of_the_lowest_layer_only():
    grid = double(32)
    flow, free = (hg.QuasiGeostrophic.two_layer(grid, drag=drag) for drag in (5e-7, 0.0))
    y = {"q": grid.to_spectral(jnp.asarray(eddies(grid, 2, 5e-6)))}
    friction = flow.explicit(0.0, y)["q"] - free.explicit(0.0, y)["q"]
    fields = flow.view(y)
    bottom = jnp.array([0.0, 1.0])[:, None, None]
    against = flow.lift({"u": -5e-7 * bottom * fields["u"], "v": -5e-7 * bottom * fields["v"]})["q"]
    assert float(jnp.max(jnp.abs(friction[0]))) == 0.0
    assert error(friction, against) < 1e-9, error(friction, against)
    work = -grid.inner(flow.invert(y["q"]), friction) @ flow.thickness
    loss = -5e-7 * grid.mean(fields["u"] ** 2 + fields["v"] ** 2)[1] * flow.thickness[1]
    assert float(work) == pytest.approx(float(loss), rel=1e-9) and float(loss) < 0


def test_drag_decays_a_wave_at_exactly_its_rate():
    grid = double(32)
    model = hg.Model(hg.QuasiGeostrophic.barotropic(grid, drag=5.787e-7), hg.RK4(), dt=3600.0)
    end = run(model, model.encode({"q": 1e-5 * wave(grid, 3, 4)[None]}), 480)
    expected = 1e-5 * np.exp(-5.787e-7 * 480 * 3600) * wave(grid, 3, 4)[None]
    assert error(model.view(end)["q"], expected) < 1e-12, error(model.view(end)["q"], expected)


@pytest.mark.parametrize(("stepper", "order"), [(hg.RK4(), 4), (hg.SIL3(), 1)], ids=lambda x: str(x)[:4])
def test_dissipation_is_a_rate_whatever_the_step_and_the_resolution(order, stepper):
    tau, scale, m, length, time = 5 * DAY, 5e4, 7, 1e6, 2 * DAY
    eigenvalue, reference = (2 * np.pi * m / length) ** 2, (np.pi / scale) ** 2
    expected = np.exp(-time * (eigenvalue / reference) ** order / tau)
    for n, dt in ((32, 3600.0), (32, 7200.0), (64, 3600.0)):
        grid = double(n, length)
        flow = hg.QuasiGeostrophic.barotropic(grid, tau=tau, order=order, scale=scale)
        model = hg.Model(flow, stepper, dt=dt)
        end = run(model, model.encode({"q": wave(grid, m, 0)[None]}), int(time / dt))
        left = 2 * float(jnp.abs(end.y["q"][0, 0, m]))
        assert left == pytest.approx(expected, rel=1e-6), f"n={n}, dt={dt}: {left / expected - 1:.1e}"


@pytest.mark.parametrize("kind", [None, 2 / 3, 3 / 2])
def test_by_default_the_smallest_resolved_wave_decays_at_one_over_tau(kind):
    flow = hg.QuasiGeostrophic.two_layer(double(32, dealias=kind), tau=1e4)
    resolved = np.asarray(flow.grid.multiplicity) > 0
    assert float(np.asarray(flow.dissipation)[resolved].max()) == pytest.approx(1e-4, rel=1e-14)
    assert float(flow.dissipation[0, 0]) == 0.0, "the mean is kept"


def test_solve_is_the_inverse_of_one_minus_a_times_implicit():
    grid = double(32)
    flow = hg.QuasiGeostrophic.two_layer(grid, tau=3600.0)
    y = {"q": grid.to_spectral(jnp.asarray(eddies(grid, 2, 5e-6)))}
    back = flow.solve({"q": y["q"] - 5e3 * flow.implicit(y)["q"]}, 5e3)
    assert error(back["q"], y["q"]) < 1e-14


# Invariants


def invariants(flow, y):
    """Energy and potential enstrophy, both weighted with the thickness of the layers."""
    H, grid = flow.thickness, flow.grid
    return np.array([-H @ grid.inner(flow.invert(y["q"]), y["q"]) / 2, H @ grid.inner(y["q"], y["q"]) / 2])


@pytest.mark.parametrize("kind", [2 / 3, 3 / 2, None])
def test_energy_and_enstrophy_are_kept_when_products_are_dealiased(kind):
    grid = double(32, dealias=kind)
    flow = hg.QuasiGeostrophic.two_layer(grid, U=(0.02, 0.02), drag=0.0)
    model = hg.Model(flow, hg.RK4(), dt=900.0)
    start = model.encode({"q": eddies(grid, 2, (8e-6, 2e-6), peak=5.0)})
    speed = float(jnp.sqrt(jnp.max(model.view(start)["u"] ** 2)))
    before, end = invariants(flow, start.y), run(model, start, 1000)
    drift = np.abs(invariants(flow, end.y) / before - 1)
    moved = error(end.y["q"], start.y["q"])
    assert speed > 0.03 and moved > 0.3, f"a developed flow: {speed:.3f} m/s, changed by {moved:.2f}"
    if kind is None:
        assert drift.max() > 1e-8, f"aliasing must break the invariants; drift {drift}"
    else:
        assert drift.max() < 1e-10, f"relative drift of energy and enstrophy {drift}"


def test_shear_releases_exactly_the_energy_that_the_budget_says():
    grid = double(32)
    flow = hg.QuasiGeostrophic.two_layer(grid, drag=0.0)
    y = {"q": grid.to_spectral(jnp.asarray(eddies(grid, 2, 5e-6)))}
    psi_hat = flow.invert(y["q"])
    rate = -flow.thickness @ grid.inner(psi_hat, flow.explicit(0.0, y)["q"])
    # Vallis (2017), section 9.4: available potential energy of the mean flow, H1 F1 (U1 - U2) <v2 psi1>.
    v, psi = (grid.to_grid(a) for a in (grid.zonal_derivative(psi_hat), psi_hat))
    release = flow.thickness[0] * flow.stretching[0, 1] * (flow.U[0] - flow.U[1]) * grid.mean(v[1] * psi[0])
    assert float(rate) == pytest.approx(float(release), rel=1e-9), (float(rate), float(release))


# Units


@pytest.mark.parametrize(
    ("stepper", "dtype"),
    [(hg.AB3(), jnp.float32), (hg.RK4(), jnp.float32), (hg.SIL3(), jnp.float64)],
    ids=lambda x: str(x)[:4],
)
def test_a_change_of_units_by_powers_of_two_changes_no_bit(stepper, dtype):
    """Dimensions: only a formula that is right in metres and seconds is invariant under their rescaling."""
    ends = []
    for L, T in ((1.0, 1.0), (2.0**3, 2.0**-2)):
        grid = hg.Torus(32, 1e6 * L, dtype=dtype)
        flow = hg.QuasiGeostrophic.two_layer(
            grid, rd=15e3 * L, beta=1.5e-11 / L / T, U=(0.025 * L / T, 0.0), drag=5.787e-7 / T, tau=2e4 * T
        )
        factor = hg.exponential_filter(grid)
        model = hg.Model(flow, hg.Filtered(stepper, factor), dt=3600.0 * T)
        q = eddies(double(32), 2, 5e-6) / T
        fields = model.view(run(model, model.encode({"q": q}), 20))
        ends.append(
            [np.asarray(fields["q"]) * T, np.asarray(fields["u"]) * (T / L), np.asarray(fields["psi"]) * (T / L**2)]
        )
    for name, one, other in zip(("q", "u", "psi"), *ends):
        assert np.array_equal(one, other), f"{name} differs by {error(one, other):.1e}"


# Bad input


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda g: hg.QuasiGeostrophic(g, np.eye(2), [1.0, 1.0, 1.0]), "3 thicknesses need stretching"),
        (lambda g: hg.QuasiGeostrophic(g, np.eye(2), [1.0, 1.0], U=(1.0, 2.0, 3.0)), r"got \(2, 2\) and \(3,\)"),
        (lambda g: hg.QuasiGeostrophic.two_layer(g, drag=-1e-7), "positive numbers damp"),
        (lambda g: hg.QuasiGeostrophic.two_layer(g, tau=-1.0), "positive numbers damp"),
        (lambda g: hg.QuasiGeostrophic.two_layer(g, rd=0.0), "rd > 0"),
        (lambda g: hg.QuasiGeostrophic.barotropic(g, rd=-1.0), "rd > 0"),
    ],
)
def test_constructors_say_what_they_expect(make, message):
    with pytest.raises(ValueError, match=message):
        make(double(16))
