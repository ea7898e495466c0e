"""What a closure is trained for through the solver."""

import jax
import jax.numpy as jnp
import numpy as np

import hybridgcm as hg
from hybridgcm import metrics


def energies(low: hg.Model, windows: np.ndarray, every: int, rings: slice):
    """Loss of frames `{"q": [time, layer, y, x]}`: mean over frames, layers and rings of (E(p) − E(t))²/ε².

    E is the kinetic energy of a ring, ε² the mean square error of it that `low`, the model without closure, makes by
    that frame in `windows` `[window, 1 + time, layer, y, x]` of the truth, as long as the longest to be judged, frames
    `every` steps apart: 1 is worth nothing. All rings then count alike, though an error of a few thousandths at the
    large scales is as telling as one of a tenth at the small ones; relative errors are decided by the small ones, and
    those of fields by what no closure can know.
    """
    spectrum = metrics.energy_spectrum(low.equation)
    energy = lambda q: jax.lax.map(lambda q: spectrum({"q": q})[..., rings], q)

    def errors(q):
        steps, save = every * (len(q) - 1), lambda model, state: model.decode(state)["q"]
        found = hg.rollout(low, low.encode({"q": q[0]}), steps, every=every, save=save)[1]["save"]
        true = energy(q[1:])
        return (energy(found) - true) ** 2, true**2

    square, size = (jnp.mean(a, 0) for a in jax.jit(lambda q: jax.lax.map(errors, q))(jnp.asarray(windows)))
    scale = square + 1e-8 * size  # to rounding
    return lambda p, t: jnp.mean((energy(p["q"]) - energy(t["q"])) ** 2 / scale[: len(t["q"])])
