"""The one closure interface, and closures made of closures."""

import abc
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array

from hybridgcm._typing import Fields, cast_floats, nearest, param
from hybridgcm.grids import AbstractGrid, Sphere


class AbstractClosure(eqx.Module):
    """Named forcings from named resolved fields: `forcing, memory = closure(fields, grid, memory, key)`.

    `fields` are what the equation's `view` gives, `[layer, y, x]`. A forcing is a tendency: the equation adds
    it to its right-hand side. Closures without memory return it untouched; deterministic ones ignore `key`. One that
    has a `dt` (s), for noise or a clock, is checked against the time step of the model.
    """

    @abc.abstractmethod
    def init(self, fields: Fields, grid: AbstractGrid) -> Any:
        """Memory before the first step; `None` for a closure without."""

    @abc.abstractmethod
    def __call__(self, fields: Fields, grid: AbstractGrid, memory: Any, key: Array) -> tuple[Fields, Any]:
        """Forcing and new memory. `key` is fresh at every step."""


class Sum(AbstractClosure):
    """Σ closures; forcings of the same name add up, memories stay apart, every part gets its own key."""

    parts: tuple[AbstractClosure, ...]

    def __init__(self, *parts: AbstractClosure):
        self.parts = parts

    def init(self, fields, grid):
        return tuple(part.init(fields, grid) for part in self.parts)

    def __call__(self, fields, grid, memory, key):
        total, memories = {}, []
        for part, inner, subkey in zip(self.parts, memory, jr.split(key, len(self.parts)), strict=True):
            forcing, inner = part(fields, grid, inner, subkey)
            total |= {name: total[name] + f if name in total else f for name, f in forcing.items()}
            memories.append(inner)
        return total, tuple(memories)


class Scaled(AbstractClosure):
    """amplitude × closure, a dimensionless trainable scalar: the one-parameter online calibration."""

    inner: AbstractClosure
    amplitude: Array = param(default=1.0)

    def init(self, fields, grid):
        return self.inner.init(fields, grid)

    def __call__(self, fields, grid, memory, key):
        forcing, memory = self.inner(fields, grid, memory, key)
        return {name: self.amplitude * f for name, f in forcing.items()}, memory


class Every(AbstractClosure):
    """`inner` at every `n`-th step, from the first on; its forcing is held in between, its memory advances only then.

    For closures that are dearer than the step, or that mean an interval, as increments of an assimilation do. First
    order in n·dt. Under `vmap` XLA evaluates `inner` at every step all the same. Raises `ValueError` for n < 1.
    """

    inner: AbstractClosure
    n: int = eqx.field(static=True)

    def __check_init__(self):
        if self.n < 1:
            raise ValueError(f"Every needs a whole number of steps, at least 1; got n={self.n}")

    def init(self, fields, grid):
        memory = self.inner.init(fields, grid)
        made = eqx.filter_eval_shape(lambda: self.inner(fields, grid, memory, jr.key(0))[0])
        held = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), made)
        return {"count": jnp.zeros((), jnp.int32), "forcing": held, "inner": memory}

    def __call__(self, fields, grid, memory, key):
        forcing, inner = jax.lax.cond(
            memory["count"] == 0,
            lambda: self.inner(fields, grid, memory["inner"], key),
            lambda: (memory["forcing"], memory["inner"]),
        )
        return forcing, {"count": (memory["count"] + 1) % self.n, "forcing": forcing, "inner": inner}


class Cast(AbstractClosure):
    """`inner` computed in another floating-point type, its forcing and memory brought back to the model's.

    `dtype`, such as `jnp.bfloat16` for a network on a GPU, applies to the fields that it reads and to its weights,
    which are stored in the model's precision. FFTs know single and double precision only: a closure that transforms
    cannot be cast below; networks with transforms in them can. See `nn.MixedPrecision`, which leaves scales alone.
    """

    inner: AbstractClosure
    dtype: np.dtype = eqx.field(static=True, converter=jnp.dtype)

    def init(self, fields, grid):
        return self.inner.init(fields, grid)

    def __call__(self, fields, grid, memory, key):
        own = next(iter(fields.values())).dtype
        low = lambda tree: cast_floats(tree, self.dtype)
        forcing, new = low(self.inner)(low(fields), grid, low(memory), key)
        back = {name: f.astype(jnp.result_type(own, 1j) if jnp.iscomplexobj(f) else own) for name, f in forcing.items()}
        return back, jax.tree.map(lambda a, old: a.astype(old.dtype), new, memory)


def time_step(kind: str, dt) -> float:
    """`dt` as seconds. Raises `ValueError` for anything but a positive number: closures are not told the model's."""
    if not (isinstance(dt, float | int) and 0 < dt < float("inf")):
        raise ValueError(
            f"{kind} needs dt, the time step of its model (in Every(n), n of them), a positive number of seconds: "
            f"closures are not told it. Got dt={dt}"
        )
    return float(dt)


def per_layer(amplitude: Array) -> Array:
    """One number, or one per layer, with the axes of `[layer, y, x]`."""
    return amplitude.reshape(-1, 1, 1)


def without_mean(name: str, forcing: Array, grid: AbstractGrid) -> Array:
    """f − ⟨f⟩ per layer, `[layer, y, x]` in any unit, but components u and v of a vector on a sphere as they are.

    One that is the same everywhere is no smooth field there: its curl is u tan(latitude)/radius.
    """
    if name in ("u", "v") and isinstance(grid, Sphere):
        return forcing
    return forcing - grid.mean(forcing)[..., None, None]


def check_layers(kind: str, amplitude: Array, fields: Fields):
    """Raise `ValueError` for amplitudes that are neither one number nor one per layer."""
    layers = layers_of(fields)
    if amplitude.shape not in ((), (layers,)):
        raise ValueError(f"{kind} has {len(amplitude)} amplitudes for {layers} layers; give one, or one per layer")


def layers_of(fields: Fields) -> int:
    """Number of layers of the fields that a closure is given."""
    return next(iter(fields.values())).shape[0]


def calls_before(fields: Fields, dt: float):
    """Calls, one every dt seconds, before the start that `init` is given: none, or until the `time` of its fields."""
    return jnp.rint(jnp.asarray(fields.get("time", 0)) / dt).astype(jnp.int32)


def require(kind: str, names, fields: Fields):
    """Raise `ValueError` for a name that the equation's view does not have."""
    for name in names:
        if name not in fields:
            raise ValueError(f"{kind} reads {name!r}, the equation offers {sorted(fields)}{nearest(name, fields)}")
