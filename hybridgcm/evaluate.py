"""The same starts for many models: stability, short-range errors, and survival of long free runs."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array

from hybridgcm._typing import without_time
from hybridgcm.models import AbstractModel
from hybridgcm.rollout import BlewUp, rollout, stream

Fields = Mapping[str, Array | np.ndarray]
LIMIT = 10.0
"""A run whose variance exceeds this many times the truth's has failed, finite or not."""


def evaluate(
    models: Mapping[str, AbstractModel],
    starts: Fields,
    future: Fields,
    steps: int,
    every: int,
    metrics: Mapping[str, Callable[[Fields, Fields], Array]],
    *,
    key: Array | None = None,
) -> dict[str, dict]:
    """Table {model: {"stable": fraction, metric: array over time}} of rollouts from the same starts.

    `starts`: fields `[start, layer, y, x]`, and their `time` `[start]`, s, where models have a clock; `future`: the
    truth `[start, time, layer, y, x]`, one frame after every `every` steps, steps/every in all. A start is stable if
    every field of `future` stays finite and the variance of each of its layers within ten times the truth's (the
    largest over time). Metrics, functions of (prediction, target) as in `metrics`, are means over the stable starts,
    nan if there is none. `key` is for stochastic models. Raises `ValueError` for shapes that do not agree.
    """
    count = _check(starts, future, steps, every)
    keys = jr.split(jr.key(0) if key is None else key, count)
    table = {}
    for label, model in models.items():
        prediction = _predict(model, starts, keys, steps, every, tuple(future))
        stable = np.asarray(_stable(prediction, future))
        row = {"stable": float(stable.mean())}
        for name, metric in metrics.items():
            values = np.asarray(jax.vmap(metric)(prediction, dict(future)))
            row[name] = values[stable].mean(0) if stable.any() else np.full(values.shape[1:], np.nan)
        table[label] = row
    return table


def verify(data, truth: Mapping, metrics: Mapping[str, Callable[[Fields, Fields], Array]]):
    """Scores of a `forecast` against the truth at the time at which each record is valid, (start_time, lead_time, ...).

    `metrics`: {name: metric of (prediction `[member, layer, y, x]`, target `[layer, y, x]`)}, such as `metrics.crps`;
    `truth`: fields `[time, layer, y, x]` with their `time`, s, a dict or a data set. Members that failed at any start
    are left out of all scores; the attribute `members` says how many are in. Raises `ValueError` for times that the
    truth does not have, and if no member is left.
    """
    fit = np.asarray(data["failed_at"].isnull().all("start_time"))
    if not fit.any():
        raise ValueError("every member failed at some start: none is left to be scored; see the coordinate failed_at")
    known, valid = np.asarray(truth["time"], float), np.asarray(data["time"], float)
    index = np.abs(known[:, None, None] - valid).argmin(0)
    if np.abs(known[index] - valid).max() > 1e-6 * max(1.0, np.abs(valid).max()):
        bad = valid[np.abs(known[index] - valid) > 1e-6 * max(1.0, np.abs(valid).max())]
        raise ValueError(
            f"the truth has no record at {bad[0]} s (of {bad.size} times); it runs from {known[0]} s to "
            f"{known[-1]} s: choose lead times with data.sel(lead_time=...)"
        )
    names = [n for n in data.data_vars if n in truth]
    tables = {label: [] for label in metrics}
    score = {label: eqx.filter_jit(metric) for label, metric in metrics.items()}
    for start, lead in np.ndindex(valid.shape):
        record = data[names].isel(start_time=start, lead_time=lead, member=fit)
        prediction = {n: jnp.asarray(record[n].values) for n in names}
        target = {n: jnp.asarray(np.asarray(truth[n][int(index[start, lead])])) for n in names}
        for label, metric in score.items():
            tables[label].append(np.asarray(metric(prediction, target)))
    shaped = {label: np.stack(rows).reshape(*valid.shape, *rows[0].shape) for label, rows in tables.items()}
    dims = lambda label, a: ("start_time", "lead_time", *(f"{label}_{i}" for i in range(a.ndim - 2)))
    empty = data.drop_vars([*data.data_vars, *(set(data.coords) - {"start_time", "lead_time", "time"})])
    return empty.assign({n: (dims(n, a), a) for n, a in shaped.items()}).assign_attrs(members=int(fit.sum()))


class Survival(NamedTuple):
    """`survivors` of `attempts`; per attempt the step at which it was first seen to fail (else None) and why."""

    attempts: int
    survivors: int
    first_bad_step: tuple[int | None, ...]
    reason: tuple[str, ...]


def survivors(
    model: AbstractModel,
    starts: Fields,
    steps: int,
    *,
    every: int = 100,
    reference: Fields | None = None,
    courant: float = 1.0,
    key: Array | None = None,
) -> Survival:
    """How many free runs of `steps` steps stay finite, within the Courant limit and bounded in variance.

    `starts`: fields `[start, layer, y, x]`, and `time` as in `evaluate`. Bounded: in every layer, variance at most ten
    times the largest of `reference` (fields of the truth `[..., layer, y, x]`; by default the starts). Looked at after
    every `every` steps, which must divide `steps`; the runs follow one another.
    """
    count = len(next(iter(starts.values())))
    reference = starts if reference is None else reference
    spread = lambda a: np.asarray(a, np.float64).var((-2, -1))
    names = tuple(without_time(starts))
    bound = {n: LIMIT * spread(reference[n]).reshape(-1, starts[n].shape[-3]).max(0) for n in names}
    save = lambda model, state: {n: jnp.var(model.view(state)[n], (-2, -1)) for n in names}
    keys = jr.split(jr.key(0) if key is None else key, count)
    bad, reason = [], []
    for i in range(count):
        state = model.encode({n: jnp.asarray(a[i]) for n, a in starts.items()}, keys[i])
        step, why = None, ""
        try:
            for _, out in stream(model, state, steps, every=every, save=save, courant=courant):
                exceeds = {n: (out["save"][n] > bound[n]).any(-1) for n in names}
                first = {n: int(out["step"][e.argmax()]) for n, e in exceeds.items() if e.any()}
                if first:
                    name = min(first, key=first.get)
                    step, why = first[name], f"variance of {name} above {LIMIT:g} times the reference"
                    break
        except BlewUp as error:
            step, why = error.step, str(error).split(";")[0]
        bad.append(step)
        reason.append(why)
    return Survival(count, bad.count(None), tuple(bad), tuple(reason))


@eqx.filter_jit
def _predict(model, starts, keys, steps, every, names):
    save = lambda model, state: {n: field for n, field in model.view(state).items() if n in names}

    def one(fields, key):
        return rollout(model, model.encode(fields, key), steps, every=every, save=save)[1]["save"]

    return jax.vmap(one)(starts, keys)


def _stable(prediction, future):
    """Per start: finite, and each layer's largest variance within LIMIT times the truth's largest."""
    stable = True
    for name, truth in future.items():
        field = prediction[name]
        finite = jnp.all(jnp.isfinite(field), (1, 2, 3, 4))
        largest = lambda a: jnp.max(jnp.var(a, (-2, -1)), 1)
        stable = stable & finite & jnp.all(largest(field) <= LIMIT * largest(jnp.asarray(truth)), -1)
    return stable


def _check(starts, future, steps, every):
    if every < 1 or steps < 1 or steps % every:
        raise ValueError(f"every={every} must divide steps={steps}, both positive")
    count = {n: len(a) for n, a in starts.items()}
    if len(set(count.values())) != 1:
        raise ValueError(f"starts need one leading axis of equal length; got {count}")
    count = next(iter(count.values()))
    for name, truth in future.items():
        if truth.ndim != 5 or truth.shape[:2] != (count, steps // every):
            raise ValueError(
                f"future {name!r} has shape {truth.shape}, expected ({count}, {steps // every}, layer, y, x): "
                "one frame per start after every `every` steps, the start itself left out"
            )
    return count
