"""How networks are trained in the benchmark: the same data, losses and optimiser for every method."""

from collections.abc import Mapping
from pathlib import Path

import jax
import jax.random as jr
import numpy as np
import optax

import hybridgcm as hg
from experiments.closure_benchmark.config import Config
from experiments.closure_benchmark.data import Data
from experiments.closure_benchmark.flows import energy_and_spectra as energy_and_spectra
from experiments.closure_benchmark.flows import mean_square
from hybridgcm import checkpoint, closures, coarsen, metrics, train
from hybridgcm.batches import concatenate, samples, windows


class Problem:
    """What a method is given: `system`, `data` (train and validation frames, the tuning climate), and sizes.

    A method's `closure(problem, seed, folder)` returns a closure for `problem.model(closure)`. What it writes into
    `folder` is its own; called again with the same folder it goes on, or gives at once what it gave before.
    """

    def __init__(self, config: Config, data: Data):
        self.config, self.data, self.system = config, data, data.system

    def model(self, closure=None) -> hg.Model:
        """The coarse model that the closure is for."""
        return self.system.model(closure)

    def steps(self, steps: int) -> int:
        """A method's own number of optimiser steps at the effort of this run."""
        return max(1, round(self.config.effort * steps))

    def fields(self, q) -> dict[str, np.ndarray]:
        """The fields that closures read, from q `[record, layer, y, x]`, or from prognostics by name."""
        low = self.model()
        view = jax.jit(lambda q: jax.lax.map(lambda one: low.view(low.encode(one)), q))
        return {name: np.asarray(field) for name, field in view(q if isinstance(q, Mapping) else {"q": q}).items()}

    @property
    def targets(self) -> dict[str, str]:
        """{prognostic: name of its subgrid forcing in the data}: {"q": "S"} of all flows with one prognostic."""
        return coarsen.targets(self.model().equation)

    @property
    def channels(self) -> tuple[int, int]:
        """Channels in and out of a network from `flow.inputs` to the prognostics: layers times names."""
        layers = self.model().equation.layers
        return layers * len(self.system.flow.inputs), layers * len(self.targets)


def network(problem: Problem, net, inputs: tuple[str, ...] | None = None) -> closures.AbstractClosure:
    """The network as a closure of the prognostics, with the scales of the training frames.

    `inputs`: fields that it reads, by default `flow.inputs`.
    """
    some = lambda name: np.concatenate([part[name][::50] for part in problem.data.train])
    fields = problem.fields({name: some(name) for name in problem.targets})
    outputs = {name: some(target) for name, target in problem.targets.items()}
    return problem.system.flow.network(
        net, {name: fields[name] for name in inputs or problem.system.flow.inputs}, outputs
    )


def offline(
    problem: Problem, closure, seed: int, folder: Path, *, steps: int = 3000, batch: int = 8, rate: float = 1e-2,
    where=lambda m: m.closure.net,
):  # fmt: skip
    """Least squares against the subgrid forcing on resolved scales, Adam with a cosine schedule."""
    low, steps = problem.model(closure), problem.steps(steps)
    batches = samples(problem.data.train, batch, steps, jr.fold_in(jr.key(100), seed))
    objective = train.offline(resolved(mean_square(tuple(problem.targets.values())), low))
    return _fit(low, batches, objective, optax.cosine_decay_schedule(rate, steps, 0.02), seed, folder, where)


def online(
    problem: Problem, closure, seed: int, folder: Path, *, frames: tuple[int, ...] = (6,), apart: int = 2,
    steps: tuple[int, ...] = (300,), batch: int = 8, rate: float = 1e-3, loss=None, cut: int | None = None,
    where=lambda m: m.closure.net,
):  # fmt: skip
    """Through the solver: rollouts against the truth's frames, `apart` frames (of 4 h in the two-layer flows) apart.

    `frames`: horizons in these intervals, one stage of training each, with its number of `steps`. `loss(equation)`
    gives the loss, by default the flow's, `energy_and_spectra`. `cut`: as in `train.online`.
    """
    low = problem.model(closure)
    span = problem.system.flow.frame * apart
    each = round(span / problem.system.dt)
    if abs(each * problem.system.dt - span) > 1e-6 * span:
        raise ValueError(f"frames {apart} apart are no multiple of the step, {problem.system.dt:g} s")
    parts = [{name: part[name] for name in problem.targets} for part in problem.data.train]
    q = [{name: a[first::apart] for name, a in part.items()} for part in parts for first in range(apart)]
    steps = tuple(map(problem.steps, steps))
    stages = [
        windows(q, horizon + 1, batch, count, jr.fold_in(jr.key(200 + number), seed))
        for number, (horizon, count) in enumerate(zip(frames, steps, strict=True))
    ]
    metric = (loss or problem.system.flow.loss)(low.equation)
    objective = train.online(resolved(metric, low), every=each, chunk=1, cut=cut)
    schedule = optax.cosine_decay_schedule(rate, sum(steps), 0.02)
    return _fit(low, concatenate(*stages), objective, schedule, seed, folder, where)


def resolved(metric, low: hg.Model):
    """The metric on the scales that the model's filter leaves alone, if it has one; beyond no closure can be judged."""
    if not isinstance(low.stepper, hg.Filtered):
        return metric
    grid = low.equation.grid
    return metrics.resolved(metric, grid, hg.exponential_filter(grid) == 1)


def _fit(low, batches, objective, rate, seed: int, folder: Path, where):
    optimiser = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate))
    log = train.Log(folder / "log.jsonl")
    trained, _ = train.fit(
        low, batches, objective, optimiser, where=where, key=jr.fold_in(jr.key(300), seed), callback=log,
        checkpoints=checkpoint.Checkpoints(folder / "checkpoints"), every=50, progress=folder.name,
    )  # fmt: skip
    return trained.closure
