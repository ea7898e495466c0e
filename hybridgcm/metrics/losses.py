"""Losses: how far frames of a prediction are from those of a target, differentiable."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array

from hybridgcm._typing import Fields, nearest
from hybridgcm.equations import QuasiGeostrophic
from hybridgcm.grids import AbstractGrid
from hybridgcm.grids.base import scale

Metric = Callable[[Fields, Fields], Array]
"""metric(prediction, target), dicts of `[*lead, layer, y, x]` with the same names."""


def mse(name: str) -> Metric:
    """Loss Σ(p − t)²/Σt² per layer, averaged over layers: dimensionless and O(1), whatever the unit of `name`.

    Sums run over space and every leading axis, so a sample is judged as a whole; returns 0-d, differentiable.
    A mean square in s⁻² would be 1e-12, lost below Adam's ε. Zero for a perfect prediction, 1 for a zero one.
    Raises `ValueError` for a missing name and unequal shapes.
    """

    def metric(prediction, target):
        p, t = _pair(name, prediction, target)
        axes = (*range(p.ndim - 3), -2, -1)
        return jnp.mean(jnp.mean(((p - t) / _rms(t, axes)) ** 2, axes))

    return metric


def rmse(name: str) -> Metric:
    """√(mean over layers of Σ(p − t)²/Σt²) of each frame, `[*lead]`: 0 is perfect, √2 uncorrelated."""

    def metric(prediction, target):
        p, t = _pair(name, prediction, target)
        return jnp.sqrt(jnp.mean(((p - t) / _rms(t, (-2, -1))) ** 2, (-3, -2, -1)))

    return metric


def variance(name: str) -> Metric:
    """Mean over layers of Var p / Var t of each frame, `[*lead]`: 1 is perfect, 0 has died out."""

    def metric(prediction, target):
        p, t = _pair(name, prediction, target)
        size = _rms(t, (-2, -1))
        return jnp.mean(jnp.var(p / size, (-2, -1)) / _positive(jnp.var(t / size, (-2, -1))), -1)

    return metric


def energy(equation: QuasiGeostrophic) -> Metric:
    """Loss E(p − t)/E(t), E the total energy −½ Σᵢ hᵢ ⟨ψᵢ qᵢ⟩ of q, averaged over frames first: 0-d.

    The energy norm weights large scales, which carry the flow, against small ones, which fill the error of q. Frames
    `[*lead, layer, y, x]`; 0 is perfect, 1 a prediction of zero, 2 an uncorrelated one. Differentiable.
    """
    unit = 1e-6  # s⁻¹: squares of q, of 1e-12 s⁻², would come near the end of float32 in the products below

    def total(q):
        q_hat = equation.grid.to_spectral(q / unit)
        return -jnp.sum(equation.thickness * equation.grid.inner(equation.invert(q_hat), q_hat))

    def metric(prediction, target):
        p, t = (a.reshape(-1, *a.shape[-3:]) for a in _pair("q", prediction, target))
        return jnp.mean(jax.vmap(total)(p - t)) / jnp.mean(jax.vmap(total)(t))

    return metric


def spectral(equation: QuasiGeostrophic) -> Metric:
    """Loss mean ((E(p) − E(t)) / Ē(t))² over frames, layers and rings, E the isotropic kinetic energy spectrum of q.

    Frames `[*lead, layer, y, x]`, Ē the mean of E(t) over them: 0-d, 0 is perfect, 1 a prediction of zero,
    differentiable. Least squares of a field ask for the mean of what may come, which is smoother than any flow that
    does come, and so teach a closure to drain energy as soon as the future is uncertain. Least squares of energies
    ask for the right mean energy at every scale. Rings with less than rounding error of the whole energy are left
    out, so that `resolved` may wrap it. Meant to be added to a loss of the fields, which knows about phases.
    """
    grid = equation.grid
    unit = 1e-6  # s⁻¹, see `energy`
    density = -grid.eigenvalues * grid.multiplicity / 2

    def spectra(q):
        psi_hat = equation.invert(grid.to_spectral(q / unit))
        return grid.spectrum(density * (psi_hat.real**2 + psi_hat.imag**2))

    def metric(prediction, target):
        p, t = (a.reshape(-1, *a.shape[-3:]) for a in _pair("q", prediction, target))
        predicted, true = jax.vmap(spectra)(p), jax.vmap(spectra)(t)
        mean = jnp.mean(true, 0)
        held = mean > jnp.finfo(mean.dtype).eps * jnp.sum(mean, -1, keepdims=True)
        relative = jnp.where(held, (predicted - true) / jnp.where(held, mean, 1), 0)
        return jnp.mean(jnp.sum(relative**2, (-2, -1))) / _positive(jnp.sum(held, dtype=mean.dtype))

    return metric


def resolved(metric: Metric, grid: AbstractGrid, factor: Array) -> Metric:
    """`metric` of fields whose modes are multiplied by `factor` `[l, k]` first, prediction and target alike.

    With a per-step filter in the model, the error of q after a few hours is that of the modes which the filter damps,
    whatever the closure does: a closure trained on it pumps energy there. `factor = exponential_filter(grid) == 1`
    compares the scales that the filter leaves alone.
    """
    factor = jnp.asarray(factor, grid.eigenvalues.dtype)
    only = lambda fields: {n: grid.to_grid(scale(factor, grid.to_spectral(a))) for n, a in fields.items()}
    return lambda prediction, target: metric(only(prediction), only(target))


def _pair(name, prediction, target):
    for label, fields in (("prediction", prediction), ("target", target)):
        if name not in fields:
            raise ValueError(f"the {label} has no {name!r}, only {sorted(fields)}{nearest(name, fields)}")
    p, t = prediction[name], target[name]
    if p.shape != t.shape:
        raise ValueError(f"{name}: prediction {p.shape} and target {t.shape} differ in shape; compare the same frames")
    return p, t


def _positive(a):
    return jnp.maximum(a, jnp.finfo(a.dtype).tiny)


def _rms(t, axes):
    """Root mean square; scaled first, since squares of s⁻² fields come near the smallest float32."""
    largest = _positive(jnp.max(jnp.abs(t), axes, keepdims=True))
    return largest * jnp.sqrt(_positive(jnp.mean((t / largest) ** 2, axes, keepdims=True)))
