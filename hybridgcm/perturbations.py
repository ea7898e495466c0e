"""Where the members of an ensemble start: noise, lagged analyses, bred, Lyapunov and singular vectors.

Each function returns `perturb(model, state, keys)`, what `forecast(perturb=...)` takes: the states of the members of
one start with a leading member axis, from that start's state and a key for each. A member depends on its own key alone.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array

from hybridgcm._typing import Numbers
from hybridgcm.ensemble import Perturb, grid_of, started
from hybridgcm.grids.base import scale as times
from hybridgcm.models import AbstractModel, State
from hybridgcm.parallel import fill, members
from hybridgcm.rollout import rollout
from hybridgcm.tangent import Norm, flow, l2, lyapunov_vectors, restarted, singular_vectors, trajectory

Amplitude = Numbers | Mapping[str, Any]
"""One number for the only prognostic, or {name: number or one per layer}, in the unit of the field."""


def each(function: Callable[[AbstractModel, State, Array], State]) -> Perturb:
    """`perturb` from a function (model, state, key) -> state of one member; members on all devices."""
    return lambda model, state, keys: _members(function, (model, state), keys)


def noise(
    amplitude: Amplitude,
    *,
    band: tuple[float, float] = (0.0, np.inf),
    spectrum: Callable[[np.ndarray], np.ndarray] = np.ones_like,
) -> Perturb:
    """Gaussian noise, isotropic and homogeneous, whose variance is amplitude² and has the `spectrum` asked for.

    `spectrum(kappa)`: variance per wavenumber κ = √−λ (rad m⁻¹), up to a factor, zero or positive, by default equal at
    all of them; only low <= κ <= high of the `band`, resolved, and without the mean of the area. White noise of the
    quadrature's own density times √(spectrum/κ) per mode, so that it is right on any grid. Variance is that over
    many members: one with few waves has more or less. Layers and fields are independent.
    Raises `ValueError` for a band without modes, a spectrum below zero, and an amplitude without unit.
    """

    def perturb(model, state, keys):
        factor = _isotropic(grid_of(model), band, spectrum)
        return _members(_noisy, (model, state, factor, _amplitudes(amplitude, model.decode(state))), keys)

    return perturb


def drawn(
    grid, *, band: tuple[float, float] = (0.0, np.inf), spectrum: Callable[[np.ndarray], np.ndarray] = np.ones_like
) -> Callable[..., Array]:
    """draw(key, shape, dtype): the noise of `noise`, of variance one, `[..., *grid.shape]`: for `train.perturbed`.

    Raises `ValueError` for a band without modes and a spectrum below zero.
    """
    factor = _isotropic(grid, band, spectrum)
    return lambda key, shape, dtype: _pattern(grid, jnp.asarray(factor, dtype), key, shape, dtype)


def lagged(analyses: Mapping[str, Any]) -> Perturb:
    """Member j is a forecast to the start from the analysis j spacings before it; member 0 is the analysis itself.

    `analyses`: fields `[time, layer, y, x]` with their `time`, s, equally spaced; the start's is among them, though
    its own fields are those of `starts`. Stepper and closure go on with their history. No random numbers.
    Hoffman and Kalnay (1983), doi:10.1111/j.1600-0870.1983.tb00189.x. Raises `ValueError` for too few analyses.
    """

    def perturb(model, state, keys):
        count = len(keys)
        if count == 1:
            return jax.tree.map(lambda a: a[None], state)
        (fields, at), steps = _before(model, analyses, state, count - 1)
        made = [state]
        for back in range(1, count):
            old = started(model, {n: a[-back] for n, a in fields.items()}, at[-back], state.key)
            for _ in range(back):
                old = _ahead(model, old, steps)
            made.append(old)
        return jax.tree.map(lambda *a: jnp.stack(a), *made)

    return perturb


def bred(
    analyses: Mapping[str, Any], amplitude: float, *, cycles: int | None = None, norm: Norm | None = None
) -> Perturb:
    """Bred vectors: differences of two forecasts from each analysis, grown and rescaled to `amplitude` cycle by cycle.

    d ← amplitude · (F(a + d) − F(a))/‖F(a + d) − F(a)‖, from the analysis a to the next, F a forecast, beginning with
    white noise of the member's key; the last d is added to the start. `analyses`: as in `lagged`, those before the
    start; the last `cycles` of them, all by default, and the spacing is the length of a cycle. `amplitude` is in the
    unit of `norm`, l2 by default: it should be far above rounding and, for vectors that grow as small ones do, far
    below the flow. After many cycles the members are alike where one direction outgrows all others.
    Toth and Kalnay (1997), doi:10.1175/1520-0493(1997)125<3297:EFANAT>2.0.CO;2.
    """

    def perturb(model, state, keys):
        past, steps = _before(model, analyses, state, cycles)
        return _members(_breed, (model, state, past, jnp.asarray(amplitude), steps, norm or l2()), keys)

    return perturb


def lyapunov(
    analyses: Mapping[str, Any],
    amplitude: float,
    *,
    count: int = 1,
    cycles: int | None = None,
    norm: Norm | None = None,
    key: Array | None = None,
) -> Perturb:
    """Random mixtures, of norm `amplitude`, of the `count` leading Lyapunov vectors at the start.

    From the `cycles` analyses before it, see `lyapunov_vectors` and `bred`; `key` begins the vectors, not the members.
    """

    def vectors(model, state):
        (fields, at), _ = _before(model, analyses, state, cycles)
        past = fields | {"time": np.asarray(at) * model.dt}
        return lyapunov_vectors(model, past, count=count, norm=norm, key=key)[1]

    return _mixtures(vectors, amplitude)


def singular(
    steps: int, amplitude: float, *, count: int = 1, norm: Norm | None = None, final: Norm | None = None
) -> Perturb:
    """Random mixtures, of norm `amplitude`, of the `count` vectors that grow most over `steps` steps from the start.

    See `singular_vectors`. Of all perturbations of this size no other grows more by then, in the linear model.
    """
    vectors = lambda model, state: singular_vectors(model, state, steps, count=count, norm=norm, final=final)[1]
    return _mixtures(vectors, amplitude)


def _mixtures(vectors_of, amplitude: float) -> Perturb:
    return lambda model, state, keys: _members(
        _mixed, (model, state, vectors_of(model, state), jnp.asarray(amplitude)), keys
    )


def _mixed(model, state: State, vectors, amplitude, key) -> State:
    """amplitude · Σ cᵢ vᵢ with c uniform on the sphere: vectors that are orthonormal keep their norm."""
    fields = model.decode(state)
    c = jr.normal(key, (len(next(iter(vectors.values()))),), next(iter(fields.values())).dtype)
    c = amplitude.astype(c.dtype) * c / jnp.linalg.norm(c)
    return restarted(model, state, {n: a + jnp.tensordot(c, vectors[n], 1) for n, a in fields.items()})


def _noisy(model, state: State, factor, amplitudes, key) -> State:
    grid, fields = grid_of(model), model.decode(state)
    moved = {}
    for number, (name, a) in enumerate(sorted(fields.items())):
        pattern = _pattern(grid, factor.astype(a.dtype), jr.fold_in(key, number), a.shape, a.dtype)
        moved[name] = a + amplitudes[name] * pattern
    return restarted(model, state, moved)


def _pattern(grid, factor, key, shape, dtype) -> Array:
    """Gaussian noise of the spectrum that `_isotropic` made a factor of."""
    white = jr.normal(key, shape, dtype) / jnp.sqrt(grid.weights).astype(dtype)
    return grid.to_grid(times(factor, grid.to_spectral(white)))


def _isotropic(grid, band, spectrum) -> np.ndarray:
    """Factor per mode that turns coefficients of variance one into a field of variance one with this spectrum."""
    many = np.asarray(grid.multiplicity, float)
    kappa = np.sqrt(np.maximum(-np.asarray(grid.eigenvalues, float), 0))
    low, high = band
    held = (many > 0) & (kappa > 0) & (kappa >= low) & (kappa <= high)
    if not held.any():
        some = kappa[(many > 0) & (kappa > 0)]
        raise ValueError(
            f"no mode has its wavenumber in {band} rad m-1; the grid has {some.min():.3g} to {some.max():.3g}"
        )
    at = np.where(held, kappa, 1.0)
    power = np.where(held, np.asarray(spectrum(at), float), 0) / at
    if not (np.isfinite(power).all() and (power >= 0).all() and power.any()):
        raise ValueError("spectrum(kappa) is the variance per wavenumber: finite, not negative, not zero everywhere")
    return np.sqrt(power / np.sum(many * power))


def _amplitudes(amplitude: Amplitude, fields: Mapping[str, Array]) -> dict[str, Array]:
    """{name: [layer or 1, 1, 1]}."""
    if not isinstance(amplitude, Mapping):
        if len(fields) > 1:
            raise ValueError(f"{sorted(fields)} have different units: pass an amplitude for each, {{name: number}}")
        amplitude = dict.fromkeys(fields, amplitude)
    unknown = sorted(set(amplitude) - set(fields))
    if unknown:
        raise ValueError(f"there is no {unknown[0]!r} to perturb; the model's prognostics are {sorted(fields)}")
    made = {}
    for name, a in fields.items():
        size = np.atleast_1d(np.asarray(amplitude.get(name, 0.0), float))
        if size.shape not in ((1,), (len(a),)) or not (np.isfinite(size) & (size >= 0)).all():
            raise ValueError(
                f"the amplitude of {name} is a number, or one for each of {len(a)} layers, zero or "
                f"positive; got {amplitude[name]!r}"
            )
        made[name] = jnp.asarray(size.reshape(-1, 1, 1), a.dtype)
    return made


def _before(model, analyses, state: State, cycles: int | None):
    """((fields, steps), spacing) of the last `cycles` analyses before the time of a state, all if None."""
    (fields, at), steps = trajectory(model, analyses)
    now, at = int(state.step), np.asarray(at)
    found = np.flatnonzero(at < now)
    if not len(found) or at[found[-1]] + steps != now or len(found) < (cycles or 1):
        raise ValueError(
            f"the start at {now * model.dt:g} s needs {cycles or 1} analyses before it, the last of them "
            f"{steps * model.dt:g} s before; there are {len(found)}, and analyses run from {at[0] * model.dt:g} s to "
            f"{at[-1] * model.dt:g} s"
        )
    kept = slice(found[-1] + 1 - (cycles or len(found)), found[-1] + 1)
    return ({n: a[kept] for n, a in fields.items()}, jnp.asarray(at[kept])), steps


def _breed(model, state: State, past, amplitude, steps: int, norm: Norm, key) -> State:
    fields, at = past
    weigh, unweigh = norm(model, model.decode(state))
    like = weigh(model.decode(state))
    sized = lambda z: z * (amplitude.astype(z.dtype) / jnp.linalg.norm(z))

    def cycle(z, now):
        a, step = now
        f = flow(model, started(model, a, step, state.key), steps, norm)
        return sized(f(z) - f(jnp.zeros_like(z))), None

    white = weigh(unweigh(jr.normal(key, like.shape, like.dtype)))
    z, _ = jax.lax.scan(cycle, sized(white), (fields, at))
    change = unweigh(z)
    return restarted(model, state, {n: a + change[n] for n, a in model.decode(state).items()})


@eqx.filter_jit
def _ahead(model, state, steps):
    return rollout(model, state, steps, every=steps, save=None)[0]


@functools.cache
def _runner(function):
    return members(lambda shared, key: function(*shared, key))


def _members(function, shared: tuple, keys) -> State:
    """function(*shared, key) of every key, on all devices whatever their number."""
    out = _runner(function)(shared, fill(keys, jax.local_device_count()))
    return jax.tree.map(lambda a: a[: len(keys)], out)
