"""A U-Net on doubly periodic grids."""

from collections.abc import Callable, Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float

from hybridgcm.nn.conv import periodic_convolution


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

        self.down, self.up = tuple(layer(*pair) for pair in down), tuple(layer(*pair) for pair in up)
        self.out, self.activation = jnp.zeros((outputs, widths[0], 1, 1)), activation

    def __call__(self, x: Float[Array, "channel y x"]) -> Float[Array, "out y x"]:
        self._check(x)
        levels = []
        for number, pair in enumerate(zip(self.down[::2], self.down[1::2], strict=True)):
            if number:
                x = _halve(x)
            levels.append(x := self._convolve(x, pair))
        x = levels.pop()
        for pair in zip(self.up[::2], self.up[1::2], strict=True):
            x = self._convolve(jnp.concatenate([levels.pop(), _double(x)]), pair)
        return periodic_convolution(x, self.out)

    def _convolve(self, x, layers):
        for weight, bias in layers:
            x = self.activation(periodic_convolution(x, weight) + bias[:, None, None])
        return x

    def _check(self, x):
        channels, multiple = self.down[0][0].shape[1], 2 ** (len(self.down) // 2 - 1)
        if x.ndim != 3 or len(x) != channels:
            raise ValueError(f"this UNet maps [{channels}, y, x]; got {x.shape}; for a batch use jax.vmap(net)")
        if any(side % multiple for side in x.shape[1:]):
            raise ValueError(
                f"a UNet of {len(self.down) // 2} levels needs sides that are multiples of {multiple}; got "
                f"{x.shape[1:]}: take fewer levels, or a grid whose number of points is a power of two"
            )


def _halve(x: Float[Array, "channel y x"]) -> Float[Array, "channel half_y half_x"]:
    channels, ny, nx = x.shape
    return jnp.mean(x.reshape(channels, ny // 2, 2, nx // 2, 2), (2, 4))


def _double(x: Float[Array, "channel y x"]) -> Float[Array, "channel double_y double_x"]:
    return jnp.repeat(jnp.repeat(x, 2, 1), 2, 2)
