"""Exponential time differencing: the implicit part exactly."""

import math
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Inexact

from hybridgcm._typing import Spectral
from hybridgcm.equations.base import AbstractEquation
from hybridgcm.grids.base import scale
from hybridgcm.steppers.base import AbstractStepper

Modes = Inexact[Array, "..."]


class ETDRK4(AbstractStepper):
    """Exponential time differencing with fourth-order Runge–Kutta, four evaluations per step, 40 transforms.

    y(t + dt) = e^z y(t) + ∫ e^((dt − s) L) F ds with z = L dt, L the implicit part, which must be diagonal: one
    factor per prognostic, layer and mode, real or complex. Exact, so stable, for F = 0; with L = 0 this is RK4.
    Stable for |ω| dt < 2.83 (explicit waves), rate·dt < 2.79 (explicit damping), more where L damps as well.

    Cox and Matthews (2002), doi:10.1006/jcph.2002.6995, equations 26 to 29. Their weights cancel for small z, where
    Kassam and Trefethen (2005), doi:10.1137/S1064827502410633, take contour means; here for |z| < 2 power series, with
    e^z taken out where Re z < 0 so that their terms do not alternate: cheaper, accurate in single precision too,
    and as their derivatives differentiable by the parameters of L.

    Raises `ValueError` when the first step is traced if the implicit part couples prognostics, layers or modes; it
    is probed with random parameters, and coupling that happens to vanish for some is refused nevertheless.
    """

    order: ClassVar[int] = 4

    def init(self, y: Spectral):
        return None

    def __call__(self, F, equation, y, past, dt):
        diagonal = _diagonal(equation, y)
        weights = {name: _weights(factor * dt) for name, factor in diagonal.items()}
        apply = lambda key, a: {name: _times(weights[name][key], a[name]) for name in y}
        plus = lambda *terms: jax.tree.map(lambda *leaves: dt * sum(leaves[1:-1], leaves[0]) + leaves[-1], *terms)
        start = apply("half", y)
        n0 = F(0.0, y)
        a = plus(apply("q", n0), start)
        n1 = F(dt / 2, a)
        b = plus(apply("q", n1), start)
        n2 = F(dt / 2, b)
        c = plus(apply("q", jax.tree.map(lambda n2, n0: 2 * n2 - n0, n2, n0)), apply("half", a))
        n3 = F(dt, c)
        inner = jax.tree.map(lambda n1, n2: 2 * (n1 + n2), n1, n2)
        return plus(apply("f1", n0), apply("f2", inner), apply("f3", n3), apply("full", y)), None


def _times(factor: Modes, a_hat: Modes) -> Modes:
    return factor * a_hat if jnp.iscomplexobj(factor) else scale(factor, a_hat)


_RADIUS = 2.0
"""|z| below which the weights come from series; above it the closed forms lose less than a digit."""


def _weights(z: Modes) -> dict[str, Modes]:
    """Factors of the scheme for z = L dt: e^z, e^(z/2), (e^(z/2) − 1)/z and the three of the last stage.

    With φₖ = Σ zⁿ/(n + k)! they are f1 = φ1 − 3φ2 + 4φ3 = Σ (n + 1)² zⁿ/(n + 3)!, f2 = φ2 − 2φ3 = Σ (n + 1) zⁿ/(n + 3)!
    and f3 = 4φ3 − φ2 = Σ (1 − n) zⁿ/(n + 3)!; with w = −z, f1(z) = e^z f3(w), f3(z) = e^z f1(w), f2(z) = e^z f2(w).
    """
    small = z.real**2 + z.imag**2 < _RADIUS**2
    near, far = jnp.where(small, z, 0), jnp.where(small, _RADIUS, z)  # each safe where the other holds
    left = near.real < 0
    w = jnp.where(left, -near, near)
    ahead, behind = jnp.where(left, jnp.exp(near), 1), jnp.exp(near / 2)
    series = lambda coefficient, x: _series(coefficient, x)
    f1, f2, f3 = (series(c, w) for c in (lambda n: (n + 1) ** 2, lambda n: n + 1, lambda n: 1 - n))
    q = jnp.where(left, behind, 1) * series(lambda n: (n + 2) * (n + 3) / 2 ** (n + 1), w)
    r, e = 1 / far, jnp.exp(far)
    closed = {
        "q": r * jnp.expm1(far / 2),
        "f1": -r * r * (1 + 4 * r) + e * r * (1 - r * (3 - 4 * r)),
        "f2": r * r * (1 + 2 * r) + e * r * r * (1 - 2 * r),
        "f3": -r * (1 + r * (3 + 4 * r)) - e * r * r * (1 - 4 * r),
    }
    close = {"q": q, "f1": ahead * jnp.where(left, f3, f1), "f2": ahead * f2, "f3": ahead * jnp.where(left, f1, f3)}
    both = {name: jnp.where(small, close[name], closed[name]) for name in closed}
    return both | {"full": jnp.exp(z), "half": jnp.exp(z / 2)}


def _series(coefficient, w: Modes) -> Modes:
    """Σ coefficient(n) wⁿ/(n + 3)! for |w| < 2, to rounding, by Horner's rule."""
    terms = 26 if jnp.finfo(w.dtype).bits > 32 else 16
    total = jnp.zeros_like(w)
    for n in reversed(range(terms)):
        total = total * w + coefficient(n) / math.factorial(n + 3)
    return total


def _diagonal(equation: AbstractEquation, y: Spectral) -> dict[str, Modes]:
    """L by prognostic, from `implicit` of ones; real unless the equation makes it complex."""
    real = _probe(equation, y)
    factors = equation.implicit(jax.tree.map(jnp.ones_like, y))
    return {name: factors[name].real if real[name] else factors[name] for name in y}


def _probe(equation: AbstractEquation, y: Spectral) -> dict[str, bool]:
    """Whether L is real, by prognostic; raises `ValueError` if it is not diagonal.

    Inside jit the equation's arrays have no values, so numbers of one sign stand in for them; both signs are
    tried, since a power or a root of a table may want one of them.
    """
    rng = np.random.default_rng(0)
    with jax.ensure_compile_time_eval():
        noise = {name: jnp.asarray(_complex(rng, a.shape), a.dtype) for name, a in y.items()}
        ones = {name: jnp.ones(a.shape, a.dtype) for name, a in y.items()}
        for sign in (1, -1):
            trial = jax.tree.map(lambda leaf, sign=sign: _stand_in(leaf, rng, sign), equation)
            with np.errstate(all="ignore"):
                factors, found = trial.implicit(ones), trial.implicit(noise)
            error = {name: np.abs(found[name] - factors[name] * noise[name]) for name in y}
            coupled = [n for n in y if not error[n].max() <= 1e-3 * np.abs(np.asarray(found[n])).max()]
            if not coupled:
                return {name: not np.any(np.asarray(factors[name]).imag) for name in y}
    raise ValueError(
        f"ETDRK4 needs an implicit part that is one factor per prognostic, layer and mode; that of "
        f"{type(equation).__name__} couples others into {coupled}. Use SIL3 or BPR353, which call its solve"
    )


def _stand_in(leaf, rng, sign: int):
    """Random numbers in place of an array; indices become zero."""
    if not isinstance(leaf, jax.Array) or jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return leaf
    if not jnp.issubdtype(leaf.dtype, jnp.inexact):
        return jnp.zeros(leaf.shape, leaf.dtype)
    parts = 1 + 1j if jnp.issubdtype(leaf.dtype, jnp.complexfloating) else 1
    return jnp.asarray(sign * parts * rng.uniform(0.5, 1.5, leaf.shape), leaf.dtype)


def _complex(rng, shape) -> np.ndarray:
    return rng.standard_normal(shape) + 1j * rng.standard_normal(shape)
