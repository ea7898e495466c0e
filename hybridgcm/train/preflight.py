"""Before a long training: what a step needs in memory, and how far back its gradients can be trusted."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.random as jr
import numpy as np
from jaxtyping import Array

from hybridgcm.models import AbstractModel
from hybridgcm.train.fit import gradient, selection
from hybridgcm.train.objectives import Objective


def memory(objective: Objective, model: AbstractModel, batch, where: Callable[[Any], Any]) -> int:
    """Bytes that loss and gradient of one batch need on the device, read from the compiled program: nothing is run.

    Model and batch, results and all temporary arrays. `batch` may hold `jax.ShapeDtypeStruct`. Add the optimiser's
    state, twice the trained weights for Adam. The time is that of compiling, seconds to minutes.
    """
    trainable, frozen = eqx.partition(model, selection(model, where))
    arrays, static = eqx.partition(frozen, eqx.is_array)
    slope = lambda trainable, arrays, *rest: gradient(objective, trainable, eqx.combine(arrays, static), *rest)
    sizes = jax.jit(slope).lower(trainable, arrays, batch, jr.key(0)).compile().memory_analysis()
    used = sizes.argument_size_in_bytes + sizes.output_size_in_bytes + sizes.temp_size_in_bytes
    return used - sizes.alias_size_in_bytes


def choose_chunk(
    make: Callable[[int | None], Objective], model: AbstractModel, batch, where: Callable[[Any], Any], budget: int
) -> int | None:
    """The `chunk` with which `make(chunk)`, such as `lambda chunk: online(loss, chunk=chunk)`, fits `budget` bytes.

    None, no rematerialisation, if that fits: it saves a forward pass. Else the first of the three divisors of the
    number of frames after the first that are nearest to its root, where memory is least: all cost the same time. By
    `memory`, so each try is a compilation. Raises `MemoryError` with the smallest size found if nothing fits.
    """
    frames = next(iter(batch.values())).shape[1] - 1
    divisors = [n for n in range(1, frames + 1) if frames % n == 0]
    needed = {}
    for chunk in (None, *sorted(divisors, key=lambda n: abs(np.log(n / np.sqrt(frames))))[:3]):
        needed[chunk] = memory(make(chunk), model, batch, where)
        if needed[chunk] <= budget:
            return chunk
    least = min(needed, key=needed.get)
    raise MemoryError(
        f"{frames} frames need {needed[least]} bytes with chunk={least}, the least of all, and {budget} are allowed: "
        "shorten the windows or make the batch smaller"
    )


def gradient_norms(
    model: AbstractModel,
    truth: Mapping[str, Array | np.ndarray],
    objective: Objective,
    horizons: Iterable[int],
    where: Callable[[Any], Any],
    *,
    batch: int = 4,
    key: Array | None = None,
) -> list[dict]:
    """Table of {"horizon", "loss", "gradient_norm"}: how fast gradients grow with the frames that are unrolled.

    `truth`: `[time, layer, y, x]` by name; `batch` windows start at the same records, evenly spaced, for every horizon
    (frames after the first). Beyond the flow's predictability norms grow as exp(λ·horizon), λ its Lyapunov exponent,
    and their direction says nothing: train below that, `discounted`, or with the `cut` of `online`. For
    `pandas.DataFrame(table)`. Raises `ValueError` for horizons that the truth is too short for.
    """
    horizons = list(horizons)
    records = min(len(a) for a in truth.values())
    if min(horizons) < 1 or max(horizons) >= records:
        raise ValueError(
            f"horizons are frames after the first, 1 to {records - 1} for {records} records; got {horizons}"
        )
    trainable, frozen = eqx.partition(model, selection(model, where))
    starts = np.unique(np.linspace(0, records - max(horizons) - 1, batch).round().astype(int))
    key, table = jr.key(0) if key is None else key, []
    for horizon in horizons:
        index = starts[:, None] + np.arange(horizon + 1)
        windows = {name: np.asarray(a)[index] for name, a in truth.items()}
        loss, norm = _norm(objective, trainable, frozen, windows, key)
        table.append({"horizon": horizon, "loss": float(loss), "gradient_norm": float(norm)})
    return table


@eqx.filter_jit
def _norm(objective, trainable, frozen, batch, key):
    import optax

    loss, slope = gradient(objective, trainable, frozen, batch, key)
    return loss, optax.tree.norm(slope)
