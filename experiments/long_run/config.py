"""Settings of the long run. Units in every field's docstring; defaults are the `laptop` preset."""

from dataclasses import dataclass, replace
from typing import Literal

YEAR = 360 * 86400


@dataclass(frozen=True)
class Config:
    """A century of two-layer quasi-geostrophic turbulence, kept as yearly climate statistics."""

    n: int = 64
    """Modes per side."""
    length: float = 1e6
    """Side of the square domain, m."""
    dt: float = 3600.0
    """Time step, s."""
    closure: Literal["none", "Smagorinsky", "Leith", "Backscatter"] = "Backscatter"
    """Closure with a formula, at its published amplitude."""
    years: int = 100
    """Years of 360 days."""
    spin_up: int = 10
    """Years left out of the climate and its trends."""
    sample: int = 24
    """Steps between the states that the statistics are made of."""
    bins: int = 101
    """Bins of the histograms of q."""
    largest: tuple[float, float] = (6e-5, 1.5e-5)
    """Ends of those histograms, s-1, per layer; what lies beyond counts in the last bin."""
    courant: float = 1.0
    """Courant number at which a year counts as blown up."""
    ladder: bool = True
    """Go on from a blow-up by the crash ladder; otherwise stop."""
    seed: int = 0
    """Of the initial state."""

    def problems(self):
        """What does not fit together, one line each; empty if all is well."""
        if YEAR % self.dt:
            yield f"dt={self.dt:g} s must divide a year of {YEAR} s"
        elif YEAR / self.dt % self.sample:
            yield f"sample={self.sample} must divide the {YEAR / self.dt:.0f} steps of a year"
        if not 0 <= self.spin_up < self.years:
            yield f"spin_up={self.spin_up} must be shorter than years={self.years}"
        for name in ("n", "bins", "sample"):
            if getattr(self, name) < 1:
                yield f"{name} must be at least 1; got {getattr(self, name)}"
        courant = 0.5 * self.dt * self.n / self.length
        if courant > 1:
            yield f"dt={self.dt} s is too long for n={self.n}: a flow of .5 m s-1 has Courant number {courant:.2f}"


LAPTOP = Config()
SMOKE = replace(LAPTOP, n=16, dt=14400.0, years=4, spin_up=1, sample=60, closure="none")
PRESETS = {"laptop": LAPTOP, "smoke": SMOKE}
