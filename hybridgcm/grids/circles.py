"""Fourier transforms along circles of latitude: few points by a matrix product, many by FFTs."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

SMALL = 64
"""Up to so many points, those of T21, a product with a table is faster; at the 128 of T42 both take the same time."""


def table(truncation: int, points: int) -> np.ndarray | None:
    """exp(−imλ) of the orders m up to `truncation`, `[m, real and imaginary part, x]`; `None` for many points.

    Measured on CPUs, to the grid and back, nine fields at once: .6 of the time with FFTs at
    T10, .7 at T21, no gain at T42 and above.
    """
    if points > SMALL:
        return None
    part = np.outer(np.arange(truncation + 1), np.arange(points)) % points  # of the circle: exact, unlike mλ
    waves = np.exp(-2j * np.pi * part / points)
    return np.stack([waves.real, waves.imag], 1)


def to_waves(a: Float[Array, "c y x"], circle: Array | None, truncation: int, precision: str) -> Array:
    """Mean of a exp(−imλ) over every circle: parts `[2, c, y, m]` by the table, complex `[c, y, m]` by FFT."""
    if circle is not None:
        return jnp.einsum("mrx,cyx->rcym", circle, a, precision=precision) / a.shape[-1]
    return jnp.fft.rfft(a, norm="forward")[..., : truncation + 1]


def from_waves(
    waves: Float[Array, "m 2 c y"], circle: Array | None, points: int, precision: str
) -> Float[Array, "c y x"]:
    """Σ a_m exp(imλ) over positive and negative orders m, from the parts of those that are not negative."""
    if circle is not None:
        twice = np.where(np.arange(len(waves)) > 0, 2, 1).astype(waves.dtype).reshape(-1, 1, 1, 1)
        return jnp.einsum("mrcy,mrx->cyx", twice * waves, circle, precision=precision)
    waves = jax.lax.complex(waves[:, 0], waves[:, 1]).transpose(1, 2, 0)
    return jnp.fft.irfft(waves, points, norm="forward")
