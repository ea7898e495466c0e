"""Truths of a flow, and what is made of them: training frames, and the climates that models are scored against."""

import hashlib
import json
import os
from functools import cached_property, partial
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

from experiments._run import divisor, parallel
from experiments.closure_benchmark import spectra
from experiments.closure_benchmark.config import Truths
from experiments.closure_benchmark.systems import System
from hybridgcm import coarsen, data, diagnostics, metrics
from hybridgcm.equations import QuasiGeostrophic
from hybridgcm.files import atomic
from hybridgcm.resume import resumable_rollout

VERSION = "2"
"""Raised whenever truths are made in another way; part of every row, so that no table mixes them."""
LEARNING = 100
"""Number of the first truth that closures learn from; those below are scored against."""


def truths(run, flow) -> dict[str, list[Path]]:
    """Folders of the truths of a flow, made now or found: {"reference", "train", "validation"}."""
    config = run.config
    lengths = {"spin_up": config.warm, "frames": 0, "climate": config.scored}
    learning = {"spin_up": config.spin_up, "frames": config.frames, "climate": config.tuning}
    count = config.learn + config.validation
    jobs = {LEARNING + m: partial(_truth, run, flow, LEARNING + m, learning) for m in range(count)}
    jobs |= {m: partial(_truth, run, flow, m, lengths) for m in range(config.members)}
    found = parallel(os.cpu_count(), jobs)
    learned = [found[LEARNING + m] for m in range(count)]
    return {
        "reference": [found[m] for m in range(config.members)],
        "train": learned[: config.learn],
        "validation": learned[config.learn :],
    }


def _truth(run, flow, member: int, lengths: dict) -> Path:
    sizes = {"fine": run.config.fine, "stored": run.config.stored}
    inputs = {"flow": flow, "member": member, **lengths, **sizes}
    return run.stage(f"truth-{member}", inputs, partial(_make, flow, member, lengths, sizes), version=VERSION)


def _make(flow, member: int, lengths: dict, sizes: dict, folder: Path):
    """One truth: spin-up, training frames on the stored grid, snapshots of its climate on its own grid."""
    fine, stored = (flow.model(sizes[name], flow.dt) for name in ("fine", "stored"))
    state = fine.encode(flow.start(member, sizes["fine"]), jr.key(member))
    each = round(flow.snapshot / flow.dt)
    frame = round(flow.frame / flow.dt)
    grid, targets = stored.equation.grid, coarsen.targets(stored.equation)
    frames = {
        "save": eqx.Partial(_frame, stored), "every": frame, "coordinates": {"x": grid.x, "y": grid.y},
        "dimensions": {name: ("layer", "y", "x") for name in (*targets, *targets.values())},
    }  # fmt: skip
    attrs = coarsen.metadata(fine, stored, coarsen.cutoff) | {"title": f"Truth of {flow.name}", "member": member}
    outputs = {
        "spin_up": {"save": _energy, "every": each, "attrs": attrs},
        "frames": frames | {"attrs": attrs},
        "climate": {"every": each} | spectra.sampled(fine, each, spectra.transfers(flow, sizes["fine"]), attrs),
    }
    for part, output in outputs.items():
        if steps := lengths[part] * each:
            chunk = divisor(steps // output["every"], max(1, max(each, 1000) // output["every"]))
            state = resumable_rollout(
                fine, state, steps, folder / part, chunk=chunk, progress=f"truth {flow.name} {member}, {part}",
                allow=True, **output,
            )  # fmt: skip


def _energy(model, state) -> dict:
    if isinstance(model.equation, QuasiGeostrophic):
        return {"ke": diagnostics.kinetic_energy(model, state)}
    fields = model.view(state)
    return {"ke": jnp.mean(fields["u"] ** 2 + fields["v"] ** 2) / 2}


def _frame(stored, fine, state) -> dict:
    return coarsen.sample(fine, stored, state.y, coarsen.cutoff)


class Data:
    """What the truths of a flow are for one system: everything on its grid, by its operator, with its sign.

    `system`; `sizes` of the truths; `folder` for what is derived; `folders` of the truths as `truths` gives them.
    """

    def __init__(self, system: System, sizes: Truths, folder: Path, folders: dict[str, list[Path]]):
        self.system, self.sizes, self.folders, self.cache = system, sizes, folders, folder / "derived"

    @cached_property
    def train(self) -> list[dict[str, np.ndarray]]:
        """Frames of the training truths, one dict {q (s-1), S (s-2)} `[time, layer, y, x]` each, `flow.frame` apart.

        Of several prognostics: these and, by the names of `coarsen.targets`, their subgrid forcings.
        """
        return [self._frames(folder) for folder in self.folders["train"]]

    @cached_property
    def validation(self) -> list[dict[str, np.ndarray]]:
        """The same of truths that nothing is trained on."""
        return [self._frames(folder) for folder in self.folders["validation"]]

    @cached_property
    def reference(self) -> metrics.Climate:
        """The climate that closures are scored against. Never for training, tuning or stopping."""
        return self._climate("reference", ("reference",))

    @cached_property
    def tuning(self) -> metrics.Climate:
        """The climate of the training and validation truths."""
        return self._climate("tuning", ("train", "validation"))

    @property
    def version(self) -> str:
        """Digest of the truths: rows of different ones are not comparable."""
        manifests = [folder / "manifest.json" for name in sorted(self.folders) for folder in self.folders[name]]
        files = [json.loads(manifest.read_text())["files"] for manifest in manifests]
        return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()[:12]

    def _frames(self, folder: Path) -> dict[str, np.ndarray]:
        """Memory-mapped from a file, since making them takes a minute per year of truth."""
        targets = coarsen.targets(self.system.model().equation)
        names = [name for pair in targets.items() for name in pair]
        path = self.cache / f"frames-{self.system.n}-{self.system.operator}-{folder.name}.npy"
        if not path.exists():
            stored, low = self.system.flow.model(self.sizes.stored, self.system.dt), self.system.model()
            frames = data.read_store(folder / "frames" / "output.zarr")
            arrays = {name: frames[name].values for name in names}
            found = _on_grid(stored.equation, low.equation, self.system.coarsen, arrays)
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic(path) as temporary, open(temporary, "wb") as file:
                np.save(file, np.stack([found[name] for name in names]))
        return dict(zip(names, np.load(path, mmap_mode="r"), strict=True))

    def _climate(self, label: str, kinds: tuple[str, ...]) -> metrics.Climate:
        """Pooled over truths; kept in a file, since it takes a minute."""
        path = self.cache / f"{label}-{self.system.n}-{self.system.operator}-{self.version}.npz"
        if not path.exists():
            fine, grid = self.system.flow.model(self.sizes.fine, self.system.flow.dt), self.system.model().equation.grid
            folders = [folder for kind in kinds for folder in self.folders[kind]]
            write_climate(path, metrics.pool(*[self._truth(fine, grid, folder) for folder in folders]))
        return read_climate(path)

    def _truth(self, fine, grid, folder: Path) -> metrics.Climate:
        """The climate of one truth, coarse-grained."""
        run = data.read_store(folder / "climate" / "output.zarr")
        means = spectra.means(run, spectra.label(self.system))
        coarse = {"coarse": grid, "operator": self.system.coarsen}
        return self.system.flow.climate(fine, spectra.snapshots(fine, run), spectra=means, **coarse)


def write_climate(path: Path, climate: metrics.Climate):
    """A climate as one file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fields = {name: value for name, value in vars(climate).items() if name != "spectra" and value is not None}
    with atomic(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, **fields, **{f"spectra.{name}": a for name, a in climate.spectra.items()})


def read_climate(path: Path) -> metrics.Climate:
    """What `write_climate` wrote."""
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    spectra = {name.removeprefix("spectra."): a for name, a in arrays.items() if name.startswith("spectra.")}
    fields = dict.fromkeys(("q", "u", "v", "zeta", "phi"))
    fields |= {name: a for name, a in arrays.items() if not name.startswith("spectra.")}
    return metrics.Climate(**fields | {"limit": float(fields["limit"])}, spectra=spectra)


def _on_grid(stored, low, operator, frames: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Coarse prognostics and subgrid forcings of an operator from those of the sharp cut-off at more modes.

    Since the cut-off c of the stored grid keeps all that `operator` reads, operator(F) = operator(c(F)), and
    c(F) = S + F_stored(c(q)) by the definition of S (`coarsen.subgrid_forcing`).
    """
    grid, coarse, targets = stored.grid, low.grid, coarsen.targets(low)

    def one(frames):
        y = {name: grid.to_spectral(frames[name]) for name in targets}
        resolved = stored.explicit(0.0, y)
        full = {name: grid.to_spectral(frames[target]) + resolved[name] for name, target in targets.items()}
        y, full = (coarsen.state(grid, coarse, a, operator) for a in (y, full))
        resolved = low.explicit(0.0, y)
        made = {target: coarse.to_grid(full[name] - resolved[name]) for name, target in targets.items()}
        return {name: coarse.to_grid(a_hat) for name, a_hat in y.items()} | made

    return jax.tree.map(np.asarray, jax.jit(lambda a: jax.lax.map(one, a))(jax.tree.map(jnp.asarray, frames)))
