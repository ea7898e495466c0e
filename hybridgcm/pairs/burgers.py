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
    Raises `ValueError` for an n that does not divide max(n, 256) and for less than one `smoothed`.
    """
    if smoothed < 1:
        raise ValueError(f"white noise is smoothed at least once, else it has no limit in n; got {smoothed=}")
    points = max(n, 256)
    numbers = jnp.arange(1, points // 2)
    size = 25**smoothed / (4 * np.pi**2 * numbers**2 + 25.0) ** smoothed

    def one(key):
        noise = jr.normal(key, (2, len(numbers))) * size / np.sqrt(2)
        u0_hat = jnp.pad(jax.lax.complex(noise[0], noise[1]), 1)
        u0 = jnp.fft.irfft(u0_hat, points, norm="forward")
        return u0, solve_burgers(u0, jnp.asarray(times, u0.dtype), viscosity)

    if points % n:
        raise ValueError(f"n is a divisor of {points}, the points that solutions are made on; got {n}")
    u0, u = jax.lax.map(one, jr.split(key, samples))
    return spread(np.asarray(u0)[:, :: points // n], np.asarray(u)[..., :: points // n])


@jax.jit
def solve_burgers(u0: Float[Array, " x"], times: Float[Array, " time"], viscosity: ArrayLike) -> Float[Array, "time x"]:
    """u at `times` of u_t + u u_x = ν u_xx on the unit circle, from u0 at the points i/n.

    Exact for what n points resolve, by the transform of Hopf (1950), doi:10.1002/cpa.3160030302, and Cole (1951): in
    the frame of the mean, u = −2ν θ_x/θ with θ = exp(−∫u0 dx/2ν) diffusing. θ spans exp(range of ∫u0/2ν): give enough
    points for it, and double precision where that is large.
    """
    n = u0.shape[-1]
    k = 2 * np.pi * np.arange(n // 2 + 1)
    slope = np.where(np.arange(n // 2 + 1) * 2 == n, 0, k)  # an odd derivative of the Nyquist mode is zero
    u_hat = jnp.fft.rfft(u0, norm="forward")
    integral = jnp.where(slope == 0, 0, u_hat / (1j * np.where(slope == 0, 1, slope)))
    potential = jnp.fft.irfft(integral, n, norm="forward") / (2 * viscosity)
    theta_hat = jnp.fft.rfft(jnp.exp(jnp.min(potential) - potential), norm="forward")

    def at(time):
        moved = theta_hat * jnp.exp(-viscosity * k**2 * time - 1j * k * u_hat[0].real * time)
        theta, theta_x = (jnp.fft.irfft(a, n, norm="forward") for a in (moved, 1j * slope * moved))
        return u_hat[0].real - 2 * viscosity * theta_x / theta

    return jax.vmap(at)(times)


def spread(u0: np.ndarray, u: np.ndarray) -> dict[str, np.ndarray]:
    """The pair of initial values, the same at all times, and solutions."""
    return {"u0": np.repeat(u0[:, None, None], u.shape[1], 2), "u": u[:, None]}
