"""The similarities of Ross et al. (2023) by their own protocol: single runs of ten years against the raw truth."""

from pathlib import Path

from experiments.closure_benchmark import spectra
from experiments.closure_benchmark.data import Data, read_climate, write_climate
from hybridgcm import data, metrics
from hybridgcm.rollout import YEAR

LAST = 10
"""Snapshots, 1000 h apart, whose values are compared."""
YEARS = 10


def similarities(sets: Data, closure, folders: list[Path], without: list[Path]) -> list[dict[str, float]]:
    """The 18 similarities of every run: model m against truth m, relative to the model without closure m.

    Distributions of the last ten snapshots before year ten, with the mean flow, on grids of their own; spectra are
    means over years five to ten. `folders`, `without`: free runs with and without closure, member by member. This is
    `metrics.ross_similarities` with the truth as it is, not coarse-grained; doi:10.1029/2022MS003258.
    """
    low, bare = sets.system.model(closure), sets.system.model()
    end = _end(sets)
    found = []
    for member, (folder, other) in enumerate(zip(folders, without, strict=True)):
        first = slice(-sets.sizes.scored, end - sets.sizes.scored or None)
        runs = [data.read_store(where / "run" / "output.zarr").isel(time=first) for where in (folder, other)]
        climates = [_climate(model, run) for model, run in zip((low, bare), runs, strict=True)]
        found.append(metrics.ross_similarities(*climates, _truth(sets, member, end), last=LAST))
    return found


def _climate(model, run) -> metrics.Climate:
    return metrics.climate(model, run["q"].values[-LAST:], spectra=spectra.means(run))


def _end(sets: Data) -> int:
    """Number of scored snapshots before year ten, or all of a shorter benchmark."""
    ten_years = int(YEARS * YEAR / sets.system.flow.snapshot) - sets.sizes.warm
    return max(1, min(ten_years, sets.sizes.scored))


def _truth(sets: Data, member: int, end: int) -> metrics.Climate:
    """Raw climate of one truth: fields of the last snapshots, spectra of all before year ten; kept in a file."""
    path = sets.cache / f"ross-{member}-{sets.version}.npz"
    if not path.exists():
        fine = sets.system.flow.model(sets.sizes.fine, sets.system.flow.dt)
        run = data.read_store(sets.folders["reference"][member] / "climate" / "output.zarr")
        write_climate(path, _climate(fine, run.isel(time=slice(end))))
    return read_climate(path)
