"""What is minimised: every training regime is a function `objective(model, batch, key) -> scalar`."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array

from hybridgcm._typing import Fields
from hybridgcm.models import AbstractModel, State
from hybridgcm.rollout import rollout

Loss = Callable[[dict, dict], Array]
"""loss(prediction, target) of one sample, as in `metrics`; an array is averaged."""
Objective = Callable[[AbstractModel, dict, Array], Array]
"""objective(model, batch, key): what `fit` minimises."""


class Detached(AbstractModel):
    """`inner` whose step ignores how its input came about: ∂(state after)/∂(state before) = 0.

    Values are those of `inner`. In a rollout every frame then depends on the parameters through its last step
    only. List, Chen and Thuerey (2025), doi:10.1016/j.cma.2024.117441: unrolling without temporal gradients.
    """

    inner: AbstractModel

    @property
    def dt(self) -> float:
        return self.inner.dt

    def encode(self, fields: Fields, key: Array | None = None) -> State:
        return self.inner.encode(fields, key)

    def step(self, state: State) -> State:
        return self.inner.step(jax.lax.stop_gradient(state))

    def view(self, state: State) -> Fields:
        return self.inner.view(state)

    def decode(self, state: State) -> Fields:
        return self.inner.decode(state)

    def courant(self, state: State) -> Array:
        return self.inner.courant(state)


def offline(loss: Loss) -> Objective:
    """A priori: mean over the batch of loss({"S": lift(closure(fields))}, {"S": S}).

    Batch: the prognostics and the target `S`, each `[batch, layer, y, x]`; other names are left alone. S is a
    tendency (s⁻² for q), to be *added* to the right-hand side, as `coarsen.subgrid_forcing` gives it. The closure's
    forcing is lifted by the equation and brought back to the grid, so that momentum closures are judged by their
    curl, and everything on resolved modes only. The closure starts from its initial memory; every sample has its
    own key.

    Raises `ValueError` for a model without closure, an equation with several prognostics, a missing name, and
    shapes that do not agree.
    """

    def one(model, fields, target, key):
        equation = model.equation
        state = model.encode(fields, key)
        forcing, _ = model.closure(equation.view(state.y), equation.grid, state.memory, jr.fold_in(key, state.step))
        (name,) = equation.prognostic
        tendency = equation.grid.to_grid(equation.lift(forcing)[name])
        if tendency.shape != target.shape:
            raise ValueError(f"S has shape {target.shape}, expected {tendency.shape} [layer, y, x] per sample")
        return jnp.mean(loss({"S": tendency}, {"S": target}))

    def objective(model, batch, key):
        names = _offline_names(model, batch)
        fields = {name: batch[name] for name in names}
        keys = jr.split(key, len(batch["S"]))
        return jnp.mean(_each(lambda fields, target, key: one(model, fields, target, key), fields, batch["S"], keys))

    return objective


def online(loss: Loss, every: int = 1, chunk: int | None = None, temporal_gradient: bool = True) -> Objective:
    """A posteriori: mean over the batch of loss(frames of a rollout from frame 0, frames 1...).

    Batch: what `model.encode` takes, by name, each `[batch, time, layer, y, x]` with `every` steps of the model
    between frames (`data.windows` cuts them). The horizon is that of the batch, so a curriculum is a sequence of
    batches of growing length; windows of length 2 with every=1 are one-step training. `chunk`: frames per
    rematerialised block, as in `rollout`; it must divide the number of frames after the first. With
    `temporal_gradient=False` the state is cut by stop_gradient before every step (see `Detached`): same loss,
    gradient without the flow's sensitivity, for horizons beyond its predictability.

    Raises `ValueError` for fewer than two frames, a misfitting `chunk`, and what `model.encode` refuses.
    """
    advanced = (lambda model: model) if temporal_gradient else Detached

    def one(model, fields, key):
        state = model.encode({name: frames[0] for name, frames in fields.items()}, key)
        target = {name: frames[1:] for name, frames in fields.items()}
        steps = every * _horizon(fields)
        frames = lambda model, state: model.decode(state)
        _, out = rollout(advanced(model), state, steps, every=every, save=frames, chunk=chunk)
        return jnp.mean(loss(out["save"], target))

    def objective(model, batch, key):
        keys = jr.split(key, len(next(iter(batch.values()))))
        return jnp.mean(_each(lambda fields, key: one(model, fields, key), batch, keys))

    return objective


def _each(function, *batch):
    """function over the leading axis: one by one on CPU, where batched transforms and products only lose, else vmap."""
    if jax.default_backend() == "cpu":
        return jax.lax.map(lambda arguments: function(*arguments), batch)
    return jax.vmap(function)(*batch)


def _offline_names(model, batch) -> tuple[str, ...]:
    names = model.equation.prognostic
    if model.closure is None:
        raise ValueError("offline compares a closure with S, but this model has none; pass one to Model")
    if len(names) != 1:
        raise ValueError(f"offline needs an equation with one prognostic for its target S; got {names}")
    if missing := [name for name in (*names, "S") if name not in batch]:
        raise ValueError(f"offline needs {[*names, 'S']} in a batch; {missing} missing, got {sorted(batch)}")
    return names


def _horizon(fields: dict) -> int:
    lengths = {name: frames.shape[0] for name, frames in fields.items()}
    shortest = min(lengths.values())
    if shortest < 2 or len(set(lengths.values())) != 1:
        raise ValueError(f"online needs windows of one length of at least 2 [batch, time, layer, y, x]; got {lengths}")
    return shortest - 1
