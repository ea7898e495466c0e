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
from hybridgcm.equations import ShallowWater
from hybridgcm.grids import Torus
from hybridgcm.models import Model

PEREZHOGIN = ("KEspec", "phispec", "Eflux", "APEgenspec")
"""Spectra of `perezhogin_errors`; phispec is that of shallow water."""


@dataclasses.dataclass(frozen=True)
class Climate:
    """Snapshots and time-mean spectra of one or more runs on a Torus, as NumPy; see `climate` and `pool`.

    `q`, `zeta` (s⁻¹), `u`, `v` (m s⁻¹), `phi` (m² s⁻²): anomalies `[run, snapshot, layer, y, x]`; zeta is relative
    vorticity. What an equation does not have is None, and not scored.
    `U`: mean flow `[layer]`, m s⁻¹. `spectra`: names of `diagnostics.spectral_budget`, `[ring]` or
    `[layer, ring]`, mean over time and runs; `kr`: the rings' wavenumbers, rad m⁻¹. `limit`: zonal wavenumber at
    which pyqg's filter on this grid falls below one; spectral scores use kr < limit, whatever the model's stepper.
    """

    q: np.ndarray | None
    u: np.ndarray | None
    v: np.ndarray | None
    zeta: np.ndarray | None
    U: np.ndarray
    spectra: dict[str, np.ndarray]
    kr: np.ndarray
    limit: float
    phi: np.ndarray | None = None

    @property
    def fields(self) -> dict[str, np.ndarray]:
        """The fields that there are, by name."""
        return {n: getattr(self, n) for n in ("q", "u", "v", "zeta", "phi") if getattr(self, n) is not None}


def climate(
    model: Model,
    q: Array | np.ndarray | Mapping[str, Array | np.ndarray],
    *,
    coarse: Torus | None = None,
    operator: coarsen.Operator = coarsen.operator1,
    spectra: Mapping[str, Array | np.ndarray] | None = None,
    batch: int = 16,
    key: Array | None = None,
) -> Climate:
    """The `Climate` of snapshots `q` `[run, snapshot, layer, y, x]` (or without `run`), s⁻¹, of `model`.

    Of an equation with several prognostics, a mapping of them. Quasi-geostrophic flow has q, u, v, zeta and the
    spectra of `diagnostics.spectral_budget`; shallow water has zeta, u, v, phi and per layer KEspec = |u|² (divergent
    flow and all), phispec = |φ|²/mean (their halves add up to the energy of one layer of small amplitude, m² s⁻²) and
    Ensspec = |ζ|² (s⁻²).

    With `coarse`, that of the coarse-grained flow: fields are `operator` applied to q, u, v; spectra are those of
    the fine flow times `coarsen.transfer`², so that they hold the work of the subgrid part as well. Spectra are
    means over the snapshots unless `spectra` brings better ones, such as online means of
    `diagnostics.spectral_budget` (with the same transfer). Works through `batch` snapshots at a time; `key` is for
    stochastic closures. Raises `ValueError` for a wrong shape and for names other than the prognostics.
    """
    equation = model.equation
    records = _records(equation, q if isinstance(q, Mapping) else {"q": q})
    runs = next(iter(records.values())).shape[:2]
    keys = jr.split(jr.key(0) if key is None else key, runs[0] * runs[1])
    flat = {n: a.reshape(-1, *a.shape[2:]) for n, a in records.items()}
    target = equation.grid if coarse is None else coarse
    pieces, sums = [], {}
    for i in range(0, len(keys), batch):
        chunk = {n: jnp.asarray(a[i : i + batch]) for n, a in flat.items()}
        fields, budgets = _pieces(model, chunk, keys[i : i + batch], target, operator, spectra is None)
        pieces.append(jax.tree.map(np.asarray, fields))
        sums = {n: sums.get(n, 0) + np.asarray(a, np.float64).sum(0) for n, a in budgets.items()}
    fields = {n: np.concatenate([p[n] for p in pieces]) for n in pieces[0]}
    fields = {"q": None} | {n: a.reshape(*runs, *a.shape[1:]) for n, a in fields.items()}
    means = {n: np.asarray(a) for n, a in spectra.items()} if spectra else {n: a / len(keys) for n, a in sums.items()}
    U = np.asarray(getattr(equation, "U", np.zeros(equation.layers)))
    kr = diagnostics.wavenumbers(equation.grid)
    return Climate(**fields, U=U, spectra=means, kr=kr, limit=_filtered_from(target))


def pool(*climates: Climate) -> Climate:
    """Climates of several runs of one model as one: snapshots side by side, spectra averaged over runs."""
    runs = [len(next(iter(c.fields.values()))) for c in climates]
    join = {n: np.concatenate([getattr(c, n) for c in climates]) for n in climates[0].fields}
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
    KEfrictionspec. `high` is the raw truth in Ross et al. (2023),
    doi:10.1029/2022MS003258, and the coarse-grained one in Perezhogin et al. (2023), doi:10.1029/2023MS003681:
    they differ by up to .4. What a flow does not have is left out, as the APE of one layer; zeta stands for q where
    there is none, and phi is the last field.
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
    What a flow does not have is left out (one layer: APEgenspec, and the APE of Eflux); shallow water has zeta in the
    place of q, and phi and phispec besides.
    `target` is the truth coarse-grained by the operator that the closure was trained for: `climate(..., coarse=grid)`.
    Perezhogin, Zanna and Fernandez-Granda (2023), doi:10.1029/2023MS003681; `last` = 128 of 172 snapshots there.
    Their rings begin at Δk instead of 0, which changes `spectral` by less than .002 in .29 (measured, eddy 64²).
    """
    fields = {n: d / scale for n, (d, scale) in _distributional(model, target, last, mean_flow=0.0).items()}
    spectra = {n: d / scale for n, (d, scale) in _spectral(model, target, PEREZHOGIN).items()}
    means = {
        "distributional": float(np.mean(list(fields.values()))),
        "spectral": float(np.mean(list(spectra.values()))),
    }
    return means | fields | spectra


def frezat_errors(model: Climate, target: Climate) -> dict[str, float]:
    """How far energy and enstrophy are off, in time and in wavenumber, and the last vorticity: 0 is perfect.

    `E(t)` = ½⟨u² + v²⟩ and `Z(t)` = ½⟨ζ²⟩ per snapshot, means over runs and layers; `E(k)` = ½ KEspec per layer and
    `Z(k)` = k² E(k) below both limits: root mean square difference over the target's root mean square. `zeta`: W₁ of
    all points of the last snapshot of every run over its root mean square. Frezat et al. (2024), arXiv:2310.19385, give
    them with units, of one run. Raises `ValueError` for different numbers of snapshots.
    """
    if model.u.shape[1] != target.u.shape[1]:
        raise ValueError(f"E(t) needs the same times; got {model.u.shape[1]} and {target.u.shape[1]} snapshots")
    series, spectra = [], []
    for c in (model, target):
        mean = lambda a: np.mean(np.square(a, dtype=np.float64), (0, 2, 3, 4)) / 2
        E = c.spectra["KEspec"][:, c.kr < min(model.limit, target.limit)] / 2
        series.append((mean(c.u) + mean(c.v), mean(c.zeta)))
        spectra.append((E, c.kr[c.kr < min(model.limit, target.limit)] ** 2 * E))
    relative = lambda a, b: float(_rms(a - b) / _rms(b))
    last = model.zeta[:, -1], target.zeta[:, -1]
    return {
        "E(t)": relative(series[0][0], series[1][0]),
        "Z(t)": relative(series[0][1], series[1][1]),
        "E(k)": relative(spectra[0][0], spectra[1][0]),
        "Z(k)": relative(spectra[0][1], spectra[1][1]),
        "zeta": wasserstein(*last) / _rms(last[1]),
    }


def _records(equation, records: Mapping) -> dict[str, np.ndarray]:
    """Prognostics `[run, snapshot, layer, y, x]` of an equation, as NumPy."""
    if set(records) != set(equation.prognostic):
        raise ValueError(f"{type(equation).__name__} has snapshots of {equation.prognostic}; got {sorted(records)}")
    found = {}
    for name in equation.prognostic:
        a = np.asarray(records[name])
        a = a[None] if a.ndim == 4 else a
        if a.ndim != 5 or a.shape[2:] != (equation.layers, *equation.grid.shape):
            expected = ("run", "snapshot", equation.layers, *equation.grid.shape)
            raise ValueError(
                f"{name} has shape {a.shape}, expected {expected}; {name} comes from the model of these snapshots"
            )
        found[name] = a
    return found


@eqx.filter_jit
def _pieces(model, records, keys, target, operator, with_spectra):
    """Fields on `target` and ring spectra for one batch of snapshots."""
    grid = model.equation.grid
    factor = 1.0 if target.n == grid.n else coarsen.transfer(grid, target, operator)
    low = (lambda a_hat: a_hat) if target.n == grid.n else (lambda a_hat: operator(a_hat, grid, target))
    shallow = isinstance(model.equation, ShallowWater)

    def one(fields, key):
        state = model.encode(fields, key)
        if shallow:
            return _shallow_fields(state.y, target, low), _shallow_spectra(model.equation, state.y, factor)
        psi = low(model.equation.invert(state.y["q"]))
        u, v = target.velocity(psi)
        fields = {"q": target.to_grid(low(state.y["q"])), "u": u, "v": v, "zeta": target.to_grid(target.laplacian(psi))}
        return fields, diagnostics.spectral_budget(model, state, factor) if with_spectra else {}

    return jax.vmap(one)(records, keys)


def _shallow_fields(y, target, low):
    zeta, delta = low(y["zeta"]), low(y["delta"])
    psi, chi = target.inverse_laplacian(zeta), target.inverse_laplacian(delta)
    u, v, zeta, phi = target.synthesise(psi, zeta, low(y["phi"]), potential=chi)
    return {"u": u, "v": v, "zeta": zeta, "phi": phi}


def _shallow_spectra(equation, y, factor):
    """Ring spectra `[layer, ring]` of velocity, φ/√mean and vorticity."""
    square = lambda a_hat: a_hat.real**2 + a_hat.imag**2
    densities = {
        "KEspec": -equation.grid.inverse_eigenvalues * (square(y["zeta"]) + square(y["delta"])),
        "phispec": square(y["phi"]) / equation.mean[:, None, None],
        "Ensspec": square(y["zeta"]),
    }
    return {n: diagnostics.isotropic(equation.grid, factor**2 * density) for n, density in densities.items()}


def _filtered_from(grid: Torus) -> float:
    """First zonal wavenumber at which pyqg's exponential filter is below one: k Δx > .65 π, rad m⁻¹."""
    nx = grid.n[1]
    return 2 * np.pi / grid.length[1] * (np.floor(0.65 * nx / 2) + 1)


def _samples(climate, layer, last, mean_flow):
    """Points of one layer by the names of the scores, in the published order."""
    found = {n: np.asarray(a[:, -last:, layer]) for n, a in climate.fields.items()}
    samples = {"q": found["q"]} if "q" in found else {"zeta": found["zeta"]}
    if "u" in found:
        u, v = found["u"] + mean_flow * climate.U[layer], found["v"]
        samples |= {"u": u, "v": v, "KE": u**2 + v**2, "Ens": found["zeta"] ** 2}
    return samples | ({"phi": found["phi"]} if "phi" in found else {})


def _distributional(climate, target, last, mean_flow):
    """W₁ and the target's root mean square, per field and layer, in the published order."""
    layers = range(next(iter(climate.fields.values())).shape[2])
    pairs = [(_samples(climate, i, last, mean_flow), _samples(target, i, last, mean_flow)) for i in layers]
    return {
        f"{n}{i + 1}": (wasserstein(pairs[i][0][n], pairs[i][1][n]), _rms(pairs[i][1][n]))
        for n in pairs[0][0]
        for i in layers
    }


def _spectral(climate, target, names):
    """Root mean square difference below both limits and the target's root mean square, per spectrum that it has."""
    rings = min(climate.kr.size, target.kr.size)
    if not np.allclose(climate.kr[:rings], target.kr[:rings]):
        raise ValueError("spectra are compared ring by ring: both climates need the same domain length")
    rings = int(np.sum(climate.kr[:rings] < min(climate.limit, target.limit)))
    out = {}
    for name in names:
        a, b = (_with_closure(c.spectra, name) for c in (climate, target))
        if b is None or not np.any(b):  # one layer releases no APE, a flow without drag loses nothing to it
            continue
        layered, (a, b) = np.ndim(b) == 2, map(np.atleast_2d, (a, b))
        for i in range(len(a)):
            out[f"{name}{i + 1}" if layered else name] = (_rms(a[i][:rings] - b[i][:rings]), _rms(b[i][:rings]))
    return out


def _with_closure(spectra, name):
    """A spectrum by name, None if there is none; fluxes with the closure's part, `Eflux` that of KE and APE."""
    if name == "Eflux":
        parts = [a for a in (_with_closure(spectra, n) for n in ("KEflux", "APEflux")) if a is not None]
        return sum(parts) if parts else None
    return spectra[name] + spectra.get(f"paramspec_{name}", 0) if name in spectra else None


def _rms(a) -> float:
    return float(np.sqrt(np.mean(np.square(a, dtype=np.float64))))
