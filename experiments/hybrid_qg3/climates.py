"""Climates of free runs: what they are scored by, and what tunes a model without gradients."""

import json

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from experiments.hybrid_qg3.atmosphere import ROLL, atmosphere, model, rms, seen, start
from experiments.hybrid_qg3.config import DAY
from hybridgcm.files import atomic
from hybridgcm.rollout import rollout


class Moments(eqx.Module):
    """u, u² and the kinetic energy per degree, on the model's harmonics."""

    look: eqx.Module

    def __call__(self, flow, state):
        equation = self.look.equation
        grid = equation.grid
        q_hat = flow.equation.grid.resize(state.y["q"], grid)
        psi_hat = equation.invert(q_hat)
        u = grid.velocity(psi_hat)[0]
        energy = -0.5 * grid.eigenvalues * grid.cospectrum(psi_hat, psi_hat)
        return {"u": u, "square": u**2, "spectrum": grid.spectrum(energy)}


def free(config, kind, data, folder, flow=None, first=-1):
    """climate.npz of a free run from an analysis: mean and deviation in time of u, spectrum of kinetic energy."""
    flow = model(config, kind) if flow is None else flow
    with np.load(data / "data.npz") as file:
        q = file["q"][first]
    _save(folder, _moments(config, flow, q, config.climate, config.spin_up))


def _moments(config, flow, q, days: int, spin_up: int = 0) -> dict:
    """Means over `days`, six-hourly, as NumPy; not finite if the run blew up."""
    day, state = round(DAY / flow.dt), start(config, flow, q)
    if spin_up:
        state, _ = ROLL(flow, state, spin_up * day, every=day, save=None)
    moments = Moments(seen(config))
    _, out = ROLL(flow, state, days * day, every=10 * day, save=None, mean=moments, sample=day // 4)
    found = {name: np.asarray(a, float).mean(0) for name, a in out["mean"].items()}
    return {"u": found["u"], "deviation": _deviation(found["u"], found["square"]), "spectrum": found["spectrum"]}


def _deviation(u, square):
    return np.sqrt(np.maximum(square - u**2, 0))


def _save(folder, climate: dict):
    np.savez(folder / "climate.npz", **climate)


def errors(config, folder, reference) -> dict:
    """Against the truth's climate, per level: see `report.UNITS`."""
    grid = atmosphere(config)[0]
    with np.load(folder / "climate.npz") as mine, np.load(reference / "climate.npz") as truth:
        u, deviation = mine["u"] - truth["u"], mine["deviation"] - truth["deviation"]
        ratio = np.log10(mine["spectrum"][:, 1:] / truth["spectrum"][:, 1:])
    zonal = np.broadcast_to(u.mean(-1, keepdims=True), u.shape)
    return {
        "mean u": rms(grid, u).tolist(), "jets": rms(grid, zonal).tolist(),
        "deviation of u": rms(grid, deviation).tolist(), "spectrum": np.sqrt((ratio**2).mean(-1)).tolist(),
    }  # fmt: skip


def hyperdiffusion(config, data, folder):
    """tau.json: the time scale whose run of `tuning` days comes closest to the training analyses."""
    grid = atmosphere(config)[0]
    with np.load(data / "data.npz") as file:
        q = file["q"]
    truth, tried = _of_analyses(config, q[: 4 * len(q) // 5]), {}
    for days in config.hyperdiffusion:
        found = _moments(config, model(config, "model", tau=days), q[0], config.tuning, config.spin_up // 2)
        parts = [rms(grid, found[name] - truth[name]) for name in ("u", "deviation")]
        tried[days] = float(np.sqrt(np.mean(np.square(parts))))
        print(f"hyperdiffusion {days:g} days: {tried[days]:.2f} m/s", flush=True)
    finite = {days: error for days, error in tried.items() if np.isfinite(error)}
    found = {"days": min(finite, key=finite.get), "tried": {f"{days:g}": error for days, error in tried.items()}}
    with atomic(folder / "tau.json") as temporary:
        temporary.write_text(json.dumps(found))


def _of_analyses(config, q) -> dict:
    """Mean and deviation of u over analyses."""
    look = lambda equation, x: equation.view({"q": equation.grid.to_spectral(x)})["u"]
    u = jax.jit(lambda equation, q: jax.lax.map(lambda x: look(equation, x), q))(seen(config).equation, jnp.asarray(q))
    return {"u": np.mean(u, 0, dtype=float), "deviation": np.std(u, 0, dtype=float)}


def statistics(config, data):
    """Function of a model: mean and deviation of u in eight bands of latitude, per level, over a run of `tuning` days.

    From the first analysis, after half the spin-up.
    """
    with np.load(data / "data.npz") as file:
        q = file["q"][0]
    moments = Moments(seen(config))

    def of(flow):
        day = round(DAY / flow.dt)
        state, _ = rollout(flow, start(config, flow, q), config.spin_up // 2 * day, every=day, save=None)
        _, out = rollout(flow, state, config.tuning * day, every=10 * day, save=None, mean=moments, sample=day // 4)
        u, square = (jnp.mean(out["mean"][name], 0) for name in ("u", "square"))
        return _bands(u, jnp.sqrt(jnp.maximum(square - u**2, 0)))

    return of


def target(config, q) -> tuple[np.ndarray, np.ndarray]:
    """(the same numbers of the analyses q, covariance of their sampling error over `tuning` days, diagonal)."""
    found = _of_analyses(config, q)
    blocks = [_of_analyses(config, part) for part in np.array_split(q, 8)]
    each = np.stack([_bands(block["u"], block["deviation"]) for block in blocks])
    share = (len(q) / 8) / (4 * config.tuning)  # length of a block in units of the runs that are compared
    variance = each.var(0, ddof=1) * share
    return np.asarray(_bands(found["u"], found["deviation"])), np.diag(variance + (0.01 * each.std()) ** 2)


def _bands(u, deviation):
    """Zonal means over eight bands of rows, of both and all levels, one vector."""
    both = jnp.stack([jnp.asarray(u), jnp.asarray(deviation)]).mean(-1)
    return both.reshape(2, 3, 8, -1).mean(-1).ravel()
