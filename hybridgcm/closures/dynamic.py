"""Eddy viscosities whose constant is found from the resolved flow at every step."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from hybridgcm._typing import Fields, Hat
from hybridgcm.closures.base import AbstractClosure
from hybridgcm.closures.classical import root
from hybridgcm.grids import AbstractGrid
from hybridgcm.grids.base import scale


class DynamicSmagorinsky(AbstractClosure):
    """dq = div(ν ∇q), ν = c Δ² |S|, c per layer from the flow: Smagorinsky's viscosity of q without a constant.

    c = max(⟨L M⟩, 0)/⟨M²⟩ fits Germano's identity by least squares over the domain (Lilly 1992): what the test
    filter ~ takes out of the resolved advection, L = ũ·∇q̃ − (u·∇q)~, against what the model says of it,
    M = div(α² Δ² |S̃| ∇q̃) − div(Δ² |S| ∇q)~. The filter is a sharp cut-off, κ ≤ K/α, K the largest resolved wave number
    along an axis; α = `ratio`. |S| as in `Smagorinsky`, Δ the grid spacing. Where the flow asks for backscatter c is
    zero. Scale aware, nothing to tune; c = C² is to be compared with the constant of `Smagorinsky`, which acts on
    momentum: C is .09 above and .14 below in *eddy* at 64². On vorticity, since in two dimensions that, not energy,
    cascades to the grid.
    Dissipates potential enstrophy at the rate ⟨ν |∇q|²⟩ ≥ 0; conserves the mean of q. No trainable leaf: wrap it
    in `Scaled` for one. `coefficient(fields, grid)` gives c `[layer]`.
    Reads q (s⁻¹), u, v (m s⁻¹) `[layer, y, x]`; returns q_hat (s⁻²). Raises `ValueError` for ratio <= 1.

    Germano et al. (1991), doi:10.1063/1.857955; Lilly (1992), doi:10.1063/1.858280; for vorticity San (2014),
    Int. J. Comput. Fluid Dyn. 28, 363-382, and Maulik and San (2017), Comput. Fluids 158, 11-38.
    Adds 23 transforms of a field per step.
    """

    ratio: float = eqx.field(static=True, default=2.0)

    def __check_init__(self):
        _check(self)

    def init(self, fields, grid):
        return None

    def __call__(self, fields, grid, memory, key):
        coefficient, mixing_hat = _germano(fields, grid, self.ratio, 2, _strain, ("u", "v", "q"))
        return {"q_hat": scale(coefficient[:, None, None], mixing_hat)}, memory

    def coefficient(self, fields: Fields, grid: AbstractGrid) -> Float[Array, " layer"]:
        """c = C² per layer, dimensionless."""
        return _germano(fields, grid, self.ratio, 2, _strain, ("u", "v", "q"))[0]


class DynamicLeith(AbstractClosure):
    """dq = div(ν ∇q), ν = c Δ³ |∇q|, c per layer from the flow: `Leith` without a constant.

    c as in `DynamicSmagorinsky`, with M = div(α³ Δ³ |∇q̃| ∇q̃) − div(Δ³ |∇q| ∇q)~; c = C³ is to be compared with the
    constant of `Leith`: C is .09 above and .18 below in *eddy* at 64². Scale aware, nothing to tune. Dissipates
    potential enstrophy; conserves the mean of q. No trainable leaf: wrap it in `Scaled` for one.
    `coefficient(fields, grid)` gives c `[layer]`.
    Reads q (s⁻¹), u, v (m s⁻¹) `[layer, y, x]`; returns q_hat (s⁻²). Raises `ValueError` for ratio <= 1.

    Sources as for `DynamicSmagorinsky`.
    Adds 15 transforms of a field per step.
    """

    ratio: float = eqx.field(static=True, default=2.0)

    def __check_init__(self):
        _check(self)

    def init(self, fields, grid):
        return None

    def __call__(self, fields, grid, memory, key):
        coefficient, mixing_hat = _germano(fields, grid, self.ratio, 3, _slope, ("q",))
        return {"q_hat": scale(coefficient[:, None, None], mixing_hat)}, memory

    def coefficient(self, fields: Fields, grid: AbstractGrid) -> Float[Array, " layer"]:
        """c = C³ per layer, dimensionless."""
        return _germano(fields, grid, self.ratio, 3, _slope, ("q",))[0]


def _strain(x: Array, y: Array) -> Array:
    """|S| from the gradients of (u, v, q), s⁻¹."""
    return root(2 * (x[0] ** 2 + y[1] ** 2) + (y[0] + x[1]) ** 2)


def _slope(x: Array, y: Array) -> Array:
    """|∇q| from the gradient of (q,), m⁻¹ s⁻¹."""
    return root(x[-1] ** 2 + y[-1] ** 2)


def _germano(
    fields: Fields, grid: AbstractGrid, ratio: float, power: int, rate: Callable, names: tuple[str, ...]
) -> tuple[Float[Array, " layer"], Hat]:
    """Lilly's coefficient c per layer, and div(Δ^power rate ∇q), which c multiplies.

    `rate(x, y)` gives the viscosity over c Δ^power from the gradients of the fields `names`, the last of them q.
    """
    hats = grid.to_spectral(jnp.stack([fields[name] for name in ("u", "v", "q")]))
    test = _test_filter(grid, ratio)

    def terms(u, v, hats):
        x, y = grid.gradient(hats[-len(names) :])
        weight = grid.spacing**power * rate(x, y)
        return grid.to_spectral(u * x[-1] + v * y[-1]), grid.divergence(weight * x[-1], weight * y[-1])

    filtered = scale(test, hats)
    advection, mixing = terms(fields["u"], fields["v"], hats)
    advection_test, mixing_test = terms(*grid.to_grid(filtered[:2]), filtered)
    found = scale(test, advection_test - advection)
    modelled = scale(test, ratio**power * mixing_test - mixing)
    # Divided by the size of the model first: squares of 1e-20 s⁻², of a slow flow, leave single precision.
    size = jax.lax.stop_gradient(jnp.max(jnp.abs(modelled), (-2, -1), keepdims=True))
    unit = 1 / jnp.where(size > 0, size, 1)
    found, modelled = scale(unit, found), scale(unit, modelled)
    square = grid.inner(modelled, modelled)
    return jnp.maximum(grid.inner(found, modelled), 0) / jnp.where(square > 0, square, 1), mixing


def _test_filter(grid: AbstractGrid, ratio: float) -> Float[Array, "*modes"]:
    """1 for wave numbers up to K/ratio, else 0; K² is 3/2 of the mean of κ² over the resolved modes.

    That is the largest wave number along an axis of a square of modes, whatever the grid keeps after dealiasing.
    """
    edge = 1.5 * jnp.sum(grid.multiplicity * grid.eigenvalues) / jnp.sum(grid.multiplicity)
    return jnp.where(grid.eigenvalues >= edge / ratio**2, grid.multiplicity > 0, False).astype(edge.dtype)


def _check(closure):
    if not closure.ratio > 1:
        raise ValueError(
            f"{type(closure).__name__} needs a test filter wider than the grid, ratio > 1; got {closure.ratio}"
        )
