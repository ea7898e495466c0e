"""Many members of one model as a model of its own: one of them may fail without ending the run of the others."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, ArrayLike

from hybridgcm._typing import Fields
from hybridgcm.emulators import Emulator
from hybridgcm.models import AbstractModel, Model, State
from hybridgcm.parallel import fill, members, split
from hybridgcm.rollout import rollout

Perturb = Callable[[AbstractModel, State, Array], State]
"""perturb(model, state, keys): states with a leading member axis, one per key, from that of a start."""


class Ensemble(AbstractModel):
    """Members of one model side by side, a step of which is `every` steps of each; what `forecast` streams.

    `State.memory` holds the states of all members of all starts with a leading axis, and per member the record at which
    it failed, or −1; one that failed stays at its last good state. `State.y` is empty, as a member that blows up does
    not end the run. The step from −1 to 0 moves nothing, so that the start is the first record. `shape` is (starts,
    members); the batch is filled up with copies of its last until it can be split over the devices.
    """

    inner: AbstractModel
    every: int = eqx.field(static=True)
    limit: float = eqx.field(static=True)
    together: int = eqx.field(static=True)
    shape: tuple[int, int] = eqx.field(static=True)

    @property
    def dt(self) -> float:
        """Time between records, s."""
        return self.every * self.inner.dt

    @property
    def grid(self):
        """Grid of the inner model."""
        return grid_of(self.inner)

    def begin(self, states: State) -> State:
        """The state before the first record, from those of the members."""
        states = fill(states, jax.local_device_count() * self.together)
        # laid out over the devices from the start, scalars too: otherwise the second chunk would be compiled anew
        memory = split({"state": states, "failed": jnp.full(states.step.shape, -1, jnp.int32)})
        return State({}, jnp.min(memory["failed"]), None, memory, memory["state"].key[0])

    def encode(self, fields: dict[str, ArrayLike], key: Array | None = None) -> State:
        """From fields `[member, layer, y, x]`."""
        keys = jr.split(jr.key(0) if key is None else key, len(next(iter(fields.values()))))
        return self.begin(eqx.filter_vmap(self.inner.encode)(fields, keys))

    def step(self, state: State) -> State:
        advance = eqx.Partial(_advance, self.every, self.limit)
        moved = members(advance, together=self.together)((self.inner, state.step), state.memory)
        return State({}, state.step + 1, None, moved, state.key)

    def each(self, function: Callable[[AbstractModel, dict], Any], state: State):
        """function(model, member) of every member, `[start, member, ...]`; a member is its state and when it failed."""
        out = members(function, together=self.together)(self.inner, state.memory)
        number = self.shape[0] * self.shape[1]
        return jax.tree.map(lambda a: a[:number].reshape(*self.shape, *a.shape[1:]), out)

    def view(self, state: State) -> Fields:
        return self.each(lambda model, member: model.view(member["state"]), state)

    def decode(self, state: State) -> Fields:
        return self.each(lambda model, member: model.decode(member["state"]), state)

    def courant(self, state: State) -> Array:
        """Zero: each member's is looked at when it is stepped."""
        return jnp.zeros(())


def grid_of(model: AbstractModel):
    """The grid that a model's fields are on. Raises `ValueError` for an emulator without one."""
    grid = (model.equation if hasattr(model, "equation") else model).grid
    if grid is None:
        raise ValueError(
            f"this {type(model).__name__} has no grid, so its points have no places; make it with grid=..."
        )
    return grid


def check_members(model: AbstractModel, members: int, remedy: str):
    """Raise `ValueError` where members from one start would be equal: an emulator, or a solver without closure."""
    if members > 1 and isinstance(model, Model | Emulator) and getattr(model, "closure", None) is None:
        kind = "an emulator" if isinstance(model, Emulator) else "a model without closure"
        raise ValueError(f"{members} members of {kind} are equal, as it draws nothing at random; {remedy}")


def started(model: AbstractModel, fields, step: ArrayLike, key: Array) -> State:
    """The state of prognostics that are valid at model step `step`."""
    new = model.encode({**fields, "time": step * model.dt}, key)
    return State(new.y, jnp.asarray(step, new.step.dtype), new.past, new.memory, new.key)


def _advance(every: int, limit: float, shared, member: dict) -> dict:
    """A member one record later."""
    model, step = shared
    ahead = lambda state: rollout(model, state, every, every=every, save=None)[0]
    old = member["state"]
    new = jax.lax.cond(step < 0, lambda state: state, ahead, old)
    finite = jnp.all(jnp.stack([jnp.all(jnp.isfinite(a)) for a in jax.tree.leaves(new.y)]))
    fine = finite & (model.courant(new) <= limit)
    good = fine & (member["failed"] < 0)
    failed = jnp.where(fine | (member["failed"] >= 0), member["failed"], step + 1)
    return {"state": jax.tree.map(lambda a, b: jnp.where(good, a, b), new, old), "failed": failed}
