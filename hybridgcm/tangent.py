"""What grows: leading singular vectors and Lyapunov vectors of any model, in a norm that is a function."""

from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float

from hybridgcm._typing import Fields, without_time
from hybridgcm.ensemble import started
from hybridgcm.equations import AbstractEquation, QuasiGeostrophic
from hybridgcm.grids.base import scale as times
from hybridgcm.models import AbstractModel, State, count_steps
from hybridgcm.rollout import rollout

Norm = Callable[[AbstractModel, Fields], tuple[Callable[[Fields], Array], Callable[[Array], Fields]]]
"""norm(model, like): the linear map from fields to coordinates `[n]` whose sum of squares is the norm's, and back."""


def l2(scale: float | Mapping[str, Any] = 1.0) -> Norm:
    """‖x‖² = Σ over names of the mean over area and layers of (x/scale)²: for one field, its root mean square.

    `scale`: one number, or {name: number or one per layer}, which several prognostics need, as their units differ.
    Raises `ValueError` for a scale that is not positive, and for one number where there are several prognostics.
    """
    plain = lambda a: tuple(float(x) for x in np.atleast_1d(a))  # hashable: compiled once for equal scales
    table = {name: plain(a) for name, a in scale.items()} if isinstance(scale, Mapping) else plain(scale)
    if not all(x > 0 for row in (table.values() if isinstance(table, dict) else [table]) for x in row):
        raise ValueError(f"scales are positive, in the units of the fields; got {scale}")
    return eqx.Partial(_l2, table)


def energy(equation: AbstractEquation) -> Norm:
    """‖q‖² = −½ Σᵢ hᵢ ⟨ψᵢ qᵢ⟩, the energy of a difference of quasi-geostrophic states, m² s⁻².

    Per mode it is q̂* A q̂ with a matrix over the layers, A = C Cᵀ; the coordinates are Cᵀ q̂. The mean over the area is
    left out. Raises `ValueError` for another equation.
    """
    if not isinstance(equation, QuasiGeostrophic):
        raise ValueError(f"energy is that of QuasiGeostrophic flow; got {type(equation).__name__}: use l2 with scales")
    grid, thickness = equation.grid, np.asarray(equation.thickness, float)
    many, inverse = np.asarray(grid.multiplicity, float), np.asarray(equation.inverse, float)
    A = -thickness[:, None, None, None] * inverse / 2
    A = np.moveaxis((A + A.swapaxes(0, 1)) / 2, (0, 1), (-2, -1)) * many[..., None, None]  # [l, k, layer, layer]
    held = ((many > 0) & (np.asarray(grid.eigenvalues) < 0))[..., None, None]
    safe = np.where(held, A, np.eye(len(thickness)))
    C = np.linalg.cholesky(safe).swapaxes(-1, -2)
    put = lambda a: jnp.asarray(np.moveaxis(np.where(held, a, 0), (-2, -1), (0, 1)), grid.eigenvalues.dtype)
    return eqx.Partial(_energy, grid, put(C), put(np.linalg.inv(C)))


def restarted(model: AbstractModel, state: State, fields: Fields) -> State:
    """The state of other prognostics at the moment of `state`: as encoded, with its step and key."""
    return started(model, fields, state.step, state.key)


def singular_vectors(
    model: AbstractModel,
    state: State,
    steps: int,
    *,
    count: int = 1,
    norm: Norm | None = None,
    final: Norm | None = None,
) -> tuple[np.ndarray, Fields]:
    """(values, vectors): the `count` small changes of a state that grow most over `steps` steps, and by how much.

    Leading singular values, largest first, and right singular vectors of the tangent linear model M from the state's
    prognostics to those after a forecast: eigenvectors of M* M, with `norm` at the start and `final` (by default the
    same) at the end. Vectors are fields `[count, layer, y, x]`, orthonormal in `norm`, the largest value of each
    positive. ARPACK's implicitly restarted Lanczos method on Jacobian-vector products forward and back through
    `rollout`: some 2·count + 20 of them. Memory is that of a gradient with about √steps states kept.
    Palmer, Gelaro, Barkmeijer and Buizza (1998), doi:10.1175/1520-0469(1998)055<0633:SVMAAO>2.0.CO;2.
    Raises `ValueError` for a count that leaves ARPACK no room.
    """
    from scipy.sparse.linalg import LinearOperator, eigsh

    norm = norm or l2()
    base = model.decode(state)
    weigh, unweigh = norm(model, base)
    start = weigh(base)
    if not 1 <= count < start.size - 1:
        raise ValueError(f"count is the number of vectors, from 1 to {start.size - 2} here; got {count}")
    apply = lambda z: np.asarray(_normal(model, state, jnp.asarray(z.ravel(), start.dtype), steps, norm, final or norm))
    operator = LinearOperator((start.size, start.size), matvec=apply, dtype=np.dtype(start.dtype))
    first = np.random.default_rng(0).standard_normal(start.size).astype(start.dtype)
    some = min(start.size, 2 * count + 20)
    tolerance = float(jnp.finfo(start.dtype).eps) ** 0.5
    squares, z = eigsh(operator, k=count, v0=first, ncv=some, tol=tolerance)
    order = np.argsort(-squares)
    vectors = jax.vmap(unweigh)(jnp.asarray(z.T[order], start.dtype))
    sign = jax.vmap(lambda fields: _sign(fields, base))(vectors)
    vectors = {n: sign.reshape(-1, 1, 1, 1) * a for n, a in vectors.items()}
    return np.sqrt(np.maximum(squares[order], 0)), vectors


def lyapunov_vectors(
    model: AbstractModel,
    analyses: Mapping[str, Any],
    *,
    count: int = 1,
    norm: Norm | None = None,
    skip: int = 0,
    key: Array | None = None,
) -> tuple[np.ndarray, Fields]:
    """(exponents, vectors): mean growth rates of small changes along a trajectory, s⁻¹, and the changes at its end.

    `analyses`: the trajectory, fields `[cycle, layer, y, x]` and their `time`, s, equally spaced; each starts a
    forecast to the time of the next, whose tangent linear model carries `count` vectors, which are orthonormalised in
    `norm` by QR. The rates are means over the cycles after the first `skip`, over which the vectors turn from random
    ones (of `key`) to the backward Lyapunov vectors, `[count, layer, y, x]`, one spacing after the last analysis.
    Benettin, Galgani, Giorgilli and Strelcyn (1980), doi:10.1007/BF02128236; Kuptsov and Parlitz (2012),
    doi:10.1007/s00332-012-9126-5. Raises `ValueError` for times that are not equally spaced.
    """
    past, steps = trajectory(model, analyses)
    cycles = len(past[1])
    if not 0 <= skip < cycles:
        raise ValueError(f"skip={skip} leaves nothing of the {cycles} cycles to take the mean over")
    key = jr.key(0) if key is None else key
    logs, vectors = _lyapunov(model, past, key, steps, count, norm or l2())
    return np.asarray(logs[skip:].mean(0)) / (steps * model.dt), vectors


def trajectory(model: AbstractModel, analyses: Mapping[str, Any]) -> tuple[tuple[dict, Array], int]:
    """((fields `[cycle, layer, y, x]`, model steps at which they are valid), steps from one to the next)."""
    if "time" not in analyses:
        raise ValueError(f'analyses need their times: "time": [...], s, beside {sorted(analyses)}')
    time = np.asarray(analyses["time"])
    if time.dtype.kind not in "fiu" or time.ndim != 1 or len(time) < 2:
        raise ValueError(f"the times of analyses are two numbers or more, s; got {time!r}")
    at = np.array([count_steps(model, float(t)) for t in time])
    apart = set(np.diff(at).tolist())
    if len(apart) != 1 or min(apart) < 1:
        raise ValueError(f"analyses are equally spaced and increase; got {sorted(apart)} steps between them")
    fields = {n: jnp.asarray(np.asarray(a)) for n, a in without_time(analyses).items()}
    for name, a in fields.items():
        if a.ndim != 4 or len(a) != len(time):
            raise ValueError(f"analyses of {name} have shape {a.shape}, expected ({len(time)}, layer, y, x)")
    return (fields, jnp.asarray(at, jnp.int32)), apart.pop()


def flow(model: AbstractModel, state: State, steps: int, norm: Norm, final: Norm | None = None):
    """f(z): coordinates of the forecast after `steps` steps, in `final`, from `state` moved by z in `norm`."""
    base = model.decode(state)
    _, unweigh = norm(model, base)
    weigh, _ = (final or norm)(model, base)
    near = int(np.sqrt(steps))
    chunk = next(n for n in range(near, 0, -1) if steps % n == 0)

    def f(z):
        moved = {name: base[name] + change for name, change in unweigh(z).items()}
        end, _ = rollout(model, restarted(model, state, moved), steps, save=None, chunk=chunk)
        return weigh(model.decode(end))

    return f


@eqx.filter_jit
def _normal(model, state, z, steps, norm, final) -> Float[Array, " n"]:
    """M* M z."""
    f = flow(model, state, steps, norm, final)
    zero = jnp.zeros_like(z)
    _, moved = jax.jvp(f, (zero,), (z,))
    return jax.vjp(f, zero)[1](moved)[0]


@eqx.filter_jit
def _lyapunov(model, past, key, steps, count, norm):
    fields, at = past
    state_at = lambda a, step: _at(model, a, step, key)
    first = model.decode(state_at({n: a[0] for n, a in fields.items()}, at[0]))
    weigh, unweigh = norm(model, first)
    size = weigh(first)
    V = jr.normal(jr.fold_in(key, 1), (count, size.size), size.dtype)
    V = jax.vmap(lambda z: weigh(unweigh(z)))(V).T  # only what fields can hold

    def cycle(V, now):
        f = flow(model, state_at(*now), steps, norm)
        moved = jax.lax.map(lambda z: jax.jvp(f, (jnp.zeros_like(z),), (z,))[1], V.T)
        Q, R = jnp.linalg.qr(moved.T)
        return Q, jnp.log(jnp.abs(jnp.diagonal(R)))

    V, logs = jax.lax.scan(cycle, jnp.linalg.qr(V)[0], (fields, at))
    return logs, jax.vmap(unweigh)(V.T)


def _at(model, fields, step, key) -> State:
    state = model.encode(fields, key)
    return State(state.y, step, state.past, state.memory, state.key)


def _sign(fields: Fields, like: Fields):
    """Of the largest value of all fields, in units of each field's own spread."""
    flat = jnp.concatenate([(fields[n] / jnp.maximum(jnp.std(like[n]), 1e-30)).ravel() for n in sorted(fields)])
    return jnp.sign(flat[jnp.argmax(jnp.abs(flat))])


def _l2(scale, model, like: Fields):
    grid = getattr(getattr(model, "equation", model), "grid", None)
    if not isinstance(scale, dict) and len(like) > 1:
        raise ValueError(f"{sorted(like)} have different units: pass l2({{name: scale, ...}}) with one for each")
    factors, names = {}, sorted(like)
    for name, a in like.items():
        unit = jnp.asarray(scale[name] if isinstance(scale, dict) else scale, a.dtype).reshape(-1, 1, 1)
        weights = jnp.asarray(1 / (a.shape[-2] * a.shape[-1]) if grid is None else grid.weights, a.dtype)
        factors[name] = jnp.broadcast_to(jnp.sqrt(weights / len(a)) / unit, a.shape)
    ends = np.cumsum([like[name].size for name in names])[:-1]
    weigh = lambda fields: jnp.concatenate([(factors[name] * fields[name]).ravel() for name in names])

    def unweigh(z):
        parts = zip(names, jnp.split(z, ends), strict=True)
        return {name: part.reshape(like[name].shape) / factors[name] for name, part in parts}

    return weigh, unweigh


def _energy(grid, forward, back, model, like: Fields):
    if set(like) != {"q"}:
        raise ValueError(f"the energy is that of q alone; got {sorted(like)}: use l2 with scales")
    layers = range(len(forward))
    mix = lambda M, a: jnp.stack([sum(times(M[i, j], a[j]) for j in layers) for i in layers])

    def weigh(fields):
        a = mix(forward, grid.to_spectral(fields["q"]))
        return jnp.concatenate([a.real.ravel(), a.imag.ravel()])

    def unweigh(z):
        real, imaginary = (part.reshape(len(layers), *grid.spectral_shape) for part in jnp.split(z, 2))
        return {"q": grid.to_grid(mix(back, jax.lax.complex(real, imaginary)))}

    return weigh, unweigh
