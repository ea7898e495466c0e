"""Forecasts of any model: one or many members from one or many starts, as labelled data or streamed to a store."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array

from hybridgcm._typing import nearest, without_time
from hybridgcm.cf import CALENDAR, attributes, dimension_names
from hybridgcm.data import read_store, to_dataset
from hybridgcm.ensemble import Ensemble, Perturb, check_members, grid_of, started
from hybridgcm.models import AbstractModel, State, count_steps
from hybridgcm.resume import resumable_rollout
from hybridgcm.rollout import count_frames, stream

Diagnostic = Callable[[Any, State], Array]
AXES = ("start_time", "member", "lead_time")
"""Leading dimensions of every variable of a forecast."""


def forecast(
    model: AbstractModel,
    starts: Mapping[str, Any],
    steps: int,
    *,
    every: int = 1,
    members: int = 1,
    perturb: Perturb | None = None,
    key: Array | None = None,
    variables: Sequence[str] | None = None,
    diagnostics: Mapping[str, Diagnostic] | None = None,
    store=None,
    courant: float = 1.0,
    together: int = 1,
    dimensions: Mapping[str, Sequence[str]] | None = None,
    coordinates: Mapping[str, Any] | None = None,
    attrs: Mapping[str, Any] | None = None,
    progress: str | None = None,
):
    """`xarray.Dataset` of forecasts over `steps` steps, a record at the start and after every `every` steps.

    Variables have the dimensions (start_time, member, lead_time, layer, y, x), those of the grid as in `open_store`,
    times in s; the coordinate `time` is when a record is valid, `failed_at` the lead time at which a member was first
    seen to be not finite or above the Courant number `courant`: from there on its values are nan, a `RuntimeWarning`
    says so, and the others go on. A diagnostic that is not finite is nan, too.

    - `starts`: fields `[layer, y, x]`, or `[start, layer, y, x]` with their `time` `[start]`, s: a dict, or a data set
      like `read_store(path)[["q"]].isel(time=[0, 8])`. The model's clock starts at that time.
    - `perturb`: makes the members of a start, see `perturbations`; without, they differ by the noise of their closure.
      All that is random in member j of a start comes from `key`, the start's time and j: it does not depend on what
      other members and starts there are, to the last bit with the default of `together`, see `parallel.members`.
    - `variables`: names of `model.view`; by default its prognostics. `diagnostics`: {name: function(model, state)}, an
      array each, with a unit in `VARIABLES`; their `dimensions` and `coordinates` as in `open_store`.
    - `store`: a folder. Records are then written to `store/output.zarr` as they come, readable at any moment with
      `read_store` or `xarray.open_zarr(..., consolidated=False)`, with lead_time in front on disk, and the data set
      that returns is read from there lazily. Killed, the same call goes on from the last record, bit for bit, and
      refuses what `resumable_rollout` refuses. Perturbations are made anew, so they must be functions of their keys.

    Raises `ValueError` for what is missing or has another shape than said here.
    """
    count_frames(steps, every, None)
    names = _check(model, members, perturb, key, variables, dict(diagnostics or {}))
    begin, batch = _batch(model, starts, members, perturb, jr.key(0) if key is None else key)
    ensemble = Ensemble(model, every, courant, together, (len(begin), members))
    state = ensemble.begin(batch)
    save = eqx.Partial(_record, names, tuple((diagnostics or {}).items()))
    about = _labels(ensemble, state, save, begin, dimensions or {}, coordinates or {})
    about["attrs"] = {"title": f"forecast by {type(model).__name__}", **(attrs or {})}
    frames = steps // every + 1
    if store is None:
        data, state = _in_memory(ensemble, state, frames, save, progress, about)
    else:
        about["attrs"]["record_dimension"] = "lead_time"
        options = {"save": save, "progress": progress, "missing": tuple(about["dimensions"])}
        state = resumable_rollout(ensemble, state, frames, store, **options, **about)
        data = read_store(Path(store) / "output.zarr").transpose(*AXES, ...)
    return _report(data, ensemble, state)


def _in_memory(ensemble, state: State, frames: int, save, progress, about: dict):
    """The data set of all records, and the last state."""
    records, names = [], tuple(about["dimensions"])
    for state, out in stream(ensemble, state, frames, save=save, progress=progress, missing=names):  # noqa: B007, B020
        records.append(out["save"])
    arrays = {n: np.moveaxis(np.concatenate([record[n] for record in records]), 0, 2) for n in names}
    dimensions = {n: (*AXES, *d[2:]) for n, d in about["dimensions"].items()}
    coordinates = about["coordinates"] | {"lead_time": ensemble.dt * np.arange(frames)}
    about = about | {"dimensions": dimensions, "coordinates": coordinates}
    return to_dataset(arrays, ensemble.grid, **about), state


def _record(variables, diagnostics, ensemble: Ensemble, state: State) -> dict[str, Array]:
    """What is kept of all members, nan where there is nothing."""

    def one(model, member):
        now = member["state"]
        if variables is None:
            fields = model.decode(now)
        else:
            fields = {name: a for name, a in model.view(now).items() if name in variables}
        for name, function in diagnostics:
            fields[name] = function(model, now)
            if not eqx.is_array(fields[name]):
                kind = type(fields[name]).__name__
                raise ValueError(f"the diagnostic {name!r} gives a {kind}, expected one array: make a function of each")
        return {n: jnp.where((member["failed"] < 0) & jnp.isfinite(a), a, jnp.nan) for n, a in fields.items()}

    return ensemble.each(one, state)


def _check(model, members, perturb, key, variables, diagnostics):
    """Names of `variables` as a tuple; raises for what cannot be meant."""
    grid = grid_of(model)
    if isinstance(members, bool) or not isinstance(members, int | np.integer) or members < 1:
        raise ValueError(f"members is how many there are of each start, a whole number from 1; got {members!r}")
    if perturb is not None and not callable(perturb):
        raise ValueError(f"perturb is a function (model, state, keys) -> states, as in perturbations; got {perturb!r}")
    if key is None and (perturb is not None or members > 1):
        raise ValueError(f"{members} members draw random numbers, so a key is needed; pass key=jax.random.key(seed)")
    if perturb is None:
        check_members(model, members, "pass perturb=, such as perturbations.noise(...), or members=1")
    for name, function in diagnostics.items():
        if not callable(function):
            raise ValueError(f"diagnostics are functions (model, state) -> array; {name!r} is {function!r}")
        attributes(name, grid)
    if isinstance(variables, str):
        raise ValueError(f"variables is a tuple of names, like ({variables!r},); got {variables!r}")
    twice = set(variables or ()) & set(diagnostics)
    if twice:
        raise ValueError(f"{sorted(twice)} are asked for both as variables and as diagnostics; rename the diagnostics")
    return None if variables is None else tuple(variables)


def _batch(model, starts, members, perturb, key) -> tuple[np.ndarray, State]:
    """Start times, and the states of all members of all starts."""
    fields = {name: np.asarray(a) for name, a in without_time(starts).items()}
    shapes = {name: a.shape for name, a in fields.items()}
    several = {a.ndim for a in fields.values()} == {4}
    if (
        not fields
        or {a.ndim for a in fields.values()} not in ({3}, {4})
        or (several and len({s[0] for s in shapes.values()}) > 1)
    ):
        raise ValueError(f"starts are fields [layer, y, x], or all of them [start, layer, y, x]; got {shapes}")
    count = next(iter(shapes.values()))[0] if several else 1
    if several and "time" not in starts:
        raise ValueError(f'{count} starts need their times: add "time": [...] to starts, s, {count} of them')
    times = np.atleast_1d(np.asarray(starts.get("time", 0.0)))
    if times.dtype.kind not in "fiu" or times.shape != (count,) or not (np.diff(times) > 0).all():
        raise ValueError(
            f"the times of {count} starts are as many numbers, s, increasing; got {times!r} (of a file, "
            "decode_times=False gives numbers)"
        )
    groups = []
    for index, time in enumerate(times):
        step = count_steps(model, float(time))
        own = jr.fold_in(key, np.uint32(step % 2**32))
        keys = jax.vmap(lambda j: jr.fold_in(own, j))(jnp.arange(members))  # noqa: B023 - used at once
        state = started(model, {name: a[index] if several else a for name, a in fields.items()}, step, own)
        batch = jax.tree.map(lambda a: jnp.repeat(a[None], members, 0), state)
        if perturb is not None:
            made = perturb(model, state, jax.vmap(lambda k: jr.fold_in(k, 1))(keys))
            batch = _alike(made, batch, members)
        groups.append(eqx.tree_at(lambda states: states.key, batch, keys))
    return times.astype(float), jax.tree.map(lambda *a: jnp.concatenate(a), *groups)


def _alike(made, expected: State, members: int) -> State:
    """What `perturb` returned, if it is the states of so many members."""
    advice = f"perturb returns the states of all {members} members; wrap a function of one key in perturbations.each"
    if jax.tree.structure(made) != jax.tree.structure(expected):
        raise ValueError(f"{advice}; got {type(made).__name__} {jax.tree.structure(made)}")
    pairs = zip(jax.tree_util.tree_leaves_with_path(made), jax.tree.leaves(expected), strict=True)
    for (path, a), b in pairs:
        if jnp.shape(a) != b.shape or jnp.result_type(a) != b.dtype:
            where = jax.tree_util.keystr(path).lstrip(".")
            raise ValueError(f"{advice}; {where} is {jnp.shape(a)} {jnp.result_type(a)}, expected {b.shape} {b.dtype}")
    return made


def _labels(ensemble: Ensemble, state, save, begin, dimensions, coordinates) -> dict:
    """Dimensions and coordinates of what `save` gives; raises for what cannot be labelled."""
    shapes = eqx.filter_eval_shape(save, ensemble, state)
    names, _ = save.args
    lost = sorted(set(names or ()) - set(shapes))
    if lost:
        offered = sorted(eqx.filter_eval_shape(ensemble.view, state))
        raise ValueError(f"the model has no {lost[0]!r}, it offers {offered}{nearest(lost[0], offered)}")
    found = {}
    for name, shape in shapes.items():
        attributes(name, ensemble.grid)
        found[name] = AXES[:2] + dimension_names(name, shape.shape[2:], ensemble.grid, dimensions)
    places = {"start_time": begin, "member": np.arange(ensemble.shape[1]), **coordinates}
    return {"dimensions": found, "coordinates": places}


def _report(data, ensemble: Ensemble, state: State):
    """The data with `time` and `failed_at`; warns of members that failed."""
    failed = np.asarray(state.memory["failed"])[: np.prod(ensemble.shape)].reshape(ensemble.shape)
    seen = np.where(failed < 0, np.nan, failed * ensemble.dt)
    text = {"units": "s", "long_name": "lead time at which a member left the physical range"}
    valid = data["start_time"].values[:, None] + data["lead_time"].values
    data = data.assign_coords(
        time=(("start_time", "lead_time"), valid, {k: v for k, v in CALENDAR.items() if k != "axis"})
    )
    data = data.assign_coords(failed_at=(("start_time", "member"), seen, text))
    if (failed >= 0).any():
        s, m = (int(i) for i in np.argwhere(failed >= 0)[0])
        warnings.warn(
            f"{int((failed >= 0).sum())} of {failed.size} members failed, the first number {m} of the start at "
            f"{data['start_time'].values[s]:g} s, {seen[s, m]:g} s after it; their values are nan from there on "
            "(failed_at). Try a shorter dt or smaller perturbations.",
            RuntimeWarning,
            stacklevel=3,
        )
    return data
