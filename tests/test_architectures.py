"""Networks of operator learning besides the FNO: published sizes, formats by hand, shifts, resolutions, training."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from helpers import error, same_bits

import hybridgcm as hg
from hybridgcm import nn
from hybridgcm.nn.conv import periodic_convolution


def count(make):
    shapes = eqx.filter_eval_shape(make, jr.key(0))
    return sum(leaf.size for leaf in jax.tree.leaves(shapes) if hasattr(leaf, "size"))


def random(shape, seed=0):
    return jr.normal(jr.key(seed), shape)


def busy(net):
    """The network with noise where it starts at zero."""
    filled = lambda a: random(a.shape, 7) / 4 if eqx.is_inexact_array(a) and not np.any(a) else a
    return jax.tree.map(filled, net)


def uno(inputs=2, outputs=2, key=None):
    return nn.UNO(
        inputs, outputs, modes=((4, 4), (4, 4), (3, 3)), channels=(6, 6, 4), scalings=(0.5, 1, 2), hidden=4, lifting=8,
        projection=8, key=jr.key(0) if key is None else key,
    )  # fmt: skip


MAKE = {
    "tucker": lambda key: nn.tensorised_fno(2, 2, modes=(5, 5), share=0.3, hidden=6, layers=2, key=key),
    "uno": lambda key: uno(key=key),
    "dilated": lambda key: nn.DilatedResNet(2, 2, width=4, blocks=1, dilations=(1, 2, 1), key=key),
    "transformer": lambda key: nn.Transformer(2, 2, width=8, layers=1, heads=2, key=key),
}
EVERYWHERE = ("tucker", "uno", "dilated")
"""Those that know no place, and take any number of points."""


@pytest.mark.parametrize("kind", MAKE)
def test_an_untrained_network_is_zero_and_a_closure(kind):
    grid = hg.Torus(16, 1e6)
    net = MAKE[kind](jr.key(1))
    x = random((2, 16, 16)).astype(jnp.float32)
    made = eqx.filter_jit(nn.apply)(net, x, grid)
    assert made.shape == (2, 16, 16) and not made.any()
    closure = hg.NetworkClosure(net, ("q",), ("q",), 1e-6, 1e-12)
    forcing, _ = eqx.filter_jit(closure)({"q": 1e-6 * x}, grid, None, jr.key(0))
    assert not np.any(forcing["q"])


@pytest.mark.parametrize("kind", MAKE)
def test_every_weight_has_a_gradient(kind):
    net, x = busy(MAKE[kind](jr.key(1))), random((2, 16, 16))
    loss = eqx.filter_jit(eqx.filter_grad(lambda net: jnp.sum(nn.apply(net, x, hg.Torus(16, 1.0, dealias=None)) ** 2)))
    gradients = jax.tree.leaves(loss(net))
    assert len(gradients) > 5 and all(np.isfinite(g).all() and np.any(g) for g in gradients)


@pytest.mark.parametrize("kind", EVERYWHERE)
def test_shifts_pass_through(kind):
    net, x = busy(MAKE[kind](jr.key(1))), random((2, 16, 16))
    call = eqx.filter_jit(lambda x: nn.apply(net, x, hg.Torus(16, 1.0, dealias=None)))
    moved = jnp.roll(x, (4, -2), (1, 2))  # by points that the coarser blocks have too
    assert error(call(moved), jnp.roll(call(x), (4, -2), (1, 2))) < 1e-5


@pytest.mark.parametrize("kind", MAKE)
def test_wrong_channels_are_refused(kind):
    with pytest.raises(ValueError, match=r"maps \[2, y, x\]"):
        nn.apply(MAKE[kind](jr.key(1)), random((3, 16, 16)), hg.Torus(16, 1.0))


# Tensorised weights


def test_formats_are_what_their_formulas_say():
    shape = (3, 2, 4, 3)
    outer = lambda *columns: functools.reduce(np.multiply.outer, columns)
    parts = lambda pairs: [np.asarray(a[0] + 1j * a[1]) for a in pairs]
    tucker, cp, train = (kind(shape, 0.6, key=jr.key(0)) for kind in (nn.Tucker, nn.CP, nn.TensorTrain))
    core, *factors = parts([tucker.core, *tucker.factors])
    expected = np.zeros(shape, complex)
    for index in np.ndindex(core.shape):
        columns = [factor[:, i] for factor, i in zip(factors, index)]
        expected += core[index] * outer(*columns)
    dense = eqx.filter_jit(tucker.dense)()
    assert dense.shape == (2, *shape) and error(dense[0] + 1j * dense[1], expected) < 1e-12
    weights, *factors = parts([cp.weights, *cp.factors])
    expected = sum(w * outer(*columns) for w, *columns in zip(weights, *(factor.T for factor in factors)))
    assert error(cp.dense()[0] + 1j * cp.dense()[1], expected) < 1e-12
    a, b, c, d = parts(train.cars)
    expected = np.zeros(shape, complex)
    for o, i, row, column in np.ndindex(shape):
        expected[o, i, row, column] = a[o] @ b[:, i] @ c[:, row] @ d[:, column]
    assert error(train.dense()[0] + 1j * train.dense()[1], expected) < 1e-12


@pytest.mark.parametrize("kind", [nn.Tucker, nn.CP, nn.TensorTrain])
def test_factors_have_the_share_and_the_variance_of_dense_weights(kind):
    shape, share = (16, 16, 12, 7), 0.1
    make = lambda key: nn.TensorisedConvolution(16, 16, (12, 12), share, kind, key=key)
    assert 0.75 < count(lambda key: kind(shape, share, key=key)) / (2 * np.prod(shape) * share) < 1.1
    weights = jax.jit(jax.vmap(lambda key: make(key).factors.dense()))(jr.split(jr.key(1), 8))
    assert 0.6 < 2 * np.mean(np.square(weights)) / (2 / 32) < 1.6
    with pytest.raises(ValueError, match="share lies in"):
        nn.TensorisedConvolution(4, 4, (4, 4), 1.5, kind, key=jr.key(0))


def test_a_convolution_with_factors_is_that_with_their_product():
    layer = nn.TensorisedConvolution(3, 3, (6, 6), 0.3, key=jr.key(0))
    dense = eqx.tree_at(lambda d: d.weights, nn.SpectralConvolution(3, 3, (6, 6), key=jr.key(0)), layer.factors.dense())
    x = random((3, 16, 16))
    assert error(layer(x, None), dense(x, None)) < 1e-6


def test_a_train_with_room_for_all_holds_any_weights():
    """Ranks never exceed what a bond can need: with a share of one or more a train is exact."""
    train = nn.TensorTrain((2, 3, 2, 2), 5.0, key=jr.key(0))
    assert [car.shape[1:] for car in train.cars] == [(2, 2), (2, 3, 4), (4, 2, 2), (2, 2)]


# U-shaped


def test_a_uno_has_the_published_number_of_weights():
    shape = {"modes": [(8, 8), (8, 8), (4, 4), (8, 8), (8, 8)], "channels": (32, 64, 64, 64, 32)}
    make = lambda key: nn.Bounded(nn.UNO(1 + 2, 1, **shape, scalings=(1, 0.5, 1, 2, 1), key=key))
    assert count(make) == 1_405_761


def test_resampling_is_exact_for_what_both_have():
    y, x = np.meshgrid(*(np.arange(n) / n for n in (12, 16)), indexing="ij")
    wave = lambda y, x: np.cos(2 * np.pi * (3 * x + 2 * y) + 0.3) + np.sin(2 * np.pi * x) - 0.7
    for shape in ((12, 16), (24, 32), (8, 10), (15, 9)):
        fine = np.meshgrid(*(np.arange(n) / n for n in shape), indexing="ij")
        found = nn.fourier_resampled(jnp.asarray(wave(y, x))[None], shape)[0]
        assert found.shape == shape and error(found, wave(*fine)) < 1e-13
    noise = random((1, 16, 16))
    there = nn.fourier_resampled(noise, (24, 24))
    without = nn.fourier_resampled(nn.fourier_resampled(noise, (15, 15)), (16, 16))  # Nyquist modes
    assert error(nn.fourier_resampled(there, (16, 16)), without) < 1e-12


def test_a_uno_means_the_same_at_twice_the_points():
    """Up to what its activations alias: with none, exactly."""
    net = nn.UNO(2, 2, modes=((3, 3),) * 3, channels=(6, 6, 4), scalings=(0.5, 1, 2), hidden=4, lifting=8, projection=8,
                 key=jr.key(0), activation=lambda a: a)  # fmt: skip
    net = eqx.filter_jit(busy(net))
    coarse = nn.fourier_resampled(random((2, 7, 7)), (16, 16))
    fine = nn.fourier_resampled(coarse, (32, 32))
    assert error(nn.fourier_resampled(net(fine, None), (16, 16)), net(coarse, None)) < 1e-5


def test_a_uno_refuses_shapes_that_do_not_come_back():
    with pytest.raises(ValueError, match="product of scalings is one"):
        nn.UNO(1, 1, modes=((2, 2),), channels=(2,), scalings=(0.5,), key=jr.key(0))
    with pytest.raises(ValueError, match="no whole number"):
        uno()(random((2, 15, 15)), None)
    with pytest.raises(TypeError, match="SphericalUNet"):
        uno()(random((2, 32, 64)), hg.Sphere(21))


# Dilated, transformer


def test_holes_are_kernels_with_zeros():
    x, weight = random((2, 16, 16)), random((3, 2, 3, 3), 1)
    holed = jnp.zeros((3, 2, 5, 5)).at[..., ::2, ::2].set(weight)
    assert error(periodic_convolution(x, weight, 2), periodic_convolution(x, holed)) < 1e-12


def test_a_dilated_block_sees_as_far_as_told():
    net = busy(nn.DilatedResNet(1, 1, width=3, blocks=1, dilations=(1, 4, 1), key=jr.key(0)))
    slopes = np.asarray(jax.jit(jax.grad(lambda x: net(x)[0, 10, 10]))(random((1, 21, 21)))[0])
    assert set(np.nonzero(np.any(slopes, 0))[0]) <= set(range(4, 17)) and slopes[4].any() and slopes[16].any()


def test_a_transformer_sees_everything_and_knows_places():
    net, x = busy(nn.Transformer(1, 1, patch=2, width=8, layers=1, heads=2, key=jr.key(0))), random((1, 8, 12))
    net = eqx.filter_jit(net)
    assert np.all(jax.jit(jax.grad(lambda x: net(x)[0, 3, 3]))(x) != 0)
    assert error(net(jnp.roll(x, 2, 2)), jnp.roll(net(x), 2, 2)) > 1e-3
    with pytest.raises(ValueError, match="multiples of 2"):
        net(x[:, :7])
    with pytest.raises(ValueError, match="heads divide"):
        nn.Transformer(1, 1, width=10, heads=4, key=jr.key(0))


def test_a_transformer_is_attention_between_patches():
    """Without places patches may be exchanged: what comes out is exchanged alike."""
    net = busy(nn.Transformer(1, 1, patch=4, width=8, layers=2, heads=2, key=jr.key(0)))
    net, x = eqx.tree_at(lambda n: n.place.weight, net, replace_fn=lambda a: 0 * a), random((1, 8, 8))
    swapped = x.at[:, :4, :4].set(x[:, 4:, 4:]).at[:, 4:, 4:].set(x[:, :4, :4])
    call = eqx.filter_jit(net)
    made, other = call(x), call(swapped)
    assert error(other[:, :4, :4], made[:, 4:, 4:]) < 1e-12 and error(other[:, :4, 4:], made[:, :4, 4:]) < 1e-12


def test_saved_and_loaded_networks_are_the_same(tmp_path):
    """By their files alone, but for a transformer, whose parts are Equinox's: that needs one of its shape."""
    from hybridgcm import checkpoint
    from hybridgcm.blueprint import blueprint

    for kind, make in MAKE.items():
        net, file = busy(make(jr.key(3))), tmp_path / f"{kind}.ckpt"
        checkpoint.save(file, net)
        like = make(jr.key(4)) if kind == "transformer" else blueprint(checkpoint.read_header(file)["tree"])
        found = checkpoint.load(file, like)
        assert type(found) is type(net) and same_bits(*(eqx.filter(n, eqx.is_array) for n in (found, net)))
