"""A data set for closures and emulators: many runs, coarse-grained as they go, in one command.

    python experiments/data_generator/run.py [--preset NAME] [--out FOLDER] [--config run.toml] [--FIELD VALUE ...]

Presets: `laptop` (default: 16 runs about the *eddy* regime, 256² to 64²), `smoke` (seconds, meaningless numbers),
`ross` (300 *eddy* runs with the published snapshots: for a GPU). Batches are kept by content in FOLDER/stages: the
same command goes on after a kill. Results: catalogue.json (runs, parameters, splits, stores), one sharded Zarr store
per batch, statistics.json of the training runs; `experiments.data_generator.read.load` reads a split.

Measured: one ten-year *eddy* run, 86,000 steps at 256² kept at 64², takes 107 s of one CPU core with compilation and
output, 34 runs per CPU hour. Its q and S have an rms of 5.712e-6 s-1 and 4.896e-12 s-2, both layers pooled; the
published training set has 5.701e-6 and 4.999e-12 (Perezhogin et al. 2023, doi:10.1029/2023MS003681).
"""

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from experiments._run import Run, configure  # noqa: E402
from experiments.data_generator.config import PRESETS, SAMPLED  # noqa: E402

PHYSICS = (*SAMPLED, "seed", "fine", "coarse", "operator", "length", "dt")
SCHEDULE = ("spin_up", "records", "every", "window", "frame")
SPLITS = ("runs", "validation", "test")


def main(argv=None) -> Path:
    """Run what is missing and return the path of the catalogue."""
    config, folder = configure(PRESETS, argv, out="runs/data")
    with Run(folder, config) as run:
        from experiments.data_generator import generate
        from hybridgcm.files import atomic

        count = -(-config.runs // config.members)
        with ThreadPoolExecutor(config.workers) as pool:  # XLA releases Python's lock while it computes
            batches = list(pool.map(partial(batch, run), range(count)))
        stores = [made / "records" / "output.zarr" for made in batches]
        inputs = {f"batch-{number}": made for number, made in enumerate(batches)}
        inputs |= {name: getattr(config, name) for name in SPLITS}
        scales = run.stage("statistics", inputs, partial(generate.statistics, config, stores))
        path = run.folder / "catalogue.json"
        with atomic(path) as temporary:
            temporary.write_text(json.dumps(catalogue(run, generate, stores, scales), indent=1))
        return path


def batch(run, number: int) -> Path:
    """Folder of the batch, done now or before."""
    from experiments.data_generator import generate

    config, program = run.config, Path(__file__).with_name("generate.py")
    inputs = {name: getattr(config, name) for name in (*PHYSICS, *SCHEDULE)}
    inputs |= {"members": generate.members(config, number), "program": program}
    return run.stage(f"batch-{number}", inputs, partial(generate.batch, config, number))


def catalogue(run, generate, stores: list[Path], scales: Path) -> dict:
    """Every run with its parameters, split and store; paths are relative to the folder of the data set."""
    config, relative = run.config, lambda path: path.relative_to(run.folder).as_posix()
    runs = [
        {
            "run": number,
            "split": generate.split(config, number),
            "store": relative(stores[number // config.members]),
            "parameters": generate.parameters(config, number),
        }
        for number in range(config.runs)
    ]
    return {"runs": runs, "units": SAMPLED, "seed": config.seed, "statistics": relative(scales / "statistics.json")}


if __name__ == "__main__":
    print(f"catalogue: {main()}")
