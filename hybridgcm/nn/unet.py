"""U-Nets on doubly periodic grids and on spheres."""

from collections.abc import Callable, Sequence
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float

from hybridgcm.nn.conv import periodic_convolution, polar_convolution
from hybridgcm.nn.operators import AbstractOperator
from hybridgcm.nn.sphere import check_sphere


class UNet(eqx.Module):
    """Two convolutions per level on the way down and two on the way up, with skips; [inputs, y, x] to [outputs, y, x].

    `widths`: channels per level, the finest first; each level has half the points per side of the one before. Down by
    means over 2 × 2 points, up by repetition, so fields stay centred; a side is a multiple of 2^(levels − 1). Periodic
    in y and x; commutes with shifts by that many points. Weights start normal with variance 2/(in·k²), biases at zero,
    and the *last layer*, 1 × 1 without bias, *at zero*: an untrained closure does nothing, an untrained emulator
    persists. Ronneberger et al. (2015), doi:10.1007/978-3-319-24574-4_28, without normalisation.

    Raises `ValueError` for fields with another number of channels or a side that cannot be halved that often, and for
    an even `kernel`.
    """

    wraps: ClassVar[bool] = True
    down: tuple[tuple[Array, Array], ...]
    up: tuple[tuple[Array, Array], ...]
    out: Float[Array, "out channel 1 1"]
    activation: Callable = eqx.field(static=True)

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        key: Array,
        widths: Sequence[int] = (16, 32, 64),
        kernel: int = 3,
        activation: Callable = jax.nn.silu,
    ):
        self.down, self.up, self.out = _start(inputs, outputs, tuple(widths), kernel, key)
        self.activation = activation

    def __call__(self, x: Float[Array, "channel y x"]) -> Float[Array, "out y x"]:
        return _through(self, periodic_convolution, _halve, x)


class SphericalUNet(AbstractOperator):
    """`UNet` on latitudes and longitudes of a sphere; arguments as for it.

    Every convolution is a `polar_convolution`; down by means over 2 × 2 points with their areas, so that area means
    stay. Commutes with rotations about the axis by 2^(levels − 1) points. T21 has 32 × 64 points, T42 64 × 128, T85
    128 × 256: six, seven and eight levels at most. Raises `TypeError` for a grid that is not a `Sphere`.
    """

    down: tuple[tuple[Array, Array], ...]
    up: tuple[tuple[Array, Array], ...]
    out: Float[Array, "out channel 1 1"]
    activation: Callable = eqx.field(static=True)

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        key: Array,
        widths: Sequence[int] = (16, 32, 64),
        kernel: int = 3,
        activation: Callable = jax.nn.silu,
    ):
        self.down, self.up, self.out = _start(inputs, outputs, tuple(widths), kernel, key)
        self.activation = activation

    def __call__(self, x, grid):
        check_sphere("SphericalUNet", grid)
        return _through(self, polar_convolution, lambda x: _halve_by_area(x, grid.weights), x)


def _start(inputs: int, outputs: int, widths: tuple[int, ...], kernel: int, key: Array) -> tuple[tuple, tuple, Array]:
    """(down, up, out) of an untrained U-Net."""
    if kernel < 1 or kernel % 2 == 0 or not widths or min(inputs, outputs, *widths) < 1:
        raise ValueError(f"UNet needs an odd kernel and positive {widths=}; got {kernel=}, {inputs=}, {outputs=}")
    pairs = lambda channels, width: [(channels, width), (width, width)]
    down = [pair for a, b in zip((inputs, *widths), widths, strict=False) for pair in pairs(a, b)]
    rising = list(zip(widths, widths[1:], strict=False))[::-1]
    up = [pair for width, below in rising for pair in pairs(width + below, width)]
    keys = iter(jr.split(key, len(down) + len(up)))

    def layer(channels, width):
        size = np.sqrt(2 / (channels * kernel**2))
        return jr.normal(next(keys), (width, channels, kernel, kernel)) * size, jnp.zeros(width)

    layers = lambda these: tuple(layer(*pair) for pair in these)
    return layers(down), layers(up), jnp.zeros((outputs, widths[0], 1, 1))


def _through(net, convolution: Callable, halve: Callable, x: Float[Array, "channel y x"]) -> Float[Array, "out y x"]:
    _check(net, x)

    def convolve(x, layers):
        for weight, bias in layers:
            x = net.activation(convolution(x, weight) + bias[:, None, None])
        return x

    levels = []
    for number, pair in enumerate(zip(net.down[::2], net.down[1::2], strict=True)):
        if number:
            x = halve(x)
        levels.append(x := convolve(x, pair))
    x = levels.pop()
    for pair in zip(net.up[::2], net.up[1::2], strict=True):
        x = convolve(jnp.concatenate([levels.pop(), _double(x)]), pair)
    return convolution(x, net.out)


def _check(net, x: Array):
    kind, channels, multiple = type(net).__name__, net.down[0][0].shape[1], 2 ** (len(net.down) // 2 - 1)
    if x.ndim != 3 or len(x) != channels:
        raise ValueError(f"this {kind} maps [{channels}, y, x]; got {x.shape}; for a batch use jax.vmap(net)")
    if any(side % multiple for side in x.shape[1:]):
        raise ValueError(
            f"a {kind} of {len(net.down) // 2} levels needs sides that are multiples of {multiple}; got "
            f"{x.shape[1:]}: take fewer levels, or a grid whose number of points is a power of two"
        )


def _halve(x: Float[Array, "channel y x"]) -> Float[Array, "channel half_y half_x"]:
    channels, ny, nx = x.shape
    return jnp.mean(x.reshape(channels, ny // 2, 2, nx // 2, 2), (2, 4))


def _halve_by_area(
    x: Float[Array, "channel y x"], weights: Float[Array, "rows 1"]
) -> Float[Array, "channel half_y half_x"]:
    """`weights` are areas of the finest rows; a coarser row has those of all rows in it."""
    channels, ny, nx = x.shape
    areas = jnp.sum(weights.reshape(ny // 2, 2, -1), -1)
    share = (areas / jnp.sum(areas, 1, keepdims=True))[..., None]
    return jnp.sum(jnp.mean(x.reshape(channels, ny // 2, 2, nx // 2, 2), 4) * share.astype(x.dtype), 2)


def _double(x: Float[Array, "channel y x"]) -> Float[Array, "channel double_y double_x"]:
    return jnp.repeat(jnp.repeat(x, 2, 1), 2, 2)
