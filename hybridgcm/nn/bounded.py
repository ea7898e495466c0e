"""Operators between fields on bounded domains: places as inputs, units at both ends, symmetries of the square."""

from collections.abc import Callable, Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Num

from hybridgcm._typing import fixed
from hybridgcm.grids import AbstractGrid
from hybridgcm.nn.operators import apply, check_channels, without_grid
from hybridgcm.nn.spectral import per_channel

SQUARE = 8
"""Symmetries of the square, `turned` by the numbers 0 to 7."""


class Bounded(eqx.Module):
    """y = net([x, j/n_y, i/n_x]): two channels more that say where a point is, for domains that have boundaries.

    `net` maps `[channel + 2, y, x]` to `[out, y, x]`; an `AbstractOperator` is called without a grid, its transforms
    taking the points for one period. On a line it is one channel more, in a box three.
    `Bounded(FNO(channels + 2, out, modes=(8, 8), hidden=24, key=key))` is neuraloperator's `FNO` with its defaults,
    weight for weight; here the untrained network is zero.
    """

    net: Callable

    def __call__(self, x: Num[Array, "channel *points"]) -> Float[Array, "out *points"]:
        if x.ndim < 2:
            raise ValueError(f"operators map [channel, *points]; got {x.shape}; for a batch use jax.vmap")
        x = x if jnp.issubdtype(x.dtype, jnp.inexact) else jnp.asarray(x, float)  # places are no whole numbers
        places = np.meshgrid(*(np.arange(n) / n for n in x.shape[1:]), indexing="ij")
        x = jnp.concatenate([x, jnp.asarray(np.stack(places), x.dtype)])
        return without_grid(self.net, x)


class Normalised(eqx.Module):
    """y = mean_y + scale_y net((x − mean_x)/scale_x), a number each per channel: physical fields in and out.

    The numbers are saved with the weights and not trained by `fit`. `net` may be an `AbstractOperator`: it is called
    with the `grid`, as those on a sphere need; without one, points are one period of a line, plane or box.
    `from_data` measures the numbers, by area with a grid; pairs of O(1) are told by zeros and ones.
    Raises `ValueError` for other than these channels, and for scales that are not positive.
    """

    net: Callable
    mean: tuple[Float[Array, " channel"], Float[Array, " out"]] = fixed()
    scale: tuple[Float[Array, " channel"], Float[Array, " out"]] = fixed()
    grid: AbstractGrid | None = None

    def __init__(self, net: Callable, mean: Sequence, scale: Sequence, grid: AbstractGrid | None = None):
        put = lambda pair: tuple(jnp.asarray(np.atleast_1d(a), _dtype(net)) for a in pair)
        self.net, self.mean, self.scale, self.grid = net, put(mean), put(scale), grid
        for name, one, size in zip(("inputs", "outputs"), self.mean, self.scale, strict=True):
            if one.shape != size.shape or one.ndim != 1:
                raise ValueError(f"mean and scale of {name} are a number per channel; got {one.shape} and {size.shape}")
            if not isinstance(size, jax.core.Tracer) and not np.all(np.isfinite(size) & (np.asarray(size) > 0)):
                raise ValueError(f"scales of {name} are positive; got {np.asarray(size)}: leave out constant channels")

    @classmethod
    def from_data(cls, net: Callable, inputs, outputs, grid: AbstractGrid | None = None):
        """Means and standard deviations over samples and space of `[sample, channel, *points]`, both ends.

        Raises `ValueError` for other axes, different numbers of samples and a channel that does not vary.
        """
        for name, a in (("inputs", inputs), ("outputs", outputs)):
            if np.ndim(a) < 3 or len(a) != len(inputs):
                shapes = f"{np.shape(inputs)} and {np.shape(outputs)}"
                raise ValueError(f"{name}: pairs are [sample, channel, *points], sample by sample; got {shapes}")
        pairs = [np.asarray(a, float) for a in (inputs, outputs)]
        space = lambda a: (0, *range(2, a.ndim))
        area = 1.0 if grid is None else np.asarray(grid.weights, float) * np.prod(grid.shape)
        means = [np.mean(area * a, space(a)) for a in pairs]
        away = [a - mean.reshape(-1, *[1] * (a.ndim - 2)) for a, mean in zip(pairs, means, strict=True)]
        return cls(net, tuple(means), tuple(np.sqrt(np.mean(area * a**2, space(a))) for a in away), grid)

    def __call__(self, x: Float[Array, "channel *points"]) -> Float[Array, "out *others"]:
        check_channels(self, x, len(self.mean[0]), min(max(1, x.ndim - 1), 3))
        x = (x - per_channel(self.mean[0], x)) / per_channel(self.scale[0], x)
        y = without_grid(self.net, x) if self.grid is None else apply(self.net, x, self.grid)
        if len(y) != len(self.mean[1]):
            raise ValueError(f"the network gives {len(y)} channels, its normaliser is of {len(self.mean[1])}")
        return per_channel(self.mean[1], y) + per_channel(self.scale[1], y) * y


class Homogeneous(eqx.Module):
    """y = net(x/r), r the root mean square of the first channel: c·x gives the same as x, for every c > 0.

    As solutions of linear problems do, where source (first) and coefficients grow together: the normalisation of
    Subramanian et al. (2023), arXiv:2306.00258, without which inputs of their problems span two decades. `net` may be
    an `AbstractOperator`, called without a grid. Inside a `Normalised` of zero means, which makes all channels O(1).
    """

    net: Callable

    def __call__(self, x: Float[Array, "channel *points"]) -> Float[Array, "out *points"]:
        square = jnp.mean(x[0] ** 2)
        x = x / jnp.sqrt(jnp.where(square > 0, square, 1))
        return without_grid(self.net, x)


class Symmetrised(eqx.Module):
    """y = mean over the square's eight symmetries g of g⁻¹ net(g x): commutes with each of them whatever `net` does.

    For scalars on as many points along y as along x that begin on the boundary and end a spacing before the one
    opposite, as `turned` has them. Eight calls of `net`: train inside or, cheaper, put it around a trained network.
    Raises `ValueError` for fields that are not square.
    """

    net: Callable

    def __call__(self, x: Float[Array, "channel y x"]) -> Float[Array, "out y x"]:
        if x.ndim != 3 or x.shape[1] != x.shape[2]:
            raise ValueError(f"symmetries of the square need [channel, n, n]; got {x.shape}")
        numbers = jnp.arange(SQUARE)
        each = jax.vmap(lambda number: turned(without_grid(self.net, turned(x, number)), number, back=True))
        return jnp.mean(each(numbers), 0)


def turned(a: Float[Array, "*lead n n"], number: ArrayLike, *, back: bool = False) -> Float[Array, "*lead n n"]:
    """The field after symmetry `number` of the square, 0 (none) to 7; with `back` after its inverse.

    Scalars at the points i/n, i = 0 ... n − 1: a mirror takes i to −i modulo n, so that the boundary stays where it
    is. Bits of `number`: mirror along y, along x, then exchange of both.
    """
    bit = lambda i: (jnp.asarray(number) >> i) % 2 == 1
    exchanged = lambda a: jnp.where(bit(2), jnp.swapaxes(a, -1, -2), a)
    a = exchanged(a) if back else a
    for i, axis in enumerate((-2, -1)):
        a = jnp.where(bit(i), jnp.roll(jnp.flip(a, axis), 1, axis), a)
    return a if back else exchanged(a)


def turned_at_random(fields: dict[str, Array], key: Array) -> dict[str, Array]:
    """All fields of a sample after one symmetry of the square drawn with `key`: for `train.augmented`."""
    number = jr.randint(key, (), 0, SQUARE)
    return {name: turned(a, number) for name, a in fields.items()}


def _dtype(net):
    """Precision of the first floating-point weight, or JAX's default."""
    weights = [leaf for leaf in jax.tree.leaves(net) if eqx.is_inexact_array(leaf)]
    return weights[0].dtype if weights else jnp.result_type(float)
