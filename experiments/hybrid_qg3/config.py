"""Settings of the learned corrections of the three-level model. Units in every field's docstring."""

from dataclasses import dataclass, replace
from typing import ClassVar

DAY = 86400


@dataclass(frozen=True)
class Config:
    """A model that is not the truth (coarser, or with wrong physics), corrected by what its increments teach."""

    truncation: int = 21
    """Of the model; analyses and scores are on its harmonics."""
    dt: float = 7200.0
    """RK4 time step of the model, s."""
    truth_truncation: int = 21
    """Of the truth."""
    truth_dt: float = 7200.0
    """RK4 time step of the truth, s."""
    inputs: str = ""
    """netCDF file with forcing, orography and land (`qg3.read`); empty: the synthetic winter."""
    orography: float = 0.5
    """Of the model, as a share of the truth's."""
    friction: float | None = 6.0
    """Time scale of the model's Ekman friction everywhere, days; none: the truth's, 3 over sea, less over land."""
    relaxation: float = 40.0
    """Time scale of the model's relaxation of temperature, days; the truth has 25."""
    hyperdiffusion: tuple[float, ...] = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
    """Time scales of the model's hyperdiffusion at its truncation that are tried, days; untuned it has 2."""
    spin_up: int = 100
    """Days before analyses and before climates."""
    analyses: int = 720
    """Days of analyses, every six hours; the last fifth is for testing."""
    climate: int = 1800
    """Days of every climate."""
    tuning: int = 150
    """Days of a run that tunes, after half a spin-up, compared with the climate of the analyses for training."""
    width: int = 24
    """Channels of the network's two hidden layers."""
    linear_steps: int = 1500
    """Optimiser steps of the linear closure through the solver, from one analysis to the next."""
    offline_steps: int = 1500
    """Optimiser steps on increments."""
    online_steps: int = 150
    """Optimiser steps through the solver."""
    horizon: int = 4
    """Analyses that a window of online training spans."""
    members: int = 10
    """Of the ensemble that tunes amplitudes without gradients."""
    iterations: int = 3
    """Updates of that ensemble."""
    seeds: int = 5
    """Networks."""

    selection: ClassVar = ("seeds",)

    def problems(self):
        """What does not fit together, one line each; empty if all is well."""
        for name in ("dt", "truth_dt"):
            if not getattr(self, name) > 0 or (DAY / 4) % getattr(self, name):
                yield f"{name}={getattr(self, name):g} s must divide six hours"
        if self.truth_truncation < self.truncation:
            yield f"the truth, T{self.truth_truncation}, lacks harmonics of the model, T{self.truncation}"
        if self.analyses * 4 // 5 < self.horizon or self.analyses < 5:
            yield f"analyses={self.analyses} days leave no window of {self.horizon} analyses"
        if self.horizon % 2:
            yield f"horizon={self.horizon} must be even: gradients are recomputed in blocks of two analyses"
        if self.climate % 10 or self.tuning % 10:
            yield f"climate={self.climate} and tuning={self.tuning} days are multiples of 10"
        for name in (
            "truncation",
            "climate",
            "tuning",
            "width",
            "linear_steps",
            "offline_steps",
            "online_steps",
            "horizon",
            "seeds",
        ):
            if getattr(self, name) < 1:
                yield f"{name} must be at least 1; got {getattr(self, name)}"
        for name in ("friction", "relaxation", *(["hyperdiffusion"] if self.hyperdiffusion else [])):
            times = getattr(self, name)
            if times is not None and not min(times if isinstance(times, tuple) else (times,)) > 0:
                yield f"{name} is a time scale, positive; got {times}"


IMPERFECT = Config()
COARSE = replace(
    IMPERFECT, dt=5400.0, truth_truncation=42, truth_dt=1800.0, orography=1.0, friction=None, relaxation=25.0
)  # fmt: skip
SMOKE = replace(
    IMPERFECT, truncation=10, truth_truncation=10, spin_up=20, analyses=40, climate=40, tuning=20, width=4,
    hyperdiffusion=(1.0, 4.0), linear_steps=20, offline_steps=20, online_steps=3, horizon=2, members=3, iterations=1,
    seeds=2,
)  # fmt: skip
COARSE_SMOKE = replace(
    SMOKE, truth_truncation=15, truth_dt=3600.0, orography=1.0, friction=None, relaxation=25.0, seeds=1
)  # fmt: skip
PRESETS = {"imperfect": IMPERFECT, "coarse": COARSE, "smoke": SMOKE, "coarse-smoke": COARSE_SMOKE}
