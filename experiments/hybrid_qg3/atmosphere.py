"""The truth and the model that is to be corrected, both seen on the model's harmonics."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import hybridgcm as hg
from experiments.hybrid_qg3.config import DAY
from hybridgcm import qg3

ROLL = eqx.filter_jit(hg.rollout)


def model(config, name: str, closure=None, tau: float = 2.0, hold: bool = True):
    """The truth, or the model with a closure, evaluated once a step if held, and hyperdiffusion of `tau` days."""
    if name == "truth":
        grid, air = _inputs(config.truth_truncation, config.inputs)
        flow = hg.QuasiGeostrophic.qg3(grid, orography=air.orography, land=air.land)
        return hg.Model(flow, hg.RK4(), None, dt=config.truth_dt, forcing=air.forcing)
    grid, air = atmosphere(config)
    wrong = {"relaxation": 1 / (config.relaxation * DAY), "tau": tau * DAY}
    if config.friction is not None:
        wrong["drag"] = np.full(grid.shape, 1 / (config.friction * DAY))
    flow = hg.QuasiGeostrophic.qg3(grid, orography=config.orography * air.orography, land=air.land, **wrong)
    return hg.Model(flow, hg.RK4(), closure, dt=config.dt, forcing=air.forcing, hold=hold)


def atmosphere(config):
    """(grid, forcing with orography, land and start) of the model."""
    return _inputs(config.truncation, config.inputs)


@functools.cache
def _inputs(truncation: int, inputs: str):
    grid = hg.Sphere(truncation)
    return grid, qg3.read(inputs, grid) if inputs else qg3.winter(grid)


class Seen(eqx.Module):
    """q, u, v and psi of any state on the model's harmonics: what the model knows of the truth."""

    equation: hg.AbstractEquation

    def __call__(self, flow, state):
        return self.equation.view({"q": flow.equation.grid.resize(state.y["q"], self.equation.grid)})


def seen(config) -> Seen:
    """`Seen` by the model of a configuration."""
    return Seen(model(config, "model").equation)


def start(config, flow, q):
    """State of a model, or of the truth, from q on the model's grid."""
    coarse, fine = atmosphere(config)[0], flow.equation.grid
    return flow.encode({"q": fine.to_grid(coarse.resize(coarse.to_spectral(jnp.asarray(q)), fine))})


def truth_run(config) -> np.ndarray:
    """Six-hourly q of the truth on the model's grid, `[time, level, y, x]`, after spin-up."""
    truth, day = model(config, "truth"), round(DAY / config.truth_dt)
    state = truth.encode({"q": _inputs(config.truth_truncation, config.inputs)[1].start})
    state, _ = ROLL(truth, state, config.spin_up * day, every=day, save=None)
    pick = eqx.Partial(_q, seen(config))
    _, out = ROLL(truth, state, config.analyses * day, every=day // 4, save=pick)
    return np.asarray(out["save"])


def _q(look, flow, state):
    return look(flow, state)["q"]


def six_hours(config) -> int:
    """Steps of the model."""
    return round(DAY / 4 / config.dt)


def forecast(config, flow, q):
    """Six-hour forecasts from every analysis in q, `[time, level, y, x]`."""
    six = round(DAY / 4 / flow.dt)
    look = seen(config)

    @eqx.filter_jit
    def run(flow, look, q):
        one = lambda x: look(flow, hg.rollout(flow, start(config, flow, x), six, every=six, save=None)[0])["q"]
        return jax.lax.map(one, q)

    return run(flow, look, jnp.asarray(q))


def rms(grid, a) -> np.ndarray:
    """Root mean square over the area, `[..., y, x]` to `[...]`."""
    weight = np.cos(np.radians(grid.latitude))[:, None]
    return np.sqrt((weight * np.asarray(a, float) ** 2).mean((-2, -1)) / weight.mean())
