"""Coarse-graining of a fine state, and the forcing that the coarse model misses."""

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Float

from hybridgcm._typing import Fields, Hat, OtherHat, Spectral
from hybridgcm.equations.base import AbstractEquation
from hybridgcm.grids import AbstractGrid
from hybridgcm.grids.base import scale
from hybridgcm.models import Model
from hybridgcm.steppers import exponential_filter

Operator = Callable[[Hat, AbstractGrid, AbstractGrid], OtherHat]
"""operator(a_hat, fine, coarse): spectral coefficients on `coarse`; linear, diagonal in wavenumber."""


def operator1(a_hat: Hat, fine: AbstractGrid, coarse: AbstractGrid) -> OtherHat:
    """ā(κ) = a(κ) f(κΔ): truncation to the coarse modes times pyqg's exponential filter of the coarse grid.

    f = 1 for κΔ ≤ .65π, so this is nearly a sharp cut-off, but not one. Δ is the coarse spacing, m. The coarse
    Nyquist modes are dropped. Spectral `[*batch, l, k]` in and out, any unit.
    Operator 1 of Ross et al. (2023), doi:10.1029/2022MS003258, where the filter is the coarse model's own.
    """
    return scale(exponential_filter(coarse), cutoff(a_hat, fine, coarse))


def operator2(a_hat: Hat, fine: AbstractGrid, coarse: AbstractGrid) -> OtherHat:
    """ā(κ) = a(κ) exp(−κ² (2Δ)²/24): truncation times a Gaussian of width 2Δ, Δ the coarse spacing in m.

    The coarse Nyquist modes are dropped. Spectral `[*batch, l, k]` in and out, any unit.
    Operator 2 of Ross et al. (2023), doi:10.1029/2022MS003258.
    """
    return scale(jnp.exp(coarse.eigenvalues * (2 * coarse.spacing) ** 2 / 24), cutoff(a_hat, fine, coarse))


def cutoff(a_hat: Hat, fine: AbstractGrid, coarse: AbstractGrid) -> OtherHat:
    """ā(κ) = a(κ) on the modes that `coarse` resolves, without its Nyquist modes: the sharp cut-off.

    Spectral `[*batch, l, k]` in and out, any unit.
    """
    return fine.resize(a_hat, coarse)


def state(fine: AbstractGrid, coarse: AbstractGrid, y: Spectral, operator: Operator = operator1) -> Spectral:
    """ȳ = operator(y) for every prognostic: the spectral state that a coarse model is started from."""
    return {name: operator(a_hat, fine, coarse) for name, a_hat in y.items()}


def transfer(fine: AbstractGrid, coarse: AbstractGrid, operator: Operator = operator1) -> Float[Array, "l k"]:
    """The factor by which `operator` multiplies each *fine* mode, `[l, k]`; zero where `coarse` resolves nothing.

    Spectra and fluxes of the coarse-grained flow are those of the fine one times its square
    (`diagnostics.spectral_budget(model, state, transfer)`), subgrid part included.
    """
    ones = jnp.ones(fine.spectral_shape, fine.eigenvalues.dtype)
    return coarse.resize(operator(jnp.asarray(ones, jnp.result_type(ones, 1j)), fine, coarse), fine).real


def subgrid_forcing(
    fine: Model | AbstractEquation, coarse: Model | AbstractEquation, y: Spectral, operator: Operator = operator1
) -> Fields:
    """S = operator(F_fine(y)) − F_coarse(operator(y)): what must be *added* to the coarse tendency.

    One sign throughout: S has the sign of a tendency, as a closure's forcing has (pyqg's `q_forcing_total`;
    `subgrid_forcing` in the published code has the opposite one). F is `equation.explicit`: advection, β, mean
    flow and drag. The implicit dissipation and any per-step filter, of either model, are left out, and so are
    the closures of models: what S lacks is recorded by `metadata`.

    `y`: spectral state on the fine grid; result: per prognostic, on the points of the coarse grid, unit of y
    per s. Runs under `jit` and `vmap`. Raises `ValueError` if the two equations have different prognostics.
    S_qtot of Ross et al. (2023), doi:10.1029/2022MS003258.
    """
    fine, coarse = _equation(fine), _equation(coarse)
    if fine.prognostic != coarse.prognostic:
        raise ValueError(f"fine and coarse need the same prognostics; got {fine.prognostic} and {coarse.prognostic}")
    truth = state(fine.grid, coarse.grid, fine.explicit(0.0, y), operator)
    resolved = coarse.explicit(0.0, state(fine.grid, coarse.grid, y, operator))
    return {name: coarse.grid.to_grid(truth[name] - resolved[name]) for name in coarse.prognostic}


def sample(
    fine: Model | AbstractEquation, coarse: Model | AbstractEquation, y: Spectral, operator: Operator = operator1
) -> Fields:
    """One row of an offline data set: the coarse-grained prognostic (`q`) and its `S`, `[layer, y, x]`.

    For `jax.vmap` over snapshots and `train.offline`, whose batches it makes. Raises `ValueError` for equations
    with several prognostics: call `subgrid_forcing` and name the targets yourself.
    """
    forcing, grid = subgrid_forcing(fine, coarse, y, operator), _equation(coarse).grid
    if len(forcing) != 1:
        raise ValueError(f"sample needs one prognostic, got {sorted(forcing)}; use subgrid_forcing")
    (name,) = forcing
    return {name: grid.to_grid(operator(y[name], _equation(fine).grid, grid)), "S": forcing[name]}


def metadata(fine: Model | AbstractEquation, coarse: Model | AbstractEquation, operator: Operator = operator1) -> dict:
    """What a data set must record of its S, as plain strings and numbers for file attributes."""
    fine, coarse = _equation(fine), _equation(coarse)
    return {
        "operator": operator.__name__,
        "sign": "tendency: S is added to the right-hand side",
        "definition": "S = operator(F_fine(y)) - F_coarse(operator(y)), F = advection + beta + mean flow + drag",
        "dissipation": "excluded: neither the implicit dissipation nor a per-step filter is part of S",
        **_describe("fine", fine.grid),
        **_describe("coarse", coarse.grid),
    }


def _equation(model: Model | AbstractEquation) -> AbstractEquation:
    return getattr(model, "equation", model)


def _describe(label: str, grid: AbstractGrid) -> dict:
    """Sizes and dealiasing of a grid; what a grid does not have is left out."""
    modes = {f"{label}_modes": list(grid.n)} if hasattr(grid, "n") else {}
    length = {f"{label}_length_m": list(grid.length)} if hasattr(grid, "length") else {}
    dealias = (
        {f"{label}_dealias": "none" if grid.dealias is None else float(grid.dealias)}
        if hasattr(grid, "dealias")
        else {}
    )
    points = {f"{label}_points": list(grid.shape), f"{label}_dtype": str(grid.eigenvalues.dtype)}
    return modes | points | length | dealias
