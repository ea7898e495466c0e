"""Burgers' equation on the unit circle: initial values and the exact solutions that belong to them."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, ArrayLike, Float

TIMES = np.linspace(0.0, 0.96, 17)
"""Of the public Burgers file: with these and viscosity .01 the exact solution differs from it by 1.4e-4."""


def burgers(
    n: int,
    samples: int,
    key: Array,
    *,
    times: Sequence[float] = tuple(TIMES),
    viscosity: float = 0.01,
    smoothed: int = 2,
) -> dict[str, np.ndarray]:
    """Pairs of Burgers' equation, u_t + u u_x = ν u_xx on the unit circle: `u0`, the same at all times, and `u`.

    `[sample, 1, time, x]`, exact. u0 is white noise of zero mean under 25(−∂²/∂x² + 25)⁻¹ applied `smoothed` times:
    with 2 Gaussian of covariance 25⁴(−∂²/∂x² + 25)⁻⁴, as in the public file as far as its spectrum tells; with 1 of
    625(−∂²/∂x² + 25)⁻², as Li et al. (2021), arXiv:2010.08895, section 5.1, say of theirs (times 1, viscosity .1).
    Solved in double precision whatever that of JAX is. Raises `ValueError` for an n that does not divide max(n, 256),
    for less than one `smoothed`, and for a viscosity too small for the exact solution: θ of `solve_burgers` spans
    exp(range of ∫u0 dx/2ν), and where it is below the rounding error of its largest value nothing is left of it.
    """
    if not viscosity > 0:
        raise ValueError(f"viscosity is positive; got {viscosity}")
    if smoothed < 1:
        raise ValueError(f"white noise is smoothed at least once, else it has no limit in n; got {smoothed=}")
    points = max(n, 256)
    numbers = jnp.arange(1, points // 2)
    size = 25**smoothed / (4 * np.pi**2 * numbers**2 + 25.0) ** smoothed

    @jax.jit
    def start(key):
        noise = jr.normal(key, (2, len(numbers))) * size / np.sqrt(2)
        return jnp.fft.irfft(jnp.pad(jax.lax.complex(noise[0], noise[1]), 1), points, norm="forward")

    if points % n:
        raise ValueError(f"n is a divisor of {points}, the points that solutions are made on; got {n}")
    u0, times = np.asarray(jax.lax.map(start, jr.split(key, samples))), np.asarray(times, float)
    later, u, left = times > 0, np.empty((samples, len(times), n), u0.dtype), np.empty(samples)
    some = max(1, 2**21 // (points * len(times)))  # samples at a time, in doubles, as θ spans many decades
    for part in (slice(first, first + some) for first in range(0, samples, some)):
        with np.errstate(all="ignore"):  # judged below
            theta, found = _hopf_cole(np, u0[part].astype(float), times, viscosity)
        left[part] = (theta.min(-1) / theta.max(-1))[:, later].min(1, initial=1)
        u[part] = np.where(later[:, None], found, u0[part, None])[..., :: points // n]
    bad = np.flatnonzero(~(left > 100 * np.finfo(float).eps))
    if bad.size:
        raise ValueError(
            f"viscosity={viscosity:g} is too small for the exact solution: rounding leaves less than two digits of "
            f"{bad.size} of {samples} samples, the first is {bad[0]}; take a larger one, or a solver for shocks"
        )
    return spread(u0[:, :: points // n], u)


@jax.jit
def solve_burgers(u0: Float[Array, " x"], times: Float[Array, " time"], viscosity: ArrayLike) -> Float[Array, "time x"]:
    """u at `times` of u_t + u u_x = ν u_xx on the unit circle, from u0 at the points i/n.

    Exact for what n points resolve, by the transform of Hopf (1950), doi:10.1002/cpa.3160030302, and Cole (1951): in
    the frame of the mean, u = −2ν θ_x/θ with θ = exp(−∫u0 dx/2ν) diffusing. θ spans exp(range of ∫u0/2ν): give enough
    points for it, and double precision where that is large.
    """
    return _hopf_cole(jnp, u0, times, viscosity)[1]


def _hopf_cole(xp, u0, times, viscosity):
    """θ, in units of its largest value at first, and u, `[..., time, x]` of u0 `[..., x]`, by NumPy or JAX."""
    n = u0.shape[-1]
    k = 2 * np.pi * np.arange(n // 2 + 1)
    slope = np.where(np.arange(n // 2 + 1) * 2 == n, 0, k)  # an odd derivative of the Nyquist mode is zero
    u_hat = xp.fft.rfft(u0, norm="forward")
    integral = xp.where(slope == 0, 0, u_hat / (1j * np.where(slope == 0, 1, slope)))
    potential = xp.fft.irfft(integral, n, norm="forward") / (2 * viscosity)
    theta_hat = xp.fft.rfft(xp.exp(xp.min(potential, -1, keepdims=True) - potential), norm="forward")
    mean, time = u_hat[..., :1, None].real, times[:, None]
    moved = theta_hat[..., None, :] * xp.exp(-viscosity * k**2 * time - 1j * k * mean * time)
    theta, theta_x = (xp.fft.irfft(a, n, norm="forward") for a in (moved, 1j * slope * moved))
    return theta, mean - 2 * viscosity * theta_x / theta


def spread(u0: np.ndarray, u: np.ndarray) -> dict[str, np.ndarray]:
    """The pair of initial values, the same at all times, and solutions."""
    return {"u0": np.repeat(u0[:, None, None], u.shape[1], 2), "u": u[:, None]}
