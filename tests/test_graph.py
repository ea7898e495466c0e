"""Operators on scattered points: means by hand, order of points, refinement, learning, places that do not fit."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest
from helpers import error, same_bits, slope

import hybridgcm as hg
from hybridgcm import batches, checkpoint, nn, train
from hybridgcm.blueprint import blueprint
from hybridgcm.metrics import lp

BOX = (1.0, 2.0)


def scattered(count, seed=0, box=BOX):
    return np.random.default_rng(seed).uniform(size=(count, len(box))) * box


def noise(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape))


def busy(net, seed=5):
    """The network with noise where it starts at zero."""
    filled = lambda a: noise(*a.shape, seed=seed) / 4 if eqx.is_inexact_array(a) and not np.any(a) else a
    return jax.tree.map(filled, net)


def constant(net):
    """A GNO whose kernel is one everywhere."""
    last = net.kernel[-1]
    return eqx.tree_at(lambda n: n.kernel[-1], net, jax.tree.map(lambda a: 0 * a, last))


KINDS = (nn.GNO, nn.NonlinearGNO)


def distances(points, queries, box, periodic):
    apart = queries[:, None] - points
    apart -= np.where(periodic, np.round(apart / box) * box, 0)
    return np.linalg.norm(apart, axis=-1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("periodic", [False, True, (False, True)])
def test_a_constant_kernel_gives_the_mean_within_the_radius_by_area(kind, periodic):
    points, queries, f = scattered(150), scattered(40, 1), noise(3, 150)
    areas = np.random.default_rng(2).uniform(0.5, 2, 150)
    near = nn.neighbours(points, queries, 0.35, BOX, weights=areas, periodic=periodic)
    u = constant(kind(3, axes=2, key=jr.key(0), widths=(8,)))(f, near)
    share = (distances(points, queries, BOX, np.broadcast_to(periodic, 2)) <= 0.35) * areas
    expected = np.asarray(f) @ (share / share.sum(1, keepdims=True)).T
    assert u.shape == (3, 40) and error(u, expected) < 1e-13


def affine(layer):
    weight, bias = np.asarray(layer.weight), np.asarray(layer.bias)
    return lambda a: weight @ a + bias


@pytest.mark.parametrize("kind", KINDS)
def test_an_integral_is_its_sum(kind):
    """By a double loop over queries and points, the kernel asked for each pair alone."""
    points, queries, f = scattered(60), scattered(5, 1), noise(2, 60)
    net = kind(2, axes=2, key=jr.key(0), widths=(8,), frequencies=2)
    u = net(f, nn.neighbours(points, queries, 0.5, BOX, periodic=(False, True)))
    f, (first, last) = np.asarray(f), [affine(layer) for layer in net.kernel]
    gelu = lambda a: a / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (a + 0.044715 * a**3)))
    expected = np.zeros((2, 5))
    for i, x in enumerate(queries):
        kernels = []
        for j, y in enumerate(points):
            z = y - x
            z[1] -= 2 * np.round(z[1] / 2)
            if np.linalg.norm(z) > 0.5:
                continue
            angles = lambda a: a * (np.pi, np.pi)  # half a turn over the first axis, of one, a whole over the other
            wave = lambda a, angles=angles: np.concatenate([g(k * angles(a)) for g in (np.sin, np.cos) for k in (1, 2)])
            seen = np.concatenate([wave(x), wave(y), z / 0.5, *([f[:, j]] if kind is nn.NonlinearGNO else [])])
            kernels.append((1 + last(gelu(first(seen)))) * f[:, j])
        expected[:, i] = np.mean(kernels, 0)
    assert error(u, expected) < 1e-12


def test_the_order_of_points_is_of_no_importance():
    points, queries, f = scattered(150), scattered(40, 1), noise(3, 150)
    order, turn = np.random.default_rng(3).permutation(150), np.random.default_rng(4).permutation(40)
    call = eqx.filter_jit(busy(gino(3)))
    u = call(f, nn.geometry(points, queries, (6, 8), 0.4, BOX))
    other = call(f[:, order], nn.geometry(points[order], queries[turn], (6, 8), 0.4, BOX))
    assert u.shape == (2, 40) and error(other, u[:, turn]) < 1e-12


def gino(inputs=1, seed=0):
    """For a box that is not periodic."""
    inner = nn.Bounded(nn.FNO(8 + 2, 8, modes=(3, 3), hidden=8, layers=2, key=jr.key(seed)))
    return nn.GINO(inputs, 2, inner, axes=2, hidden=8, widths=(16,), key=jr.key(seed + 1))


@pytest.mark.parametrize(("window", "order"), [(np.ones_like, 0.7), (nn.half_cosine, 1.8)], ids=["sharp", "smooth"])
def test_integrals_converge_as_points_are_refined(window, order):
    """Of midpoints with their areas, denser on one side, to the integral of many evenly spaced ones."""
    net, queries = nn.GNO(1, axes=2, key=jr.key(0), widths=(8,), frequencies=2), scattered(50, 1)
    net = eqx.filter_jit(net)
    wave = lambda p: jnp.asarray(np.sin(3 * p[:, 0] + 1) * np.cos(2 * p[:, 1]))[None]

    def value(n, power, weighted=True):
        s = (np.arange(n) + 0.5) / n
        x, y = np.meshgrid(s**power, 2 * s, indexing="ij")
        points, areas = np.stack([x.ravel(), y.ravel()], 1), np.repeat(power * s ** (power - 1), n)
        near = nn.neighbours(points, queries, 0.3, BOX, weights=areas if weighted else None, window=window)
        return np.asarray(net(wave(points), near))

    truth, sizes = value(256, 1), (16, 32, 64)
    errors = [float(np.abs(value(n, 1.5) - truth).mean()) for n in sizes]
    assert -slope(sizes, errors) > order, errors
    assert np.abs(value(64, 1.5, weighted=False) - truth).mean() > 10 * errors[-1], "weights must matter"


def test_a_periodic_integral_moves_with_its_points():
    """Where the kernel sees only y − x, and across the border as anywhere."""
    points, queries, f = scattered(100), scattered(30, 1), noise(1, 100)
    net = nn.GNO(1, axes=2, key=jr.key(0), widths=(8,), frequencies=1)
    blind = eqx.tree_at(lambda n: n.kernel[0].weight, net, replace_fn=lambda w: w.at[:, :8].set(0))
    moved = lambda a: (a + np.array([0.7, 1.3])) % BOX
    call = eqx.filter_jit(lambda net, near: net(f, near))
    value = lambda net, move: call(net, nn.neighbours(move(points), move(queries), 0.3, BOX, periodic=True))
    assert error(value(blind, moved), value(blind, lambda a: a)) < 1e-12
    assert error(value(net, moved), value(net, lambda a: a)) > 1e-3, "with places it must not"


# Learning


def waves(samples, seed):
    """f of random waves of numbers up to 3 and u with −∇²u = f, as functions of places, both of O(1)."""
    numbers = np.array([(k, l) for k in range(-3, 4) for l in range(4) if (l, k) > (0, 0)])
    shares = np.random.default_rng(seed).standard_normal((2, samples, len(numbers))) / np.sqrt(len(numbers))
    square = (numbers**2).sum(1)

    def fields(points):
        angle = 2 * np.pi * points @ numbers.T
        make = lambda size: (shares[0] * size) @ np.cos(angle).T + (shares[1] * size) @ np.sin(angle).T
        return {"f": make(1)[:, None], "u": 2 * make(1 / square)[:, None]}

    return fields


@pytest.mark.slow
def test_a_gino_learns_to_solve_poisson_and_runs_on_other_points():
    corners = np.stack(np.meshgrid(*[np.arange(16) / 16] * 2), -1).reshape(-1, 2)
    places = lambda seed: corners + scattered(256, seed, (1 / 16, 1 / 16))  # anywhere in cells of their own
    where = lambda points: nn.geometry(points, points, (8, 8), 0.2, (1.0, 1.0), periodic=True)
    points, others = places(1), places(2)
    pair = waves(200, 0)(points)
    inner = nn.FNO(8, 8, modes=(7, 7), hidden=12, layers=2, key=jr.key(0))
    net = nn.GINO(1, 1, inner, axes=2, hidden=8, widths=(16,), frequencies=2, key=jr.key(1))
    model = nn.Normalised.from_data(nn.AtPoints(net, where(points)), pair["f"], pair["u"])
    objective = train.supervised(lp("u", axes=1), ("f",), ("u",))
    order, rate = batches.samples(pair, 20, 200, jr.key(2)), optax.cosine_decay_schedule(1e-2, 200)
    fitted, _ = hg.fit(model, order, objective, optax.adam(rate), where=lambda m: m.net.net, key=jr.key(3))
    assert same_bits(fitted.net.geometry, model.net.geometry), "places are not trained"
    moved = eqx.tree_at(lambda m: m.net.geometry, fitted, where(others))
    errors = {}
    for name, one, at in (("same", fitted, points), ("other", moved, others)):
        test = {n: jnp.asarray(a) for n, a in waves(40, 9)(at).items()}
        made = eqx.filter_jit(lambda model, f: jax.vmap(model)(f))(one, test["f"])
        errors[name] = float(jnp.mean(lp("u", axes=1)({"u": made}, {"u": test["u"]})))
    assert errors["same"] < 0.25 and errors["other"] < 0.3, errors  # 1 is a prediction of zero, and of the mean


def test_every_weight_has_a_gradient_and_the_untrained_network_is_zero():
    points, f = scattered(60), noise(1, 60)
    where, net = nn.geometry(points, points[:20], (6, 8), 0.5, BOX), gino()
    assert not np.any(eqx.filter_jit(net)(f, where))
    slopes = jax.tree.leaves(eqx.filter_jit(eqx.filter_grad(lambda n: jnp.sum(jnp.sin(n(f, where)))))(busy(net)))
    assert all(np.isfinite(slope).all() and np.any(slope) for slope in slopes) and len(slopes) > 20


def test_a_gino_of_a_file_is_the_same(tmp_path):
    net, file = busy(gino()), tmp_path / "gino.ckpt"
    model = nn.AtPoints(net, nn.geometry(scattered(60), scattered(9, 1), (6, 8), 0.5, BOX))
    hg.save(file, model)
    found = hg.load(file, blueprint(checkpoint.read_header(file)["tree"]))
    assert same_bits(*(eqx.filter(m, eqx.is_array) for m in (found, model))) and found.geometry.shape == (6, 8)


# Refusals


def lists(points=None, queries=None, radius=0.4, **options):
    points = scattered(60) if points is None else points
    return nn.neighbours(points, scattered(9, 1) if queries is None else queries, radius, BOX, **options)


def beyond(a, row, place):
    a = np.array(a)
    a[row] = place
    return a


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: lists(beyond(scattered(60), 17, (0.5, 2.1))), "1 of 60 points lie outside the box 0 ... (1, 2)"),
        (lambda: lists(beyond(scattered(60), 17, (0.5, 2.1))), "the first is number 17 at (0.5, 2.1)"),
        (lambda: lists(beyond(scattered(60), 3, (np.nan, 1))), "the first is number 3 at (nan, 1)"),
        (lambda: lists(beyond(scattered(60), 3, (0.5, 2)), periodic=True), "the end excluded"),
        (lambda: lists(queries=np.full((4, 2), -0.1)), "4 of 4 queries lie outside"),
        (lambda: lists(beyond(scattered(60) * 0.5, 0, (1, 2)), np.array([(0.2, 0.3), (0.1, 1.9)])),
         "no point within 0.4 of 1 of 2 queries, the first is number 1 at (0.1, 1.9); take a larger radius"),
        (lambda: lists(scattered(60)[:, :1]), "[point, axis] with 2 axes"),
        (lambda: lists(weights=np.zeros(60)), "positive number for each of 60 points"),
        (lambda: lists(weights=np.ones(59)), "got (59,)"),
        (lambda: lists(radius=0.6, periodic=True), "beyond half a period, 0.5"),
        (lambda: lists(radius=0.0), "box and radius are positive"),
        (lambda: nn.GNO(2, axes=2, key=jr.key(0))(noise(3, 60), lists()), "this GNO maps [2, point]; got (3, 60)"),
        (lambda: nn.GNO(2, axes=2, key=jr.key(0))(noise(2, 61), lists()), "given at 61 points, the lists are of 60"),
        (lambda: gino()(noise(2, 60), nn.Geometry(lists(), lists(), (3, 3))), "this GINO maps [1, point]; got (2, 60)"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(make, words):
    with pytest.raises(ValueError) as caught:
        make()
    assert words in str(caught.value), caught.value
