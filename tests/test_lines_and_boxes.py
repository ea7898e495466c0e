"""Fourier neural operators on lines and in boxes: sums over modes by hand, resolutions, shifts, mirrors, sizes."""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from helpers import double, error, same_bits

import hybridgcm as hg
from hybridgcm import checkpoint, nn
from hybridgcm.blueprint import blueprint
from hybridgcm.metrics import h1, lp
from hybridgcm.nn import spectral


def noise(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape))


def layer(modes, channels=2, out=3):
    """A convolution with a bias."""
    made = nn.SpectralConvolution(channels, out, modes, key=jr.key(0))
    return eqx.tree_at(lambda s: s.bias, made, 1 + jnp.arange(out, dtype=float))


def count(make):
    return sum(leaf.size for leaf in jax.tree.leaves(eqx.filter_eval_shape(make, jr.key(0))) if hasattr(leaf, "size"))


def by_hand(convolution, x):
    """Real part of the sum over modes, each made and evaluated alone."""
    modes, points = convolution.modes, x.shape[1:]
    places = np.meshgrid(*(np.arange(n) / n for n in points), indexing="ij")
    weights = np.asarray(convolution.weights[0] + 1j * convolution.weights[1])
    y = np.zeros((len(weights), *points))
    rows = [np.r_[: (n + 1) // 2, -(n // 2) : 0] for n in modes[:-1]]
    for index in itertools.product(*map(range, weights.shape[2:])):
        k = [numbers[i] for numbers, i in zip([*rows, np.arange(modes[-1] // 2 + 1)], index)]
        wave = np.exp(2j * np.pi * sum(a * b for a, b in zip(k, places)))
        x_hat = (np.asarray(x) * wave.conj()).mean(tuple(range(1, x.ndim)))
        y_hat = weights[(..., *index)] @ x_hat
        y += (1 if k[-1] == 0 else 2) * (y_hat.reshape(-1, *[1] * len(points)) * wave).real
    return y + np.asarray(convolution.bias).reshape(-1, *[1] * len(points))


@pytest.mark.parametrize("small", [True, False], ids=["products", "FFTs"])
@pytest.mark.parametrize(
    ("modes", "points"),
    [((6,), (15,)), ((5,), (16,)), ((1,), (9,)), ((4, 5), (9, 12)), ((3, 4, 5), (8, 9, 10)), ((2, 1, 3), (6, 5, 8))],
)
def test_a_convolution_is_its_sum_over_modes(modes, points, small, monkeypatch):
    if not small:
        monkeypatch.setattr(spectral, "SMALL", dict.fromkeys((1, 2, 3), 0))
    convolution, x = layer(modes), noise(2, *points)
    assert error(convolution(x, None), by_hand(convolution, x)) < 1e-13


@pytest.mark.parametrize("modes", [(6,), (4, 3, 5)])
def test_it_is_the_same_function_at_every_resolution_and_real(modes, monkeypatch):
    """Of a band-limited input, at any points, and by products of matrices as by FFTs."""
    wave = lambda n: np.cos(2 * np.pi * sum(np.meshgrid(*[2 * np.arange(n) / n] * len(modes), indexing="ij")) + 1)
    convolution = layer(modes, 1)
    coarse = convolution(jnp.asarray(wave(10))[None], None)
    monkeypatch.setattr(spectral, "SMALL", dict.fromkeys((1, 2, 3), 0))
    fine = convolution(jnp.asarray(wave(20))[None], None)
    assert error(coarse, fine[(slice(None), *[slice(None, None, 2)] * len(modes))]) < 1e-13
    assert fine.dtype == float


@pytest.mark.parametrize(("modes", "points"), [((5,), (16,)), ((3, 5, 4), (8, 10, 12))])
def test_an_fno_commutes_with_shifts(modes, points):
    net, axes = awake(modes), tuple(range(1, 1 + len(points)))
    call = eqx.filter_jit(lambda x: net(x, None))
    shift, x = tuple(range(1, 1 + len(points))), noise(2, *points)
    assert error(call(jnp.roll(x, shift, axes)), jnp.roll(call(x), shift, axes)) < 1e-12
    places = nn.Bounded(awake(modes, inputs=2 + len(points)))
    assert error(places(jnp.roll(x, shift, axes)), jnp.roll(places(x), shift, axes)) > 1e-3, "with places it must not"


def awake(modes, inputs=2):
    """A small FNO whose last layer does something."""
    net = nn.FNO(inputs, 2, modes=modes, hidden=6, layers=2, key=jr.key(0))
    return eqx.tree_at(lambda n: n.projection[1].weight, net, replace_fn=lambda a: noise(*a.shape, seed=1))


def test_odd_modes_can_commute_with_mirrors_in_a_box_and_even_ones_cannot():
    """Real weights that are the same for k and −k: mirrors pass, unless an outermost row is one-sided."""
    x = noise(1, 8, 10, 12)
    for axis in (1, 2, 3):
        mirror = lambda a, axis=axis: jnp.roll(jnp.flip(a, axis), 1, axis)
        # for real fields a mirror along x takes every row to that of the other sign
        for modes, broken in (((3, 5, 5), ()), ((4, 5, 5), (1, 3)), ((3, 4, 5), (2, 3))):
            convolution = layer(modes, 1, 1)
            real = jnp.stack([0 * convolution.weights[0] + 1, 0 * convolution.weights[1]])
            convolution = eqx.tree_at(lambda s: s.weights, convolution, real)
            distance = error(convolution(mirror(x), None), mirror(convolution(x, None)))
            assert (distance < 1e-12) == (axis not in broken), (axis, modes, distance)


@pytest.mark.parametrize("modes", [(5,), (3, 4, 5)])
def test_gradients_are_real_and_those_of_differences(modes):
    net, x = awake(modes), noise(2, *[8] * len(modes))
    weights, rest = eqx.partition(net, eqx.is_inexact_array)
    loss = jax.jit(lambda w: jnp.sum(jnp.sin(eqx.combine(w, rest)(x, None))))
    along = jax.tree.map(lambda a: noise(*a.shape, seed=a.size), weights)
    moved = lambda h: jax.tree.map(lambda a, b: a + h * b, weights, along)
    expected = (loss(moved(1e-6)) - loss(moved(-1e-6))) / 2e-6
    slopes = jax.tree.leaves(jax.jit(jax.grad(loss))(weights))
    found = sum(jnp.vdot(a, b) for a, b in zip(slopes, jax.tree.leaves(along), strict=True))
    assert abs(float(found / expected) - 1) < 1e-6, (found, expected)
    assert all(slope.dtype == float and np.isfinite(slope).all() and np.any(slope) for slope in slopes)


# Sizes, files, refusals


def formula(inputs, out, modes, h, layers=4):
    """Real weights of neuraloperator's FNO with its defaults, position channels included."""
    sums, e, p = np.prod(modes[:-1]) * (modes[-1] // 2 + 1), round(h / 2), 2 * h
    blocks = layers * (2 * h**2 * int(sums) + h + h**2 + (h * e + e + e * h + h) + h)
    return blocks + (inputs + len(modes)) * 2 * h + 2 * h + 2 * h * h + h + h * p + p + p * out + out


@pytest.mark.parametrize(
    ("modes", "hidden", "published"),
    [((32, 32, 32), 64, 570.5e6), ((64, 64), 64, 69.3e6), ((16, 16), 24, 671_113), ((16,), 64, None)],
)
def test_an_fno_of_any_dimension_has_the_published_number_of_weights(modes, hidden, published):
    """The three from neuraloperator's documentation: 'FNO_Medium3d', 'FNO_Medium2d' and 'FNO_Small2d'."""
    found = count(lambda key: nn.FNO(1 + len(modes), 1, modes=modes, hidden=hidden, key=key))
    assert found == formula(1, 1, modes, hidden)
    assert published is None or abs(found / published - 1) < 1e-3, found


def test_a_classic_fno_of_a_line_has_the_published_number_of_weights():
    assert count(lambda key: nn.ClassicFNO(2, 1, modes=(16,), hidden=64, key=key)) == 549_569
    assert count(lambda key: nn.ClassicFNO(4, 1, modes=4, hidden=16, key=key)) == 67_281
    assert nn.ClassicFNO(1, 1, modes=(1,), hidden=2, key=jr.key(0)).spectral[0].modes == (1,)
    net = nn.ClassicFNO(1, 1, modes=(2, 3, 4), hidden=2, layers=1, key=jr.key(0))
    assert net.spectral[0].modes == (4, 6, 6) and net(noise(1, 8, 8, 8), None).shape == (1, 8, 8, 8)


@pytest.mark.parametrize("kind", [nn.Tucker, nn.CP, nn.TensorTrain])
@pytest.mark.parametrize("modes", [(8,), (4, 5, 6)])
def test_tensorised_weights_have_as_many_axes_as_there_are_modes(kind, modes):
    made = nn.TensorisedConvolution(4, 3, modes, 0.3, kind, key=jr.key(0))
    dense = nn.SpectralConvolution(4, 3, modes, key=jr.key(0))
    assert made.factors.dense().shape == dense.weights.shape
    x = noise(4, *[16] * len(modes))
    same = eqx.tree_at(lambda d: d.weights, dense, made.factors.dense())
    assert error(made(x, None), same(x, None)) < 1e-12


def test_a_train_in_a_box_holds_any_weights():
    """The sum over bonds, by hand."""
    train = nn.TensorTrain((2, 3, 2, 3, 2), 5.0, key=jr.key(0))
    a, *rest = (np.asarray(car[0] + 1j * car[1]) for car in train.cars)
    for car in rest:
        a = np.tensordot(a, car, 1)
    assert a.shape == (2, 3, 2, 3, 2) and error(train.dense()[0] + 1j * train.dense()[1], a) < 1e-12


def test_an_operator_of_a_line_keeps_its_units_in_its_file(tmp_path):
    a, u = np.asarray(noise(5, 2, 16)) * 3 + 1, np.asarray(noise(5, 2, 16, seed=2))
    model = nn.Normalised.from_data(awake((5,)), a, u)
    assert error(model.mean[0], a.mean((0, 2))) < 1e-12 and error(model.scale[1], u.std((0, 2))) < 1e-12
    hg.save(tmp_path / "line.ckpt", model)
    loaded = hg.load(tmp_path / "line.ckpt", blueprint(checkpoint.read_header(tmp_path / "line.ckpt")["tree"]))
    assert same_bits(eqx.filter(loaded, eqx.is_array), eqx.filter(model, eqx.is_array)) and loaded.net.blocks
    assert np.array_equal(loaded(jnp.asarray(a[0])), model(jnp.asarray(a[0])))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: layer((6,))(noise(2, 6), None), "reach wave number 3, the grid of 6 modes"),
        (lambda: layer((3, 5, 3))(noise(2, 8, 4, 8), None), "reach wave number 2, the grid of 4 modes"),
        (lambda: layer((5,))(noise(2, 8, 8), None), "modes=(5,) are of fields [channel, x]; got (2, 8, 8)"),
        (lambda: layer((5, 5))(noise(2, 8), None), "[channel, y, x]; got (2, 8)"),
        (lambda: layer((5,))(noise(2, 16), double(16)), "lines and boxes take grid=None"),
        (lambda: layer((3, 3, 3, 3)), "positive numbers (n_x,), (n_y, n_x) or (n_z, n_y, n_x)"),
        (lambda: layer(()), "positive numbers"),
        (lambda: awake((5,))(noise(3, 16), None), "this FNO maps [2, x]; got (3, 16)"),
        (lambda: awake((5,))(noise(4, 2, 16), None), "this FNO maps [2, x]; got (4, 2, 16); for a batch use jax.vmap"),
        (lambda: awake((3, 3, 3))(noise(2, 8, 8), None), "this FNO maps [2, z, y, x]; got (2, 8, 8)"),
        (lambda: nn.Bounded(awake((5,)))(noise(16)), "map [channel, *points]"),
        (lambda: lp("u", axes=0), "axes of points are 1, 2 or 3"),
        (lambda: lp("u", axes=1, grid=double(16)), "a grid has two axes"),
    ],
)
def test_what_does_not_fit_is_refused(make, words):
    with pytest.raises(ValueError) as caught:
        make()
    assert words in str(caught.value), caught.value


def test_norms_of_lines_and_boxes_by_exact_integrals():
    """e = sin kx over t = cos lx by differences, which make sin(kh)/h of k."""
    x = 2 * np.pi * np.arange(64) / 64
    wave = lambda k: np.sin(k * x[1]) / x[1]
    for axes in (1, 3):
        shape = 2, 1, *[4] * (axes - 1), 64  # two frames of one layer
        line = lambda a, shape=shape: jnp.asarray(np.broadcast_to(a, shape))
        pair = {"u": line(np.cos(2 * x) + np.sin(5 * x) / 3)}, {"u": line(np.cos(2 * x))}
        found = h1("u", axes=axes, length=2 * np.pi, periodic=True)(*pair)
        assert found.shape == (2,)
        assert error(found, np.sqrt((1 + wave(5) ** 2) / (1 + wave(2) ** 2)) / 3) < 1e-13
        assert error(lp("u", axes=axes)(*pair), 1 / 3) < 1e-13
