"""Operator learning: published sizes, exact symmetries, training and files, the experiment."""

import json
import re

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest
from helpers import double, error, same_bits, slope

import hybridgcm as hg
from hybridgcm import batches, checkpoint, nn, pairs, train
from hybridgcm.blueprint import blueprint
from hybridgcm.metrics import h1, lp
from hybridgcm.pairs.darcy import _darcy

NOTHING = jnp.zeros((1, 8, 8))


def count(net):
    return sum(leaf.size for leaf in jax.tree.leaves(net) if hasattr(leaf, "size"))


def random(shape, seed=0):
    return jr.normal(jr.key(seed), shape)


def small(seed=0, inputs=1, outputs=1, activation=jax.nn.gelu):
    """A bounded FNO whose last layer does something."""
    net = nn.FNO(inputs + 2, outputs, modes=(4, 4), hidden=6, layers=2, key=jr.key(seed), activation=activation)
    last = random(net.projection[1].weight.shape, seed + 1)
    return nn.Bounded(eqx.tree_at(lambda n: n.projection[1].weight, net, last))


def normalised(seed=0):
    return nn.Normalised(small(seed), (0.5, 0.4), (0.5, 0.3))


# Networks


@pytest.mark.parametrize(
    ("modes", "hidden", "published"), [((8, 8), 24, 191_881), ((8, 8), 32, 340_833), ((8, 12), 24, 265_609)]
)
def test_a_bounded_fno_has_the_published_number_of_weights(modes, hidden, published):
    make = lambda key: nn.Bounded(nn.FNO(1 + 2, 1, modes=modes, hidden=hidden, key=key))
    assert count(eqx.filter_eval_shape(make, jr.key(0))) == published


@pytest.mark.parametrize("shape", [(16, 16), (17, 16), (9, 32), (33, 40)])
def test_points_without_a_grid_are_one_period(shape):
    """By products of matrices up to 32 points a side, by FFTs beyond: both the definition, mode by mode."""
    layer = nn.SpectralConvolution(2, 3, (5, 6), key=jr.key(0))
    x, weights = random((2, *shape)), np.asarray(layer.weights[0] + 1j * layer.weights[1])
    x_hat = np.fft.rfft2(x, norm="forward")
    y_hat = np.zeros((3, *x_hat.shape[1:]), complex)
    for row, l in enumerate((0, 1, 2, -2, -1)):
        y_hat[:, l, :4] = np.einsum("ock,ck->ok", weights[:, :, row], x_hat[:, l, :4])
    expected = np.fft.irfft(np.fft.ifft(y_hat, axis=-2, norm="forward"), shape[1], norm="forward")
    assert error(layer(x, None), expected) < 1e-13
    if shape == (16, 16):
        assert error(layer(x, double(16, dealias=None)), expected) < 1e-13, "a torus of these points is the same"


def test_weights_mean_the_same_at_every_resolution():
    layer = nn.SpectralConvolution(1, 1, (7, 7), key=jr.key(0))
    wave = lambda n: jnp.cos(2 * np.pi * (2 * np.arange(n)[:, None] - 3 * np.arange(n)) / n + 1)[None]
    fine = layer(wave(64), None)
    for n in (8, 16, 32):
        assert error(layer(wave(n), None), fine[:, :: 64 // n, :: 64 // n]) < 1e-13
    net = small()  # places i/n jump at the end, so that an operator with them converges with 1/n
    places = lambda n: np.sin(np.pi * np.arange(n) / n)
    y = {n: net(jnp.asarray(places(n)[:, None] * places(n))[None]) for n in (16, 32, 64, 256)}
    errors = [error(y[n][:, :: n // 16, :: n // 16], y[256][:, ::16, ::16]) for n in (16, 32, 64)]
    assert slope([1 / 16, 1 / 32, 1 / 64], errors) > 0.8 and errors[0] < 0.2, errors


def test_places_and_units_reach_the_network():
    seen = []
    net = nn.Normalised(nn.Bounded(lambda x: seen.append(x) or x[:1]), (3.0, -1.0), (2.0, 10.0))
    x = random((1, 4, 8))
    y = net(x)
    assert error(y, -1 + 10 * (x - 3) / 2) < 1e-15
    assert np.array_equal(seen[0][1, :, 5], np.arange(4) / 4) and np.array_equal(seen[0][2, 3], np.arange(8) / 8)
    a, u = random((9, 2, 4, 4)) * 5 + 2, random((9, 1, 4, 4), 1) * 1e-6
    fitted = nn.Normalised.from_data(lambda x: x[:1], a, u)
    assert error(fitted.mean[0], a.mean((0, 2, 3))) < 1e-12 and error(fitted.scale[1], u.std((0, 2, 3))) < 1e-12


def test_gradients_of_the_objective_are_those_of_differences():
    model, batch = normalised(), {"a": random((3, 1, 8, 8)), "u": random((3, 1, 8, 8), 1)}
    objective = train.augmented(train.supervised(h1("u"), ("a",), ("u",)), nn.turned_at_random)
    weights, rest = eqx.partition(model.net, eqx.is_inexact_array)
    loss = jax.jit(lambda w: objective(eqx.tree_at(lambda m: m.net, model, eqx.combine(w, rest)), batch, jr.key(4)))
    along = jax.tree.map(lambda a: random(a.shape, a.size), weights)
    moved = lambda h: jax.tree.map(lambda a, b: a + h * b, weights, along)
    expected = (loss(moved(1e-5)) - loss(moved(-1e-5))) / 2e-5
    slopes = jax.jit(jax.grad(loss))(weights)
    found = sum(jnp.vdot(a, b) for a, b in zip(jax.tree.leaves(slopes), jax.tree.leaves(along), strict=True))
    assert abs(float(found / expected) - 1) < 1e-7, (found, expected)
    assert min(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(slopes)) > 0, "a weight has no gradient"


# Symmetries


def test_the_symmetries_of_the_square_are_a_group():
    a = random((2, 5, 5))
    images = [nn.turned(a, g) for g in range(nn.bounded.SQUARE)]
    known = {np.asarray(image).tobytes() for image in images}
    assert len(known) == 8
    for g, image in enumerate(images):
        assert np.array_equal(nn.turned(image, g, back=True), a)
        assert {np.asarray(nn.turned(image, h)).tobytes() for h in range(8)} == known
        assert np.array_equal(
            np.sort(np.ravel([image[:, 0], image[:, :, 0]])), np.sort(np.ravel([a[:, 0], a[:, :, 0]]))
        )


def test_the_solver_has_the_symmetries_that_augment_its_pairs():
    k = np.where(random((17, 17)) > 0, 0.4, 0.02)
    u = np.asarray(_darcy(jnp.asarray(k)))
    for image, turn in (
        (k[::-1], lambda u: nn.turned(u, 1)),
        (k[:, ::-1], lambda u: nn.turned(u, 2)),
        (k.T, lambda u: nn.turned(u, 4)),
        (k[::-1, ::-1].T, lambda u: nn.turned(u, 7)),
    ):
        found = np.asarray(_darcy(jnp.asarray(image)))[:-1, :-1]
        assert error(found, turn(jnp.asarray(u[:-1, :-1]))) < 1e-7


def test_a_symmetrised_network_commutes_with_every_symmetry():
    net, x = eqx.filter_jit(nn.Symmetrised(normalised())), random((1, 8, 8))
    y = net(x)
    for g in range(8):
        assert error(net(nn.turned(x, g)), nn.turned(y, g)) < 1e-14
    assert error(normalised()(nn.turned(x, 3)), nn.turned(normalised()(x), 3)) > 1e-2
    operator = nn.FNO(1, 1, modes=(4, 4), hidden=4, layers=2, key=jr.key(0))  # called without a grid, as elsewhere
    assert nn.Symmetrised(operator)(x).shape == (1, 8, 8)
    model = nn.Normalised(nn.Symmetrised(small()), (0.0, 0.0), (1.0, 1.0))
    batch = {"a": random((4, 1, 8, 8)), "u": random((4, 1, 8, 8), 1)}
    plain = train.supervised(lp("u"), ("a",), ("u",))
    losses = eqx.filter_jit(lambda f: f(model, batch, jr.key(1)))
    assert abs(float(losses(train.augmented(plain, nn.turned_at_random)) / losses(plain)) - 1) < 1e-13


def test_operators_on_a_sphere_are_normalised_by_area():
    grid = hg.Sphere(10)
    a = jnp.asarray(np.random.default_rng(0).normal(size=(5, 2, *grid.shape)))
    a = a.at[:, :, 0].multiply(30.0)  # rows at the pole are many and small
    net = nn.FNO(2, 1, modes=8, hidden=4, layers=2, key=jr.key(0))
    model = nn.Normalised.from_data(net, a, a[:, :1], grid=grid)
    mean = np.asarray(grid.mean(a)).mean(0)
    square = np.asarray(grid.mean((a - mean[:, None, None]) ** 2)).mean(0)
    assert error(model.mean[0], mean) < 1e-5 and error(model.scale[0], np.sqrt(square)) < 1e-5
    assert (
        model(a[0]).shape == (1, *grid.shape) and error(model(a[0]), np.broadcast_to(mean[0], (1, *grid.shape))) < 1e-5
    )
    batch = {"a": a, "u": a[:, :1]}
    loss = train.supervised(lp("u", grid=grid), ("a",), ("u",))
    trained, log = hg.fit(model, [batch] * 2, loss, optax.adam(1e-2), where=lambda m: m, key=jr.key(0))
    assert log[1]["loss"] < log[0]["loss"] and trained.grid is not None and error(trained.mean[0], model.mean[0]) == 0


def test_places_are_given_to_whole_numbers_too():
    """Coefficients of 0 and 1, as files have them: as if they were floating-point numbers."""
    net = nn.Bounded(lambda x: x)
    a = np.random.default_rng(0).integers(0, 2, (1, 4, 6))
    assert error(net(jnp.asarray(a)), net(jnp.asarray(a, float))) == 0 and float(net(jnp.asarray(a))[1, 1, 0]) == 0.25
    pair = a + 0.1 * np.arange(3)[:, None, None, None]
    make = lambda: nn.Normalised.from_data(nn.FNO(1, 1, modes=(2, 2), hidden=4, key=jr.key(0)), pair, pair)
    assert isinstance(eqx.filter_eval_shape(make), nn.Normalised), "as the `like` of a file to be loaded"


# Training, files, refusals


def tiny():
    return pairs.darcy(8, 64, jr.key(0), refine=2)


def test_fit_trains_an_operator_and_its_file_holds_the_units(tmp_path):
    pair = {name: a.astype(float) for name, a in tiny().items()}
    net = nn.Bounded(nn.FNO(3, 1, modes=(4, 4), hidden=6, layers=2, key=jr.key(0)))
    model = nn.Normalised.from_data(net, pair["a"], pair["u"])
    objective = train.augmented(train.supervised(lp("u"), ("a",), ("u",)), nn.turned_at_random)
    order = batches.samples(pair, 16, 60, jr.key(1))
    fitted, log = hg.fit(model, order, objective, optax.adam(1e-2), where=lambda m: m.net, key=jr.key(2))
    assert np.mean([r["loss"] for r in log[-5:]]) < 0.7 * log[0]["loss"], (log[0], log[-1])
    assert same_bits((fitted.mean, fitted.scale), (model.mean, model.scale)), "units are not trained"
    file = tmp_path / "operator.ckpt"
    hg.save(file, fitted)
    loaded = hg.load(file, blueprint(checkpoint.read_header(file)["tree"]))
    assert same_bits(eqx.filter(loaded, eqx.is_array), eqx.filter(fitted, eqx.is_array))
    other = eqx.tree_at(
        lambda m: m.net, model, nn.Bounded(nn.FNO(3, 1, modes=(6, 4), hidden=6, layers=2, key=jr.key(0)))
    )
    for like in (other, fitted.net):
        with pytest.raises(ValueError, match="operator.ckpt"):
            hg.load(file, like)


def loss_of(model, **fields):
    batch = {"a": jnp.zeros((2, 1, 8, 8)), "u": jnp.zeros((2, 1, 8, 8))} | fields
    return train.supervised(lp("u"), ("a",), ("u",))(model, batch, jr.key(0))


@pytest.mark.parametrize(
    ("make", "kind", "words"),
    [
        (lambda: normalised()(jnp.zeros((2, 8, 8))), ValueError, "maps [1, y, x]; got (2, 8, 8)"),
        (lambda: small()(jnp.zeros((2, 8, 8))), ValueError, "maps [3, y, x]; got (4, 8, 8)"),
        (lambda: small()(jnp.zeros((1, 4, 8))), ValueError, "reach wave number 2, the grid of 4 modes"),
        (lambda: loss_of(small()), TypeError, "without normaliser: wrap it"),
        (lambda: loss_of(normalised(), u=jnp.zeros((2, 2, 8, 8))), ValueError, "gives (1, 8, 8), the targets are"),
        (lambda: train.supervised(lp("u"), ("a",), ("u",))(normalised(), {"a": 0}, 0), ValueError, "['u'] missing"),
        (lambda: nn.Normalised(small(), (0.0, 0.0), (0.0, 1.0)), ValueError, "scales of inputs are positive"),
        (lambda: nn.Normalised(small(), (np.zeros(2), 0.0), (1.0, 1.0)), ValueError, "number per channel"),
        (lambda: nn.Normalised.from_data(small(), NOTHING[None], np.ones((3, 1, 8, 8))), ValueError, "sample by"),
        (lambda: nn.Normalised(lambda x: x, (0.0, np.zeros(2)), (1.0, np.ones(2)))(NOTHING), ValueError, "1 channels"),
        (lambda: nn.Symmetrised(small())(jnp.zeros((1, 8, 9))), ValueError, "need [channel, n, n]"),
        (lambda: nn.Bounded(nn.ZonalConvolution(3, 1, 2, key=jr.key(0)))(NOTHING), TypeError, "written for a Sphere"),
        (lambda: pairs.darcy(2, 1, jr.key(0)), ValueError, "n >= 4"),
        (lambda: pairs.burgers(15, 1, jr.key(0)), ValueError, "divisor of 256"),
        (lambda: pairs.read_darcy("nowhere.nc"), FileNotFoundError, "without files, `pairs.darcy`"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(make, kind, words):
    with pytest.raises(kind) as caught:
        make()
    assert words in str(caught.value), caught.value


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda f: f | {"u_train": np.where(f["u_train"] == f["u_train"].max(), np.nan, f["u_train"])}, "not finite"),
        (lambda f: f | {"a_test16": 2 * f["a_test16"]}, "a_test16 is 0 or 1; got values such as 2"),
        (lambda f: {n: a for n, a in f.items() if n != "u_test32"}, "has no u_test32"),
        (lambda f: f | {"u_train": f["u_train"][:1]}, "differ in length"),
        (lambda f: f | {"u_train": f["u_train"][:, :4]}, "[sample, n, n] alike"),
    ],
)
def test_a_file_that_is_not_whole_is_refused(tmp_path, change, words):
    import xarray as xr

    a = np.arange(2 * 8 * 8).reshape(2, 8, 8) % 2
    fields = {f"{n}_{part}": a * 1.0 for n in "au" for part in ("train", "test16", "test32")}
    write = lambda fields, path: xr.Dataset(
        {n: (tuple(f"{n}{i}" for i in range(3)), v) for n, v in fields.items()}
    ).to_netcdf(path)
    write(fields, tmp_path / "good.nc")
    assert pairs.read_darcy(tmp_path / "good.nc")["train"]["a"].shape == (2, 1, 8, 8)
    write(change(fields), tmp_path / "bad.nc")
    with pytest.raises(ValueError) as caught:
        pairs.read_darcy(tmp_path / "bad.nc")
    assert words in str(caught.value), caught.value


# The experiment and the benchmark


def test_the_smoke_run_reports(tmp_path):
    pytest.importorskip("matplotlib")
    pytest.importorskip("tyro")
    from experiments.operators import run, stages

    report = run.main(["--preset", "smoke", "--seeds", "1", "--out", str(tmp_path / "run")])
    table = json.loads((report.parent / "report.json").read_text())
    assert list(table) == ["darcy", "burgers"]
    score = lambda problem, name, part: table[problem][name]["scores"][part]["l2"][0]
    assert score("burgers", "exact solution", "test") < score("burgers", "kernel ridge", "test") < 0.2
    assert score("darcy", "finite volumes", "test16") < score("darcy", "linear ridge", "test16") < 0.4
    text = report.read_text()
    for picture in re.findall(r"\((\S+\.png)\)", text):
        assert (report.parent / picture).stat().st_size > 5_000
    folder = next((report.parent / "stages").glob("symmetric-0-*"))
    assert isinstance(stages.operator(folder), nn.Normalised)


def test_settings_that_do_not_fit_are_told():
    from experiments.operators.config import SMOKE, Config

    assert not list(Config().problems()) and not list(SMOKE.problems())
    for change, message in (
        ({"modes": 16}, "beyond Nyquist"),
        ({"n": 12}, "power of two"),
        ({"samples": 10}, "a batch"),
        ({"seeds": 0}, "at least 1"),
    ):
        assert any(message in line for line in Config(**change).problems()), change


@pytest.mark.slow
def test_the_benchmark_tabulates_an_epoch(monkeypatch):
    from experiments.benchmarks import operators

    monkeypatch.setattr(operators, "other", None)
    text = operators.main(["--sizes", "16", "--rounds", "1", "--samples", "64"])
    assert "| 16² | " in text and "not installed" in text
