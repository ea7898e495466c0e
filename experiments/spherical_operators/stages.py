"""Pairs, networks, baselines, free runs and their scores, each made once."""

import functools
import json
import time

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax

import hybridgcm as hg
from experiments.spherical_operators import baselines
from experiments.spherical_operators.baselines import NAMES
from experiments.spherical_operators.networks import TITLES, emulator, hidden
from hybridgcm import checkpoint, pairs
from hybridgcm.batches import samples as drawn
from hybridgcm.evaluate import survivors
from hybridgcm.files import atomic
from hybridgcm.steppers import RK4

MEAN = 9.80616 * 10e3
"""g H of the published data, m² s⁻²."""
SUBSTEPS = 4
"""Steps in a lead of the solver that runs freely beside the networks."""
LEADS = (1, 6, 24)
"""Steps after which free runs are compared with the solver's."""


def everything(run) -> dict:
    """{"scores": {method: list over seeds of {part: {name: error}, ...}}, "runs": {method: list over seeds}}."""
    config = run.config
    keys = ("truncation", "fine", "largest", "lead", "dt", "mach", "thickness", "epochs", "samples", "tests")
    settings = {key: getattr(config, key) for key in keys}
    data = run.stage("pairs", settings, functools.partial(_pairs, config))
    inputs = {"data": data, "starts": config.starts, "steps": config.steps}
    simple = _read(run.stage("simple", inputs, functools.partial(_simple, config, data)))
    found = {"scores": {name: [row] for name, row in simple["scores"].items()}, "runs": {"solver": [simple["run"]]}}
    for seed in range(config.seeds):
        for recipe in config.recipes:
            inputs = {"data": data, "recipe": recipe, "seed": seed, "hidden": hidden(config, recipe)}
            inputs |= {key: getattr(config, key) for key in ("layers", "cutoff", "batch", "rate")}
            folder = run.stage(f"{recipe}-{seed}", inputs, functools.partial(_train, config, recipe, seed, data))
            label = TITLES[recipe]
            found["scores"].setdefault(label, []).append(_read(folder) | {"folder": folder.name})
            inputs = {"data": data, "network": folder, "starts": config.starts, "steps": config.steps}
            build = functools.partial(_run_freely, config, recipe, data, folder)
            folder = run.stage(f"free-{recipe}-{seed}", inputs, build)
            found["runs"].setdefault(label, []).append(_read(folder))
    return found


def parts(config) -> dict[str, int]:
    """{test part: truncation}."""
    label = lambda truncation: "{} × {}".format(*hg.Sphere(truncation).shape)
    return {label(truncation): truncation for truncation in (config.truncation, config.fine)}


def solver(config, truncation: int, stepper=None, dt: float | None = None) -> hg.Model:
    """Shallow water on the rotating Earth, 10 km deep, without dissipation; by default the truth's."""
    grid = hg.Sphere(truncation)
    return hg.Model(hg.ShallowWater(grid, grid.coriolis(), MEAN), stepper or RK4(), dt=dt or config.dt)


def trained(config, recipe: str, data, folder) -> hg.Emulator:
    """The emulator in a stage."""
    return checkpoint.load(folder / "emulator.ckpt", emulator(config, recipe, _scales(load(data, "train"))))


def at(model: hg.Emulator, truncation: int) -> hg.Emulator:
    """The same weights on another grid."""
    return eqx.tree_at(lambda m: m.grid, model, hg.Sphere(truncation))


def load(data, part: str) -> dict[str, np.ndarray]:
    """{name: `[pair, 2, 1, y, x]`}: start and end."""
    with np.load(data / f"{part}.npz") as file:
        return {name: file[name] for name in NAMES}


def advanced(model, starts: dict, steps: int) -> dict:
    """Fields after `steps` steps of a model, sample by sample; one compilation serves every number of steps."""
    return _advanced(model, {name: jnp.asarray(a) for name, a in starts.items()}, jnp.asarray(steps))


@eqx.filter_jit
def _advanced(model, starts, steps):
    step = lambda _, state: model.step(state)
    one = lambda fields: model.decode(jax.lax.fori_loop(0, steps, step, model.encode(fields)))
    return jax.lax.map(one, starts)


@eqx.filter_jit
def _errors(made, truth, grid):
    return {name: jnp.mean(hg.metrics.lp(name, grid=grid)(made, truth)) for name in NAMES}


def errors(made: dict, truth: dict, grid: hg.Sphere) -> dict[str, float]:
    """Mean over samples of the relative L2 error, by quadrature, of every field."""
    put = lambda fields: {name: jnp.asarray(fields[name]) for name in NAMES}
    return {name: float(value) for name, value in _errors(put(made), put(truth), grid).items()}


def _pairs(config, folder):
    many = config.epochs * config.samples
    wanted = {"train": (config.truncation, many, jr.key(20))}
    wanted |= {part: (truncation, config.tests, jr.key(21)) for part, truncation in parts(config).items()}
    for part, (truncation, count, key) in wanted.items():
        made = pairs.shallow_water(
            solver(config, truncation), count, key, largest=config.largest, lead=config.lead, mach=config.mach,
            thickness=config.thickness,
        )  # fmt: skip
        both = {name: np.stack([made[f"{name}0"], made[name]], 1).astype(np.float32) for name in NAMES}
        np.savez(folder / f"{part}.npz", **both)


def _simple(config, data, folder):
    train, coarse = load(data, "train"), hg.Sphere(config.truncation)
    some = slice(min(1000, len(train["phi"])))
    starts, ends = ({name: a[some, i] for name, a in train.items()} for i in (0, 1))
    methods = {
        "persistence": baselines.persistence,
        "linear map, degree by degree": baselines.per_degree(starts, ends, coarse),
        "linear map, with sin φ": baselines.per_degree(starts, ends, coarse, latitude=True),
    }
    for stepper, substeps in ((hg.SIL3(), 1), (hg.SIL3(), SUBSTEPS), (RK4(), SUBSTEPS)):
        dt = config.lead / substeps
        methods[f"solver, {type(stepper).__name__} with {dt:.0f} s"] = functools.partial(_solved, config, stepper, dt)
    scores = {name: {} for name in methods}
    for part, truncation in parts(config).items():
        test, grid = load(data, part), hg.Sphere(truncation)
        starts, truth = ({name: a[:, i] for name, a in test.items()} for i in (0, 1))
        for name, method in methods.items():
            scores[name][part] = errors(method(starts, grid), truth, grid)
            begin = time.perf_counter()
            method(starts, grid)
            milliseconds = 1e3 * (time.perf_counter() - begin) / config.tests
            scores[name].setdefault("ms", {})[part] = milliseconds
    free = _free(config, data, solver(config, config.truncation, RK4(), config.lead / SUBSTEPS), SUBSTEPS)
    _write(folder, {"scores": scores, "run": free})


def _solved(config, stepper, dt, starts, grid):
    model = solver(config, grid.truncation, stepper, dt)
    return jax.block_until_ready(advanced(model, starts, round(config.lead / dt)))


def _train(config, recipe, seed, data, folder):
    train = load(data, "train")
    model = emulator(config, recipe, _scales(train), jr.key(seed))
    steps = len(train["phi"]) // config.batch
    clock, batches = _Clock(), drawn(train, config.batch, steps, jr.fold_in(jr.key(22), seed))
    model, log = hg.fit(
        model, batches, *_training(config.rate, steps, config.truncation),
        where=lambda m: m.net, key=jr.key(23), callback=clock, every=max(1, steps // 4),
        checkpoints=checkpoint.Checkpoints(folder / "checkpoints"), progress=f"{recipe} {seed}",
    )  # fmt: skip
    checkpoint.save(folder / "emulator.ckpt", model)
    weights = sum(a.size for a in jax.tree.leaves(eqx.filter(model.net, eqx.is_inexact_array)))
    found = {"weights": weights, "seconds a step": clock.median(), "ms": {}}
    for part, truncation in parts(config).items():
        test, here = load(data, part), at(model, truncation)
        starts, truth = ({name: a[:, i] for name, a in test.items()} for i in (0, 1))
        found[part] = errors(advanced(here, starts, 1), truth, here.grid)
        begin = time.perf_counter()
        jax.block_until_ready(advanced(here, starts, 1))
        found["ms"][part] = 1e3 * (time.perf_counter() - begin) / config.tests
    _write(folder, found | {"loss": [record["loss"] for record in log]})


@functools.cache
def _training(rate: float, steps: int, truncation: int):
    """(objective, optimiser), the same for all seeds: they share one compilation."""
    losses = [hg.metrics.lp(name, grid=hg.Sphere(truncation)) for name in NAMES]
    loss = lambda made, truth: sum(one(made, truth) for one in losses) / len(losses)
    return hg.online(loss), optax.adamw(optax.cosine_decay_schedule(rate, steps), weight_decay=1e-4)


def _scales(train: dict) -> tuple[dict, dict]:
    """Standard deviations of the fields and of their changes over the lead."""
    fields = {name: float(a[:, 0].std()) for name, a in train.items()}
    return fields, {name: float((a[:, 1] - a[:, 0]).std()) for name, a in train.items()}


def _run_freely(config, recipe, data, network, folder):
    _write(folder, _free(config, data, trained(config, recipe, data, network), 1))


def _free(config, data, model, substeps: int) -> dict:
    """Errors against the truth at `LEADS`, and the step at which each run first left what is bounded, or none.

    Bounded: variance of every field at most ten times the largest of the starts. Gravity waves bring that of φ to five
    times what it starts with (with few and large scales to more: `smoke` is no measure).
    """
    part = next(iter(parts(config)))
    starts = {name: a[: config.starts, 0] for name, a in load(data, part).items()}
    truth, own = solver(config, config.truncation), round(config.lead / config.dt)
    grid, wrong = hg.Sphere(config.truncation), {}
    for lead in LEADS:
        wrong[lead] = errors(advanced(model, starts, lead * substeps), advanced(truth, starts, lead * own), grid)
    found = survivors(model, starts, config.steps * substeps, every=40 * substeps)
    failed = [None if step is None else step // substeps for step in found.first_bad_step]
    return {"errors": wrong, "failed": failed, "reasons": list(found.reason)}


class _Clock:
    """Times of steps; the median leaves compilation out."""

    def __init__(self):
        self.times = []

    def __call__(self, step, model, record):
        self.times.append(time.perf_counter())

    def median(self) -> float:
        """Seconds from one step to the next."""
        return float(np.median(np.diff(self.times))) if len(self.times) > 1 else float("nan")


def _write(folder, content):
    with atomic(folder / "scores.json") as temporary:
        temporary.write_text(json.dumps(content))


def _read(folder):
    return json.loads((folder / "scores.json").read_text())
