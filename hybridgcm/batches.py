"""Training batches as sequences: batch i is a pure function of (key, i), so a resumed run sees the same data."""

import functools
import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array

from hybridgcm.data import check_finite

_BLOCK = 1 << 26
"""Bytes that are read at once from arrays which may be larger than memory."""


def windows(truth, length: int, batch: int, steps: int, key: Array) -> Sequence:
    """`steps` batches {name: [batch, length, layer, y, x]} of windows of consecutive records, drawn at random.

    `truth` maps names to `[time, layer, y, x]`, NumPy, memory-mapped, Zarr or JAX; a list of such dicts holds
    separate trajectories, and no window spans two. Every epoch visits every window once, in an order of its own.
    Raises `ValueError` for a window longer than the data, unequal lengths and the first value that is not finite.
    """
    if length < 1:
        raise ValueError(f"length is a number of records per window, at least 1; got {length}")
    return _Batches(truth, length, batch, steps, key)


def samples(data, batch: int, steps: int, key: Array) -> Sequence:
    """`steps` batches {name: [batch, ...]} of single records from {name: [record, ...]}; otherwise as `windows`."""
    return _Batches(data, None, batch, steps, key)


def drawn(make: Callable[[Array], Any], steps: int, key: Array) -> Sequence:
    """`steps` batches of which the i-th is make(fold_in(key, i)): points drawn anew in every step, made samples.

    >>> batches = drawn(lambda key: {"x": jr.uniform(key, (5,))}, 3, jr.key(0))
    >>> len(batches), batches[2]["x"].shape, bool((batches[1]["x"] == batches[1]["x"]).all())
    (3, (5,), True)
    """
    if steps < 0:
        raise ValueError(f"steps is at least 0; got {steps}")
    return _Drawn(make, steps, key)


def increments(background: Mapping, analysis: Mapping, window: float) -> dict[str, np.ndarray]:
    """{name: background, "S": (analysis − background)/window}: what `offline` fits a bias correction to.

    Both map the prognostic, one for now as in `offline`, to `[record, layer, y, x]`: the model's forecast at the end of
    an assimilation window of `window` seconds, and the analysis at the same time. S, in the unit of the prognostic per
    second, is the tendency that the model lacked, to first order in the window; differences are taken in double
    precision. Raises `ValueError` for several or different names, shapes that differ, a window that is not positive and
    the first value that is not finite.
    """
    if len(background) != 1 or set(background) != set(analysis):
        raise ValueError(f"increments are of one prognostic; got {sorted(background)} and {sorted(analysis)}")
    if not window > 0:
        raise ValueError(f"window is the length of the assimilation window, a positive number of s; got {window}")
    ((name, before),) = background.items()
    before, after = np.asarray(before), np.asarray(analysis[name])
    if before.shape != after.shape:
        raise ValueError(f"{name}: background has shape {before.shape}, analysis {after.shape}; pair them by time")
    check_finite(f"background of {name}", before)
    check_finite(f"analysis of {name}", after)
    return {name: before, "S": ((after.astype(float) - before) / window).astype(before.dtype)}


def concatenate(*sequences: Sequence) -> Sequence:
    """The batches of all sequences, one after the other, as for horizons that grow during training.

    A schedule of horizons is a sequence of batches; that of the learning rate, over the same steps, is the optimiser's:

    >>> truth = {"q": np.zeros((30, 1, 4, 4))}
    >>> batches = concatenate(*(windows(truth, length, 2, 50, jr.key(length)) for length in (2, 4, 8)))
    >>> [batches[step]["q"].shape[1] for step in (0, 50, 149)]
    [2, 4, 8]
    >>> import optax
    >>> optimiser = optax.adam(optax.join_schedules([optax.cosine_decay_schedule(1e-3, 50)] * 3, [50, 100]))
    """
    return _Chain(sequences)


def fingerprint(arrays: Mapping[str, Any]) -> str:
    """SHA-256 of names, dtypes, shapes and values, for the record of what a run has read."""
    total = hashlib.sha256()
    for name in sorted(arrays):
        a = arrays[name]
        total.update(f"{name}\0{np.dtype(a.dtype).name}{list(a.shape)}\0".encode())
        for _, block in _blocks(a):
            total.update(np.ascontiguousarray(block, block.dtype.newbyteorder("<")))
    return total.hexdigest()


class _Batches(Sequence):
    def __init__(self, data, length: int | None, batch: int, steps: int, key: Array):
        if batch < 1 or steps < 0:
            raise ValueError(f"batch is at least 1 and steps at least 0; got batch={batch}, steps={steps}")
        self.parts = [data] if isinstance(data, Mapping) else list(data)
        self.length, self.batch, self.steps, self.key = length, batch, steps, key
        counts = [_records(part, self.parts[0]) - (length or 1) + 1 for part in self.parts]
        if min(counts) < 1:
            shortest = min(counts) + (length or 1) - 1
            raise ValueError(
                f"windows of {length} records need data as long; got {shortest}: shorten them or simulate more"
            )
        self.ends = np.cumsum(counts)
        for number, part in enumerate(self.parts):
            for name, a in part.items():
                label = name if len(self.parts) == 1 else f"{name} of trajectory {number}"
                for first, block in _blocks(a):
                    check_finite(label, block, first)
        self.order = functools.lru_cache(maxsize=4)(self._order)

    def __len__(self):
        return self.steps

    def __getitem__(self, index: int):
        if not -self.steps <= index < self.steps:
            raise IndexError(f"batch {index} of {self.steps}")
        total = int(self.ends[-1])
        position = (index % self.steps) * self.batch + np.arange(self.batch)
        drawn = np.array([self.order(int(p) // total)[int(p) % total] for p in position])
        return {name: self._gather(name, drawn) for name in self.parts[0]}

    def _order(self, epoch: int) -> np.ndarray:
        return np.asarray(jr.permutation(jr.fold_in(self.key, epoch), int(self.ends[-1])))

    def _gather(self, name: str, drawn: np.ndarray):
        part = np.searchsorted(self.ends, drawn, side="right")
        start = drawn - np.concatenate([[0], self.ends])[part]
        if len(self.parts) == 1:
            return _take(self.parts[0][name], start, self.length)
        taken = [_take(self.parts[p][name], s[None], self.length) for p, s in zip(part, start, strict=True)]
        return (jnp if isinstance(taken[0], jax.Array) else np).concatenate(taken)


class _Drawn(Sequence):
    def __init__(self, make, steps: int, key: Array):
        self.make, self.steps, self.key = make, steps, key

    def __len__(self):
        return self.steps

    def __getitem__(self, index: int):
        if not -self.steps <= index < self.steps:
            raise IndexError(f"batch {index} of {self.steps}")
        return self.make(jr.fold_in(self.key, index % self.steps))


class _Chain(Sequence):
    def __init__(self, sequences: Sequence[Sequence]):
        self.sequences, self.ends = sequences, np.cumsum([len(s) for s in sequences])

    def __len__(self):
        return int(self.ends[-1]) if len(self.ends) else 0

    def __getitem__(self, index: int):
        if not -len(self) <= index < len(self):
            raise IndexError(f"batch {index} of {len(self)}")
        index = index % len(self)
        part = int(np.searchsorted(self.ends, index, side="right"))
        return self.sequences[part][index - int(self.ends[part] - len(self.sequences[part]))]


def _records(part: Mapping, first: Mapping) -> int:
    """Number of records that all arrays of one trajectory share."""
    if not part or sorted(part) != sorted(first):
        raise ValueError(f"every trajectory maps the same names to arrays; got {sorted(first)} and {sorted(part)}")
    lengths = {name: a.shape[0] for name, a in part.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"all arrays need as many records as each other; got {lengths}")
    return next(iter(lengths.values()))


def _take(a, start: np.ndarray, length: int | None):
    """Records `start` to `start + length` of an array, `[batch, length, ...]`, or just `start` without length."""
    index = start if length is None else start[:, None] + np.arange(length)
    if isinstance(a, jax.Array | np.ndarray):  # one gather, compiled once; slices would compile per start
        return a[index]
    pick = lambda s: np.asarray(a[int(s)] if length is None else a[int(s) : int(s) + length])
    return np.stack([pick(s) for s in start])


def _blocks(a):
    """(first record, NumPy array) pieces of an array that need not fit in memory."""
    if not a.shape:
        yield 0, np.asarray(a)
        return
    size = max(1, int(np.prod(a.shape[1:])) * np.dtype(a.dtype).itemsize)
    step = max(1, _BLOCK // size)
    for first in range(0, a.shape[0], step):
        yield first, np.asarray(a[first : first + step])
