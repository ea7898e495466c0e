"""What needs no network: functions of (fields at the start `{name: [sample, 1, y, x]}`, grid) -> fields at the end."""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np

import hybridgcm as hg

NAMES = ("phi", "zeta", "delta")
Predict = Callable[[dict, hg.Sphere], dict]


def persistence(starts: dict, grid: hg.Sphere) -> dict:
    """The start."""
    return starts


def per_degree(starts: dict, ends: dict, grid: hg.Sphere, latitude: bool = False) -> Predict:
    """Least squares y(l, m) = Σ_c (A[c, l] + i m B[c, l]) x_c(l, m), real A and B, a regression for every degree.

    With `latitude` also of the fields times sin φ, so that the map can know the Coriolis force.
    """
    size = {name: starts[name].std() for name in NAMES}
    x, y = _features(starts, size, grid, latitude), _spectral(ends, size, grid)
    weights = {}
    for l in range(1, grid.truncation + 1):  # noqa: E741
        here = _of_degree(grid, l)
        root = np.sqrt(np.asarray(grid.multiplicity, float).ravel()[here])
        rows = lambda a, here=here, root=root: _real(a[:, :, here] * root)
        a, b = rows(x), rows(y)
        product = a.T @ a
        ridge = 1e-9 * np.trace(product) / len(product) * np.eye(len(product))
        weights[l] = np.linalg.solve(product + ridge, a.T @ b).T

    def predict(starts, grid):
        x = _features(starts, size, grid, latitude)
        y = np.zeros((len(x), len(NAMES), x.shape[2]), complex)
        for l, weight in weights.items():  # noqa: E741
            here = _of_degree(grid, l)
            y[:, :, here] = np.einsum("oc,sck->sok", weight, x[:, :, here])
        y = y.reshape(*y.shape[:2], *grid.spectral_shape)
        fields = np.asarray(grid.to_grid(jnp.asarray(y, jnp.complex64)))
        return {name: fields[:, i : i + 1] * size[name] for i, name in enumerate(NAMES)}

    return predict


def _features(starts, size, grid, latitude) -> np.ndarray:
    parts = [_spectral(starts, size, grid)]
    if latitude:
        sine = np.sin(np.radians(grid.latitude))[:, None].astype(np.float32)
        parts.append(_spectral({name: a * sine for name, a in starts.items()}, size, grid))
    x = np.concatenate(parts, 1)
    return np.concatenate([x, 1j * np.asarray(grid.order, float).ravel() * x], 1)


def _spectral(fields, size, grid) -> np.ndarray:
    """`[sample, name, harmonic]`, each name in units of its size."""
    stacked = np.concatenate([fields[name] / size[name] for name in NAMES], 1)
    a_hat = np.asarray(grid.to_spectral(jnp.asarray(stacked, grid.dtype)), complex)
    return a_hat.reshape(*a_hat.shape[:2], -1)


def _of_degree(grid, l) -> np.ndarray:  # noqa: E741
    return np.flatnonzero((grid.degree == l) & (np.asarray(grid.multiplicity) > 0))


def _real(a: np.ndarray) -> np.ndarray:
    """`[sample, channel, k]` to rows of real numbers, `[row, channel]`."""
    return np.concatenate([a.real, a.imag], 2).transpose(0, 2, 1).reshape(-1, a.shape[1])
