"""Closures that draw noise, before they run: the mean of their draws, and whether the spread is that of the truth."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jax.scipy.stats import norm

from experiments.closure_benchmark.data import Data
from hybridgcm import coarsen, metrics

DRAWS = 16


def forcings(system, sets: Data, closure, every: int = 25) -> tuple[np.ndarray, np.ndarray]:
    """(draws `[draw, frame, layer, y, x]`, S `[frame, layer, y, x]`), s⁻², on every so many validation frames.

    Layers of several prognostics follow one another. `DRAWS` draws with keys of their own, from the closure's initial
    memory; one if two keys give the same forcing.
    """
    low = system.model(closure)
    equation, targets = low.equation, coarsen.targets(low.equation)

    def forcing(fields, key):
        state = low.encode(fields, key)
        made, _ = low.closure(equation.view(state.y), equation.grid, state.memory, key)
        lifted = equation.lift(made)
        return jnp.concatenate([equation.grid.to_grid(jnp.zeros_like(state.y[n]) + lifted[n]) for n in targets])

    records = lambda name: np.concatenate([part[name][::every] for part in sets.validation])
    fields, S = {name: records(name) for name in targets}, np.concatenate([records(n) for n in targets.values()], 1)
    one, keys = jax.jit(forcing), jr.split(jr.key(7), (DRAWS, len(S)))
    frames = [{name: a[i] for name, a in fields.items()} for i in range(len(S))]
    noisy = not np.array_equal(one(frames[0], keys[0, 0]), one(frames[0], keys[1, 0]))
    draws = [[np.asarray(one(*pair)) for pair in zip(frames, own)] for own in (keys if noisy else keys[:1])]
    return np.array(draws), S


def calibration(draws: np.ndarray, S: np.ndarray, grid) -> dict[str, list[float]]:
    """Scores per layer of M draws `[draw, frame, layer, y, x]` for targets S `[frame, layer, y, x]` on a grid.

    With the mean m and the variance V of draws given the fields, and P the isotropic power spectrum over frames:

    - `L2_mean` √(⟨(S − m)²⟩/⟨S²⟩), 0 is perfect, 1 no closure;
    - `L2_total` ‖P(draw) − P(S)‖/‖P(S)‖ and `L2_residual` ‖P(draw − m) − P(S − m)‖/‖P(S − m)‖, 0 is perfect;
    - `var_ratio` ⟨V⟩/⟨(S − m)²⟩, 1 is perfect, smaller has too little spread: these four after Perezhogin et al.
      (2023), doi:10.1029/2023MS003681;
    - `spread_skill` √((1 + 1/M) ⟨V⟩)/rms(S − mean of the draws), 1 is perfect: Fortin et al. (2014),
      doi:10.1175/JHM-D-14-0008.1;
    - `crps` the fair CRPS over that of a Gaussian with the variance of S, which knows no fields: 0 is perfect, 1 no
      skill.

    The mean of M draws misses m by V/M in the mean square; L2_mean, L2_residual and var_ratio are without this.
    Raises `ValueError` for less than two draws and shapes that do not agree.
    """
    if len(draws) < 2 or draws.shape[1:] != S.shape:
        raise ValueError(f"calibration needs [draw, *{S.shape}] with two draws or more; got {draws.shape}")
    count, axes = len(draws), (0, 2, 3)
    mean = draws.mean(0, dtype=float)
    V = np.stack([np.square(draw - mean).mean(axes) for draw in draws]).sum(0) / (count - 1)
    miss, power = np.square(S - mean).mean(axes), np.square(S, dtype=float).mean(axes)
    error = miss - V / count
    P = lambda a: _spectrum(a, grid)
    P_draws, P_spread = (np.mean([P(draw - m) for draw in draws], 0) for m in (0, mean))
    P_spread = P_spread * count / (count - 1)
    P_miss = P(S - mean) - P_spread / count
    found = {
        "L2_mean": np.sqrt(np.maximum(error, 0) / power),
        "L2_total": _distance(P_draws, P(S)),
        "L2_residual": _distance(P_spread, P_miss),
        "var_ratio": V / error,
        "spread_skill": np.sqrt((1 + 1 / count) * V / miss),
        "crps": _crps(draws, S),
    }
    return {name: np.asarray(value).tolist() for name, value in found.items()}


def _spectrum(a: np.ndarray, grid) -> np.ndarray:
    """Isotropic power spectrum `[layer, shell]`, summed over shells, mean over frames."""
    size = np.sqrt(np.mean(np.square(a), (0, 2, 3), dtype=float))[:, None, None]
    scaled = jnp.asarray(a / size, grid.eigenvalues.dtype)  # squares of s⁻² fields leave single precision
    return np.asarray(_spectra(grid, scaled), float).mean(0) * size[:, :, 0] ** 2


@eqx.filter_jit
def _spectra(grid, a):
    def one(frame):
        a_hat = grid.to_spectral(frame)
        return grid.spectrum(grid.cospectrum(a_hat, a_hat))

    return jax.lax.map(one, a)


def _distance(made: np.ndarray, true: np.ndarray) -> np.ndarray:
    return np.sqrt(np.sum((made - true) ** 2, -1) / np.sum(true**2, -1))


def _crps(draws: np.ndarray, S: np.ndarray) -> list[float]:
    score = metrics.crps("S")
    ratios = []
    for layer in range(S.shape[1]):
        own = slice(layer, layer + 1)
        rms = np.sqrt(np.mean(np.square(S[:, own]), dtype=float))
        x = S[:, own] / rms
        climate = np.mean(x * (2 * norm.cdf(x) - 1) + 2 * norm.pdf(x) - 1 / np.sqrt(np.pi))
        ratios.append(float(score({"S": draws[:, :, own]}, {"S": S[:, own]}) / climate))
    return ratios
