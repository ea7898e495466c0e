"""Poisson, advection-diffusion and Helmholtz problems on the periodic unit square, solved exactly by Fourier modes.

All three are −∇·(k ∇u) + v·∇u − ω u = f with constant coefficients, so pairs of all have the same names: `f` and `u`,
`[sample, 1, y, x]` at the points i/n, and as fields that do not vary in space `k`, the diffusivities k_xx, k_yy and
k_xy, `v`, the velocities v_x and v_y, and `w`, the number ω. Sources and coefficients are drawn as by Subramanian et
al. (2023), arXiv:2306.00258, from whose code the notes here come; each has zero mean, as f does.
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, ArrayLike, Float

DIFFUSIVITY = 0.01
"""Of the direction that diffuses least."""
SPARSITIES = (0.2, 0.4, 0.6, 0.8)
"""Chance of a Gaussian to be left out: sample i has that of i modulo 4, so every beginning of a set is balanced."""
LARGEST = 2.0
"""Helmholtz solutions beyond this, of sources that hit a resonance, are drawn again."""
BLENDS = 1 / (1 + np.exp(-np.linspace(np.log(0.001 / 0.999), np.log(0.978 / 0.022), 59)))
"""Shares λ of advection that are chosen from: as many as in the paper's code, between the same ends."""


def poisson(n: int, samples: int, key: Array, *, anisotropy: Sequence = (1.0, 5.0)) -> dict[str, np.ndarray]:
    """Pairs of −∇·(k ∇u) = f: k = .01 Rᵀ diag(1, e) R, e uniform in `anisotropy`, R a rotation by any angle.

    Raises `ValueError` for fewer than 4 points a side, no samples, and ranges below one or out of order.
    """
    _check(n, samples, anisotropy=anisotropy)
    return _pairs(_poisson, n, samples, key, anisotropy)


def advection_diffusion(
    n: int, samples: int, key: Array, *, ratio: Sequence = (0.2, 1.0), anisotropy: Sequence[float] = (1.0, 5.0)
) -> dict[str, np.ndarray]:
    """Pairs of −∇·((1 − λ) k ∇u) + λ v·∇u = f, k as in `poisson`, |v| = 1 in any direction; `k`, `v` with their share.

    λ is the entry of `BLENDS` at which ‖λ v·∇u‖ over ‖∇·((1 − λ) k ∇u)‖, a mean over 400 other samples, comes closest
    to a number drawn uniformly in `ratio`; at the same λ single samples differ. Raises as `poisson`.
    """
    _check(n, samples, anisotropy=anisotropy)
    _check(n, samples, ratio=ratio, least=0.0)
    return _pairs(_advection_diffusion, n, samples, key, anisotropy, ratio, _mean_ratios(tuple(anisotropy)))


def helmholtz(n: int, samples: int, key: Array, *, frequency: Sequence = (1, 10)) -> dict[str, np.ndarray]:
    """Pairs of .01 ∇²u + ω u = −f, ω a whole number uniform in `frequency`, both ends included; max |u| at most 2.

    The operator is indefinite: modes below ω have the other sign, and near them u is large. (The paper prints the sign
    of a definite one; its code has this.) Samples beyond `LARGEST` are drawn again as a whole, so that numbers with a
    resonance nearby are rarer. Raises as `poisson`.
    """
    _check(n, samples, frequency=frequency)
    if any(w != int(w) for w in frequency):
        raise ValueError(f"frequency is a pair of whole numbers; got {tuple(frequency)}")
    return _pairs(_helmholtz, n, samples, key, frequency)


def source(n: int, key: Array, sparsity: ArrayLike) -> Float[Array, "n n"]:
    """Gaussians of width 1/32 on a lattice of 12 by 12, 1/16 apart, about the middle of the square; zero mean.

    A Gaussian has amplitude zero with probability `sparsity`, else one uniform in (.001, 1); then the largest value of
    the sum is scaled to one, and the mean is taken off.
    """
    keys, width = jr.split(key), 1 / 32
    centres = 0.5 + (np.arange(12) - 5.5) / 16
    shapes = jnp.asarray(np.exp(-((np.arange(n)[:, None] / n - centres) ** 2) / (2 * width**2)), float)
    kept = jr.uniform(keys[0], (12, 12)) >= sparsity
    f = shapes @ jnp.where(kept, jr.uniform(keys[1], (12, 12), minval=1e-3), 0) @ shapes.T
    f = f / jnp.max(f)
    return f - jnp.mean(f)


@jax.jit
def solve_elliptic(
    f: Float[Array, "*lead n n"], k: Float[Array, "*lead 3"], v: Float[Array, "*lead 2"], w: Float[Array, "*lead"]
) -> Float[Array, "*lead n n"]:
    """u of −∇·(k ∇u) + v·∇u − ω u = f with zero mean, for constant k = (k_xx, k_yy, k_xy), v = (v_x, v_y) and ω.

    û = f̂/(kₓₓ p² + k_yy q² + 2 k_xy p q + i(v_x p + v_y q) − ω) with wave numbers p, q of the unit square. Where the
    denominator is zero f has no solution, and u has none of that mode. Differentiable.
    """
    symbol = _symbol(f.shape[-1], k, v, w)
    zero = symbol == 0
    zero = zero | (np.arange(f.shape[-1])[:, None] + np.arange(f.shape[-1] // 2 + 1) == 0)
    u_hat = jnp.where(zero, 0, jnp.fft.rfft2(f) / jnp.where(zero, 1, symbol))
    return jnp.fft.irfft2(u_hat, f.shape[-2:])


@jax.jit
def elliptic_residual(
    u: Float[Array, "*lead n n"],
    f: Float[Array, "*lead n n"],
    k: Float[Array, "*lead 3"],
    v: Float[Array, "*lead 2"],
    w: Float[Array, "*lead"],
) -> Float[Array, "*lead n n"]:
    """−∇·(k ∇u) + v·∇u − ω u − f, derivatives by modes: zero for what `solve_elliptic` gives."""
    symbol = _symbol(f.shape[-1], k, v, w)
    return jnp.fft.irfft2(symbol * jnp.fft.rfft2(u) - jnp.fft.rfft2(f), f.shape[-2:])


def wave_numbers(n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(p, q, p², q²) along x and y for the modes of `rfft2`; p and q, of odd derivatives, are zero at Nyquist modes."""
    numbers = 2 * np.pi * np.fft.fftfreq(n, 1 / n)
    odd = np.where(np.isclose(np.abs(numbers), np.pi * n), 0, numbers)
    half = slice(n // 2 + 1)
    return odd[None, half], odd[:, None], numbers[None, half] ** 2, numbers[:, None] ** 2


def _symbol(n: int, k: Array, v: Array, w: Array) -> Array:
    """What the operator multiplies each mode of `rfft2` with."""
    p, q, p2, q2 = wave_numbers(n)
    part = lambda a, i: a[..., i, None, None]
    real = part(k, 0) * p2 + part(k, 1) * q2 + 2 * part(k, 2) * (p * q) - w[..., None, None]
    return jax.lax.complex(real, jnp.broadcast_to(part(v, 0) * p + part(v, 1) * q, real.shape))


def _diffusivity(key: Array, anisotropy: Sequence | Array) -> Array:
    keys = jr.split(key)
    e = jr.uniform(keys[0], minval=anisotropy[0], maxval=anisotropy[1])
    cos, sin = _direction(keys[1])
    return DIFFUSIVITY * jnp.array([cos**2 + e * sin**2, sin**2 + e * cos**2, (1 - e) * cos * sin])


def _direction(key: Array) -> Array:
    angle = jr.uniform(key, maxval=2 * np.pi)
    return jnp.array([jnp.cos(angle), jnp.sin(angle)])


@functools.cache
def _mean_ratios(anisotropy: tuple[float, float]) -> np.ndarray:
    """The mean ratio of advection to diffusion at every entry of `BLENDS`."""
    keys, sparsities = jr.split(jr.key(0), 400), _sparsities(400)
    return np.array([_mean_ratio(blend, keys, sparsities, jnp.asarray(anisotropy, float)) for blend in BLENDS])


@jax.jit
def _mean_ratio(blend: Array, keys: Array, sparsities: Array, anisotropy: Array) -> Array:
    def one(key, sparsity):
        keys, n = jr.split(key, 3), 32
        f, k, v = source(n, keys[0], sparsity), _diffusivity(keys[1], anisotropy), _direction(keys[2])
        k, v, none = (1 - blend) * k, blend * v, jnp.zeros(())
        u = solve_elliptic(f, k, v, none)
        size = lambda k, v: jnp.linalg.norm(elliptic_residual(u, 0 * f, k, v, none))
        return size(0 * k, v) / size(k, 0 * v)

    return jnp.mean(jax.vmap(one)(keys, sparsities))


def _sparsities(samples: int) -> Array:
    return jnp.asarray(np.array(SPARSITIES)[np.arange(samples) % 4], float)


def _poisson(n: int, key: Array, sparsity: Array, anisotropy: Array):
    keys = jr.split(key, 2)
    return source(n, keys[0], sparsity), _diffusivity(keys[1], anisotropy), jnp.zeros(2), jnp.zeros(())


def _advection_diffusion(n: int, key: Array, sparsity: Array, anisotropy: Array, ratio: Array, means: Array):
    keys = jr.split(key, 4)
    f, k, v = source(n, keys[0], sparsity), _diffusivity(keys[1], anisotropy), _direction(keys[2])
    wanted = jr.uniform(keys[3], minval=ratio[0], maxval=ratio[1])
    blend = jnp.asarray(BLENDS, float)[jnp.argmin(jnp.abs(means - wanted))]
    return f, (1 - blend) * k, blend * v, jnp.zeros(())


def _helmholtz(n: int, key: Array, sparsity: Array, frequency: Array):
    k, still = jnp.array([DIFFUSIVITY, DIFFUSIVITY, 0.0]), jnp.zeros(2)

    def draw(number):
        keys = jr.split(jr.fold_in(key, number))
        return source(n, keys[0], sparsity), jnp.floor(
            jr.uniform(keys[1], minval=frequency[0], maxval=frequency[1] + 1)
        )

    def large(carry):
        f, w, _ = carry
        return jnp.max(jnp.abs(solve_elliptic(f, k, still, w))) > LARGEST

    f, w, _ = jax.lax.while_loop(large, lambda carry: (*draw(carry[2] + 1), carry[2] + 1), (*draw(0), 0))
    return f, k, still, w


def _pairs(draw, n: int, samples: int, key: Array, *ranges) -> dict[str, np.ndarray]:
    """Pairs of the sources and coefficients that `draw(n, key, sparsity, *ranges)` gives."""
    ranges = tuple(jnp.asarray(np.asarray(given), float) for given in ranges)
    f, k, v, w, u = (np.asarray(a) for a in _solved(draw, n, jr.split(key, samples), _sparsities(samples), ranges))
    # views: what does not vary in space is held once
    constant = {name: np.broadcast_to(a[..., None, None], (*a.shape, n, n)) for name, a in zip("kvw", (k, v, w))}
    return {"f": f[:, None], **constant, "u": u[:, None]}


@functools.partial(jax.jit, static_argnums=(0, 1))
def _solved(draw, n: int, keys: Array, sparsities: Array, ranges: tuple[Array, ...]):
    def one(given):
        f, k, v, w = draw(n, *given, *ranges)
        return f, k, v, w[None], solve_elliptic(f, k, v, w)

    return jax.lax.map(one, (keys, sparsities))


def _check(n: int, samples: int, *, least: float = 1.0, **ranges: Sequence):
    if n < 4 or samples < 1:
        raise ValueError(f"elliptic pairs need n >= 4 points a side and at least one sample; got {n=}, {samples=}")
    for name, given in ranges.items():
        if len(given) != 2 or not least <= given[0] <= given[1]:
            raise ValueError(f"{name} is a range (low, high) from {least:g} on; got {tuple(given)}")
