"""Darcy flow in the unit square: permeabilities and the pressures that belong to them."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float

PERMEABILITY = (0.0199, 0.367)
"""Of the public Darcy file where its coefficient is 0 and 1, with a forcing of one: fitted to it, told nowhere."""


def darcy(n: int, samples: int, key: Array, *, refine: int = 8, permeability: Sequence[float] = PERMEABILITY) -> dict:
    """Pairs of Darcy flow, −∇·(k ∇u) = 1 on the unit square, u = 0 around it: `a`, 0 or 1, and `u`, points i/n.

    a is 1 where a Gaussian field with covariance (−∇² + 12²)^(−7/2), zero flux through the boundary and zero mean, is
    positive; k is `permeability[a]`. Solved with `refine` times as many points a side, of which every `refine`-th is
    kept: as in the public file, k between the points that are given is not known. The recipe is that of Li et al.
    (2021), arXiv:2010.08895; the exponents, which the file tells nowhere, are fitted to it: 1, 2, 4, 8 and 16 points
    of 32 apart a differs in .067, .134, .254, .424 and .548 of all cases, there in .069, .135, .251, .426 and .543.
    """
    if n < 4 or refine < 1:
        raise ValueError(f"darcy needs n >= 4 points a side and refine >= 1; got {n=}, {refine=}")
    fine, low_high = n * refine, jnp.asarray(permeability, float)

    @jax.jit
    def one(key):
        a = _gaussian(fine, key) > 0
        u = _darcy(jnp.where(a, low_high[1], low_high[0]))
        return {name: field[None, :-1:refine, :-1:refine] for name, field in (("a", a.astype(u.dtype)), ("u", u))}

    return {name: np.asarray(field) for name, field in jax.lax.map(one, jr.split(key, samples)).items()}


@jax.jit
def solve_darcy(k: Float[Array, "n n"]) -> Float[Array, "n n"]:
    """u of −∇·(k ∇u) = 1 in the unit square, u = 0 around it, from the permeability k > 0; both at the points i/n.

    Finite volumes of second order (first at jumps of k), harmonic means of k between points, conjugate gradients with
    the constant-coefficient solution by sines as preconditioner: some 25 iterations for jumps of 18 at any n. Beyond
    the last points k is that of the last ones. Differentiable. For a batch use `jax.vmap` or `jax.lax.map`.
    """
    return _darcy(jnp.pad(k, ((0, 1), (0, 1)), mode="edge"))[:-1, :-1]


def _gaussian(n: int, key: Array) -> Array:
    """A sample of `darcy`'s Gaussian field, up to a factor, at n + 1 points a side."""
    numbers, points = np.arange(n), np.arange(n + 1)
    waves = jnp.asarray(np.cos(np.pi / n * np.outer(points, numbers)), float)
    size = (np.pi**2 / 144 * (numbers[:, None] ** 2 + numbers**2) + 1) ** -1.75
    size *= np.sqrt(np.where(numbers == 0, 1, 2) * np.where(numbers == 0, 1, 2)[:, None])
    size[0, 0] = 0
    return waves @ (jnp.asarray(size, float) * jr.normal(key, (n, n))) @ waves.T


def _darcy(k: Array) -> Array:
    """`solve_darcy` with k on all n + 1 points a side, boundaries included."""
    n = len(k) - 1
    between = lambda a, b: 2 * a * b / (a + b)
    across, along = between(k[1:-1, :-1], k[1:-1, 1:]), between(k[:-1, 1:-1], k[1:, 1:-1])

    def operator(u):  # n² times the sum of fluxes out of the inner points
        u = jnp.pad(u, 1)
        flux_x, flux_y = across * (u[1:-1, 1:] - u[1:-1, :-1]), along * (u[1:, 1:-1] - u[:-1, 1:-1])
        return -(flux_x[:, 1:] - flux_x[:, :-1] + flux_y[1:] - flux_y[:-1])

    numbers = np.arange(1, n)
    sines = jnp.asarray(np.sin(np.pi / n * np.outer(numbers, numbers)) * np.sqrt(2 / n), k.dtype)
    one = 4 * np.sin(np.pi * numbers / (2 * n)) ** 2
    eigenvalues = jnp.asarray(one[:, None] + one, k.dtype)
    inverse = lambda a: sines @ ((sines @ a @ sines) / eigenvalues) @ sines
    tolerance = float(np.sqrt(jnp.finfo(k.dtype).eps)) * 1e-2
    rhs = jnp.full((n - 1, n - 1), 1 / n**2, k.dtype)
    u, _ = jax.scipy.sparse.linalg.cg(operator, rhs, M=inverse, tol=tolerance, maxiter=500)
    return jnp.pad(u, 1)
