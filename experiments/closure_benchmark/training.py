"""How networks are trained in the benchmark: the same data, losses and optimiser for every method."""

from pathlib import Path

import jax
import jax.random as jr
import numpy as np
import optax

import hybridgcm as hg
from experiments.closure_benchmark.config import Config
from experiments.closure_benchmark.data import Data
from hybridgcm import checkpoint, closures, metrics, train
from hybridgcm.batches import concatenate, samples, windows

INPUTS = ("q", "u", "v")


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
        """The fields that closures read, from q `[record, layer, y, x]`."""
        low = self.model()
        view = jax.jit(lambda q: jax.lax.map(lambda one: low.view(low.encode({"q": one})), q))
        return {name: np.asarray(field) for name, field in view(q).items()}


def network(problem: Problem, net, inputs: tuple[str, ...] = INPUTS) -> hg.NetworkClosure:
    """The network as a closure of q, with the scales of the training frames."""
    some = [part["q"][::50] for part in problem.data.train], [part["S"][::50] for part in problem.data.train]
    q, S = map(np.concatenate, some)
    fields = problem.fields(q)
    return hg.NetworkClosure.from_data(net, {name: fields[name] for name in inputs}, {"q": S})


def inner(model):
    """`where` of a network that is wrapped in one more closure, as in `FluxForm` and `Equivariant`."""
    return model.closure.inner.net


def flux_network(problem: Problem, net, inputs: tuple[str, ...] = INPUTS) -> closures.FluxForm:
    """The network as a flux of q, components of the layers in x, then in y, whose divergence is the forcing.

    Its scale is that of the forcing times the grid spacing. Train it with `where=inner`.
    """
    forcing, grid = network(problem, net, inputs), problem.model().equation.grid
    scale = np.tile(np.asarray(forcing.output_scale) * float(grid.spacing), 2)
    return closures.FluxForm(hg.NetworkClosure(net, inputs, ("q_x", "q_y"), forcing.input_scale, scale))


def offline(
    problem: Problem, closure, seed: int, folder: Path, *, steps: int = 3000, batch: int = 8, rate: float = 1e-2,
    where=lambda m: m.closure.net,
):  # fmt: skip
    """Least squares against the subgrid forcing on resolved scales, Adam with a cosine schedule."""
    low, steps = problem.model(closure), problem.steps(steps)
    batches = samples(problem.data.train, batch, steps, jr.fold_in(jr.key(100), seed))
    objective = train.offline(resolved(metrics.mse("S"), low))
    return _fit(low, batches, objective, optax.cosine_decay_schedule(rate, steps, 0.02), seed, folder, where)


def online(
    problem: Problem, closure, seed: int, folder: Path, *, frames: tuple[int, ...] = (6,), apart: int = 2,
    steps: tuple[int, ...] = (300,), batch: int = 8, rate: float = 1e-3, loss=None, cut: int | None = None,
    where=lambda m: m.closure.net,
):  # fmt: skip
    """Through the solver: rollouts against the truth's frames, `apart` frames (of 4 h in the two-layer flows) apart.

    `frames`: horizons in these intervals, one stage of training each, with its number of `steps`. `loss(equation)`
    gives the loss, by default `energy_and_spectra`. `cut`: as in `train.online`.
    """
    low = problem.model(closure)
    each = round(problem.system.flow.frame * apart / problem.system.dt)
    if each * problem.system.dt != problem.system.flow.frame * apart:
        raise ValueError(f"frames {apart} apart are no multiple of the step, {problem.system.dt:g} s")
    q = [{"q": part["q"][first::apart]} for part in problem.data.train for first in range(apart)]
    steps = tuple(map(problem.steps, steps))
    stages = [
        windows(q, horizon + 1, batch, count, jr.fold_in(jr.key(200 + number), seed))
        for number, (horizon, count) in enumerate(zip(frames, steps, strict=True))
    ]
    objective = train.online(resolved((loss or energy_and_spectra)(low.equation), low), every=each, chunk=1, cut=cut)
    schedule = optax.cosine_decay_schedule(rate, sum(steps), 0.02)
    return _fit(low, concatenate(*stages), objective, schedule, seed, folder, where)


def energy_and_spectra(equation):
    """Relative energy of the error plus error of the energy spectra.

    The energy of the error alone would teach a network to drain the flow, the spectra alone to drive it.
    """
    fields, spectra = metrics.energy(equation), metrics.spectral(equation)
    return lambda prediction, target: fields(prediction, target) + spectra(prediction, target)


def resolved(metric, low: hg.Model):
    """The metric on the scales that pyqg's filter leaves alone; beyond them no closure can be judged."""
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
