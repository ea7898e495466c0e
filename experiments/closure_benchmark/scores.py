"""What a closure is worth: free runs against the truth's climate, a-priori skill, forecasts, survival and cost."""

import json
import os
import time
from functools import partial
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

import hybridgcm as hg
from experiments._run import divisor, parallel
from experiments.closure_benchmark import spectra
from experiments.closure_benchmark.calibration import calibration, forcings
from experiments.closure_benchmark.data import LEARNING, VERSION, Data
from hybridgcm import closures, data, diagnostics, metrics
from hybridgcm.fingerprint import digest

ALL = 10**9
"""More snapshots than any climate has: all of them are compared."""


def free_run(run, system, closure, member: int, warm: int, scored: int, fine: int) -> Path:
    """Folder of one free run: snapshots in `run/output.zarr`, the scored ones last, or `blew_up.json` if it did."""
    inputs = {"closure": digest(closure), "system": system, "member": member, "warm": warm, "scored": scored}
    build = partial(_free_run, system, closure, member, warm, scored, fine)
    return run.stage(f"free-{member}", inputs | {"fine": fine}, build, version=VERSION)


def _free_run(system, closure, member, warm, scored, fine, folder: Path):
    low, each = system.model(closure), round(system.flow.snapshot / system.dt)
    state = low.encode(system.start(member, fine), jr.key(member))
    try:
        hg.resumable_rollout(
            low, state, (warm + scored) * each, folder / "run", every=each, chunk=divisor(warm + scored, 16),
            allow=True, **spectra.sampled(low, each, attrs={"title": f"Free run of {system.name}", "member": member}),
        )  # fmt: skip
    except hg.BlewUp as error:
        (folder / "blew_up.json").write_text(json.dumps({"field": error.field, "step": error.step}))


def _snapshot(model, state) -> dict:
    return model.decode(state)


def climate(system, closure, folder: Path, scored: int) -> metrics.Climate | None:
    """The climate of the last snapshots of one free run; None if it blew up."""
    if (folder / "blew_up.json").exists():
        return None
    model = system.model(closure)
    run = data.read_store(folder / "run" / "output.zarr").isel(time=slice(-scored, None))
    return system.flow.climate(model, spectra.snapshots(model, run), spectra=spectra.means(run))


def free_scores(climates: list, target: metrics.Climate, none: metrics.Climate | None, flow=None) -> dict:
    """Distributional and spectral errors (pooled, and run by run) and similarities; none if a run did not finish.

    With `flow` the errors that its source uses, too, as `own_errors`, and their similarities.
    """
    finished = [one for one in climates if one is not None]
    scores = {"finished": len(finished), "runs": len(climates)}
    if len(finished) < len(climates):
        return scores
    pooled = metrics.pool(*finished)
    both = lambda errors: {name: errors[name] for name in ("distributional", "spectral")}
    scores["errors"] = metrics.perezhogin_errors(pooled, target, last=ALL)
    scores["single"] = [both(metrics.perezhogin_errors(one, target, last=ALL)) for one in finished]
    scores["spectra"] = {name: a.tolist() for name, a in pooled.spectra.items()}
    if none is not None:
        scores["similarities"] = metrics.ross_similarities(pooled, none, target, last=ALL)
    if flow is not None and (own := flow.errors(pooled, target)):
        scores["own_errors"] = own
        if none is not None:
            without = flow.errors(none, target)
            scores["own_similarities"] = {name: 1 - own[name] / without[name] for name in own}
    return scores


def tune(run, system, sets: Data, closure) -> dict:
    """Errors of free runs with multiples of the closure against the climate of the training truths, and the best one.

    The best has the smallest product of distributional and spectral error. Nothing of the scored truths is used.
    """
    config, truths = run.config, system.flow.sizes(run.config.truths)
    warm, scored, members = truths.spin_up + truths.frames, truths.tuning, range(config.tuning_members)
    scaled = {a: closure if a == 1 else closures.Scaled(closure, a) for a in sorted({1.0, *config.amplitudes})}
    one = lambda a, m: free_run(run, system, scaled[a], LEARNING + m, warm, scored, truths.fine)
    folders = parallel(os.cpu_count(), {(a, m): partial(one, a, m) for a in scaled for m in members})
    rows = {}
    for a in scaled:
        climates = [climate(system, scaled[a], folders[a, m], scored) for m in members]
        errors = free_scores(climates, sets.tuning, None).get("errors", {})
        rows[a] = {name: errors.get(name) for name in ("distributional", "spectral")}
    product = lambda row: row["distributional"] * row["spectral"] if row["spectral"] is not None else np.inf
    return {"rows": rows, "best": min(rows, key=lambda amplitude: product(rows[amplitude]))}


def offline_scores(system, sets: Data, closure) -> dict:
    """R² and correlation of the forcing with S per prognostic and layer, over validation frames, fields centred.

    Of all scales, as published, and with the ending `_resolved` of those that the model's filter leaves alone, which
    closures of the benchmark are trained on. For a closure that draws noise: of the mean of its draws, with their
    `calibration`.
    """
    draws, S = forcings(system, sets, closure)
    low, made = system.model(), draws.mean(0, dtype=float)
    grid = low.equation.grid
    scores = _skill(made, S.astype(float))
    if isinstance(low.stepper, hg.Filtered):
        keep = (hg.exponential_filter(grid) == 1).astype(grid.eigenvalues.dtype)
        resolve = jax.jit(lambda a: jax.lax.map(lambda frame: grid.to_grid(keep * grid.to_spectral(frame)), a))
        pair = (np.asarray(resolve(jnp.asarray(a, grid.eigenvalues.dtype)), float) for a in (made, S))
        scores |= {f"{name}_resolved": value for name, value in _skill(*pair).items()}
    if len(draws) > 1:
        scores["calibration"] = calibration(draws, S, grid)
    return scores


def _skill(made: np.ndarray, S: np.ndarray) -> dict:
    error, spread = np.mean((made - S) ** 2, (0, 2, 3)), np.var(S, (0, 2, 3))
    correlation = [np.corrcoef(made[:, i].ravel(), S[:, i].ravel())[0, 1] for i in range(S.shape[1])]
    return {"R2": (1 - error / spread).tolist(), "correlation": [float(c) for c in correlation]}


def forecast_days(system, sets: Data, closure, starts: int = 8, days: float = 180.0) -> float:
    """Days (`flow.day`) until q, or zeta, of the model correlates less than .5 with the truth's, median over starts."""
    low = system.model(closure)
    step, frame, day, names = system.dt, system.flow.frame, system.flow.day, low.equation.prognostic
    frames = len(sets.validation[0][names[0]])
    apart = max(1, min(round(day / frame), frames - 1))
    each = round(apart * frame / step)
    length = min(round(days * day / frame), frames - 1) // apart
    first = np.linspace(0, frames - 1 - length * apart, -(-starts // len(sets.validation))).astype(int)
    run = eqx.filter_jit(lambda m, s: hg.rollout(m, s, each * length, every=each, save=_snapshot)[1]["save"][names[0]])
    found = []
    for part in sets.validation:
        for i in first:
            start = {name: jnp.asarray(part[name][i]) for name in names}
            prediction = run(low, low.encode(start, jr.key(int(i))))
            truth = part[names[0]][i + apart : i + 1 + apart * length : apart]
            when = np.arange(1, length + 1) * apart * frame / day
            found.append(diagnostics.decorrelation_time(prediction, truth, when))
    return float(np.median(found))


def survival(run, system, closure, sets: Data) -> dict:
    """`survival` steps from each of `starts` states of the validation truths: survivors of attempts, and why not."""
    low, steps, count = system.model(closure), run.config.survival, run.config.starts
    names = low.equation.prognostic
    q = {name: np.concatenate([part[name] for part in sets.validation]) for name in names}
    starts = {name: a[:: max(1, len(a) // count)][:count] for name, a in q.items()}
    reference = {name: sets.tuning.fields.get(name, q[name]) for name in names}
    found = hg.survivors(low, starts, steps, every=divisor(steps, 500), reference=reference)
    return found._asdict()


def milliseconds(model: hg.Model, start, steps: int = 200) -> float:
    """Milliseconds per step, the least of five runs."""
    run = eqx.filter_jit(lambda model, state: hg.rollout(model, state, steps, every=steps, save=None)[0])
    state = run(model, model.encode(start, jr.key(0)))
    times = []
    for _ in range(5):
        begin = time.perf_counter()
        state = jax.block_until_ready(run(model, state))
        times.append(time.perf_counter() - begin)
    return 1e3 * float(min(times)) / steps
