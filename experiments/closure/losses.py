"""What a closure is trained for through the solver, beside what no closure does: a loss of 1 is worth nothing.

`low` is the model without closure; `windows` `[window, 1 + time, layer, y, x]` are some of the truth's q, frames
`every` steps apart, as long as the longest that are to be judged. Frames are `{"q": [time, layer, y, x]}`.
"""

import jax
import jax.numpy as jnp
import numpy as np

import hybridgcm as hg
from hybridgcm import metrics


def energies(low: hg.Model, windows: np.ndarray, every: int, rings: slice):
    """Mean over frames, layers and rings of (E(p) − E(t))²/ε².

    E is the kinetic energy of a ring, ε² the mean square error of it that `low` makes by that frame. All rings then
    count alike, though an error of a few thousandths at the large scales is as telling as one of a tenth at the small
    ones; relative errors are decided by the small ones, and those of fields by what no closure can know.
    """
    spectrum = metrics.energy_spectrum(low.equation)
    energy = lambda q: jax.lax.map(lambda q: spectrum({"q": q})[..., rings], q)
    square = lambda p, t: (energy(p["q"]) - energy(t["q"])) ** 2
    errors, size = _without(low, windows, every, lambda p, t: (square(p, t), energy(t["q"]) ** 2))
    scale = errors + 1e-8 * size  # to rounding
    return lambda p, t: jnp.mean(square(p, t) / scale[: len(t["q"])])


def relative(metric: metrics.losses.Metric, low: hg.Model, windows: np.ndarray, every: int):
    """`metric` over its mean for `low`."""
    size = _without(low, windows, every, metric)
    return lambda p, t: metric(p, t) / size


def _without(low: hg.Model, windows: np.ndarray, every: int, function):
    """Mean over windows of function(frames of `low`, frames of the truth)."""

    def one(q):
        save = lambda model, state: model.decode(state)
        made = hg.rollout(low, low.encode({"q": q[0]}), every * (len(q) - 1), every=every, save=save)[1]["save"]
        return function(made, {"q": q[1:]})

    every_window = jax.jit(lambda q: jax.lax.map(one, q))(jnp.asarray(windows))
    return jax.tree.map(lambda a: jnp.mean(a, 0), every_window)
