"""Many runs at once, and what is kept of them."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

import hybridgcm as hg
from experiments.data_generator.config import SAMPLED, Config
from hybridgcm import coarsen, data, diagnostics

hg.VARIABLES.setdefault("run", hg.Variable("1", "number of the run"))
hg.VARIABLES.setdefault("lead", hg.Variable("s", "time since the first frame of the window"))


class Ensemble(hg.AbstractModel):
    """Runs that share time step and grid, each with its own parameters: fields are `[run, layer, y, x]`.

    Step, record and coarse-graining are one compiled program, vectorised over runs. `varying`: the leaves of (fine,
    coarse) models that differ, with a leading axis of runs; `shared`: the others.
    """

    varying: Any
    shared: Any
    dt: float = eqx.field(static=True)

    def __init__(self, models: Sequence[tuple[hg.Model, hg.Model]]):
        same = lambda *leaves: all(not eqx.is_array(a) or bool(jnp.array_equal(a, leaves[0])) for a in leaves)
        equal = jax.tree.map(same, *models)
        self.shared = jax.tree.map(lambda keep, a: a if keep else None, equal, models[0])
        self.varying = jax.tree.map(lambda keep, *a: None if keep else jnp.stack(a), equal, *models)
        self.dt = models[0][0].dt

    @property
    def grid(self) -> hg.Torus:
        """The coarse grid, on which all output lives."""
        return self.shared[1].equation.grid

    def each(self, function, *arguments):
        """function(fine, coarse, *arguments) of every run; arguments and result have a leading axis of runs."""
        one = lambda varying, arguments: function(*eqx.combine(varying, self.shared), *arguments)
        return eqx.filter_vmap(one)(self.varying, arguments)

    def encode(self, fields, key=None):
        start = lambda fine, _, fields: (lambda s: (s.y, s.past))(fine.encode(fields))
        y, past = self.each(start, fields)
        return hg.State(y, jnp.zeros((), jnp.int32), past, None, jr.key(0) if key is None else key)

    def step(self, state):
        advance = lambda fine, _, y, past: (lambda s: (s.y, s.past))(fine.step(_one(state, y, past)))
        y, past = self.each(advance, state.y, state.past)
        return hg.State(y, state.step + 1, past, None, state.key)

    def view(self, state):
        return self.each(lambda fine, _, y, past: fine.view(_one(state, y, past)), state.y, state.past)

    def decode(self, state):
        return self.each(lambda fine, _, y, past: fine.decode(_one(state, y, past)), state.y, state.past)

    def courant(self, state):
        return jnp.max(self.each(lambda fine, _, y, past: fine.courant(_one(state, y, past)), state.y, state.past))


def _one(state, y, past) -> hg.State:
    """The state of one run."""
    return hg.State(y, state.step, past, None, state.key)


def record(window: int, frame: int, operator, ensemble: Ensemble, state) -> dict:
    """`window` frames `frame` steps apart from here on: coarse q (s-1), S (s-2), each `[run, lead, layer, y, x]`.

    The frames are stepped for the record alone and the run goes on from its first one: windows may overlap.
    """

    def one(fine, coarse, y, past):
        sample = lambda fine, state: coarsen.sample(fine, coarse, state.y, operator)
        first = jax.tree.map(lambda a: a[None], sample(fine, _one(state, y, past)))
        if window == 1:
            return first
        _, out = hg.rollout(fine, _one(state, y, past), (window - 1) * frame, every=frame, save=sample)
        return jax.tree.map(lambda a, b: jnp.concatenate([a, b]), first, out["save"])

    return ensemble.each(one, state.y, state.past)


def energy(ensemble: Ensemble, state) -> dict:
    """Total energy of every run, m2 s-2: whether the spin-up was long enough."""
    return {
        "energy": ensemble.each(lambda m, _, y, past: diagnostics.energy(m, _one(state, y, past)), state.y, state.past)
    }


def parameters(config: Config, run: int) -> dict[str, float]:
    """The drawn parameters of a run, a function of (seed, run) alone."""
    draw = np.random.default_rng([config.seed, run]).uniform(size=len(SAMPLED))
    ranges = {name: getattr(config, name) for name in SAMPLED}
    return {name: low + float(r) * (high - low) for r, (name, (low, high)) in zip(draw, ranges.items(), strict=True)}


def split(config: Config, run: int) -> str:
    """Which split a run belongs to; a run is never divided."""
    if run >= config.runs - config.test:
        return "test"
    return "validation" if run >= config.runs - config.test - config.validation else "train"


def members(config: Config, batch: int) -> list[int]:
    """Numbers of the runs of a batch."""
    return list(range(batch * config.members, min((batch + 1) * config.members, config.runs)))


def models(config: Config, run: int) -> tuple[hg.Model, hg.Model]:
    """Fine and coarse model of a run: AB3 with pyqg's filter, as in Ross et al. (2023), doi:10.1029/2022MS003258."""
    drawn = parameters(config, run)
    shear = drawn.pop("shear")

    def model(n):
        grid = hg.Torus(n, config.length, dealias=None)
        flow = hg.QuasiGeostrophic.two_layer(grid, U=(shear, 0.0), **drawn)
        return hg.Model(flow, hg.Filtered(hg.AB3(), hg.exponential_filter(grid)), dt=config.dt)

    return model(config.fine), model(config.coarse)


def first_state(config: Config, run: int):
    """Coarse white noise of 1e-6 s-1 in the upper layer and a tenth of it below, on the fine grid; no mean."""
    rough, fine = (hg.Torus(n, config.length, dealias=None) for n in (config.coarse // 2, config.fine))
    noise = jr.normal(jr.fold_in(jr.key(config.seed), run), (2, *rough.shape), jnp.float32)
    q = 1e-6 * noise * np.array([1.0, 0.1], np.float32)[:, None, None]
    return fine.to_grid(rough.resize(rough.to_spectral(q - q.mean((1, 2), keepdims=True)), fine))


def batch(config: Config, number: int, folder: Path):
    """Spin-up and records of one batch into folder/records/output.zarr; killed at any moment, it goes on."""
    runs = members(config, number)
    pairs = [models(config, run) for run in runs]
    ensemble, operator = Ensemble(pairs), getattr(coarsen, config.operator)
    state = ensemble.encode({"q": jnp.stack([first_state(config, run) for run in runs])}, jr.key(config.seed))
    grid = ensemble.grid
    shape = {name: ("run", "lead", "layer", "y", "x") for name in ("q", "S")}
    lead = config.dt * config.frame * np.arange(config.window)
    output = {
        "dimensions": shape | {"energy": ("run",)},
        "coordinates": {"run": runs, "lead": lead, "x": grid.x, "y": grid.y},
        "attrs": coarsen.metadata(*pairs[0], operator) | about(config, runs),
    }  # fmt: skip
    if config.spin_up:
        state = hg.resumable_rollout(
            ensemble, state, config.spin_up, folder / "spin-up", every=_divisor(config.spin_up, config.every),
            save=energy, progress=f"batch {number}, spin-up", **output,
        )  # fmt: skip
    hg.resumable_rollout(
        ensemble, state, config.records * config.every, folder / "records", every=config.every,
        chunk=_divisor(config.records, max(1, min(8, 720 // config.every))), progress=f"batch {number}",
        save=eqx.Partial(record, config.window, config.frame, operator), **output,
    )  # fmt: skip


def about(config: Config, runs: Sequence[int]) -> dict:
    """What a store says of its runs: drawn parameters by run, units and seed."""
    drawn = [parameters(config, run) for run in runs]
    table = {name: [each[name] for each in drawn] for name in SAMPLED}
    units = {f"{name}_units": unit for name, unit in SAMPLED.items()}
    title = "Coarse-grained two-layer quasi-geostrophic turbulence"
    return (
        {"title": title, "comment": "every record is a window of frames along lead", "seed": config.seed}
        | table
        | units
    )


def statistics(config: Config, stores: Sequence[Path], folder: Path):
    """Per-layer mean and rms of q and S over the training runs alone, with what they are of, into statistics.json."""
    total, hashed, used, count = {}, hashlib.sha256(), [], 0
    for store in stores:
        found = data.read_store(store)
        train = [i for i, run in enumerate(found["run"].values) if split(config, int(run)) == "train"]
        used += [int(found["run"].values[i]) for i in train]
        for number in range(len(found["time"]) if train else 0):
            for name in ("q", "S"):
                a = found[name][number].values[train]
                hashed.update(np.ascontiguousarray(a, a.dtype.newbyteorder("<")))
                wide = np.moveaxis(a.astype(np.float64), 2, 0).reshape(a.shape[2], -1)
                sums = np.stack([wide.sum(1), (wide**2).sum(1)])
                total[name] = total.get(name, 0) + sums
                count += wide.shape[1] if name == "q" else 0
    scales = {
        name: {"mean": (first / count).tolist(), "rms": np.sqrt(second / count).tolist()}
        for name, (first, second) in total.items()
    }
    units = {name: hg.VARIABLES[name].units for name in scales}
    provenance = {"split": "train", "runs": used, "values_per_layer": count, "sha256": hashed.hexdigest()}
    (folder / "statistics.json").write_text(json.dumps(scales | {"units": units, "of": provenance}, indent=1))


def _divisor(frames: int, most: int) -> int:
    """The largest divisor of `frames` that is at most `most`."""
    return max(n for n in range(1, min(frames, most) + 1) if frames % n == 0)
