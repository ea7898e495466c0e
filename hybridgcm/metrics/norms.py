"""Relative norms of operator learning: Lp and H1, by quadrature and modes of a grid or on the points of a box."""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from hybridgcm.grids import AbstractGrid
from hybridgcm.grids.base import scale
from hybridgcm.metrics.losses import Metric, _pair, _positive

CHANNELS = ("mean", "sum", "each", "together")
"""What becomes of the layers: mean or sum of their relative errors, an error each, or one norm over all of them."""


def lp(
    name: str, p: int | float = 2, *, channels: str = "mean", grid: AbstractGrid | None = None, axes: int = 2
) -> Metric:
    """‖prediction − target‖_p / ‖target‖_p of every frame, ‖a‖_p = (mean of |a|ᵖ over the points)^(1/p): `[*lead]`.

    Zero is perfect, 1 a prediction of zero. Frames `[*lead, layer, y, x]`; nothing is averaged but what is said: frames
    stay apart, layers as `channels` says ("each" keeps them, `[*lead, layer]`; neuraloperator's LpLoss is "sum"). With
    `grid` the mean is its quadrature, as a sphere needs. Differentiable, also where the error is zero. Points lie along
    the last `axes` axes: one of lines `[*lead, layer, x]`, three of boxes `[*lead, layer, z, y, x]`.
    Raises `ValueError` for p < 1 or infinite, unknown `channels`, missing names and unequal shapes.
    """
    if not 1 <= p < np.inf:
        raise ValueError(f"a norm by means of powers has a finite p >= 1; got p={p}")
    _check(channels, axes, grid)

    def powers(a):
        a = jnp.abs(a) ** p if p % 2 else a ** int(p)  # smooth where it can be
        return jnp.mean(a, tuple(range(-axes, 0))) if grid is None else grid.mean(a)

    return _relative(name, powers, 1 / p, channels, axes)


def h1(
    name: str,
    *,
    channels: str = "mean",
    grid: AbstractGrid | None = None,
    length: float | Sequence[float] | None = None,
    periodic: bool | Sequence[bool] = False,
    axes: int = 2,
) -> Metric:
    """As `lp` with the norm (mean of a² + |∇a|²)^½, which sees slopes as well as values: `[*lead]`.

    - `grid`: derivatives by its modes, Σ (1 − ℓ²λ)|â|², λ the eigenvalues of ∇², and the squares of what it does not
      resolve. The unit ℓ of slopes is `length`, m, by default 1/κ of the longest wave: L/2π, a sphere's radius/√2.
    - Without: differences. `length`: of the box along (y, x), or whatever its `axes`, n points at i·length/n, in the
      unit that the slopes are to be judged in, by default 1.
    - `periodic`: per axis; central differences around. Else central ones inside and one-sided ones at the ends, all
      exact for parabolas.

    neuraloperator's H1Loss is periodic unless told otherwise, also where the domain has boundaries, and its "sum" over
    channels is hidden. Raises `ValueError` as `lp`, for axes of less than 3 points, and for `periodic` beside a grid.
    """
    _check(channels, axes, grid)
    lengths, around = np.broadcast_to(1.0 if length is None else length, (axes,)), np.broadcast_to(periodic, (axes,))
    if not np.all(lengths > 0) or (grid is not None and np.ndim(length)):
        raise ValueError(f"length is a positive number, or without a grid one for each of (y, x); got {length}")
    if grid is not None and np.any(periodic):
        raise ValueError("a grid knows where it is periodic; leave periodic out beside it")

    def squares(a):
        if grid is not None:
            a_hat = grid.to_spectral(a)
            unit = -jnp.min(grid.inverse_eigenvalues) if length is None else float(length) ** 2
            beyond = grid.mean((a - grid.to_grid(a_hat)) ** 2)
            return beyond + grid.inner(a_hat, scale(1 - unit * grid.eigenvalues, a_hat))
        total = a**2
        for axis in range(-axes, 0):
            total += difference(a, lengths[axis] / a.shape[axis], axis, bool(around[axis])) ** 2
        return jnp.mean(total, tuple(range(-axes, 0)))

    return _relative(name, squares, 0.5, channels, axes)


def difference(a: Array, spacing: float, axis: int, periodic: bool = False) -> Array:
    """∂a along an axis, to second order: central, at the ends of an axis that is not periodic one-sided."""
    n = a.shape[axis]
    if n < 3:
        raise ValueError(f"differences need 3 points along an axis; got {a.shape}")
    central = (jnp.roll(a, -1, axis) - jnp.roll(a, 1, axis)) / (2 * spacing)
    if periodic:
        return central
    at = lambda i: jnp.take(a, np.array([i % n]), axis)
    first = (-3 * at(0) + 4 * at(1) - at(2)) / (2 * spacing)
    last = (3 * at(-1) - 4 * at(-2) + at(-3)) / (2 * spacing)
    inner = jnp.take(central, np.arange(1, n - 1), axis)
    return jnp.concatenate([first, inner, last], axis)


def _relative(name: str, powers, root: float, channels: str, axes: int) -> Metric:
    def metric(prediction, target):
        p, t = _pair(name, prediction, target)
        size = _positive(jnp.max(jnp.abs(t), tuple(range(-1 - axes, 0)), keepdims=True))  # powers of s⁻² underflow
        error, whole = powers((p - t) / size), powers(t / size)
        if channels == "together":
            error, whole = jnp.sum(error, -1), jnp.sum(whole, -1)
        ratio = _positive(error) ** root / _positive(whole) ** root
        reduced = {"mean": jnp.mean, "sum": jnp.sum}.get(channels)
        return ratio if reduced is None else reduced(ratio, -1)

    return metric


def _check(channels: str, axes: int, grid: AbstractGrid | None):
    if axes not in (1, 2, 3):
        raise ValueError(f"axes of points are 1, 2 or 3; got {axes}")
    if grid is not None and axes != 2:
        raise ValueError(f"a grid has two axes of points; got axes={axes}")
    if channels not in CHANNELS:
        raise ValueError(f"channels is one of {CHANNELS}; got {channels!r}")
