"""Records of the truth at the resolutions that emulators are trained and tried at."""

import equinox as eqx
import jax
import jax.random as jr
import numpy as np

import hybridgcm as hg
from experiments.emulators import flows
from hybridgcm.preemption import stop_if_asked

ROLL = eqx.filter_jit(hg.rollout)


def factors(flow) -> list[int]:
    """Resolutions at which there are records of the truth."""
    return [factor for factor in (1, 2, 4) if factor <= flow.finest]


def training(flow, data) -> dict:
    """{name: [time, layer, y, x]}, one lead apart."""
    return {name: np.load(data / f"training-{name}.npy", mmap_mode="r") for name in flow.names}


def later(flow, data, factor: int = 1) -> dict:
    """Records after those of the training, at a resolution."""
    return {name: np.load(data / f"later{factor}-{name}.npy", mmap_mode="r") for name in flow.names}


class Coarse(eqx.Module):
    """save=: prognostics on coarser grids, cut at what those resolve."""

    grids: tuple

    def __call__(self, model, state):
        fine = model.equation.grid
        return tuple(
            {name: grid.to_grid(fine.resize(a_hat, grid)) for name, a_hat in state.y.items()} for grid in self.grids
        )


def make(config, flow, folder):
    """training-*.npy at resolution 1; later*-*.npy, right after it, at resolutions 1, 2, ... of the truth."""
    coarse, fine = flow.solver(1), flow.solver(flow.finest)
    leads = lambda model, days: round(config.calm * days * flows.DAY / flow.lead) * round(flow.lead / model.dt)
    steps = max(leads(coarse, flow.spin_up[0]), 1)
    state, _ = ROLL(coarse, coarse.encode(flow.start(coarse), jr.key(1)), steps, every=steps, save=None)
    grids = coarse.equation.grid, fine.equation.grid
    state = fine.encode({name: grids[1].to_grid(grids[0].resize(a, grids[1])) for name, a in state.y.items()})
    stride = round(flow.lead / fine.dt)
    calm = max(leads(fine, flow.spin_up[1]), 1)
    state, _ = ROLL(fine, state, calm, every=calm, save=None)
    for label, count, shown in (
        ("training", config.records, [1]),
        ("later", config.apart * (config.starts - 1) + config.forecast + 1, factors(flow)),
    ):
        save = Coarse(tuple(flow.grid(factor) for factor in shown))
        state, frames = _recorded(fine, state, count, stride, save, label)
        for factor, fields in zip(shown, frames, strict=True):
            for name, a in fields.items():
                np.save(folder / f"{label}{factor if label == 'later' else ''}-{name}.npy", a)


def _recorded(model, state, count: int, stride: int, save, label: str):
    """The state after `count` records and the records, made in chunks that say how far they are."""
    parts, size = [], 100
    for first in range(0, count, size):
        stop_if_asked("in the truth's records, which begin anew")
        state, out = ROLL(model, state, min(size, count - first) * stride, every=stride, save=save)
        parts.append(jax.tree.map(np.asarray, out["save"]))
        print(f"  {label}: {min(first + size, count)} of {count} records", end="\r", flush=True)
    frames = jax.tree.map(lambda *a: np.concatenate(a), *parts)
    if not all(np.isfinite(a).all() for a in jax.tree.leaves(frames)):
        raise RuntimeError("the truth blew up: choose a smaller n, or report the flow's settings")
    return state, frames
