"""The truth, networks trained on it, and what they are put to, each made once."""

import dataclasses
import functools
import json
import time

import jax.numpy as jnp
import jax.random as jr
import numpy as np

import hybridgcm as hg
from experiments.emulators import astray, flows, networks, records, scores
from experiments.emulators.scores import write
from hybridgcm import checkpoint, nn, perturbations, train
from hybridgcm.files import atomic

TRUTH = ("flow", "inputs", "lead", "n", "calm", "records", "starts", "apart", "forecast")
TRAINING = (
    "one_step", "blur", "unrolled", "horizon", "batch", "size",
    "rounds", "strays", "stray_leads", "stray_excess", "stray_limit", "stray_decades",
    "solver_leads", "recall", "round_steps",
)  # fmt: skip
"""Settings that the truth's records, and beside them the weights, depend on."""


def everything(run) -> dict:
    """{name: list over seeds of scores}: networks, the solver at their resolution, persistence, and what they share."""
    config, found = run.config, {}
    flow = flows.flow(config)
    settings = dataclasses.asdict(config) | {"horizon": config.window()}
    only = lambda names: {name: settings[name] for name in names}
    known = only(TRUTH)
    data = run.stage("truth", known, functools.partial(records.make, config, flow))
    known = known | {"data": data}
    reference = run.stage("reference", known, functools.partial(scores.reference, config, flow, data))

    def score(name, seed, build, steps, inputs):
        """Scores of one model; ensemble and cost of the first of a kind."""
        label = f"{_plain(name)}-{seed}"
        parts = {"forecasts": (scores.forecasts, {}), "free": (functools.partial(scores.free, steps), {"steps": steps})}
        if not seed:
            parts |= {"ensemble": (functools.partial(scores.ensemble, "members"), only(("members", "noise")))}
            parts |= {"cost": (scores.cost, {})}
        row = {}
        for part, (function, more) in parts.items():
            build_part = functools.partial(function, config, flow, build, data)
            folder = run.stage(f"{part}-{label}", inputs | more, build_part)
            row |= json.loads((folder / "scores.json").read_text()) | {part: folder.name}
        found.setdefault(name, []).append(row)
        return row

    score("solver", 0, flow.solver, config.solver_steps, known | {"model": "solver"})
    for seed in range(config.seeds):
        for name in config.chosen():
            if name == "linear" and seed:
                continue  # starts at zero: the same but for the order of batches
            inputs = known | only(TRAINING) | {"model": name, "seed": seed}
            build = functools.partial(_train, config, flow, name, seed, data)
            trained = run.stage(f"train-{_plain(name)}-{seed}", inputs, build)
            build = functools.partial(load, config, flow, name, seed, data, trained)
            row = score(name, seed, build, config.free_steps, known | {"trained": trained})
            row |= json.loads((trained / "about.json").read_text())
            if config.many and not seed and name == config.chosen()[0]:
                many = functools.partial(scores.ensemble, "many", config, flow, build, data)
                folder = run.stage("many", known | {"trained": trained} | only(("many", "noise")), many)
                row["many"] = json.loads((folder / "scores.json").read_text())
    found["persistence"] = [json.loads((reference / "scores.json").read_text())]
    return {"models": found, "truth": data.name, "reference": reference.name}


def _plain(name: str) -> str:
    return name.lower().replace(" ", "-")


def load(config, flow, name, seed, data, trained, factor: int = 1) -> hg.Emulator:
    """A trained emulator, on the grid that is `factor` times as fine as that of its training."""
    like = networks.emulator(config, flow, name, seed, records.training(flow, data))
    found = checkpoint.load(trained / "emulator.ckpt", like)
    return found if factor == 1 else networks.at(flow, found, factor)


@functools.cache
def _objective(flow, data, change: tuple, anomalies: bool, drift: bool, blur):
    """Mean squares over those of one lead's changes; the same for all seeds, as jit asks.

    `change`: (name, one number per layer). Frames of more than the records' largest mean square (that of departures
    from their mean, for a network that sees anomalies) are weighed down by as much: the few that strayed far would
    drown all others. `blur`: 0, or what `networks.start_noise` gives; white, or for a `drift` of all wavenumbers.
    """
    fields = records.training(flow, data)
    usual = {name: a * anomalies for name, a in astray.mean(fields).items()}
    largest = {
        name: np.mean(np.square(a - usual[name], dtype=float), (-2, -1)).max(0).astype(a.dtype)
        for name, a in fields.items()
    }

    def loss(prediction, target):
        errors = []
        for name, size in change:
            square = jnp.mean((prediction[name] - target[name]) ** 2, (-2, -1)) / np.asarray(size, np.float32) ** 2
            excess = jnp.mean((target[name] - usual[name]) ** 2, (-2, -1)) / largest[name]
            errors.append(jnp.mean(square / jnp.maximum(1, excess)))
        return sum(errors) / len(errors)

    amplitude = dict(blur) if isinstance(blur, tuple) else blur
    draw = perturbations.drawn(flow.grid(1)) if drift else jr.normal
    return train.perturbed(hg.online(loss), amplitude, draw=draw) if blur else hg.online(loss)


def _train(config, flow, name, seed, data, folder):
    fields = records.training(flow, data)
    model = networks.emulator(config, flow, name, seed, fields)
    change = tuple((key, tuple(np.atleast_1d(model.change[key]).tolist())) for key in fields)
    sees, noise = isinstance(model.net, nn.Anomalies), networks.start_noise(config, model)
    objective = functools.partial(_objective, flow, data, change, sees, config.drift())
    # In all of the training noise took a U-Net of the two-layer flow from 1.14 to .82 of the truth's kinetic energy.
    later = noise if config.drift() else 0.0
    begin, logs, runs, lost, made = time.perf_counter(), [], [fields], [], []
    short = 2, config.one_step, config.batch, 2e-3, noise
    ahead = config.window() + 1, config.unrolled, max(1, config.batch // 2), 5e-4, later
    for number in range(config.rounds + 1):
        for length, steps, batch, rate, blur in (short, ahead):
            if not steps:
                continue
            key = jr.fold_in(jr.fold_in(jr.fold_in(jr.key(2), seed), length), number)
            model, log = hg.fit(
                model, hg.windows(runs, length=length, batch=batch, steps=steps, key=key),
                objective(blur), networks.optimiser(name, rate, steps), where=networks.weights, key=key,
                checkpoints=checkpoint.Checkpoints(folder / f"checkpoints-{number}-{length}"), every=500,
                progress=f"{name} {seed}, round {number}, {length - 1} ahead",
            )  # fmt: skip
            logs.append([record["loss"] for record in log])
        made.append(model)
        if not config.rounds:
            break
        strays, ends = _strays(config, flow, model, fields, seed, number + 1, folder, number < config.rounds)
        lost.append(ends)
        if not ends:
            break
        runs, short = runs + strays, (2, config.round_steps, config.batch, 5e-4, later)
    kept = best(lost)  # a round may undo what the ones before had taught
    model = made[kept]
    checkpoint.save(folder / "emulator.ckpt", model)
    write(folder / "log.json", logs)
    about = {"weights": networks.count(model), "training": time.perf_counter() - begin, "lost": lost, "kept": kept}
    write(folder / "about.json", about)


def best(lost: list[list[int]]) -> int:
    """Number of the round that lost fewest runs, of equal ones where they lived longest, then the latest.

    `lost`: of every round after how many leads each of its runs was lost.
    """
    return max(range(len(lost)), key=lambda number: (-len(lost[number]), sum(lost[number]), number), default=0)


def _strays(config, flow, model, fields, seed, number, folder, asked: bool) -> tuple[list, list]:
    """What the solver, if `asked`, makes of where the network went, and after how many leads runs were lost; once."""
    path = folder / f"strays-{number}.npz"
    if not path.exists():
        rng = np.random.default_rng([seed, number])
        starts, lost = astray.states(config, flow.grid(1), model, fields, rng)
        starts = starts if asked and lost else []
        runs = astray.onwards(flow, starts, config.solver_leads, fields, flows.DAY * config.recall)
        stacked = {name: np.stack([run[name] for run in runs]) for name in flow.names} if runs else {}
        with atomic(path) as temporary, open(temporary, "wb") as file:
            np.savez(file, lost=lost, **stacked)
    with np.load(path) as kept:
        stacked = {name: kept[name] for name in flow.names if name in kept}
        lost = kept["lost"].astype(int).tolist()
    count = len(next(iter(stacked.values()), ()))
    return [{name: a[run] for name, a in stacked.items()} for run in range(count)], lost
