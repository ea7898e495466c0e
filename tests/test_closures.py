"""One contract for all closures, and the network closure's checks."""

import functools
import re

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from helpers import cnn, double, eddies, error, run, same_bits, wave

import hybridgcm as hg
from hybridgcm import closures
from hybridgcm.closures import BiharmonicBackscatter, Leith, NetworkClosure, Smagorinsky, ZannaBolton
from hybridgcm.nn import CNN, FlowMatching

RMS = (5e-6, 5e-7)  # of q per layer, s-1
DEPTH = (500.0, 2000.0)  # m
NORMAL = (RMS, (1.2e-10, 1.2e-11))  # rms of q and of its gradient per layer, s-1 and m-1 s-1


def network(outputs=("q",), scale=(2e-11, 2e-12)):
    """A CNN closure with a smooth activation and a last layer that is not zero."""
    return NetworkClosure(cnn(2, 2 * len(outputs), 3), ("q",), outputs, RMS, scale * len(outputs))


def flow():
    """A sampler whose noise is carried by a velocity of the fields, the state of the flow and its time."""
    return NetworkClosure(FlowMatching(cnn(2 + 2 + 1, 2, 5), 2), ("q",), ("q",), RMS, (2e-11, 2e-12))


CLOSURES = {
    "Smagorinsky": lambda: Smagorinsky(0.2),
    "Leith": lambda: Leith(0.5),
    "ZannaBolton": lambda: ZannaBolton(-4e8),
    "BiharmonicBackscatter": lambda: BiharmonicBackscatter(DEPTH, 0.2, 0.5),
    "NetworkClosure": network,
    "DimensionlessNetwork": lambda: closures.DimensionlessNetwork(cnn(6, 1, 8)),
    "Sum": lambda: hg.Sum(Leith(0.2), network()),
    "Scaled": lambda: hg.Scaled(Leith(0.5), 0.5),
    "Every": lambda: closures.Every(Leith(0.5), 3),
    "Cast": lambda: closures.Cast(network(), "float64"),
    "FluxForm": lambda: closures.FluxForm(network(("q_x", "q_y"), (2e-7, 2e-8))),
    "EnergyNeutral": lambda: closures.EnergyNeutral(network(), DEPTH),
    "ZeroMean": lambda: closures.ZeroMean(closures.Sponge(86400.0, 5e5, 2e5)),
    "GradientModel": lambda: closures.GradientModel(2.0),
    "Hyperviscosity": lambda: closures.Hyperviscosity(10 * 86400.0, 2),
    "QGLeith": lambda: closures.QGLeith((2e4, 4e4), 0.5),
    "ScaleAwareZannaBolton": lambda: closures.ScaleAwareZannaBolton(0.1, 1.0),
    "DynamicSmagorinsky": lambda: hg.Scaled(closures.DynamicSmagorinsky(1.5), 0.8),
    "DynamicLeith": lambda: hg.Scaled(closures.DynamicLeith(1.5), 0.8),
    "EnergyBackscatter": lambda: closures.EnergyBackscatter(0.3, 0.1, start=1e-3, U=(0.025, 0.0), dt=3600.0),
    "RossSymbolic": closures.RossSymbolic,
    "RingForcing": lambda: closures.RingForcing(1e-9, wavenumber=2.5e-5, width=5e-6, dt=3600.0),
    "Kolmogorov": lambda: closures.Kolmogorov((2e-12, 2e-13), 0.3),
    "GrahamRingler": lambda: closures.GrahamRingler(dt=3600.0),
    "Relaxation": lambda: lambda grid: closures.Relaxation({"q": 1e-6 * wave(grid, 0, 2)}, 10 * 86400.0),
    "Sponge": lambda: closures.Sponge(86400.0, 5e5, 2e5),
    "AR1": lambda: closures.AR1((2e-12, 2e-13), scale=1e5, tau=86400.0, dt=3600.0),
    "SPPT": lambda: closures.SPPT(Leith(0.5), 0.2, scale=2e5, tau=86400.0, dt=3600.0),
    "Sampler": lambda: closures.Sampler(flow(), 2, decorrelation=4.0),
    "BiasCorrection": lambda: (
        lambda grid: closures.BiasCorrection(
            {"q": 2e-12 * np.stack([eddies(grid, 2, 1.0, seed) for seed in range(3)])}, period=36000.0, dt=3600.0
        )
    ),
    "FailSafe": lambda: closures.FailSafe(Leith(0.5), {"q": (NORMAL, NORMAL)}, {"q": (2e-11, 2e-13)}),
}
every_closure = pytest.mark.parametrize("name", CLOSURES)


def model_with(closure, grid=None):
    grid = double(16) if grid is None else grid
    closure = closure if isinstance(closure, hg.AbstractClosure | None) else closure(grid)
    return hg.Model(hg.QuasiGeostrophic.two_layer(grid, tau=86400.0), hg.AB3(), closure, dt=3600.0)


def start(model, seed=0):
    return model.encode({"q": eddies(model.equation.grid, 2, RMS, seed)}, jr.key(7))


def abstract_start(model):
    """Shapes and types of a starting state, without any computation."""
    q = jax.ShapeDtypeStruct((2, *model.equation.grid.shape), model.equation.grid.dtype)
    return jax.eval_shape(lambda model, q: model.encode({"q": q}, jr.key(7)), model, q)


@eqx.filter_jit
def forcing_of(model, state):
    """Forcing by name, lifted forcing and memory at a state."""
    equation = model.equation
    forcing, memory = model.closure(equation.view(state.y), equation.grid, state.memory, state.key)
    return forcing, equation.lift(forcing), memory


def shapes(tree):
    return jax.tree.map(lambda a: (a.shape, str(a.dtype)), tree)


# ---- the contract, for every closure ----


@every_closure
def test_one_step_keeps_types_and_structure_and_memory_its_own(name):
    for dtype in (jnp.float32, jnp.float64):
        model = model_with(CLOSURES[name](), hg.Torus(16, 1e6, dtype=dtype))
        state = abstract_start(model)
        forcing, _, memory = jax.eval_shape(lambda m, s: forcing_of(m, s), model, state)
        assert {str(jnp.finfo(a.dtype).dtype) for a in forcing.values()} == {jnp.dtype(dtype).name}
        assert jax.tree.structure(memory) == jax.tree.structure(state.memory)
        after = jax.eval_shape(model.step, state)
        assert jax.tree.structure(after) == jax.tree.structure(state)
        assert shapes(after) == shapes(state)


@every_closure
def test_restart_is_bitwise(name):
    model = model_with(CLOSURES[name](), double(32))
    state = start(model)
    once, twice = run(model, state, 40), run(model, run(model, state, 20), 20)
    assert same_bits(once, twice), f"{name}: 40 steps are not 20 + 20 steps"


@functools.cache
def problem(name):
    """Model and, compiled once, the loss of (closure, q) after 50 steps: with its gradient; vmapped over closures."""
    model = model_with(CLOSURES[name]())

    def loss(closure, q):
        moved = eqx.tree_at(lambda m: m.closure, model, closure)
        state = hg.rollout(moved, moved.encode({"q": q}, jr.key(7)), 50, every=50, save=None)[0]
        q = model.view(state)["q"] / jnp.reshape(jnp.asarray(RMS), (2, 1, 1))
        return jnp.mean(q**2 * jnp.linspace(1, 2, q.shape[-1]))

    several = eqx.filter_vmap(loss, in_axes=(eqx.if_array(0), None))
    return model, eqx.filter_jit(eqx.filter_value_and_grad(loss)), eqx.filter_jit(several)


@every_closure
def test_gradient_of_50_steps_equals_central_differences_for_every_leaf(name):
    model, value_and_gradient, several = problem(name)
    q = jnp.asarray(eddies(model.equation.grid, 2, RMS))
    value, gradient = value_and_gradient(model.closure, q)
    leaves = jax.tree_util.tree_leaves_with_path(eqx.filter(model.closure, eqx.is_inexact_array))
    shifts = 1e-3 * np.arange(-2, 3)
    assert len(jax.tree.leaves(gradient)) == len(leaves) > 0
    for index, ((path, leaf), slope) in enumerate(zip(leaves, jax.tree.leaves(gradient))):
        where = f"{name}{jax.tree_util.keystr(path)}"
        leaf, noise = np.asarray(leaf), np.random.default_rng(index).standard_normal(leaf.shape)
        direction = noise * np.where(leaf == 0, 0.1, np.abs(leaf))

        def shifted(p, a, path=path, direction=direction):
            shift = np.multiply.outer(shifts, direction if p == path else np.zeros(a.shape))
            return jnp.asarray(np.asarray(a) + shift)

        f = np.asarray(several(jax.tree_util.tree_map_with_path(shifted, model.closure), q))
        assert abs(f[2] / value - 1) < 1e-12, f"{name}: vmap gives {f[2]}, alone it is {value}"
        numeric = (8 * (f[3] - f[1]) - (f[4] - f[0])) / 12e-3
        exact = float(np.sum(np.asarray(slope) * direction))
        assert abs(exact) > 1e-7, f"{where} has gradient {exact} along a random direction"
        assert abs(numeric / exact - 1) < 1e-6, f"{where}: {exact} against {numeric}"


@every_closure
def test_flow_at_rest_has_a_finite_gradient(name):
    model, value_and_gradient, _ = problem(name)
    slopes = value_and_gradient(model.closure, jnp.zeros((2, *model.equation.grid.shape)))[1]
    bad = [jax.tree_util.keystr(p) for p, a in jax.tree_util.tree_leaves_with_path(slopes) if not np.isfinite(a).all()]
    assert bad == []


@every_closure
def test_adjoint_of_a_step_passes_the_dot_product_test(name):
    model = model_with(CLOSURES[name]())
    rms = np.reshape(RMS, (2, 1, 1))
    weights, fixed = eqx.partition(model.closure, eqx.is_inexact_array)

    def advance(x, factors):
        closure = eqx.combine(jax.tree.map(jnp.multiply, weights, factors), fixed)
        moved = eqx.tree_at(lambda m: m.closure, model, closure)
        return model.view(moved.step(moved.encode({"q": x * rms}, jr.key(7))))["q"] / rms

    x = jnp.asarray(eddies(model.equation.grid, 2, 1.0))
    ones = jax.tree.map(jnp.ones_like, weights)
    rng = np.random.default_rng(1)
    noise = lambda tree: jax.tree.map(lambda a: jnp.asarray(rng.standard_normal(a.shape)), tree)
    dot = lambda a, b: sum(float(np.sum(np.asarray(p) * q)) for p, q in zip(jax.tree.leaves(a), jax.tree.leaves(b)))

    @jax.jit
    def both(v, w):
        return jax.jvp(advance, (x, ones), v)[1], jax.vjp(advance, x, ones)[1](w)

    v, w = noise((x, ones)), noise(x)
    forward, back = both(v, w)
    distance = abs(dot(forward, w) - dot(v, back)) / np.sqrt(dot(forward, forward) * dot(w, w))
    assert distance < 1e-12, f"{name}: <Mv, w> and <v, M'w> differ by {distance} of |Mv||w|"


@every_closure
def test_mean_forcing_is_zero_on_a_rectangular_grid(name):
    grid = double((16, 24), (1e6, 1.5e6), dealias=3 / 2)
    model = model_with(CLOSURES[name](), grid)
    forcing, lifted, _ = forcing_of(model, start(model))
    for part, a in forcing.items():
        a = grid.to_grid(a) if part.endswith("_hat") else a
        assert a.shape == (2, *grid.shape)
        if name == "Sponge":  # takes momentum
            continue
        mean, rms = jnp.abs(grid.mean(a)), jnp.sqrt(grid.mean(a**2))
        assert jnp.all(mean <= 1e-13 * rms), f"{name}: mean of {part} is {mean} for an rms of {rms}"
    mean = jnp.max(jnp.abs(lifted["q"][..., 0, 0])) / jnp.max(jnp.abs(lifted["q"]))
    assert mean < 1e-13, f"{name}: the mean of the tendency is {mean} of its largest coefficient"


TRANSFORMS = {  # of one field, all layers; by grid size: torus grids below 128² batch, larger ones do not
    "Smagorinsky": {32: 14, 128: 13},
    "Leith": {32: 5},
    "ZannaBolton": {32: 14},
    "BiharmonicBackscatter": {32: 9},
    "NetworkClosure": {32: 1},
    "DimensionlessNetwork": {32: 1},
    "Scaled": {32: 5},
    "Sum": {32: 6},
    "Every": {32: 5},
    "FluxForm": {32: 2},
    "EnergyNeutral": {32: 2},
    "GradientModel": {32: 11},
    "Hyperviscosity": {32: 1},
    "QGLeith": {32: 9},
    "ScaleAwareZannaBolton": {32: 14, 128: 13},
    "DynamicSmagorinsky": {32: 23},
    "DynamicLeith": {32: 15},
    "EnergyBackscatter": {32: 12},
    "RossSymbolic": {32: 11},
    "RingForcing": {32: 0.5},
    "Kolmogorov": {32: 1},
    "GrahamRingler": {32: 1},
    "Relaxation": {32: 1},
    "Sponge": {32: 2},
    "AR1": {32: 1},
    "SPPT": {32: 5 + 3},
    "Sampler": {32: 1},
    "BiasCorrection": {32: 1},
    "FailSafe": {32: 5 + 1},
}


@functools.cache
def transforms(n, name=None):
    """Number of 2-D transforms of one field per step of a compiled rollout of an n² model.

    In a rollout, since what a loop does not change is computed before it, and equal things may end up unlike.
    """
    model = model_with(CLOSURES[name]() if name else None, hg.Torus(n, 1e6))
    run = jax.jit(lambda m, s: hg.rollout(m, s, 3, every=3, save=None)[0])
    text = run.lower(model, abstract_start(model)).compile().as_text()
    sizes = [[int(n) for n in size.split(",")] for size in re.findall(r"= \w+\[([\d,]+)\]\S* fft\(", text)]
    return sum(np.prod(size[:-2]) for size in sizes) / model.equation.layers


@pytest.mark.parametrize("name", TRANSFORMS)
def test_closure_adds_no_transform_beyond_what_it_needs(name):
    for n, expected in TRANSFORMS[name].items():
        bare, extra = transforms(n), transforms(n, name)
        assert (bare, extra - bare) == (5, expected), f"{name} at {n}²: {bare} bare, {extra} with closure"


# ---- combinators ----


def test_sum_adds_and_scaled_is_linear():
    a, b, c = (CLOSURES[name]() for name in ("Smagorinsky", "Leith", "NetworkClosure"))
    closures = [
        a,
        b,
        c,
        hg.Sum(a, b, c),
        hg.Sum(a, hg.Sum(b, c)),
        hg.Sum(hg.Sum(a, b), c),
        hg.Scaled(hg.Sum(a, b), -1.5),
    ]
    models = [model_with(closure) for closure in closures]
    states = [start(model) for model in models]
    each = eqx.filter_jit(lambda models, states: [forcing_of(m, s)[1]["q"] for m, s in zip(models, states)])
    one, two, three, flat, right, left, scaled = each(models, states)
    assert error(flat, one + two + three) < 1e-13
    assert error(right, flat) < 1e-13 and error(left, flat) < 1e-13
    assert error(scaled, -1.5 * (one + two)) < 1e-13


def test_memories_of_a_sum_stay_apart():
    closure = hg.Sum(Smagorinsky(), hg.Sum(Leith(), network()))
    assert start(model_with(closure)).memory == (None, (None, None))


# ---- wrong use ----


@pytest.mark.parametrize("wrap", [lambda c: c, lambda c: hg.Scaled(c, 0.5), lambda c: hg.Sum(Smagorinsky(), c)])
def test_wrong_forcing_name_raises_with_a_hint(wrap):
    model = model_with(wrap(network(("q_hatt",))))
    with pytest.raises(ValueError, match="did you mean 'q_hat'"):
        jax.eval_shape(model.step, start(model))


def test_wrong_input_name_raises_with_a_hint():
    net = CNN((2, 2), (1,), key=jr.key(0))
    with pytest.raises(ValueError, match="did you mean 'psi'"):
        start(model_with(NetworkClosure(net, ("psii",), ("q",))))


@pytest.mark.parametrize(
    ("channels", "arguments", "message"),
    [
        ((2, 2), (("q",), ("q",), (1.0, 1.0, 1.0)), "input_scale has 3 entries"),
        ((2, 2), (("q",), ("q",), 1.0, (1.0, 1.0, 1.0)), "output_scale has 3 entries"),
        ((2, 1), (("q",), ("q",)), r"expected \(2, 16, 16\)"),
        ((2, 2), (("q",), ("q",), -1.0), "positive number"),
        ((2, 2), ("q", "q"), "tuples of names"),
    ],
)
def test_network_that_does_not_fit_raises(channels, arguments, message):
    net = CNN(channels, (1,), key=jr.key(0))
    with pytest.raises(ValueError, match=message):
        model = model_with(NetworkClosure(net, *arguments))
        jax.eval_shape(model.step, start(model))


def test_thickness_must_match_the_layers():
    with pytest.raises(ValueError, match="pass equation.thickness"):
        start(model_with(BiharmonicBackscatter((1.0, 1.0, 1.0))))
    with pytest.raises(ValueError, match="positive thickness"):
        BiharmonicBackscatter((1.0, -1.0))


# ---- normalisation ----


def test_scales_from_data_are_standard_deviations_per_channel():
    rng = np.random.default_rng(0)
    data = {
        name: rng.standard_normal((5, 2, 8, 8)) * np.array(s)[:, None, None]
        for name, s in {"q": (1, 2), "u": (3, 4)}.items()
    }
    net = CNN((4, 2), (3,), key=jr.key(0))
    closure = NetworkClosure.from_data(net, data, {"q": 1e-12 * data["q"]})
    assert closure.inputs == ("q", "u") and closure.outputs == ("q",)
    expected = [data[name][:, layer].std() for name in ("q", "u") for layer in (0, 1)]
    assert np.allclose(closure.input_scale, expected, rtol=1e-12)
    assert np.allclose(closure.output_scale, 1e-12 * np.array(expected[:2]), rtol=1e-12)


def test_forcing_scales_with_the_normalisation_and_splits_by_name():
    closure = network(("u", "v"), (2e-7, 2e-8))
    model = model_with(closure)
    fields, grid = model.view(start(model)), model.equation.grid
    forcing, _ = closure(fields, grid, None, jr.key(0))
    y = closure.net(fields["q"] / np.reshape(RMS, (2, 1, 1))) * np.reshape((2e-7, 2e-8) * 2, (4, 1, 1))
    y = y - grid.mean(y)[:, None, None]
    assert list(forcing) == ["u", "v"]
    assert error(forcing["u"], y[:2]) < 1e-13 and error(forcing["v"], y[2:]) < 1e-13


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.ones((2, 8, 8)), r"expected \[sample, layer, y, x\]"),
        (np.ones((3, 2, 8, 8)), "layer 0 has standard deviation 0.0"),
        (np.full((3, 2, 8, 8), np.nan), "not finite"),
    ],
)
def test_data_without_a_scale_raises(array, message):
    net = CNN((2, 2), (3,), key=jr.key(0))
    with pytest.raises(ValueError, match=message):
        NetworkClosure.from_data(net, {"q": array}, {"q": array})
