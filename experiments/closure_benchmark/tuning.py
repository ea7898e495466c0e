"""Free runs against the tuning climate: a few constants found without gradients, and when to stop a training."""

import json
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

import hybridgcm as hg
from experiments.closure_benchmark.methods.backscatter import closure as backscatter
from experiments.closure_benchmark.training import Problem, resolved_rings
from hybridgcm import checkpoint, metrics
from hybridgcm.train.objectives import each

FLOOR = 0.03
"""Relative difference of a statistic that counts as one whatever its variance: no model is better than that."""


def free_statistics(problem: Problem, snapshots: int = 16, runs: int = 2, warm: int = 2):
    """(statistics, target, noise): what `hg.eki` takes, from free runs and the climate of `problem.data.tuning`.

    `statistics(model)`: kinetic energy spectra per layer and the energy flux on resolved rings, relative to those of
    the target, means over `snapshots` of `runs` free runs from the last training frames, after `warm` more. `noise`:
    covariance of such a mean, diagonal, by the variance of the target's snapshots. Nothing of the scored truths enters.
    """
    low, climate = problem.model(), problem.data.tuning
    snapshots = min(snapshots, climate.q.shape[1])
    every = round(problem.system.flow.snapshot / low.dt)
    starts = jnp.asarray(np.stack([part["q"][-1] for part in problem.data.train[:runs]]))
    rings = resolved_rings(climate)
    spectrum, flux = metrics.energy_spectrum(low.equation), metrics.energy_flux(low.equation)

    def measure(q):
        return jnp.concatenate([spectrum({"q": q})[:, rings].ravel(), flux({"q": q})[rings]])

    truth = jnp.asarray(climate.q.reshape(-1, *climate.q.shape[2:]))
    seen = np.asarray(jax.jit(lambda q: jax.lax.map(measure, q))(truth), float)
    mean = seen.mean(0)
    size = np.abs(mean)
    fluxes = slice(len(mean) - (rings.stop - rings.start), None)
    size[fluxes] = np.sqrt(np.mean(mean[fluxes] ** 2))  # it changes sign
    noise = np.diag(seen.var(0) / size**2 / (snapshots * len(starts)) + FLOOR**2)
    scale = jnp.asarray(size, truth.dtype)

    def statistics(model):
        save = lambda model, state: measure(model.decode(state)["q"])

        def one(q):
            state = model.encode({"q": q})
            found = hg.rollout(model, state, every * (warm + snapshots), every=every, save=save)[1]["save"]
            return jnp.mean(found[warm:], 0)

        return jnp.mean(each(one, starts), 0) / scale

    return statistics, mean / size, noise


def misfit(problem: Problem, **how):
    """model -> mean over statistics of (difference from the target)²/noise; about 1 at best, not finite if it blew up.

    A score for `train.EarlyStopping`, and what `evolution` minimises. `how` as in `free_statistics`.
    """
    statistics, target, noise = free_statistics(problem, **how)
    run, variance = eqx.filter_jit(statistics), np.diag(noise)
    return lambda model: float(np.mean((np.asarray(run(model), float) - target) ** 2 / variance))


def classical(problem: Problem) -> hg.Sum:
    """Backscatter and Zanna-Bolton, three constants, at published values: κ = −.19 Δ² is pyqg's at 64²."""
    spacing = float(problem.model().equation.grid.spacing)
    return hg.Sum(backscatter(problem, 0, None), hg.ZannaBolton(-0.19 * spacing**2))


def by_eki(problem: Problem, closure, seed: int, folder: Path, *, members: int = 10, iterations: int = 6):
    """Every constant of the closure by ensemble Kalman inversion; the log is `folder`/log.jsonl."""

    def found():
        lines = []
        note = lambda step, model, record: lines.append(json.dumps(record) + "\n")
        model, _ = hg.eki(
            problem.model(closure), *free_statistics(problem), where=lambda m: m.closure, spread=0.3, members=members,
            iterations=problem.steps(iterations), key=jr.fold_in(jr.key(400), seed), callback=note,
        )  # fmt: skip
        (folder / "log.jsonl").write_text("".join(lines))
        return model.closure

    return _kept(folder / "calibrated.ckpt", problem.model(closure).closure, found)


def by_evolution(problem: Problem, closure, seed: int, folder: Path, *, population: int = 8, generations: int = 8):
    """Every constant of the closure, as a multiple of its value, by CMA-ES; every trial is in `folder`/log.jsonl.

    Hansen and Ostermeier (2001), doi:10.1162/106365601750190398; the library is cmaes, without it `RuntimeError`.
    """
    try:
        from cmaes import CMA
    except ImportError:
        raise RuntimeError('evolution needs the library cmaes; run: pip install "hybridgcm[benchmark]"') from None
    leaves, structure = jax.tree.flatten(problem.model(closure).closure)
    scaled = lambda x: jax.tree.unflatten(structure, [a * float(m) for a, m in zip(leaves, x, strict=True)])

    def found():
        score, log = misfit(problem), _Trials(folder / "log.jsonl")
        search = CMA(mean=np.ones(len(leaves)), sigma=0.3, seed=seed, population_size=population)
        best = (np.inf, np.ones(len(leaves)))
        for _ in range(problem.steps(generations)):
            trials = [search.ask() for _ in range(population)]
            values = [log(x, lambda x: score(problem.model(scaled(x)))) for x in trials]
            search.tell([(x, value if np.isfinite(value) else 1e9) for x, value in zip(trials, values, strict=True)])
            finite = [(value, x) for x, value in zip(trials, values, strict=True) if np.isfinite(value)]
            best = min([best, *finite], key=lambda pair: pair[0])
        if not np.isfinite(best[0]):
            raise RuntimeError("no trial gave a run that stays finite; start from a weaker closure")
        return scaled(best[1])

    return _kept(folder / "calibrated.ckpt", jax.tree.unflatten(structure, leaves), found)


class _Trials:
    """Misfits by trial, kept in a file: a search that draws the same trials again does not run them again."""

    def __init__(self, path: Path):
        self.path = path
        lines = path.read_text().splitlines(keepends=True) if path.exists() else []
        records = [json.loads(line) for line in lines if line.endswith("\n")]
        self.known = {tuple(record["multiples"]): record["misfit"] for record in records}
        path.write_text("".join(line for line in lines if line.endswith("\n")))

    def __call__(self, multiples: np.ndarray, run) -> float:
        key = tuple(multiples.tolist())
        if key not in self.known:
            self.known[key] = run(multiples)
            with open(self.path, "a") as file:
                file.write(json.dumps({"multiples": key, "misfit": self.known[key]}) + "\n")
        return self.known[key]


def _kept(path: Path, like, make):
    """The tree in the file, made now if there is none."""
    if not path.exists():
        checkpoint.save(path, make())
    return checkpoint.load(path, like)
