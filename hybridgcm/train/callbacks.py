"""What may happen after every step of `fit`: the best model, averaged weights, a log that lasts.

Each is a `callback` of `fit`; several go into one with `Together`. What they know lies in `memory`, which `fit` saves
with its checkpoints, so that a resumed run ends as an uninterrupted one, bit for bit.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import numpy as np

from hybridgcm.files import atomic
from hybridgcm.train.fit import selection


class EarlyStopping:
    """Score the model every `every` steps, keep the best as `best`, end the training after `patience` without progress.

    `score(model) -> float` is smaller for better models; a loss of free rollouts judges what training on short windows
    does not see. It is put into the record of its step as `record["score"]`. A score that is not finite is neither
    selected nor counted: a rollout that blows up says that the model is bad, not that training has converged.
    `model` and `where` are those of `fit`; until the first finite score `best` is that `model`.
    Raises `ValueError` for every < 1 and patience < 1.
    """

    def __init__(self, model: eqx.Module, where, score: Callable[[eqx.Module], Any], *, every=100, patience=5):
        if every < 1 or patience < 1:
            raise ValueError(f"every and patience are at least 1; got every={every}, patience={patience}")
        self.score, self.every, self.patience = score, every, patience
        self._selection = selection(model, where)
        weights, self._frozen = eqx.partition(model, self._selection)
        self.memory = {"weights": weights, "score": float("inf"), "step": -1, "without": 0}

    @property
    def best(self) -> eqx.Module:
        """The model with the lowest score so far, after step `memory["step"]`."""
        return eqx.combine(self.memory["weights"], self._frozen)

    def __call__(self, step: int, model: eqx.Module, record: dict) -> bool:
        if (step + 1) % self.every:
            return False
        record["score"] = score = float(self.score(model))
        if np.isfinite(score) and score < self.memory["score"]:
            weights = eqx.filter(model, self._selection)
            self.memory = {"weights": weights, "score": score, "step": step, "without": 0}
        elif np.isfinite(score):
            self.memory = self.memory | {"without": self.memory["without"] + 1}
        return self.memory["without"] >= self.patience


class Averaged:
    """Exponential mean of the weights over steps, w̄ ← decay·w̄ + (1 − decay)·w without its bias: `model` has them.

    Steps that `fit` skipped do not count; without any step it is the `model` given. `model` and `where` are those of
    `fit`. Score the mean in `EarlyStopping` with `lambda _: score(averaged.model)`, after it in `Together`.
    Polyak and Juditsky (1992), doi:10.1137/0330046; `optax.ema`.
    """

    def __init__(self, model: eqx.Module, where, decay: float = 0.999):
        import optax

        self._selection = selection(model, where)
        weights, self._frozen = eqx.partition(model, self._selection)
        mean = optax.ema(decay)
        self._update = jax.jit(lambda weights, state: mean.update(weights, state))
        self.memory = (weights, mean.init(weights))

    @property
    def model(self) -> eqx.Module:
        """The model with averaged weights."""
        return eqx.combine(self.memory[0], self._frozen)

    def __call__(self, step: int, model: eqx.Module, record: dict):
        if not record["skipped"]:
            self.memory = self._update(eqx.filter(model, self._selection), self.memory[1])


class Log:
    """Append every record to the file `path`, one line of JSON each; `read_log` reads it.

    Each step is there once: a resumed run drops the lines of the steps that it repeats, and one that was cut off by a
    kill. In `Together` it belongs last, behind what adds to the record. Raises `FileExistsError` if the file holds
    another run, one whose step 0 differs.
    """

    def __init__(self, path):
        self.path, self._begun = Path(path), False

    def __call__(self, step: int, model: eqx.Module, record: dict):
        if not self._begun:
            self._begin(step, record)
        with open(self.path, "a") as file:
            file.write(json.dumps(record) + "\n")

    def _begin(self, step: int, record: dict):
        self.path.parent.mkdir(parents=True, exist_ok=True)
        found = _records(self.path) if self.path.exists() else []
        if step == 0 and found and json.dumps(found[0]) != json.dumps(record):
            raise FileExistsError(f"{self.path} holds the log of another run; remove it or choose another name")
        with atomic(self.path) as temporary:
            temporary.write_text("".join(json.dumps(old) + "\n" for old in found if old["step"] < step))
        self._begun = True


class Together:
    """All callbacks in turn, as one; ends the training if one of them does."""

    def __init__(self, *callbacks: Callable[[int, eqx.Module, dict], Any]):
        self.callbacks = callbacks

    @property
    def memory(self) -> tuple:
        """The memory of each, None where there is none."""
        return tuple(getattr(callback, "memory", None) for callback in self.callbacks)

    @memory.setter
    def memory(self, memories: tuple):
        for callback, memory in zip(self.callbacks, memories, strict=True):
            if memory is not None:
                callback.memory = memory

    def __call__(self, step: int, model: eqx.Module, record: dict) -> bool:
        return any([callback(step, model, record) is True for callback in self.callbacks])


def read_log(path):
    """The records of a `Log`, or of what `fit` returned as JSON lines, as a `pandas.DataFrame` with one row per step.

    Nested entries get dotted names (`mean.closure.constant` of `eki`). A last line that is incomplete is left out.
    """
    import pandas

    return pandas.json_normalize(_records(Path(path)))


def _records(path: Path) -> list[dict]:
    """The complete lines of a file."""
    return [json.loads(line) for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]
