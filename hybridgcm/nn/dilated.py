"""Convolutions with holes: wide views at the price of narrow ones."""

from collections.abc import Callable, Sequence
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float

from hybridgcm.nn.conv import periodic_convolution
from hybridgcm.nn.operators import check_channels


class DilatedResNet(eqx.Module):
    """x ← W x, then blocks x ← x + C_d ... C_2 C_1 x, an activation after each but the last C, then V activation(x).

    C_i are periodic convolutions of side `kernel` whose taps are `dilations[i]` points apart: with (1, 2, 4, 8, 4, 2,
    1) a block of kernels of three sees 45 points a side at full resolution. Maps `[inputs, y, x]` to `[outputs, y, x]`
    of any size; commutes with all shifts. Weights start normal with variance 2/(in·k²), the last C of a block by the
    number of blocks less, biases at zero, V at zero and without bias. Stachenfeld et al. (2022), arXiv:2112.15275.

    Raises `ValueError` for sizes that are not positive, even kernels, and other than `inputs` channels.
    """

    wraps: ClassVar[bool] = True
    first: Float[Array, "width channel 1 1"]
    weights: tuple[tuple[Float[Array, "width width k k"], ...], ...]
    biases: tuple[tuple[Float[Array, " width"], ...], ...]
    last: Float[Array, "out width 1 1"]
    dilations: tuple[int, ...] = eqx.field(static=True)
    activation: Callable = eqx.field(static=True)

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        key: Array,
        width: int = 32,
        blocks: int = 4,
        kernel: int = 3,
        dilations: Sequence[int] = (1, 2, 4, 8, 4, 2, 1),
        activation: Callable = jax.nn.relu,
    ):
        if min(inputs, outputs, width, blocks, kernel, *dilations) < 1 or kernel % 2 == 0:
            raise ValueError(
                f"sizes are positive and kernels odd; got {inputs=}, {outputs=}, {width=}, {blocks=}, {kernel=}, "
                f"dilations={tuple(dilations)}"
            )
        self.dilations, self.activation = tuple(map(int, dilations)), activation
        layers = len(self.dilations)
        keys = jr.split(key, 1 + blocks * layers)
        self.first = jr.normal(keys[0], (width, inputs, 1, 1)) / np.sqrt(inputs)
        scale = np.sqrt(2 / (width * kernel**2))
        share = lambda layer: 1 / blocks if layer == layers - 1 else 1.0
        made = [
            share(i % layers) * scale * jr.normal(k, (width, width, kernel, kernel)) for i, k in enumerate(keys[1:])
        ]
        self.weights = tuple(tuple(made[i * layers : (i + 1) * layers]) for i in range(blocks))
        self.biases = ((jnp.zeros(width),) * layers,) * blocks
        self.last = jnp.zeros((outputs, width, 1, 1))

    def __call__(self, x: Float[Array, "channel y x"]) -> Float[Array, "out y x"]:
        check_channels(self, x, self.first.shape[1])
        x = periodic_convolution(x, self.first)
        for weights, biases in zip(self.weights, self.biases, strict=True):
            y = x
            for number, dilation in enumerate(self.dilations):
                y = periodic_convolution(y, weights[number], dilation) + biases[number][:, None, None]
                y = y if number == len(self.dilations) - 1 else self.activation(y)
            x = x + y
        return periodic_convolution(self.activation(x), self.last)
