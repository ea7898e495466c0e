"""A year of stirred barotropic turbulence: how the energy is spent, and whether jets emerge."""

import json
import time

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

import hybridgcm as hg
from experiments.standard_cases.stages import DAY, sphere, steps_per_day
from hybridgcm import cases, diagnostics
from hybridgcm.files import atomic

STEP = 3600.0
"""Time step at T42, s; shorter at other truncations as in `steps_per_day`."""
PRECISION = "float32"
"""Of the model: statistics need no more."""


@eqx.filter_jit
def day(model, state, steps: int):
    """The state after a day, and what the day was: energies, work of every cause, zonal wind, spectra.

    Work is −⟨ψ̄ ∂q/∂t⟩ per cause with ψ̄ and q̄ the means of before and after a step: with the stirring, which is held
    over the step, exact; so its Itô part, rate × dt, is in it. Energies in m² s⁻², work in m² s⁻² per day.
    """
    flow, grid = model.equation, model.equation.grid

    def advance(state, _):
        forcing, _ = model.closure(model.view(state), grid, state.memory, jr.fold_in(state.key, state.step))
        after = model.step(state)
        q = (state.y["q"] + after.y["q"]) / 2
        psi = flow.invert(q)
        causes = forcing["q_hat"], -flow.drag * q, flow.implicit({"q": q})["q"]
        return after, jnp.stack([-grid.inner(psi, a)[0] for a in causes])

    state, work = jax.lax.scan(advance, state, None, length=steps)
    psi = flow.invert(state.y["q"])
    density = -grid.cospectrum(psi, state.y["q"])[0] / 2
    zonal = jnp.where(grid.order == 0, density, 0)
    return state, {
        "energy": diagnostics.energy(model, state),
        "work": model.dt * work.sum(0),
        "u": grid.velocity(psi)[0][0].mean(-1),
        "spectrum": grid.spectrum(density),
        "zonal_spectrum": grid.spectrum(zonal),
    }


def integrate(truncation: int, days: int, folder):
    """Fill days.npz (what `day` says of every day; the coefficients of q in the end) and run.json.

    Raises `BlewUp` on the first day whose energy is not finite.
    """
    steps = steps_per_day(truncation, STEP)
    flow = cases.turbulence(sphere(truncation, PRECISION), DAY / steps)
    model = hg.Model(flow.equation, hg.RK4(), flow.closure, dt=DAY / steps)
    state, found, begin = model.encode(flow.start, jr.key(0)), [], time.monotonic()
    for _ in range(days):
        before, (state, about) = state, day(model, state, steps)
        found.append(jax.tree.map(np.asarray, about))
        if not np.isfinite(found[-1]["energy"]):
            raise hg.BlewUp("energy", int(state.step), before)
    seconds = time.monotonic() - begin
    arrays = {name: np.stack([one[name] for one in found]) for name in found[0]}
    np.savez(folder / "days.npz", end_q=np.asarray(state.y["q"]), **arrays)
    record = {"dt": model.dt, "stepper": "RK4", "seconds": round(seconds, 2)}
    record |= {"rate": float(flow.closure.rate), "drag": float(flow.equation.drag)}
    with atomic(folder / "run.json") as temporary:
        temporary.write_text(json.dumps(record, indent=1))


class Year:
    """One finished run, and the numbers of its second half."""

    def __init__(self, truncation: int, folder):
        self.truncation, self.grid = truncation, sphere(truncation)
        self.about = json.loads((folder / "run.json").read_text())
        with np.load(folder / "days.npz") as file:
            self.arrays = {name: a.astype(np.complex128 if name == "end_q" else float) for name, a in file.items()}
        self.late = slice(len(self.arrays["energy"]) // 2, None)

    @property
    def at_rest(self) -> np.ndarray:
        """½ ε/r (1 − exp(−2rt)), m² s⁻², at the end of every day: the energy without hyperdiffusion, r the drag."""
        rate, drag = self.about["rate"], self.about["drag"]
        return rate / (2 * drag) * -np.expm1(-2 * drag * DAY * np.arange(1, len(self.arrays["energy"]) + 1))

    def mean(self, name: str) -> np.ndarray:
        """Over the days of the second half."""
        return self.arrays[name][self.late].mean(0)

    def record(self) -> dict:
        """What the report says: shares of ε, of ε/2r and of the energy; total degrees."""
        energy, work = self.arrays["energy"], self.arrays["work"]
        rate, drag = self.about["rate"], self.about["drag"]
        stirring, friction, diffusion = (float(a) for a in self.mean("work") / (rate * DAY))
        months = work[: len(work) // 30 * 30, 0].reshape(-1, 30).mean(1) / (rate * DAY)
        zonal = self.mean("zonal_spectrum")
        speed = np.sqrt(2 * self.mean("energy"))
        return self.about | {
            "truncation": self.truncation,
            "days": len(energy),
            "stirring": float(months.mean()),
            "stirring_error": float(months.std() / np.sqrt(max(len(months) - 1, 1))),
            "energy": float(self.mean("energy")) / (rate / (2 * drag)),
            "balance": stirring + diffusion,
            "spent": {"drag": -friction, "hyperdiffusion": -diffusion},
            "residual": float(abs(energy[-1] - work.sum())) / (rate * DAY * len(energy)),
            "zonal": float(zonal.sum() / self.mean("spectrum").sum()),
            "jets": int((np.diff(np.sign(self.mean("u"))) != 0).sum()),
            "degree": float((zonal * np.arange(len(zonal))).sum() / zonal.sum()),
            "rhines": float(np.sqrt(cases.ROTATION * cases.RADIUS / speed)),
        }


def rows(records: list[dict]) -> list[str]:
    """Markdown rows: quantity, run, precision, here, elsewhere."""
    out = []
    for one in records:
        about, days = (f"T{one['truncation']}", PRECISION), one["days"]
        share = one["spent"]["hyperdiffusion"]
        out += [
            ("Turbulence, energy that the stirring gave / ε", *about,
             f"{one['stirring']:.3f} ± {one['stirring_error']:.3f}", "1"),
            ("Turbulence, change of energy less all work / that given", *about, f"{one['residual']:.1e}", "0"),
            (f"Turbulence, energy / (ε/2r), days {days // 2} to {days}", *about, f"{one['energy']:.3f}",
             f"{one['balance']:.3f}: what is given, less {share:.3f} to hyperdiffusion"),
            ("Turbulence, share of zonal flow in energy", *about, f"{one['zonal']:.2f}", "about .1 without rotation"),
            ("Turbulence, mean total degree of the zonal energy", *about,
             f"{one['degree']:.1f}; the mean u changes sign {one['jets']} times", f"{one['rhines']:.1f} (Rhines)"),
        ]  # fmt: skip
    return [f"| {' | '.join(row)} |" for row in out]
