"""Settings of the learned corrections of the three-level model. Units in every field's docstring."""

from dataclasses import dataclass, replace

DAY = 86400


@dataclass(frozen=True)
class Config:
    """An imperfect model (orography, land, friction, relaxation), corrected by what its increments teach."""

    truncation: int = 21
    """Of truth and model."""
    dt: float = 7200.0
    """RK4 time step of both, s."""
    inputs: str = ""
    """netCDF file with forcing, orography and land (`qg3.read`); empty: the synthetic winter."""
    orography: float = 0.5
    """Of the model, as a share of the truth's."""
    friction: float = 6.0
    """Time scale of the model's Ekman friction everywhere, days; the truth has 3 over sea and less over land."""
    relaxation: float = 40.0
    """Time scale of the model's relaxation of temperature, days; the truth has 25."""
    spin_up: int = 100
    """Days before analyses and before climates."""
    analyses: int = 720
    """Days of analyses, every six hours; the last fifth is for testing."""
    climate: int = 1440
    """Days of every climate."""
    width: int = 24
    """Channels of the network's two hidden layers."""
    offline_steps: int = 1500
    """Optimiser steps on increments."""
    online_steps: int = 150
    """Optimiser steps through the solver."""
    horizon: int = 8
    """Analyses that a window of online training spans."""
    seeds: int = 5
    """Networks."""

    def problems(self):
        """What does not fit together, one line each; empty if all is well."""
        if (DAY / 4) % self.dt:
            yield f"dt={self.dt:g} s must divide six hours"
        if self.analyses * 4 // 5 < self.horizon or self.analyses < 5:
            yield f"analyses={self.analyses} days leave no window of {self.horizon} analyses"
        for name in ("truncation", "climate", "width", "offline_steps", "online_steps", "horizon", "seeds"):
            if getattr(self, name) < 1:
                yield f"{name} must be at least 1; got {getattr(self, name)}"
        for name in ("friction", "relaxation"):
            if not getattr(self, name) > 0:
                yield f"{name} is a time scale, positive; got {getattr(self, name)}"


LAPTOP = Config()
SMOKE = replace(
    LAPTOP, truncation=10, spin_up=20, analyses=40, climate=40, width=4, offline_steps=20, online_steps=3, horizon=2,
    seeds=2,
)  # fmt: skip
PRESETS = {"laptop": LAPTOP, "smoke": SMOKE}
