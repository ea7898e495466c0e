"""Spectral weights as products of small factors: Tucker, CP and tensor-train formats of the Fourier neural operator."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float

from hybridgcm.nn.local import neural_operator
from hybridgcm.nn.operators import FNO, AbstractOperator
from hybridgcm.nn.spectral import check_modes, in_single, spectral_convolution

RANKS = "rstuv"
"""Letters of inner indices in the formats' sums."""


class Tucker(eqx.Module):
    """W[o, c, l, k] = Σ G[r, s, t, u] A[o, r] B[c, s] C[l, t] D[k, u]: a core and a matrix per axis, all complex.

    Written for weights of the plane, as in the other formats; lines have an axis less, boxes one more. `share` of the
    dense weights: every axis has the same share f of its length as rank, so that fᵈ Πn + f Σn² is share·Πn, rounded and
    at least one: the ranks of tensorly. Kossaifi et al. (2023), arXiv:2310.00120.
    """

    core: Float[Array, "2 *ranks"]
    factors: tuple[Float[Array, "2 length rank"], ...]

    def __init__(self, shape: tuple[int, ...], share: float, *, key: Array):
        dense, squares = np.prod(shape), sum(n**2 for n in shape)
        roots = np.roots([dense, *[0] * (len(shape) - 2), squares, -share * dense])
        fraction = roots[(np.abs(roots.imag) < 1e-9) & (roots.real > 0)].real[0]  # the only one: it grows with f
        ranks = [max(1, round(n * fraction)) for n in shape]
        keys = jr.split(key, 1 + len(shape))
        self.core = _noise(keys[0], tuple(ranks)) / np.sqrt(np.prod(ranks))
        self.factors = tuple(_noise(k, size) for k, size in zip(keys[1:], zip(shape, ranks, strict=True), strict=True))

    def dense(self) -> Float[Array, "2 out channel *modes"]:
        """The weights that these are the factors of."""
        ranks = RANKS[: len(self.factors)]
        pairs = [axis + rank for axis, rank in zip(_axes(len(ranks)), ranks, strict=True)]
        return _product(f"{ranks},{','.join(pairs)}->{_axes(len(ranks))}", self.core, *self.factors)


class CP(eqx.Module):
    """W[o, c, l, k] = Σ_r w[r] A[o, r] B[c, r] C[l, r] D[k, r], all complex; rank share·Πn/Σn, at least one."""

    weights: Float[Array, "2 rank"]
    factors: tuple[Float[Array, "2 length rank"], ...]

    def __init__(self, shape: tuple[int, ...], share: float, *, key: Array):
        rank = max(1, round(share * np.prod(shape) / sum(shape)))
        keys = jr.split(key, 1 + len(shape))
        self.weights = _noise(keys[0], (rank,)) / np.sqrt(rank)
        self.factors = tuple(_noise(k, (n, rank)) for k, n in zip(keys[1:], shape, strict=True))

    def dense(self) -> Float[Array, "2 out channel *modes"]:
        """The weights that these are the factors of."""
        axes = _axes(len(self.factors))
        return _product(f"r,{','.join(axis + 'r' for axis in axes)}->{axes}", self.weights, *self.factors)


class TensorTrain(eqx.Module):
    """W[o, c, l, k] = Σ A[o, r] B[r, c, s] C[s, l, t] D[t, k], all complex.

    One rank for all bonds, the largest that has at most `share` of the dense weights, but none larger than what
    lies on either side of its bond could fill.
    """

    cars: tuple[Float[Array, "2 ..."], ...]

    def __init__(self, shape: tuple[int, ...], share: float, *, key: Array):
        most = [min(np.prod(shape[:i]), np.prod(shape[i:])) for i in range(1, len(shape))]

        def sizes(rank):
            bonds = [int(min(rank, limit)) for limit in most]
            return (shape[0], bonds[0]), *zip(bonds, shape[1:-1], bonds[1:]), (bonds[-1], shape[-1])

        count = lambda rank: sum(np.prod(size) for size in sizes(rank))
        fitting = [rank for rank in range(1, max(most) + 1) if count(rank) <= share * np.prod(shape)]
        chosen = sizes(max(fitting, default=1))
        bonds = np.prod([size[-1] for size in chosen[:-1]])
        first, *rest = (_noise(k, size) for k, size in zip(jr.split(key, len(shape)), chosen, strict=True))
        self.cars = (first / np.sqrt(bonds), *rest)

    def dense(self) -> Float[Array, "2 out channel *modes"]:
        """The weights that these are the factors of."""
        axes = _axes(len(self.cars))
        bonds = ["", *RANKS[: len(axes) - 1], ""]
        cars = [bonds[i] + axis + bonds[i + 1] for i, axis in enumerate(axes)]
        return _product(f"{','.join(cars)}->{axes}", *self.cars)


class TensorisedConvolution(AbstractOperator):
    """`SpectralConvolution` whose weights are products of small factors: `Tucker`, `CP` or `TensorTrain`.

    The weights are multiplied out at every call (tltorch's "reconstructed"), at a cost that does not grow with the
    field or the batch. Their variance at the start is that of the dense ones. Raises as `SpectralConvolution`.
    """

    factors: eqx.Module
    bias: Float[Array, " out"]
    modes: tuple[int, ...] = eqx.field(static=True)

    def __init__(
        self, channels: int, out: int, modes: tuple[int, ...], share: float, kind: Callable = Tucker, *, key: Array
    ):
        if not 0 < share <= 1:
            raise ValueError(f"share lies in (0, 1], of the dense weights; got {share}")
        self.modes, self.bias = check_modes(modes), jnp.zeros(out)
        factors = kind((out, channels, *self.modes[:-1], self.modes[-1] // 2 + 1), share, key=key)
        scale = np.sqrt(2 / (channels + out))
        first = lambda f: jax.tree.leaves(f)[0]
        self.factors = eqx.tree_at(first, factors, replace_fn=lambda a: scale * a)

    def __call__(self, x, grid):
        return spectral_convolution(self.factors.dense(), self.bias, self.modes, x, grid)


def tensorised_fno(
    inputs: int,
    outputs: int,
    *,
    modes: tuple[int, ...],
    share: float,
    key: Array,
    kind: Callable = Tucker,
    hidden: int = 32,
    layers: int = 4,
    activation: Callable = jax.nn.gelu,
) -> FNO:
    """An `FNO` with `share` of its spectral weights (TFNO): Kossaifi et al. (2023), arXiv:2310.00120."""
    keys = jr.split(key, 1 + layers)
    made = (TensorisedConvolution(hidden, hidden, modes, share, kind, key=key) for key in keys[1:])
    return neural_operator(inputs, outputs, made, key=keys[0], hidden=hidden, activation=activation)


def _axes(count: int) -> str:
    """Letters of the weights' axes: out, channel and those of the modes."""
    return "oc" + "zyx"[5 - count :]


def _noise(key: Array, shape: tuple[int, ...]) -> Array:
    """Complex numbers of variance one, as real pairs."""
    return jr.normal(key, (2, *shape)) / np.sqrt(2)


@in_single
def _product(path: str, *pairs: Array) -> Array:
    """einsum of complex arrays that are held as real pairs, to a real pair."""
    result = jnp.einsum(path, *(jax.lax.complex(a[0], a[1]) for a in pairs), precision="highest", optimize="optimal")
    return jnp.stack([result.real, result.imag])
