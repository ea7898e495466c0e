"""Operators on scattered points: integrals over neighbours (GNO), and Fourier layers between two of them (GINO).

Functions on points are `[channel, point]`. Who is whose neighbour is found once per set of points, on the host.
"""

import abc
from collections.abc import Callable, Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int

from hybridgcm._typing import fixed
from hybridgcm.nn.operators import Pointwise, two_layers, without_grid, zeroed


class Neighbours(eqx.Module):
    """The points within a radius of each query, as `neighbours` finds them: the quadrature of a `GNO`.

    Lists are padded to the longest by point 0 with weight zero. Weights of a query add up to one.
    """

    index: Int[Array, "query neighbour"]
    weight: Float[Array, "query neighbour"] = fixed()
    offset: Float[Array, "axis query neighbour"] = fixed()
    """(y − x)/radius from query x to point y, to the nearest image in periodic boxes."""
    queries: Float[Array, "axis query"] = fixed()
    """Coordinates as angles: 2π x/length along periodic axes, π x/length along others."""
    points: Float[Array, "axis point"] = fixed()


class Geometry(eqx.Module):
    """What a `GINO` knows of places: from points to a regular grid of `shape`, and from there to queries."""

    inward: Neighbours
    outward: Neighbours
    shape: tuple[int, ...] = eqx.field(static=True)


def neighbours(
    points: ArrayLike,
    queries: ArrayLike,
    radius: float,
    box: Sequence[float],
    *,
    weights: ArrayLike | None = None,
    periodic: bool | Sequence[bool] = False,
    window: Callable[[np.ndarray], np.ndarray] = np.ones_like,
) -> Neighbours:
    """Lists of the `points` `[point, axis]` within `radius` of each of the `queries` `[query, axis]`, in 0 ... `box`.

    `weights`: area or volume that each point stands for, in any unit; by default the same for all, which is right for
    points that are spread evenly. `window` of distance/radius multiplies them: with one that ends at zero
    (`half_cosine`) integrals vary smoothly from place to place and converge faster than with the sharp default.
    `periodic`: for all axes or each. NumPy and SciPy; not for use inside jit. Raises `ValueError` for points outside
    the box, weights that are not positive, a radius beyond half of a period, and queries without neighbours.
    """
    from scipy.spatial import cKDTree

    lengths, around = np.asarray(box, float), np.broadcast_to(periodic, np.shape(box))
    places = {"points": np.asarray(points, float), "queries": np.asarray(queries, float)}
    _check(places, lengths, around, radius)
    points, queries = places.values()
    weights = np.ones(len(points)) if weights is None else np.asarray(weights, float)
    if weights.shape != (len(points),) or not np.all(weights > 0):
        raise ValueError(f"weights are a positive number for each of {len(points)} points; got {weights.shape}")
    near = cKDTree(points, boxsize=np.where(around, lengths, 0)).query_ball_point(queries, radius, return_sorted=True)
    counts = np.array([len(one) for one in near])
    listed = np.arange(max(counts.max(), 1)) < counts[:, None]
    index = np.zeros(listed.shape, np.int32)
    index[listed] = np.concatenate([*near, []]).astype(np.int32)
    offset = points[index] - queries[:, None]
    offset = (offset - np.where(around, lengths * np.round(offset / lengths), 0)) / radius
    weight = np.where(listed, weights[index] * window(np.linalg.norm(offset, axis=-1)), 0)
    if len(lonely := np.flatnonzero(weight.sum(1) == 0)):
        raise ValueError(
            f"no point within {radius:g} of {len(lonely)} of {len(queries)} queries, the first is number {lonely[0]} "
            f"at {_told(queries[lonely[0]])}; take a larger radius or more points"
        )
    angles = lambda a: jnp.asarray((a * np.pi * (1 + around) / lengths).T)
    weight, offset = jnp.asarray(weight / weight.sum(1, keepdims=True)), jnp.asarray(np.moveaxis(offset, -1, 0))
    return Neighbours(jnp.asarray(index), weight, offset, angles(queries), angles(points))


def half_cosine(distance: np.ndarray) -> np.ndarray:
    """(1 + cos πr)/2, one at r = 0 and zero at r = 1: a `window` for `neighbours`."""
    return (1 + np.cos(np.pi * distance)) / 2


def geometry(
    points: ArrayLike,
    queries: ArrayLike,
    shape: Sequence[int],
    radius: float,
    box: Sequence[float],
    *,
    weights: ArrayLike | None = None,
    periodic: bool | Sequence[bool] = False,
    window: Callable[[np.ndarray], np.ndarray] = half_cosine,
) -> Geometry:
    """The lists that a `GINO` needs to go from `points` to `queries` by a grid of `shape` cells; else as `neighbours`.

    A grid point is the centre of its cell. `radius` is to reach some of them from every query, and some points from
    each of them. Raises as `neighbours`.
    """
    axes = [(np.arange(n) + 0.5) / n * length for n, length in zip(shape, box, strict=True)]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, len(axes))
    inward = neighbours(points, grid, radius, box, weights=weights, periodic=periodic, window=window)
    return Geometry(inward, neighbours(grid, queries, radius, box, periodic=periodic, window=window), tuple(shape))


class AbstractGNO(eqx.Module):
    """u_c(x) = Σ_y w(x, y) κ_c f_c(y) `[channel, query]`, y within a radius of x, κ = 1 + a network of `seen`."""

    kernel: tuple[Pointwise, ...]
    activation: Callable = eqx.field(static=True)
    frequencies: int = eqx.field(static=True)

    def __init__(
        self,
        channels: int,
        *,
        axes: int,
        key: Array,
        widths: Sequence[int] = (64, 64),
        frequencies: int = 4,
        activation: Callable = jax.nn.gelu,
    ):
        self.activation, self.frequencies = activation, frequencies
        few = jnp.zeros((axes, 1))
        near = Neighbours(jnp.zeros((1, 1), int), few[:1], few[:, None], few, few)
        features = len(jax.eval_shape(lambda f: self.seen(f, near), jnp.zeros((channels, 1))))
        sizes = (features, *widths, channels)
        keys = jr.split(key, len(sizes) - 1)
        self.kernel = tuple(Pointwise(a, b, key=one) for a, b, one in zip(sizes[:-1], sizes[1:], keys, strict=True))

    def __call__(self, f: Float[Array, "channel point"], near: Neighbours) -> Float[Array, "channel query"]:
        _check_function(self, f, near, len(self.kernel[-1].weight))
        x = self.seen(f, near)
        for layer in self.kernel[:-1]:
            x = self.activation(layer(x))
        return jnp.sum(near.weight * (1 + self.kernel[-1](x)) * f[:, near.index], -1)

    @abc.abstractmethod
    def seen(self, f: Float[Array, "channel point"], near: Neighbours) -> Float[Array, "feature query neighbour"]:
        """What the kernel is a function of."""


class GNO(AbstractGNO):
    """u_c(x) = Σ_y w(x, y) κ_c(x, y) f_c(y), y within a radius of x: `net(f, near)`, `[channel, query]`.

    κ = 1 + a network of where x and y are (sines and cosines of k times the angles of `Neighbours`, k = 1, 2, 4 ...,
    `frequencies` of them) and of (y − x)/radius, of layers as wide as `widths`. Where that network is zero u is the
    mean of f within the radius, by area. One kernel per channel: mix channels with `Pointwise` before and after.
    Li et al. (2020), arXiv:2003.03485; the mean for their sum, so that u stays of the size of f.
    Raises `ValueError` for other than `[channels, point]`.
    """

    def seen(self, f, near):
        """Places alone: evaluated once for all f under `jax.vmap`."""
        return _places(near, self.frequencies)


class NonlinearGNO(AbstractGNO):
    """u_c(x) = Σ_y w(x, y) κ_c(x, y, f(y)) f_c(y): as `GNO` with a kernel that also sees the function's values.

    Its kernel is evaluated anew for every f, that of a `GNO` once for all of them under `jax.vmap`.
    """

    def seen(self, f, near):
        """Places, then the values of f at the points."""
        return jnp.concatenate([_places(near, self.frequencies), f[:, near.index]])


class GINO(eqx.Module):
    """Geometry-informed neural operator: from points to a regular grid, an operator there, from the grid to queries.

    `net(f, geometry)`, f `[inputs, point]`, is `[outputs, query]`; the same weights serve any points, see `geometry`.
    Lifting at the points to `hidden` channels, a `GNO` to the grid, x + operator(x) on it, a `GNO` to the queries,
    projection. `operator`: a network from `hidden` to `hidden` channels on the grid's `[hidden, *shape]`:
    `nn.FNO(hidden, hidden, modes=..., key=...)` in a periodic box, `nn.Bounded(nn.FNO(hidden + axes, hidden, ...))` in
    one that is not. For `train.supervised`: `Normalised(AtPoints(net, geometry), ...)`. Starts with the last layer at
    zero. Li et al. (2023), arXiv:2309.00583. Raises `ValueError` for other than `[inputs, point]`.
    """

    lifting: tuple[Pointwise, Pointwise]
    inward: Callable
    operator: Callable
    outward: Callable
    projection: tuple[Pointwise, Pointwise]
    activation: Callable = eqx.field(static=True)

    def __init__(
        self,
        inputs: int,
        outputs: int,
        operator: Callable,
        *,
        axes: int,
        key: Array,
        hidden: int = 32,
        widths: Sequence[int] = (64, 64),
        frequencies: int = 4,
        activation: Callable = jax.nn.gelu,
    ):
        keys, wide = jr.split(key, 6), 2 * hidden
        sizes = {"axes": axes, "widths": widths, "frequencies": frequencies, "activation": activation}
        self.lifting = Pointwise(inputs, wide, key=keys[0]), Pointwise(wide, hidden, key=keys[1])
        self.inward, self.outward = (GNO(hidden, key=one, **sizes) for one in keys[2:4])
        self.projection = Pointwise(hidden, wide, key=keys[4]), zeroed(Pointwise(wide, outputs, key=keys[5]))
        self.operator, self.activation = operator, activation

    def __call__(self, f: Float[Array, "channel point"], geometry: Geometry) -> Float[Array, "out query"]:
        _check_function(self, f, geometry.inward, self.lifting[0].weight.shape[1])
        x = self.inward(two_layers(self.lifting, self.activation, f), geometry.inward)
        x = x.reshape(-1, *geometry.shape)
        x = x + without_grid(self.operator, x)
        x = self.outward(x.reshape(len(x), -1), geometry.outward)
        return two_layers(self.projection, self.activation, x)


class AtPoints(eqx.Module):
    """y = net(f, geometry): a network on points as a function of f alone, as `Normalised` and `supervised` take one.

    The places are arrays of it that `fit` does not train. For other points put
    the same `net` beside their geometry.
    """

    net: Callable
    geometry: Geometry | Neighbours

    def __call__(self, f: Float[Array, "channel point"]) -> Float[Array, "out query"]:
        return self.net(f, self.geometry)


def _places(near: Neighbours, frequencies: int) -> Float[Array, "feature query neighbour"]:
    """What a kernel knows of x and y."""

    def embedded(angles):
        each = 2.0 ** np.arange(frequencies)[:, None, None] * angles
        return jnp.concatenate([jnp.sin(each), jnp.cos(each)]).reshape(-1, angles.shape[-1])

    here, there = embedded(near.queries), embedded(near.points)[:, near.index]
    return jnp.concatenate([jnp.broadcast_to(here[:, :, None], there.shape), there, near.offset])


def _check_function(net: eqx.Module, f: Array, near: Neighbours, channels: int):
    if f.ndim != 2 or len(f) != channels:
        raise ValueError(f"this {type(net).__name__} maps [{channels}, point]; got {f.shape}; for a batch use jax.vmap")
    if f.shape[1] != near.points.shape[1]:
        raise ValueError(f"the function is given at {f.shape[1]} points, the lists are of {near.points.shape[1]}")


def _check(places: dict[str, np.ndarray], lengths: np.ndarray, around: np.ndarray, radius: float):
    if not np.all(lengths > 0) or not radius > 0:
        raise ValueError(f"box and radius are positive; got {_told(lengths)} and {radius}")
    if np.any(radius > (half := lengths[around] / 2)):
        raise ValueError(f"radius {radius:g} is beyond half a period, {half.min():g}: points would be their own images")
    for name, a in places.items():
        if a.ndim != 2 or a.shape[1] != len(lengths) or not len(a):
            raise ValueError(f"{name} are [point, axis] with {len(lengths)} axes as the box; got {a.shape}")
        inside = (a >= 0) & np.where(around, a < lengths, a <= lengths)  # false for nan, too
        if len(out := np.flatnonzero(~inside.all(1))):
            raise ValueError(
                f"{len(out)} of {len(a)} {name} lie outside the box 0 ... {_told(lengths)} (the end excluded where it "
                f"is periodic), the first is number {out[0]} at {_told(a[out[0]])}"
            )


def _told(place: np.ndarray) -> str:
    return f"({', '.join(f'{x:g}' for x in place)})"
