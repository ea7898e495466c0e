"""Pairs that operator learning is tried on: Darcy flow and Burgers' equation, read from public files or made.

Pairs are {name: [sample, layer, y, x]}, as `batches.samples` draws from and `train.supervised` takes.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from hybridgcm._typing import nearest
from hybridgcm.data import check_finite

PERMEABILITY = (0.0199, 0.367)
"""Of the public Darcy file where its coefficient is 0 and 1, with a forcing of one: fitted to it, told nowhere."""
TIMES = np.linspace(0.0, 0.96, 17)
"""Of the public Burgers file: with these and viscosity .01 the exact solution differs from it by 1.4e-4."""


def read_darcy(path) -> dict[str, dict[str, np.ndarray]]:
    """{"train", "test16", "test32"}: pairs of the coefficient `a`, 0 or 1, and the pressure `u`, points i/n.

    Reads variables a_train, u_train, a_test16... `[sample, y, x]` of a netCDF file. Raises `ValueError` for a variable
    that is missing, shapes that do not pair, values that are missing or not finite, and coefficients besides 0 and 1.
    """
    out = {}
    for part in ("train", "test16", "test32"):
        fields = _read(path, {"a": f"a_{part}", "u": f"u_{part}"})
        a, u = fields["a"], fields["u"]
        if a.ndim != 3 or a.shape != u.shape or a.shape[1] != a.shape[2]:
            raise ValueError(f"{path}: a_{part} and u_{part} are [sample, n, n] alike; got {a.shape} and {u.shape}")
        if not np.isin(a, (0, 1)).all():
            raise ValueError(f"{path}: a_{part} is 0 or 1; got values such as {a[~np.isin(a, (0, 1))][0]}")
        out[part] = {name: field[:, None] for name, field in fields.items()}
    return out


def read_burgers(path) -> dict[str, dict[str, np.ndarray]]:
    """{"train", "test"}: pairs of the initial `u0`, the same at all times, and the solution `u`, both
    `[sample, 1, time, x]`.

    Reads u0_train `[sample, x]`, u_train `[sample, time, x]` and the same of test. Raises `ValueError` as `read_darcy`,
    and if a solution does not begin with its initial values.
    """
    out = {}
    for part in ("train", "test"):
        fields = _read(path, {"u0": f"u0_{part}", "u": f"u_{part}"})
        u0, u = fields["u0"], fields["u"]
        if u.ndim != 3 or u0.shape != (len(u), u.shape[2]):
            expected = "[sample, x] and [sample, time, x]"
            raise ValueError(f"{path}: u0_{part} and u_{part} are {expected}; got {u0.shape} and {u.shape}")
        if np.abs(u[:, 0] - u0).max() > 1e-5 * np.abs(u0).max():
            raise ValueError(f"{path}: u_{part} does not begin with u0_{part}; its first time is another")
        out[part] = _spread(u0, u)
    return out


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


def burgers(
    n: int, samples: int, key: Array, *, times: Sequence[float] = tuple(TIMES), viscosity: float = 0.01
) -> dict[str, np.ndarray]:
    """Pairs of Burgers' equation, u_t + u u_x = ν u_xx on the unit circle: `u0`, the same at all times, and `u`.

    `[sample, 1, time, x]`, exact. u0 is Gaussian with covariance 25⁴(−∂²/∂x² + 25)⁻⁴ and zero mean, as in the
    public file as far as its spectrum tells.
    """
    points = max(n, 256)
    numbers = jnp.arange(1, points // 2)
    size = 625 / (4 * np.pi**2 * numbers**2 + 25.0) ** 2

    def one(key):
        noise = jr.normal(key, (2, len(numbers))) * size / np.sqrt(2)
        u0_hat = jnp.pad(jax.lax.complex(noise[0], noise[1]), 1)
        u0 = jnp.fft.irfft(u0_hat, points, norm="forward")
        return u0, solve_burgers(u0, jnp.asarray(times, u0.dtype), viscosity)

    if points % n:
        raise ValueError(f"n is a divisor of {points}, the points that solutions are made on; got {n}")
    u0, u = jax.lax.map(one, jr.split(key, samples))
    return _spread(np.asarray(u0)[:, :: points // n], np.asarray(u)[..., :: points // n])


@jax.jit
def solve_burgers(u0: Float[Array, " x"], times: Float[Array, " time"], viscosity: ArrayLike) -> Float[Array, "time x"]:
    """u at `times` of u_t + u u_x = ν u_xx on the unit circle, from u0 at the points i/n.

    Exact for what n points resolve, by the transform of Hopf (1950), doi:10.1002/cpa.3160030302, and Cole (1951): in
    the frame of the mean, u = −2ν θ_x/θ with θ = exp(−∫u0 dx/2ν) diffusing. θ spans exp(range of ∫u0/2ν): give enough
    points for it, and double precision where that is large.
    """
    n = u0.shape[-1]
    k = 2 * np.pi * np.arange(n // 2 + 1)
    slope = np.where(np.arange(n // 2 + 1) * 2 == n, 0, k)  # an odd derivative of the Nyquist mode is zero
    u_hat = jnp.fft.rfft(u0, norm="forward")
    integral = jnp.where(slope == 0, 0, u_hat / (1j * np.where(slope == 0, 1, slope)))
    potential = jnp.fft.irfft(integral, n, norm="forward") / (2 * viscosity)
    theta_hat = jnp.fft.rfft(jnp.exp(jnp.min(potential) - potential), norm="forward")

    def at(time):
        moved = theta_hat * jnp.exp(-viscosity * k**2 * time - 1j * k * u_hat[0].real * time)
        theta, theta_x = (jnp.fft.irfft(a, n, norm="forward") for a in (moved, 1j * slope * moved))
        return u_hat[0].real - 2 * viscosity * theta_x / theta

    return jax.vmap(at)(times)


def _read(path, names: Mapping[str, str]) -> dict[str, np.ndarray]:
    import xarray as xr

    if not Path(path).is_file():
        raise FileNotFoundError(f"{path} is not there; without files, `pairs.darcy` and `pairs.burgers` make pairs")
    out = {}
    with xr.open_dataset(path) as data:
        for name, stored in names.items():
            if stored not in data:
                there = [str(variable) for variable in data.data_vars]
                raise ValueError(f"{path} has no {stored}, only {there}{nearest(stored, there)}")
            out[name] = np.asarray(data[stored].values, np.float32)
            check_finite(f"{path}: {stored}", out[name])
            if len(out[name]) != len(out[next(iter(out))]):
                raise ValueError(f"{path}: {list(names.values())} differ in length; pairs go sample by sample")
    return out


def _spread(u0: np.ndarray, u: np.ndarray) -> dict[str, np.ndarray]:
    return {"u0": np.repeat(u0[:, None, None], u.shape[1], 2), "u": u[:, None]}


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
