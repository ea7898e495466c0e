"""Deep operator networks: what a function is at its sensors, and where the answer is asked for, in two networks."""

import abc
import math
from collections.abc import Callable, Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Shaped

from hybridgcm._typing import fixed

Sizes = int | tuple[int, ...]
"""Numbers of sensors of a function, along each axis."""


class AbstractTrunk(eqx.Module):
    """The part of a `DeepONet` that knows the places: Σ_k c[o, k] t_ok(y) at the points y that are asked for."""

    @abc.abstractmethod
    def __call__(
        self, coefficients: Float[Array, "out rank"], *coordinates: Shaped[Array, " query"]
    ) -> Float[Array, "out *points"]:
        """The sum over k at all points."""


class DeepONet(eqx.Module):
    """G(u)(y)_o = Σ_k b_ok(u) t_ok(y) + bias_o: `net(u, *coordinates)` is `[out, *points]` for one function u.

    u is what the function is at fixed sensors; coordinates are arrays, one per dimension (t, x ...), and `trunk` says
    which points they mean: `PointTrunk`, `SeparableTrunk` or `PODTrunk`. For several functions use `jax.vmap` over u
    alone: the trunk is then evaluated once for all. With several branches u is a tuple, one function for each, and
    b = Π_i b_i(u_i) (MIONet). `point_deeponet`, `separable_deeponet` and `pod_deeponet` build the usual ones.

    Lu et al. (2021), doi:10.1038/s42256-021-00302-5; branches: Jin, Meng and Lu (2022), arXiv:2202.06137. Outputs share
    the networks, each with `rank` features of its own at either end ("split both" of Lu et al. (2022),
    doi:10.1016/j.cma.2022.114778). Raises `ValueError` for functions of other sizes and for coordinates that the trunk
    does not take.
    """

    branches: tuple[Callable, ...]
    trunk: AbstractTrunk
    bias: Float[Array, " out"]
    sensors: tuple[tuple[int, ...], ...] = eqx.field(static=True)

    def __init__(self, branches: Sequence[Callable], trunk: AbstractTrunk, sensors: Sequence[Sizes], outputs: int = 1):
        if len(branches) != len(sensors) or not branches or outputs < 1:
            raise ValueError(
                f"DeepONet needs a branch for every set of sensors and outputs >= 1; got {len(branches)} branches, "
                f"sensors={sensors}, {outputs=}"
            )
        self.branches, self.trunk, self.bias = tuple(branches), trunk, jnp.zeros(outputs)
        self.sensors = tuple(_shape(one) for one in sensors)

    def __call__(self, u, *coordinates: ArrayLike) -> Float[Array, "out *points"]:
        functions = u if isinstance(u, tuple) else (u,)
        shapes = tuple(jnp.shape(one) for one in functions)
        if shapes != self.sensors:
            raise ValueError(
                f"this DeepONet takes functions at sensors {self.sensors}; got {shapes}; several functions of one "
                "evaluation are a tuple, for a batch use jax.vmap"
            )
        features = [branch(jnp.asarray(one)).reshape(-1) for branch, one in zip(self.branches, functions, strict=True)]
        coefficients = math.prod(features[1:], start=features[0]).reshape(len(self.bias), -1)
        made = self.trunk(coefficients, *map(jnp.asarray, coordinates))
        return made + self.bias.reshape(-1, *[1] * (made.ndim - 1))


class PointTrunk(AbstractTrunk):
    """t_ok(y) = net(y)[o, k] at a list of points: coordinates are arrays `[query]` of equal length, one per dimension.

    `net` maps `[coordinate]` to `[out · rank]`. Raises `ValueError` for another number of coordinates or other shapes.
    """

    net: Callable
    coordinates: int = eqx.field(static=True)

    def __call__(self, coefficients, *coordinates):
        shapes = [a.shape for a in coordinates]
        if len(shapes) != self.coordinates or len(set(shapes)) != 1 or coordinates[0].ndim != 1:
            raise ValueError(f"this trunk takes {self.coordinates} arrays [query] of one length; got shapes {shapes}")
        features = jax.vmap(self.net)(jnp.stack(coordinates, -1)).reshape(-1, *coefficients.shape)
        return jnp.einsum("ok,qok->oq", coefficients, features, precision="highest")


class SeparableTrunk(AbstractTrunk):
    """t_ok(y) = Π_d net_d(y_d)[o, k] on a tensor grid: coordinates are its axes, `[n_1]`, `[n_2]` ... of any lengths.

    `nets`: one per dimension, `[1]` to `[out · rank]`. The networks and their derivatives cost the sum of the axes, not
    their product; what is left for every point is one product of numbers per k. The result is `[out, n_1, n_2 ...]`.
    Mandl, Goswami, Lambers and Ricken (2024), arXiv:2407.15887. Raises `ValueError` for another number of axes.
    """

    nets: tuple[Callable, ...]

    def __call__(self, coefficients, *coordinates):
        shapes = [a.shape for a in coordinates]
        if len(shapes) != len(self.nets) or any(len(shape) != 1 for shape in shapes):
            raise ValueError(f"this trunk takes {len(self.nets)} axes [n] of a tensor grid; got shapes {shapes}")
        factors = [jax.vmap(net)(a[:, None]) for net, a in zip(self.nets, coordinates, strict=True)]
        factors = [factor.reshape(-1, *coefficients.shape) for factor in factors]
        axes = "abcdefgh"[: len(factors)]
        inputs = ",".join(f"{axis}ok" for axis in axes)
        return jnp.einsum(f"ok,{inputs}->o{axes}", coefficients, *factors, precision="highest")


class PODTrunk(AbstractTrunk):
    """mean_o(y) + Σ_k c[o, k] modes[o, k](y) at fixed points: the one coordinate is their numbers, integers `[query]`.

    The basis is fixed, so that only branches are trained. POD-DeepONet, Lu et al. (2022),
    doi:10.1016/j.cma.2022.114778. Raises `ValueError` for other coordinates than one array of integers.
    """

    modes: Float[Array, "out rank point"] = fixed()
    mean: Float[Array, "out point"] = fixed()

    @classmethod
    def from_data(cls, values: ArrayLike, rank: int) -> "PODTrunk":
        """Mean and leading `rank` singular vectors of `[sample, out, point]`, every output on its own.

        A mode is scaled by the standard deviation of its coefficient, which then has variance one over the samples: so
        a branch has numbers of one size to learn, whatever the unit. In double precision.
        Raises `ValueError` for other axes and for more modes than samples or points.
        """
        values = np.asarray(values, float)
        if values.ndim != 3 or not 1 <= rank <= min(len(values), values.shape[2]):
            raise ValueError(f"a basis of rank {rank} needs [sample, out, point], as many of both; got {values.shape}")
        mean = values.mean(0)
        _, size, modes = np.linalg.svd((values - mean).swapaxes(0, 1), full_matrices=False)
        scaled = size[:, :rank, None] / np.sqrt(len(values)) * modes[:, :rank]
        put = lambda a: jnp.asarray(a, jnp.result_type(float))
        return cls(put(scaled), put(mean))

    def __call__(self, coefficients, *coordinates):
        if len(coordinates) != 1 or not jnp.issubdtype(coordinates[0].dtype, jnp.integer):
            kinds = [f"{a.dtype}{list(a.shape)}" for a in coordinates]
            points = self.mean.shape[1]
            raise ValueError(f"this trunk knows {points} points by number: one array of integers [query]; got {kinds}")
        (points,) = coordinates
        made = jnp.einsum("ok,okq->oq", coefficients, self.modes[..., points], precision="highest")
        return self.mean[:, points] + made


class ModifiedMLP(eqx.Module):
    """h ← z U + (1 − z) V after every hidden layer z = σ(W h + b), with two gates U, V = σ(W x + b) of the input.

    Arguments are those of `equinox.nn.MLP`, and so `network=ModifiedMLP` is a choice of `point_deeponet`.
    Physics-informed DeepONets train further with it: Wang, Wang and Perdikaris (2022), doi:10.1007/s10915-022-01881-0.
    Raises `ValueError` for depth < 1.
    """

    gates: tuple[eqx.nn.Linear, eqx.nn.Linear]
    layers: tuple[eqx.nn.Linear, ...]
    activation: Callable = eqx.field(static=True)

    def __init__(self, in_size: int, out_size: int, width_size: int, depth: int, activation: Callable, *, key: Array):
        if depth < 1:
            raise ValueError(f"a modified MLP gates its hidden layers, at least one; got depth={depth}")
        sizes = [in_size, *[width_size] * depth, out_size]
        keys = jr.split(key, depth + 3)
        self.gates = tuple(eqx.nn.Linear(in_size, width_size, key=k) for k in keys[:2])
        self.layers = tuple(eqx.nn.Linear(a, b, key=k) for a, b, k in zip(sizes[:-1], sizes[1:], keys[2:], strict=True))
        self.activation = activation

    def __call__(self, x: Float[Array, " in"]) -> Float[Array, " out"]:
        u, v = (self.activation(gate(x)) for gate in self.gates)
        for layer in self.layers[:-1]:
            z = self.activation(layer(x))
            x = z * u + (1 - z) * v
        return self.layers[-1](x)


def point_deeponet(
    sensors: Sizes | Sequence[Sizes],
    coordinates: int,
    outputs: int = 1,
    *,
    rank: int,
    width: int,
    depth: int,
    key: Array,
    activation: Callable = jax.nn.tanh,
    network: Callable = eqx.nn.MLP,
) -> DeepONet:
    """A `DeepONet` at points: branches and trunk with `depth` hidden layers of `width`, ends of `rank` per output.

    `sensors`: a number, a shape, or a list of these for several branches; a shape is flattened. `network` is
    `equinox.nn.MLP` or `ModifiedMLP`. Weights and biases start as Equinox draws them: with biases at zero, as in the
    papers, all features of a trunk bend at the same place; scale coordinates to O(1).
    `point_deeponet(100, 1, rank=40, width=40, depth=1, key=key)` has 7,401 numbers, deepxde's for the antiderivative.
    """
    branches, key = _branches(sensors, outputs * rank, width, depth, activation, network, key)
    trunk = network(coordinates, outputs * rank, width, depth, activation, key=key)
    return DeepONet(branches, PointTrunk(trunk, coordinates), _several(sensors), outputs)


def separable_deeponet(
    sensors: Sizes | Sequence[Sizes],
    coordinates: int,
    outputs: int = 1,
    *,
    rank: int,
    width: int,
    depth: int,
    key: Array,
    activation: Callable = jax.nn.tanh,
    network: Callable = eqx.nn.MLP,
) -> DeepONet:
    """As `point_deeponet`, on tensor grids: a network per coordinate in a `SeparableTrunk`."""
    branches, key = _branches(sensors, outputs * rank, width, depth, activation, network, key)
    make = lambda key: network(1, outputs * rank, width, depth, activation, key=key)
    trunk = SeparableTrunk(tuple(make(key) for key in jr.split(key, coordinates)))
    return DeepONet(branches, trunk, _several(sensors), outputs)


def pod_deeponet(
    sensors: Sizes | Sequence[Sizes],
    values: ArrayLike,
    *,
    rank: int,
    width: int,
    depth: int,
    key: Array,
    activation: Callable = jax.nn.tanh,
    network: Callable = eqx.nn.MLP,
) -> DeepONet:
    """As `point_deeponet`, in the basis of outputs `values` `[sample, out, point]`: see `PODTrunk.from_data`."""
    trunk = PODTrunk.from_data(values, rank)
    outputs = len(trunk.mean)
    branches, _ = _branches(sensors, outputs * rank, width, depth, activation, network, key)
    return DeepONet(branches, trunk, _several(sensors), outputs)


def _branches(sensors, features, width, depth, activation, network, key):
    """A network on the flattened sensors of each function, and a key that is left."""
    shapes = [_shape(one) for one in _several(sensors)]
    key, *keys = jr.split(key, 1 + len(shapes))
    make = lambda shape, key: network(math.prod(shape), features, width, depth, activation, key=key)
    plain = [make(shape, key) for shape, key in zip(shapes, keys, strict=True)]
    return [net if len(shape) == 1 else Flattened(net) for net, shape in zip(plain, shapes, strict=True)], key


class Flattened(eqx.Module):
    """net(all values of x in one row)."""

    net: Callable

    def __call__(self, x: Float[Array, "..."]) -> Float[Array, " out"]:
        return self.net(jnp.ravel(x))


def _shape(one: Sizes) -> tuple[int, ...]:
    return tuple(one) if isinstance(one, Sequence) else (int(one),)


def _several(sensors) -> tuple[Sizes, ...]:
    """A number or one shape as the only function; a list as several."""
    return tuple(sensors) if isinstance(sensors, list) else (sensors,)
