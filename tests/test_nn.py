"""Networks: the fast periodic convolution is a convolution, and the CNN starts and trains as documented."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from helpers import error

import hybridgcm as hg
from hybridgcm import nn
from hybridgcm.nn import CNN, guillaumin_zanna
from hybridgcm.nn.conv import periodic_convolution

convolve = jax.jit(periodic_convolution)
apply = jax.jit(lambda net, x: net(x))


@jax.jit
def reference(x, weight):
    """Circular padding and XLA's convolution."""
    p = weight.shape[-1] // 2
    x = jnp.pad(x, ((0, 0), (p, p), (p, p)), mode="wrap")
    return jax.lax.conv_general_dilated(x[None], weight, (1, 1), "VALID")[0]


def data(channels, out, k, shape=(12, 16), dtype=jnp.float64):
    x = jr.normal(jr.key(0), (channels, *shape), dtype)
    return x, jr.normal(jr.key(1), (out, channels, k, k), dtype)


def trained(net):
    """The same network with a last layer that does something."""
    last = jr.normal(jr.key(9), net.weights[-1].shape, net.weights[-1].dtype) / 10
    return jax.tree_util.tree_map(lambda a: last if a is net.weights[-1] else a, net)


@pytest.mark.parametrize(("channels", "out", "k"), [(1, 3, 1), (2, 5, 3), (6, 2, 5), (4, 4, 7)])
def test_periodic_convolution_is_the_padded_convolution(channels, out, k):
    x, weight = data(channels, out, k)
    distance = error(convolve(x, weight), reference(x, weight))
    assert distance < 1e-13, distance


@pytest.mark.parametrize(("channels", "out", "k"), [(2, 5, 3), (6, 2, 5)])
def test_gradients_of_the_convolution_are_those_of_the_padded_one(channels, out, k):
    x, weight = data(channels, out, k)
    loss = lambda conv: lambda x, weight: jnp.sum(jnp.sin(conv(x, weight)))
    ours = jax.jit(jax.grad(loss(periodic_convolution), (0, 1)))(x, weight)
    theirs = jax.jit(jax.grad(loss(reference), (0, 1)))(x, weight)
    distances = [error(a, b) for a, b in zip(ours, theirs)]
    assert max(distances) < 1e-12, distances


def test_float32_keeps_its_type_and_full_precision():
    x, weight = data(16, 16, 3, dtype=jnp.float32)
    y = convolve(x, weight)
    exact = convolve(x.astype(jnp.float64), weight.astype(jnp.float64))
    assert y.dtype == jnp.float32
    assert error(y, exact) < 1e-6, error(y, exact)


def test_compiled_gradient_has_no_slow_convolution():
    x, weight = data(4, 4, 3)
    text = jax.jit(jax.grad(lambda w: jnp.sum(periodic_convolution(x, w) ** 2))).lower(weight).compile().as_text()
    assert " convolution(" not in text and " scatter(" not in text


def test_network_commutes_with_translations():
    net = trained(CNN((2, 8, 3), (5, 3), key=jr.key(0)))
    x = data(2, 1, 1)[0]
    distance = error(apply(net, jnp.roll(x, (3, -5), (1, 2))), jnp.roll(apply(net, x), (3, -5), (1, 2)))
    assert distance < 1e-13, distance


def test_untrained_network_is_zero_and_can_start_to_learn():
    net, x = CNN((2, 8, 2), (3, 3), key=jr.key(0)), data(2, 1, 1)[0]
    assert np.all(np.asarray(apply(net, x)) == 0)
    grad = jax.jit(jax.grad(lambda net: jnp.sum((net(x) - 1) ** 2)))(net)
    assert np.abs(grad.weights[-1]).max() > 0


def test_hidden_weights_have_the_variance_of_he():
    net = CNN((2, 64, 64, 2), (5, 5, 3), key=jr.key(0))
    for weight, fan_in in zip(net.weights[:2], (2 * 25, 64 * 25)):
        ratio = float(np.var(weight)) * fan_in / 2
        assert abs(ratio - 1) < 0.06, ratio


def test_every_leaf_has_a_gradient_after_the_first_step():
    net, x = trained(CNN((2, 8, 8, 2), (3, 3, 3), key=jr.key(0))), data(2, 1, 1)[0]
    grad = jax.jit(jax.grad(lambda net: jnp.sum((net(x) - 1) ** 2)))(net)
    zero = [jax.tree_util.keystr(path) for path, g in jax.tree_util.tree_leaves_with_path(grad) if not np.any(g)]
    assert zero == []


def test_guillaumin_zanna_has_the_published_number_of_parameters():
    net = guillaumin_zanna(2, 2, key=jr.key(0))
    assert sum(a.size for a in jax.tree.leaves(net)) == 267_424
    assert len(net.weights) == 8
    assert jax.eval_shape(net, jnp.ones((2, 8, 8))).shape == (2, 8, 8)


def test_batch_by_vmap_and_forward_mode():
    net = trained(CNN((2, 4, 2), (3, 3), key=jr.key(0)))
    x = jr.normal(jr.key(1), (3, 2, 8, 10))
    assert error(jax.jit(jax.vmap(net))(x), jnp.stack([apply(net, a) for a in x])) < 1e-13
    _, tangent = jax.jit(lambda x, dx: jax.jvp(net, (x,), (dx,)))(x[0], x[1])
    h = 1e-6
    distance = error(tangent, (apply(net, x[0] + h * x[1]) - apply(net, x[0] - h * x[1])) / (2 * h))
    assert distance < 1e-6, distance


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (((2, 4, 2), (3,)), "3 channels need 2 kernels"),
        (((2,), ()), "need"),
        (((2, 4, 2), (3, 4)), "kernels are odd"),
    ],
)
def test_bad_architecture_raises(arguments, message):
    with pytest.raises(ValueError, match=message):
        CNN(*arguments, key=jr.key(0))


def test_wrong_input_names_the_remedy():
    net = CNN((2, 4, 2), (3, 3), key=jr.key(0))
    with pytest.raises(ValueError, match=r"maps \[2, y, x\]"):
        net(jnp.ones((3, 8, 8)))


@pytest.mark.parametrize("name", ["CNN", "ResCNN", "UNet", "DilatedResNet", "Transformer"])
def test_networks_that_would_join_the_poles_are_refused_on_a_sphere(name):
    nets = {
        "CNN": lambda: nn.CNN((1, 4, 1), (3, 3), key=jr.key(0)),
        "ResCNN": lambda: nn.ResCNN(1, 1, width=4, blocks=1, kernel=3, key=jr.key(0)),
        "UNet": lambda: nn.UNet(1, 1, widths=(4, 4), key=jr.key(0)),
        "DilatedResNet": lambda: nn.DilatedResNet(1, 1, width=4, blocks=1, key=jr.key(0)),
        "Transformer": lambda: nn.Transformer(1, 1, patch=4, width=8, layers=1, key=jr.key(0)),
    }
    net, sphere = nets[name](), hg.Sphere(10)
    flow = hg.QuasiGeostrophic.navier_stokes(sphere)
    model = hg.Model(flow, hg.RK4(), hg.NetworkClosure(net, ("q",), ("q",), 1e-5, 1e-11), dt=600.0)
    state = model.encode({"q": jnp.zeros((1, *sphere.shape))})
    with pytest.raises(ValueError, match=f"{name} goes around both axes and would join the poles.*PolarCNN"):
        model.step(state)
    with pytest.raises(ValueError, match="differences around both axes"):
        hg.Model(flow, hg.RK4(), hg.closures.DimensionlessNetwork(net), dt=600.0).encode({"q": jnp.zeros((1, 16, 32))})
