"""Coarse-graining of a fine state, and the forcing that the coarse model misses."""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from hybridgcm._typing import Fields, Hat, OtherHat, Spectral, nearest
from hybridgcm.equations.base import AbstractEquation
from hybridgcm.grids import AbstractGrid, Torus
from hybridgcm.grids.base import scale
from hybridgcm.models import Model
from hybridgcm.steppers import exponential_filter

Operator = Callable[[Hat, AbstractGrid, AbstractGrid], OtherHat]
"""operator(a_hat, fine, coarse): spectral coefficients on `coarse`; linear and, but for `operator3`, diagonal in
wavenumber, so that it commutes with derivatives."""


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


def operator3(a_hat: Hat, fine: AbstractGrid, coarse: AbstractGrid) -> OtherHat:
    """Gaussian of width r fine spacings, exp(−s r²/24), then means over blocks of r × r points, r = fine/coarse points.

    s = 4 sin²(kΔ/2) + 4 sin²(lΔ/2) is the five-point Laplacian's, Δ the fine spacing. Blocks are centred on the coarse
    points, as they are on pyqg's grid. What the coarse grid does not resolve is aliased, its Nyquist modes stay: the
    operator is not diagonal, commutes with no derivative and has no `transfer`. Spectral `[*batch, l, k]`, any unit.
    Operator 3 of Ross et al. (2023), doi:10.1029/2022MS003258, as their published code has it; there gcm-filters puts
    a polynomial in the place of exp(−s r²/24), off by at most .002 for r = 4. Here it is exact.

    Raises `ValueError` for grids that are no tori and for a ratio of points that is not a whole number.
    """
    if not (isinstance(fine, Torus) and isinstance(coarse, Torus)) or any(map(np.mod, fine.shape, coarse.shape)):
        raise ValueError(f"block means need tori and a whole ratio of points; got {fine} and {coarse}")
    factor = np.ones(())
    for n, points, ratio, half in zip(fine.n, fine.shape, np.floor_divide(fine.shape, coarse.shape), (False, True)):
        angle = np.pi / points * (np.arange(n // 2 + 1) if half else np.fft.fftfreq(n, 1 / n))  # kΔ/2
        with np.errstate(invalid="ignore"):
            block = np.where(angle == 0, 1, np.sin(ratio * angle) / (ratio * np.sin(angle)))
        factor = np.expand_dims(factor, -1) * np.exp(-(np.sin(angle) ** 2) * ratio**2 / 6) * block
    smooth = fine.to_grid(scale(jnp.asarray(factor, fine.eigenvalues.dtype), a_hat))
    return coarse.to_spectral(smooth[..., :: fine.shape[0] // coarse.shape[0], :: fine.shape[1] // coarse.shape[1]])


def cutoff(a_hat: Hat, fine: AbstractGrid, coarse: AbstractGrid) -> OtherHat:
    """ā(κ) = a(κ) on the modes that `coarse` resolves, without its Nyquist modes: the sharp cut-off.

    Spectral `[*batch, l, k]` in and out, any unit. Operator 5 of Perezhogin et al. (2023), doi:10.1029/2023MS003681.
    """
    return fine.resize(a_hat, coarse)


def state(fine: AbstractGrid, coarse: AbstractGrid, y: Spectral, operator: Operator = operator1) -> Spectral:
    """ȳ = operator(y) for every prognostic: the spectral state that a coarse model is started from."""
    return {name: operator(a_hat, fine, coarse) for name, a_hat in y.items()}


def transfer(fine: AbstractGrid, coarse: AbstractGrid, operator: Operator = operator1) -> Float[Array, "l k"]:
    """The factor by which `operator` multiplies each *fine* mode, `[l, k]`; zero where `coarse` resolves nothing.

    Spectra and fluxes of the coarse-grained flow are those of the fine one times its square
    (`diagnostics.spectral_budget(model, state, transfer)`), subgrid part included. Raises `ValueError` for
    `operator3`, which mixes modes.
    """
    if operator is operator3:
        raise ValueError("operator3 aliases modes into each other: no factor per mode describes it")
    ones = jnp.ones(fine.spectral_shape, fine.eigenvalues.dtype)
    return coarse.resize(operator(jnp.asarray(ones, jnp.result_type(ones, 1j)), fine, coarse), fine).real


def subgrid_forcing(
    fine: Model | AbstractEquation, coarse: Model | AbstractEquation, y: Spectral, operator: Operator = operator1
) -> Fields:
    """S = operator(F_fine(y)) − F_coarse(operator(y)): what must be *added* to the coarse tendency.

    One sign throughout: S has the sign of a tendency, as a closure's forcing has (pyqg's `q_forcing_total`;
    `subgrid_forcing` in the published code has the opposite one). F is `equation.explicit`: advection, β, mean
    flow and drag. The implicit dissipation and any per-step filter, of either model, are left out, and so are
    the closures and the `forcing` of models: what S lacks is recorded by `metadata`.

    `y`: spectral state on the fine grid; result: per prognostic, on the points of the coarse grid, unit of y
    per s. Runs under `jit` and `vmap`. Raises `ValueError` if the two equations have different prognostics.
    S_qtot of Ross et al. (2023), doi:10.1029/2022MS003258.
    """
    fine, coarse = _pair(fine, coarse)
    truth = state(fine.grid, coarse.grid, fine.explicit(0.0, y), operator)
    resolved = coarse.explicit(0.0, state(fine.grid, coarse.grid, y, operator))
    return {name: coarse.grid.to_grid(truth[name] - resolved[name]) for name in coarse.prognostic}


def subgrid_flux(
    fine: Model | AbstractEquation,
    coarse: Model | AbstractEquation,
    y: Spectral,
    operator: Operator = operator1,
    names: tuple[str, ...] = ("q",),
) -> Fields:
    """φ = operator(u a) − ū ā for every field a of `names`, as {"a_x", "a_y"}, u with the mean flow.

    −∇·φ is to be added to the coarse tendency: what `closures.FluxForm` makes of forcings of these names. For "q" it is
    the `subgrid_forcing` of a quasi-geostrophic flow, to rounding, with any operator that commutes with derivatives;
    a zonal profile of the mean flow and a bottom that is no plane have subgrid parts of their own, which it lacks.
    On the points of the coarse grid, unit of a times m s⁻¹. Fluxes φ_uq, φ_vq, φ_uu, φ_uv, φ_vv of Ross et al. (2023),
    doi:10.1029/2022MS003258, whose published code has the same sign for φ and the opposite one for its divergence.

    Raises `ValueError` for a name that the equation's `view` does not have, else as `subgrid_forcing`.
    """
    fine, coarse = _pair(fine, coarse)
    truth = _fluxes(fine, y, names)
    resolved = _fluxes(coarse, state(fine.grid, coarse.grid, y, operator), names)
    return {n: coarse.grid.to_grid(operator(truth[n], fine.grid, coarse.grid) - resolved[n]) for n in truth}


def subgrid_momentum(
    fine: Model | AbstractEquation, coarse: Model | AbstractEquation, y: Spectral, operator: Operator = operator1
) -> Fields:
    """S_u = −∇·φ_u and S_v = −∇·φ_v of `subgrid_flux`: {"u", "v"} in m s⁻², to be added as a forcing.

    Its curl is the `subgrid_forcing` of q only where q is the vorticity of one layer and products are dealiased: with
    layers the stretching has a subgrid part that no force makes. Sign and source as `subgrid_flux`.
    """
    flux, grid = subgrid_flux(fine, coarse, y, operator, ("u", "v")), _equation(coarse).grid
    return {n: grid.to_grid(-grid.divergence(flux[f"{n}_x"], flux[f"{n}_y"])) for n in ("u", "v")}


def sample(
    fine: Model | AbstractEquation, coarse: Model | AbstractEquation, y: Spectral, operator: Operator = operator1
) -> Fields:
    """One row of an offline data set: the coarse-grained prognostics and their subgrid forcing, `[layer, y, x]`.

    The forcing is called as `targets` says: q with `S`, or zeta, delta, phi with `S_zeta`, `S_delta`, `S_phi`.
    For `jax.vmap` over snapshots and `train.offline`, whose batches it makes.
    """
    forcing, grid = subgrid_forcing(fine, coarse, y, operator), _equation(coarse).grid
    fields = {name: grid.to_grid(operator(y[name], _equation(fine).grid, grid)) for name in forcing}
    return fields | {target: forcing[name] for name, target in targets(_equation(coarse)).items()}


def targets(equation: AbstractEquation) -> dict[str, str]:
    """{prognostic: name of its subgrid forcing in data sets}: `S` of a single prognostic, else `S_name`."""
    names = equation.prognostic
    return {names[0]: "S"} if len(names) == 1 else {name: f"S_{name}" for name in names}


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


def _pair(
    fine: Model | AbstractEquation, coarse: Model | AbstractEquation
) -> tuple[AbstractEquation, AbstractEquation]:
    fine, coarse = _equation(fine), _equation(coarse)
    if fine.prognostic != coarse.prognostic:
        raise ValueError(f"fine and coarse need the same prognostics; got {fine.prognostic} and {coarse.prognostic}")
    return fine, coarse


def _fluxes(equation: AbstractEquation, y: Spectral, names: tuple[str, ...]) -> Spectral:
    """Spectral (u a, v a) of every named field, as {"a_x", "a_y"}."""
    fields = equation.view(y)
    for name in (*names, "u", "v"):
        if name not in fields:
            raise ValueError(f"fluxes are of {sorted(fields)}; got {name!r}{nearest(name, fields)}")
    U, V = getattr(equation, "mean_flow", (0, 0))
    flow = {"x": fields["u"] + U, "y": fields["v"] + V}
    return {f"{n}_{x}": equation.grid.to_spectral(w * fields[n]) for n in names for x, w in flow.items()}


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
