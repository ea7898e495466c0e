"""Networks in half precision: near what they are in single, trained in single, on planes and spheres."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest

import hybridgcm as hg
from hybridgcm import nn

KEY = jr.key(0)
ROUNDING = 2**-8
"""Of bfloat16, relative."""

NETWORKS = {
    "CNN": (lambda: nn.CNN((2, 8, 2), (5, 3), key=KEY), (16, 16), None),
    "U-Net": (lambda: nn.UNet(2, 2, widths=(4, 8), key=KEY), (16, 16), None),
    "FNO by products": (lambda: nn.FNO(2, 2, modes=(5, 5), hidden=6, layers=2, key=KEY), (16, 16), "torus"),
    "FNO by FFTs": (lambda: nn.FNO(2, 2, modes=(5, 5), hidden=6, layers=2, key=KEY), (48, 48), "torus"),
    "TFNO": (lambda: nn.tensorised_fno(2, 2, modes=(5, 5), share=0.3, hidden=6, layers=2, key=KEY), (16, 16), "torus"),
    "transformer": (lambda: nn.Transformer(2, 2, patch=4, width=8, heads=2, layers=1, key=KEY), (16, 16), None),
    "SFNO": (lambda: nn.FNO(2, 2, modes=8, hidden=6, layers=2, key=KEY), None, "sphere"),
    "local convolution": (lambda: nn.LocalConvolution(2, 2, 5e6, key=KEY), None, "sphere"),
    "spherical U-Net": (lambda: nn.SphericalUNet(2, 2, widths=(4, 8), key=KEY), None, "sphere"),
    "by scales": (lambda: nn.ScaleNetwork(2, 2, 8), None, "sphere"),
}


def case(name):
    """(network whose last layer does something, fields, grid)."""
    make, shape, kind = NETWORKS[name]
    grid = {"torus": lambda: hg.Torus(shape[0], 1e6), "sphere": lambda: hg.Sphere(10), None: lambda: None}[kind]()
    leaves, tree = jax.tree.flatten(make())
    parts = eqx.filter(leaves, eqx.is_inexact_array)
    keys = jr.split(jr.key(1), len(leaves))
    leaves = [
        leaf if part is None or np.any(np.asarray(part)) else 0.3 * jr.normal(key, part.shape, part.dtype)
        for leaf, part, key in zip(leaves, parts, keys, strict=True)
    ]
    return jax.tree.unflatten(tree, leaves), jr.normal(jr.key(2), (2, *(shape or grid.shape)), jnp.float32), grid


@pytest.mark.parametrize("name", NETWORKS)
def test_fields_and_gradients_are_off_by_rounding(name):
    """Fields by some roundings, and not by none; gradients in single precision point where those of it do."""
    with jax.enable_x64(False):
        net, x, grid = case(name)
        call = lambda net, x: nn.apply(net, x, grid) if grid is not None else nn.operators.without_grid(net, x)
        both = eqx.filter_jit(lambda net, x: (call(net, x), call(nn.MixedPrecision(net, jnp.bfloat16), x)))
        single, half = both(net, x)
        assert half.dtype == jnp.float32
        off = jnp.linalg.norm(half - single) / jnp.linalg.norm(single)
        assert ROUNDING / 20 < off < 10 * ROUNDING, off
        loss = lambda net: jnp.mean(call(net, x) ** 2)
        slopes = eqx.filter_jit(
            lambda net: (eqx.filter_grad(loss)(net), eqx.filter_grad(loss)(nn.MixedPrecision(net, jnp.bfloat16)))
        )
        single, half = (jax.tree.leaves(eqx.filter(tree, eqx.is_inexact_array)) for tree in slopes(net))
        assert {a.dtype for a in half} == {jnp.dtype(jnp.float32)}
        single, half = (jnp.concatenate([a.ravel() for a in tree]) for tree in (single, half))
        assert jnp.dot(single, half) > 0.99 * jnp.linalg.norm(single) * jnp.linalg.norm(half)


def test_updates_below_the_rounding_of_weights_are_kept():
    """Steps of 1e-4 of weights of order one: in bfloat16 themselves they would be lost, one by one."""
    with jax.enable_x64(False):
        net, x, _ = case("CNN")
        emulator = hg.Emulator(nn.MixedPrecision(net, jnp.bfloat16), ("q",), dt=1.0, grid=hg.Torus(16, 1e6))
        target = {"q": jnp.stack([x, jnp.zeros_like(x)])}
        log, model = [], emulator
        batches = hg.windows({"q": np.asarray(target["q"])}, length=2, batch=1, steps=60, key=jr.key(3))
        model, log = hg.fit(
            emulator, batches, hg.online(lambda p, t: jnp.mean((p["q"] - t["q"]) ** 2)), optax.sgd(1e-4),
            where=lambda m: m.net, key=jr.key(4), progress=None,
        )  # fmt: skip
        assert log[-1]["loss"] < log[0]["loss"] * (1 - 1e-3)
        moved = jax.tree.map(lambda a, b: jnp.max(jnp.abs(a - b)), model.net.net.weights, net.weights)
        assert all(0 < float(step) < 0.05 for step in moved), moved
