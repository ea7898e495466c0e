"""Climates of free runs and the published comparisons of them."""

import dataclasses
from collections.abc import Mapping

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array

from hybridgcm import coarsen, diagnostics
from hybridgcm.grids import Torus
from hybridgcm.models import Model


@dataclasses.dataclass(frozen=True)
class Climate:
    """Snapshots and time-mean spectra of one or more runs on a Torus, as NumPy; see `climate` and `pool`.

    `q`, `zeta` (s⁻¹), `u`, `v` (m s⁻¹): anomalies `[run, snapshot, layer, y, x]`; zeta is relative vorticity.
    `U`: mean flow `[layer]`, m s⁻¹. `spectra`: names of `diagnostics.spectral_budget`, `[ring]` or
    `[layer, ring]`, mean over time and runs; `kr`: the rings' wavenumbers, rad m⁻¹. `limit`: zonal wavenumber at
    which pyqg's filter on this grid falls below one; spectral scores use kr < limit, whatever the model's stepper.
    """

    q: np.ndarray
    u: np.ndarray
    v: np.ndarray
    zeta: np.ndarray
    U: np.ndarray
    spectra: dict[str, np.ndarray]
    kr: np.ndarray
    limit: float


def climate(
    model: Model,
    q: Array | np.ndarray,
    *,
    coarse: Torus | None = None,
    operator: coarsen.Operator = coarsen.operator1,
    spectra: Mapping[str, Array | np.ndarray] | None = None,
    batch: int = 16,
    key: Array | None = None,
) -> Climate:
    """The `Climate` of snapshots `q` `[run, snapshot, layer, y, x]` (or without `run`), s⁻¹, of `model`.

    With `coarse`, that of the coarse-grained flow: fields are `operator` applied to q, u, v; spectra are those of
    the fine flow times `coarsen.transfer`², so that they hold the work of the subgrid part as well. Spectra are
    means over the snapshots unless `spectra` brings better ones, such as online means of
    `diagnostics.spectral_budget` (with the same transfer). Works through `batch` snapshots at a time; `key` is for
    stochastic closures. Raises `ValueError` for a wrong shape.
    """
    grid = model.equation.grid
    q = np.asarray(q)
    q = q[None] if q.ndim == 4 else q
    if q.ndim != 5 or q.shape[2:] != (model.equation.layers, *grid.shape):
        expected = ("run", "snapshot", model.equation.layers, *grid.shape)
        raise ValueError(f"q has shape {q.shape}, expected {expected}; q comes from the model of these snapshots")
    keys = jr.split(jr.key(0) if key is None else key, q.shape[0] * q.shape[1])
    flat, target = q.reshape(-1, *q.shape[2:]), grid if coarse is None else coarse
    pieces, sums = [], {}
    for i in range(0, len(flat), batch):
        chunk = jnp.asarray(flat[i : i + batch])
        fields, budgets = _pieces(model, chunk, keys[i : i + batch], target, operator, spectra is None)
        pieces.append(jax.tree.map(np.asarray, fields))
        sums = {n: sums.get(n, 0) + np.asarray(a, np.float64).sum(0) for n, a in budgets.items()}
    fields = {n: np.concatenate([p[n] for p in pieces]) for n in pieces[0]}
    fields = {n: a.reshape(*q.shape[:2], *a.shape[1:]) for n, a in fields.items()}
    means = {n: np.asarray(a) for n, a in spectra.items()} if spectra else {n: a / len(flat) for n, a in sums.items()}
    kr = diagnostics.wavenumbers(grid)
    return Climate(**fields, U=np.asarray(model.equation.U), spectra=means, kr=kr, limit=_filtered_from(target))


def pool(*climates: Climate) -> Climate:
    """Climates of several runs of one model as one: snapshots side by side, spectra averaged over runs."""
    runs = [len(c.q) for c in climates]
    join = {n: np.concatenate([getattr(c, n) for c in climates]) for n in ("q", "u", "v", "zeta")}
    spectra = {n: np.average([c.spectra[n] for c in climates], 0, runs) for n in climates[0].spectra}
    return dataclasses.replace(climates[0], **join, spectra=spectra)


def wasserstein(a: np.ndarray, b: np.ndarray) -> float:
    """W₁ = ∫₀¹ |F_a⁻¹ − F_b⁻¹| dp of two samples of any sizes, in their unit; exact."""
    a, b = np.sort(a, None), np.sort(b, None)
    n, m = len(a), len(b)
    if n == m:
        return float(np.mean(np.abs(a.astype(np.float64) - b)))
    p = np.union1d(np.arange(n + 1) / n, np.arange(m + 1) / m)
    middle = (p[1:] + p[:-1]) / 2
    gap = a[(middle * n).astype(int)].astype(np.float64) - b[(middle * m).astype(int)]
    return float(np.sum(np.diff(p) * np.abs(gap)))


def ross_similarities(model: Climate, low: Climate, high: Climate, last: int = 10) -> dict[str, float]:
    """1 − D(model, high)/D(low, high), 18 for two layers: 1 perfect, 0 no better than `low`, negative worse.

    First, per layer, D is W₁ over all points of the `last` snapshots of every run, for q, u and v with the mean
    flow, KE = u² + v² (no ½) and Ens = zeta². Then D is the root mean square difference of time-mean ring spectra at
    kr below both limits: KEspec, Ensspec per layer, KEflux and APEflux with the closure's part, APEgenspec,
    KEfrictionspec. `high` is the raw truth in Ross et al. (2023), doi:10.1029/2022MS003258, and the coarse-grained one
    in Perezhogin et al. (2023), doi:10.1029/2023MS003681: they differ by up to .4.
    """
    names = ("KEspec", "Ensspec", "KEflux", "APEflux", "APEgenspec", "KEfrictionspec")

    def distances(climate):
        fields = {n: d for n, (d, _) in _distributional(climate, high, last, mean_flow=1.0).items()}
        return fields | {n: d for n, (d, _) in _spectral(climate, high, names).items()}

    ours, theirs = distances(model), distances(low)
    return {name: 1 - ours[name] / theirs[name] for name in ours}


def perezhogin_errors(model: Climate, target: Climate, last: int = 128) -> dict[str, float]:
    """Distances over the root mean square of `target`: 0 is perfect; no baseline enters.

    `distributional`: mean of the ten W₁ of `ross_similarities`, but with u and v *without* the mean flow.
    `spectral`: mean over KEspec per layer, Eflux = KEflux + APEflux + closure, and APEgenspec, of the root mean
    square difference below both limits over the root mean square of the target there. The parts follow by name.
    `target` is the truth coarse-grained by the operator that the closure was trained for: `climate(..., coarse=grid)`.
    Perezhogin, Zanna and Fernandez-Granda (2023), doi:10.1029/2023MS003681; `last` = 128 of 172 snapshots there.
    Their rings begin at Δk instead of 0, which changes `spectral` by less than .002 in .29 (measured, eddy 64²).
    """
    fields = {n: d / scale for n, (d, scale) in _distributional(model, target, last, mean_flow=0.0).items()}
    spectra = {n: d / scale for n, (d, scale) in _spectral(model, target, ("KEspec", "Eflux", "APEgenspec")).items()}
    means = {
        "distributional": float(np.mean(list(fields.values()))),
        "spectral": float(np.mean(list(spectra.values()))),
    }
    return means | fields | spectra


@eqx.filter_jit
def _pieces(model, q, keys, target, operator, with_spectra):
    """Fields on `target` and ring spectra for one batch of snapshots."""
    grid = model.equation.grid
    factor = 1.0 if target.n == grid.n else coarsen.transfer(grid, target, operator)

    def one(q, key):
        state = model.encode({"q": q}, key)
        q_hat = state.y["q"]
        psi = model.equation.invert(q_hat)
        if target.n != grid.n:
            q_hat, psi = operator(q_hat, grid, target), operator(psi, grid, target)
        u, v = target.velocity(psi)
        fields = {"q": target.to_grid(q_hat), "u": u, "v": v, "zeta": target.to_grid(target.laplacian(psi))}
        return fields, diagnostics.spectral_budget(model, state, factor) if with_spectra else {}

    return jax.vmap(one)(q, keys)


def _filtered_from(grid: Torus) -> float:
    """First zonal wavenumber at which pyqg's exponential filter is below one: k Δx > .65 π, rad m⁻¹."""
    nx = grid.n[1]
    return 2 * np.pi / grid.length[1] * (np.floor(0.65 * nx / 2) + 1)


def _samples(climate, layer, last, mean_flow):
    take = lambda a: np.asarray(a[:, -last:, layer])
    u, v = take(climate.u) + mean_flow * climate.U[layer], take(climate.v)
    return {"q": take(climate.q), "u": u, "v": v, "KE": u**2 + v**2, "Ens": take(climate.zeta) ** 2}


def _distributional(climate, target, last, mean_flow):
    """W₁ and the target's root mean square, per field and layer, in the published order."""
    layers = range(climate.q.shape[2])
    pairs = [(_samples(climate, i, last, mean_flow), _samples(target, i, last, mean_flow)) for i in layers]
    rms = lambda a: float(np.sqrt(np.mean(np.square(a, dtype=np.float64))))
    names = ("q", "u", "v", "KE", "Ens")
    return {
        f"{n}{i + 1}": (wasserstein(pairs[i][0][n], pairs[i][1][n]), rms(pairs[i][1][n])) for n in names for i in layers
    }


def _spectral(climate, target, names):
    """Root mean square difference below both limits and the target's root mean square, per spectrum."""
    rings = min(climate.kr.size, target.kr.size)
    if not np.allclose(climate.kr[:rings], target.kr[:rings]):
        raise ValueError("spectra are compared ring by ring: both climates need the same domain length")
    rings = int(np.sum(climate.kr[:rings] < min(climate.limit, target.limit)))
    rms = lambda a: float(np.sqrt(np.mean(np.square(a[:rings], dtype=np.float64))))
    out = {}
    for name in names:
        a, b = (np.atleast_2d(_with_closure(c.spectra, name)) for c in (climate, target))
        layered = np.ndim(_with_closure(climate.spectra, name)) == 2
        for i in range(len(a)):
            out[f"{name}{i + 1}" if layered else name] = (rms(a[i][:rings] - b[i][:rings]), rms(b[i]))
    return out


def _with_closure(spectra, name):
    """A spectrum by name; fluxes with the closure's part, `Eflux` the sum of KEflux and APEflux."""
    if name == "Eflux":
        return _with_closure(spectra, "KEflux") + _with_closure(spectra, "APEflux")
    return spectra[name] + spectra.get(f"paramspec_{name}", 0)
