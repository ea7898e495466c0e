"""An emulator in the place of an equation's explicit part: exact where it is exact, frozen where it is told to be."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest
from helpers import double, eddies, error, run, same_bits

import hybridgcm as hg
from hybridgcm import metrics, nn
from hybridgcm.equations import SurrogateEquation
from hybridgcm.train import StraightThrough, online

GRID, DAY = double(16), 86400.0
FLOW = hg.QuasiGeostrophic.two_layer(GRID, U=(0.1, 0.0), tau=4 * DAY, order=2)
TRACERS = hg.Tracers(FLOW, ("c",), mean_gradient=(1e-6, 0.0), tau=DAY)
START = {"q": eddies(GRID, 2, 2e-5, 0, 3.0)}


class Exact(hg.AbstractClosure):
    """The explicit tendency itself, as an emulator without error would give it."""

    equation: hg.AbstractEquation

    def init(self, fields, grid):
        return None

    def __call__(self, fields, grid, memory, key):
        y = {name: grid.to_spectral(fields[name]) for name in self.equation.prognostic}
        return {f"{name}_hat": a for name, a in self.equation.explicit(0.0, y).items()}, memory


class Empty(hg.AbstractClosure):
    """Names nothing."""

    def init(self, fields, grid):
        return None

    def __call__(self, fields, grid, memory, key):
        return {}, memory


def network(seed=1):
    net = nn.ResCNN(6, 2, width=4, kernel=3, blocks=2, key=jr.key(seed))
    net = eqx.tree_at(lambda n: n.last, net, jr.normal(jr.key(2), net.last.shape) / 10)
    return hg.NetworkClosure(net, ("q", "u", "v"), ("q",), (1e-5,) * 2 + (0.1,) * 4, 1e-10)


def model(equation, stepper=None, closure=None):
    return hg.Model(equation, stepper or hg.SIL3(), closure, dt=3600.0)


@pytest.mark.parametrize(
    ("equation", "stepper"),
    [(FLOW, hg.AB3()), (FLOW, hg.ETDRK4()), (TRACERS, hg.SIL3())],
    ids=["AB3", "ETDRK4", "SIL3"],
)
def test_with_an_exact_emulator_it_is_the_real_equation(equation, stepper):
    start = START if equation is FLOW else START | {"c": eddies(GRID, 2, 1.0, 5, 3.0)}
    real, surrogate = model(equation, stepper), model(SurrogateEquation(equation, Exact(equation)), stepper)
    ends = [run(m, m.encode(start), 20).y for m in (real, surrogate)]
    distance = max(error(ends[1][name], ends[0][name]) for name in ends[0])
    assert distance < 1e-12, distance


def test_all_but_the_explicit_part_is_the_real_equations():
    surrogate = SurrogateEquation(FLOW, Empty())
    y = model(FLOW).encode(START).y
    for name in ("view", "implicit"):
        assert same_bits(getattr(surrogate, name)(y), getattr(FLOW, name)(y)), name
    assert same_bits(surrogate.solve(y, 100.0), FLOW.solve(y, 100.0))
    assert same_bits(surrogate.advecting_velocity(y), FLOW.advecting_velocity(y))
    assert (surrogate.prognostic, surrogate.layers) == (FLOW.prognostic, FLOW.layers)
    with pytest.raises(ValueError, match="whole tendency of .*'q'.* missing"):
        surrogate.explicit(0.0, y)
    with pytest.raises(ValueError, match="takes forcing on 'q'"):
        surrogate.lift({"tau": jnp.zeros((2, 16, 16))})


def test_the_real_equation_goes_back_into_its_place():
    closure = hg.Leith(0.3)
    m = model(SurrogateEquation(FLOW, network()), closure=closure)
    back = eqx.tree_at(lambda m: m.equation, m, m.equation.inner)
    assert same_bits(back, model(FLOW, closure=closure))


def test_a_frozen_emulator_keeps_its_bits_while_the_closure_in_it_learns():
    frozen = SurrogateEquation(FLOW, network())
    m = model(frozen, closure=hg.Scaled(hg.Leith(0.3), 1.0))
    truth = {"q": np.stack([eddies(GRID, 2, 2e-5, seed, 3.0) for seed in range(4)])}
    batches = hg.windows(truth, 3, 2, 3, jr.key(0))
    loss = online(metrics.energy(FLOW))
    trained, log = hg.fit(m, batches, loss, optax.adamw(1e-2), where=lambda m: m.closure, key=jr.key(1))
    assert log[0]["gradient_norm"] > 0 and not any(record["skipped"] for record in log)
    assert same_bits(trained.equation, m.equation) and not same_bits(trained.closure, m.closure)


# Gradients that take the solver for the identity


FULL, STRAIGHT = lambda m: m.closure.amplitude, lambda m: m.inner.closure.amplitude
WEIGHT = jnp.asarray(eddies(GRID, 2, 1e5, 9, 3.0))


@eqx.filter_jit
def slope(m, steps, where):
    """The sum of WEIGHT·q after some steps, and its derivative by the amplitude."""

    def total(amplitude):
        changed = eqx.tree_at(where, m, amplitude)
        end, _ = hg.rollout(changed, changed.encode(START), steps, every=steps, save=None)
        return jnp.sum(WEIGHT * changed.decode(end)["q"])

    return jax.value_and_grad(total)(where(m))


def test_straight_through_has_the_values_of_its_model_and_adds_the_forcings_up():
    real = model(FLOW, hg.AB3(), hg.Scaled(hg.Leith(0.3), 1.0))
    value, full = slope(real, 6, FULL)
    same, straight = slope(StraightThrough(real), 6, STRAIGHT)
    assert same == value and straight != full
    states = [real.encode(START)]
    for _ in range(5):
        states.append(run(real, states[-1], 1))
    leith = hg.Leith(jnp.asarray(0.3, GRID.dtype))
    forcing = lambda s: GRID.to_grid(FLOW.lift(leith(FLOW.view(s.y), GRID, None, None)[0])["q"])
    by_hand = 3600.0 * sum(float(jnp.sum(WEIGHT * forcing(s))) for s in states)
    assert float(straight) == pytest.approx(by_hand, rel=1e-9)
    one = [slope(m, 1, where)[1] for m, where in ((real, FULL), (StraightThrough(real), STRAIGHT))]
    assert float(one[1]) == pytest.approx(float(one[0]), rel=1e-9), "a single step of Euler is what it takes all to be"


def test_straight_through_refuses_a_model_without_closure():
    with pytest.raises(ValueError, match="this one has none"):
        StraightThrough(model(FLOW))


# The network of the published emulators


@pytest.mark.parametrize(("width", "kernel", "count"), [(32, 5, 222_049), (64, 7, 1_672_897)])
def test_the_published_emulators_have_their_parameters_but_for_the_bias_of_the_last_layer(width, kernel, count):
    net = eqx.filter_eval_shape(nn.ResCNN, 1, 1, width=width, kernel=kernel, blocks=8, key=jr.key(0))
    assert sum(a.size for a in jax.tree.leaves(net)) == count - 1


def test_a_residual_network_starts_at_zero_commutes_with_translations_and_learns_in_every_leaf():
    untrained = nn.ResCNN(2, 3, width=4, kernel=3, blocks=2, key=jr.key(0))
    x = jr.normal(jr.key(1), (2, 8, 10))
    apply = jax.jit(lambda net, x: net(x))
    assert not np.any(apply(untrained, x))
    net = eqx.tree_at(lambda n: n.last, untrained, jr.normal(jr.key(2), untrained.last.shape))
    shifted = apply(net, jnp.roll(x, (3, -4), (1, 2)))
    assert error(shifted, jnp.roll(apply(net, x), (3, -4), (1, 2))) < 1e-13
    grad = jax.jit(jax.grad(lambda net: jnp.sum((net(x) - 1) ** 2)))(net)
    zero = [jax.tree_util.keystr(p) for p, g in jax.tree_util.tree_leaves_with_path(grad) if not np.any(g)]
    assert zero == []


def test_a_residual_network_refuses_what_it_cannot_do():
    with pytest.raises(ValueError, match="odd kernel.*kernel=4"):
        nn.ResCNN(1, 1, width=4, kernel=4, blocks=1, key=jr.key(0))
    with pytest.raises(ValueError, match=r"maps \[2, y, x\]; got \(3, 8, 8\)"):
        nn.ResCNN(2, 1, width=4, kernel=3, blocks=1, key=jr.key(0))(jnp.ones((3, 8, 8)))


def test_the_energy_spectrum_sums_to_the_kinetic_energy_of_each_layer():
    view = model(FLOW).view(model(FLOW).encode(START))
    energy = np.mean(view["u"] ** 2 + view["v"] ** 2, (-2, -1)) / 2
    assert error(jnp.sum(metrics.energy_spectrum(FLOW)(view), -1), energy) < 1e-12
