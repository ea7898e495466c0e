"""Settings of the bias-correction experiment. Units in every field's docstring; defaults are the `laptop` preset."""

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Config:
    """A two-layer model with wrong depths, drag and time step, and corrections learned from its increments."""

    n: int = 64
    """Modes per side, of truth and model."""
    length: float = 1e6
    """Side of the square domain, m."""
    rd: float = 15e3
    """Deformation radius, m."""
    beta: float = 1.5e-11
    """Planetary vorticity gradient, m-1 s-1."""
    shear: float = 0.025
    """Mean flow of the upper layer, m s-1; the lower one is at rest."""
    tau: float = 43200.0
    """Decay time of the smallest resolved wave, s."""
    hills: float = 5e-6
    """Standard deviation of the topographic vorticity f h/H2, s-1: random hills of a sixth of the domain."""

    true_delta: float = 0.25
    """Thickness ratio H1/H2 of the truth."""
    model_delta: float = 0.4
    """Thickness ratio H1/H2 of the model."""
    true_drag: float = 5.787e-7
    """Bottom drag of the truth, s-1."""
    model_drag: float = 2.5e-7
    """Bottom drag of the model, s-1."""
    true_dt: float = 3600.0
    """Time step of the truth, s."""
    model_dt: float = 7200.0
    """Time step of the model, s."""

    window: float = 21600.0
    """Time between analyses, s (6 hours)."""
    nudging: float = 21600.0
    """Time scale of the nudging towards the truth, s."""
    spin_up: int = 7200
    """Windows before anything is used (5 years of 360 days)."""
    learn: int = 2880
    """Windows of the nudged run whose increments are learned (2 years)."""
    gap: int = 360
    """Windows between the training period and the tested ones (90 days)."""
    climate: int = 14400
    """Windows of the tested years and of every free run (10 years)."""
    snapshot: int = 40
    """Windows between snapshots of the climates (10 days)."""
    starts: int = 64
    """First-guess forecasts per seed, spread over the first of the tested years."""
    lead: int = 8
    """Windows of every forecast (2 days)."""

    seeds: int = 5
    """Repetitions with another truth and another network."""
    channels: int = 16
    """Hidden channels of the network."""
    offline_steps: int = 1500
    """Optimiser steps against the increments."""
    offline_rate: float = 1e-2
    """Largest learning rate offline."""
    horizon: int = 4
    """Windows per rollout in online training (1 day)."""
    online_steps: int = 100
    """Optimiser steps through the solver."""
    online_rate: float = 1e-3
    """Largest learning rate online."""
    spectra: float = 1.0
    """Weight of the error of the energy spectra beside the relative energy of the error, online."""
    batch: int = 8
    """Samples per optimiser step."""

    def problems(self):
        """What does not fit together, one line each; empty if all is well."""
        for name in ("true_dt", "model_dt"):
            if self.window % getattr(self, name):
                yield f"window={self.window} s must be a multiple of {name}={getattr(self, name)} s"
        if self.climate % self.snapshot:
            yield f"climate={self.climate} must be a multiple of snapshot={self.snapshot} windows"
        damped = self.model_dt * (1 / self.nudging + 1 / self.tau)
        if damped > 0.54:
            yield f"model_dt (1/nudging + 1/tau) = {damped:.2f} is beyond .54, where AB3 becomes unstable"
        if self.lead > self.snapshot or self.lead < 4:
            yield f"lead={self.lead} must lie between 4 and snapshot={self.snapshot} windows: one day is reported"
        year = 1440 * 21600.0 / self.window
        if self.starts > year:
            yield f"starts={self.starts} do not fit into the {year:.0f} windows of a year"
        for name in ("seeds", "starts", "learn", "horizon"):
            if getattr(self, name) < 1:
                yield f"{name} must be at least 1; got {getattr(self, name)}"


LAPTOP = Config()
SMOKE = replace(
    LAPTOP, n=16, spin_up=80, learn=120, gap=8, climate=80, snapshot=8, starts=4, seeds=2, channels=4,
    offline_steps=10, online_steps=3, batch=2,
)  # fmt: skip
PRESETS = {"laptop": LAPTOP, "smoke": SMOKE}
