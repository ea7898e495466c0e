"""Training through a frozen emulator of the solver instead of the solver: Frezat et al. (2024), arXiv:2310.19385.

Three stages. An emulator of the explicit tendency learns the coarse solver *without closure*, from coarse-grained
starts. It is frozen, and the closure is trained through it. The closure goes into the real solver as it is.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

import hybridgcm as hg
from experiments.closure_benchmark.training import (
    Problem,
    network,
    offline,
    online,
    resolved,
    rollouts,
    small_cnn,
)
from hybridgcm import metrics, nn, train
from hybridgcm.equations import SurrogateEquation
from hybridgcm.files import atomic
from hybridgcm.train.objectives import each


@dataclass(frozen=True)
class Size:
    """Blocks, width and kernel of `nn.ResCNN`."""

    blocks: int
    width: int
    kernel: int


SMALL, LARGE = Size(2, 16, 3), Size(4, 24, 5)
"""For two cores."""
PUBLISHED_SMALL, PUBLISHED_LARGE = Size(8, 32, 5), Size(8, 64, 7)
"""Those of Frezat et al., 222,000 and 1,670,000 weights: for a GPU."""
HORIZON = 12
"""Steps of the rollouts that the emulator learns from."""


def through_emulator(problem: Problem, seed: int, folder: Path, size: Size, **how):
    """`small_cnn` trained offline, then through a frozen emulator as `online` is told by `how`.

    As online_cnn but for the model that gradients pass through. The paper starts from random weights and ω alone;
    here the emulator reads u and v too, from the linear inversion that every model has. The errors of the emulator
    with and without closure are written to `folder`/emulator.json.
    """
    tendency = emulator(problem, seed, folder, size)
    start = offline(problem, small_cnn(problem, seed), seed, problem.beside("offline_cnn", seed, folder))
    through = lambda closure: surrogate(problem.model(closure), tendency)
    closure = online(problem, start, seed, folder / "online", through=through, **how)
    if not (file := folder / "emulator.json").exists():
        errors = leakage(problem, tendency, closure)
        with atomic(file) as temporary:
            temporary.write_text(json.dumps(errors, indent=1))
    return closure


def surrogate(model: hg.Model, tendency) -> hg.Model:
    """The model with the emulated tendency in the place of its equation's."""
    return eqx.tree_at(lambda m: m.equation, model, SurrogateEquation(model.equation, tendency))


def emulator(problem: Problem, seed: int, folder: Path, size: Size) -> hg.NetworkClosure:
    """The tendency of the coarse solver without closure: first by least squares, then by rollouts of two lengths.

    Their losses are those of all scales, since all of them are stepped.
    """
    runs = bare_runs(problem, HORIZON)
    pairs = [{"q": run["q"], "S": S} for run, S in zip(runs, tendencies(problem, runs), strict=True)]
    layers = problem.model().equation.layers
    net = nn.ResCNN(3 * layers, layers, **vars(size), key=jr.fold_in(jr.key(500), seed))
    start = network(problem, net, data=pairs)
    loss = metrics.mse("S")
    first = offline(
        problem, start, seed, folder / "emulator" / "tendency", data=pairs, loss=loss, steps=3000, rate=3e-3
    )
    return rollouts(
        problem, surrogate(problem.model(), first), seed, folder / "emulator" / "rollouts", data=runs,
        spacing=problem.system.dt, apart=1, frames=(3, HORIZON), steps=(200, 100), rate=(1e-3, 5e-4),
        objective=lambda every: train.online(metrics.mse("q"), every, chunk=1), where=lambda m: m.equation.tendency.net,
    ).equation.tendency  # fmt: skip


def bare_runs(problem: Problem, steps: int, starts: int = 200) -> list[dict[str, np.ndarray]]:
    """Runs {q: [time, layer, y, x]} of the coarse solver without closure, from frames of the training truths."""
    low = problem.model()
    q = np.concatenate([part["q"][:: max(1, len(part["q"]) * len(problem.data.train) // starts)]
                        for part in problem.data.train])  # fmt: skip
    runs = np.concatenate([q[:, None], np.asarray(_runs(low, q, steps, 1))], 1)
    return [{"q": run} for run in runs]


@eqx.filter_jit
def _runs(model, q, steps, every):
    """q of the frames after each of several starts, `[start, time, layer, y, x]`."""
    save = lambda model, state: model.decode(state)["q"]
    return each(lambda q: hg.rollout(model, model.encode({"q": q}), steps, every=every, save=save)[1]["save"], q)


def tendencies(problem: Problem, runs: list[dict]) -> list[np.ndarray]:
    """The explicit tendency of the coarse equation at every record of the runs, s-2."""
    equation, grid = problem.model().equation, problem.model().equation.grid
    one = lambda q: grid.to_grid(equation.explicit(0.0, {"q": grid.to_spectral(q)})["q"])
    found = jax.jit(lambda q: jax.lax.map(one, q))
    return [np.asarray(found(jnp.asarray(run["q"]))) for run in runs]


def subgrid(problem: Problem):
    """Objective of `rollouts`: least squares of the closure's forcing at the rollout's states against S of the truth.

    Frames carry q and S; the state is the emulator's, so the closure learns what to do where its own errors lead.
    """
    judge = train.offline(resolved(metrics.mse("S"), problem.model()))

    def objective(every):
        def one(model, batch, key):
            state, steps = model.encode({"q": batch["q"][0]}, key), every * (len(batch["q"]) - 1)
            frames = hg.rollout(model, state, steps, every=every, save=lambda m, s: m.decode(s), chunk=1)[1]["save"]
            return judge(model, frames | {"S": batch["S"][1:]}, key)

        def total(model, batch, key):
            keys = jr.split(key, len(batch["q"]))
            return jnp.mean(each(lambda batch, key: one(model, batch, key), batch, keys))

        return total

    return objective


def leakage(problem: Problem, tendency, closure, starts: int = 8, frames: int = 6, apart: int = 2) -> dict:
    """Errors of rollouts from validation frames, each without and with the closure, frame by frame.

    `emulator`: emulator against solver, what stage one made small without closure. `solver_to_truth` and
    `emulator_to_truth`: a closure that gains more in the emulator than in the solver has learnt to make up for the
    emulator's errors. Relative energy of the difference on resolved scales, as in `metrics.energy`.
    """
    every = round(apart * problem.system.flow.frame / problem.system.dt)
    q = np.concatenate([part["q"][None] for part in problem.data.validation])
    first = np.linspace(0, q.shape[1] - 1 - frames * apart, -(-starts // len(q))).astype(int)
    windows = np.concatenate([q[:, i : i + 1 + frames * apart : apart] for i in first])
    low = problem.model()
    energy = resolved(metrics.energy(low.equation), low)
    one = jax.jit(lambda p, t: energy({"q": p}, {"q": t}))
    error = lambda p, t: [float(one(jnp.asarray(p[:, i]), jnp.asarray(t[:, i]))) for i in range(frames)]
    found = {"frames_hours": [problem.system.flow.frame * apart * (i + 1) / 3600 for i in range(frames)]}
    for name, part in {"without": None, "with": closure}.items():
        real = problem.model(part)
        solver, emulated = (_runs(m, windows[:, 0], every * frames, every) for m in (real, surrogate(real, tendency)))
        found[name] = {
            "emulator": error(emulated, solver), "solver_to_truth": error(solver, windows[:, 1:]),
            "emulator_to_truth": error(emulated, windows[:, 1:]),
        }  # fmt: skip
    return found
