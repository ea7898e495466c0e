"""Every method file of the closure benchmark makes a closure that runs, and the discovery finds what is there."""

from dataclasses import replace
from types import SimpleNamespace

import benchmark
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from benchmark import METHODS
from helpers import double, eddies, error, run

import hybridgcm as hg
from experiments.closure_benchmark import discovery, rows, systems
from experiments.closure_benchmark.discovery import Discovered
from experiments.closure_benchmark.methods import ar1
from experiments.closure_benchmark.training import Problem
from hybridgcm import closures
from hybridgcm.closures.symbolic import ROSS_WEIGHTS
from hybridgcm.fingerprint import digest

TINY = replace(benchmark.TINY, effort=1e-3)
RMS = (5e-6, 5e-7)  # of q per layer, s-1


@pytest.fixture(scope="module")
def problem(tmp_path_factory):
    root, system = tmp_path_factory.mktemp("methods"), systems.system("eddy16")
    return Problem(TINY, rows.open_data(root, TINY.truths, system))


def files():
    """All methods; those that are trained compile for long, one of them stays in the default run."""
    quick = lambda path: "SEEDS = False" in path.read_text() or path.stem == "offline_flux_cnn"
    paths = sorted(METHODS.glob("[!_]*.py"))
    return [pytest.param(path.stem, marks=() if quick(path) else pytest.mark.slow) for path in paths]


@pytest.mark.parametrize("name", files())
def test_method_has_a_title_and_gives_a_closure_that_runs_and_the_same_one_again(name, problem, tmp_path):
    try:
        method = rows.load_method(name, METHODS)
    except ModuleNotFoundError as error:
        pytest.skip(f"{name} needs {error.name}, which is not installed")
    assert method.title != name, f"{name}.py has no docstring: its first line is the title in the table"
    try:
        made = method.closure(problem, 0, tmp_path)
    except (ModuleNotFoundError, FileNotFoundError) as error:
        pytest.skip(f"{name} needs what is not here: {error}")
    model = problem.model(made)
    state = model.encode({"q": problem.data.validation[0]["q"][0]}, jr.key(1))
    after = run(model, state, 5).y["q"]
    assert np.isfinite(after).all() and not np.array_equal(after, state.y["q"])
    assert digest(method.closure(problem, 0, tmp_path)) == digest(made)


# ---- discovery ----


def frames(model, closure, count, seed, noise=0.2):
    """q of random eddies and S = the closure's forcing plus white noise, a share of its rms."""
    grid, rng = model.equation.grid, np.random.default_rng(seed)
    layers = model.equation.layers
    q = np.stack([eddies(grid, layers, RMS[:layers], 100 * seed + i, peak=5.0) for i in range(count)])
    q = q.astype(np.float32)
    forced = jax.jit(lambda q: closure(model.equation.view({"q": grid.to_spectral(q)}), grid, None, None)[0]["q_hat"])
    S = np.stack([np.asarray(grid.to_grid(forced(one))) for one in q])
    S = S + noise * S.std((0, 2, 3), keepdims=True) * rng.standard_normal(S.shape)
    return {"q": q, "S": S.astype(np.float32)}


def test_discovery_recovers_the_terms_of_a_known_closure(tmp_path):
    model = systems.system("eddy32").model()
    known = {"L A(q)": (0.05, 0.0), "div(∂u·dq)": (-0.4, -0.3), "LL r q": (-0.02, 0.0), "L AA(q)/r": (0.0, 0.02)}
    truth = Discovered(tuple(known), tuple(known.values()))
    train, validation = (frames(model, truth, count, seed) for count, seed in ((20, 1), (10, 2)))
    found = discovery.discover(model, [train], [validation], tmp_path, every=1)
    assert set(found.terms) == set(known), found.terms
    for name, coefficients in zip(found.terms, np.asarray(found.coefficients), strict=True):
        np.testing.assert_allclose(coefficients, known[name], rtol=0.05, err_msg=name)
    assert "-0.4" in (text := (tmp_path / "formula.md").read_text()) and text.count("## Layer") == 2


def test_discovery_in_one_layer_takes_one_of_two_terms_that_are_equal(tmp_path):
    model = hg.Model(hg.QuasiGeostrophic.barotropic(hg.Torus(32, 1e6)), hg.AB3(), dt=3600.0)
    train, validation = (frames(model, Discovered(("L A(zeta)",), ((0.05,),)), count, count) for count in (8, 4))
    found = discovery.discover(model, [train], [validation], tmp_path, every=1)
    assert found.terms in (("L A(zeta)",), ("L A(q)",)), found.terms
    np.testing.assert_allclose(found.coefficients, 0.05, rtol=0.02)


def tendency(equation, closure, y):
    """What the closure adds to dq/dt, spectral; compiled, so that terms which are not used cost nothing."""
    return jax.jit(lambda y: equation.lift(closure(equation.view(y), equation.grid, None, None)[0])["q"])(y)


SPACING = 1e6 / 32
IN_LIBRARY = {
    "div(|dq| dq)": (1.0, lambda: closures.Leith(1.0)),
    "div(∂u·dq)": (-4 / 12, lambda: closures.GradientModel(2.0)),
    "curl div(ZB)": (-4e7 / SPACING**2, lambda: closures.ZannaBolton(-4e7)),
    "LL A(q)": (
        np.array(ROSS_WEIGHTS[1]) / SPACING**4,
        lambda: closures.RossSymbolic((0.0, 0.0), np.eye(7)[:, 1:2] * np.ones(2)),
    ),
    "AA(L∂v/∂x)/r": (None, lambda: closures.RossSymbolic((0.0, 0.0), np.eye(7)[:, 5:6] * np.ones(2))),
}


@pytest.mark.parametrize("name", IN_LIBRARY)
def test_known_closures_are_terms_of_the_library(name):
    equation = hg.QuasiGeostrophic.two_layer(double(32))
    grid = equation.grid
    y = {"q": grid.to_spectral(jnp.asarray(eddies(grid, 2, RMS)))}
    factor, known = IN_LIBRARY[name]
    if factor is None:  # the term is divided by the rate of its layer
        zeta = grid.to_grid(grid.laplacian(equation.invert(y["q"])))
        factor = np.array(ROSS_WEIGHTS[5]) / SPACING**2 * np.sqrt(np.mean(np.asarray(zeta) ** 2, (-2, -1)))
    ours = tendency(equation, Discovered((name,), np.broadcast_to(factor, (1, 2))), y)
    theirs = discovery.judged(grid) * tendency(equation, known(), y)
    for layer in range(2):
        assert error(ours[layer], theirs[layer]) < 1e-12, error(ours[layer], theirs[layer])


def test_terms_carry_their_powers_of_the_spacing():
    coarse, fine = (hg.QuasiGeostrophic.two_layer(double(n)) for n in (32, 64))
    q_hat = coarse.grid.to_spectral(jnp.asarray(eddies(coarse.grid, 2, RMS, peak=3.0)))
    for name, power in {"L r q": 2, "div(|S| dLq)": 4, "div(|dq| dq)": 3}.items():
        closure = Discovered((name,), ((1.0, 1.0),))
        made = []
        for equation in (coarse, fine):
            hat = tendency(equation, closure, {"q": coarse.grid.resize(q_hat, equation.grid)})
            made.append(equation.grid.resize(hat, coarse.grid))
        ratio = np.asarray(coarse.grid.inner(made[0], q_hat) / coarse.grid.inner(made[1], q_hat))
        assert np.all(np.abs(ratio / 2**power - 1) < 0.05), (name, ratio)


def test_all_terms_have_finite_gradients_in_single_precision_at_rest():
    model = systems.system("eddy16").model()
    grid, equation = model.equation.grid, model.equation
    fields = equation.view({"q": grid.to_spectral(jnp.zeros((2, 16, 16), jnp.float32))})
    names = tuple(jax.eval_shape(lambda: discovery.library(fields, grid)))
    closure = hg.Model(equation, hg.AB3(), Discovered(names, np.ones((len(names), 2))), dt=1.0).closure

    def loss(q):
        made = closure(equation.view({"q": grid.to_spectral(q)}), grid, None, None)[0]["q_hat"]
        return jnp.sum((1e12 * grid.to_grid(made)) ** 2)

    slope_of = jax.jit(jax.grad(loss))
    for q in (np.zeros((2, 16, 16)), eddies(grid, 2, RMS)):
        slope = slope_of(jnp.asarray(q, jnp.float32))
        assert slope.dtype == jnp.float32 and np.isfinite(slope).all()


def test_unknown_terms_and_coefficients_that_do_not_fit_are_refused():
    model = systems.system("eddy16").model
    q = {"q": np.zeros((2, 16, 16))}
    with pytest.raises(ValueError, match="no terms"):
        model(Discovered(("LLLL A(q)",), ((1.0, 1.0),))).encode(q)
    with pytest.raises(ValueError, match="expected .term, layer. .1, 2."):
        model(Discovered(("L A(q)",), ((1.0,),))).encode(q)


# ---- others ----


def test_ar1_noise_gets_the_length_and_time_of_the_data():
    model, T = systems.system("eddy32").model(), 14400.0
    grid = model.equation.grid
    truth = closures.AR1((2e-12, 2e-13), scale=8e4, tau=86400.0, dt=T)

    @jax.vmap
    def pair(key):
        fields = {"q": jnp.zeros((2, *grid.shape), jnp.float32)}
        first, memory = truth(fields, grid, truth.init(fields, grid), key)
        second, _ = truth(fields, grid, memory, jr.fold_in(key, 1))
        return jnp.stack([grid.to_grid(made["q_hat"]) for made in (first, second)])

    truth = hg.Model(model.equation, hg.AB3(), truth, dt=T).closure
    parts = [{"S": np.asarray(S)} for S in pair(jr.split(jr.key(3), 60))]
    flow = SimpleNamespace(frame=T)
    known = SimpleNamespace(
        model=lambda: model, data=SimpleNamespace(train=parts), system=SimpleNamespace(flow=flow, dt=3600.0)
    )
    found = ar1.closure(known, 0, None)
    assert found.dt == 3600.0
    np.testing.assert_allclose(found.amplitude, (2e-12, 2e-13), rtol=0.05)
    np.testing.assert_allclose((found.scale, found.tau), (8e4, 86400.0), rtol=0.1)


def test_backscatter_is_chosen_by_flow_where_the_literature_does():
    method = rows.load_method("backscatter", METHODS)
    for name, square, share in (("eddy16", 0.007, 1.2), ("jet16", 0.005, 0.8), ("mix50-16", 0.007, 1.2)):
        system = systems.system(name)
        made = method.closure(SimpleNamespace(system=system, model=system.model), 0, None)
        np.testing.assert_allclose((made.smagorinsky**2, made.backscatter), (square, share), rtol=1e-6)
        depth = system.flow.delta / (1 + system.flow.delta)
        np.testing.assert_allclose(made.thickness, (depth, 1 - depth), rtol=1e-6)
