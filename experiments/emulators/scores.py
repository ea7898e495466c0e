"""What becomes of a model that is put in the place of the truth's solver."""

import functools
import json
import time

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

import hybridgcm as hg
from experiments.emulators.records import ROLL, factors, later, training
from hybridgcm import metrics, perturbations
from hybridgcm.evaluate import LIMIT, verify
from hybridgcm.files import atomic
from hybridgcm.preemption import stop_if_asked
from hybridgcm.rollout import BlewUp

LOOK = 100
"""Steps of a free run between two looks at it."""


def firsts(config, factor: int = 1) -> range:
    """Records from which forecasts start; on finer grids a quarter of them."""
    count = config.starts if factor == 1 else max(1, config.starts // 4)
    return range(0, config.apart * count, config.apart)


def reference(config, flow, data, folder):
    """What models are measured with: the truth's statistics at resolution 1, and the errors of persistence."""
    truth = later(flow, data)
    every = {name: np.concatenate([a, truth[name]]) for name, a in training(flow, data).items()}
    look = Look(flow.solver(1), flow.grid(1))
    kept = eqx.filter_jit(lambda fields: jax.lax.map(look.of, fields))
    out = kept({name: jnp.asarray(a) for name, a in every.items()})
    _save_looks(folder / "looks.npz", out)
    still = lambda fields, leads: {name: np.repeat(a[None], leads, 0) for name, a in fields.items()}
    found = errors(config, flow, still, flow.grid(1), truth, firsts(config))
    write(folder / "scores.json", {"error1": found.tolist()})


def forecasts(config, flow, build, data, folder):
    """Errors at every resolution of the truth; where a network knows one resolution only, its words."""
    scores = {}
    for factor in factors(flow):
        if build is flow.solver and factor == flow.finest:
            continue  # that is the truth's
        try:
            model = build(factor=factor)
            steps = round(flow.lead / model.dt)

            def run(fields, leads, model=model, steps=steps):
                state = model.encode({name: jnp.asarray(a) for name, a in fields.items()})
                return ROLL(model, state, leads * steps, every=steps, save=decoded)[1]["save"]

            grid, truth = flow.grid(factor), later(flow, data, factor)
            scores[f"error{factor}"] = errors(config, flow, run, grid, truth, firsts(config, factor)).tolist()
        except ValueError as error:
            if factor == 1:
                raise
            scores[f"refused{factor}"] = str(error).split(";")[0][:200]
    write(folder / "scores.json", scores)


def decoded(model, state):
    return model.decode(state)


def errors(config, flow, run, grid, truth, starts) -> np.ndarray:
    """`[start, lead]`: root mean square error over that of the truth's departures from its mean, all layers alike."""
    area, leads = np.asarray(grid.weights, float), config.forecast
    mean = lambda a: (area * a).sum((-2, -1))
    variance = {name: mean(np.asarray(a, float).var(0)) for name, a in truth.items()}
    errors = []
    for first in starts:
        made = run({name: np.asarray(a[first]) for name, a in truth.items()}, leads)
        squares = [
            mean((np.asarray(made[name], float) - a[first + 1 : first + 1 + leads]) ** 2) / variance[name]
            for name, a in truth.items()
        ]
        errors.append(np.sqrt(np.concatenate(squares, 1).mean(1)))
    return np.array(errors)


class Look(eqx.Module):
    """What is kept of free runs: spectra, means and largest variances of the prognostics, and kinetic energy."""

    solver: hg.Model
    grid: hg.AbstractGrid

    def __call__(self, model, state):
        return self.of(model.decode(state))

    def of(self, fields):
        """{"spectrum", "mean", "variance": {name: [layer, ...]}, "kinetic": [layer], m² s⁻²}."""
        grid = self.grid
        hats = {name: grid.to_spectral(a) for name, a in fields.items()}
        flow = self.solver.view(self.solver.encode(fields))
        return {
            "spectrum": {name: grid.spectrum(grid.cospectrum(a, a)) for name, a in hats.items()},
            "mean": {name: grid.mean(a) for name, a in fields.items()},
            "variance": {name: grid.mean(a**2) for name, a in fields.items()},
            "kinetic": grid.mean((flow["u"] ** 2 + flow["v"] ** 2) / 2),
        }


def _save_looks(path, looks):
    flat = {f"{kind}.{name}": a for kind in ("spectrum", "mean", "variance") for name, a in looks[kind].items()}
    np.savez(path, kinetic=looks["kinetic"], **flat)


def free(steps, config, flow, build, data, folder):
    """looks.npz after every `LOOK` leads of a free run while it lives, end.npz its last fields, scores.json how far."""
    model = build(factor=1)
    stride = round(flow.lead / model.dt)
    truth = later(flow, data)
    with np.load(next(folder.parent.glob("reference-*")) / "looks.npz") as known:
        bound = {name: LIMIT * known[f"variance.{name}"].max(0) for name in flow.names}
    state = model.encode({name: jnp.asarray(a[0]) for name, a in truth.items()})
    looks, lived, why, label = [], 0, "", folder.name.rsplit("-", 1)[0]
    chunk = next(size for size in (10, 5, 2, 1) if (steps // LOOK) % size == 0)
    try:
        for after, out in hg.stream(
            model, state, steps * stride, every=LOOK * stride, chunk=chunk, save=Look(flow.solver(1), flow.grid(1)),
            courant=np.inf, progress=label,
        ):  # fmt: skip
            big = {name: (out["save"]["variance"][name] > bound[name]).any(-1) for name in flow.names}
            bad = np.any(list(big.values()), 0)
            good = int(bad.argmax()) if bad.any() else len(bad)
            looks.append(jax.tree.map(lambda a, good=good: a[:good], out["save"]))
            lived += LOOK * good
            if bad.any():
                why = f"variance above {LIMIT:g} times the truth's"
                break
            state = after
            stop_if_asked(f"in the free run of {label}, which begins anew")
    except BlewUp as error:
        lived, why = error.step // stride, str(error).split(";")[0].split(":")[0]
    if looks:
        _save_looks(folder / "looks.npz", jax.tree.map(lambda *a: np.concatenate(a), *looks))
    np.savez(folder / "end.npz", **{name: np.asarray(a) for name, a in model.decode(state).items()})
    write(folder / "scores.json", {"lived": lived, "asked": steps, "why": why})


def ensemble(which, config, flow, build, data, folder):
    """Scores by lead of ensembles that start with noise; with `many` members, from one start, their time."""
    members, truth, model = getattr(config, which), later(flow, data), build(factor=1)
    stride, leads = round(flow.lead / model.dt), min(20, config.forecast)
    begin = list(firsts(config))[: 4 if which == "members" else 1]
    seconds = flow.lead * np.arange(len(truth[flow.names[0]]))
    starts = {name: np.stack([a[first] for first in begin]) for name, a in truth.items()} | {"time": seconds[begin]}
    varies = lambda a: np.asarray(a, float) - np.mean(a, 0, dtype=float)
    amplitude = {name: config.noise * varies(a).std((0, 2, 3)) for name, a in truth.items()}
    ask = {"every": stride, "members": members, "perturb": perturbations.noise(amplitude), "key": jr.key(3)}
    took, result = [], None
    for _ in range(1 if which == "members" else 2):  # the second time is without compilation
        start = time.perf_counter()
        result = hg.forecast(model, starts, leads * stride, courant=np.inf, **ask)
        took.append(time.perf_counter() - start)
    name = flow.names[0]
    rare = np.quantile(np.asarray(truth[name], float), 0.95, (0, 2, 3))
    area = {"grid": flow.grid(1)}
    kinds = {"crps": metrics.crps(name, **area), "spread over error": metrics.spread_skill(name, **area)}
    kinds |= {"brier of the highest twentieth": metrics.brier(name, rare, **area)}
    table = verify(result, {n: np.asarray(a) for n, a in truth.items()} | {"time": seconds}, kinds)
    scores = {key: table[key].mean("start_time").values.tolist() for key in kinds}
    chance = float((result[name].isel(lead_time=-1) > rare[:, None, None]).mean())
    about = {"members": members, "left": table.attrs["members"], "seconds": took[-1], "rare at the end": chance}
    write(folder / "scores.json", {"ensemble_scores" if which == "members" else "scores": scores | about})


def cost(config, flow, build, data, folder):
    """Seconds of computing per lead, of the model and of the truth's solver: medians of five short runs by turns."""
    models = {"seconds": build(factor=1), "truth": flow.solver(flow.finest)}
    runs = {}
    for key, model in models.items():
        stride, truth = round(flow.lead / model.dt), later(flow, data, 1 if key == "seconds" else flow.finest)
        state = model.encode({name: jnp.asarray(a[0]) for name, a in truth.items()})
        leads = 20 if key == "seconds" else 1
        runs[key] = functools.partial(ROLL, model, state, leads * stride, every=leads * stride, save=None), leads
        jax.block_until_ready(runs[key][0]()[0].y)
    took = {key: [] for key in runs}
    for _ in range(5):
        for key, (one, leads) in runs.items():
            begin = time.perf_counter()
            jax.block_until_ready(one()[0].y)
            took[key].append((time.perf_counter() - begin) / leads)
    write(folder / "scores.json", {f"cost_{key}": float(np.median(a)) for key, a in took.items()})


def write(path, content):
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(content))
