"""Schemes that treat every term explicitly."""

from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from hybridgcm._typing import Spectral
from hybridgcm.grids.base import scale
from hybridgcm.steppers.base import AbstractStepper, add, axpy, precision


class AB3(AbstractStepper):
    """Third-order Adams–Bashforth, started by Euler and AB2 as pyqg does. One evaluation per step, 10 transforms.

    The Euler step leaves an error of second order in dt, which a run that settles on an attractor forgets.

    y' = y + dt (23 F₀ − 16 F₁ + 5 F₂)/12. Stable for |ω| dt < .72 (waves) and rate·dt < .54 (damping).
    Durran (1991), doi:10.1175/1520-0493(1991)119<0702:TTOABM>2.0.CO;2, equation 4.
    """

    order: ClassVar[int] = 3

    def init(self, y: Spectral):
        zero = jax.tree.map(jnp.zeros_like, y)
        return {"next": zero, "second": zero, "count": jnp.zeros((), jnp.int32)}

    def __call__(self, F, equation, y, past, dt):
        # The history holds what F₋₁ and F₋₂ will add to the next two steps, not the tendencies themselves:
        # shifting those would copy two states per step, a tenth of the time at 256².
        # The barrier keeps XLA from computing the tendency anew for each of the three results.
        now = jax.lax.optimization_barrier(add(F(0.0, y), equation.implicit(y)))
        weights = jnp.asarray(_AB3 * dt, precision(y))
        rows = [weights[jnp.minimum(past["count"] + ahead, 2)][ahead] for ahead in range(3)]
        a, b, c = rows
        return (
            jax.tree.map(lambda y, f, rest: y + (scale(a, f) + rest), y, now, past["next"]),
            {
                "next": jax.tree.map(lambda f, rest: scale(b, f) + rest, now, past["second"]),
                "second": jax.tree.map(lambda f: scale(c, f), now),
                "count": jnp.minimum(past["count"] + 1, 2),
            },
        )


_AB3 = np.array([[12, 0, 0], [18, -6, 0], [23, -16, 5]]) / 12
"""Weights of F₀, F₋₁, F₋₂ by the number of earlier tendencies: Euler, AB2, AB3."""


class RK4(AbstractStepper):
    """Classical fourth-order Runge–Kutta, four evaluations per step, 40 transforms of two-layer flow.

    Stable for |ω| dt < 2.83 (waves) and rate·dt < 2.79 (damping).
    Kutta (1901); Hairer, Nørsett and Wanner (1993), doi:10.1007/978-3-540-78862-1, table II.1.2.
    """

    order: ClassVar[int] = 4

    def init(self, y: Spectral):
        return None

    def __call__(self, F, equation, y, past, dt):
        full = lambda offset, y: add(F(offset, y), equation.implicit(y))
        k1 = full(0.0, y)
        k2 = full(dt / 2, axpy(dt / 2, k1, y))
        k3 = full(dt / 2, axpy(dt / 2, k2, y))
        k4 = full(dt, axpy(dt, k3, y))
        return axpy(dt / 6, k1, axpy(dt / 3, k2, axpy(dt / 3, k3, axpy(dt / 6, k4, y)))), None
