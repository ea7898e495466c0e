"""A rollout that is killed and goes on: output and checkpoints, chunk by chunk."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import numpy as np

from hybridgcm.cf import attributes, dimension_names
from hybridgcm.checkpoint import Checkpoints
from hybridgcm.data import collect, open_store
from hybridgcm.files import claim
from hybridgcm.fingerprint import acts, describe, digest
from hybridgcm.ladder import Rung, climb, write_report
from hybridgcm.models import AbstractModel, State
from hybridgcm.preemption import stop_if_asked
from hybridgcm.rollout import count_frames, view


def resumable_rollout(
    model: AbstractModel,
    state: State,
    steps: int,
    folder,
    *,
    every: int = 1,
    chunk: int = 1,
    save: Callable[[Any, State], Any] | None = view,
    mean: Callable[[Any, State], Any] | None = None,
    sample: int = 1,
    callback: Callable[[State, dict], None] | None = None,
    attrs: Mapping[str, Any] | None = None,
    dimensions: Mapping | None = None,
    coordinates: Mapping | None = None,
    courant: float = 1.0,
    progress: str | None = None,
    rungs: Sequence[Rung] = (),
    hold: int = 1,
    allow: bool = False,
    missing: Sequence[str] = (),
) -> State:
    """The state `steps` steps after `state`, with the frames of `stream` in `folder/output.zarr`.

    Killed at any moment, the same call goes on from the last chunk: state and output are then, bit for bit, those of
    an uninterrupted run. Called again after its end it returns the final state; with more `steps` it continues.
    `callback(state, frames)` sees every chunk once its output is on disk, and again those that a resumed run repeats.
    `attrs`, `dimensions`, `coordinates` and `missing` are those of `open_store`, `courant` and `progress` of `stream`.
    With `rungs` (`ladder.RUNGS`) a blow-up is met as `ladder.climb` says; `ladder.json` and `.txt` tell what was done.
    Inside `preemption.preemptible()`, SIGTERM ends it after the chunk that it is at, with exit code 75.
    Raises at once `ValueError` for outputs that a store does not take; `FolderInUse` if another process works in the
    folder; `FingerprintMismatch` if model, initial state, output functions (those of scripts by what they do, see
    `fingerprint.acts`), code, library versions or device are not those that it was begun with (`allow=True` goes on all
    the same); `FileExistsError` for output without a checkpoint; `BlewUp` as `stream`, earlier output kept.
    """
    about = dict(model=digest(model), start=digest(state), every=every, sample=sample)
    about |= dict(save=describe(save, acts), mean=describe(mean, acts))
    grid = (model.equation if hasattr(model, "equation") else model).grid
    _check_outputs(model, state, save, mean, grid, dimensions or {})
    first, folder = int(state.step), Path(folder)
    time = (first + every * np.arange(1, count_frames(steps, every, chunk, sample) + 1)) * model.dt
    with claim(folder):
        checkpoints = Checkpoints(folder / "checkpoints", fingerprint=about, allow=allow)
        found = checkpoints.latest(state)
        keep = None if found is None else found[2]["records"]
        if keep is not None and found[0] > first + steps:
            raise ValueError(f"{folder} is already at step {found[0]}, beyond the {first + steps} asked for")
        cf = dict(attrs=attrs, dimensions=dimensions, coordinates=coordinates, missing=missing, keep=keep)
        store = open_store(folder / "output.zarr", grid, time, **cf)
        if found is None:  # from here on, output without a checkpoint is not ours
            checkpoints.save(first, state, {"records": 0})
        else:
            state = found[1]
        events, left = [] if found is None else found[2].get("events", []), first + steps - int(state.step)
        options = dict(every=every, chunk=chunk, save=save, mean=mean, sample=sample, courant=courant, hold=hold)
        chunks = climb(model, state, left, events, rungs=rungs, missing=missing, progress=progress, **options)
        try:
            return _write(chunks, state, left, store, checkpoints, events, callback)
        finally:
            write_report(folder, events, model.dt)


def _check_outputs(model, state: State, save, mean, grid, dimensions: Mapping):
    """Raise for a name or shape that a store does not take, before anything is computed or written."""
    frames = {name: f and eqx.filter_eval_shape(f, model, state) for name, f in {"save": save, "mean": mean}.items()}
    zeros = jax.tree.map(lambda a: np.broadcast_to(np.zeros((), a.dtype), a.shape), frames)
    for name, a in collect(zeros).items():
        attributes(name, grid)
        dimension_names(name, a.shape, grid, dimensions)


def _write(chunks, state: State, left: int, store, checkpoints: Checkpoints, events: list, callback) -> State:
    """Output and a checkpoint of every chunk; the last state."""
    last = int(state.step) + left

    def stop_early(state):
        if int(state.step) < last:
            stop_if_asked(f"at step {int(state.step)}, in {checkpoints.folder.parent}")

    stop_early(state)
    for state, frames in chunks:  # noqa: B020
        store.append(frames)
        if callback is not None:
            callback(state, frames)
        checkpoints.save(int(state.step), state, {"records": store.records, "events": events})
        stop_early(state)
    return state
