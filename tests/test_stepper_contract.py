"""The contract that every time stepper keeps: one row each in `table`."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import double, eddies, error, same_bits

import hybridgcm as hg

DT = 3600.0
START = {"q": eddies(double(16), 2, (2e-5, 1e-5), peak=3.0)}


def table(dtype=jnp.float64):
    grid = hg.Torus(16, 1e6, dtype=dtype)
    factor = hg.exponential_filter(grid)
    steppers = {
        "AB3": hg.AB3(),
        "RK4": hg.RK4(),
        "SIL3": hg.SIL3(),
        "BPR353": hg.steppers.BPR353(),
        "ETDRK4": hg.ETDRK4(),
        "Leapfrog": hg.SemiImplicitLeapfrog(),
        "Diffrax": hg.steppers.FromDiffrax(diffrax.Bosh3()),
        "Filtered AB3": hg.Filtered(hg.AB3(), factor),
    }
    flow = hg.QuasiGeostrophic.two_layer(grid, U=(0.1, 0.0), tau=5 * 86400.0)
    return {name: hg.Model(flow, stepper, hg.Leith(0.5), dt=DT) for name, stepper in steppers.items()}


MODELS, SINGLE = table(), table(jnp.float32)
every_model = pytest.mark.parametrize("name", MODELS)
step = eqx.filter_jit(lambda model, state: model.step(state))


@every_model
def test_contract_the_structure_and_the_types_of_a_state_are_stable(name):
    for model in (MODELS[name], SINGLE[name]):
        state = model.encode(START)
        new = jax.eval_shape(lambda s, model=model: model.step(s), state)
        shapes = lambda tree: jax.tree.map(lambda a: (a.shape, a.dtype), tree)
        assert jax.tree.structure(state) == jax.tree.structure(new)
        assert jax.tree.leaves(shapes(state)) == jax.tree.leaves(shapes(new))


@every_model
def test_contract_single_precision_stays_single(name):
    model = SINGLE[name]
    with jax.numpy_dtype_promotion("strict"):  # nothing is promoted on the way either
        state = step(model, model.encode(START))
    kinds = {str(a.dtype) for a in jax.tree.leaves((state.y, state.past, model.view(state)))}
    assert kinds <= {"float32", "complex64", "int32"}, kinds
    double_ = step(MODELS[name], MODELS[name].encode(START))
    assert error(state.y["q"], double_.y["q"]) < 1e-5


@every_model
def test_contract_jit_changes_nothing(name):
    model = MODELS[name]
    state = model.encode(START)
    assert error(step(model, state).y["q"], model.step(state).y["q"]) < 1e-13


@every_model
def test_contract_restart_is_bitwise(name):
    model, plain = MODELS[name], lambda a: jnp.issubdtype(a.dtype, jax.dtypes.prng_key)
    states = [model.encode(START, jax.random.key(7))]
    for _ in range(6):
        states.append(step(model, states[-1]))
    stored = jax.tree.map(lambda a: a if plain(a) else jnp.asarray(np.array(a)), states[3])
    for _ in range(3):
        stored = step(model, stored)
    assert same_bits(states[6], stored) and int(stored.step) == 6


@every_model
def test_contract_vmap_equals_a_loop(name):
    model = MODELS[name]
    starts = [step(model, model.encode({"q": q})) for q in (START["q"], 0.5 * START["q"], START["q"][::-1])]
    keys = jax.random.split(jax.random.key(0), 3)
    starts = [eqx.tree_at(lambda s: s.key, state, key) for state, key in zip(starts, keys)]
    batch = jax.tree.map(lambda *leaves: jnp.stack(leaves), *starts)
    stepped = eqx.filter_jit(eqx.filter_vmap(lambda s: model.step(s)))(batch)
    worst = max(error(stepped.y["q"][i], step(model, starts[i]).y["q"]) for i in range(3))
    assert worst < 1e-13, worst
    assert stepped.step.tolist() == [2, 2, 2]


@every_model
def test_contract_gradients_reach_every_parameter(name):
    model = MODELS[name]

    @eqx.filter_jit
    @eqx.filter_value_and_grad
    def loss(trained):
        where = lambda m: (m.equation.beta, m.equation.U, m.equation.drag, m.equation.tau, m.closure)
        changed = eqx.tree_at(where, model, trained)
        end = hg.rollout(changed, changed.encode(START), 5, every=5, save=None)[0]
        return 1e10 * model.equation.grid.inner(end.y["q"], end.y["q"]).sum()

    flow = model.equation
    trained = (flow.beta, flow.U, flow.drag, flow.tau, model.closure)
    gradient = loss(trained)[1]
    for path, g in jax.tree_util.tree_leaves_with_path(gradient):
        assert np.isfinite(g).all() and (np.asarray(g) != 0).all(), f"{jax.tree_util.keystr(path)}: {g}"
    # one direction in all parameters at once, scaled by their size, against central differences
    move = lambda h: jax.tree.map(lambda p: p * (1 + h), trained)
    numeric = (loss(move(1e-4))[0] - loss(move(-1e-4))[0]) / 2e-4
    exact = sum(jnp.sum(g * p) for g, p in zip(jax.tree.leaves(gradient), jax.tree.leaves(trained)))
    assert abs(float(numeric / exact) - 1) < 1e-6, (float(numeric), float(exact))
