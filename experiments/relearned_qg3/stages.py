"""Records of the truth, training, forecasts and free runs, each made once."""

import functools
import json

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax

import hybridgcm as hg
from experiments._run import parallel
from experiments.relearned_qg3 import models
from experiments.relearned_qg3.config import DAY, EMULATORS, LEARNED
from hybridgcm import checkpoint
from hybridgcm.closures.network import deviations
from hybridgcm.files import atomic
from hybridgcm.preemption import stop_if_asked

ROLL = eqx.filter_jit(hg.rollout)


def everything(run) -> dict:
    """{name: list over seeds of {"q": [lead], "q + f": [lead], "days": [run], "u": mean of u}}."""
    config = run.config
    plain = run.settings  # not the free runs', which records and training do not depend on
    data = run.stage("records", {"config": plain}, lambda folder: _records(config, folder))
    found = {}

    def score(label, name, build, *sources):
        inputs = {"config": plain, "data": data, "model": name} | {f"source{i}": s for i, s in enumerate(sources)}
        short = run.stage(f"forecasts-{label}", inputs, lambda f: _forecasts(config, build(), data, f))
        free = inputs | {"years": config.years, "free_dt": config.free_dt}
        one = lambda i: run.stage(
            f"free-{label}-{i}", free | {"run": i}, functools.partial(_free, config, build, data, i)
        )
        runs = range(config.runs if sources else min(config.runs, config.reference_runs))
        done = parallel(config.workers, {i: functools.partial(one, i) for i in runs})
        days = [done[i] for i in runs]
        scores = json.loads((short / "scores.json").read_text())
        scores["free"] = [str(folder.name) for folder in days]
        scores["days_lived"] = [json.loads((folder / "days.json").read_text()) for folder in days]
        found.setdefault(name, []).append(scores)

    score("truth", "truth", functools.partial(models.truth, config))
    if min(days := found["truth"][0]["days_lived"]) < 360 * config.years:
        raise ValueError(
            f"free runs of the truth itself ended after {days} days, of {config.years} years: AB3 is unstable with "
            f"free_dt={config.free_dt:g} s. Take a shorter one; what is made stays"
        )
    score("jacobian", "Jacobian alone", functools.partial(models.jacobian, config))
    kinds = dict.fromkeys(LEARNED, (_train, _closure)) | dict.fromkeys(EMULATORS, (_train_emulator, _emulator))
    for seed in range(config.seeds):
        for name, (train, load) in kinds.items():
            if (config.networks and name not in config.networks) or (name == "linear" and seed):
                continue  # the linear closure starts at zero: the same but for the order of batches
            label = f"{name.lower().replace(' ', '-')}-{seed}"
            inputs = {"config": plain, "data": data, "model": name, "seed": seed}
            trained = run.stage(f"train-{label}", inputs, functools.partial(train, config, name, seed, data))
            score(label, name, functools.partial(load, config, name, seed, data, trained), trained)
    return found


def _q(flow, state):
    return flow.view(state)["q"]


class _Winds(eqx.Module):
    """u, its square and the largest, of any model that steps q."""

    look: hg.Model

    def __call__(self, flow, state):
        u = self.look.view(self.look.encode({"q": flow.view(state)["q"]}))["u"]
        return {"u": u, "square": u**2, "fastest": jnp.max(jnp.abs(u))}


def _records(config, folder):
    """q of the truth: every step for training; six-hourly after it, for forecasts."""
    truth, day = models.truth(config), round(DAY / config.dt)
    _, air = models.atmosphere(config.truncation, config.inputs)
    state, _ = ROLL(truth, truth.encode({"q": air.start}), config.spin_up * day, every=day, save=None)
    state, out = ROLL(truth, state, config.days * day, save=_q)
    np.save(folder / "training.npy", np.asarray(out["save"]))
    later = 3 * config.starts + config.forecast
    _, out = ROLL(truth, state, later * day, every=day // 4, save=_q)
    np.save(folder / "test.npy", np.asarray(out["save"]))


def _train(config, name, seed, data, folder):
    q = np.load(data / "training.npy", mmap_mode="r")
    bare = models.jacobian(config)
    closure, scale = _untrained(config, name, seed, q, bare)
    flow = models.jacobian(config, closure, hold=models.held(name))
    size = jnp.asarray(scale * config.dt, jnp.float32)[:, None, None]

    def loss(prediction, target):
        return jnp.mean(((prediction["q"] - target["q"]) / size) ** 2)

    # Adam's first steps are as long as its rate: one of them took the linear closure's loss from .0002 to 1.2 at T42.
    linear = name == "linear"
    for label, length, steps, rate in (
        ("one step", 2, config.linear_steps if linear else config.one_step, 3e-3),
        ("unrolled", config.horizon + 1, 0 if linear else config.unrolled, 3e-4),
    ):
        key = jr.fold_in(jr.fold_in(jr.key(1), seed), length)
        if not steps:
            continue
        flow, log = hg.fit(
            flow, hg.windows({"q": q}, length=length, batch=config.batch, steps=steps, key=key), hg.online(loss),
            models.rates(*(optax.cosine_decay_schedule(r, steps) for r in (10 * rate, rate))),
            where=lambda m: models.weights(m.closure),
            key=key, checkpoints=checkpoint.Checkpoints(folder / f"checkpoints-{length}"), every=250,
            progress=f"{name} {seed}, {label}",
        )  # fmt: skip
        _save_log(folder / f"log-{length}.json", log)
    checkpoint.save(folder / "closure.ckpt", flow.closure)


def _untrained(config, name, seed, q, bare):
    """(closure with its scales, scale per level of the tendency that the Jacobian lacks)."""
    pick = np.linspace(0, len(q) - 2, min(200, len(q) - 1)).astype(int)
    steps = eqx.filter_jit(lambda flow, q: jax.lax.map(lambda x: flow.view(flow.step(flow.encode({"q": x})))["q"], q))
    missing = (q[pick + 1] - np.asarray(steps(bare, jnp.asarray(q[pick])), float)) / config.dt
    return models.closure(config, name, seed, models.fields_of(bare, q[pick]), missing), deviations({"q": missing})


def _closure(config, name, seed, data, trained, free=False):
    q = np.load(data / "training.npy", mmap_mode="r")
    like, _ = _untrained(config, name, seed, q, models.jacobian(config))
    like = models.jacobian(config, like).closure  # in the precision of the grid, as it was saved
    closure = checkpoint.load(trained / "closure.ckpt", like)
    if name == "linear":
        closure = models.folded(closure, models.jacobian(config).equation)
    return models.jacobian(config, closure, free, models.held(name))


def _train_emulator(config, name, seed, data, folder):
    q = _leads(config, data)
    flow, steps, key = models.emulator(config, name, seed, q), config.emulator_steps, jr.fold_in(jr.key(2), seed)
    size = flow.change["q"].reshape(-1, 1, 1)
    # Every record starts a pair, not only those that are whole leads apart.
    every = np.load(data / "training.npy", mmap_mode="r")
    stride = round(3600 * config.lead / config.dt)
    apart = [{"q": every[first::stride]} for first in range(stride)]
    order = hg.windows(apart, length=2, batch=config.batch, steps=steps, key=key)
    flow, log = hg.fit(
        flow, order, hg.online(lambda prediction, target: jnp.mean(((prediction["q"] - target["q"]) / size) ** 2)),
        optax.adam(optax.cosine_decay_schedule(2e-3, steps)), where=lambda m: m.net, key=key,
        checkpoints=checkpoint.Checkpoints(folder / "checkpoints"), every=250, progress=f"{name} {seed}",
    )  # fmt: skip
    _save_log(folder / "log.json", log)
    checkpoint.save(folder / "emulator.ckpt", flow)


def _leads(config, data):
    stride = round(3600 * config.lead / config.dt)
    return np.asarray(np.load(data / "training.npy", mmap_mode="r")[::stride])


def _emulator(config, name, seed, data, trained, free=False):
    like = models.emulator(config, name, seed, _leads(config, data))
    return checkpoint.load(trained / "emulator.ckpt", like)


def _forecasts(config, flow, data, folder):
    """scores.json: e(t) = |prediction − truth|/√⟨|truth|²⟩ over the grid, mean over starts, of q and of q + f."""
    test = np.load(data / "test.npy", mmap_mode="r")
    grid, _ = models.atmosphere(config.truncation, config.inputs)
    every = max(1, round(6 * 3600 / flow.dt))
    frames = round(config.forecast * DAY / flow.dt) // every
    stride = round(every * flow.dt / (6 * 3600))
    area = np.asarray(grid.weights, float)
    norm = lambda a: np.sqrt((area * np.asarray(a, float) ** 2).sum((-2, -1)).mean(-1))
    f = np.asarray(grid.coriolis(), float)
    climate = float(np.sqrt((norm(test) ** 2).mean())), float(np.sqrt((norm(test + f) ** 2).mean()))
    errors = []
    for number in range(config.starts):
        first = 12 * number
        _, out = ROLL(flow, flow.encode({"q": jnp.asarray(test[first])}), frames * every, every=every, save=_q)
        future = test[first + stride : first + stride * frames + 1 : stride]
        errors.append(norm(np.asarray(out["save"]) - future))
    anomaly = float(np.sqrt((norm(test - np.asarray(test, float).mean(0)) ** 2).mean()))
    mean = np.mean(errors, 0)
    scores = {
        "days": (np.arange(1, frames + 1) * every * flow.dt / DAY).tolist(), "q": (mean / climate[0]).tolist(),
        "q + f": (mean / climate[1]).tolist(), "anomaly": (mean / anomaly).tolist(),
        "valid": [float(_valid(e / anomaly, every * flow.dt / DAY)) for e in errors],
    }  # fmt: skip
    with atomic(folder / "scores.json") as temporary:
        temporary.write_text(json.dumps(scores))


def _valid(error, step: float) -> float:
    """Days until the error, in units of the anomalies' size, exceeds one half."""
    late = ~(error <= 0.5)
    return step * (int(late.argmax()) if late.any() else len(error))


def _free(config, build, data, number, folder):
    """days.json: how long a free run stayed finite and below 400 m/s; climate.npz: u, its mean and deviation till then.

    Goes on from its last year.
    """
    flow = build(free=True)
    q = np.load(data / "test.npy", mmap_mode="r")[12 * number]
    day, state = round(DAY / flow.dt), flow.encode({"q": jnp.asarray(q)})
    grid = models.atmosphere(config.truncation, config.inputs)[0]
    winds = _Winds(models.truth(config))
    shape, days = (2, 3, *grid.shape), 0
    total, saved = np.zeros(shape), checkpoint.Checkpoints(folder / "checkpoints", keep=1)
    if (before := saved.latest({"state": state, "total": total})) is not None:
        days, (state, total) = 360 * before[0], (before[1]["state"], before[1]["total"])
    for year in range(days // 360, config.years):
        stop_if_asked(f"before year {year + 1} of a free run")
        after, out = ROLL(flow, state, 360 * day, every=10 * day, save=None, mean=winds, sample=day)
        found = {name: np.asarray(a, float) for name, a in out["mean"].items()}
        fine = found["fastest"] < 400
        if not fine.all():
            days += 10 * int((~fine).argmax())
            break
        state, days, total = after, days + 360, total + [found["u"].mean(0), found["square"].mean(0)]
        saved.save(year + 1, {"state": state, "total": total})
        print(f"  free run {number}: {year + 1} of {config.years} years", end="\r", flush=True)
    u, square = total / (days // 360) if days >= 360 else np.full(shape, np.nan)
    np.savez(folder / "climate.npz", u=u, deviation=np.sqrt(np.maximum(square - u**2, 0)))
    with atomic(folder / "days.json") as temporary:
        temporary.write_text(json.dumps(days))


def _save_log(path, log):
    with atomic(path) as temporary:
        temporary.write_text(json.dumps([record["loss"] for record in log]))
