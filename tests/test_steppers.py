"""Time steppers: order, stability and start-up."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import double, eddies, error, integrate, run, same_bits, slope, wave

import hybridgcm as hg

DT = 3600.0
GRID = double(16)
FLOW = hg.QuasiGeostrophic.two_layer(GRID, U=(0.1, 0.0), tau=5 * 86400.0, order=2)
START = {"q": eddies(GRID, 2, (2e-5, 1e-5), peak=3.0)}


class Leith(hg.AbstractClosure):
    """dq = div(nu grad q), nu = (C dx)^3 |grad q|: a closure that is nonlinear in the state."""

    constant: jax.Array = hg.param()

    def init(self, fields, grid):
        return None

    def __call__(self, fields, grid, memory, key):
        q_x, q_y = grid.gradient(grid.to_spectral(fields["q"]))
        nu = (self.constant * grid.spacing) ** 3 * jnp.sqrt(q_x**2 + q_y**2 + 1e-24)
        return {"q": grid.to_grid(grid.divergence(nu * q_x, nu * q_y))}, memory


def after(stepper, time, steps, equation=FLOW, start=START):
    """q at `time` (s), reached in `steps` steps."""
    y = {"q": equation.grid.to_spectral(jnp.asarray(start["q"]))}
    return integrate(stepper, equation, y, jnp.asarray(time / steps), jnp.asarray(steps))["q"]


def measured_order(stepper, time, counts, exact, **kwargs):
    errors = [error(after(stepper, time, n, **kwargs), exact) for n in counts]
    return slope(1 / np.array(counts), errors), errors


# Order


ORDERS = [
    (hg.RK4(), (16, 32, 64)),
    (hg.SIL3(), (32, 64, 128)),
    (hg.steppers.BPR353(), (32, 64, 128)),
    (hg.ETDRK4(), (16, 32, 64)),
    (hg.SemiImplicitLeapfrog(), (64, 128, 256)),
    (hg.SemiImplicitLeapfrog(robert=0.0), (64, 128, 256)),
]


@pytest.mark.parametrize(("stepper", "counts"), ORDERS, ids=lambda x: type(x).__name__)
def test_order_on_the_nonlinear_two_layer_flow(stepper, counts):
    exact = after(hg.RK4(), 4 * 86400.0, 512)
    found, errors = measured_order(stepper, 4 * 86400.0, counts, exact)
    assert errors[0] < 0.1 and abs(found - stepper.order) < 0.2, f"order {found:.2f}, errors {errors}"


def test_sil3_is_of_second_order_where_the_implicit_part_dominates():
    stiff = eqx.tree_at(lambda f: f.tau, FLOW, jnp.asarray(6 * 3600.0))
    exact = after(hg.RK4(), 4 * 86400.0, 512, stiff)
    found, errors = measured_order(hg.SIL3(), 4 * 86400.0, (32, 64, 128), exact, equation=stiff)
    assert abs(found - 2) < 0.2, f"order {found:.2f}, errors {errors}"


def test_sil3_is_of_third_order_for_linear_explicit_waves():
    grid = double(16, 2 * np.pi)
    flow, start = hg.QuasiGeostrophic.barotropic(grid, beta=2.0), {"q": wave(grid, 3, 2)[None]}
    exact = grid.to_spectral(jnp.asarray(wave(grid, 3, 2, 6 / 13 * 10.0))[None])
    found, errors = measured_order(hg.SIL3(), 10.0, (20, 40, 80), exact, equation=flow, start=start)
    assert abs(found - 3) < 0.2, f"order {found:.2f}, errors {errors}"


def tendency(equation, y):
    return equation.explicit(0.0, y)["q"] + equation.implicit(y)["q"]


@eqx.filter_jit
def ab3_with_history(y, history, dt, steps):
    """AB3 from y with the two earlier tendencies given, in the form in which the stepper keeps them."""
    before, last = history
    rest, second = dt * (5 * before - 16 * last) / 12, dt * 5 * last / 12
    past = {"next": {"q": rest}, "second": {"q": second}, "count": jnp.int32(2)}
    F = lambda offset, y: FLOW.explicit(offset, y)
    return jax.lax.fori_loop(0, steps, lambda _, carry: hg.AB3()(F, FLOW, *carry, dt), ({"q": y}, past))[0]["q"]


def test_ab3_is_of_third_order_once_it_has_a_history_and_of_second_with_its_start_by_euler():
    time, counts, errors = 4 * 86400.0, (64, 128, 256), []
    exact = after(hg.RK4(), time, 1024)
    for n in counts:
        y0 = GRID.to_spectral(jnp.asarray(START["q"]))
        y1, y2 = (after(hg.RK4(), m * time / n, 16 * m) for m in (1, 2))
        history = tendency(FLOW, {"q": y0}), tendency(FLOW, {"q": y1})
        errors.append(error(ab3_with_history(y2, history, jnp.asarray(time / n), jnp.asarray(n - 2)), exact))
    found = slope(1 / np.array(counts), errors)
    assert abs(found - 3) < 0.2, f"order {found:.2f}, errors {errors}"
    started, errors = measured_order(hg.AB3(), time, (256, 512, 1024), exact)
    assert abs(started - 2) < 0.3, f"order {started:.2f} with its own start, errors {errors}"


def test_holding_the_closure_is_of_first_order_and_evaluating_it_per_stage_restores_the_order():
    time = 2 * 86400.0

    def held(steps, hold):
        model = hg.Model(FLOW, hg.RK4(), Leith(0.6), dt=time / steps, hold=hold)
        return run(model, model.encode(START), steps).y["q"]

    exact = held(512, False)
    once = [error(held(n, True), exact) for n in (64, 192)]
    staged = [error(held(n, False), exact) for n in (16, 32)]
    orders = slope([3, 1], once), slope([2, 1], staged)
    bare = error(after(hg.RK4(), time, 64), exact)
    assert bare > 10 * once[0], f"the closure must matter: {bare:.1e} without it, {once} held"
    assert abs(orders[0] - 1) < 0.2 and abs(orders[1] - 4) < 0.2, f"orders {orders}, errors {once} and {staged}"


STAGED = {
    "RK4": (hg.RK4(), 4),
    "ETDRK4": (hg.ETDRK4(), 4),
    "SIL3": (hg.SIL3(), 2),
    "BPR353": (hg.steppers.BPR353(), 3),
    "Diffrax": (hg.steppers.FromDiffrax(diffrax.Bosh3()), 3),
}


@pytest.mark.parametrize("name", STAGED)
def test_stages_see_their_own_time(name):
    stepper, degree = STAGED[name]
    flow, y = hg.QuasiGeostrophic.barotropic(GRID), {"q": jnp.zeros((1, *GRID.spectral_shape), complex)}
    for power in range(degree):  # a forcing t^power over two seconds
        F = lambda offset, y, power=power: {"q": y["q"] * 0 + jnp.asarray(offset, float) ** power}
        found = stepper(F, flow, y, stepper.init(y), 2.0)[0]["q"]
        expected = 2.0 ** (power + 1) / (power + 1)
        assert np.allclose(found, expected, rtol=1e-13), f"t^{power}: {complex(found[0, 0, 0])} for {expected}"


# What each scheme computes


def test_ab3_is_euler_then_ab2_then_ab3():
    model = hg.Model(FLOW, hg.AB3(), dt=DT)
    step = eqx.filter_jit(lambda s: model.step(s))
    state = model.encode(START)
    y, f = state.y["q"], []
    for weights in ((1,), (3 / 2, -1 / 2), (23 / 12, -16 / 12, 5 / 12), (23 / 12, -16 / 12, 5 / 12)):
        f.insert(0, tendency(FLOW, {"q": y}))
        y = y + DT * sum(w * g for w, g in zip(weights, f, strict=False))
        state = step(state)
        assert error(state.y["q"], y) < 3e-15, error(state.y["q"], y)
        y = state.y["q"]


def test_filtered_multiplies_the_state_but_not_the_history():
    factor = hg.exponential_filter(GRID)
    plain, filtered = hg.Model(FLOW, hg.AB3(), dt=DT), hg.Model(FLOW, hg.Filtered(hg.AB3(), factor), dt=DT)
    one, other = (eqx.filter_jit(type(m).step)(m, m.encode(START)) for m in (plain, filtered))
    assert error(other.y["q"], factor * one.y["q"]) < 1e-15
    assert same_bits(one.past, other.past)
    assert float(jnp.min(factor)) < 0.1 and float(jnp.max(factor)) == 1.0


def test_the_exponential_filter_is_pyqgs_by_hand():
    grid = double(32, 1e6, None)
    factor = hg.exponential_filter(grid)
    for row, column in ((0, 3), (4, 10), (11, 12), (16, 16), (-10, 9)):
        K = 2 * np.pi / 32 * np.hypot(min(row % 32, 32 - row % 32), column)
        expected = np.exp(-23.6 * max(K - 0.65 * np.pi, 0) ** 4)
        assert float(factor[row, column]) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("stiffness", [1e-2, 1.0, 1e2, 1e4, 1e8])
def test_sil3_damps_at_any_stiffness_of_the_implicit_part(stiffness):
    flow = hg.QuasiGeostrophic.barotropic(GRID, tau=DT / stiffness)
    start = {"q": 1e-9 * wave(GRID, 5, 5)[None]}
    sizes = [float(jnp.max(jnp.abs(after(hg.SIL3(), n * DT, n, flow, start)))) for n in (1, 20)]
    assert sizes[1] < sizes[0] < 0.5e-9, sizes
    if stiffness < 1:
        assert sizes[0] == pytest.approx(0.5e-9 * np.exp(-stiffness), rel=1e-6), sizes


def test_sil3_runs_a_nonlinear_flow_with_dissipation_far_beyond_the_explicit_limit():
    stiff = eqx.tree_at(lambda f: f.tau, FLOW, jnp.asarray(DT / 1000))
    end = after(hg.SIL3(), 200 * DT, 200, stiff)
    assert bool(jnp.isfinite(end).all()) and float(jnp.max(jnp.abs(end))) < 1e-4
    with np.errstate(all="ignore"):
        assert not bool(jnp.isfinite(after(hg.AB3(), 200 * DT, 200, stiff)).all()), "explicit AB3 must fail here"
