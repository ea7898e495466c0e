"""Spectral budgets that are sampled while a run goes on: snapshots alone give the energy flux to a third of itself."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np

import hybridgcm as hg
from experiments._run import divisor
from experiments.closure_benchmark.systems import OPERATORS, System
from hybridgcm import coarsen, diagnostics

SAMPLES = 25
"""Samples between two snapshots: one in 40 h of the two-layer flows."""
POINTS = (48, 64, 96)
"""Coarse grids whose operators of Gaussian kind have spectra of their own."""
_FLUX = "m3 s-3", "isotropic spectrum of a term of the energy budget"
_NAMES = ("KEflux", "APEflux", "APEgenspec", "KEfrictionspec", "paramspec", "paramspec_KEflux", "paramspec_APEflux")
_UNITS = dict.fromkeys((*_NAMES, "Dissspec", "Filterspec"), _FLUX) | {
    "KEspec": ("m3 s-2", "isotropic spectrum of kinetic energy"),
    "Ensspec": ("m s-2", "isotropic spectrum of enstrophy"),
}
for _name, _about in _UNITS.items():
    hg.VARIABLES.setdefault(_name, hg.Variable(*_about))


def transfers(flow, fine: int) -> dict:
    """{label: factor per fine mode} of the coarse-grained spectra that a truth keeps; "raw" serves all sharp operators.

    Spectra are scored below the wavenumber at which operator 1 begins to filter, where it and the cut-off are one.
    """
    grid = flow.model(fine, flow.dt).equation.grid
    found = {"raw": jnp.ones(grid.spectral_shape, grid.eigenvalues.dtype)}
    for n in POINTS if "op2" in flow.operators else ():
        if n <= fine:
            coarse = flow.model(n, flow.dt).equation.grid
            found[f"op2-{n}"] = coarsen.transfer(grid, coarse, OPERATORS["op2"])
    return found


def label(system: System) -> str:
    """Which of `transfers` the truth of a system is read with. Raises `ValueError` if it keeps none."""
    found = "raw" if system.operator != "op2" else f"op2-{system.n}"
    if found != "raw" and system.n not in POINTS:
        raise ValueError(f"truths keep spectra of operator 2 at {POINTS} points; got {system.n}")
    return found


def sampled(model: hg.Model, steps: int, kept: dict | None = None, attrs: dict | None = None) -> dict:
    """Options of a `resumable_rollout`: prognostics at every snapshot, mean budgets of the `SAMPLES` samples before it.

    Only quasi-geostrophic flows have budgets; the spectra of others are those of their snapshots.
    """
    if not isinstance(model.equation, hg.QuasiGeostrophic):
        return {"save": _snapshot, "attrs": attrs}
    kept = {"raw": 1.0} if kept is None else kept
    names = {name: ("transfer", *(("layer",) if name in ("KEspec", "Ensspec") else ()), "ring") for name in _UNITS}
    return {
        "save": _snapshot,
        "mean": eqx.Partial(_budgets, list(kept.values())),
        "sample": divisor(steps, max(1, steps // SAMPLES)),
        "dimensions": {f"{name}_mean": dimensions for name, dimensions in names.items()},
        "coordinates": {"ring": diagnostics.wavenumbers(model.equation.grid)},
        "attrs": {"transfers": " ".join(kept), **(attrs or {})},
    }


def snapshots(model: hg.Model, run) -> dict[str, np.ndarray]:
    """The prognostics `[snapshot, layer, y, x]` of a run."""
    return {name: run[name].values for name in model.equation.prognostic}


def means(run, which: str = "raw") -> dict[str, np.ndarray] | None:
    """Mean budgets over the records of a run, for `metrics.climate`; None if it has none."""
    if "transfers" not in run.attrs:
        return None
    index = run.attrs["transfers"].split().index(which)
    return {name: run[f"{name}_mean"].values[:, index].astype(float).mean(0) for name in _UNITS}


def _snapshot(model, state) -> dict:
    return model.decode(state)


def _budgets(factors, model, state) -> dict:
    rings = lambda density: [diagnostics.isotropic(model.equation.grid, factor**2 * density) for factor in factors]
    return {name: jnp.stack(rings(density)) for name, density in diagnostics.budget(model, state).items()}
