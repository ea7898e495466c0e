"""Where emulators go astray when they run freely, and how the truth's solver goes on from there.

Records of the truth say nothing of states that it never visits; a network drifts to them and is lost. So it is let
run, what it makes is given to the solver, and it is trained on what the solver makes of that: data aggregation, Ross,
Gordon and Bagnell (2011), https://proceedings.mlr.press/v15/ross11a.html.
"""

from collections import deque

import equinox as eqx
import jax.numpy as jnp
import numpy as np

import hybridgcm as hg
from experiments.emulators.records import ROLL, Coarse
from hybridgcm import closures, nn
from hybridgcm.preemption import stop_if_asked

LOOK = 10
"""Leads between two looks at the runs."""
RELAX = 50
"""Looks in which amplified records may come back, before it counts how far a run is from them."""
BEFORE = 1, 3, 6, 12
"""Looks before it was lost, from which states of a run are taken."""


def states(config, model, records: dict, rng: np.random.Generator) -> tuple[list, list]:
    """States `[{name: [layer, y, x]}]` of free runs from amplified records, and after how many leads runs were lost.

    Of a lost run the states shortly before, of another one that which is farthest from the records. For a network that
    sees anomalies these are what is amplified and watched: half as much again of a planet's jets is out of balance.
    """
    runs, looks = config.strays, -(-config.stray_leads // LOOK)
    sees = isinstance(model.net, nn.Anomalies)
    usual = {name: a * sees for name, a in mean(records).items()}
    largest = {name: (a - usual[name]).var((-2, -1), dtype=float).max(0) for name, a in records.items()}
    first = rng.integers(len(next(iter(records.values()))), size=runs)
    factors = rng.uniform(1.0, config.stray_excess, (runs, 1, 1, 1)).astype(np.float32)
    now = {name: jnp.asarray(usual[name] + factors * (a[first] - usual[name])) for name, a in records.items()}
    lost, farthest, found = np.zeros(runs, int), np.zeros(runs), {}
    recent = deque([{name: np.asarray(a) for name, a in now.items()}], maxlen=max(BEFORE))
    for look in range(1, looks + 1):
        stop_if_asked("while networks ran freely, which begins anew")
        now = _further(model, now)
        seen = {name: np.asarray(a) for name, a in now.items()}
        variance = [((seen[name] - usual[name]).var((-2, -1), dtype=float) / largest[name]).max(1) for name in seen]
        excess = np.max(variance, 0)
        gone = ~(excess < config.stray_limit) & (lost == 0)
        for run in np.flatnonzero(gone):
            found[run] = [_one(recent[-back], run) for back in BEFORE if back <= len(recent)]
        lost[gone] = look * LOOK
        for run in np.flatnonzero((excess > farthest) & (lost == 0) & (look > RELAX)):
            found[run], farthest[run] = [_one(seen, run)], excess[run]
        if look % 50 == 0 or look == looks:
            print(f"  astray: {look * LOOK} leads, {(lost > 0).sum()} of {runs} runs lost", end="\r", flush=True)
        if lost.all():
            break
        recent.append(seen)
        now = {name: jnp.where(jnp.asarray(lost == 0)[:, None, None, None], a, 0) for name, a in now.items()}
    return [state for run in sorted(found) for state in found[run]], sorted(lost[lost > 0].tolist())


@eqx.filter_jit
@eqx.filter_vmap(in_axes=(None, 0))
def _further(model, fields):
    end, _ = hg.rollout(model, model.encode(fields), LOOK, every=LOOK, save=None)
    return model.decode(end)


def mean(records: dict) -> dict:
    """Of records `{name: [time, layer, y, x]}`, in their precision."""
    return {name: np.mean(a, 0, dtype=float).astype(a.dtype) for name, a in records.items()}


def _one(fields: dict, run: int) -> dict:
    return {name: a[run] for name, a in fields.items()}


def onwards(flow, starts: list, leads: int, usual: dict | None = None, tau: float = 0.0) -> list[dict]:
    """How the flow's expert goes on from fields of resolution 1, `[{name: [time, layer, y, x]}]`, where it can.

    The starts are the first records; runs that the solver does not bring to a finite end are left out. With a `tau`, s,
    fields are drawn to the `usual` ones, of resolution 1, besides.
    """
    coarse, fine = flow.grid(1), flow.expert()
    if tau:
        grid = fine.equation.grid
        target = {
            name: grid.to_grid(coarse.resize(coarse.to_spectral(jnp.asarray(a)), grid)) for name, a in usual.items()
        }
        back = [part for part in (fine.closure, closures.Relaxation(target, tau)) if part is not None]
        fine = hg.Model(fine.equation, fine.stepper, closures.Sum(*back), dt=fine.dt, forcing=fine.forcing)
    stride, save, grid, runs = round(flow.lead / fine.dt), Coarse((coarse,)), fine.equation.grid, []
    for fields in starts:
        stop_if_asked("while the solver went on from where networks strayed, which begins anew")
        start = {
            name: grid.to_grid(coarse.resize(coarse.to_spectral(jnp.asarray(a)), grid)) for name, a in fields.items()
        }
        _, out = ROLL(fine, fine.encode(start), leads * stride, every=stride, save=save)
        made = {name: np.concatenate([fields[name][None], np.asarray(a)]) for name, a in out["save"][0].items()}
        if all(np.isfinite(a).all() for a in made.values()):
            runs.append(made)
    return runs
