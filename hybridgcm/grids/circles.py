"""Fourier transforms along circles of latitude: few points by products with a table, many by FFTs."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

SMALL = 64, 128
"""Up to so many points, of T21, the whole table is fastest, up to so many, of T42, that of half circles; then FFTs."""


def table(truncation: int, points: int) -> np.ndarray | None:
    """exp(−imλ) of all orders m up to `truncation`, `[1, m, 2, x]`, last but one real and imaginary part; or `None`.

    Or of half a circle, `[2, m/2, 2, x/2]`, even orders and odd ones, as they are the same, and the same but for the
    sign, on the other half. To the grid and back, one to nine fields, on CPUs: .6 of the time with FFTs at T10, .7 at
    T21, .8 with half circles at T42; at T63 and above, for which it is `None`, nothing is gained.
    """
    if points > SMALL[1]:
        return None
    halves = 1 if points <= SMALL[0] else 2
    orders = np.arange(-(-(truncation + 1) // halves) * halves).reshape(-1, halves).T
    part = orders[..., None] * np.arange(points // halves) % points  # of the circle: exact, unlike mλ
    waves = np.exp(-2j * np.pi * part / points)
    return np.stack([waves.real, waves.imag], 2)


def to_waves(a: Float[Array, "c y x"], circle: Array | None, truncation: int, precision: str) -> Array:
    """Mean of a exp(−imλ) over every circle: parts `[2, c, y, m]` by the table, complex `[c, y, m]` by FFT."""
    orders, points = truncation + 1, a.shape[-1]
    if circle is None:
        return jnp.fft.rfft(a, norm="forward")[..., :orders]
    about = jnp.mean(a, -1, keepdims=True)  # what is the same all around then makes no waves, as with FFTs
    a = a - about
    west, east = a[..., : circle.shape[-1]], a[..., circle.shape[-1] :]
    folded = a[None] if len(circle) == 1 else jnp.stack([west + east, west - east])
    waves = jnp.einsum("smrx,scyx->rcyms", circle, folded, precision=precision) / points
    return waves.reshape(*waves.shape[:3], -1)[..., :orders].at[0, ..., 0].add(about[..., 0])


def from_waves(
    waves: Float[Array, "m 2 c y"], circle: Array | None, points: int, precision: str
) -> Float[Array, "c y x"]:
    """Σ a_m exp(imλ) over positive and negative orders m, from the parts of those that are not negative."""
    if circle is None:
        waves = jax.lax.complex(waves[:, 0], waves[:, 1]).transpose(1, 2, 0)
        return jnp.fft.irfft(waves, points, norm="forward")
    twice = np.where(np.arange(len(waves)) > 0, 2, 1).astype(waves.dtype).reshape(-1, 1, 1, 1)
    waves = jnp.pad(twice * waves, [(0, circle.shape[0] * circle.shape[1] - len(waves))] + [(0, 0)] * 3)
    waves = waves.reshape(circle.shape[1], circle.shape[0], *waves.shape[1:])
    folded = jnp.einsum("msrcy,smrx->scyx", waves, circle, precision=precision)
    if len(circle) == 1:
        return folded[0]
    return jnp.concatenate([folded[0] + folded[1], folded[0] - folded[1]], -1)
