"""Where emulators go astray when they run freely, and how the truth's solver goes on from there.

Records of the truth say nothing of states that it never visits; a network drifts to them and is lost. So it is let
run, what it makes is given to the solver, and it is trained on what the solver makes of that: data aggregation, Ross,
Gordon and Bagnell (2011), https://proceedings.mlr.press/v15/ross11a.html.
"""

from collections import deque

import equinox as eqx
import jax
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
SPAN = 25
"""Looks over which spectra of a run are averaged then: waves may die out without any state being one of no record."""
BEFORE = 1, 3, 6, 12
"""Looks before it was lost, from which states of a run are taken."""


def states(config, grid, model, records: dict, rng: np.random.Generator) -> tuple[list, list]:
    """States `[{name: [layer, y, x]}]` of free runs from amplified records, and after how many leads runs were lost.

    Of a lost run the states shortly before, of another one that which is farthest from the records. For a network that
    sees anomalies these are what is amplified and watched: half as much again of a planet's jets is out of balance.
    """
    runs, looks = config.strays, -(-config.stray_leads // LOOK)
    sees = isinstance(model.net, nn.Anomalies)
    usual = {name: a * sees for name, a in mean(records).items()}
    largest, faded = _largest(records, usual), Faded(grid, records, usual, config.stray_decades)
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
        gone = (~(excess < config.stray_limit) | faded(now) & (look > RELAX)) & (lost == 0)
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


class Faded:
    """Whether spectra of departures from `usual`, averaged over `SPAN` calls, are `limit` decades off the records'."""

    def __init__(self, grid, records: dict, usual: dict, limit: float):
        self.grid, self.usual, self.limit, self.recent = grid, usual, limit, deque(maxlen=SPAN)
        if limit:
            every = self._spectra(records)
            self.truth = {name: power.mean(0) for name, power in every.items()}

    def __call__(self, fields: dict) -> np.ndarray:
        """`[run]` of fields {name: [run, layer, y, x]}; nowhere with limit 0."""
        if not self.limit:
            return np.zeros(len(next(iter(fields.values()))), bool)
        self.recent.append(self._spectra(fields))
        lately = {name: np.mean([past[name] for past in self.recent], 0) for name in self.truth}
        return ~(decades(lately, self.truth) < self.limit)

    def _spectra(self, fields: dict) -> dict:
        fields = {name: jnp.asarray(a) for name, a in fields.items()}
        return jax.tree.map(np.asarray, spectra(self.grid, fields, self.usual))


@eqx.filter_jit
def spectra(grid, fields: dict, usual: dict) -> dict:
    """Power spectra {name: [run, layer, wavenumber]} of departures from `usual`; fields {name: [run, layer, y, x]}."""

    def one(fields):
        hats = {name: grid.to_spectral(a - usual[name]) for name, a in fields.items()}
        return {name: grid.spectrum(grid.cospectrum(a, a)) for name, a in hats.items()}

    return jax.lax.map(one, fields, batch_size=32)


def decades(power: dict, truth: dict) -> np.ndarray:
    """`[run]`: by how many decades spectra differ from the truth's, {name: [layer, wavenumber]}: the worst layer.

    Mean over the wavenumbers that hold more than a millionth of the truth's largest.
    """
    off = []
    for name, usual in truth.items():
        held = usual > 1e-6 * usual.max(-1, keepdims=True)
        each = np.abs(np.log10(np.maximum(power[name], 1e-30) / np.where(held, usual, 1)))
        off.append(each.mean(-1, where=np.broadcast_to(held, each.shape)))
    return np.concatenate(off, -1).max(-1)


def mean(records: dict) -> dict:
    """Of records `{name: [time, layer, y, x]}`, in their precision."""
    return {name: np.mean(a, 0, dtype=float).astype(a.dtype) for name, a in records.items()}


def _largest(records: dict, usual: dict) -> dict:
    """Largest variance of a record's departures from the usual fields, {name: [layer]}."""
    return {name: (a - usual[name]).var((-2, -1), dtype=float).max(0) for name, a in records.items()}


class Recall(hg.AbstractClosure):
    """dq = (1 − 1/x) (usual − q)/τ where x > 1, x the variance of q − usual over the largest of the records.

    x is that of the name and layer where it is largest. Within the records' range the flow is left alone.
    """

    usual: dict
    largest: dict
    tau: float

    def init(self, fields, grid):
        return None

    def __call__(self, fields, grid, memory, key):
        away = {name: a - fields[name] for name, a in self.usual.items()}
        x = jnp.max(jnp.concatenate([jnp.var(away[name], (-2, -1)) / size for name, size in self.largest.items()]))
        rate = (1 - 1 / jnp.maximum(x, 1)) / self.tau
        return {name: rate * a for name, a in away.items()}, memory


def _one(fields: dict, run: int) -> dict:
    return {name: a[run] for name, a in fields.items()}


def onwards(flow, starts: list, leads: int, records: dict | None = None, tau: float = 0.0) -> list[dict]:
    """How the flow's expert goes on from fields of resolution 1, `[{name: [time, layer, y, x]}]`, where it can.

    The starts are the first records; runs that the solver does not bring to a finite end are left out. With a `tau`, s,
    `Recall` draws those that are beyond the `records` back to their mean besides.
    """
    coarse, fine = flow.grid(1), flow.expert()
    grid, save, stride, runs = fine.equation.grid, Coarse((coarse,)), round(flow.lead / fine.dt), []

    def finer(fields):
        resized = lambda a: grid.to_grid(coarse.resize(coarse.to_spectral(jnp.asarray(a)), grid))
        return {name: resized(a) for name, a in fields.items()}

    if tau:
        usual = mean(records)
        largest = {name: jnp.asarray(a, grid.dtype) for name, a in _largest(records, usual).items()}
        back = [part for part in (fine.closure, Recall(finer(usual), largest, tau)) if part is not None]
        fine = hg.Model(fine.equation, fine.stepper, closures.Sum(*back), dt=fine.dt, forcing=fine.forcing)
    for fields in starts:
        stop_if_asked("while the solver went on from where networks strayed, which begins anew")
        _, out = ROLL(fine, fine.encode(finer(fields)), leads * stride, every=stride, save=save)
        made = {name: np.concatenate([fields[name][None], np.asarray(a)]) for name, a in out["save"][0].items()}
        if all(np.isfinite(a).all() for a in made.values()):
            runs.append(made)
    return runs
