"""A state, and the things that advance it."""

import abc
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, ArrayLike, Int

from hybridgcm._typing import Fields, Spectral, cast_floats, nearest, without_time
from hybridgcm.closures.base import AbstractClosure, Every
from hybridgcm.equations.base import AbstractEquation
from hybridgcm.grids import AbstractGrid
from hybridgcm.steppers import AbstractStepper


class State(eqx.Module):
    """All that the next step depends on, and so all that a restart stores.

    `y`: spectral prognostics; `step`: integer count, so that time step·dt never drifts; `past`: the stepper's
    history; `memory`: the closure's; `key`: typed PRNG key, constant in time (steps fold their number in).
    """

    y: Spectral
    step: Int[Array, ""]
    past: Any
    memory: Any
    key: Array


class Steady(eqx.Module):
    """Named tendencies that do not change, for `Model(forcing=...)`: `fields` as `equation.lift` takes them. Trainable.

    `Steady({"q_hat": s})` adds s (s⁻², spectral `[layer, ...]`) to ∂q/∂t at every stage.
    """

    fields: Fields

    def __call__(self, t: Array | float, grid: AbstractGrid) -> Fields:
        return self.fields


class AbstractModel(eqx.Module):
    """Something with a time step: what `rollout`, `fit` and `evaluate` act on."""

    dt: eqx.AbstractVar[float]
    """Time step, s."""

    @abc.abstractmethod
    def encode(self, fields: dict[str, ArrayLike], key: Array | None = None) -> State:
        """State from grid-space fields: at step 0, or where they have a `time`, s, at that of its step."""

    @abc.abstractmethod
    def step(self, state: State) -> State:
        """State one dt later."""

    @abc.abstractmethod
    def view(self, state: State) -> Fields:
        """Named grid-space fields of a state, `[layer, y, x]`."""

    @abc.abstractmethod
    def decode(self, state: State) -> Fields:
        """What `encode` takes, from a state: the prognostics alone, cheaper than `view`."""

    @abc.abstractmethod
    def courant(self, state: State) -> Array:
        """Largest Courant number of the flow, 0-d; zero where the notion does not apply."""


class Model(AbstractModel):
    """Equation, stepper and optional closure with a time step of `dt` seconds.

    The closure is evaluated once per step and held over the stages (`hold=True`): one network call, one noise
    draw, one memory update; first order in time, no loss for one-evaluation schemes such as AB3. `hold=False`
    evaluates it at every stage, with the memory and key of the step's start; the memory advances once.
    `forcing(t, grid)` gives, at every stage, named forcings that drive the flow whatever the closure is, as functions
    of time alone (t in s): a truth and its coarse models share it, so it is no part of `equation.explicit`, of subgrid
    data and of the energy budget.
    Floating-point leaves of all parts are cast to the precision of the grid. Raises `ValueError` for a dt that is not
    positive, and for closures that were made for another.

    `encode(fields, key)` takes the prognostics by name, raises `ValueError` for a missing or unknown name,
    a wrong shape and (outside jit) a value that is not finite, and for a time between two steps.
    """

    equation: AbstractEquation
    stepper: AbstractStepper
    closure: AbstractClosure | None
    dt: float = eqx.field(static=True)
    hold: bool = eqx.field(static=True)
    forcing: Callable[[Any, AbstractGrid], Fields] | None

    def __init__(self, equation, stepper, closure=None, *, dt: float, hold: bool = True, forcing=None):
        if not dt > 0:
            raise ValueError(f"dt is a positive number of seconds; got {dt}")
        if closure is not None:
            _check_time_step(closure, dt)
        dtype = equation.grid.eigenvalues.dtype
        parts = cast_floats((equation, stepper, closure, forcing), dtype)
        self.equation, self.stepper, self.closure, self.forcing = parts
        self.dt, self.hold = float(dt), hold

    def encode(self, fields: dict[str, ArrayLike], key: Array | None = None) -> State:
        clock = {"time": fields["time"]} if "time" in fields else {}
        fields = without_time(fields)
        _check_fields(fields, self.equation)
        grid = self.equation.grid
        dtype = grid.eigenvalues.dtype
        y = {name: grid.to_spectral(jnp.asarray(fields[name], dtype)) for name in self.equation.prognostic}
        memory = None if self.closure is None else self.closure.init(self.equation.view(y) | clock, grid)
        key = jr.key(0) if key is None else key
        return State(y, step_at(self, clock.get("time", 0)), self.stepper.init(y), memory, key)

    def step(self, state: State) -> State:
        equation, start = self.equation, state.step.astype(self.equation.grid.eigenvalues.dtype) * self.dt
        if self.closure is None:
            F = lambda offset, y: self.tendency(start + offset, y)
            memory = state.memory
        else:
            key = jr.fold_in(state.key, state.step)
            forcing, memory = self._forcing(state.y, state.memory, key)

            def F(offset, y):
                first = isinstance(offset, float | int) and offset == 0  # offsets of adaptive steppers are traced
                held = forcing if self.hold or first else self._forcing(y, state.memory, key)[0]
                return jax.tree.map(jnp.add, self.tendency(start + offset, y), held)

        y, past = self.stepper(F, equation, state.y, state.past, self.dt)
        return State(y, state.step + 1, past, memory, state.key)

    def view(self, state: State) -> Fields:
        return self.equation.view(state.y)

    def decode(self, state: State) -> Fields:
        return {name: self.equation.grid.to_grid(a_hat) for name, a_hat in state.y.items()}

    def courant(self, state: State) -> Array:
        """max (|u| + |v|)·dt/Δ with the mean flow, over all points and layers; Δ is `grid.spacing`."""
        u, v = self.equation.advecting_velocity(state.y)
        return self.equation.grid.courant(u, v, self.dt)

    def tendency(self, t, y: Spectral) -> Spectral:
        """Explicit tendency with the forcing, without the closure."""
        tendency = self.equation.explicit(t, y)
        if self.forcing is None:
            return tendency
        return jax.tree.map(jnp.add, tendency, self.equation.lift(self.forcing(t, self.equation.grid)))

    def _forcing(self, y, memory, key):
        fields = self.equation.view(y)
        try:
            forcing, memory = self.closure(fields, self.equation.grid, memory, key)
        except KeyError as error:
            if error.args[0] in fields:
                raise
            closure, equation = type(self.closure).__name__, type(self.equation).__name__
            raise ValueError(f"{closure} reads {error.args[0]!r}; {equation} offers {sorted(fields)}") from error
        return self.equation.lift(forcing), memory


def step_at(model: AbstractModel, time: ArrayLike) -> Int[Array, ""]:
    """The number of the model's step at a time, s. Raises `ValueError` (outside jit) for a time between two steps."""
    if jnp.ndim(time):
        raise ValueError(f"time is one number of seconds; got shape {jnp.shape(time)}")
    if isinstance(time, jax.core.Tracer):
        return jnp.rint(time / model.dt).astype(jnp.int32)
    return jnp.asarray(count_steps(model, time), jnp.int32)


def count_steps(model: AbstractModel, time: ArrayLike) -> int:
    """time/dt. Raises `ValueError` if that is no whole number, to the precision of `time`: a clock counts steps."""
    time = np.asarray(time)
    rounding = float(np.spacing(np.abs(time))) if np.issubdtype(time.dtype, np.floating) else 0.0
    step = round(float(time) / model.dt)
    if not abs(float(time) - step * model.dt) <= 1e-3 * model.dt + rounding:
        raise ValueError(
            f"{time} s is no multiple of the model's time step, {model.dt} s: choose other times, or count from another"
        )
    return step


def _check_time_step(closure: AbstractClosure, dt: float):
    """Raise `ValueError` for a closure in `closure` that was made for another dt: its noise or clock would be wrong."""
    made_for = getattr(closure, "dt", None)
    if made_for is not None and not np.isclose(made_for, dt, rtol=1e-9):
        raise ValueError(
            f"{type(closure).__name__} was made for steps of {made_for} s, here it is called every {dt} s; pass dt={dt}"
        )
    is_closure = lambda part: isinstance(part, AbstractClosure)
    for part in filter(is_closure, jax.tree.leaves(vars(closure), is_leaf=is_closure)):
        _check_time_step(part, dt * closure.n if isinstance(closure, Every) else dt)


def _check_fields(fields: dict[str, ArrayLike], equation: AbstractEquation):
    names, expected = equation.prognostic, (equation.layers, *equation.grid.shape)
    kind = type(equation).__name__
    for name in fields:
        if name not in names:
            raise ValueError(f"{kind} is started from {names}; got unknown {name!r}{nearest(name, names)}")
    for name in names:
        if name not in fields:
            raise ValueError(f"{kind} is started from {names}; {name!r} is missing, got {sorted(fields)}")
        shape = jnp.shape(fields[name])
        if shape != expected:
            batch = len(shape) > 3 and shape[-3:] == expected
            hint = "for a batch use eqx.filter_vmap(model.encode)" if batch else "use grid.resize to change resolution"
            raise ValueError(f"{name} has shape {shape}, expected {expected} [layer, y, x]; {hint}")
        if not isinstance(fields[name], jax.core.Tracer):
            bad = ~np.isfinite(np.asarray(fields[name]))  # NumPy: inside jit, JAX would trace even constants
            if bad.any():
                first = tuple(int(i) for i in np.argwhere(bad)[0])
                raise ValueError(
                    f"{name} has {int(bad.sum())} values that are not finite, the first at {first}; mask or fill them"
                )
