"""Truth, analyses, increments, corrections and their scores, each made once."""

import dataclasses
import functools
import json

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax

import hybridgcm as hg
from experiments.hybrid_qg3.config import DAY
from hybridgcm import batches, checkpoint, closures, nn, qg3
from hybridgcm.blueprint import blueprint
from hybridgcm.files import atomic

ROLL = eqx.filter_jit(hg.rollout)


def everything(run) -> dict:
    """{name of a model: list over seeds of its scores}, with "truth" for a second run of the truth itself."""
    config, plain = run.config, _plain(run.config)
    data = run.stage("analyses", plain, lambda folder: _analyses(config, folder))
    reference = run.stage("climate-truth", plain | {"data": data}, lambda f: _climate(config, "truth", None, data, f))
    found = {}

    def score(label, name, closure, *sources):
        inputs = plain | {"data": data, "truth": reference, "model": name}
        inputs |= {f"source{i}": source for i, source in enumerate(sources)}
        out = run.stage(f"scores-{label}", inputs, lambda f: _scores(config, name, closure(), data, reference, f))
        found.setdefault(name, []).append(json.loads((out / "scores.json").read_text()) | {"folder": str(out.name)})

    score("truth", "truth", lambda: None)
    score("none", "no correction", lambda: None)
    score("mean", "mean increment", lambda: mean_increment(data))
    for seed in range(config.seeds):
        inputs = plain | {"data": data, "seed": seed}
        offline = run.stage(f"offline-{seed}", inputs, functools.partial(_offline, config, seed, data))
        online = run.stage(
            f"online-{seed}", inputs | {"start": offline}, functools.partial(_online, config, seed, data, offline)
        )
        for label, folder in (("offline", offline), ("online", online)):
            score(f"{label}-{seed}", f"network, {label}", functools.partial(_load, folder), folder)
    return found


def model(config, name: str, closure=None):
    """The truth, or the imperfect model with a closure."""
    grid, air = atmosphere(config)
    if name == "truth":
        flow = hg.QuasiGeostrophic.qg3(grid, orography=air.orography, land=air.land)
    else:
        drag = np.full(grid.shape, 1 / (config.friction * DAY))
        rate = 1 / (config.relaxation * DAY)
        flow = hg.QuasiGeostrophic.qg3(grid, orography=config.orography * air.orography, drag=drag, relaxation=rate)
    return hg.Model(flow, hg.RK4(), closure, dt=config.dt, forcing=air.forcing)


def atmosphere(config):
    """(grid, forcing with orography, land and start)."""
    return _inputs(config.truncation, config.inputs)


@functools.cache
def _inputs(truncation: int, inputs: str):
    grid = hg.Sphere(truncation)
    return grid, qg3.read(inputs, grid) if inputs else qg3.winter(grid)


def _analyses(config, folder):
    """Six-hourly truth, and the imperfect model's forecasts from each to the next."""
    truth, six, day = model(config, "truth"), _six(config), round(DAY / config.dt)
    start = truth.encode({"q": atmosphere(config)[1].start})
    state, _ = ROLL(truth, start, config.spin_up * day, every=day, save=None)
    pick = lambda model, state: model.view(state)["q"]
    _, out = ROLL(truth, state, config.analyses * day, every=six, save=pick)
    q = out["save"]
    guesses = _forecast(config, model(config, "model"), q[:-1])
    np.savez(folder / "data.npz", q=np.asarray(q), guesses=np.asarray(guesses))


def _six(config) -> int:
    return round(DAY / 4 / config.dt)


def _forecast(config, with_closure, q):
    six = _six(config)

    @eqx.filter_jit
    def run(model, q):
        one = lambda x: model.view(hg.rollout(model, model.encode({"q": x}), six, every=six, save=None)[0])["q"]
        return jax.lax.map(one, q)

    return run(with_closure, jnp.asarray(q))


def _training(data) -> tuple[np.ndarray, dict]:
    """(analyses, {"q": forecasts, "S": increments}) of the first four fifths."""
    with np.load(data / "data.npz") as file:
        q, guesses = file["q"], file["guesses"]
    n = 4 * len(guesses) // 5
    return q[:n], batches.increments({"q": guesses[:n]}, {"q": q[1 : n + 1]}, DAY / 4)


def mean_increment(data) -> closures.BiasCorrection:
    """The increment that all have in common."""
    return closures.BiasCorrection.from_increments({"q": _training(data)[1]["S"]})


def _closure(config, seed, data):
    """(mean increment + untrained network scaled to the rest of the increments, that rest)."""
    _, pairs = _training(data)
    rest = pairs["S"] - pairs["S"].mean(0)
    sizes = (3, config.width, config.width, 3)
    net = nn.PolarCNN(sizes, (5, 3, 3), key=jr.key(seed), activation=jax.nn.gelu)
    network = hg.NetworkClosure.from_data(net, {"q": pairs["q"]}, {"q": rest})
    return hg.Sum(mean_increment(data), network), {"q": pairs["q"], "S": rest}


def _offline(config, seed, data, folder):
    both, pairs = _closure(config, seed, data)
    steps = config.offline_steps
    order = batches.samples(pairs, batch=16, steps=steps, key=jr.fold_in(jr.key(1), seed))
    trained, log = hg.fit(
        model(config, "model", both.parts[1]), order, hg.offline(hg.metrics.mse("S")),
        optax.adam(optax.cosine_decay_schedule(3e-3, steps)), where=lambda m: m.closure.net, key=jr.key(seed),
        checkpoints=checkpoint.Checkpoints(folder / "checkpoints"), every=500, progress=f"offline {seed}",
    )  # fmt: skip
    _save(folder, hg.Sum(both.parts[0], trained.closure), log)


def _online(config, seed, data, offline, folder):
    q = _training(data)[0]
    steps, key = config.online_steps, jr.fold_in(jr.key(2), seed)
    order = hg.windows({"q": q}, length=config.horizon + 1, batch=8, steps=steps, key=key)
    trained, log = hg.fit(
        model(config, "model", _load(offline)), order,
        hg.online(hg.metrics.mse("q"), every=_six(config), chunk=2),
        optax.adam(optax.cosine_decay_schedule(1e-3, steps)),
        where=lambda m: m.closure.parts[1].net, key=jr.key(seed),
        checkpoints=checkpoint.Checkpoints(folder / "checkpoints"), every=50, progress=f"online {seed}",
    )  # fmt: skip
    _save(folder, trained.closure, log)


def _save(folder, closure, log):
    checkpoint.save(folder / "closure.ckpt", closure)
    with atomic(folder / "log.json") as temporary:
        temporary.write_text(json.dumps([record["loss"] for record in log]))


def _load(folder):
    file = folder / "closure.ckpt"
    return checkpoint.load(file, blueprint(checkpoint.read_header(file)["tree"]))


def _climate(config, name, closure, data, folder, first=-1):
    """Mean and deviation in time of u `[level, y, x]` of a free run from an analysis; not finite if it blew up."""
    free, day = model(config, name, closure), round(DAY / config.dt)
    with np.load(data / "data.npz") as file:
        start = free.encode({"q": jnp.asarray(file["q"][first])})
    state, _ = ROLL(free, start, config.spin_up * day, every=day, save=None)

    def moments(model, state):
        u = model.view(state)["u"]
        return {"u": u, "square": u**2}

    _, out = ROLL(free, state, config.climate * day, every=10 * day, save=lambda m, s: 0.0, mean=moments)
    u, square = (np.asarray(out["mean"][key], float).mean(0) for key in ("u", "square"))
    np.savez(folder / "climate.npz", u=u, deviation=np.sqrt(np.maximum(square - u**2, 0)))


def _scores(config, name, closure, data, reference, folder):
    """scores.json: first guess and climate errors, rms per level; the climate beside it."""
    _climate(config, name, closure, data, folder, first=0 if name == "truth" else -1)
    with np.load(folder / "climate.npz") as mine, np.load(reference / "climate.npz") as truth:
        u, v = mine["u"] - truth["u"], mine["deviation"] - truth["deviation"]
    with np.load(data / "data.npz") as file:
        q = file["q"]
    n = 4 * (len(q) - 1) // 5
    guesses = _forecast(config, model(config, name, closure), q[n:-1])
    weight = np.cos(np.radians(atmosphere(config)[0].latitude))[:, None]
    rms = lambda a: np.sqrt((weight * a**2).mean((-2, -1)) / weight.mean())
    first = np.sqrt((rms(np.asarray(guesses, float) - q[n + 1 :]) ** 2).mean(0))
    scores = {"first guess": first.tolist(), "mean u": rms(u).tolist(), "deviation of u": rms(v).tolist()}
    with atomic(folder / "scores.json") as temporary:
        temporary.write_text(json.dumps(scores))


def _plain(config) -> dict:
    """All settings that results depend on: more seeds make nothing anew."""
    return {"config": {key: value for key, value in dataclasses.asdict(config).items() if key != "seeds"}}
