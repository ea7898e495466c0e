"""What is minimised: every training regime is a function `objective(model, batch, key) -> scalar`."""

from collections.abc import Callable, Mapping, Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, ArrayLike

from hybridgcm import coarsen, nn
from hybridgcm._typing import Fields, without_time
from hybridgcm.ensemble import check_members
from hybridgcm.models import AbstractModel, State
from hybridgcm.rollout import rollout

Loss = Callable[[dict, dict], Array]
"""loss(prediction, target) of one sample, as in `metrics`; an array is averaged."""
Objective = Callable[[AbstractModel, dict, Array], Array]
"""objective(model, batch, key): what `fit` minimises."""


class AbstractAround(AbstractModel):
    """A model around `inner`, which takes and gives the same states and fields: only its `step` is another one."""

    inner: eqx.AbstractVar[AbstractModel]

    @property
    def dt(self) -> float:
        return self.inner.dt

    def encode(self, fields: dict[str, ArrayLike], key: Array | None = None) -> State:
        return self.inner.encode(fields, key)

    def view(self, state: State) -> Fields:
        return self.inner.view(state)

    def decode(self, state: State) -> Fields:
        return self.inner.decode(state)

    def courant(self, state: State) -> Array:
        return self.inner.courant(state)


class Detached(AbstractAround):
    """`inner` whose every `n`-th step ignores how its input came about: ∂(state after)/∂(state before) = 0 there.

    Values are those of `inner`; steps 0, n, 2n... are cut. In a rollout every frame then depends on the parameters
    through the steps since the last cut only: truncated back-propagation, and with n = 1 unrolling without temporal
    gradients, List, Chen and Thuerey (2025), doi:10.1016/j.cma.2024.117441. Raises `ValueError` for n < 1.
    """

    inner: AbstractModel
    n: int = eqx.field(static=True, default=1)

    def __check_init__(self):
        if self.n < 1:
            raise ValueError(f"Detached needs a whole number of steps between cuts, at least 1; got n={self.n}")

    def step(self, state: State) -> State:
        cut = jax.lax.stop_gradient(state)
        if self.n > 1:
            pick = lambda a, b: jnp.where(state.step % self.n == 0, a, b) if eqx.is_inexact_array(a) else b
            cut = jax.tree.map(pick, cut, state)
        return self.inner.step(cut)


class StraightThrough(AbstractAround):
    """`inner` with its values, and the derivative of y(t + dt) = y(t) + dt·lift(closure(fields(t))), fields held fixed.

    So the solver's sensitivity is taken for the identity, ∂y(t + dt)/∂y(t) = 1, and the closure's feedback on itself
    for none: after n steps ∂y/∂θ = dt Σᵢ ∂(lift closure(fieldsᵢ))/∂θ along the trajectory that the solver made. Nothing
    of the solver but `lift` is differentiated, nor need it be differentiable. Between `Detached` with n = 1, where a
    frame knows the last step only, and the full gradient. Weights of a multistep scheme and filters after the step
    are left out as well. `inner` is a `Model` with a closure: fit with `where=lambda m: m.inner.closure`.

    In the spirit of the approximately online training of Yan et al. (2025), doi:10.1029/2024MS004857, which neglects
    the sensitivity of the solver; their text was not at hand, so this is no reproduction of theirs.
    Raises `ValueError` for a model without closure.
    """

    inner: AbstractModel

    def __check_init__(self):
        if getattr(self.inner, "closure", None) is None:
            raise ValueError("StraightThrough differentiates a model by its closure; this one has none")

    def step(self, state: State) -> State:
        fixed = jax.lax.stop_gradient(state)
        stepped = jax.lax.stop_gradient(self.inner.step(fixed))
        equation, key = self.inner.equation, jr.fold_in(state.key, state.step)
        forcing, _ = self.inner.closure(equation.view(fixed.y), equation.grid, fixed.memory, key)
        dt = jnp.asarray(self.dt, equation.grid.eigenvalues.dtype)
        added = jax.tree.map(lambda a, f: a + dt * f, state.y, equation.lift(forcing))
        slope = lambda value, a: value + (a - jax.lax.stop_gradient(a))
        return eqx.tree_at(lambda s: s.y, stepped, jax.tree.map(slope, stepped.y, added))


def offline(loss: Loss) -> Objective:
    """A priori: mean over the batch of loss({"S": lift(closure(fields))}, {"S": S, and the prognostics}).

    Batch: the prognostics and the target `S`, each `[batch, layer, y, x]`; other names are left alone. S is a
    tendency (s⁻² for q), to be *added* to the right-hand side, as `coarsen.subgrid_forcing` gives it. An equation with
    several prognostics has a target for each, called as `coarsen.targets` says: loss then compares dicts of all. The
    closure's forcing is lifted by the equation and brought back to the grid, so that momentum closures are judged by
    their curl, and everything on resolved modes only. The closure starts from its initial memory; every sample has its
    own key.

    Raises `ValueError` for a model without closure, a missing name, and shapes that do not agree.
    """

    def one(model, fields, target, key):
        equation = model.equation
        state = model.encode(fields, key)
        forcing, _ = model.closure(equation.view(state.y), equation.grid, state.memory, jr.fold_in(key, state.step))
        shape, tendency = next(iter(fields.values())).shape, equation.lift(forcing)
        made = {}
        for name, label in coarsen.targets(equation).items():
            if target[label].shape != shape:
                raise ValueError(f"{label} has shape {target[label].shape}, expected {shape} [layer, y, x] per sample")
            # What a closure leaves alone is the number 0 in `lift`.
            made[label] = equation.grid.to_grid(jnp.zeros_like(state.y[name]) + tendency[name])
        return jnp.mean(loss(made, fields | target))

    def objective(model, batch, key):
        names = _offline_names(model, batch)
        fields = {name: batch[name] for name in model.equation.prognostic}
        target = {name: batch[name] for name in names if name not in fields}
        keys = jr.split(key, len(next(iter(fields.values()))))
        return jnp.mean(each(lambda fields, target, key: one(model, fields, target, key), fields, target, keys))

    return objective


def online(
    loss: Loss, every: int = 1, chunk: int | None = None, cut: int | None = None, members: int | None = None
) -> Objective:
    """A posteriori: mean over the batch of loss(frames of a rollout from frame 0, frames 1...).

    Batch: what `model.encode` takes, by name, each `[batch, time, layer, y, x]` with `every` steps of the model
    between frames (`data.windows` cuts them); where a forcing or closure has a clock also `time` `[batch, time]`, s.
    The horizon is that of the batch, so a curriculum is a sequence of batches of growing length; windows of length 2
    with every=1 are one-step training. `chunk`: frames per rematerialised block, as in `rollout`; it must divide the
    number of frames after the first (`train.preflight.choose_chunk` takes one that fits into memory). With `cut` the
    state is cut by stop_gradient before every `cut`-th step (see `Detached`): same loss, gradient without the flow's
    sensitivity over longer times, for horizons beyond its predictability; cut=1 leaves no temporal gradient at all.

    `members`: that many rollouts from each start, with keys of their own, for closures that draw noise; the loss is
    given `[member, time, layer, y, x]` beside the target's `[time, layer, y, x]`, as `metrics.crps` wants it.

    Raises `ValueError` for fewer than two frames, a misfitting `chunk`, and what `model.encode` refuses.
    """
    advanced = (lambda model: model) if cut is None else (lambda model: Detached(model, cut))

    def one(model, fields, key):
        check_members(model, members or 1, "leave members out")
        steps = every * _horizon(fields)
        target = {name: frames[1:] for name, frames in without_time(fields).items()}

        def predict(key):
            state = model.encode({name: frames[0] for name, frames in fields.items()}, key)
            frames = lambda model, state: model.decode(state)
            return rollout(advanced(model), state, steps, every=every, save=frames, chunk=chunk)[1]["save"]

        prediction = predict(key) if members is None else each(predict, jr.split(key, members))
        return jnp.mean(loss(prediction, target))

    def objective(model, batch, key):
        keys = jr.split(key, len(next(iter(batch.values()))))
        return jnp.mean(each(lambda fields, key: one(model, fields, key), batch, keys))

    return objective


def supervised(loss: Loss, inputs: Sequence[str], outputs: Sequence[str]) -> Objective:
    """Operator learning: mean over the batch of loss(model of the fields `inputs`, the fields `outputs`).

    Batch: those fields, each `[batch, layer, y, x]`, as `batches.samples` draws them from pairs; their layers, name
    after name, are the channels of the model, an `nn.Normalised` network: fit with `where=lambda m: m.net`.
    Raises `TypeError` for a network without normaliser, `ValueError` for missing names and other channels.
    """

    def one(model, fields):
        made = model(jnp.concatenate([fields[name] for name in inputs]))
        target = {name: fields[name] for name in outputs}
        if len(made) != sum(map(len, target.values())):
            shapes = {name: a.shape for name, a in target.items()}
            raise ValueError(f"the operator gives {made.shape}, the targets are {shapes} [layer, y, x]")
        ends = np.cumsum([len(a) for a in target.values()])[:-1]
        return jnp.mean(loss(dict(zip(outputs, jnp.split(made, ends), strict=True)), target))

    def objective(model, batch, key):
        if not isinstance(model, nn.Normalised):
            raise TypeError(
                f"supervised takes physical fields; got a {type(model).__name__} without normaliser: "
                "wrap it, nn.Normalised.from_data(net, inputs, outputs)"
            )
        if missing := [name for name in (*inputs, *outputs) if name not in batch]:
            raise ValueError(f"supervised needs {[*inputs, *outputs]} in a batch; {missing} missing, got {[*batch]}")
        return jnp.mean(jax.vmap(lambda fields: one(model, fields))(batch))

    return objective


def augmented(objective: Objective, transform: Callable[[dict, Array], dict]) -> Objective:
    """`objective` of a batch whose samples have been replaced by `transform(fields, key)`, each with its own key.

    Around `supervised`, with a symmetry of the problem drawn at random (`nn.turned_at_random`): as many truths more as
    there are symmetries, for nothing.
    """

    def replaced(model, batch, key):
        key, own = jr.split(key)
        keys = jr.split(own, len(next(iter(batch.values()))))
        batch = {name: jnp.asarray(a) for name, a in batch.items()}
        return objective(model, jax.vmap(transform)(batch, keys), key)

    return replaced


def perturbed(
    objective: Objective, amplitude: float | Mapping[str, ArrayLike], *, draw: Callable[..., Array] = jr.normal
) -> Objective:
    """`objective` of windows whose frame 0 carries noise: what follows is to be reached from near by, too.

    `amplitude`: standard deviation of the noise relative to that of each layer of each field, a few hundredths, or
    {name: one or one per layer, in the unit of the field}, for fields of which most stands still, a small share of
    which may be more than changes over a window; such noise is most of the loss. `draw(key, shape, dtype)`: noise of
    variance one; white by default, most of it in the shortest waves. `perturbations.drawn(grid)` has as much of it in
    every wavenumber, and so teaches to lose what drifts slowly, too. Meant around `online`: errors that a model makes
    in a long run are met in training, and their growth is penalised. Sanchez-Gonzalez et al. (2020), arXiv:2002.09405,
    section 4.3. Raises `ValueError` for batches other than windows `[batch, time, layer, y, x]` and
    for fields without an amplitude.
    """

    absolute = isinstance(amplitude, Mapping)

    def noisy(model, batch, key):
        fields = without_time(batch)
        key, *keys = jr.split(key, 1 + len(fields))
        changed = dict(batch)
        for (name, frames), own in zip(fields.items(), keys, strict=True):
            if jnp.ndim(frames) != 5:
                raise ValueError(f"perturbed needs windows [batch, time, layer, y, x]; {name} is {jnp.shape(frames)}")
            start = jnp.asarray(frames)[:, 0]
            if absolute and name not in amplitude:
                raise ValueError(f"perturbed has amplitudes of {sorted(amplitude)}; {name!r} is missing")
            known = amplitude[name] if absolute else amplitude * jnp.std(start, (-2, -1))
            size = jnp.asarray(known, start.dtype)[..., None, None]
            changed[name] = jnp.asarray(frames).at[:, 0].add(size * draw(own, start.shape, start.dtype))
        return objective(model, changed, key)

    return noisy


def each(function, *batch):
    """function over the leading axis: one by one on CPU, where batched transforms and products only lose, else vmap."""
    if jax.default_backend() == "cpu":
        return jax.lax.map(lambda arguments: function(*arguments), batch)
    return jax.vmap(function)(*batch)


def _offline_names(model, batch) -> tuple[str, ...]:
    if model.closure is None:
        raise ValueError("offline compares a closure with S, but this model has none; pass one to Model")
    names = (*model.equation.prognostic, *coarsen.targets(model.equation).values())
    if missing := [name for name in names if name not in batch]:
        raise ValueError(f"offline needs {[*names]} in a batch; {missing} missing, got {sorted(batch)}")
    return names


def _horizon(fields: dict) -> int:
    lengths = {name: frames.shape[0] for name, frames in fields.items()}
    shortest = min(lengths.values())
    if shortest < 2 or len(set(lengths.values())) != 1:
        raise ValueError(f"online needs windows of one length of at least 2 [batch, time, layer, y, x]; got {lengths}")
    return shortest - 1
