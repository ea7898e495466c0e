"""Training by the equation alone: what a step of a model leaves over of it."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array

from hybridgcm.models import AbstractModel, Model
from hybridgcm.rollout import rollout
from hybridgcm.steppers import Filtered
from hybridgcm.train.objectives import each


def residual(solver: Model, steps: int = 1) -> Callable[[AbstractModel, dict, Array], Array]:
    """Objective of any model, or emulator, that steps the prognostics of `solver`: its equation, without solutions.

    Batch: states {name: `[batch, layer, y, x]`} alone, with their `time` `[batch]`, s, if the solver's forcing is one
    of time. From each the model makes `steps` steps of its own dt; of every pair of frames, Crank and Nicolson's
    R = (yₙ₊₁ − yₙ)/dt − ½ (Fₙ + Fₙ₊₁) with F = E + I, the explicit part with the forcing and the implicit one, is to
    second order in dt what is left over. The loss is the mean over frames, layers and prognostics of
    ⟨R²⟩/(⟨E²⟩ + ⟨I²⟩), which are large also where they balance: zero is right up to O(dt²), a model that persists has
    ⟨F²⟩ above.
    So dt must resolve the flow; for longer steps learn from a trajectory (`online`). Equations of QG, Navier–Stokes and
    shallow water are all here; of Darcy's and other steady ones see `pairs`, of points `physics`.
    Li et al. (2021), arXiv:2111.03794, for operators; forms of R in time as in Raissi et al. (2019),
    doi:10.1016/j.jcp.2018.10.045, section 3.2. Raises `ValueError` for a solver with a closure, whose memory and noise
    belong to its own steps, for a `Filtered` stepper, whose loss per step is in no tendency, and for no step.
    """
    if isinstance(solver.stepper, Filtered):
        raise ValueError("residual sees tendencies, where a filter per step is not; let the equation dissipate: tau")
    if solver.closure is not None or steps < 1:
        kind = type(solver.closure).__name__
        raise ValueError(f"residual needs a solver without closure and a step or more; got {kind}, {steps=}")
    grid = solver.equation.grid

    def one(model, fields):
        state = model.encode(fields)
        frames = rollout(model, state, steps, save=lambda model, state: model.decode(state))[1]["save"]
        frames = {name: jnp.concatenate([jnp.asarray(fields[name])[None], a]) for name, a in frames.items()}
        y = {name: grid.to_spectral(a) for name, a in frames.items()}
        explicit = jax.vmap(solver.tendency)(fields.get("time", 0) + model.dt * jnp.arange(steps + 1), y)
        implicit = jax.vmap(solver.equation.implicit)(y)
        ratios = []
        for name, y_hat in y.items():
            E, I = explicit[name], implicit[name]
            scale = jnp.maximum(jnp.max(jnp.abs(E)), jnp.max(jnp.abs(I)))  # squares of s⁻³ underflow in float32
            tiny = jnp.finfo(scale.dtype).tiny
            scale = jnp.maximum(scale, tiny)
            square = lambda a, scale=scale: grid.inner(a / scale, a / scale)
            left = (y_hat[1:] - y_hat[:-1]) / model.dt - (E[1:] + I[1:] + E[:-1] + I[:-1]) / 2
            whole = jnp.maximum(square(E) + square(I), tiny)  # at rest nothing happens
            ratios.append(jnp.mean(square(left) / jax.lax.stop_gradient(whole)[:-1]))
        return sum(ratios) / len(ratios)

    def objective(model, batch, key):
        return jnp.mean(each(lambda fields: one(model, fields), batch))

    return objective
