"""Bias correction: tendencies of the prognostics learnt from analysis increments."""

from collections.abc import Mapping

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from hybridgcm.closures.base import AbstractClosure, calls_before, require, time_step


class BiasCorrection(AbstractClosure):
    """d`name` = the climatological increment of that name: an array, or one per phase of a calendar.

    `increments` maps prognostics (or u and v) to tendencies on the grid of the model, `[layer, y, x]`, or
    `[phase, layer, y, x]` for equal parts of a `period` (s), each held through its part. The calendar is `start` (s
    into the period) + `dt` (s, the model's) × the number of calls so far, which is the memory: closures are not told
    the time. Trainable: the increments. The transforms are those of `lift`.

    The part that depends on the state is a network: `Sum(BiasCorrection.from_increments(...),
    NetworkClosure.from_data(net, states, increments))`. `batches.increments` makes the pairs of state and increment
    that both are fitted to, `offline` first and then `online` on windows of analyses. `Every(n)` holds any of them over
    an assimilation window.

    Raises `ValueError` for increments of other than 3 or 4 axes, unequal numbers of phases, a period that is not a
    whole number of dt, and at `init` for unknown names and shapes other than those of the fields.
    """

    increments: dict[str, Array]
    period: int | None = eqx.field(static=True)
    start: int = eqx.field(static=True)
    dt: float | None = eqx.field(static=True)

    def __init__(self, increments: Mapping, *, period=None, start=0.0, dt=None):
        self.increments = {name: a if eqx.is_array(a) else jnp.asarray(a, float) for name, a in increments.items()}
        axes = {name: a.ndim for name, a in self.increments.items()}
        phases = {len(a) for a in self.increments.values() if a.ndim == 4}
        expected = 3 if period is None else 4
        if set(axes.values()) != {expected} or len(phases) > 1:
            raise ValueError(
                "increments are [layer, y, x] without a period, [phase, layer, y, x] with one, as many for all names; "
                f"got period={period} and { ({name: a.shape for name, a in self.increments.items()}) }"
            )
        self.period, self.start, self.dt = None, 0, None
        if period is not None:
            self.dt = time_step("BiasCorrection", dt)
            self.period, self.start = _steps("period", period, self.dt), _steps("start", start, self.dt)

    @classmethod
    def from_increments(cls, increments: Mapping, *, phase=None, period=None, start=0.0, dt=None):
        """Closure of the mean over samples `[sample, layer, y, x]` by name, or over those of each phase.

        `phase`: number of the part of the `period` that each sample falls in, `[sample]`. Averaged in double precision
        on the host. Raises `ValueError` for a phase without samples.
        """
        data = {name: np.asarray(a, float) for name, a in increments.items()}
        if phase is None:
            return cls({name: a.mean(0) for name, a in data.items()})
        phase = np.asarray(phase)
        count = np.bincount(phase)
        if (count == 0).any():
            raise ValueError(f"phases 0 to {len(count) - 1} need samples each; got {count.tolist()}")
        means = {name: np.stack([a[phase == p].mean(0) for p in range(len(count))]) for name, a in data.items()}
        return cls(means, period=period, start=start, dt=dt)

    def init(self, fields, grid):
        require("BiasCorrection", self.increments, fields)
        for name, a in self.increments.items():
            if a.shape[-3:] != fields[name].shape:
                raise ValueError(
                    f"the increment of {name} has shape {a.shape[-3:]}, expected {fields[name].shape} [layer, y, x]; "
                    "use grid.resize to change resolution"
                )
        if self.period is None:
            return None
        return {"calls": (calls_before(fields, self.dt) + self.start) % self.period}

    def __call__(self, fields, grid, memory, key):
        if self.period is None:
            return {name: jnp.asarray(a) for name, a in self.increments.items()}, memory
        # The clock counts modulo the period: neither overflow nor rounding, however long the run.
        now = memory["calls"] * len(next(iter(self.increments.values()))) // self.period
        forcing = {name: jnp.take(a, now, axis=0) for name, a in self.increments.items()}
        return forcing, {"calls": (memory["calls"] + 1) % self.period}


def _steps(name: str, time, dt: float) -> int:
    steps = round(time / dt)
    if abs(steps * dt - time) > 1e-6 * dt or (name == "period" and steps < 1):
        raise ValueError(f"{name} = {time} s is not a whole number of steps of dt = {dt} s")
    return steps
