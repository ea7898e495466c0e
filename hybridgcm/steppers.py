"""One time step of any equation."""

import abc
from collections.abc import Callable
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from hybridgcm._typing import Spectral
from hybridgcm.equations.base import AbstractEquation
from hybridgcm.grids.base import AbstractGrid, scale

Tendency = Callable[[float, Spectral], Spectral]
"""F(offset, y): explicit right-hand side at `offset` seconds after the start of the step."""


class AbstractStepper(eqx.Module):
    """y(t) → y(t + dt). `F` is the explicit tendency with closure; `equation` gives the implicit part.

    Explicit schemes add `equation.implicit` to F; implicit-explicit ones call `equation.solve`.
    """

    order: ClassVar[int]
    """Order of accuracy for the explicit part at a closure that is re-evaluated per stage."""

    @abc.abstractmethod
    def init(self, y: Spectral) -> Any:
        """History before the first step; `None` for one-step schemes."""

    @abc.abstractmethod
    def __call__(
        self, F: Tendency, equation: AbstractEquation, y: Spectral, past: Any, dt: Array | float
    ) -> tuple[Spectral, Any]:
        """One step of dt seconds: the new state and the new history."""


class AB3(AbstractStepper):
    """Third-order Adams–Bashforth, started by Euler and AB2 as pyqg does. One evaluation per step.

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
        now = jax.lax.optimization_barrier(_add(F(0.0, y), equation.implicit(y)))
        weights = jnp.asarray(_AB3 * dt, _real(y))
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
    """Classical fourth-order Runge–Kutta, four evaluations per step.

    Stable for |ω| dt < 2.83 (waves) and rate·dt < 2.79 (damping).
    Kutta (1901); Hairer, Nørsett and Wanner (1993), doi:10.1007/978-3-540-78862-1, table II.1.2.
    """

    order: ClassVar[int] = 4

    def init(self, y: Spectral):
        return None

    def __call__(self, F, equation, y, past, dt):
        full = lambda offset, y: _add(F(offset, y), equation.implicit(y))
        k1 = full(0.0, y)
        k2 = full(dt / 2, _axpy(dt / 2, k1, y))
        k3 = full(dt / 2, _axpy(dt / 2, k2, y))
        k4 = full(dt, _axpy(dt, k3, y))
        return _axpy(dt / 6, k1, _axpy(dt / 3, k2, _axpy(dt / 3, k3, _axpy(dt / 6, k4, y)))), None


class SIL3(AbstractStepper):
    """Semi-implicit Lorenz three-cycle: implicit–explicit Runge–Kutta, three evaluations and solves per step.

    Second order; third for the explicit part of a linear problem. Stable for |ω| dt < 1.73 (explicit waves) and
    any damping in the implicit part. Whitaker and Kar (2013), doi:10.1175/MWR-D-13-00132.1, section 3.
    """

    order: ClassVar[int] = 2

    def init(self, y: Spectral):
        return None

    def __call__(self, F, equation, y, past, dt):
        explicit = ((1 / 3,), (1 / 6, 1 / 2), (1 / 2, -1 / 2, 1.0))
        implicit = ((1 / 6, 1 / 6), (1 / 3, 0.0, 1 / 3), (3 / 8, 0.0, 3 / 8, 1 / 4))
        offsets = (0.0, dt / 3, 2 * dt / 3)
        slopes, stiff, stage = [], [equation.implicit(y)], y
        for offset, a, b in zip(offsets, explicit, implicit, strict=True):
            slopes.append(F(offset, stage))
            known = y
            for weight, slope in zip((*a, *b[:-1]), (*slopes, *stiff), strict=True):
                known = _axpy(dt * weight, slope, known) if weight else known
            stage = equation.solve(known, dt * b[-1])
            stiff.append(equation.implicit(stage))
        return stage, None


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
    """pyqg's filter per mode: 1 for K ≤ cutoff, exp(−strength (K − cutoff)⁴) above, K = κΔ.

    Dimensionless `[l, k]`, for `Filtered(AB3(), exponential_filter(grid))` and operator 1 of `coarsen`.
    pyqg 0.7.2 `QGModel._initialize_filter` (defaults there); Ross et al. (2023), doi:10.1029/2022MS003258.
    """
    eigenvalues, spacing, xp = grid.eigenvalues, grid.spacing, jnp
    if not isinstance(eigenvalues, jax.core.Tracer):
        eigenvalues, spacing, xp = np.asarray(eigenvalues, np.float64), float(spacing), np
    K = xp.sqrt(-eigenvalues) * spacing
    return jnp.asarray(xp.exp(-strength * xp.maximum(K - cutoff, 0) ** 4), grid.eigenvalues.dtype)


def _real(y):
    return jax.tree.leaves(y)[0].real.dtype


def _add(a, b):
    return jax.tree.map(jnp.add, a, b)


def _axpy(weight, slope, y):
    return jax.tree.map(lambda s, y: y + scale(weight, s), slope, y)
