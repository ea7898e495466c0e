"""How networks are trained in the benchmark: the same data, losses and optimiser for every method."""

from collections.abc import Mapping
from pathlib import Path

import jax
import jax.random as jr
import numpy as np
import optax

import hybridgcm as hg
from experiments.closure import losses
from experiments.closure_benchmark.config import Config
from experiments.closure_benchmark.data import Data
from experiments.closure_benchmark.flows import energy_and_spectra as energy_and_spectra
from experiments.closure_benchmark.flows import mean_square
from hybridgcm import checkpoint, closures, coarsen, metrics, nn, train
from hybridgcm.batches import concatenate, samples, windows


class Problem:
    """What a method is given: `system`, `data` (train and validation frames, the tuning climate), and sizes.

    A method's `closure(problem, seed, folder)` returns a closure for `problem.model(closure)`. What it writes into
    `folder` is its own; called again with the same folder it goes on, or gives at once what it gave before.
    """

    def __init__(self, config: Config, data: Data, shared: Path | None = None):
        self.config, self.data, self.system, self.shared = config, data, data.system, shared

    def model(self, closure=None) -> hg.Model:
        """The coarse model that the closure is for."""
        return self.system.model(closure)

    def beside(self, method: str, seed: int, folder: Path) -> Path:
        """The folder of another method with this seed, so that a start is trained once; one in `folder` if alone."""
        return folder / method if self.shared is None else self.shared / method / f"seed-{seed}"

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


def network(
    problem: Problem, net, inputs: tuple[str, ...] | None = None, data: list[dict] | None = None
) -> closures.AbstractClosure:
    """The network as a closure of the prognostics, with the scales of the training frames or of other `data`.

    `inputs`: fields that it reads, by default `flow.inputs`.
    """
    data = problem.data.train if data is None else data
    some = lambda name: np.concatenate([part[name][::50] for part in data])
    fields = problem.fields({name: some(name) for name in problem.targets})
    outputs = {name: some(target) for name, target in problem.targets.items()}
    flow = problem.system.flow
    return flow.network(net, {name: fields[name] for name in inputs or flow.inputs}, outputs)


def small_cnn(problem: Problem, seed: int) -> hg.NetworkClosure:
    """The network of all small online methods, untrained: 5,000 weights for two layers.

    silu has the quadratic part that products of gradients have.
    """
    inputs, outputs = problem.channels
    return network(problem, nn.CNN((inputs, 16, 16, outputs), (5, 3, 3), key=jr.key(seed), activation=jax.nn.silu))


def offline_then_online(problem: Problem, seed: int, folder: Path, **how):
    """`small_cnn` fitted to the subgrid forcing, then trained on through the solver as `online` is told by `how`."""
    start = offline(problem, small_cnn(problem, seed), seed, problem.beside("offline_cnn", seed, folder))
    return online(problem, start, seed, folder / "online", **how)


def inner(model):
    """`where` of a network that is wrapped in one more closure, as in `FluxForm` and `Equivariant`."""
    return model.closure.inner.net


def flux_network(problem: Problem, net) -> closures.FluxForm:
    """The network as a flux of q, components of the layers in x, then in y, whose divergence is the forcing.

    Its scale is that of the forcing times the grid spacing. Train it with `where=inner`.
    """
    forcing, grid = network(problem, net), problem.model().equation.grid
    scale = np.tile(np.asarray(forcing.output_scale) * float(grid.spacing), 2)
    return closures.FluxForm(hg.NetworkClosure(net, forcing.inputs, ("q_x", "q_y"), forcing.input_scale, scale))


def offline(
    problem: Problem, closure, seed: int, folder: Path, *, data: list[dict] | None = None, loss=None, steps: int = 3000,
    batch: int = 8, rate: float = 1e-2, where=lambda m: m.closure.net,
):  # fmt: skip
    """Least squares against the subgrid forcing on resolved scales, Adam with a cosine schedule.

    `data`: other pairs q, S than the training truths'; `loss`: another than least squares.
    """
    low, steps = problem.model(closure), problem.steps(steps)
    batches = samples(problem.data.train if data is None else data, batch, steps, jr.fold_in(jr.key(100), seed))
    objective = train.offline(resolved(loss or mean_square(tuple(problem.targets.values())), low))
    return _fit(low, batches, objective, _cosines((rate,), (steps,)), seed, folder, where).closure


def online(
    problem: Problem, closure, seed: int, folder: Path, *, through=None, where=lambda m: m.closure.net,
    pick=lambda m: m.closure, **how,
):  # fmt: skip
    """Through the solver: rollouts against the training truths, as `rollouts` is told by `how`.

    `through(closure)` is the model that gradients pass through, by default that of the system; `pick(model)` the
    closure in it again.
    """
    model = (through or problem.model)(closure)
    return pick(rollouts(problem, model, seed, folder, where=where, **how))


def rollouts(
    problem: Problem, model: hg.models.AbstractModel, seed: int, folder: Path, *, where, data: list[dict] | None = None,
    spacing: float | None = None, frames: tuple[int, ...] = (6,), apart: int = 2, steps: tuple[int, ...] = (300,),
    rate: tuple[float, ...] = (1e-3,), batch: int = 8, loss=None, cut: int | None = None, objective=None, score=None,
):  # fmt: skip
    """`model` trained by rollouts against trajectories, one stage of training after the other.

    `data`: trajectories {name: [time, layer, y, x]} with `spacing` seconds between frames, by default the training
    truths. Compared are frames `apart` of these apart (two are 8 h in the two-layer flows); `frames`, `steps`, `rate`:
    horizon in such intervals, optimiser steps and learning rate, one of each per stage. `loss(equation)` gives the
    loss, by default the flow's, on resolved scales; `cut` as in `train.online`. `objective(every)` stands for loss and
    `train.online`. With `score(model)` the best of ten checks is taken, not the last: `train.EarlyStopping`.
    """
    low, spacing = problem.model(), problem.system.flow.frame if spacing is None else spacing
    if data is None:
        data = [{name: part[name] for name in problem.targets} for part in problem.data.train]
    each = round(spacing * apart / low.dt)
    if abs(each * low.dt - spacing * apart) > 1e-6 * spacing * apart:
        raise ValueError(f"frames {apart} apart are no multiple of the step, {low.dt:g} s")
    parts = [{name: a[first::apart] for name, a in part.items()} for part in data for first in range(apart)]
    steps = tuple(map(problem.steps, steps))
    stages = [
        windows(parts, horizon + 1, batch, count, jr.fold_in(jr.key(200 + number), seed))
        for number, (horizon, count) in enumerate(zip(frames, steps, strict=True))
    ]
    if objective is None:
        metric = resolved((loss or problem.system.flow.loss)(low.equation), low)
        objective = lambda every: train.online(metric, every, chunk=1, cut=cut)
    schedule = _cosines(rate, steps)
    return _fit(model, concatenate(*stages), objective(each), schedule, seed, folder, where, score)


def energies(problem: Problem, frames: int, apart: int = 2):
    """A `loss` for `rollouts` of this horizon: energies of rings beside those without closure (`losses.energies`)."""
    loss = losses.energies(*_some(problem, frames, apart), resolved_rings(problem.data.tuning))
    return lambda equation: loss


def energies_and_error(problem: Problem, frames: int, apart: int = 2):
    """`energies`, and the energy of the error beside that without closure: the main job's loss."""
    low, *some = _some(problem, frames, apart)
    budget = losses.energies(low, *some, resolved_rings(problem.data.tuning))
    fields = losses.relative(resolved(metrics.energy(low.equation), low), low, *some)
    return lambda equation: lambda prediction, target: budget(prediction, target) + fields(prediction, target)


def _some(problem: Problem, frames: int, apart: int, starts: int = 40) -> tuple[hg.Model, np.ndarray, int]:
    """The model without closure, some windows of the training truths' q of this horizon, and steps between frames."""
    low, data = problem.model(), problem.data.train
    length = frames * apart + 1
    first = [np.linspace(0, len(part["q"]) - length, -(-starts // len(data))).astype(int) for part in data]
    some = np.stack([part["q"][i : i + length : apart] for part, at in zip(data, first, strict=True) for i in at])
    return low, some, round(problem.system.flow.frame * apart / low.dt)


def resolved_rings(climate: metrics.Climate) -> slice:
    """The rings of its spectra that the filter leaves alone, without the first: it holds the mean, with no energy."""
    return slice(1, int(np.sum(climate.kr < climate.limit)))


def resolved(metric, low: hg.Model):
    """The metric on the scales that the model's filter leaves alone, if it has one; beyond no closure can be judged."""
    if not isinstance(low.stepper, hg.Filtered):
        return metric
    grid = low.equation.grid
    return metrics.resolved(metric, grid, hg.exponential_filter(grid) == 1)


def _cosines(rates: tuple[float, ...], steps: tuple[int, ...]):
    """Learning rates that go down to a fiftieth within every stage."""
    stages = [optax.cosine_decay_schedule(rate, count, 0.02) for rate, count in zip(rates, steps, strict=True)]
    return optax.join_schedules(stages, np.cumsum(steps)[:-1].tolist())


def _fit(model, batches, objective, rate, seed: int, folder: Path, where, score=None):
    """The trained model: the last, or with a `score` the best one; the one at hand if none had a finite score."""
    optimiser = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate))
    log = train.Log(folder / "log.jsonl")
    stop = None if score is None else train.EarlyStopping(model, where, score, every=max(1, len(batches) // 10))
    trained, _ = train.fit(
        model, batches, objective, optimiser, where=where, key=jr.fold_in(jr.key(300), seed),
        callback=log if stop is None else train.Together(stop, log), progress=folder.name, every=50,
        checkpoints=checkpoint.Checkpoints(folder / "checkpoints", allow=True),
    )  # fmt: skip
    return trained if stop is None or stop.memory["step"] < 0 else stop.best
