"""Pairs of flows: random states on any grid, the same at every resolution, and what our solver makes of them."""

import math
from collections.abc import Callable, Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float

from hybridgcm.equations import QuasiGeostrophic
from hybridgcm.grids import AbstractGrid, Sphere, Torus
from hybridgcm.grids.base import scale
from hybridgcm.models import AbstractModel, Model, count_steps
from hybridgcm.rollout import rollout
from hybridgcm.steppers import ETDRK4

VARIANCE = 7**1.5
"""Factor of Li et al.'s covariance as their paper prints it; the random fields of their code have 7³."""


def gaussian(
    grid: AbstractGrid,
    samples: int,
    key: Array,
    *,
    largest: int,
    variance: Callable[[np.ndarray], np.ndarray],
    fields: int = 1,
) -> Float[Array, "sample field y x"]:
    """Gaussian fields of zero mean on the points of `grid`: Σ √C(−λ) ξ e over the modes e of ∇², ξ ~ N(0, 1).

    e are real, with area mean of e² one, so that statistics are the same everywhere (on a sphere: under every
    rotation); `variance` is C, a function of the negative eigenvalues, m⁻². `largest` is the largest total degree on a
    `Sphere`, on a `Torus` the largest wave number in units of the longer side's. The same key gives the same fields on
    every grid that resolves it: the numbers are drawn for the modes, not for the points.
    Raises `ValueError` if `grid` does not resolve them all.
    """
    own, limit = _smallest(grid, largest)
    size = np.sqrt(_inside(own, limit) * variance(-np.asarray(own.eigenvalues, float)))

    return _drawn(own, grid, jnp.asarray(size, own.dtype), jr.split(key, samples), fields)


def shallow_water(
    model: AbstractModel,
    samples: int,
    key: Array,
    *,
    largest: int = 10,
    lead: float = 3600.0,
    mach: float = 0.2,
    thickness: float = 0.012,
) -> dict[str, np.ndarray]:
    """Pairs of rotating shallow water: `phi0`, `zeta0`, `delta0`, and `phi`, `zeta`, `delta` the `lead` (s) later.

    `model`: a `Model` of `ShallowWater` on any grid; its stepper and time step are the truth's, to be converged. The
    starts are Gaussian, all modes up to `largest` (see `gaussian`) of equal variance and nothing beyond: the same key
    gives the same starts at every resolution, so that pairs on two grids are one operator's. Root mean squares are
    `thickness` · `mean` for φ and `mach` · √mean/a for ζ and δ, a the radius or, on a torus, its longer side over 2π.
    Units as in `ShallowWater`, each `[sample, layer, y, x]`; the mean of φ stays zero.

    After the random states of torch-harmonics' and neuraloperator's spherical data (Bonev et al. 2023,
    arXiv:2306.03838): mach .2, and 120 m of 10 km. Theirs reach up to the truncation of each grid, so that finer grids
    have other statistics, and are divided by the variance of 80 or 120 degrees: at 32 by 64 points, with 11 degrees,
    they have a seventh to an eleventh of these amplitudes and are nearly linear.

    Raises `ValueError` for a lead that is no whole number of steps, and if the grid does not resolve the starts.
    """
    equation, steps = model.equation, count_steps(model, lead)
    grid, layers = equation.grid, equation.layers
    own, limit = _smallest(grid, largest)
    each = 1 / float((np.asarray(own.multiplicity) * _inside(own, limit)).sum())
    mean = np.asarray(equation.mean, float)[:, None, None, None]
    length = grid.radius if isinstance(grid, Sphere) else max(grid.length) / (2 * np.pi)
    speed = mach * np.sqrt(mean) / length
    size = np.concatenate([thickness * mean, speed, speed], 1)  # [layer, name, 1, 1]
    flat = lambda eigenvalue: np.full(eigenvalue.shape, each)
    white = gaussian(grid, samples, key, largest=largest, variance=flat, fields=3 * layers)
    starts = jnp.asarray(size, grid.dtype) * white.reshape(samples, layers, 3, *grid.shape)
    starts = {name: starts[:, :, i] for i, name in enumerate(("phi", "zeta", "delta"))}
    ends = _records(model, starts, steps, steps)
    out = {f"{name}0": a for name, a in starts.items()} | {name: ends[name][:, 0] for name in starts}
    return {name: np.asarray(a) for name, a in out.items()}


def navier_stokes(
    n: int,
    samples: int,
    key: Array,
    *,
    viscosity: float = 1e-3,
    times: Sequence[float | int] = tuple(range(1, 51)),
    dt: float = 0.01,
    largest: int = 21,
    variance: float = VARIANCE,
    refine: int = 1,
) -> dict[str, np.ndarray]:
    """Pairs of two-dimensional Navier–Stokes flow on the unit torus: the vorticity `zeta0`, and `zeta` at `times`.

    ∂ζ/∂t + u·∇ζ = ν ∇²ζ + .1 (sin 2π(x + y) + cos 2π(x + y)), `[sample, 1, y, x]` and `[sample, time, y, x]`, points
    i/n. ζ0 ~ N(0, `variance` (−∇² + 49)^(−5/2)) without mean and without wave numbers beyond `largest`, the same at
    every resolution. Solved by `ETDRK4` with steps of `dt` and the modes below a third of `refine`·n points, of which
    every `refine`-th is kept. Li et al. (2021), arXiv:2010.08895, section 5.3, who solve on 256² points with
    Crank and Nicolson's scheme, dt = 1e-4, at viscosities 1e-3, 1e-4 and 1e-5.

    Raises `ValueError` for times that are no whole numbers of steps and growing, and if the grid, a third of its
    points, does not resolve `largest`.
    """
    if refine < 1:
        raise ValueError(f"refine is at least 1; got {refine}")
    grid = Torus(refine * n, 1.0, dtype=jnp.zeros(0).dtype)
    model = Model(QuasiGeostrophic.navier_stokes(grid, viscosity=viscosity), ETDRK4(), dt=dt, forcing=_stirring)
    counts = [count_steps(model, time) for time in times]
    if not counts or np.any(np.diff([0, *counts]) <= 0):
        raise ValueError(f"times are positive and grow; got {tuple(times)}")
    covariance = lambda eigenvalue: variance * (eigenvalue + 49) ** -2.5
    starts = gaussian(grid, samples, key, largest=largest, variance=covariance)
    every = math.gcd(*counts)
    wanted = np.array(counts) // every - 1
    found = _records(model, {"q": starts}, counts[-1], every)["q"][:, wanted, 0]
    return {name: np.asarray(a[..., ::refine, ::refine]) for name, a in (("zeta0", starts), ("zeta", found))}


def _stirring(t, grid: Torus) -> dict[str, Array]:
    phase = 2 * np.pi * (grid.x[None, :] + grid.y[:, None])
    return {"q": jnp.asarray(0.1 * (np.sin(phase) + np.cos(phase))[None], grid.dtype)}


@eqx.filter_jit
def _drawn(own: AbstractGrid, grid: AbstractGrid, size: Array, keys: Array, fields: int) -> Array:
    """Fields `[sample, field, y, x]` on `grid` whose modes on `own` have standard deviations `size`."""

    def one(key):  # white noise on the points of an exact quadrature is white in its modes, whatever they look like
        white = own.to_spectral(jr.normal(key, (fields, *own.shape), own.dtype) / jnp.sqrt(own.weights))
        return grid.to_grid(own.resize(scale(size, white), grid))

    return jax.lax.map(one, keys)


@eqx.filter_jit
def _records(model: AbstractModel, starts: dict[str, Array], steps: int, every: int) -> dict[str, Array]:
    """Fields `[sample, record, layer, y, x]` after every `every` steps, one sample after the other."""
    save = lambda model, state: model.decode(state)
    one = lambda fields: rollout(model, model.encode(fields), steps, every=every, save=save)[1]["save"]
    return jax.lax.map(one, starts)


def _smallest(grid: AbstractGrid, largest: int) -> tuple[AbstractGrid, float]:
    """A grid that just holds the modes up to `largest`, and their largest negative eigenvalue, m⁻²."""
    if largest < 1:
        raise ValueError(f"largest is the largest degree or wave number of the starts, at least 1; got {largest}")
    if isinstance(grid, Sphere):
        own, limit = Sphere(largest, grid.radius, "linear", grid.dtype), largest * (largest + 1) / grid.radius**2
    else:
        own = Torus(2 * largest + 2, grid.length, dealias=None, dtype=grid.dtype)
        limit = (2 * np.pi * largest / max(grid.length)) ** 2
    count = lambda g: int((np.asarray(g.multiplicity) * _inside(g, limit)).sum())
    if count(grid) != count(own):
        raise ValueError(
            f"starts have {count(own)} modes up to {largest}, of which the grid {grid.shape} resolves "
            f"{count(grid)}: take a smaller largest, or a finer grid"
        )
    return own, limit


def _inside(grid: AbstractGrid, limit: float) -> np.ndarray:
    """One for the modes with negative eigenvalues up to the limit, but for the mean, else zero."""
    negative = -np.asarray(grid.eigenvalues, float)
    return ((negative > 0) & (negative <= limit * (1 + 1e-5))).astype(float)
