"""The way back: arrays of one split, ready for training."""

import json
from pathlib import Path

import numpy as np

from hybridgcm.data import read_store


def catalogue(folder) -> dict:
    """What is in a data set: {"runs": [{run, split, store, parameters}], "statistics": path}, paths from `folder`."""
    return json.loads((Path(folder) / "catalogue.json").read_text())


def load(folder, split: str, names=("q", "S")) -> dict[str, np.ndarray]:
    """{name: [window, lead, layer, y, x]} of all runs of "train", "validation" or "test", run after run.

    A window is a training trajectory for `train.online` (`batches.samples(load(folder, "train", ("q",)), ...)`) and,
    with window and lead as one axis, samples for `train.offline`. Raises `ValueError` for a split without runs.
    """
    runs = [run for run in catalogue(folder)["runs"] if run["split"] == split]
    if not runs:
        raise ValueError(f"{folder} has no runs of split {split!r}; there are train, validation and test")
    opened = {store: read_store(Path(folder) / store) for store in {run["store"] for run in runs}}
    take = lambda name, run: opened[run["store"]][name].sel(run=run["run"]).values
    return {name: np.concatenate([take(name, run) for run in runs]) for name in names}
