"""Many steps: in one compiled program, or streamed to the host chunk by chunk."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from hybridgcm.models import AbstractModel, State

YEAR = 360 * 86400.0
"""A model year, s: 360 days, as in the quasi-geostrophic literature."""


def view(model: AbstractModel, state: State) -> dict:
    """`model.view(state)`: what `rollout` and `stream` save unless told otherwise."""
    return model.view(state)


class BlewUp(RuntimeError):
    """A rollout left the physical range: not finite, or faster than the grid can carry.

    `field`: the offending array; `step`: first frame's step at which it was seen; `state`: the last good
    state, at step `state.step`, to restart from; `value`: a Courant number, or nan.
    """

    def __init__(self, field: str, step: int, state: State, value: float = np.nan):
        self.field, self.step, self.state, self.value = field, step, state, value
        what = "is not finite" if np.isnan(value) else f"is {value:.3g}, above the limit"
        super().__init__(
            f"{field} {what} at step {step}; the last good state is at step {int(state.step)} (error.state). "
            "Try a shorter dt (hybridgcm.ladder.adapt takes a state to another model), a smaller tau, a weaker closure."
        )


def rollout(
    model: AbstractModel,
    state: State,
    steps: int,
    *,
    every: int = 1,
    save: Callable[[Any, State], Any] | None = view,
    mean: Callable[[Any, State], Any] | None = None,
    sample: int = 1,
    chunk: int | None = None,
) -> tuple[State, dict]:
    """The state after `steps` steps, and frames `{"save": ..., "mean": ...}` with leading axis steps/every.

    `save(model, state)` is kept after every `every` steps (not at the start); `mean(model, state)` is averaged
    over the `every` states up to and including each frame, so statistics cost no memory; `None` leaves one out.
    `sample`: of these states every so many-th, where `mean` costs more than a step.
    With `chunk`, blocks of that many frames are rematerialised in the backward pass: memory goes from all steps
    to frames/chunk + chunk·every of them, for one more forward pass. chunk ≈ √frames is a good choice.

    Not jitted itself: wrap it in `eqx.filter_jit`, `eqx.filter_grad` or `eqx.filter_vmap`. Raises `ValueError`
    if `every` does not divide `steps`, `sample` does not divide `every`, or `chunk` the frames.
    """
    frames = count_frames(steps, every, chunk, sample)

    def advance(state, steps):
        return jax.lax.scan(lambda state, _: (model.step(state), None), state, None, length=steps)[0]

    def add(carry, index):
        state, average = carry
        state = advance(state, sample)
        average = jax.tree.map(lambda a, new: a + (new - a) / (index + 1), average, mean(model, state))
        return (state, average), None

    def frame(state, _):
        average = None
        if mean is None:
            state = advance(state, every)
        else:  # a condition in every step instead would copy the state in every step
            shapes = eqx.filter_eval_shape(mean, model, state)
            start = state, jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), shapes)
            (state, average), _ = jax.lax.scan(add, start, jnp.arange(every // sample))
        return state, {"save": None if save is None else save(model, state), "mean": average}

    if chunk is None:
        return jax.lax.scan(frame, state, None, length=frames)
    block = jax.checkpoint(lambda state, _: jax.lax.scan(frame, state, None, length=chunk))
    state, out = jax.lax.scan(block, state, None, length=frames // chunk)
    return state, jax.tree.map(lambda a: a.reshape(frames, *a.shape[2:]), out)


@eqx.filter_jit
def _chunk(model, state, steps, every, save, mean, sample):
    """One compiled chunk with what the host checks at every frame: finite flags per prognostic, Courant number."""
    finite = lambda state: jax.tree.map(lambda a: jnp.isfinite(jnp.sum(jnp.abs(a))), state.y)
    watched = lambda model, state: (None if save is None else save(model, state), finite(state), model.courant(state))
    state, out = rollout(model, state, steps, every=every, save=watched, mean=mean, sample=sample)
    kept, finite, courant = out["save"]
    return state, {"save": kept, "mean": out["mean"]}, finite, courant


def stream(
    model: AbstractModel,
    state: State,
    steps: int,
    *,
    every: int = 1,
    chunk: int = 1,
    save: Callable[[Any, State], Any] | None = view,
    mean: Callable[[Any, State], Any] | None = None,
    sample: int = 1,
    courant: float = 1.0,
    progress: str | None = None,
    missing: Sequence[str] = (),
) -> Iterator[tuple[State, dict]]:
    """Generator around `rollout`: yields (state, {"save", "mean", "step", "time"}) after every `chunk` frames.

    Arrays come as NumPy with a leading frame axis; `step` is the integer step of each frame, `time` the same in
    s. The next chunk runs while the caller has this one, so output is overlapped. A long run stops with
    `BlewUp` as soon as a chunk holds a frame with a value that is not finite or a Courant number above `courant`;
    everything yielded before is good. `progress` labels a bar with simulated years (of 360 days) per minute.
    In outputs named in `missing`, nan says that there is no value, and stops nothing.

    Output, restart and early stop are the caller's loop body. Raises `ValueError` as `rollout` does.
    """
    frames = count_frames(steps, every, chunk, sample)
    bar = _Bar(progress, steps, model.dt) if progress else None
    size = chunk * every
    first = int(state.step)
    pending = _chunk(model, state, size, every, save, mean, sample)
    try:
        for index in range(frames // chunk):
            good, (state, out, finite, speed) = state, pending
            if index + 1 < frames // chunk:
                pending = _chunk(model, state, size, every, save, mean, sample)
            step = first + index * size + every * np.arange(1, chunk + 1)
            out, finite, speed = jax.tree.map(np.asarray, (out, finite, speed))
            _check(out, finite, speed, step, good, courant, missing)
            if bar:
                bar.update(size)
            yield (
                state,
                {name: value for name, value in out.items() if value is not None}
                | {"step": step, "time": step * model.dt},
            )
    finally:
        if bar:
            bar.close()


def count_frames(steps: int, every: int, chunk: int | None, sample: int = 1) -> int:
    """steps/every. Raises `ValueError` if that is no whole number, or no multiple of `chunk`, or every of `sample`."""
    if steps < 1 or every < 1 or steps % every:
        raise ValueError(f"every={every} must divide steps={steps}, both positive")
    if sample < 1 or every % sample:
        raise ValueError(f"sample={sample} must divide the every={every} steps of a frame, whose mean it is")
    frames = steps // every
    if chunk is not None and (chunk < 1 or frames % chunk):
        raise ValueError(f"chunk={chunk} must divide the {frames} frames of {steps} steps, one every {every}")
    return frames


def _check(out: dict, finite: dict, speed: np.ndarray, step: np.ndarray, good: State, limit: float, missing):
    fine = {f"state.y.{name}": flags for name, flags in finite.items()}
    for path, leaf in jax.tree_util.tree_leaves_with_path(out):
        if np.issubdtype(leaf.dtype, np.inexact):
            name = jax.tree_util.keystr(path, simple=True, separator=".")
            fit = np.isfinite(leaf) | (np.isnan(leaf) & (name.split(".")[-1] in missing))
            fine[name] = fit.reshape(len(step), -1).all(1)
    first = {name: int(step[(~flags).argmax()]) for name, flags in fine.items() if not flags.all()}
    fast = ~(speed <= limit)
    if fast.any():
        first["Courant number"] = int(step[fast.argmax()])
    if not first:
        return
    # Of those that go first, prognostics are what the user can act on; a Courant number that is finite comes earlier.
    name = min(first, key=lambda name: (first[name], name.split(".")[-1] not in finite, name.startswith("state.y")))
    raise BlewUp(name, first[name], good, float(speed[fast.argmax()]) if name == "Courant number" else np.nan)


class _Bar:
    """tqdm over steps, with simulated years per minute."""

    def __init__(self, label: str, steps: int, dt: float):
        from tqdm.auto import tqdm

        self.dt, self.done = dt, 0
        self.bar = tqdm(total=steps, desc=label, unit="step", unit_scale=True, mininterval=1.0)

    def update(self, steps: int):
        self.done += steps
        self.bar.update(steps)
        elapsed = self.bar.format_dict["elapsed"]
        if elapsed > 0:
            self.bar.set_postfix_str(f"{self.done * self.dt / YEAR / elapsed * 60:.3g} years/min", refresh=False)

    def close(self):
        self.bar.close()
