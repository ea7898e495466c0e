"""From the runs to numbers: norms by day, and what else is known about a case."""

import json
from functools import cache

import jax.numpy as jnp
import numpy as np

from experiments.standard_cases.stages import DAY, SETUPS, case, sphere
from hybridgcm import cases


class Result:
    """One finished run: its fields in double precision, on its own grid or padded to a finer one."""

    def __init__(self, name: str, truncation: int, precision: str, folder):
        self.name, self.truncation, self.precision = name, truncation, precision
        self.setup, self.about = SETUPS[name], json.loads((folder / "run.json").read_text())
        with np.load(folder / "days.npz") as file:
            self.arrays = {key: a.astype(np.complex128) for key, a in file.items()}
        self.grid = sphere(truncation)

    def on_grid(self, a_hat, grid=None) -> np.ndarray:
        """`[y, x]` of coefficients of this run."""
        grid = grid or self.grid
        return np.asarray(grid.to_grid(self.grid.resize(jnp.asarray(a_hat), grid)))[0]

    def values(self, a_hat, grid=None) -> np.ndarray:
        """The field of the norms of its coefficients; the height of the surface in m for shallow water."""
        if self.setup.field != "height":
            return self.on_grid(a_hat, grid)
        bottom = case(self.name, self.truncation).equation.topography
        if bottom is not None:
            a_hat = a_hat + np.asarray(self.grid.to_spectral(bottom))
        return (self.on_grid(a_hat, grid) + self.about["mean"]) / cases.GRAVITY

    def scored(self, day: int, grid=None) -> np.ndarray:
        """The field of the norms at a day."""
        return self.values(self.arrays["days"][day], grid)

    def depth(self, day: int) -> np.ndarray:
        """Of the layer, m."""
        return (self.on_grid(self.arrays["days"][day]) + self.about["mean"]) / cases.GRAVITY


@cache
def exact(name: str, truncation: int, day: int) -> np.ndarray | None:
    """The field of the norms as it should be; None if nobody knows."""
    flow = case(name, truncation)
    if flow.exact is None:
        return None
    fields = flow.exact(float(day * DAY))
    field = SETUPS[name].field
    return np.asarray(cases.height(flow.equation, fields) if field == "height" else fields[field])[0]


def norms(result: Result, reference: Result | None, day: int) -> dict | None:
    """l1, l2, linf of a run against the exact answer or the reference run; None for the reference itself."""
    grid, target = result.grid, exact(result.name, result.truncation, day)
    if target is None:
        if reference is None or reference is result:
            return None
        grid = reference.grid
        target = reference.scored(day)
    found = cases.norms(grid, jnp.asarray(result.scored(day, grid)), jnp.asarray(target))
    return {name: float(value) for name, value in found.items()}


def score(config, folders: dict) -> tuple[list[dict], dict]:
    """One record per run, and the runs themselves by (case, truncation, precision)."""
    results = {key: Result(*key, folder) for key, folder in folders.items()}
    records = []
    for (name, T, precision), result in results.items():
        best = results[name, max(config.truncations), config.precisions[0]]
        days = range(1, result.setup.days[-1] + 1)
        found = {day: norms(result, best, day) for day in days}
        about = {"case": name, "truncation": T, "precision": precision, "scored": result.setup.field}
        about["against"] = "exact" if case(name, T).exact else f"T{best.truncation} {best.precision}"
        records.append(about | {"days": found} | result.about | _extras(result))
    return records, results


def _extras(result: Result) -> dict:
    """Numbers beside the norms: depths of case 5, the wave of case 6, the potential vorticity of Galewsky's start."""
    if result.name == "williamson5":
        depth = result.depth(result.setup.days[-1])
        return {"depth": [float(depth.min()), float(depth.max())]}
    if result.name == "williamson6":
        return wave(result)
    if result.name == "galewsky_balanced":
        return supremum(result.truncation)
    return {}


def wave(result: Result) -> dict:
    """Degrees a day to the east by which wave 4 turned, its amplitude, and what else changed of the height (l2)."""
    days, order = result.arrays["days"][:, 0], np.asarray(result.grid.order)
    four = np.where(order == 4, days, 0)
    overlap = (four * four[0].conj()).sum((-2, -1)) / (np.abs(four[0]) ** 2).sum()
    turned = -np.unwrap(np.angle(overlap))[-1] / 4
    turned_start = result.values((days[0] * np.exp(-1j * order * turned))[None])
    pair = jnp.asarray(result.scored(result.setup.days[-1])), jnp.asarray(turned_start)
    return {
        "speed": float(np.degrees(turned)) / result.setup.days[-1],
        "amplitude": float(np.sqrt((np.abs(four[-1]) ** 2).sum() / (np.abs(four[0]) ** 2).sum())),
        "shape": float(cases.norms(result.grid, *pair)["l2"]),
    }


def supremum(truncation: int) -> dict:
    """Largest (ζ + f)/h of the start in m⁻¹ s⁻¹, and its latitude, on a grid that looks between the points."""
    flow, grid, fine = case("galewsky_balanced", truncation), sphere(truncation), sphere(170)
    put = lambda a: fine.to_grid(grid.resize(grid.to_spectral(a), fine))[0]
    depth = (put(flow.start["phi"]) + flow.equation.mean[0]) / cases.GRAVITY
    pv = np.asarray((put(flow.start["zeta"]) + fine.coriolis(cases.ROTATION)) / depth)
    top, row = pv.max(-1), int(np.argmax(pv.max(-1)))
    near = slice(row - 1, row + 2)  # the parabola through three rows: the highest lies between them
    a, b, c = np.polyfit(fine.latitude[near] - fine.latitude[row], top[near], 2)
    return {"supremum": float(c - b**2 / (4 * a)), "latitude": float(fine.latitude[row] - b / (2 * a))}
