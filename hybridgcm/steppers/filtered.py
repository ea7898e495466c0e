"""A per-step filter around any stepper."""

from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from hybridgcm._typing import Spectral
from hybridgcm.grids import AbstractGrid, Torus
from hybridgcm.grids.base import scale
from hybridgcm.steppers.base import AbstractStepper


class Filtered(AbstractStepper):
    """`inner`, then every prognostic times a real factor per mode, after every step.

    A per-step filter dissipates at a rate ∝ 1/dt and so acts as a hidden closure; it is here because the
    literature's truth and models have it. The stepper's history is not filtered, as in pyqg.
    """

    order: ClassVar[int] = 0
    inner: AbstractStepper
    factor: Array

    def init(self, y: Spectral):
        return self.inner.init(y)

    def __call__(self, F, equation, y, past, dt):
        y, past = self.inner(F, equation, y, past, dt)
        return jax.tree.map(lambda a_hat: scale(self.factor, a_hat), y), past


def exponential_filter(grid: AbstractGrid, strength: float = 23.6, cutoff: float = 0.65 * np.pi) -> Array:
    """pyqg's filter per mode: 1 for K ≤ cutoff, exp(−strength (K − cutoff)⁴) above, K² = (k Δx)² + (l Δy)².

    K = π at the shortest wave along either axis; on a sphere K = κΔ. Dimensionless `[l, k]`, for
    `Filtered(AB3(), exponential_filter(grid))` and operator 1 of `coarsen`.
    pyqg 0.7.2 `QGModel._initialize_filter` (defaults there); Ross et al. (2023), doi:10.1029/2022MS003258.
    """
    if isinstance(grid, Torus):
        ny, nx = grid.n
        K, xp = 2 * np.pi * np.hypot(np.fft.fftfreq(ny)[:, None], np.arange(nx // 2 + 1) / nx), np
    else:
        K, xp = jnp.sqrt(-grid.eigenvalues) * grid.spacing, jnp
    return jnp.asarray(xp.exp(-strength * xp.maximum(K - cutoff, 0) ** 4), grid.eigenvalues.dtype)
