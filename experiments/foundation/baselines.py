"""What needs no network: functions (fields of the pairs downstream) -> (fields -> u), both `[sample, layer, y, x]`."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np

from hybridgcm import pairs
from hybridgcm.pairs.elliptic import wave_numbers


def isotropic(pair):
    """Solution of −κ ∇²u = f with one number κ, which fits the pairs best."""
    k, v, w = jnp.array([1.0, 1.0, 0.0]), jnp.zeros(2), jnp.zeros(())
    each = jax.jit(jax.vmap(lambda f: pairs.solve_elliptic(f, k, v, w)))
    solve = lambda f: np.asarray(each(jnp.asarray(f[:, 0], k.dtype)))
    guess = solve(pair["f"])
    amplitude = np.vdot(guess, pair["u"][:, 0]) / np.vdot(guess, guess)
    return lambda fields: amplitude * solve(fields["f"])[:, None]


def regression(pair):
    """The equation found by least squares, then solved: f from all products of a coefficient and a derivative of u.

    f = Σ θ_cj c D_j u over the coefficients c (one, k, v and ω) and D = 1, ∂x, ∂y, ∂xx, ∂yy, ∂xy: linear in θ, so that
    a handful of pairs tells it, where the library holds the equation, as here.
    """
    design = np.stack([term.ravel() for term in _terms(pair)], 1)
    theta, *_ = np.linalg.lstsq(design, pair["f"].astype(float).ravel(), rcond=1e-10)

    def predict(fields):
        n = fields["f"].shape[-1]
        coefficients = _coefficients(fields)
        symbol = sum(
            t * c[:, None, None] * d
            for t, (c, d) in zip(theta, itertools.product(coefficients, _symbols(n)), strict=True)
        )
        f_hat = np.fft.rfft2(fields["f"][:, 0].astype(float))
        f_hat[:, 0, 0] = 0
        return np.fft.irfft2(np.where(f_hat == 0, 0, f_hat / np.where(symbol == 0, 1, symbol)), (n, n))[:, None]

    return predict


METHODS = {"isotropic diffusion, one number tuned": isotropic, "the equation by least squares": regression}


def _coefficients(fields) -> list[np.ndarray]:
    first = [fields[name][:, i, 0, 0].astype(float) for name in "kvw" for i in range(fields[name].shape[1])]
    return [np.ones(len(fields["f"])), *first]


def _terms(fields):
    u_hat = np.fft.rfft2(fields["u"][:, 0].astype(float))
    n = fields["u"].shape[-1]
    slopes = [np.fft.irfft2(d * u_hat, (n, n)) for d in _symbols(n)]
    return [c[:, None, None] * d for c, d in itertools.product(_coefficients(fields), slopes)]


def _symbols(n: int) -> list[np.ndarray]:
    p, q, p2, q2 = wave_numbers(n)
    return [np.ones_like(p2 + q2), 1j * p + 0 * q, 1j * q + 0 * p, -p2 + 0 * q, -q2 + 0 * p, -p * q]
