"""Schemes that treat `equation.implicit` implicitly, through `equation.solve`."""

from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from hybridgcm._typing import Spectral, param
from hybridgcm.grids.base import scale
from hybridgcm.steppers.base import AbstractStepper, axpy, precision


class SIL3(AbstractStepper):
    """Semi-implicit Lorenz three-cycle: implicit–explicit Runge–Kutta, three evaluations and solves per step.

    Second order; third for the explicit part of a linear problem. Stable for |ω| dt < 1.73 (explicit waves) and
    any damping or frequency in the implicit part. 30 transforms of two-layer flow.
    Whitaker and Kar (2013), doi:10.1175/MWR-D-13-00132.1, section 3.
    """

    order: ClassVar[int] = 2

    def init(self, y: Spectral):
        return None

    def __call__(self, F, equation, y, past, dt):
        explicit = ((1 / 3,), (1 / 6, 1 / 2), (1 / 2, -1 / 2, 1.0))
        implicit = ((1 / 6, 1 / 6), (1 / 3, 0.0, 1 / 3), (3 / 8, 0.0, 3 / 8, 1 / 4))
        return _imex(F, equation, y, dt, explicit, implicit), None


class BPR353(AbstractStepper):
    """BPR(3,5,3): implicit–explicit Runge–Kutta of third order, three evaluations and four solves per step.

    Yᵢ = y + dt Σⱼ (aᵢⱼ F(Yⱼ) + bᵢⱼ L Yⱼ), L the implicit part; the last stage is the new state, so that stiff
    modes are forgotten within a step. Third order for F and L together, coupled L included. Stable for
    |ω| dt < 1.73 (explicit waves) and rate·dt < 2.51 (explicit damping); any damping or frequency in L.
    Boscarino, Pareschi and Russo (2013), doi:10.1137/110842855, BPR(3,5,3); the scheme of Frezat et al. (2024),
    arXiv:2310.19385, who hold the time of the forcing at the start of the step (here it is the stage's).
    30 transforms of two-layer flow.
    """

    order: ClassVar[int] = 3

    def init(self, y: Spectral):
        return None

    def __call__(self, F, equation, y, past, dt):
        return _imex(F, equation, y, dt, *_BPR353), None


_BPR353 = (
    ((1.0,), (4 / 9, 2 / 9), (1 / 4, 0.0, 3 / 4), (1 / 4, 0.0, 3 / 4, 0.0)),
    ((1 / 2, 1 / 2), (5 / 18, -1 / 9, 1 / 2), (1 / 2, 0.0, 0.0, 1 / 2), (1 / 4, 0.0, 3 / 4, -1 / 2, 1 / 2)),
)
"""Explicit and implicit weights of the stages after the first, which is the state itself."""


def _imex(F, equation, y, dt, explicit, implicit):
    """Last stage of an implicit–explicit Runge–Kutta scheme; row i holds the weights of stage i + 1.

    Tendencies that no later stage weighs are not evaluated.
    """
    slopes, stiff, stage = [], [], y
    for i, (a, b) in enumerate(zip(explicit, implicit, strict=True)):
        offset = dt * sum(explicit[i - 1]) if i else 0.0
        slopes.append(F(offset, stage) if any(row[i] for row in explicit[i:]) else None)
        stiff.append(equation.implicit(stage) if any(row[i] for row in implicit[i:]) else None)
        known = y
        for weight, slope in zip((*a, *b[:-1]), (*slopes, *stiff), strict=True):
            known = axpy(dt * weight, slope, known) if weight else known
        stage = equation.solve(known, dt * b[-1])
    return stage


class SemiImplicitLeapfrog(AbstractStepper):
    """Leapfrog for F, trapezoidal for the implicit part L over 2 dt, Robert–Asselin–Williams filter. One evaluation.

    y₊ − ȳ₋ = 2dt (F(y) + L (y₊ + ȳ₋)/2);   d = ν (ȳ₋ − 2y + y₊)/2;   ȳ = y + α d,   y₊ ← y₊ − (1 − α) d,
    ν = `robert`, α = `williams`, both dimensionless. α = 1 is the filter of Robert and Asselin; α = ½ leaves the
    mean of the three levels alone, but amplifies waves slightly, the more the shorter; ν = 0 is no filter.
    The first step spans dt from y = ȳ₋ (Euler for F, trapezoidal for L) and does not filter: its error of second
    order, once, keeps the scheme's.

    Second order without filter or at α = ½. Otherwise the filter damps waves at the rate ν (2α − 1) ω² dt/4: of
    first order, 17 times smaller at α = .53 than at α = 1. Stable for |ω| dt < .45 (explicit waves, the default
    filter; at .49 the growth is 1e-4 per step), .95 at α = 1 and 1 without filter; any damping or frequency in L.
    Explicit damping makes the computational mode grow unless the filter holds it: rate·dt < ν. So a strongly viscous
    closure wants another scheme. Stiff modes of L, rate·dt ≫ 1, alternate in sign and decay by the filter alone.
    10 transforms of two-layer flow.

    Williams (2009), doi:10.1175/2009MWR2724.1, equations 7 to 9; (2011), doi:10.1175/2010MWR3601.1.
    Raises `ValueError` for `robert` or `williams` outside [0, 1].
    """

    order: ClassVar[int] = 2
    robert: Array = param(default=0.1)
    williams: Array = param(default=0.53)

    def __check_init__(self):
        for name, value in (("robert", self.robert), ("williams", self.williams)):
            if not isinstance(value, jax.core.Tracer) and not np.all(
                (np.asarray(value) >= 0) & (np.asarray(value) <= 1)
            ):
                raise ValueError(f"{name} is a number from 0 to 1; got {value}. robert = 0 turns the filter off")

    def init(self, y: Spectral):
        return {"before": y, "count": jnp.zeros((), jnp.int32)}

    def __call__(self, F, equation, y, past, dt):
        before, started = past["before"], past["count"] > 0
        half = dt * jnp.where(started, 1.0, 0.5).astype(precision(y))
        known = axpy(2 * half, F(0.0, y), axpy(half, equation.implicit(before), before))
        # Without the barrier XLA computes the solve anew for both results.
        ahead = jax.lax.optimization_barrier(equation.solve(known, half))
        strength = jnp.where(started, self.robert / 2, 0)
        bend = jax.tree.map(lambda minus, now, plus: scale(strength, minus - 2 * now + plus), before, y, ahead)
        past = {"before": axpy(self.williams, bend, y), "count": jnp.ones((), jnp.int32)}
        return axpy(self.williams - 1, bend, ahead), past
