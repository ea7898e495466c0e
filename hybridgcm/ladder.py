"""A crash ladder: a run that blows up returns to its last good state and goes on, for a while, more carefully."""

import dataclasses
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

from hybridgcm.closures.base import AbstractClosure, Every
from hybridgcm.files import atomic
from hybridgcm.models import AbstractModel, Model, State
from hybridgcm.rollout import BlewUp, stream
from hybridgcm.steppers import Filtered, exponential_filter

Rung = Callable[[Model, State], tuple[Model, State]]
"""From a model and the last good state to those to go on with. The state is adapted to the model afterwards."""


def halve_dt(model: Model, state: State) -> tuple[Model, State]:
    """Half the time step; a frame then takes twice the steps, so that records stay where they were.

    A closure that was made for a time step (noise, a clock) is called at every second step and held in between.
    """
    closure = model.closure
    made_for_a_step = lambda part: isinstance(part, AbstractClosure) and hasattr(part, "dt")
    if any(map(made_for_a_step, jax.tree.leaves(closure, is_leaf=made_for_a_step))):
        closure = Every(closure, 2)
    return dataclasses.replace(model, dt=model.dt / 2, closure=closure), state


def stronger_filter(model: Model, state: State) -> tuple[Model, State]:
    """pyqg's exponential filter from .4π on, not .65π, after every step, besides all that damps already."""
    factor = exponential_filter(model.equation.grid, cutoff=0.4 * np.pi)
    return dataclasses.replace(model, stepper=Filtered(model.stepper, factor)), state


def closure_off(model: Model, state: State) -> tuple[Model, State]:
    """The solver alone."""
    return dataclasses.replace(model, closure=None), state


def perturb(model: Model, state: State) -> tuple[Model, State]:
    """Every prognostic times 1 + 1e-6 ε on the grid, means kept; ε is normal noise given by the key and the step."""
    key = jr.fold_in(jr.fold_in(state.key, state.step), 1)
    noisy = {}
    for number, (name, field) in enumerate(sorted(model.decode(state).items())):
        change = 1e-6 * field * jr.normal(jr.fold_in(key, number), field.shape, field.dtype)
        change = change - change.mean((-2, -1), keepdims=True)
        noisy[name] = state.y[name] + model.equation.grid.to_spectral(change)
    return model, eqx.tree_at(lambda s: s.y, state, {name: noisy[name] for name in state.y})


RUNGS: tuple[Rung, ...] = (halve_dt, stronger_filter, closure_off, perturb)
"""In this order, each on top of those before it: no attempt is bolder than one that failed."""
RELAPSE = 10
"""Lengths of a detour after which a blow-up no longer counts as the same trouble."""


def climb(
    model: AbstractModel,
    state: State,
    steps: int,
    events: list[dict],
    *,
    rungs: Sequence[Rung] = RUNGS,
    hold: int = 1,
    every: int = 1,
    chunk: int = 1,
    progress: str | None = None,
    **options,
) -> Iterator[tuple[State, dict]]:
    """`stream`, except that a chunk that blows up is repeated with the first rung, then the first two, and so on.

    A rung that carries the chunk is kept for `hold` chunks in all, then the model as given returns. If that blows
    up again within ten times as many chunks, the same rung comes back for twice as long; later, it starts with the
    first rung for `hold` chunks. States and frames are always those of the model as given: same step
    numbers, same times; the history of the stepper starts afresh at every change of model, so does the closure's
    memory if the closure was off. `events` is appended to, one dict per attempt, and read to go on in the midst of a
    detour: a run that is resumed from (state, events) is that of one go.

    Rungs are for a `Model`; without them any model will do.
    Raises `BlewUp`, with the report as a note, when all rungs have failed at one chunk (at once if there are none),
    and `ValueError` for a rung whose time step does not divide that of the model.
    """
    size, last = every * chunk, int(state.step) + steps
    options |= {"chunk": chunk}
    while int(state.step) < last:
        detour = _under_way(events, int(state.step), rungs)
        try:
            if detour is None:
                left = last - int(state.step)
                for state, frames in stream(model, state, left, every=every, progress=progress, **options):  # noqa: B020
                    yield state, frames
            else:
                state, frames = _detour(model, state, rungs[: len(detour["rungs"])], every, options)
                if int(state.step) >= detour["until"]:
                    detour["outcome"] = "passed"
                yield state, frames
        except BlewUp as error:
            level, chunks = _next(events, detour, int(state.step), size, hold)
            if detour is not None:
                detour["outcome"] = f"failed at step {error.step}"
            if level > len(rungs):
                if events:
                    error.add_note(report(events, model.dt))
                raise
            events.append(
                {
                    "step": int(state.step),
                    "until": min(int(state.step) + chunks * size, last),
                    "field": error.field,
                    "seen": error.step,
                    "value": None if np.isnan(error.value) else error.value,
                    "rungs": [rung.__name__ for rung in rungs[:level]],
                    "chunks": chunks,
                    "outcome": "under way",
                }
            )


def adapt(state: State, old: Model, new: Model) -> State:
    """The state of the same moment for another model.

    Steps are counted in the new dt; history and closure memory are kept where stepper, dt and closure are the same
    (`Every` put around a closure or taken off counts as the same), else as at a start.
    """
    if old.dt != new.dt or not eqx.tree_equal(old.stepper, new.stepper):
        step = jnp.asarray(round(int(state.step) * old.dt / new.dt), state.step.dtype)
        state = State(state.y, step, new.stepper.init(state.y), state.memory, state.key)
    if not eqx.tree_equal(old.closure, new.closure):
        grid, closure = new.equation.grid, new.closure
        memory = None if closure is None else closure.init(new.equation.view(state.y), grid)
        if isinstance(closure, Every) and eqx.tree_equal(closure.inner, old.closure):
            memory = memory | {"inner": state.memory}
        elif isinstance(old.closure, Every) and eqx.tree_equal(old.closure.inner, closure):
            memory = state.memory["inner"]
        state = State(state.y, state.step, state.past, memory, state.key)
    return state


def report(events: Sequence[dict], dt: float) -> str:
    """What was done, as text: one line per attempt, steps of `dt` seconds."""
    lines = [f"{len(events)} interventions of the crash ladder; steps of {dt:g} s of the model as given:"]
    for event in events:
        why = event["field"] + (" not finite" if event["value"] is None else f" {event['value']:.3g}")
        lines.append(
            f"  step {event['step']}: {why} at step {event['seen']}; {' + '.join(event['rungs'])} until step "
            f"{event['until']}: {event['outcome']}"
        )
    spent = sum(event["until"] - event["step"] for event in events if event["outcome"] == "passed")
    lines.append(f"  {spent} steps under a changed model, besides attempts that failed")
    return "\n".join(lines)


def write_report(folder, events: Sequence[dict], dt: float):
    """`ladder.json`, the events, and `ladder.txt`, the report, into a folder; nothing if nothing happened."""
    texts = {"json": json.dumps(list(events), indent=1), "txt": report(events, dt)} if events else {}
    for suffix, text in texts.items():
        with atomic(Path(folder) / f"ladder.{suffix}") as temporary:
            temporary.write_text(text + "\n")


def _under_way(events: list[dict], step: int, rungs: Sequence[Rung]) -> dict | None:
    """The event whose rungs hold at a step, if any."""
    if not events or events[-1]["outcome"] != "under way":
        return None
    given = [rung.__name__ for rung in rungs[: len(events[-1]["rungs"])]]
    if given != events[-1]["rungs"]:
        raise ValueError(
            f"the run is at step {step} of a detour by {events[-1]['rungs']}, the rungs now begin with {given}; "
            "go on with those that it was begun with"
        )
    return events[-1]


def _next(events: list[dict], detour: dict | None, step: int, size: int, hold: int) -> tuple[int, int]:
    """(number of rungs, chunks) of the attempt after a failure at the chunk from `step` on."""
    if detour is not None:
        return len(detour["rungs"]) + 1, detour["chunks"]
    if events and step - events[-1]["until"] < RELAPSE * events[-1]["chunks"] * size:
        return len(events[-1]["rungs"]), 2 * events[-1]["chunks"]
    return 1, hold


def _detour(model: Model, state: State, rungs: Sequence[Rung], every: int, options: dict) -> tuple[State, dict]:
    """One chunk under the rungs, as (state, frames) of the model as given."""
    first, other, moved = int(state.step), model, state
    for rung in rungs:
        new, changed = rung(other, moved)
        other, moved = new, adapt(changed, other, new)
    n = max(1, round(model.dt / other.dt))
    if not np.isclose(n * other.dt, model.dt, rtol=1e-9):
        raise ValueError(f"rungs may divide dt = {model.dt:g} s by a whole number; got {other.dt:g} s")
    chunk, options = options["chunk"], options | {"sample": n * options.get("sample", 1)}
    try:
        ((end, frames),) = stream(other, moved, n * every * chunk, every=n * every, **options)
    except BlewUp as error:
        raise BlewUp(error.field, -(-error.step // n), state, error.value) from None
    end = adapt(end, other, model)
    step = first + every * np.arange(1, chunk + 1)
    return end, frames | {"step": step, "time": step * model.dt}
