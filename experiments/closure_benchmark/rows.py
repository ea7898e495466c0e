"""One row: a closure of one method and seed, made for one system, scored on one."""

import functools
import importlib.util
import json
import math
import os
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from experiments._run import Run, parallel
from experiments.closure_benchmark import ross, scores
from experiments.closure_benchmark.config import Truths
from experiments.closure_benchmark.data import VERSION, Data, truths
from experiments.closure_benchmark.systems import TwoLayer
from experiments.closure_benchmark.systems import system as system_of
from experiments.closure_benchmark.training import Problem
from hybridgcm import checkpoint, closures, metrics
from hybridgcm.files import FolderInUse, atomic
from hybridgcm.fingerprint import code_version, environment

ROSS = (64, 3600.0)
"""Points and time step, s, at which Ross et al. (2023) published similarities."""


@dataclass(frozen=True)
class Method:
    """A way to make closures: the function of a Python file.

    `name`: of the file; `title`: first line of its docstring, for the table; `seeds`: whether its result depends on
    the seed (the file's `SEEDS`, True unless it says otherwise).
    """

    name: str
    title: str
    seeds: bool
    closure: Callable


def load_method(name: str, folder: Path) -> Method:
    """The method of a file `folder/NAME.py`, or of the file at the path NAME. Raises `ValueError` for what is none."""
    path = Path(name) if name.endswith(".py") else folder / f"{name}.py"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in folder.glob("*.py") if file.stem[0] != "_"))
        raise ValueError(f"there is no method {name!r}; there are {known}, or give the path of a Python file")
    spec = importlib.util.spec_from_file_location(f"closure_method_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not callable(getattr(module, "closure", None)):
        raise ValueError(f"{path} needs a function closure(problem, seed, folder) that returns a closure or None")
    title = (module.__doc__ or path.stem).strip().splitlines()[0].rstrip(".")
    return Method(path.stem, title, getattr(module, "SEEDS", True), module.closure)


def row(root: Path, config, name: str, method: Method, seed: int, trained_on: str | None = None) -> Path:
    """The file of one row, made now unless it is there.

    A closure that cannot be made or that fails in the model makes a row too, with the reason.
    """
    system = system_of(name)
    label = method.name if trained_on is None else f"{method.name}@{system_of(trained_on).name}"
    folder = root / "rows" / system.name / label / f"seed-{seed}"
    file = folder / "row.json"
    if file.exists() and "failed" not in json.loads(file.read_text()):
        print(f"[{system.name} {label} seed {seed}] done before", flush=True)
        return file
    sets = open_data(root, config.truths, system)
    with Run(folder, config) as run:
        about = {
            "system": system.name, "method": method.name, "title": method.title, "seed": seed,
            "seeded": method.seeds,
            "trained_on": trained_on and system_of(trained_on).name, "data": sets.version, "protocol": VERSION,
            "code": code_version(), "environment": environment(), "date": time.strftime("%Y-%m-%d"),
        }  # fmt: skip
        try:
            closure, about["training_seconds"] = make(root, config, trained_on or name, method, seed)
            about |= _scores(run, root, system, sets, closure, method)
        except (ValueError, TypeError, RuntimeError, KeyError, AttributeError, ArithmeticError) as error:
            traceback.print_exc()
            about["failed"] = f"{type(error).__name__}: {error}"
        with atomic(file) as temporary:
            temporary.write_text(json.dumps(_plain(about), indent=1))
    return file


@functools.cache
def open_data(root: Path, sizes: Truths, system) -> Data:
    """The data of a system; truths of its flow are made first, or waited for if another process is making them."""
    sizes = system.flow.sizes(sizes)
    if system.n > sizes.stored:
        raise ValueError(f"{system.name} has more modes than the training frames keep: truths.stored={sizes.stored}")
    return Data(system, sizes, root / "data" / system.flow.name, _truths(root, sizes, system.flow))


@functools.cache
def _truths(root: Path, sizes: Truths, flow) -> dict[str, list[Path]]:
    def make():
        with Run(root / "data" / flow.name, sizes) as run:
            return truths(run, flow)

    return _in_turn(make)


def _in_turn(make: Callable, seconds: float = 20.0):
    """What `make` returns, begun again for as long as another process works in its folder."""
    while True:
        try:
            return make()
        except FolderInUse as error:
            print(f"waiting: {error}", flush=True)
            time.sleep(seconds)


def make(root: Path, config, name: str, method: Method, seed: int):
    """(closure, seconds of its training, without a start that methods share): trained now or before."""
    system = system_of(name)
    folder = root / "closures" / system.name / method.name / f"seed-{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    begin = time.monotonic()
    problem = Problem(config, open_data(root, config.truths, system), folder.parents[1])
    closure = method.closure(problem, seed, folder)
    record = folder / "seconds.json"
    if not record.exists():  # of a training that was interrupted: of its last part
        record.write_text(json.dumps(time.monotonic() - begin))
    if closure is not None:
        checkpoint.save(folder / "closure.ckpt", closure, {"system": system.name, "method": method.name, "seed": seed})
    return closure, json.loads(record.read_text())


def _scores(run, root: Path, system, sets: Data, closure, method: Method) -> dict:
    """Everything that is measured of one closure; `unit` and `tuned` are its free runs at amplitude 1 and the best."""
    truths = system.flow.sizes(run.config.truths)
    others = None if closure is None else _without(root, run.config, system)
    none = None if others is None else _pooled(system, others, truths.scored)
    start = {name: sets.validation[0][name][0] for name in system.model().equation.prognostic}
    found = {"ms_per_step": scores.milliseconds(system.model(closure), start)}
    found["ms_without"] = scores.milliseconds(system.model(), start)

    def free(closure):
        one = lambda m: scores.free_run(run, system, closure, m, truths.warm, truths.scored, truths.fine)
        folders = parallel(os.cpu_count(), {m: (lambda m=m: one(m)) for m in range(run.config.members)})
        climates = [scores.climate(system, closure, folder, truths.scored) for folder in folders.values()]
        found = scores.free_scores(climates, sets.reference, none, system.flow)
        found["folders"] = [folder.name for folder in folders.values()]
        if (
            none is not None
            and "errors" in found
            and isinstance(system.flow, TwoLayer)
            and (system.n, system.dt) == ROSS
        ):
            found["ross"] = ross.similarities(sets, closure, list(folders.values()), others)
        return found

    found["unit"] = free(closure) | {"amplitude": 1.0}
    found["forecast_days"] = scores.forecast_days(system, sets, closure)
    if closure is not None:
        found["offline"] = scores.offline_scores(system, sets, closure)
        noise = found["offline"].pop("calibration", {})
        found["calibration"] = {f"{name}{i + 1}": a for name, layers in noise.items() for i, a in enumerate(layers)}
        if run.config.amplitudes:
            found["tuning"] = scores.tune(run, system, sets, closure)
            best = found["tuning"]["best"]
            scaled = closure if best == 1 else closures.Scaled(closure, best)
            found["tuned"] = (found["unit"] if best == 1 else free(scaled)) | {"amplitude": best}
    return found


def survive(root: Path, config, name: str, method: Method, seed: int, trained_on: str | None = None) -> Path:
    """The row, with the survival test added to it: dearer than all the rest, so it is asked for by itself."""
    file = row(root, config, name, method, seed, trained_on)
    found, system = json.loads(file.read_text()), system_of(name)
    if "failed" in found or "survival" in found:
        return file
    closure, _ = make(root, config, trained_on or name, method, seed)
    sets = open_data(root, config.truths, system)
    with Run(file.parent, config) as run:
        found["survival"] = scores.survival(run, system, closure, sets)
        with atomic(file) as temporary:
            temporary.write_text(json.dumps(_plain(found), indent=1))
    return file


def _without(root: Path, config, system) -> list[Path]:
    """Free runs of the model without closure, which similarities are relative to; waited for if others make them."""
    none = load_method("none", Path(__file__).with_name("methods"))
    file = _in_turn(lambda: row(root, config, system.name, none, 0))
    found = json.loads(file.read_text())
    return [file.parent / "stages" / name for name in found["unit"]["folders"]]


def _pooled(system, folders: list[Path], scored: int) -> metrics.Climate | None:
    """The climate of free runs without closure; None if one of them blew up."""
    climates = [scores.climate(system, None, folder, scored) for folder in folders]
    return None if None in climates else metrics.pool(*climates)


def _plain(value):
    """JSON's types; numbers that are not finite become None."""
    if isinstance(value, dict):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic | np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
