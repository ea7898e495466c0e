"""Objectives of operators that are asked at points (`nn.DeepONet`): by data, by the residual of an equation."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike

from hybridgcm.train.objectives import Loss, Objective

Solution = Callable[..., Array]
"""solution(*coordinates): `[out, *points]`, the model of one function."""
Residual = Callable[..., Array]
"""residual(solution, function, *coordinates): `[equation, *points]`, zero where the equations hold."""


def queries(loss: Loss, inputs: Sequence[str], coordinates: Sequence[str], outputs: Sequence[str]) -> Objective:
    """Losses of a model of functions at sensors against values at queries: `[batch, ...]`, what `loss` gives of each.

    Batch: `inputs`, functions at their sensors `[batch, ...]` (several for several branches); `coordinates`, either
    `[query]`, the same for all functions, or `[batch, query]`, each function's own; `outputs`, one name for each output
    of the model, `[batch, *points]`. loss(prediction, target) sees one function, {name: `[*points]`}; `squares` keeps
    the points apart, as `parallel.sharded` needs it for queries on several devices. `fit` takes the mean.
    The model is called as `model(inputs, *coordinates)`: a trunk on shared queries is evaluated once for all functions.
    Raises `ValueError` for missing names and for outputs and targets of different shapes.
    """

    def one(model, function, target, *places):
        made = model(function, *places)
        expected = {name: (len(made), *a.shape) for name, a in target.items()}
        if len(made) != len(outputs) or any(shape != made.shape for shape in expected.values()):
            shapes = {name: a.shape for name, a in target.items()}
            raise ValueError(f"the model gives {made.shape} [out, *points], the targets of a function are {shapes}")
        return loss(dict(zip(outputs, made, strict=True)), target)

    def objective(model, batch, key):
        function, places, axes = _parts(batch, inputs, coordinates, outputs)
        target = {name: jnp.asarray(batch[name]) for name in outputs}
        return jax.vmap(lambda *parts: one(model, *parts), (0, 0, *axes))(function, target, *places)

    return objective


def squares(prediction: dict, target: dict) -> Array:
    """Σ over names of (prediction − target)², point by point. Its mean weighs names by their variance: scale them."""
    return sum((prediction[name] - target[name]) ** 2 for name in target)


def physics(residual: Residual, inputs: Sequence[str], coordinates: Sequence[str]) -> Objective:
    """Squared residuals Σ_e R_e(y)² `[batch, *points]` of a model at the batch's `coordinates`: no outputs are needed.

    `residual(solution, function, *coordinates)` gives `[equation, *points]` of one function, `solution(*coordinates)`
    being the model of it, to be differentiated by `derivative`; `function` is its `inputs`, a tuple if there are
    several. Batch as in `queries`. Initial and boundary values are objectives of their own: see `combined`.
    Wang, Wang and Perdikaris (2021), doi:10.1126/sciadv.abi8605. Raises `ValueError` for missing names and for
    residuals without the axis of equations.
    """

    def objective(model, batch, key):
        function, places, axes = _parts(batch, inputs, coordinates)

        def one(function, *places):
            solution = lambda *places: model(function, *places)
            left = residual(solution, function, *places)
            if left.ndim < 2:
                raise ValueError(f"a residual is [equation, *points], for one equation too; got {left.shape}")
            return jnp.sum(left**2, 0)

        return jax.vmap(one, (0, *axes))(function, *places)

    return objective


def combined(*terms: tuple[float, Objective]) -> Objective:
    """Σ weight · mean of each objective, from (weight, objective): equation, initial and boundary values, data.

    Over several devices shard every term, `combined((1.0, sharded(inside, ...)), (20.0, sharded(start, ...)))`: each is
    then a mean over its own points, however many those are.
    """
    return lambda model, batch, key: sum(weight * jnp.mean(term(model, batch, key)) for weight, term in terms)


def derivative(function: Solution, number: int) -> Solution:
    """∂function/∂(coordinate `number`) at all points at once, by forward mode: about the cost of a second evaluation.

    Every value depends on the coordinates of its own point alone, so one tangent, ones along the coordinate, serves all
    points, of a list and of a tensor grid alike; branches, which know no coordinates, are not differentiated. Nest it
    for higher derivatives.
    """

    def slope(*coordinates):
        along = lambda moved: function(*coordinates[:number], moved, *coordinates[number + 1 :])
        return jax.jvp(along, (coordinates[number],), (jnp.ones_like(coordinates[number]),))[1]

    return slope


def antiderivative(sensors: ArrayLike) -> Residual:
    """R = ∂s/∂x − u(x), for coordinates (x,): u between its `sensors` (their places, ascending) is linear.

    Raises `ValueError` for sensors in another order.
    """
    if not isinstance(sensors, jax.core.Tracer) and not (np.diff(np.asarray(sensors)) > 0).all():
        raise ValueError(f"sensors are places in ascending order; got {np.asarray(sensors)!r:.80}")
    return lambda s, u, x: derivative(s, 0)(x) - jnp.interp(x, jnp.asarray(sensors), u)


def burgers(viscosity: ArrayLike) -> Residual:
    """R = ∂u/∂t + u ∂u/∂x − ν ∂²u/∂x², for coordinates (t, x)."""

    def residual(u, start, t, x):
        slope = derivative(u, 1)
        return derivative(u, 0)(t, x) + u(t, x) * slope(t, x) - viscosity * derivative(slope, 1)(t, x)

    return residual


def diffusion_reaction(diffusivity: ArrayLike, rate: ArrayLike, sensors: ArrayLike) -> Residual:
    """R = ∂s/∂t − D ∂²s/∂x² − k s² − u(x), for coordinates (t, x): u, linear between its `sensors`, is a source."""

    def residual(s, u, t, x):
        bent = derivative(derivative(s, 1), 1)(t, x)
        return derivative(s, 0)(t, x) - diffusivity * bent - rate * s(t, x) ** 2 - jnp.interp(x, sensors, u)

    return residual


def periodic(u: Solution, function, t: Array, left: Array, right: Array) -> Array:
    """Residual of periodicity in x: u and ∂u/∂x at `left` less those at `right`, for coordinates (t, left, right)."""
    slope = derivative(u, 1)
    return jnp.concatenate([u(t, left) - u(t, right), slope(t, left) - slope(t, right)])


def _parts(batch, inputs, coordinates, outputs=()):
    """(functions, places, their axes under vmap) of a batch."""
    names = [*inputs, *coordinates, *outputs]
    if missing := [name for name in names if name not in batch]:
        raise ValueError(f"this objective needs {names} in a batch; {missing} missing, got {[*batch]}")
    functions = tuple(jnp.asarray(batch[name]) for name in inputs)
    places = [jnp.asarray(batch[name]) for name in coordinates]
    if any(a.ndim not in (1, 2) for a in places):
        shapes = {name: a.shape for name, a in zip(coordinates, places, strict=True)}
        raise ValueError(f"coordinates are [query], shared by all functions, or [batch, query]; got {shapes}")
    return functions if len(functions) > 1 else functions[0], places, [0 if a.ndim == 2 else None for a in places]
