"""Truth, analyses, increments, corrections and their scores, each made once."""

import functools
import json

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax

import hybridgcm as hg
from experiments.hybrid_qg3 import climates
from experiments.hybrid_qg3.atmosphere import atmosphere, forecast, model, rms, six_hours, truth_run
from experiments.hybrid_qg3.config import DAY
from experiments.relearned_qg3.models import fields_of, linear_closure
from hybridgcm import batches, checkpoint, closures, nn
from hybridgcm.blueprint import blueprint
from hybridgcm.files import atomic

ONLINE = ("horizon", "online_steps")
"""Settings that only online training depends on."""


def everything(run) -> dict:
    """{name of a model: list over seeds of its scores}, with "truth" for a second run of the truth itself."""
    # More seeds make nothing anew, and other online training only that.
    config, plain = run.config, {"config": {k: v for k, v in run.settings.items() if k not in ONLINE}}
    data = run.stage("analyses", plain, lambda folder: _analyses(config, folder))
    reference = run.stage("climate-truth", plain | {"data": data}, lambda f: climates.free(config, "truth", data, f))
    found = {}

    def score(label, name, model_of, *sources, kind="model"):
        inputs = plain | {"data": data, "truth": reference, "model": name}
        inputs |= {f"source{i}": source for i, source in enumerate(sources)}
        build = lambda folder: _scores(config, kind, model_of(), data, reference, folder)
        out = run.stage(f"scores-{label}", inputs, build)
        found.setdefault(name, []).append(json.loads((out / "scores.json").read_text()) | {"folder": str(out.name)})

    corrected = lambda folder: lambda: model(config, "model", _load(folder))
    score("truth", "truth", lambda: model(config, "truth"), kind="truth")
    score("none", "no correction", lambda: model(config, "model"))
    if config.hyperdiffusion:
        best = run.stage("hyperdiffusion", plain | {"data": data}, lambda f: climates.hyperdiffusion(config, data, f))
        tau = json.loads((best / "tau.json").read_text())["days"]
        score("hyperdiffusion", "tuned hyperdiffusion", lambda: model(config, "model", tau=tau), best)
    score("mean", "mean increment", lambda: model(config, "model", mean_increment(data)))
    tuned = run.stage("tuned-mean", plain | {"data": data}, functools.partial(_tuned, config, 0, data, None))
    score("tuned-mean", "mean increment, gradient-free", corrected(tuned), tuned)
    straight = run.stage("linear", plain | {"data": data}, functools.partial(_linear, config, data))
    score("linear", "linear closure", lambda: model(config, "model", _load(straight), hold=False), straight)
    for seed in range(config.seeds):
        inputs = plain | {"data": data, "seed": seed}
        offline = run.stage(f"offline-{seed}", inputs, functools.partial(_offline, config, seed, data))
        after = inputs | {"start": offline}
        through = after | {key: getattr(config, key) for key in ONLINE}
        online = run.stage(f"online-{seed}", through, functools.partial(_online, config, seed, data, offline))
        free = run.stage(f"tuned-{seed}", after, functools.partial(_tuned, config, seed, data, offline))
        for label, name, folder in (
            ("offline", "network, offline", offline),
            ("tuned", "network, offline, then gradient-free", free),
            ("online", "network, online", online),
        ):
            score(f"{label}-{seed}", name, corrected(folder), folder)
    return found


def _analyses(config, folder):
    """Six-hourly truth, and the model's forecasts from each to the next."""
    q = truth_run(config)
    np.savez(folder / "data.npz", q=q, guesses=np.asarray(forecast(config, model(config, "model"), q[:-1])))


def training(data) -> tuple[np.ndarray, dict]:
    """(analyses, {"q": forecasts, "S": increments}) of the first four fifths."""
    with np.load(data / "data.npz") as file:
        q, guesses = file["q"], file["guesses"]
    n = 4 * len(guesses) // 5
    return q[:n], batches.increments({"q": guesses[:n]}, {"q": q[1 : n + 1]}, DAY / 4)


def mean_increment(data) -> closures.BiasCorrection:
    """The increment that all have in common."""
    return closures.BiasCorrection.from_increments({"q": training(data)[1]["S"]})


def _linear(config, data, folder):
    """The mean increment and `linear_closure`, in every stage of the solver; trained through six hours of it."""
    q, pairs = training(data)
    fields, steps = fields_of(model(config, "model"), q[::8]), config.linear_steps
    closure = hg.Sum(mean_increment(data), *linear_closure(config.truncation, fields, pairs["S"]).parts)
    scale = closure.parts[-1].output_scale
    unit = jnp.asarray(scale * DAY / 4, q.dtype)[:, None, None]
    trained, log = hg.fit(
        model(config, "model", closure, hold=False),
        hg.windows({"q": q}, length=2, batch=8, steps=steps, key=jr.key(4)),
        hg.online(lambda p, t: jnp.mean(((p["q"] - t["q"]) / unit) ** 2), every=six_hours(config)),
        optax.adam(optax.cosine_decay_schedule(3e-2, steps)),
        where=lambda m: tuple(part.net for part in m.closure.parts[1:]), key=jr.key(0),
        checkpoints=checkpoint.Checkpoints(folder / "checkpoints"), every=250, progress="linear",
    )  # fmt: skip
    _save(folder, trained.closure, log)


def _closure(config, seed, data):
    """(mean increment + untrained network scaled to the rest of the increments, that rest)."""
    _, pairs = training(data)
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
    q = training(data)[0]
    steps, key = config.online_steps, jr.fold_in(jr.key(2), seed)
    order = hg.windows({"q": q}, length=config.horizon + 1, batch=8, steps=steps, key=key)
    trained, log = hg.fit(
        model(config, "model", _load(offline)), order,
        hg.online(_loss(config, q), every=six_hours(config), chunk=2),
        optax.adam(optax.cosine_decay_schedule(1e-4, steps)),  # 1e-3 walks away from the offline network
        where=lambda m: m.closure.parts[1].net, key=jr.key(seed),
        checkpoints=checkpoint.Checkpoints(folder / "checkpoints"), every=50, progress=f"online {seed}",
    )  # fmt: skip
    _save(folder, trained.closure, log)


def _loss(config, q, windows: int = 24):
    """Mean of (q(p) − q(t))²/ε² and of (E(p) − E(t))²/ε'² over frames, levels, points and degrees.

    E is the kinetic energy of a degree, ε² and ε'² the mean squares of both errors that the model makes without
    correction from some `windows` analyses, the latter and 5 % of E: 1 + 1 is worth nothing. Least squares of the
    fields alone teach a closure to drain what is uncertain: at T21 below T42, energies were off by a factor of 1.6
    after training over two days, by 1.4 after one day, by 1.1 with this loss.
    """
    flow, length = model(config, "model"), config.horizon + 1
    energy = hg.metrics.energy_spectrum(flow.equation)
    energies = lambda q: jax.lax.map(lambda q: energy({"q": q})[..., 1:], q)
    some = np.stack([q[i : i + length] for i in np.linspace(0, len(q) - length, windows).astype(int)])

    def errors(q):
        every = six_hours(config)
        save = lambda model, state: model.decode(state)["q"]
        found = hg.rollout(flow, flow.encode({"q": q[0]}), every * config.horizon, every=every, save=save)[1]["save"]
        return (found - q[1:]) ** 2, (energies(found) - energies(q[1:])) ** 2, energies(q[1:]) ** 2

    fields, squares, sizes = jax.jit(lambda q: jax.lax.map(errors, q))(jnp.asarray(some))
    weight = flow.equation.grid.weights
    unit = jnp.mean(jnp.sum(fields * weight, (-2, -1)), 0)[..., None, None]
    scale = jnp.mean(squares, 0) + 0.05**2 * jnp.mean(sizes, 0)

    def loss(prediction, target):
        p, t = prediction["q"], target["q"]
        wrong = jnp.mean(jnp.sum((p - t) ** 2 / unit * weight, (-2, -1)))
        return wrong + jnp.mean((energies(p) - energies(t)) ** 2 / scale)

    return loss


def _tuned(config, seed, data, offline, folder):
    """Amplitudes per level of the mean increment and of the offline network, by ensemble Kalman inversion."""
    parts = (mean_increment(data),) if offline is None else _load(offline).parts
    closure = hg.Sum(*(hg.Scaled(part, jnp.ones((3, 1, 1))) for part in parts))
    target, noise = climates.target(config, training(data)[0])
    found, log = hg.eki(
        model(config, "model", closure), climates.statistics(config, data), target, noise,
        where=lambda m: tuple(part.amplitude for part in m.closure.parts), spread=0.3,
        members=config.members, iterations=config.iterations, key=jr.fold_in(jr.key(3), seed),
        callback=lambda i, _, record: print(f"gradient-free {seed}, {i}: misfit {record['misfit']:.3g}", flush=True),
    )  # fmt: skip
    _save(folder, found.closure, [{"loss": record["misfit"]} for record in log])


def _save(folder, closure, log):
    checkpoint.save(folder / "closure.ckpt", closure)
    with atomic(folder / "log.json") as temporary:
        temporary.write_text(json.dumps([record["loss"] for record in log]))


def _load(folder):
    file = folder / "closure.ckpt"
    return checkpoint.load(file, blueprint(checkpoint.read_header(file)["tree"]))


def _scores(config, kind, flow, data, reference, folder):
    """scores.json: first guess and errors of the climate, per level; the climate beside it."""
    climates.free(config, kind, data, folder, flow, first=0 if kind == "truth" else -1)
    with np.load(data / "data.npz") as file:
        q = file["q"]
    n = 4 * (len(q) - 1) // 5
    guesses = forecast(config, flow, q[n:-1])
    first = np.sqrt((rms(atmosphere(config)[0], np.asarray(guesses, float) - q[n + 1 :]) ** 2).mean(0))
    scores = {"first guess": first.tolist()} | climates.errors(config, folder, reference)
    with atomic(folder / "scores.json") as temporary:
        temporary.write_text(json.dumps(scores))
