"""The sum over modes that Fourier neural operators are made of: on lines, rectangles and boxes, taken as one period."""

import functools
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from hybridgcm.grids import AbstractGrid, Torus

SMALL = {1: 1024, 2: 32, 3: 32}
"""By number of axes: up to this many points a side are transformed by matrix products, more by FFTs."""


def in_single(function: Callable) -> Callable:
    """The function with arguments of half precision widened to single, its result rounded to theirs.

    FFTs have no half precision; sums over a field would have two or three digits in it.
    """

    @functools.wraps(function)
    def widened(*args):
        half = [a.dtype for a in jax.tree.leaves(args) if _is_half(a)]
        if not half:
            return function(*args)
        return function(*jax.tree.map(lambda a: a.astype(jnp.float32) if _is_half(a) else a, args)).astype(half[0])

    return widened


def _is_half(leaf) -> bool:
    return eqx.is_array(leaf) and leaf.dtype in (jnp.bfloat16, jnp.float16)


@in_single
def spectral_convolution(
    weights: Float[Array, "2 out channel *modes"],
    bias: Float[Array, " out"],
    modes: tuple[int, ...],
    x: Float[Array, "channel *points"],
    grid: AbstractGrid | None,
) -> Float[Array, "out *points"]:
    """What `SpectralConvolution` does, for whatever holds its weights."""
    check_axes(modes, grid, x.shape)
    points = x.shape[1:]
    if max(points) <= SMALL[len(points)]:
        return _by_products(weights, modes, x) + per_channel(bias, x)
    sizes, (to_spectral, to_grid) = (*points[:-1], points[-1] // 2 + 1), _transforms(points)
    if grid is not None:
        sizes, to_spectral, to_grid = grid.spectral_shape, grid.to_spectral, grid.to_grid
    columns = modes[-1] // 2 + 1
    low = _lowest(to_spectral(x)[..., :columns], modes[:-1])
    # A product and a sum: XLA's CPU runtime has no fast kernel for one small matrix product per mode.
    low = jnp.sum(jax.lax.complex(weights[0], weights[1]) * low, 1)
    full = _with_zeros(low, sizes[:-1])
    mean = full[..., 0]
    axes = tuple(range(1, mean.ndim))
    mirrored = jnp.roll(jnp.flip(mean, axes), (1,) * len(axes), axes)
    full = jnp.concatenate([((mean + mirrored.conj()) / 2)[..., None], full[..., 1:]], -1)
    full = jnp.pad(full, ((0, 0),) * len(points) + ((0, sizes[-1] - columns),))
    return to_grid(full) + per_channel(bias, x)


def per_channel(a: Float[Array, " channel"], x: Array) -> Array:
    """A number for each channel, in the shape that meets all points of x."""
    return a.reshape(-1, *[1] * (x.ndim - 1))


def check_modes(modes: tuple[int, ...]) -> tuple[int, ...]:
    """The modes as a tuple of ints. Raises `ValueError` for other than one to three positive numbers."""
    if not 1 <= len(modes) <= 3 or min(modes) < 1:
        raise ValueError(f"modes are positive numbers (n_x,), (n_y, n_x) or (n_z, n_y, n_x); got {modes}")
    return tuple(int(n) for n in modes)


def check_axes(modes: tuple[int, ...], grid: AbstractGrid | None, shape: tuple[int, ...]):
    """Raises `TypeError` for grids other than a `Torus`, `ValueError` for points that the modes do not fit."""
    if grid is not None and not isinstance(grid, Torus):
        raise TypeError(f"a spectral convolution is written for the modes of a Torus; got {type(grid).__name__}")
    if len(shape) != 1 + len(modes):
        raise ValueError(
            f"modes={modes} are of fields [channel, {', '.join('zyx'[3 - len(modes) :])}]; got {shape}; for a batch "
            "use jax.vmap"
        )
    if grid is not None and len(modes) != 2:
        raise ValueError(f"modes={modes} on a Torus are two numbers (n_y, n_x); lines and boxes take grid=None")
    dealiased = grid is not None and grid.dealias == 2 / 3
    for mode, n in zip(modes, shape[1:] if grid is None else grid.n, strict=True):
        limit = n / (3 if dealiased else 2)
        if mode // 2 >= limit:
            raise ValueError(
                f"modes={modes} reach wave number {mode // 2}, the grid of {n} modes resolves those below {limit:g}; "
                "take fewer modes or a finer grid"
            )


def _transforms(points: tuple[int, ...]):
    """Transforms of plain points, taken as one period."""
    axes = tuple(range(-len(points), 0))
    forward = lambda a: jnp.fft.rfftn(a, axes=axes, norm="forward")
    return forward, lambda a_hat: jnp.fft.irfftn(a_hat, s=points, axes=axes, norm="forward")


def _lowest(x_hat: Array, rows: tuple[int, ...]) -> Array:
    """Of every axis between the first and the last the wave numbers −⌊n/2⌋ to ⌈n/2⌉ − 1, in the order of FFTs."""
    for axis, n in enumerate(rows, 1):
        size = x_hat.shape[axis]
        ends = ((0, (n + 1) // 2), (size - n // 2, size))
        x_hat = jnp.concatenate([jax.lax.slice_in_dim(x_hat, *end, axis=axis) for end in ends], axis)
    return x_hat


def _with_zeros(low: Array, sizes: tuple[int, ...]) -> Array:
    """What `_lowest` is taken from, if that has nothing else."""
    for axis, size in enumerate(sizes, 1):
        n = low.shape[axis]
        ends = ((0, (n + 1) // 2), ((n + 1) // 2, n))
        first, last = (jax.lax.slice_in_dim(low, *end, axis=axis) for end in ends)
        gap = jnp.zeros((*low.shape[:axis], size - n, *low.shape[axis + 1 :]), low.dtype)
        low = jnp.concatenate([first, gap, last], axis)
    return low


def _by_products(weights: Array, modes: tuple[int, ...], x: Array) -> Array:
    """The convolution by matrix products of real numbers: only the modes that carry weights are ever made.

    With gradient, a batch of 64, 24 channels, 16², modes (8, 8), two cores: a third of the time with FFTs; a
    `ClassicFNO` on 256 points of a line, batch of 20, 64 channels, 16 modes, one shared core: 51 ms against 92 ms.
    """
    points, last = x.shape[1:], x.ndim - 1
    rows, columns = [np.r_[: (n + 1) // 2, -(n // 2) : 0] for n in modes[:-1]], np.arange(modes[-1] // 2 + 1)
    cos_x, sin_x = _waves(columns, points[-1])
    put = lambda a: jnp.asarray(a, x.dtype)
    product = functools.partial(jnp.matmul, precision="highest")
    # exp(-ikx) along x: real parts of all columns, then imaginary ones; with them stacked, the same along y, then z
    a = product(x, put(np.hstack([cos_x.T, -sin_x.T]) / np.prod(points)))
    for axis in range(last - 1, 0, -1):
        a = jnp.concatenate(jnp.split(a, 2, axis + 1), axis)
        cos, sin = _waves(rows[axis - 1], points[axis - 1])
        a = _along(axis, put(np.block([[cos, sin], [-sin, cos]])), a)
    sizes = (*map(len, rows), len(columns))
    x_hat = a.reshape(-1, *sizes)  # [channel and part, *modes]
    real, imaginary = weights.astype(x.dtype)
    # rows of the matrix: real and imaginary part of every channel out; columns: the same of every channel in
    blocks = jnp.stack([jnp.stack([real, -imaginary], 2), jnp.stack([imaginary, real], 2)], 1)
    y_hat = jnp.einsum("oc...,c...->o...", blocks.reshape(2 * len(real), -1, *sizes), x_hat, precision="highest")
    y = y_hat.reshape(len(real), -1, *sizes[1:])
    for axis in range(1, last):
        cos, sin = _waves(rows[axis - 1], points[axis - 1])
        y = _along(axis, put(np.block([[cos.T, -sin.T], [sin.T, cos.T]])), y)
        y = jnp.concatenate(jnp.split(y, 2, axis), axis + 1)
    twice = np.where(columns == 0, 1, 2)[:, None]  # the other half of the modes are conjugates of these
    return product(y, put(np.vstack([twice * cos_x, -twice * sin_x])))


def _along(axis: int, matrix: Array, a: Array) -> Array:
    """matrix · a along an axis of a."""
    right = a.shape[axis + 1 :]
    a = jnp.matmul(matrix, a.reshape(*a.shape[: axis + 1], -1), precision="highest")
    return a.reshape(*a.shape[:-1], *right)


def _waves(numbers: np.ndarray, points: int) -> tuple[np.ndarray, np.ndarray]:
    """cos and sin of 2π·number·i/points, `[number, point]`."""
    angle = 2 * np.pi / points * (np.outer(numbers, np.arange(points)) % points)
    return np.cos(angle), np.sin(angle)


def with_zero(a: Array) -> Array:
    """A zero behind the last axis, for the places of `legendre.by_degree` without a number."""
    return jnp.pad(a, [(0, 0)] * (a.ndim - 1) + [(0, 1)])


def mixed_by_degree(weights: Array, x_hat: Array, here: np.ndarray, drift: np.ndarray) -> Array:
    """Σ_c (A[o, c, l] + i drift[l, m] B[o, c, l]) x_c(l, m), real and imaginary part `[2, out, degree, order]`.

    `weights`: A and B, `[2, out, channel, degree]`; `here`: places of `[degree, order]` in a flat spectral array.
    """
    # Degree by degree: with a weight put at every harmonic an SFNO trained three times as slowly.
    x_hat = x_hat.reshape(len(x_hat), -1)
    parts = with_zero(jnp.stack([x_hat.real, x_hat.imag]))[..., here]
    turned = jnp.stack([-parts[1], parts[0]]) * drift.astype(parts.dtype)
    return jnp.einsum("aocl,apclm->polm", weights, jnp.stack([parts, turned]), precision="highest")
