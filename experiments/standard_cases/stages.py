"""The cases as they are run: which field is scored, on which days, with which stepper."""

import json
import math
import time
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import hybridgcm as hg
from hybridgcm import cases
from hybridgcm.files import atomic

DAY = 86400
OVER_THE_POLES = np.pi / 2 - 0.05
"""The angle that the cases of Williamson et al. (1992) put beside zero, rad."""


class Setup(NamedTuple):
    """`build(grid)` a case, the `field` that is scored ("height" or one of the view) and the standard `days`."""

    title: str
    build: Callable
    field: str
    days: tuple[int, ...]


SETUPS = {
    "williamson1": Setup("Williamson 1, angle 0", lambda grid: cases.williamson1(grid), "c", (12,)),
    "williamson1_tilted": Setup(
        "Williamson 1, angle π/2 − .05", lambda grid: cases.williamson1(grid, OVER_THE_POLES), "c", (12,)
    ),
    "williamson2": Setup("Williamson 2, angle 0", lambda grid: cases.williamson2(grid), "height", (5,)),
    "williamson2_tilted": Setup(
        "Williamson 2, angle π/2 − .05", lambda grid: cases.williamson2(grid, OVER_THE_POLES), "height", (5,)
    ),
    "williamson2_layers": Setup(
        "Williamson 2, two layers over a ridge", lambda grid: cases.williamson2_layers(grid), "phi", (5,)
    ),
    "williamson5": Setup("Williamson 5, mountain", cases.williamson5, "height", (5, 10, 15)),
    "williamson6": Setup("Williamson 6, wave 4", cases.williamson6, "height", (7, 14)),
    "rossby_haurwitz": Setup("Rossby-Haurwitz, barotropic", cases.rossby_haurwitz, "q", (7, 14)),
    "galewsky_balanced": Setup("Galewsky, balanced", lambda grid: cases.galewsky(grid, False), "height", (5,)),
    "galewsky": Setup("Galewsky, perturbed", cases.galewsky, "height", (6,)),
    "gravity_wave": Setup("Gravity wave, l = 2, m = 1", cases.gravity_wave, "phi", (3,)),
}
UNITS = {"height": "height", "c": "tracer", "q": "vorticity", "phi": "geopotential"}
"""What the norms of a field are called in tables."""


@cache
def sphere(truncation: int, precision: str = "float64") -> hg.Sphere:
    """The grid; its tables take seconds at T170."""
    return hg.Sphere(truncation, cases.RADIUS, dtype=jnp.dtype(precision))


@cache
def case(name: str, truncation: int, precision: str = "float64") -> cases.Case:
    """The case on that grid."""
    return SETUPS[name].build(sphere(truncation, precision))


def steps_per_day(truncation: int, dt: float) -> int:
    """A multiple of 12, so that days, and the hours of maps, are whole numbers of steps."""
    return 12 * math.ceil(DAY * truncation / (42.5 * dt * 12) - 1e-9)


@eqx.filter_jit
def advance(model, state, steps):
    """`steps` may vary without a new program."""
    return jax.lax.fori_loop(0, steps, lambda _, state: model.step(state), state)


def integrate(name: str, truncation: int, precision: str, dt: float, folder):
    """Fill days.npz (coefficients of the scored field at every day from the start, of all at the end) and run.json."""
    setup, flow = SETUPS[name], case(name, truncation, precision)
    barotropic = setup.field in ("q", "c")  # without gravity waves nothing is implicit
    steps = steps_per_day(truncation, dt)
    model = hg.Model(flow.equation, hg.RK4() if barotropic else hg.SIL3(), dt=DAY / steps)
    state = model.encode(flow.start)
    scored = "phi" if setup.field == "height" else setup.field
    kept, begin = [np.asarray(state.y[scored])], time.monotonic()
    for _ in range(setup.days[-1]):
        state = advance(model, state, jnp.asarray(steps))
        kept.append(np.asarray(state.y[scored]))
    seconds = time.monotonic() - begin
    end = {f"end_{field}": np.asarray(a) for field, a in state.y.items()}
    np.savez(folder / "days.npz", days=np.stack(kept), **end)
    record = {"dt": model.dt, "stepper": type(model.stepper).__name__, "seconds": round(seconds, 2)}
    if setup.field == "height":
        mean = float(flow.equation.mean[0])  # of the model: in single precision rounded once
        drift = float(kept[-1][0, 0, 0].real) - float(kept[0][0, 0, 0].real)
        record |= {"mean": mean, "mass": abs(drift) / mean}
    with atomic(folder / "run.json") as temporary:
        temporary.write_text(json.dumps(record, indent=1))
