"""Many steps: what is saved, averaged and streamed, that no way of cutting the loop changes a bit, and blow-up."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from helpers import eddies, error, same_bits

import hybridgcm as hg
from hybridgcm.rollout import view

GRID = hg.Torus(16, 1e6)
FLOW = hg.QuasiGeostrophic.two_layer(GRID, tau=86400.0)
START = {"q": eddies(GRID, 2, 1e-5)}
rollout = eqx.filter_jit(hg.rollout)
step = eqx.filter_jit(lambda model, state: model.step(state))


class Pattern(hg.AbstractClosure):
    """AR(1) noise: memory and key both matter for a restart."""

    def init(self, fields, grid):
        return jnp.zeros_like(fields["q"])

    def __call__(self, fields, grid, memory, key):
        memory = 0.9 * memory + 0.1 * jr.uniform(key, memory.shape, memory.dtype, -1.0)
        return {"q": 1e-10 * memory}, memory


class Explode(hg.AbstractClosure):
    """Not a number from the step `at` on."""

    at: int = eqx.field(static=True)

    def init(self, fields, grid):
        return jnp.zeros((), jnp.int32)

    def __call__(self, fields, grid, memory, key):
        return {"q": jnp.where(memory < self.at, 0.0, jnp.nan) * fields["q"]}, memory + 1


MODEL = hg.Model(FLOW, hg.AB3(), Pattern(), dt=3600.0)


@pytest.fixture(scope="module")
def start():
    return MODEL.encode(START, jr.key(3))


@pytest.fixture(scope="module")
def frames(start):
    """States after 1 to 24 steps, each by the compiled step: the plain loop."""
    states = [start]
    for _ in range(24):
        states.append(step(MODEL, states[-1]))
    return states[1:]


# What comes out


def test_rollout_is_the_loop_over_steps(start, frames):
    end, out = rollout(MODEL, start, 24)
    assert int(end.step) == 24 and out["mean"] is None
    worst = max(error(out["save"]["q"][i], MODEL.view(state)["q"]) for i, state in enumerate(frames))
    # Not bitwise: XLA compiles a lone step and the body of a loop differently in the last bit (float32 here).
    assert worst < 1e-5, f"relative difference {worst:.1e}"


@pytest.mark.parametrize(("every", "chunk"), [(2, None), (4, 3), (24, 1)])
def test_no_way_of_nesting_changes_a_bit(start, every, chunk):
    end, out = rollout(MODEL, start, 24)
    nested, sparse = rollout(MODEL, start, 24, every=every, chunk=chunk)
    assert same_bits(end, nested)
    assert sparse["save"]["q"].shape == (24 // every, 2, *GRID.shape)
    assert np.array_equal(sparse["save"]["q"], out["save"]["q"][every - 1 :: every])


def test_saving_and_averaging(start, frames):
    speed = lambda model, state: {"u": jnp.mean(model.view(state)["u"] ** 2), "step": 1.0 * state.step}
    end, out = rollout(MODEL, start, 24, every=6, save=None, mean=speed)
    assert out["save"] is None and set(out["mean"]) == {"u", "step"}
    assert np.allclose(out["mean"]["step"], [3.5, 9.5, 15.5, 21.5], rtol=1e-6), "over the states up to each frame"
    host = np.array([np.mean(MODEL.view(state)["u"] ** 2) for state in frames]).reshape(4, 6).mean(1)
    assert error(out["mean"]["u"], host) < 1e-5
    some, out = rollout(MODEL, start, 24, every=6, save=None, mean=speed, sample=3)
    assert np.allclose(out["mean"]["step"], [4.5, 10.5, 16.5, 22.5], rtol=1e-6), "over every third of them"
    host = np.array([np.mean(MODEL.view(state)["u"] ** 2) for state in frames[2::3]]).reshape(4, 2).mean(1)
    assert error(out["mean"]["u"], host) < 1e-5 and same_bits(some, end)
    _, out = rollout(MODEL, start, 4, every=2, save=lambda model, state: state.step)
    assert out["save"].tolist() == [2, 4], "after the steps, not at the start"


def test_rematerialised_blocks_change_the_memory_but_not_the_gradient():
    bare = hg.Model(FLOW, hg.AB3(), dt=3600.0)

    def loss(beta, chunk):
        model = eqx.tree_at(lambda m: m.equation.beta, bare, beta)
        last = lambda model, state: jnp.sum(jnp.abs(state.y["q"]) ** 2)
        return jnp.sum(hg.rollout(model, bare.encode(START), 64, chunk=chunk, save=last)[1]["save"]) * 1e6

    beta, memory, gradient = FLOW.beta, {}, {}
    for chunk in (None, 8):
        compiled = jax.jit(jax.grad(loss), static_argnums=1).lower(beta, chunk).compile()
        memory[chunk], gradient[chunk] = compiled.memory_analysis().temp_size_in_bytes, float(compiled(beta))
    assert gradient[8] == pytest.approx(gradient[None], rel=1e-4) and gradient[8] != 0
    assert memory[8] < memory[None] / 2, memory


def test_members_by_vmap_equal_their_own_rollouts(start):
    keys = jr.split(jr.key(0), 3)
    member = lambda key: hg.rollout(MODEL, MODEL.encode(START, key), 6, every=6, save=None)[0]
    batch = eqx.filter_jit(eqx.filter_vmap(member))(keys)
    for i in range(3):
        one = rollout(MODEL, MODEL.encode(START, keys[i]), 6, every=6, save=None)[0]
        assert error(batch.y["q"][i], one.y["q"]) < 1e-5
    assert error(batch.y["q"][0], batch.y["q"][1]) > 1e-4, "members differ by their noise"


# Cuts and restarts


def test_400_steps_are_twice_200_and_200_times_2_to_the_bit(start):
    run = lambda state, steps: rollout(MODEL, state, steps, every=steps, save=None)[0]
    whole = run(start, 400)
    pairs = start
    for _ in range(200):
        pairs = run(pairs, 2)
    assert same_bits(whole, run(run(start, 200), 200)) and same_bits(whole, pairs)
    assert bool(jnp.isfinite(whole.y["q"]).all()) and error(whole.y["q"], start.y["q"]) > 0.1


def test_400_single_steps_are_400_compiled_steps_to_the_bit(start):
    lone = stepped = start
    for _ in range(400):
        lone, stepped = rollout(MODEL, lone, 1, save=None)[0], step(MODEL, stepped)
    assert same_bits(lone, stepped)


def test_a_state_that_went_through_the_host_continues_exactly(start):
    half = rollout(MODEL, start, 12, every=12, save=None)[0]
    leaves, structure = jax.tree.flatten(eqx.tree_at(lambda s: s.key, half, jr.key_data(half.key)))
    stored = [np.array(leaf) for leaf in leaves]
    back = jax.tree.unflatten(structure, [jnp.asarray(leaf) for leaf in stored])
    back = eqx.tree_at(lambda s: s.key, back, jr.wrap_key_data(back.key))
    ends = [rollout(MODEL, state, 12, every=12, save=None)[0] for state in (half, back)]
    assert same_bits(*ends) and int(ends[1].step) == 24
    assert {"y", "step", "past", "memory", "key"} == set(vars(back)), "a restart needs all of these and nothing else"
    for name in ("memory", "past"):
        wiped = eqx.tree_at(lambda s, name=name: getattr(s, name), back, getattr(start, name))
        assert not same_bits(rollout(MODEL, wiped, 12, every=12, save=None)[0].y, ends[0].y), f"{name} must matter"


# Stream


def test_stream_is_rollout_to_the_bit(start):
    mean = lambda model, state: jnp.mean(model.view(state)["u"] ** 2)
    end, out = rollout(MODEL, start, 24, every=2, mean=mean)
    seen = list(hg.stream(MODEL, start, 24, every=2, chunk=3, mean=mean))
    join = lambda name: np.concatenate([chunk[name] for _, chunk in seen])
    assert len(seen) == 4 and same_bits(seen[-1][0], end)
    assert np.array_equal(np.concatenate([chunk["save"]["q"] for _, chunk in seen]), out["save"]["q"])
    assert np.array_equal(join("mean"), out["mean"])
    assert join("step").tolist() == list(range(2, 25, 2)) and np.array_equal(join("time"), join("step") * 3600.0)
    assert isinstance(seen[0][1]["save"]["q"], np.ndarray) and seen[0][1]["save"]["q"].shape == (3, 2, *GRID.shape)


def test_a_stream_continues_from_any_state_that_it_gave(start):
    whole = list(hg.stream(MODEL, start, 24, every=2, chunk=3, save=None))
    assert "save" not in whole[0][1] and "mean" not in whole[0][1]
    rest = list(hg.stream(MODEL, whole[1][0], 12, every=2, chunk=3, save=None))
    assert same_bits(rest[-1][0], whole[-1][0])
    assert rest[0][1]["step"].tolist() == [14, 16, 18]


def test_the_bar_prints_simulated_years_per_minute(start, capsys):
    for _ in hg.stream(MODEL, start, 24, every=2, chunk=3, save=None, progress="eddy"):
        pass
    text = capsys.readouterr().err
    assert "eddy" in text and "years/min" in text and "24.0/24.0" in text, text


# Blow-up


@pytest.mark.parametrize(("save", "field"), [(view, "save."), (None, "state.y.q")])
def test_blow_up_names_field_and_step_and_hands_over_the_last_good_state(save, field):
    model = hg.Model(FLOW, hg.AB3(), Explode(6), dt=3600.0)
    start, seen = model.encode(START), []
    with pytest.raises(hg.BlewUp, match="not finite") as caught:
        for state, _ in hg.stream(model, start, 24, every=1, chunk=4, save=save):
            seen.append(state)
    found = caught.value
    assert found.field.startswith(field), found.field
    assert found.step == 7, "the first bad frame, whether or not anything is saved"
    assert len(seen) == 1 and int(found.state.step) == 4 and same_bits(found.state, seen[0])
    assert "step 4" in str(found) and "dt" in str(found)
    healed = hg.Model(FLOW, hg.AB3(), dt=3600.0)
    assert bool(jnp.isfinite(step(healed, found.state).y["q"]).all()), "one can go on from it"


def test_a_flow_that_is_too_fast_for_the_grid_stops_with_its_courant_number():
    model = hg.Model(FLOW, hg.AB3(), dt=3600.0)
    start = model.encode(START)
    speed = float(model.courant(start))
    with pytest.raises(hg.BlewUp, match="Courant number") as caught:
        list(hg.stream(model, start, 8, every=2, chunk=4, courant=speed / 2))
    assert caught.value.value > speed / 2 and int(caught.value.state.step) == 0
    assert caught.value.step == 2, "the first frame that is too fast, not the end of its chunk"
    assert len(list(hg.stream(model, start, 4, every=2, courant=2 * speed))) == 2


# Bad input


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"steps": 10, "every": 3}, "every=3 must divide steps=10"),
        ({"steps": 0}, "both positive"),
        ({"steps": 10, "every": 0}, "both positive"),
        ({"steps": 10, "every": 2, "chunk": 2}, "chunk=2 must divide the 5 frames"),
        ({"steps": 10, "chunk": 0}, "chunk=0 must divide"),
        ({"steps": 12, "every": 6, "sample": 4}, "sample=4 must divide the every=6 steps"),
        ({"steps": 12, "every": 6, "sample": 0}, "sample=0 must divide"),
    ],
)
def test_cuts_that_do_not_fit_are_refused_before_anything_runs(start, arguments, message):
    with pytest.raises(ValueError, match=message):
        hg.rollout(MODEL, start, **arguments)
    with pytest.raises(ValueError, match=message):
        next(hg.stream(MODEL, start, **arguments))
