"""A closure under guard: switched off smoothly where it has not learnt, at once where it goes mad."""

from collections.abc import Mapping

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from hybridgcm._typing import Fields
from hybridgcm.closures.base import AbstractClosure, layers_of, require
from hybridgcm.grids import AbstractGrid
from hybridgcm.grids.base import scale

_LARGE = 1e6
"""Where multiples of the training values are cut off: their squares stay finite in single precision."""


class FailSafe(AbstractClosure):
    """w × the forcing of `inner`, w from 1 (state and forcing are like those of the training) to 0 (they are not).

    - Input: z = |ln(s/mean)| mean/deviation for every statistic s: rms of each name of `inputs` and of its gradient,
      per layer. The logarithm makes a third as unusual as three times, and a flow at rest infinitely so. w falls from
      1 at z = `novelty[0]` to 0 at `novelty[1]`, by the worst of all.
    - Output: rms of each forcing, per layer, over its rms in training: w falls from 1 at `excess[0]` to 0 at
      `excess[1]`.
    - A value that is not finite, in the fields read here, the forcing or the new memory of `inner`: w = 0.

    w is judged in the step itself, so nothing mad is ever added to the flow, and returns to 1 by itself once the state
    does. At w = 0 the forcing is exactly zero and so are the derivatives through `inner`, whatever they would be (no
    NaN × 0). An array of `inner`'s memory that is not finite keeps its last value.
    Memory, to be read after the run: `calls` so far, `events` (calls with w < 1), `first` (the first of them, counted
    from 0, −1 if none), `weight` (last w), `inner`.

    `inputs`: {name: (mean, deviation)}, each `[2][layer]`, rms then gradient, in units of the field and per metre;
    `outputs`: {forcing: rms per layer}. `from_data` takes them from training data. They are settings, not trained.
    One transform of every input; `inner` is evaluated once, under derivatives twice.
    A closure that is slightly wrong all the time is found only by where it drives the state.

    Novelty detection with a taper: Sanford et al. (2022), arXiv:2211.13354.
    Raises `ValueError` for unknown names, numbers that do not match the layers, and thresholds that do not grow.
    """

    inner: AbstractClosure
    inputs: tuple = eqx.field(static=True)
    outputs: tuple = eqx.field(static=True)
    novelty: tuple[float, float] = eqx.field(static=True)
    excess: tuple[float, float] = eqx.field(static=True)

    def __init__(self, inner: AbstractClosure, inputs: Mapping, outputs: Mapping, *, novelty=(6, 12), excess=(4, 8)):
        for name, pair in {"novelty": novelty, "excess": excess}.items():
            if not (len(pair) == 2 and 0 < pair[0] < pair[1] < _LARGE):
                raise ValueError(f"{name} is (where w starts to fall, where it is zero), growing; got {pair}")
        self.inner = inner
        self.inputs = tuple((name, *_pair(name, *statistics)) for name, statistics in inputs.items())
        self.outputs = tuple((name, _positive(name, rms)) for name, rms in outputs.items())
        self.novelty, self.excess = tuple(map(float, novelty)), tuple(map(float, excess))

    @classmethod
    def from_data(cls, inner: AbstractClosure, inputs: Mapping, outputs: Mapping, grid: AbstractGrid, **thresholds):
        """Closure with the statistics of training data `[sample, layer, y, x]` on `grid`, by field and forcing name.

        Deviations are those between samples, but at least a tenth of the mean: samples of one statistically steady run
        differ by less than what a healthy run may do. Raises `ValueError` for other than four axes and fewer than two
        samples.
        """
        found = {}
        for name, a in inputs.items():
            _check_samples(name, a)
            samples = np.stack([_measured(np.asarray(one), grid) for one in a])
            mean = samples.mean(0)
            found[name] = (mean, np.maximum(samples.std(0), 0.1 * mean))
        rms = {}
        for name, a in outputs.items():
            _check_samples(name, a)
            rms[name] = np.sqrt(np.mean([np.mean(np.asarray(one, float) ** 2, (-2, -1)) for one in a], 0))
        return cls(inner, found, rms, **thresholds)

    def init(self, fields, grid):
        require("FailSafe", [name for name, *_ in self.inputs], fields)
        layers = layers_of(fields)
        sizes = {name: np.shape(mean)[1] for name, mean, _ in self.inputs}
        sizes |= {f"forcing {name}": len(rms) for name, rms in self.outputs}
        if wrong := {name: n for name, n in sizes.items() if n != layers}:
            raise ValueError(f"FailSafe has statistics for {wrong} layers, the fields have {layers}")
        count = lambda n: jnp.full((), n, jnp.int32)
        weight = jnp.ones((), grid.eigenvalues.dtype)
        inner = self.inner.init(fields, grid)
        return {"inner": inner, "calls": count(0), "events": count(0), "first": count(-1), "weight": weight}

    def __call__(self, fields, grid, memory, key):
        forcing, inner, weight = _evaluate(self, fields, grid, memory["inner"], key)
        tapered = weight < 1
        first = jnp.where(tapered & (memory["first"] < 0), memory["calls"], memory["first"])
        return forcing, {
            "inner": inner,
            "calls": memory["calls"] + 1,
            "events": memory["events"] + tapered,
            "first": first,
            "weight": jax.lax.stop_gradient(weight),
        }

    def _weight(self, fields: Fields, forcing: Fields, grid: AbstractGrid) -> Float[Array, ""]:
        """w; zero where it cannot be judged."""
        weights = []
        for name, mean, deviation in self.inputs:
            unit, spread = (jnp.asarray(s, fields[name].dtype) for s in (mean, np.divide(deviation, mean)))
            z = jnp.abs(jnp.log(_rms_and_slope(fields[name], grid, unit))) / spread
            weights.append(_taper(z, self.novelty))
        known = dict(self.outputs)
        for name, f in forcing.items():
            base = name.removesuffix("_hat")
            if base not in known:
                raise ValueError(f"FailSafe has the rms of {sorted(known)}, but its closure forces {name!r}")
            unit = jnp.asarray(known[base], jnp.finfo(f.dtype).dtype)
            weights.append(_taper(_rms(f, grid, unit), self.excess))
        w = jnp.min(jnp.concatenate(weights))
        return jnp.where(jnp.isfinite(w), w, 0)


def _guarded(closure: FailSafe, fields: Fields, grid: AbstractGrid, memory, key):
    """Tapered forcing, memory of `inner` without what is not finite, and w."""
    forcing, new = closure.inner(fields, grid, memory, key)
    fine = _finite(new) & _finite(forcing)
    weight = jnp.where(fine, closure._weight(fields, forcing, grid), 0)
    tapered = lambda f: scale(weight, f) if jnp.iscomplexobj(f) else weight * f
    forcing = {name: jnp.where(weight > 0, tapered(f), 0) for name, f in forcing.items()}
    return forcing, jax.tree.map(lambda a, old: jnp.where(_finite(a), a, old), new, memory), weight


_evaluate = eqx.filter_custom_jvp(_guarded)


@_evaluate.def_jvp
def _derivative(primals, tangents):
    """Tangents that are cut before and after `inner` where w = 0: selected, not multiplied, so a NaN inside is dropped.

    Only here is `inner` evaluated twice, first to know w. The transpose cuts at the same two places.
    """
    out = _guarded(*primals)
    cut = lambda tree: jax.tree.map(lambda a: jnp.where(out[2] > 0, a, 0), tree)
    _, moved = eqx.filter_jvp(_guarded, primals, cut(tangents))
    return out, cut(moved)


def _rms_and_slope(a: Array, grid: AbstractGrid, unit: Array) -> Float[Array, "2 layer"]:
    """Rms and rms of the gradient per layer, as multiples of `unit` `[2, layer]`, by which a is divided first."""
    a_hat = grid.to_spectral(jnp.clip(a / unit[0][:, None, None], -_LARGE, _LARGE))
    waves = -grid.eigenvalues * ((unit[0] / unit[1]) ** 2)[:, None, None]
    density = grid.cospectrum(a_hat, a_hat)
    return _root(jnp.stack([jnp.sum(density, (-2, -1)), jnp.sum(waves * density, (-2, -1))]))


def _measured(a: np.ndarray, grid: AbstractGrid) -> np.ndarray:
    """The same in units of the field and per metre, in double precision."""
    size = np.abs(a).max((-2, -1))
    unit = np.stack([size, size / float(grid.spacing)])
    dtype = grid.eigenvalues.dtype
    return unit * np.asarray(_rms_and_slope(jnp.asarray(a, dtype), grid, jnp.asarray(unit, dtype)), float)


def _rms(f: Array, grid: AbstractGrid, unit: Array) -> Float[Array, " layer"]:
    """Rms of a forcing on the grid or spectral, as multiples of `unit` `[layer]`."""
    clip = lambda part: jnp.clip(part / unit[:, None, None], -_LARGE, _LARGE)
    if jnp.iscomplexobj(f):
        f = jax.lax.complex(clip(f.real), clip(f.imag))
        return _root(grid.inner(f, f))
    return _root(grid.mean(clip(f) ** 2))


def _root(square: Array) -> Array:
    """√square with a zero, not infinite, derivative at zero."""
    return jnp.sqrt(jnp.maximum(square, jnp.finfo(square.dtype).tiny))


def _taper(z: Array, thresholds: tuple[float, float]) -> Float[Array, " n"]:
    """1 up to the first threshold, 0 from the second, with a continuous derivative."""
    low, high = thresholds
    t = jnp.clip((high - z) / (high - low), 0, 1).ravel()
    return t**2 * (3 - 2 * t)


def _finite(tree) -> Array:
    """Whether every number in a tree is finite."""
    parts = [jnp.isfinite(a).all() for a in jax.tree.leaves(tree) if eqx.is_inexact_array(a)]
    return jnp.stack(parts).all() if parts else jnp.array(True)


def _positive(name: str, numbers) -> tuple:
    """Numbers as nested tuples, which are hashable and so can be settings."""
    a = np.atleast_1d(np.asarray(numbers, float))
    if not (np.isfinite(a).all() and (a > 0).all()):
        raise ValueError(f"the statistics of {name} are positive and finite; got {a.tolist()}")
    return tuple(a.tolist()) if a.ndim == 1 else tuple(map(tuple, a.tolist()))


def _pair(name: str, mean, deviation) -> tuple[tuple, tuple]:
    shapes = np.shape(mean), np.shape(deviation)
    if shapes[0] != shapes[1] or len(shapes[0]) != 2 or shapes[0][0] != 2:
        raise ValueError(
            f"{name} needs its mean and deviation, each [2, layer], rms then rms of the gradient; got shapes {shapes}"
        )
    return _positive(name, mean), _positive(name, deviation)


def _check_samples(name: str, a):
    if np.ndim(a) != 4 or np.shape(a)[0] < 2:
        raise ValueError(f"{name} has shape {np.shape(a)}, expected [sample, layer, y, x] with at least two samples")
