"""FNO and U-Net: one function at every resolution, real and symmetric, with the published numbers of weights."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from helpers import double, eddies, error

import hybridgcm as hg
from hybridgcm import nn


def count(net):
    return sum(leaf.size for leaf in jax.tree.leaves(net) if hasattr(leaf, "size"))


def awake(net, seed=3):
    """The network with a last layer that does something."""
    if isinstance(net, nn.FNO):
        return eqx.tree_at(lambda n: n.projection[1].weight, net, _random(net.projection[1].weight, seed))
    return eqx.tree_at(lambda n: n.out, net, _random(net.out, seed))


def _random(like, seed):
    return jr.normal(jr.key(seed), like.shape, like.dtype) / 4


def smooth(grid, channels=2, seed=0):
    """A field without waves above number 7, the same on every grid."""
    coarse = double(16)
    a_hat = coarse.to_spectral(jnp.asarray(eddies(coarse, channels, 1.0, seed, peak=3.0)))
    keep = (np.abs(np.fft.fftfreq(16, 1 / 16))[:, None] < 5) & (np.arange(9) < 5)
    return grid.to_grid(coarse.resize(a_hat * keep, grid))


call = eqx.filter_jit(lambda net, x, grid: nn.apply(net, x, grid))


# Spectral convolution


@pytest.mark.parametrize(
    ("modes", "dealias"), [((7, 7), 2 / 3), ((8, 8), None), ((8, 8), 3 / 2), ((9, 5), 2 / 3), ((1, 1), None)]
)
def test_a_spectral_convolution_is_the_same_function_at_every_resolution(modes, dealias):
    layer = nn.SpectralConvolution(2, 3, modes, key=jr.key(0))
    grids = [double(n, dealias=dealias) for n in (32, 64)]
    low, high = (grid.to_spectral(call(layer, 1 + smooth(grid), grid)) for grid in grids)
    distance = error(grids[1].resize(high, grids[0]), low)
    assert distance < 1e-13, distance


@pytest.mark.parametrize("modes", [(7, 7), (8, 6)])
def test_its_coefficients_are_those_of_a_real_field(modes):
    grid = double(32, dealias=None)
    layer = nn.SpectralConvolution(2, 3, modes, key=jr.key(0))
    y = call(layer, jr.normal(jr.key(1), (2, 32, 32)), grid)
    full = np.fft.fft2(np.asarray(y), norm="forward")
    half = np.asarray(grid.to_spectral(y))
    assert error(half, full[..., :17]) < 1e-13
    column = half[..., 0]
    assert error(np.conj(np.roll(column[:, ::-1], 1, -1)), column) < 1e-13, "column 0 holds both signs"
    rows = np.abs(np.fft.fftfreq(32, 1 / 32))
    beyond = (rows[:, None] > modes[0] // 2) | (np.arange(17) > modes[1] // 2)
    assert np.abs(half[:, beyond]).max() < 1e-14 and np.abs(half[:, ~beyond]).max() > 1e-3


def test_hermitian_weights_multiply_each_mode_as_written():
    """With W(-l, 0) = W(l, 0)* the published definition needs no averaging: compare with it, mode by mode."""
    grid = double(16, dealias=None)
    layer = nn.SpectralConvolution(1, 1, (5, 5), key=jr.key(0))
    weights = np.array(layer.weights[0] + 1j * layer.weights[1])[0, 0]  # rows 0, 1, 2, -2, -1
    weights[0, 0], weights[3, 0], weights[4, 0] = weights[0, 0].real, weights[2, 0].conj(), weights[1, 0].conj()
    pair = jnp.stack([weights.real, weights.imag])[:, None, None]
    layer = eqx.tree_at(lambda s: s.weights, layer, pair)
    x = jr.normal(jr.key(1), (1, 16, 16))
    expected = np.zeros((16, 9), complex)
    for row, l in enumerate((0, 1, 2, -2, -1)):
        for k in range(3):
            expected[l, k] = weights[row, k] * np.asarray(grid.to_spectral(x))[0, l, k]
    assert error(grid.to_spectral(call(layer, x, grid))[0], expected) < 1e-13


def test_odd_modes_can_commute_with_mirrors_and_even_ones_cannot():
    """A real weight that is the same for l and -l: y -> -y must commute, unless the outermost row is one-sided."""
    grid = double(16)
    x = jr.normal(jr.key(1), (1, 16, 16))
    mirror = lambda a: jnp.roll(jnp.flip(a, -2), 1, -2)
    for modes, symmetric in (((5, 5), True), ((4, 5), False)):
        layer = nn.SpectralConvolution(1, 1, modes, key=jr.key(0))
        layer = eqx.tree_at(lambda s: s.weights, layer, jnp.stack([0 * layer.weights[0] + 1, 0 * layer.weights[1]]))
        distance = error(call(layer, mirror(x), grid), mirror(call(layer, x, grid)))
        assert (distance < 1e-13) == symmetric, (modes, distance)


def test_a_grid_that_lacks_the_modes_is_refused():
    layer = nn.SpectralConvolution(1, 1, (13, 13), key=jr.key(0))
    with pytest.raises(ValueError, match="reach wave number 6, the grid of 16 modes resolves those below 5.3"):
        layer(jnp.zeros((1, 16, 16)), double(16))
    assert layer(jnp.zeros((1, 16, 16)), double(16, dealias=None)).shape == (1, 16, 16)
    with pytest.raises(ValueError, match="pass grid="):
        nn.apply(layer, jnp.zeros((1, 16, 16)), None)


# FNO


@pytest.mark.parametrize(
    ("modes", "hidden", "published"),
    [((8, 8), 24, 191_881), ((8, 8), 32, 340_833), ((16, 16), 24, 671_113), ((16, 16), 32, 1_192_801)],
)
def test_an_fno_has_the_published_number_of_weights(modes, hidden, published):
    """neuraloperator 2.0, one channel in and out with two position channels, its even modes."""
    net = eqx.filter_eval_shape(lambda key: nn.FNO(1 + 2, 1, modes=modes, hidden=hidden, key=key), jr.key(0))
    assert count(net) == published, count(net)


def test_an_fno_is_the_same_function_at_every_resolution():
    net = awake(nn.FNO(2, 2, modes=(9, 9), hidden=8, layers=2, key=jr.key(0)))
    grids = {n: double(n, dealias=None) for n in (32, 64, 128)}
    y = {n: call(net, smooth(grid), grid) for n, grid in grids.items()}
    points = lambda n: np.asarray(y[n])[:, :: n // 32, :: n // 32]
    first, second = error(points(32), points(128)), error(points(64), points(128))
    assert first < 2e-3 and second < 1e-5, (first, second)
    linear = awake(nn.FNO(2, 2, modes=(9, 9), hidden=8, layers=2, key=jr.key(0), activation=jnp.positive))
    y = {n: call(linear, smooth(grid), grid) for n, grid in grids.items()}
    assert error(points(32), points(128)) < 1e-13, "without an activation nothing aliases"


@pytest.mark.parametrize("make", ["FNO", "UNet"])
def test_gradients_reach_every_weight_and_are_finite(make):
    grid, x = double(16), jr.normal(jr.key(1), (2, 16, 16))
    net = awake(network(make, 2, 2))
    value = eqx.filter_jit(eqx.filter_grad(lambda net: jnp.sum(jnp.sin(nn.apply(net, x, grid)))))
    for path, leaf in jax.tree_util.tree_leaves_with_path(value(net)):
        assert np.isfinite(leaf).all() and np.abs(leaf).max() > 0, jax.tree_util.keystr(path)


def network(make, inputs, outputs, key=0):
    if make == "FNO":
        return nn.FNO(inputs, outputs, modes=(7, 7), hidden=8, layers=2, key=jr.key(key))
    return nn.UNet(inputs, outputs, widths=(4, 6), key=jr.key(key))


@pytest.mark.parametrize("make", ["FNO", "UNet"])
def test_untrained_networks_do_nothing_and_keep_single_precision(make):
    grid = hg.Torus(16, 1e6)
    net = jax.tree.map(lambda a: a.astype(jnp.float32) if eqx.is_array(a) else a, network(make, 2, 2))
    x = jr.normal(jr.key(1), (2, 16, 16), jnp.float32)
    with jax.numpy_dtype_promotion("strict"):
        y = call(net, x, grid)
        loud = call(awake(net), x, grid)
    assert y.dtype == loud.dtype == jnp.float32 and float(jnp.abs(y).max()) == 0
    exact = call(jax.tree.map(lambda a: a.astype(float) if eqx.is_array(a) else a, awake(net)), x, double(16))
    assert error(loud, exact) < 2e-5, error(loud, exact)


@pytest.mark.parametrize("make", ["FNO", "UNet"])
def test_they_are_closures(make):
    flow = hg.QuasiGeostrophic.two_layer(hg.Torus(16, 1e6), tau=86400.0)
    scales = (5e-6, 1e-6, 0.1, 0.1, 0.1, 0.1)
    closure = hg.NetworkClosure(awake(network(make, 6, 2)), ("q", "u", "v"), ("q",), scales, 1e-12)
    model = hg.Model(flow, hg.SIL3(), closure, dt=3600.0)
    q = eddies(flow.grid, 2, (5e-6, 1e-6))
    step = eqx.filter_jit(lambda model, q: model.view(model.step(model.encode({"q": q}))))
    bare = step(hg.Model(flow, hg.SIL3(), dt=3600.0), q)["q"]
    change = np.asarray(step(model, q)["q"] - bare, float)
    assert np.abs(change).max() > 1e-10 and np.abs(change.mean((1, 2))).max() < 1e-3 * np.abs(change).max()


# U-Net


def test_a_unet_commutes_with_shifts_by_its_coarsest_cell():
    net = awake(network("UNet", 2, 3))
    x = jr.normal(jr.key(1), (2, 16, 24))
    shift = lambda a, n: jnp.roll(a, (n, 2 * n), (-2, -1))
    y = call(net, x, None)
    assert y.shape == (3, 16, 24) and error(call(net, shift(x, 2), None), shift(y, 2)) < 1e-13
    assert error(call(net, shift(x, 1), None), shift(y, 1)) > 1e-3, "pooling prefers a position: this must be seen"


def test_a_unet_carries_the_whole_domain_to_every_point_and_fine_scales_through_its_skips():
    net = awake(nn.UNet(1, 1, widths=(4, 4, 4), key=jr.key(0)))
    x = jr.normal(jr.key(1), (1, 16, 16))
    sensitivity = jax.jit(jax.grad(lambda x: net(x)[0, 0, 0]))(x)
    assert float(jnp.abs(sensitivity[0, 8, 8])) > 0, "half a domain away"
    assert float(jnp.abs(sensitivity[0, 0, 0] - sensitivity[0, 0, 1])) > 0


@pytest.mark.parametrize(
    ("shape", "words"),
    [((2, 31, 32), "multiples of 2; got (31, 32)"), ((3, 32, 32), "[2, y, x]; got (3, 32, 32)")],
)
def test_a_unet_refuses_sides_that_it_cannot_halve(shape, words):
    with pytest.raises(ValueError) as caught:
        network("UNet", 2, 2)(jnp.zeros(shape))
    assert words in str(caught.value), str(caught.value)


@pytest.mark.parametrize("bad", [{"kernel": 4}, {"widths": ()}, {"widths": (4, 0)}])
def test_a_unet_of_impossible_sizes_is_refused(bad):
    with pytest.raises(ValueError, match="odd kernel and positive"):
        nn.UNet(2, 2, key=jr.key(0), **bad)
