"""Losses: how far frames of a prediction are from those of a target, differentiable."""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array

from hybridgcm._typing import Fields, nearest
from hybridgcm.equations import QuasiGeostrophic
from hybridgcm.grids import AbstractGrid
from hybridgcm.grids.base import scale

Metric = Callable[[Fields, Fields], Array]
"""metric(prediction, target), dicts of `[*lead, layer, y, x]` with the same names."""


def mse(name: str, *, grid: AbstractGrid | None = None) -> Metric:
    """Loss Σ(p − t)²/Σt² per layer, averaged over layers: dimensionless and O(1), whatever the unit of `name`.

    Points count alike; by their area with a `grid`, as a sphere needs, whose rows near the poles would else decide.

    Sums run over space and every leading axis, so a sample is judged as a whole; returns 0-d, differentiable.
    A mean square in s⁻² would be 1e-12, lost below Adam's ε. Zero for a perfect prediction, 1 for a zero one.
    Raises `ValueError` for a missing name and unequal shapes.
    """

    def metric(prediction, target):
        p, t = _pair(name, prediction, target)
        axes = (*range(p.ndim - 3), -2, -1)
        return jnp.mean(_mean(((p - t) / _rms(t, axes, grid)) ** 2, grid, axes))

    return metric


def rmse(name: str, *, grid: AbstractGrid | None = None) -> Metric:
    """√(mean over layers of Σ(p − t)²/Σt²) of each frame, `[*lead]`: 0 perfect, √2 uncorrelated. `grid` as in `mse`."""

    def metric(prediction, target):
        p, t = _pair(name, prediction, target)
        square = _mean(((p - t) / _rms(t, (-2, -1), grid)) ** 2, grid, (-3, -2, -1))
        return jnp.where(square > 0, jnp.sqrt(_positive(square)), 0)  # with a gradient also where it is perfect

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
    unit = 1e-6  # s⁻¹, see `energy`
    spectra = energy_spectrum(equation)
    each = lambda q: jax.vmap(lambda q: spectra({"q": q / unit}))(q)

    def metric(prediction, target):
        p, t = (a.reshape(-1, *a.shape[-3:]) for a in _pair("q", prediction, target))
        predicted, true = each(p), each(t)
        mean = jnp.mean(true, 0)
        held = mean > jnp.finfo(mean.dtype).eps * jnp.sum(mean, -1, keepdims=True)
        relative = jnp.where(held, (predicted - true) / jnp.where(held, mean, 1), 0)
        return jnp.mean(jnp.sum(relative**2, (-2, -1))) / _positive(jnp.sum(held, dtype=mean.dtype))

    return metric


def transfers(equation: QuasiGeostrophic) -> Metric:
    """Loss Σ (T(p) − T(t))²/W over Σ T(t)²/W: whether a forcing S of q feeds and drains the right scales.

    T_ij(κ) = Σ over the shell κ of Re(q̂_i* Ŝ_j + q̂_j* Ŝ_i), the part of S in the budgets of all second moments of q,
    hence of energy and enstrophy; W the same of powers, |q̂_i|² |Ŝ_j|² summed over the shell one by one, so that T²/W is
    a squared correlation; sums over layers i ≤ j and shells. One frame, S in the prediction, S (s⁻²) and q (s⁻¹) in
    the target, `[layer, y, x]`, as `train.offline` gives them; 0-d, 0 is perfect, 1 a prediction of zero,
    differentiable. Least squares of S are decided by the smallest scales, where most of S is, and leave the energy that
    a closure gives to the large ones to chance: to be added to them, with a weight of .2 or so. Shells with less than
    rounding error are left out, so that `resolved` may wrap it. Raises `ValueError` as `mse`.
    """
    grid = equation.grid

    def power(a, b):
        pair = a[:, None] * b[None]
        return pair + jnp.swapaxes(pair, 0, 1)

    def metric(prediction, target):
        made, S = _pair("S", prediction, target)
        size = _rms(S, (-2, -1))
        q_hat, made_hat, S_hat = (
            grid.to_spectral(a / b) for a, b in ((target["q"], _rms(target["q"], (-2, -1))), (made, size), (S, size))
        )
        shells = lambda a, b: grid.spectrum(grid.multiplicity * (a.real * b.real + a.imag * b.imag))
        transfer = lambda a: shells(q_hat[:, None], a[None]) + shells(q_hat[None], a[:, None])
        W = power(shells(q_hat, q_hat), shells(S_hat, S_hat))
        held = jnp.finfo(W.dtype).eps * jnp.max(W, -1, keepdims=True) < W
        w = jnp.where(held, 1 / jnp.where(held, W, 1), 0) * jnp.tri(len(W), dtype=W.dtype)[..., None]
        T = transfer(S_hat)
        return jnp.sum(w * (transfer(made_hat) - T) ** 2) / _positive(jnp.sum(w * T**2))

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


def crps(name: str, *, grid: AbstractGrid | None = None) -> Metric:
    """Fair continuous ranked probability score of an ensemble, over the root mean square of t: mean of

    1/M Σᵢ |pᵢ − t| − 1/(2M(M − 1)) Σᵢⱼ |pᵢ − pⱼ|, M members.

    Prediction `[member, *lead, layer, y, x]`, target `[*lead, layer, y, x]`; 0-d, normalised per layer and averaged as
    `mse`, differentiable. Its mean is least where members and truth are draws from one distribution, for any number of
    members: unlike least squares it does not ask for the smooth mean of what may come. The loss of
    `train.online(crps(name), members=M)`, M draws of a model with noise in it; members that are equal make it the mean
    absolute error. Raises `ValueError` for less than two members.
    Ferro (2014), doi:10.1002/qj.2270; Zamo and Naveau (2018), doi:10.1007/s11004-017-9709-7, equation 5.
    """

    def metric(prediction, target):
        for label, fields in (("prediction", prediction), ("target", target)):
            _named(name, fields, f"the {label}")
        p, t = prediction[name], target[name]
        if p.shape[1:] != t.shape or len(p) < 2:
            raise ValueError(
                f"{name}: crps needs [member, ...] with 2 members or more beside the target's {t.shape}; got {p.shape}"
            )
        error = (p - t) / _rms(t, (*range(t.ndim - 3), -2, -1), grid)
        count = len(p)
        # Sorted, the pairs of M members cost M fields, not M²: Σᵢ<ⱼ |pᵢ − pⱼ| = Σᵢ (2i − M − 1) p₍ᵢ₎.
        rank = (2.0 * jnp.arange(count) - (count - 1)).astype(error.dtype) / (count * (count - 1))
        pairs = jnp.tensordot(rank, jnp.sort(error, 0), 1, precision="highest")
        return _mean(jnp.mean(jnp.abs(error), 0) - pairs, grid)

    return metric


def discounted(metric: Metric, factor: float) -> Metric:
    """Σᵢ factorⁱ mᵢ / Σᵢ factorⁱ, mᵢ the `metric` of frame i of `[*lead, time, layer, y, x]`, a mean if it is an array.

    Below one, frames that chaos decides about count less: factor = exp(−dt·every/τ) with the flow's Lyapunov time τ.
    With factor 1 every frame is judged by itself, and by its own size, where `metric` alone sees the window as a whole.
    """

    def total(prediction, target):
        each = jax.vmap(metric, in_axes=-4)(prediction, target)
        each = jnp.mean(each.reshape(len(each), -1), -1)
        weight = jnp.asarray(factor, each.dtype) ** jnp.arange(len(each))
        return jnp.sum(weight * each) / jnp.sum(weight)

    return total


def weighted(metric: Metric, weights: Mapping[str, Array]) -> Metric:
    """`metric` of fields multiplied by their weight first, prediction and target alike; other fields as they are.

    `weights`: arrays that broadcast to `[layer, y, x]` by name of the field: a mask of observed points, a taper.
    A factor for a whole layer cancels where the metric divides by the layer's size (`mse`, `rmse`, `crps`).
    Raises `ValueError` for a weight whose field is not there.
    """

    def times(fields):
        for name in weights:
            _named(name, fields, "what is weighted")
        return {n: a * jnp.asarray(weights[n], a.dtype) if n in weights else a for n, a in fields.items()}

    return lambda prediction, target: metric(times(prediction), times(target))


def statistics(function: Callable[[Fields], Array], scale: Array | float | None = None) -> Metric:
    """Loss mean(((⟨f(p)⟩ − ⟨f(t)⟩)/scale)²), f = `function(fields)` of one frame, ⟨⟩ the mean over all leading axes.

    Compares what long runs are for: spectra, fluxes, variances, profiles, whose frames need not agree, only their means
    over the window (and over members). `scale`, number or array as f, is a difference that counts as one, such as the
    standard deviation of ⟨f(t)⟩ from window to window; by default the root mean square of ⟨f(t)⟩. `spectral` compares
    spectra frame by frame. 0-d, differentiable.
    """

    def mean(fields):
        flat = {name: a.reshape(-1, *a.shape[-3:]) for name, a in fields.items()}
        return jnp.mean(jax.vmap(function)(flat), 0)

    def metric(prediction, target):
        p, t = mean(prediction), mean(target)
        size = _rms(t, tuple(range(t.ndim))) if scale is None else jnp.asarray(scale, t.dtype)
        return jnp.mean(((p - t) / size) ** 2)

    return metric


def energy_spectrum(equation: QuasiGeostrophic) -> Callable[[Fields], Array]:
    """fields -> isotropic spectrum of kinetic energy, m² s⁻² per shell, one frame `[layer, y, x]` to `[layer, shell]`.

    From q alone; its sum over shells is the mean of (u² + v²)/2 of each layer, but for waves beyond the last shell: the
    corners where a grid keeps them, and what is short along one axis alone. For `statistics(energy_spectrum(e))`.
    """
    grid = equation.grid
    density = -grid.eigenvalues * grid.multiplicity / 2

    def spectrum(fields):
        psi_hat = equation.invert(grid.to_spectral(fields["q"]))
        return grid.spectrum(density * (psi_hat.real**2 + psi_hat.imag**2))

    return spectrum


def energy_flux(equation: QuasiGeostrophic) -> Callable[[Fields], Array]:
    """fields -> Π(κ) = −Σ over κ' ≤ κ of Σᵢ hᵢ Re ψ̂ᵢ* Ĵ(ψᵢ, qᵢ), m² s⁻³, one frame `[layer, y, x]` to `[shell]`.

    The rate at which the eddies carry total energy, kinetic and available, from the shells of `grid.spectrum` up to κ
    to those beyond: negative where it goes to larger scales. Zero at the last shell up to aliasing. The closure's part
    is not in it, but a closure that drains or feeds the wrong scales shows in it. For
    `statistics(energy_flux(equation))`, or `discounted(statistics(energy_flux(equation)), 1.0)` frame by frame.
    """
    grid = equation.grid

    def flux(fields):
        q_hat = grid.to_spectral(fields["q"])
        psi_hat = equation.invert(q_hat)
        u, v, q = grid.synthesise(psi_hat, q_hat)
        advection = grid.divergence(u * q, v * q)
        work = psi_hat.real * advection.real + psi_hat.imag * advection.imag
        column = sum(h * w for h, w in zip(equation.thickness, work, strict=True))
        return -jnp.cumsum(grid.spectrum(grid.multiplicity * column))

    return flux


def _named(name, fields, label):
    if name not in fields:
        raise ValueError(f"{label} has no {name!r}, only {sorted(fields)}{nearest(name, fields)}")


def _pair(name, prediction, target):
    for label, fields in (("prediction", prediction), ("target", target)):
        _named(name, fields, f"the {label}")
    p, t = prediction[name], target[name]
    if p.shape != t.shape:
        raise ValueError(f"{name}: prediction {p.shape} and target {t.shape} differ in shape; compare the same frames")
    return p, t


def _positive(a):
    return jnp.maximum(a, jnp.finfo(a.dtype).tiny)


def _mean(a, grid, axes=None):
    """Mean over `axes` of `[*lead, layer, y, x]`, the last two among them, or over all; by area with a grid."""
    if grid is None or axes is None:
        return jnp.mean(a if grid is None else grid.mean(a), axes)
    return jnp.mean(grid.mean(a), tuple(axis % a.ndim for axis in axes if axis % a.ndim < a.ndim - 2))


def _rms(t, axes, grid=None):
    """Root mean square over `_mean`'s axes, kept; scaled first: squares of s⁻² come near the smallest float32."""
    largest = _positive(jnp.max(jnp.abs(t), axes, keepdims=True))
    square = jnp.expand_dims(_mean((t / largest) ** 2, grid, axes), axes)
    return largest * jnp.sqrt(_positive(square))
