"""Spectral weights as products of small factors: Tucker, CP and tensor-train formats of the Fourier neural operator."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float

from hybridgcm.nn.local import neural_operator
from hybridgcm.nn.operators import FNO, AbstractOperator, spectral_convolution


class Tucker(eqx.Module):
    """W[o, c, l, k] = Σ G[r, s, t, u] A[o, r] B[c, s] C[l, t] D[k, u]: a core and a matrix per axis, all complex.

    `share` of the dense weights: every axis has the same share f of its length as rank, so that fᵈ Πn + f Σn² is
    share·Πn, rounded and at least one: the ranks of tensorly. Kossaifi et al. (2023), arXiv:2310.00120.
    """

    core: Float[Array, "2 r s t u"]
    factors: tuple[Float[Array, "2 length rank"], ...]

    def __init__(self, shape: tuple[int, int, int, int], share: float, *, key: Array):
        dense, squares = np.prod(shape), sum(n**2 for n in shape)
        roots = np.roots([dense, 0, 0, squares, -share * dense])
        fraction = roots[(np.abs(roots.imag) < 1e-9) & (roots.real > 0)].real[0]  # the only one: it grows with f
        ranks = [max(1, round(n * fraction)) for n in shape]
        keys = jr.split(key, 5)
        self.core = _noise(keys[0], tuple(ranks)) / np.sqrt(np.prod(ranks))
        self.factors = tuple(_noise(k, size) for k, size in zip(keys[1:], zip(shape, ranks, strict=True), strict=True))

    def dense(self) -> Float[Array, "2 out channel row column"]:
        """The weights that these are the factors of."""
        return _product("rstu,or,cs,yt,xu->ocyx", self.core, *self.factors)


class CP(eqx.Module):
    """W[o, c, l, k] = Σ_r w[r] A[o, r] B[c, r] C[l, r] D[k, r], all complex; rank share·Πn/Σn, at least one."""

    weights: Float[Array, "2 rank"]
    factors: tuple[Float[Array, "2 length rank"], ...]

    def __init__(self, shape: tuple[int, int, int, int], share: float, *, key: Array):
        rank = max(1, round(share * np.prod(shape) / sum(shape)))
        keys = jr.split(key, 5)
        self.weights = _noise(keys[0], (rank,)) / np.sqrt(rank)
        self.factors = tuple(_noise(k, (n, rank)) for k, n in zip(keys[1:], shape, strict=True))

    def dense(self) -> Float[Array, "2 out channel row column"]:
        """The weights that these are the factors of."""
        return _product("r,or,cr,yr,xr->ocyx", self.weights, *self.factors)


class TensorTrain(eqx.Module):
    """W[o, c, l, k] = Σ A[o, r] B[r, c, s] C[s, l, t] D[t, k], all complex.

    One rank for all three bonds, the largest that has at most `share` of the dense weights, but none larger than what
    lies on either side of its bond could fill.
    """

    cars: tuple[Float[Array, "2 ..."], ...]

    def __init__(self, shape: tuple[int, int, int, int], share: float, *, key: Array):
        out, channel, row, column = shape
        most = min(out, channel * row * column), min(out * channel, row * column), min(out * channel * row, column)

        def sizes(rank):
            r, s, t = (min(rank, limit) for limit in most)
            return (out, r), (r, channel, s), (s, row, t), (t, column)

        count = lambda rank: sum(np.prod(size) for size in sizes(rank))
        fitting = [rank for rank in range(1, max(most) + 1) if count(rank) <= share * np.prod(shape)]
        chosen = sizes(max(fitting, default=1))
        bonds = np.prod([size[-1] for size in chosen[:-1]])
        first, *rest = (_noise(k, size) for k, size in zip(jr.split(key, 4), chosen, strict=True))
        self.cars = (first / np.sqrt(bonds), *rest)

    def dense(self) -> Float[Array, "2 out channel row column"]:
        """The weights that these are the factors of."""
        return _product("or,rcs,syt,tx->ocyx", *self.cars)


class TensorisedConvolution(AbstractOperator):
    """`SpectralConvolution` whose weights are products of small factors: `Tucker`, `CP` or `TensorTrain`.

    The weights are multiplied out at every call (tltorch's "reconstructed"), at a cost that does not grow with the
    field or the batch. Their variance at the start is that of the dense ones. Raises as `SpectralConvolution`.
    """

    factors: eqx.Module
    bias: Float[Array, " out"]
    modes: tuple[int, int] = eqx.field(static=True)

    def __init__(
        self, channels: int, out: int, modes: tuple[int, int], share: float, kind: Callable = Tucker, *, key: Array
    ):
        if min(modes) < 1 or not 0 < share <= 1:
            raise ValueError(
                f"modes are two positive numbers and share lies in (0, 1], of the dense weights; got {modes}, {share}"
            )
        self.modes, self.bias = (int(modes[0]), int(modes[1])), jnp.zeros(out)
        factors = kind((out, channels, modes[0], modes[1] // 2 + 1), share, key=key)
        scale = np.sqrt(2 / (channels + out))
        first = lambda f: jax.tree.leaves(f)[0]
        self.factors = eqx.tree_at(first, factors, replace_fn=lambda a: scale * a)

    def __call__(self, x, grid):
        return spectral_convolution(self.factors.dense(), self.bias, self.modes, x, grid)


def tensorised_fno(
    inputs: int,
    outputs: int,
    *,
    modes: tuple[int, int],
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


def _noise(key: Array, shape: tuple[int, ...]) -> Array:
    """Complex numbers of variance one, as real pairs."""
    return jr.normal(key, (2, *shape)) / np.sqrt(2)


def _product(path: str, *pairs: Array) -> Array:
    """einsum of complex arrays that are held as real pairs, to a real pair."""
    result = jnp.einsum(path, *(jax.lax.complex(a[0], a[1]) for a in pairs), precision="highest", optimize="optimal")
    return jnp.stack([result.real, result.imag])
