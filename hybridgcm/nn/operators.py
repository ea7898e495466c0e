"""Networks that mix modes between the grid's own transforms, and so know no resolution."""

import abc
import functools
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float

from hybridgcm.grids import AbstractGrid, Sphere, Torus, legendre

SMALL = 32
"""Sides up to this many points are transformed by matrix products, longer ones by FFTs."""


class AbstractOperator(eqx.Module):
    """A network that needs the grid: `y = operator(x, grid)`, `[channel, y, x]` in and out. See `apply`."""

    @abc.abstractmethod
    def __call__(self, x: Float[Array, "channel y x"], grid: AbstractGrid) -> Float[Array, "out y x"]:
        """Fields on the points of `grid` from fields there."""


def apply(net: Callable, x: Float[Array, "channel y x"], grid: AbstractGrid | None) -> Float[Array, "..."]:
    """net(x, grid) for an `AbstractOperator`, net(x) for any other network: how closures and emulators call theirs.

    Raises `ValueError` for an operator without a grid.
    """
    if not isinstance(net, AbstractOperator):
        return net(x)
    if grid is None:
        raise ValueError(f"{type(net).__name__} works between the transforms of a grid; pass grid=")
    return net(x, grid)


class SpectralConvolution(AbstractOperator):
    """y_o(k, l) = Σ_c W[o, c, l, k] x_c(k, l) on the lowest modes, zero on all others, plus a bias per channel.

    `modes` (n_y, n_x): rows −⌊n_y/2⌋ to ⌈n_y/2⌉ − 1 and columns 0 to ⌊n_x/2⌋ carry weights, in units of the domain's
    lowest wavenumbers. Odd numbers are symmetric; an even n_y has its outermost row on the negative side only, as
    neuraloperator lays it out, and so does not commute with mirrors. On column 0, which holds both signs, the result
    is made Hermitian, W(l) and W(−l)* averaged: it is real whatever the transform does with an inconsistent input.
    `weights[0]` and `weights[1]` are real and imaginary parts: gradients of complex arrays point the wrong way.
    Coefficients mean the same at every resolution, and so do the weights. With `grid=None` the points are those of any
    rectangle, taken as one period whatever the fields do at its ends: for bounded domains, see `Bounded`.
    Li et al. (2021), arXiv:2010.08895. Raises `TypeError` for a grid that is not a `Torus`, `ValueError` for one that
    does not resolve the modes.
    """

    weights: Float[Array, "2 out channel row column"]
    bias: Float[Array, " out"]
    modes: tuple[int, int] = eqx.field(static=True)

    def __init__(self, channels: int, out: int, modes: tuple[int, int], *, key: Array):
        ny, nx = modes
        if min(ny, nx) < 1:
            raise ValueError(f"modes are two positive numbers (n_y, n_x); got {modes}")
        self.modes = (int(ny), int(nx))
        shape = (2, out, channels, ny, nx // 2 + 1)
        self.weights = jr.normal(key, shape) / np.sqrt(channels + out)  # |W|² has mean 2/(channels + out)
        self.bias = jnp.zeros(out)

    def __call__(self, x, grid):
        return spectral_convolution(self.weights, self.bias, self.modes, x, grid)


class ZonalConvolution(AbstractOperator):
    """y_o(l, m) = Σ_c W[o, c, l] x_c(l, m) for total degrees l <= `degrees`, zero above, plus a bias per channel.

    On a sphere, by the convolution theorem of Driscoll and Healy (1994), doi:10.1006/aama.1994.1008, the convolution
    with kernels that are round: it commutes with every rotation and mirror. W is real, a number per degree, so weights
    mean the same at every truncation. Bonev et al. (2023), arXiv:2306.03838 (SFNO).
    Raises `TypeError` for a grid that is not a `Sphere`, `ValueError` for one that does not resolve the degrees.
    """

    weights: Float[Array, "out channel degree"]
    bias: Float[Array, " out"]

    def __init__(self, channels: int, out: int, degrees: int, *, key: Array):
        if degrees < 0:
            raise ValueError(f"degrees is the largest total degree, zero or more; got {degrees}")
        # Variance 2/(channels + out), as in `SpectralConvolution`.
        self.weights = jr.normal(key, (out, channels, degrees + 1)) * np.sqrt(2 / (channels + out))
        self.bias = jnp.zeros(out)

    def __call__(self, x, grid):
        degrees = self.weights.shape[-1] - 1
        if not isinstance(grid, Sphere):
            raise TypeError(f"a zonal convolution is written for a Sphere; got {type(grid).__name__}")
        if degrees > grid.truncation:
            raise ValueError(f"weights reach degree {degrees}, the grid resolves {grid.truncation}: take fewer degrees")
        # Degree by degree: with a weight put at every harmonic an SFNO trained three times as slowly.
        here, there = legendre.by_degree(grid.truncation, 0, degrees)
        x_hat = grid.to_spectral(x).reshape(len(x), -1)
        ends = lambda a: jnp.pad(a, [(0, 0)] * (a.ndim - 1) + [(0, 1)])  # a zero, for the places without a number
        parts = ends(jnp.stack([x_hat.real, x_hat.imag]))[..., here]
        y = jnp.einsum("ocl,pclm->polm", self.weights, parts, precision="highest")
        y = ends(y.reshape(2, len(self.weights), -1))[..., there]
        return grid.to_grid(jax.lax.complex(y[0], y[1])) + self.bias[:, None, None]


class Pointwise(eqx.Module):
    """y_o = Σ_c W[o, c] x_c (+ b_o) at every point. Weights start normal with variance 1/channels, biases at zero."""

    weight: Float[Array, "out channel"]
    bias: Float[Array, " out"] | None

    def __init__(self, channels: int, out: int, *, key: Array, bias: bool = True):
        self.weight = jr.normal(key, (out, channels)) / np.sqrt(channels)
        self.bias = jnp.zeros(out) if bias else None

    def __call__(self, x: Float[Array, "channel y x"]) -> Float[Array, "out y x"]:
        y = jnp.matmul(self.weight, x.reshape(len(x), -1), precision="highest").reshape(-1, *x.shape[1:])
        return y if self.bias is None else y + self.bias[:, None, None]


def two_layers(pair: tuple[Pointwise, Pointwise], activation: Callable, x: Array) -> Array:
    """V σ(W x): a network of two layers at every point."""
    first, second = pair
    return second(activation(first(x)))


def zeroed(layer: Pointwise) -> Pointwise:
    """The layer with zero weights: a network that ends in it is zero until it is trained."""
    return eqx.tree_at(lambda p: p.weight, layer, 0 * layer.weight)


def check_channels(net: Callable, x: Array, channels: int):
    """Raises `ValueError` for other than `[channels, y, x]`."""
    if x.ndim != 3 or len(x) != channels:
        raise ValueError(f"this {type(net).__name__} maps [{channels}, y, x]; got {x.shape}; for a batch use jax.vmap")


class FNOBlock(AbstractOperator):
    """x ← σ(K x + W x), then x ← σ(MLP(x) + g x): K a convolution by modes, W and MLP pointwise, g per channel."""

    spectral: AbstractOperator
    skip: Pointwise
    mlp: tuple[Pointwise, Pointwise]
    gate: Float[Array, " channel"]
    activation: Callable = eqx.field(static=True)
    last: bool = eqx.field(static=True)

    def __init__(self, channels: int, modes: tuple[int, int] | int, *, key: Array, activation: Callable, last: bool):
        keys, middle = jr.split(key, 4), round(channels / 2)
        kind = ZonalConvolution if isinstance(modes, int) else SpectralConvolution
        self.spectral = kind(channels, channels, modes, key=keys[0])
        self.skip = Pointwise(channels, channels, key=keys[1], bias=False)
        self.mlp = Pointwise(channels, middle, key=keys[2]), Pointwise(middle, channels, key=keys[3])
        self.gate, self.activation, self.last = jnp.ones(channels), activation, last

    def __call__(self, x, grid):
        bent = (lambda a: a) if self.last else self.activation
        y = bent(self.spectral(x, grid) + self.skip(x))
        return bent(two_layers(self.mlp, self.activation, y) + self.gate[:, None, None] * x)


class FNO(AbstractOperator):
    """Fourier neural operator: lifting, blocks of spectral convolutions, projection; [inputs, y, x] to [outputs, y, x].

    `hidden` channels, `modes` (n_y, n_x) as in `SpectralConvolution` for a torus, or one number, the largest total
    degree of `ZonalConvolution`, for a sphere: then it is a spherical Fourier neural operator (SFNO). The layout is
    that of neuraloperator's `FNO` with its defaults (block order, soft gates, widths of lifting, projection and MLP),
    without its position channels: on a periodic domain no place is special. The same weights serve every resolution of
    a domain that holds the modes; results differ by what the activation aliases. Starts with the *last layer at zero*:
    an untrained closure does nothing, an untrained emulator persists. All of it is trainable.
    Li et al. (2021), arXiv:2010.08895; Kossaifi et al. (2024), arXiv:2412.10354.

    Raises `ValueError` for other than `inputs` channels.
    """

    lifting: tuple[Pointwise, Pointwise]
    blocks: tuple[FNOBlock, ...]
    projection: tuple[Pointwise, Pointwise]
    activation: Callable = eqx.field(static=True)

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        modes: tuple[int, int] | int,
        key: Array,
        hidden: int = 32,
        layers: int = 4,
        activation: Callable = jax.nn.gelu,
    ):
        if min(inputs, outputs, hidden, layers) < 1:
            raise ValueError(f"FNO needs positive sizes; got {inputs=}, {outputs=}, {hidden=}, {layers=}")
        keys = jr.split(key, 3 + layers)
        wide = 2 * hidden
        self.lifting = Pointwise(inputs, wide, key=keys[0]), Pointwise(wide, hidden, key=keys[1])
        self.blocks = tuple(
            FNOBlock(hidden, modes, key=key, activation=activation, last=number == layers - 1)
            for number, key in enumerate(keys[3:])
        )
        self.projection = Pointwise(hidden, wide, key=keys[2]), zeroed(Pointwise(wide, outputs, key=keys[2]))
        self.activation = activation

    def __call__(self, x, grid):
        check_channels(self, x, self.lifting[0].weight.shape[1])
        x = two_layers(self.lifting, self.activation, x)
        for block in self.blocks:
            x = block(x, grid)
        return two_layers(self.projection, self.activation, x)


def spectral_convolution(
    weights: Float[Array, "2 out channel row column"],
    bias: Float[Array, " out"],
    modes: tuple[int, int],
    x: Float[Array, "channel y x"],
    grid: AbstractGrid | None,
) -> Float[Array, "out y x"]:
    """What `SpectralConvolution` does, for whatever holds its weights."""
    _check_modes(modes, grid, x.shape)
    if max(x.shape[1:]) <= SMALL:
        return _by_products(weights, modes, x) + bias[:, None, None]
    (ny, nx), (rows, columns) = modes, (x.shape[1], x.shape[2] // 2 + 1)
    to_spectral, to_grid = _transforms(x.shape[1:])
    if grid is not None:
        (rows, columns), to_spectral, to_grid = grid.spectral_shape, grid.to_spectral, grid.to_grid
    positive, negative = (ny + 1) // 2, ny // 2
    x_hat = to_spectral(x)[..., : nx // 2 + 1]
    low = jnp.concatenate([x_hat[:, :positive], x_hat[:, rows - negative :]], 1)
    # A product and a sum: XLA's CPU runtime has no fast kernel for one small matrix product per mode.
    low = jnp.sum(jax.lax.complex(weights[0], weights[1]) * low, 1)
    gap = jnp.zeros((len(low), rows - ny, nx // 2 + 1), low.dtype)
    full = jnp.concatenate([low[:, :positive], gap, low[:, positive:]], 1)
    mean = full[..., 0]
    mirrored = jnp.roll(jnp.flip(mean, -1), 1, -1)
    full = jnp.concatenate([((mean + mirrored.conj()) / 2)[..., None], full[..., 1:]], -1)
    full = jnp.pad(full, ((0, 0), (0, 0), (0, columns - nx // 2 - 1)))
    return to_grid(full) + bias[:, None, None]


def _check_modes(modes: tuple[int, int], grid: AbstractGrid | None, shape: tuple[int, ...]):
    if grid is not None and not isinstance(grid, Torus):
        raise TypeError(f"a spectral convolution is written for the modes of a Torus; got {type(grid).__name__}")
    dealiased = grid is not None and grid.dealias == 2 / 3
    for mode, n in zip(modes, shape[1:] if grid is None else grid.n, strict=True):
        limit = n / (3 if dealiased else 2)
        if mode // 2 >= limit:
            raise ValueError(
                f"modes={modes} reach wave number {mode // 2}, the grid of {n} modes resolves those below {limit:g}; "
                "take fewer modes or a finer grid"
            )


def _transforms(shape: tuple[int, int]):
    """Transforms of plain points, taken as one period."""
    forward = lambda a: jnp.fft.rfft2(a, norm="forward")
    return forward, lambda a_hat: jnp.fft.irfft2(a_hat, s=shape, norm="forward")


def _by_products(weights: Array, modes: tuple[int, int], x: Array) -> Array:
    """The convolution by matrix products of real numbers: only the modes that carry weights are ever made.

    With gradient, a batch of 64, 24 channels, 16², modes (8, 8), two cores: a third of the time with FFTs.
    """
    (ny, nx), (points_y, points_x) = modes, x.shape[1:]
    rows, columns = np.r_[: (ny + 1) // 2, -(ny // 2) : 0], np.arange(nx // 2 + 1)
    (cos_y, sin_y), (cos_x, sin_x) = _waves(rows, points_y), _waves(columns, points_x)
    put = lambda a: jnp.asarray(a, x.dtype)
    product = functools.partial(jnp.matmul, precision="highest")
    # exp(-ikx) along x: real parts of all columns, then imaginary ones; below rows the same along y
    real, imaginary = jnp.split(product(x, put(np.hstack([cos_x.T, -sin_x.T]) / (points_x * points_y))), 2, -1)
    x_hat = product(put(np.block([[cos_y, sin_y], [-sin_y, cos_y]])), jnp.concatenate([real, imaginary], 1))
    x_hat = x_hat.reshape(-1, len(rows), len(columns))  # [channel and part, row, column]
    real, imaginary = weights.astype(x.dtype)
    # rows of the matrix: real and imaginary part of every channel out; columns: the same of every channel in
    blocks = jnp.stack([jnp.stack([real, -imaginary], 2), jnp.stack([imaginary, real], 2)], 1)
    blocks = blocks.reshape(2 * len(real), -1, len(rows), len(columns))
    y_hat = jnp.einsum("ocrk,crk->ork", blocks, x_hat, precision="highest")
    y_hat = y_hat.reshape(len(real), -1, len(columns))
    y = product(put(np.block([[cos_y.T, -sin_y.T], [sin_y.T, cos_y.T]])), y_hat)
    y = jnp.concatenate(jnp.split(y, 2, 1), 2)
    twice = np.where(columns == 0, 1, 2)[:, None]  # the other half of the modes are conjugates of these
    return product(y, put(np.vstack([twice * cos_x, -twice * sin_x])))


def _waves(numbers: np.ndarray, points: int) -> tuple[np.ndarray, np.ndarray]:
    """cos and sin of 2π·number·i/points, `[number, point]`."""
    angle = 2 * np.pi / points * (np.outer(numbers, np.arange(points)) % points)
    return np.cos(angle), np.sin(angle)
