"""A closure that goes mad in the middle of a run is switched off in the same step, and the run goes on without it."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from helpers import double, eddies, error, run, same_bits

import hybridgcm as hg
from hybridgcm.closures import AR1, FailSafe, Leith
from hybridgcm.nn import CNN

GRID = double(16)
FLOW = hg.QuasiGeostrophic.two_layer(GRID, tau=86400.0)
RMS = (5e-6, 5e-7)  # of q per layer, s-1
Q = eddies(GRID, 2, RMS)
SAMPLES = np.stack([(0.9 + 0.02 * seed) * eddies(GRID, 2, RMS, seed) for seed in range(8)])


def leith(q):
    """Forcing of q by the closure that every test guards, on the grid."""
    fields = FLOW.view({"q": GRID.to_spectral(jnp.asarray(q))})
    return np.asarray(GRID.to_grid(Leith(0.5)(fields, GRID, None, jr.key(0))[0]["q_hat"]))


DATA = {"inputs": {"q": SAMPLES}, "outputs": {"q": np.stack([leith(q) for q in SAMPLES])}}


HOW = ("hundredfold", "overflow", "huge", "nan", "bias", "nan in memory", "root")
mad = pytest.mark.parametrize("how", HOW)


class Mad(hg.AbstractClosure):
    """`inner` that after `sane` calls is treated in the way number `how`; its memory carries a number along."""

    inner: hg.AbstractClosure
    how: jax.Array
    sane: jax.Array

    def __init__(self, inner, how="hundredfold", sane=10):
        self.inner, self.how, self.sane = inner, jnp.asarray(HOW.index(how)), jnp.asarray(sane)

    def init(self, fields, grid):
        return {"calls": jnp.zeros((), jnp.int32), "number": jnp.ones(3, grid.dtype)}

    def __call__(self, fields, grid, memory, key):
        f, is_mad = self.inner(fields, grid, None, key)[0]["q_hat"], memory["calls"] >= self.sane
        ways = {
            "hundredfold": lambda f: 100 * f,
            "overflow": lambda f: f * jnp.exp(jnp.asarray(1e4, grid.dtype)),
            "huge": lambda f: 1e30 * f,
            "nan": lambda f: f.at[0, 1, 2].set(jnp.nan),
            "bias": lambda f: f + 1e-9 * (grid.eigenvalues < 0),
            "nan in memory": lambda f: f,
            "root": lambda f: f * jnp.sqrt(-1 - jnp.sum(fields["q"] ** 2)),  # its derivative is not finite either
        }
        new = jax.lax.switch(self.how, [ways[how] for how in HOW], f)
        number = memory["number"] * jnp.where(is_mad & (self.how == HOW.index("nan in memory")), jnp.nan, 1)
        return {"q_hat": jnp.where(is_mad, new, f)}, {"calls": memory["calls"] + 1, "number": number}


def model_with(closure):
    return hg.Model(FLOW, hg.AB3(), closure, dt=3600.0)


GUARDED = FailSafe.from_data(Mad(Leith(0.5)), **DATA, grid=GRID)


def guarded(how="hundredfold", sane=10):
    return eqx.tree_at(lambda c: c.inner, GUARDED, Mad(Leith(0.5), how, sane))


def finite(tree):
    return all(np.isfinite(np.asarray(a)).all() for a in jax.tree.leaves(tree) if eqx.is_inexact_array(a))


def equal(a, b):
    """Every number the same; only zeros, to which the solver has added zero, may have lost their sign."""
    return all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


# Mad outputs


@mad
def test_a_mad_closure_is_off_within_the_step_and_the_pure_solver_goes_on_bit_for_bit(how):
    model, pure = model_with(guarded(how)), model_with(None)
    ten = run(model, model.encode({"q": Q}, jr.key(1)), 10)
    assert int(ten.memory["events"]) == 0 and float(ten.memory["weight"]) == 1
    bare = eqx.tree_at(lambda s: s.memory, ten, None)
    for steps in (1, 20):
        end, expected = run(model, ten, steps), run(pure, bare, steps)
        assert equal((end.y, end.past), (expected.y, expected.past)), f"{how}: not the pure solver after {steps}"
        memory = end.memory
        assert (int(memory["events"]), int(memory["first"]), float(memory["weight"])) == (steps, 10, 0.0)
        assert int(memory["calls"]) == 10 + steps and int(memory["inner"]["calls"]) == 10 + steps
        assert finite(end)


def test_unguarded_all_of_these_ruin_the_run():
    for how in HOW:
        model = model_with(Mad(Leith(0.5), how))
        state = run(model, model.encode({"q": Q}), 60)
        rms = float(jnp.max(jnp.abs(model.view(state)["q"])))
        assert not finite(state) or rms > 3 * np.abs(Q).max(), f"{how} is harmless: {rms}"


@functools.cache
def derivatives():
    """Compiled: gradient of a loss after five steps by closure and start, and the derivative along the start."""

    def loss(closure, q):
        model = model_with(closure)
        state = hg.rollout(model, model.encode({"q": q}), 5, every=5, save=None)[0]
        return jnp.mean((model.view(state)["q"] / np.reshape(RMS, (2, 1, 1))) ** 2)

    both = lambda closure, q: (
        eqx.filter_grad(lambda pair: loss(*pair))((closure, q)),
        jax.jvp(lambda q: loss(closure, q), (q,), (q,))[1],
    )
    return eqx.filter_jit(both)


@mad
def test_derivatives_of_a_run_through_madness_are_those_of_the_pure_solver(how):
    (weights, slopes), along = derivatives()(guarded(how, 0), q := jnp.asarray(Q))
    (_, pure), _ = derivatives()(None, q)
    assert error(slopes, pure) < 1e-12
    assert float(weights.inner.inner.constant) == 0.0
    assert float(along) == pytest.approx(float(jnp.sum(pure * q)), rel=1e-10)


def test_network_with_broken_weights_is_off_and_its_gradient_zero():
    net = CNN((2, 4, 2), (3, 3), key=jr.key(0))
    net = eqx.tree_at(lambda net: net.weights[0], net, jnp.full_like(net.weights[0], jnp.nan))
    inner = hg.NetworkClosure(net, ("q",), ("q",), RMS, (2e-11, 2e-13))
    closure = FailSafe.from_data(inner, **DATA, grid=GRID)
    model = model_with(closure)
    fields = model.view(model.encode({"q": Q}))

    def size(closure):
        return 1e20 * jnp.sum(closure(fields, GRID, closure.init(fields, GRID), jr.key(0))[0]["q"] ** 2)

    value, slopes = eqx.filter_jit(eqx.filter_value_and_grad(size))(closure)
    assert float(value) == 0 and all(not np.asarray(a).any() for a in jax.tree.leaves(slopes))


def test_single_precision_survives_as_well():
    grid = hg.Torus(16, 1e6)
    flow = hg.QuasiGeostrophic.two_layer(grid, tau=86400.0)
    data = {"inputs": {"q": SAMPLES.astype(np.float32)}, "outputs": {"q": DATA["outputs"]["q"].astype(np.float32)}}
    closure = FailSafe.from_data(Mad(Leith(0.5)), **data, grid=grid)
    for how in ("overflow", "huge", "nan", "hundredfold"):
        model = hg.Model(flow, hg.AB3(), eqx.tree_at(lambda c: c.inner, closure, Mad(Leith(0.5), how)), dt=3600.0)
        end = run(model, model.encode({"q": Q}), 15)
        assert finite(end) and int(end.memory["events"]) == 5, how


# Inputs unlike the training


@eqx.filter_jit
def _weight(closure, q):
    fields = FLOW.view({"q": GRID.to_spectral(q)})
    return closure(fields, GRID, closure.init(fields, GRID), jr.key(0))[1]["weight"]


def weight_of(closure, q):
    return float(_weight(closure, jnp.asarray(q)))


def test_training_data_pass_untouched_and_other_flows_do_not():
    closure = FailSafe.from_data(Leith(0.5), **DATA, grid=GRID)
    for q in SAMPLES:
        fields = FLOW.view({"q": GRID.to_spectral(jnp.asarray(q))})
        forcing, memory = closure(fields, GRID, closure.init(fields, GRID), jr.key(0))
        assert float(memory["weight"]) == 1
        assert equal(forcing, Leith(0.5)(fields, GRID, None, jr.key(0))[0])
    for factor in (5.0, 0.2, 1e-3, 0.0):
        assert weight_of(closure, factor * Q) == 0, factor
    smooth = eddies(GRID, 2, RMS, peak=1.0)
    tight = FailSafe.from_data(Leith(0.5), **DATA, grid=GRID, novelty=(3, 5))
    assert weight_of(tight, smooth) == 0, "same rms, other scale"
    assert weight_of(closure, np.full_like(Q, np.nan)) == 0


def test_a_flow_pushed_out_of_the_training_runs_on_without_its_closure():
    model = model_with(guarded(sane=10**6))
    state = run(model, model.encode({"q": Q}), 5)
    kicked = eqx.tree_at(lambda s: s.y["q"], state, 4 * state.y["q"])
    end = run(model, kicked, 3)
    assert (int(end.memory["first"]), int(end.memory["events"]), float(end.memory["weight"])) == (5, 3, 0.0)
    healed = eqx.tree_at(lambda s: s.y["q"], end, state.y["q"])
    after = run(model, healed, 2)
    assert float(after.memory["weight"]) == 1 and int(after.memory["events"]) == 3, "it returns by itself"


def test_a_small_constant_bias_is_stopped_where_it_leads():
    """Below the limit of the outputs: the flow leaves the training, and is then held at its border."""
    pattern = 1.5 * DATA["outputs"]["q"].std((0, 2, 3))[:, None, None] * Q / np.reshape(RMS, (2, 1, 1))

    class Push(hg.AbstractClosure):
        def init(self, fields, grid):
            return None

        def __call__(self, fields, grid, memory, key):
            return {"q": jnp.asarray(pattern)}, memory

    largest = {}
    for name, closure in {"free": Push(), "guarded": FailSafe.from_data(Push(), **DATA, grid=GRID)}.items():
        model = model_with(closure)
        _, out = hg.rollout(model, model.encode({"q": Q}), 600, every=20)
        largest[name] = float(jnp.max(jnp.std(out["save"]["q"], (-2, -1)) / jnp.asarray(RMS)))
    assert largest["guarded"] < 4 < 6 < largest["free"], largest


# The taper and its statistics


def test_weight_falls_smoothly_between_the_thresholds():
    closure = FailSafe.from_data(Leith(0.5), **DATA, grid=GRID)
    weights = np.array([weight_of(closure, factor * Q) for factor in np.linspace(1, 4, 81)])
    assert weights[0] == 1 and weights[-1] == 0 and np.all(np.diff(weights) <= 0)
    assert np.abs(np.diff(weights)).max() < 0.1 and ((weights > 0) & (weights < 1)).sum() > 10


def test_gradient_where_it_tapers_equals_central_differences():
    closure = FailSafe.from_data(Leith(0.5), **DATA, grid=GRID)

    def size(factor):
        fields = FLOW.view({"q": GRID.to_spectral(jnp.asarray(factor * Q))})
        forcing, _ = closure(fields, GRID, closure.init(fields, GRID), jr.key(0))
        return 1e20 * jnp.sum(GRID.inner(forcing["q_hat"], forcing["q_hat"]))

    assert 0.05 < weight_of(closure, 2.5 * Q) < 0.95
    size = jax.jit(size)
    exact = float(jax.jit(jax.grad(size))(2.5))
    numeric = float((8 * (size(2.501) - size(2.499)) - (size(2.502) - size(2.498))) / 0.012)
    assert exact == pytest.approx(numeric, rel=1e-6)


def test_statistics_are_rms_and_gradient_per_layer():
    closure = FailSafe.from_data(Leith(0.5), **DATA, grid=GRID)
    ((name, mean, deviation),) = closure.inputs
    gradients = [np.stack(GRID.gradient(GRID.to_spectral(jnp.asarray(q)))) for q in SAMPLES]
    rms = np.sqrt((SAMPLES**2).mean((-2, -1)))
    slope = np.sqrt(np.array([(g**2).sum(0).mean((-2, -1)) for g in gradients]))
    assert name == "q" and np.allclose(mean, [rms.mean(0), slope.mean(0)], rtol=1e-12)
    expected = np.maximum([rms.std(0), slope.std(0)], 0.1 * np.array(mean))
    assert np.allclose(deviation, expected, rtol=1e-9)
    ((name, rms),) = closure.outputs
    assert name == "q" and np.allclose(rms, np.sqrt((DATA["outputs"]["q"] ** 2).mean((0, 2, 3))), rtol=1e-12)


def test_a_stochastic_closure_with_memory_restarts_bitwise_under_guard():
    noise = AR1((2e-12, 2e-14), scale=1e5, tau=86400.0, dt=3600.0)
    model = model_with(FailSafe.from_data(noise, **DATA, grid=GRID))
    state = model.encode({"q": Q}, jr.key(3))
    assert same_bits(run(model, state, 20), run(model, run(model, state, 10), 10))
    assert int(run(model, state, 20).memory["events"]) == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"novelty": (5, 2)}, "novelty is"),
        ({"inputs": {"q": SAMPLES[0]}}, r"expected \[sample, layer, y, x\]"),
        ({"inputs": {"psii": SAMPLES}}, "did you mean 'psi'"),
        ({"outputs": {"q": 0 * SAMPLES}}, "statistics of q are positive"),
        ({"inputs": {"q": SAMPLES[:, :1]}}, "statistics for {'q': 1} layers, the fields have 2"),
        ({"outputs": {"u": SAMPLES}}, "its closure forces 'q_hat'"),
    ],
)
def test_wrong_use_raises(change, message):
    with pytest.raises(ValueError, match=message):
        model = model_with(FailSafe.from_data(Leith(0.5), **{**DATA, "grid": GRID, **change}))
        jax.eval_shape(model.step, model.encode({"q": Q}))
