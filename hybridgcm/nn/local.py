"""Convolution with local filters on the sphere, alone and beside global ones in a neural operator."""

import functools
from collections.abc import Callable, Iterable

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float

from hybridgcm.grids import AbstractGrid, legendre
from hybridgcm.nn.operators import FNO, AbstractOperator, ZonalConvolution, apply
from hybridgcm.nn.spectral import in_single
from hybridgcm.nn.sphere import check_sphere

LONGEST_BLOCK = 16
"""Rows of a block of `LocalConvolution`. At T42 and 2,000 km, 16 channels: a gradient takes 4.1 ms with 16 rows, 3.8
with 32, 4.6 with all 64 or with 8; tables of 3.3, 5.1, 7.5 and 2.3 MB."""


class LocalConvolution(AbstractOperator):
    """y_o(x) = b_o + Σ_c Σ_i W[o, c, i] Σ_x' w(x') ψ_i(θ, α) u_c(x'): filters on the disk around every point.

    θ is the angle from x to x', α the bearing of x' from x, clockwise from north, w the area. For n `rings` of width
    δ = `cutoff`/n, radii h_r = cos²(π(θ/δ − r)/2) where |θ/δ − r| < 1, else 0, r = 0 ... n − 1: they add up to one
    within δ (n − 1) and end at `cutoff`, m. The filters are first h_r, then h_r cos kα, then h_r sin kα, r >= 1,
    k = 1 ... `waves`, with k the faster: n + 2 (n − 1) `waves` of them. At every latitude each is divided by Σ w h_r,
    and the second and third kind lose what they make of a constant: the first are means, the others differences.
    The discrete-continuous (DISCO) convolution of Ocampo, Price and McEwen (2022), arXiv:2209.13603, as a layer of
    neural operators: Liu-Schiaffini et al. (2024), arXiv:2402.16845.

    Filters are functions of distance and bearing, so weights mean the same at every truncation; h_r is smoother than
    the published piecewise linear one, and its quadrature about five times as accurate at T42. Commutes with rotations
    about the axis by whole points, exactly; with `waves` = 0 with every rotation, as far as the quadrature is exact.
    Bearings turn around a pole, so the other filters make there what the components of a vector are: not continuous
    across it.

    W starts normal with variance 1/(channels · filters), b at zero. Tables of the filters follow from the grid's shape
    alone: built by NumPy at the first call, kept for the next, constants of the compiled program and no leaves that
    could be trained; points · filters · rows within reach / 2 numbers: 3.3 MB at T42, 18 at T85 for 2,000 km.

    Raises `ValueError` for a cutoff that is not positive, fewer than one ring, negative waves, a grid whose points are
    further apart than rings, and other channels; `TypeError` for a grid that is not a `Sphere`.
    """

    weights: Float[Array, "out channel filter"]
    bias: Float[Array, " out"]
    cutoff: float = eqx.field(static=True)
    rings: int = eqx.field(static=True)
    waves: int = eqx.field(static=True)

    def __init__(self, channels: int, out: int, cutoff: float, *, key: Array, rings: int = 3, waves: int = 1):
        if not cutoff > 0 or min(channels, out, rings) < 1 or waves < 0:
            raise ValueError(
                "LocalConvolution needs positive sizes, a cutoff in metres, and zero or more waves; "
                f"got {channels=}, {out=}, {cutoff=}, {rings=}, {waves=}"
            )
        filters = rings + 2 * (rings - 1) * waves
        self.weights = jr.normal(key, (out, channels, filters)) / np.sqrt(channels * filters)
        self.bias = jnp.zeros(out)
        self.cutoff, self.rings, self.waves = float(cutoff), int(rings), int(waves)

    @in_single
    def __call__(self, x, grid):
        self._check(x, grid)
        table, starts = _filters(grid.shape, self.cutoff / grid.radius, self.rings, self.waves, np.dtype(x.dtype))
        even = self.rings + (self.rings - 1) * self.waves
        # The checkpoint keeps x instead of what every filter makes of it: the same time for a gradient, and through 30
        # layers of T42, 16 channels, 60 instead of 151 MB.
        filtered = jax.checkpoint(lambda x, weights: _filtered(x, weights, table, starts, even))
        return filtered(x, self.weights) + self.bias[:, None, None]

    def _check(self, x: Array, grid: AbstractGrid):
        check_sphere("LocalConvolution", grid)
        channels, spacing = self.weights.shape[1], np.pi * grid.radius / grid.shape[0]
        if x.shape != (channels, *grid.shape):
            raise ValueError(
                f"this LocalConvolution maps [{channels}, y, x] on {grid.shape} points; got {x.shape}; "
                "for a batch use jax.vmap"
            )
        if self.cutoff / self.rings < 0.99 * spacing or self.cutoff > np.pi * grid.radius:
            raise ValueError(
                f"{self.rings} rings within {self.cutoff:g} m are {self.cutoff / self.rings:g} m wide; they need the "
                f"{spacing:g} m between rows of the grid at least, and a cutoff on the sphere (radius {grid.radius:g} "
                "m): take fewer rings, another cutoff or a finer grid"
            )


def _filtered(x: Array, weights: Array, table: np.ndarray, starts: list[int], even: int) -> Array:
    # Wave by wave in longitude the filters are real matrices between rows near each other, those with sines times i:
    # one matrix product per order and block of rows. With gradient, sums over shifted rows took 30 times as long.
    (out, channels, filters), (_, rows, points) = weights.shape, x.shape
    orders, blocks, _, near = table.shape
    x_hat = jnp.fft.rfft(x)
    x_hat = jnp.stack([x_hat.real, x_hat.imag]).transpose(3, 2, 0, 1).reshape(orders, rows, 2 * channels)
    x_hat = jnp.stack([x_hat[:, start : start + near] for start in starts], 1)
    found = jnp.matmul(table, x_hat, precision="highest").reshape(orders, blocks, filters, -1, 2, channels)
    odd = found[:, :, even:]
    found = jnp.concatenate([found[:, :, :even], jnp.stack([-odd[..., 1, :], odd[..., 0, :]], -2)], 2)
    found = found.transpose(0, 1, 3, 4, 2, 5).reshape(orders * rows * 2, filters * channels)
    matrix = weights.transpose(2, 1, 0).reshape(filters * channels, out)
    y = jnp.matmul(found, matrix, precision="highest").reshape(orders, rows, 2, out).transpose(2, 3, 1, 0)
    return jnp.fft.irfft(jax.lax.complex(y[0], y[1]), points)


@functools.lru_cache(maxsize=4)
def _filters(shape: tuple[int, int], cutoff: float, rings: int, waves: int, dtype) -> tuple[np.ndarray, list[int]]:
    """`[order, block, filter · row, near row]`, and the first near row of every block; `cutoff` in radians.

    Transforms of filters in the difference of longitude: real, those of sines without their factor i.
    """
    rows, points = shape
    mu, weights = (np.float64(a) for a in legendre.gauss_legendre(rows))
    latitude, east = np.arcsin(mu), 2 * np.pi / points * np.arange(points)
    length = max(n for n in range(1, LONGEST_BLOCK + 1) if rows % n == 0)
    within = np.abs(latitude[:, None] - latitude) < cutoff
    reach = int(np.max(np.sum(np.triu(within, 1), 1)))
    near = min(length + 2 * reach, rows)
    starts = [min(max(first - reach, 0), rows - near) for first in range(0, rows, length)]
    blocks = []
    for first, start in zip(range(0, rows, length), starts, strict=True):
        seen = slice(start, start + near)
        here, there = latitude[first : first + length, None, None], latitude[seen, None]
        x = np.cos(there) * np.sin(east)  # of the point seen, in the frame of east, north and up at the point here
        y = np.cos(here) * np.sin(there) - np.sin(here) * np.cos(there) * np.cos(east)
        z = np.sin(here) * np.sin(there) + np.cos(here) * np.cos(there) * np.cos(east)
        angle, bearing = np.arctan2(np.hypot(x, y), z), np.arctan2(x, y)
        away = np.abs(angle * rings / cutoff - np.arange(rings)[:, None, None, None])
        means = np.where(away < 1, np.cos(np.pi / 2 * away) ** 2, 0) * weights[seen, None]
        means /= means.sum((2, 3), keepdims=True)
        k = np.arange(1, waves + 1)[:, None, None, None]
        pairs = [(mean * turn(k * bearing), mean) for turn in (np.cos, np.sin) for mean in means[1:]]
        differences = [f - f.sum((2, 3), keepdims=True) * mean for f, mean in pairs]
        blocks.append(_transform(np.concatenate([means, *differences]), rings + (rings - 1) * waves).astype(dtype))
    return np.stack(blocks, 1), starts


def _transform(filters: np.ndarray, even: int) -> np.ndarray:
    """`[filter, row, near row, longitude]` to `[order, filter · row, near row]`."""
    waves = np.fft.rfft(filters)
    parts = np.concatenate([waves[:even].real, -waves[even:].imag])
    return parts.reshape(-1, *parts.shape[2:]).transpose(2, 0, 1)


class OperatorSum(AbstractOperator):
    """y = Σ_i net_i(x): operators and other networks side by side, such as a global and a local convolution."""

    nets: tuple[Callable, ...]

    def __call__(self, x, grid):
        first, *others = (apply(net, x, grid) for net in self.nets)
        return sum(others, first)


def neural_operator(
    inputs: int,
    outputs: int,
    convolutions: Iterable[AbstractOperator],
    *,
    key: Array,
    hidden: int = 32,
    activation: Callable = jax.nn.gelu,
) -> FNO:
    """An `FNO` whose blocks mix points by the given `convolutions`, one each: operators from `hidden` to `hidden`."""
    given = list(convolutions)
    net = FNO(inputs, outputs, modes=0, hidden=hidden, layers=len(given), key=key, activation=activation)
    return eqx.tree_at(lambda n: [block.spectral for block in n.blocks], net, given)


def local_sfno(
    inputs: int,
    outputs: int,
    *,
    degrees: int,
    cutoff: float,
    key: Array,
    hidden: int = 32,
    layers: int = 4,
    activation: Callable = jax.nn.gelu,
) -> FNO:
    """An SFNO whose blocks add a `LocalConvolution` within `cutoff`, m, to the `ZonalConvolution` up to `degrees`.

    The local neural operator of Liu-Schiaffini et al. (2024), arXiv:2402.16845, without its differential layer, whose
    part the filters with a wave play. Other orders, such as local and global blocks in turn: `neural_operator`.
    """
    keys = jr.split(key, 1 + layers)

    def both(key):
        first, second = jr.split(key)
        near = LocalConvolution(hidden, hidden, cutoff, key=second)
        return OperatorSum((ZonalConvolution(hidden, hidden, degrees, key=first), near))

    return neural_operator(inputs, outputs, map(both, keys[1:]), hidden=hidden, key=keys[0], activation=activation)
