"""Scores by wavenumber: how much variance there is at each, and whether it is in the right place."""

import jax
import jax.numpy as jnp

from hybridgcm.grids import AbstractGrid
from hybridgcm.metrics.ensembles import _ensemble
from hybridgcm.metrics.losses import Metric, _pair, _positive


def coherence(name: str, *, grid: AbstractGrid) -> Metric:
    """C_s/√(P_s T_s) by shell of wavenumber, `[*lead, layer, shell]`: 1 in phase, 0 unrelated, −1 opposite.

    P, T, C: spectra of prediction and target and their cospectrum, over the shells of `grid.spectrum`; 0 in a shell
    that one of them does not have. What the grid does not resolve, or has beyond its last shell, is in none. It says up
    to which wavenumber a forecast is right.
    """

    def metric(prediction, target):
        P, T, C = _spectra(name, grid, prediction, target)
        return C / jnp.sqrt(_positive(P * T))

    return metric


def adjusted_mse(name: str, *, grid: AbstractGrid) -> Metric:
    """Σ_s [(√P − √T)² + 2 max(P, T)(1 − C/√(PT))] / Σ_s T by shell of wavenumber: `[*lead, layer]`.

    P, T, C as in `coherence`. With √(PT) in the place of the maximum this is the mean square error over that of T,
    which a blurred field lowers where coherence is low; here a field that lacks variance gains nothing. Blind, as
    `coherence`, to what the grid does not resolve. Differentiable.
    Subich, Husain, Separovic and Yang (2025), arXiv:2501.19374, equation 5 (AMSE).
    """

    def metric(prediction, target):
        P, T, C = _spectra(name, grid, prediction, target)
        whole = _positive(jnp.sum(T, -1))
        p, t = jnp.sqrt(_positive(P)), jnp.sqrt(_positive(T))
        # Below rounding error there is no phase, and its gradient has no end: at a prediction of zero it must have one.
        held = lambda S: jnp.sqrt(jnp.maximum(S, jnp.finfo(S.dtype).eps * whole[..., None]))
        phase = 2 * jnp.maximum(P, T) * (1 - C / (held(P) * held(T)))
        return jnp.sum((p - t) ** 2 + phase, -1) / whole

    return metric


def spectral_crps(name: str, *, grid: AbstractGrid) -> Metric:
    """Fair energy score of every coefficient, a complex number each, over the size of the target: `[*lead, layer]`.

    Σ_k w_k [1/M Σᵢ |pᵢ − t| − 1/(2M(M − 1)) Σᵢⱼ |pᵢ − pⱼ|]_k / Σ_k w_k |t_k|, w the multiplicity of the coefficients in
    `grid`. `crps` is a mean over points and sees what large scales do; here every coefficient counts by its own size,
    so that members must also have the spectrum of the truth. Prediction `[member, *lead, layer, y, x]`, target without
    members. Differentiable. M² coefficients a mode: for tens of members. Gneiting and Raftery (2007),
    doi:10.1198/016214506000001437, section 4.3. Raises `ValueError` for less than two members and unequal shapes.
    """

    def metric(prediction, target):
        p, t = _ensemble(name, prediction, target, 2)
        size = _positive(jnp.max(jnp.abs(t)))
        p_hat, t_hat = grid.to_spectral(p / size), grid.to_spectral(t / size)
        weight, count = jnp.broadcast_to(grid.multiplicity, t_hat.shape[-2:]), len(p)
        modulus = lambda a: jnp.sqrt(_positive(a.real**2 + a.imag**2))
        total = lambda a: jnp.sum(weight * a, (-2, -1))
        error = jnp.mean(total(modulus(p_hat - t_hat)), 0)
        # One by one: written out, ten members compiled in a second and forty in half a minute.
        others = jax.lax.map(lambda one: jnp.sum(total(modulus(p_hat - one)), 0), p_hat)
        return (error - jnp.sum(others, 0) / (2 * count * (count - 1))) / _positive(total(modulus(t_hat)))

    return metric


def _spectra(name: str, grid: AbstractGrid, prediction, target):
    """P, T and C `[*lead, layer, shell]` in units of the largest square of the target."""
    p, t = _pair(name, prediction, target)
    size = _positive(jnp.max(jnp.abs(t)))  # powers of s⁻² fields underflow
    p_hat, t_hat = grid.to_spectral(p / size), grid.to_spectral(t / size)
    pairs = (p_hat, p_hat), (t_hat, t_hat), (p_hat, t_hat)
    return tuple(grid.spectrum(grid.cospectrum(*pair)) for pair in pairs)
