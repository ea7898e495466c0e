"""Convolutional networks on doubly periodic grids and, across the poles, on spheres."""

import functools
from collections.abc import Callable, Sequence
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float


def periodic_convolution(
    x: Float[Array, "channel y x"], weight: Float[Array, "out channel k k"], dilation: int = 1
) -> Float[Array, "out y x"]:
    """y[o, j, i] = Σ weight[o, c, a, b] x[c, j + d(a − k//2), i + d(b − k//2)], indices periodic, k odd, d `dilation`.

    Cross-correlation as in every network library; shapes only, no units.
    """
    return _convolution(x, weight, dilation)


@functools.partial(jax.checkpoint, static_argnums=2)
def _convolution(x: Array, weight: Array, dilation: int) -> Array:
    # Shifts of rows before, shifts of columns after one matrix product [k·out, k·in] × [k·in, points]: on CPU a
    # 2-16-16-2 network, k = 3, 64², float32 takes .28 ms and 1.2 ms with gradient; with XLA's convolution, whose
    # transposes have no fast kernel, .70 and 17 ms, with patches of all k² taps .56 and 4.1 ms. The checkpoint keeps
    # x instead of its k shifted copies for the backward pass, half the time of a gradient through many steps.
    out, channels, k, _ = weight.shape
    _, ny, nx = x.shape
    shifts = [dilation * shift for shift in range(k // 2, -(k // 2) - 1, -1)]
    rows = jnp.concatenate([jnp.roll(x, shift, -2) for shift in shifts]).reshape(k * channels, ny * nx)
    matrix = jnp.transpose(weight, (3, 0, 2, 1)).reshape(k * out, k * channels)
    y = jnp.matmul(matrix, rows, precision="highest").reshape(k * out, ny, nx)
    # split, not indexing: its transpose is one concatenation instead of k padded sums
    columns = [jnp.roll(part, shift, -1) for part, shift in zip(jax.lax.split(y, [out] * k), shifts, strict=True)]
    return sum(columns[1:], columns[0])


def polar_convolution(
    x: Float[Array, "channel y x"], weight: Float[Array, "out channel k k"]
) -> Float[Array, "out y x"]:
    """`periodic_convolution` on a grid of latitudes and longitudes: beyond a pole follow the rows across it, turned by
    180 degrees of longitude.

    For scalars; components of a vector change their sign across a pole, so give curl and divergence instead. A kernel
    covers less ground near the poles than at the equator. Raises `ValueError` for an odd number of longitudes and
    fewer latitudes than half a kernel.
    """
    half, (ny, nx) = weight.shape[-1] // 2, x.shape[-2:]
    if nx % 2 or ny < half:
        raise ValueError(
            f"a kernel of {weight.shape[-1]} needs an even number of longitudes and {half} rows; got {x.shape}"
        )
    across = jnp.roll(x, nx // 2, -1)
    before, after = jnp.flip(across[:, :half], 1), jnp.flip(across[:, ny - half :], 1)
    return periodic_convolution(jnp.concatenate([before, x, after], 1), weight)[:, half : half + ny]


class CNN(eqx.Module):
    """x ← activation(W ∗ x + b) layer after layer, the last without activation; periodic in y and x.

    `channels`: (in, hidden..., out); `kernels`: odd side of every convolution, one fewer than channels. Maps
    `[in, y, x]` to `[out, y, x]` of any size. Weights start normal with variance 2/(in·k²) (He et al. 2015,
    doi:10.1109/ICCV.2015.123), biases at zero, and the *last layer at zero*: an untrained closure does nothing, and
    only its last layer has a gradient at the first training step. The last layer has no bias: `NetworkClosure`
    removes the mean of its output, so one would never have a gradient. Everything is trainable but `activation`.

    Raises `ValueError` for numbers of channels and kernels that do not match, and for even kernels.
    """

    wraps: ClassVar[bool] = True
    weights: tuple[Float[Array, "out channel k k"], ...]
    biases: tuple[Float[Array, " out"], ...]  # of all layers but the last
    activation: Callable = eqx.field(static=True)

    def __init__(
        self, channels: Sequence[int], kernels: Sequence[int], *, key: Array, activation: Callable = jax.nn.relu
    ):
        self.weights, self.biases = _start(tuple(channels), tuple(kernels), key)
        self.activation = activation

    def __call__(self, x: Float[Array, "channel y x"]) -> Float[Array, "out y x"]:
        return _through(self, periodic_convolution, x)


class PolarCNN(eqx.Module):
    """`CNN` on latitudes and longitudes of a sphere: every layer is a `polar_convolution`. Arguments as for `CNN`."""

    weights: tuple[Float[Array, "out channel k k"], ...]
    biases: tuple[Float[Array, " out"], ...]
    activation: Callable = eqx.field(static=True)

    def __init__(
        self, channels: Sequence[int], kernels: Sequence[int], *, key: Array, activation: Callable = jax.nn.relu
    ):
        self.weights, self.biases = _start(tuple(channels), tuple(kernels), key)
        self.activation = activation

    def __call__(self, x: Float[Array, "channel y x"]) -> Float[Array, "out y x"]:
        return _through(self, polar_convolution, x)


def _start(channels: tuple[int, ...], kernels: tuple[int, ...], key: Array) -> tuple[tuple, tuple]:
    """(weights, biases) of an untrained CNN."""
    if len(channels) < 2 or len(kernels) != len(channels) - 1 or min(channels) < 1:
        raise ValueError(f"{len(channels)} channels need {len(channels) - 1} kernels; got {channels} and {kernels}")
    if any(k < 1 or k % 2 == 0 for k in kernels):
        raise ValueError(f"kernels are odd and positive, so that they have a centre; got {kernels}")
    shapes = [(o, i, k, k) for i, o, k in zip(channels, channels[1:], kernels, strict=False)]
    keys = jr.split(key, len(shapes))
    weights = [jr.normal(key, s) * np.sqrt(2 / np.prod(s[1:])) for key, s in zip(keys, shapes, strict=True)]
    return (*weights[:-1], jnp.zeros(shapes[-1])), tuple(jnp.zeros(s[0]) for s in shapes[:-1])


def _through(net, convolution: Callable, x: Float[Array, "channel y x"]) -> Float[Array, "out y x"]:
    if x.ndim != 3 or x.shape[0] != net.weights[0].shape[1]:
        kind = type(net).__name__
        raise ValueError(
            f"this {kind} maps [{net.weights[0].shape[1]}, y, x]; got {x.shape}; for a batch use jax.vmap(net)"
        )
    for weight, bias in zip(net.weights[:-1], net.biases, strict=True):
        x = net.activation(convolution(x, weight) + bias[:, None, None])
    return convolution(x, net.weights[-1])


def guillaumin_zanna(inputs: int, outputs: int, *, key: Array) -> CNN:
    """The network of Guillaumin and Zanna (2021): widths 128, 64, 32 × 5, kernels 5, 5, 3 × 6, no normalisation.

    2 to 2 channels: 267,424 parameters, two fewer than with a bias in the last layer. doi:10.1029/2021MS002534;
    used by Ross et al. (2023), doi:10.1029/2022MS003258, with batch normalisation.
    """
    return CNN((inputs, 128, 64, 32, 32, 32, 32, 32, outputs), (5, 5, 3, 3, 3, 3, 3, 3), key=key)


class FullyCNN(eqx.Module):
    """x ← relu(W ∗ x + b) layer after layer, then z = a x + c per channel and y = W_last ∗ z: `[in, y, x]` to
    `[out, y, x]`.

    Ross et al. (2023), doi:10.1029/2022MS003258, normalise the batch after every relu. In use that is an affine map,
    which is part of the next layer's weights here, exactly where that layer is periodic. Their last one is not: beyond
    the domain z is zero, which is seen in two rows and columns at its edges and kept here, as the weights have learnt
    it. For a network of your own take `CNN`, which knows no edge. The last layer has no bias: closures remove the mean.
    The benchmark's `published_network.py` reads the published weights. Raises `ValueError` for other channels.
    """

    wraps: ClassVar[bool] = True
    weights: tuple[Float[Array, "_ _ _ _"], ...]  # `[out, channel, k, k]`
    biases: tuple[Float[Array, "_"], ...]  # `[out]` of all layers but the last
    scale: Float[Array, " channel"]
    shift: Float[Array, " channel"]

    def __call__(self, x: Float[Array, "channel y x"]) -> Float[Array, "out y x"]:
        if x.ndim != 3 or len(x) != self.weights[0].shape[1]:
            raise ValueError(f"this FullyCNN maps [{self.weights[0].shape[1]}, y, x]; got {x.shape}; use jax.vmap")
        for weight, bias in zip(self.weights[:-1], self.biases, strict=True):
            x = jax.nn.relu(periodic_convolution(x, weight) + bias[:, None, None])
        z = x * self.scale[:, None, None] + self.shift[:, None, None]
        edge = self.weights[-1].shape[-1] // 2
        z = jnp.pad(z, ((0, 0), (edge, edge), (edge, edge)))
        return periodic_convolution(z, self.weights[-1])[:, edge:-edge, edge:-edge]


class Concatenated(eqx.Module):
    """y = [net(x) for every net]: networks beside each other that all see x, say one for each layer of the output."""

    wraps: ClassVar[bool] = True
    nets: tuple

    def __call__(self, x: Float[Array, "channel y x"]) -> Float[Array, "out y x"]:
        return jnp.concatenate([net(x) for net in self.nets])


class ResCNN(eqx.Module):
    """x ← P x, then blocks x ← x + B₂ relu(B₁ (W ∗ x)), then R x; P, B and R mix channels point by point (k = 1).

    `blocks` of convolutions with odd side `kernel` at a constant `width`; periodic in y and x. Maps `[inputs, y, x]` to
    `[outputs, y, x]` of any size. Weights start as in `CNN`, but B₂ a `blocks`-th of that, so that all blocks together
    add what one would; R starts at zero and has no bias: an untrained emulator changes nothing. All of it is trainable.

    The emulators of Frezat et al. (2024), arXiv:2310.19385, as in their code: 8 blocks of width 32, kernel 5, and of
    width 64, kernel 7; 222,048 and 1,672,896 parameters from 1 to 1 channel, one fewer than theirs with R's bias, which
    the removal of the mean cancels. Raises `ValueError` for an even kernel and for sizes below one.
    """

    wraps: ClassVar[bool] = True
    first: tuple[Float[Array, "width inputs 1 1"], Float[Array, " width"]]
    blocks: tuple[tuple[tuple[Float[Array, "width width k k"], Float[Array, " width"]], ...], ...]
    last: Float[Array, "outputs width 1 1"]

    def __init__(self, inputs: int, outputs: int, *, width: int, kernel: int, blocks: int, key: Array):
        if min(inputs, outputs, width, blocks) < 1 or kernel < 1 or kernel % 2 == 0:
            raise ValueError(
                "ResCNN needs positive sizes and an odd kernel; "
                f"got {inputs=}, {outputs=}, {width=}, {kernel=}, {blocks=}"
            )
        keys = iter(jr.split(key, 1 + 3 * blocks))

        def layer(channels, k, size=1.0):
            shape = (width, channels, k, k)
            return size * np.sqrt(2 / np.prod(shape[1:])) * jr.normal(next(keys), shape), jnp.zeros(width)

        block = lambda: (layer(width, kernel), layer(width, 1), layer(width, 1, 1 / blocks))
        self.first, self.blocks = layer(inputs, 1), tuple(block() for _ in range(blocks))
        self.last = jnp.zeros((outputs, width, 1, 1))

    def __call__(self, x: Float[Array, "inputs y x"]) -> Float[Array, "outputs y x"]:
        if x.ndim != 3 or x.shape[0] != self.first[0].shape[1]:
            raise ValueError(
                f"this ResCNN maps [{self.first[0].shape[1]}, y, x]; got {x.shape}; for a batch use jax.vmap(net)"
            )
        layer = lambda x, weights: periodic_convolution(x, weights[0]) + weights[1][:, None, None]
        x = layer(x, self.first)
        for wide, before, after in self.blocks:
            x = x + layer(jax.nn.relu(layer(layer(x, wide), before)), after)
        return periodic_convolution(x, self.last)
