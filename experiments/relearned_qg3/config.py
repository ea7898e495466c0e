"""Settings of the re-learned right-hand side. Units in every field's docstring."""

from dataclasses import dataclass, replace
from typing import ClassVar

DAY = 86400
LEARNED = ("linear", "pseudo-spectral network", "U-Net beside the Jacobian")
EMULATORS = ("SFNO emulator", "U-Net emulator")


@dataclass(frozen=True)
class Config:
    """The three-level model, of which all but the Jacobian is learned from its own trajectory."""

    truncation: int = 21
    """Of truth and models."""
    dt: float = 2700.0
    """RK4 time step of both, s, and time between records for training."""
    inputs: str = ""
    """netCDF file with forcing, orography and land (`qg3.read`); empty: the synthetic winter."""
    spin_up: int = 100
    """Days before the records."""
    days: int = 160
    """Days of records for training, every time step."""
    networks: tuple[str, ...] = ()
    """Which of `LEARNED` and `EMULATORS`; empty: all."""
    linear_steps: int = 3000
    """Optimiser steps of the linear closure on pairs of records."""
    one_step: int = 2000
    """Optimiser steps of networks on pairs of records."""
    unrolled: int = 100
    """Optimiser steps of networks through `horizon` time steps of the solver, after those."""
    horizon: int = 6
    """Time steps of an unrolled window."""
    batch: int = 8
    """Pairs, or windows, in a batch."""
    widths: tuple[int, ...] = (16, 32, 64)
    """Channels of the levels of U-Nets."""
    lead: float = 6.0
    """Hours that an emulator steps."""
    emulator_steps: int = 1500
    """Optimiser steps of emulators on pairs of records `lead` apart."""
    starts: int = 20
    """Forecasts, from starts three days apart after the training's records."""
    forecast: int = 20
    """Days that forecasts last."""
    runs: int = 4
    """Free runs, from the first starts of the forecasts on."""
    reference_runs: int = 4
    """Of those, how many of the truth and of the Jacobian alone: all if there are fewer."""
    years: int = 2
    """Years of 360 days that free runs last."""
    free_dt: float = 3600.0
    """Time step of AB3, the scheme of free runs, s."""
    workers: int = 2
    """Free runs at a time, on threads."""
    seeds: int = 2
    """Networks of every kind."""

    selection: ClassVar = ("networks", "runs", "reference_runs", "years", "free_dt", "workers", "seeds")

    def problems(self):
        """What does not fit together, one line each; empty if all is well."""
        for name, seconds in (("dt", self.dt), ("free_dt", self.free_dt)):
            if not seconds > 0 or (DAY / 4) % seconds:
                yield f"{name}={seconds:g} s must divide six hours"
        if not self.lead > 0 or 24 % self.lead or self.lead % 6:
            yield f"lead={self.lead:g} hours must be a multiple of six hours and divide a day"
        names = (
            "truncation",
            "days",
            "linear_steps",
            "one_step",
            "horizon",
            "batch",
            "starts",
            "forecast",
            "runs",
            "years",
            "seeds",
            "emulator_steps",
            "workers",
            "reference_runs",
        )
        for name in names:
            if getattr(self, name) < 1:
                yield f"{name} must be at least 1; got {getattr(self, name)}"
        for name in self.networks:
            if name not in LEARNED + EMULATORS:
                yield f"networks: there are {', '.join(LEARNED + EMULATORS)}; got {name!r}"
        if self.runs > self.starts:
            yield f"runs={self.runs} begin at the starts of forecasts, of which there are {self.starts}"


LAPTOP = Config()
T42 = replace(LAPTOP, truncation=42, networks=LEARNED, seeds=1, runs=1, years=1, free_dt=900.0)
FULL = replace(
    LAPTOP, linear_steps=6000, one_step=6000, unrolled=600, emulator_steps=6000, starts=50, runs=50, years=100,
    seeds=5,
)  # fmt: skip
SMOKE = replace(
    LAPTOP, truncation=10, spin_up=20, days=10, linear_steps=20, one_step=20, unrolled=3, horizon=3, widths=(4, 4),
    emulator_steps=5, starts=2, forecast=4, runs=2, years=1, seeds=1,
)  # fmt: skip
PRESETS = {"laptop": LAPTOP, "t42": T42, "full": FULL, "smoke": SMOKE}
