"""What needs no network: functions (inputs, outputs of the training pairs) -> (inputs -> predicted outputs).

All take and give `[sample, 1, *points]`. Regressions know one resolution: on finer points they see every second or
fourth, and their prediction is interpolated. Their ridge, or width and ridge, are chosen on the last fifth of the
training.
"""

import itertools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from hybridgcm import pairs

RIDGES = (1e-10, 1e-8, 1e-6, 1e-4, 1e-3, 1e-2, 1e-1)
WIDTHS = (0.25, 0.5, 1.0, 2.0)
"""Of the kernel, over the root mean square distance of two inputs."""

BURGERS1D_VISCOSITY = 0.1
"""On the circle, from time 0 to 1, as by Li et al. (2021)."""

Predict = Callable[[np.ndarray], np.ndarray]


def mean(inputs, outputs) -> Predict:
    """The mean of the training outputs, whatever the input."""
    return _at_any_resolution(lambda x: np.repeat(outputs.mean(0, keepdims=True), len(x), 0), inputs.shape)


def persistence(inputs, outputs) -> Predict:
    """The input."""
    return lambda x: x


def linear(inputs, outputs) -> Predict:
    """Ridge regression from all inputs to all outputs."""
    return _tuned(_ridge, [(ridge,) for ridge in RIDGES], inputs, outputs)


def kernel(inputs, outputs) -> Predict:
    """Regression with a Gaussian kernel of the distance between inputs (a Gaussian process)."""
    return _tuned(_kernel, list(itertools.product(WIDTHS, RIDGES)), inputs, outputs)


def darcy_solver(inputs, outputs) -> Predict:
    """Finite volumes on the points that are given, with the permeability that the pairs were made with."""
    low, high = pairs.PERMEABILITY
    solve = jax.jit(lambda a: jax.lax.map(pairs.solve_darcy, low + (high - low) * a[:, 0])[:, None])
    return lambda x: np.asarray(solve(jnp.asarray(x)))


def burgers_solver(inputs, outputs) -> Predict:
    """The exact solution from the first time, carried to 256 points by its Fourier series."""

    @jax.jit
    def solve(u0):
        n, times = u0.shape[-1], jnp.asarray(np.linspace(0, pairs.TIMES[-1], u0.shape[-2]), u0.dtype)
        u0_hat = jnp.fft.rfft(u0[:, 0, 0], norm="forward").at[:, n // 2].multiply(0.5)
        fine = jnp.fft.irfft(u0_hat, 256, norm="forward")
        return jax.vmap(lambda u0: pairs.solve_burgers(u0, times, 0.01))(fine)[:, None, :, :: 256 // n]

    return lambda x: np.asarray(solve(jnp.asarray(x)))


def burgers1d_solver(inputs, outputs) -> Predict:
    """The exact solution at time 1 from the points that are given."""
    one = jnp.ones(1)
    solve = jax.jit(jax.vmap(lambda u0: pairs.solve_burgers(u0[0], one, BURGERS1D_VISCOSITY)))
    return lambda x: np.asarray(solve(jnp.asarray(x)))


METHODS = {
    "darcy": {
        "mean of the outputs": mean,
        "linear ridge": linear,
        "kernel ridge": kernel,
        "finite volumes": darcy_solver,
    },
    "burgers": {
        "mean of the outputs": mean,
        "persistence": persistence,
        "linear ridge": linear,
        "kernel ridge": kernel,
        "exact solution": burgers_solver,
    },
    "burgers1d": {
        "mean of the outputs": mean,
        "persistence": persistence,
        "linear ridge": linear,
        "kernel ridge": kernel,
        "exact solution": burgers1d_solver,
    },
}


def _tuned(method, choices, inputs, outputs) -> Predict:
    x, y = inputs.reshape(len(inputs), -1).astype(float), outputs.reshape(len(outputs), -1).astype(float)
    part = 4 * len(x) // 5

    def error(choice):
        wrong = method(x[:part], y[:part], *choice)(x[part:]) - y[part:]
        return np.mean(np.linalg.norm(wrong, axis=1) / np.linalg.norm(y[part:], axis=1))

    predict = method(x, y, *min(choices, key=error))
    shape = outputs.shape[1:]
    return _at_any_resolution(lambda x: predict(x.reshape(len(x), -1)).reshape(-1, *shape), inputs.shape)


def _ridge(x, y, ridge) -> Predict:
    centre, level = x.mean(0), y.mean(0)
    u, s, v = np.linalg.svd(x - centre, full_matrices=False)
    weights = v.T @ ((s / (s**2 + ridge * s[0] ** 2))[:, None] * (u.T @ (y - level)))
    return lambda x: level + (x - centre) @ weights


def _kernel(x, y, width, ridge) -> Predict:
    level, size = y.mean(0), 2 * x.var(0).sum() * width**2
    distance = lambda a, b: (a**2).sum(1)[:, None] + (b**2).sum(1) - 2 * a @ b.T
    similar = lambda a, b: np.exp(-distance(a, b) / (2 * size))
    weights = np.linalg.solve(similar(x, x) + ridge * np.eye(len(x)), y - level)
    return lambda z: level + similar(z, x) @ weights


def _at_any_resolution(predict: Predict, shape) -> Predict:
    """`predict` of some of finer points, and between them linearly; beyond the last u = 0, on a circle the first."""
    axes = range(2 - len(shape), 0)

    def at(x):
        every = x.shape[-1] // shape[-1]
        y = predict(x[(..., *[slice(None, None, every)] * len(axes))])
        for axis in axes if every > 1 else ():
            y = np.moveaxis(y, axis, -1)
            following = np.concatenate([y[..., 1:], (len(axes) == 1) * y[..., :1]], -1)
            y = y[..., None] + (following - y)[..., None] * np.arange(every) / every
            y = np.moveaxis(y.reshape(*y.shape[:-2], -1), -1, axis)
        return y

    return at
