"""Settings of the climate of the three-level model. Units in every field's docstring; defaults are `laptop`."""

from dataclasses import dataclass, replace

DAY = 86400


@dataclass(frozen=True)
class Config:
    """Free runs of Marshall and Molteni's model at several truncations, and their climate."""

    truncations: tuple[int, ...] = (21, 42)
    """Triangular truncations."""
    steps_a_day: tuple[int, ...] = (24, 96)
    """AB3 steps a day, one number per truncation."""
    days: int = 10_000
    """Length of every run."""
    spin_up: int = 250
    """Days left out of the climate."""
    inputs: str = ""
    """netCDF file with forcing, orography and land (`qg3.read`); empty: the synthetic winter."""
    blocked: float = 5.0
    """Days that a reversal of the height gradient must last to count as blocking."""
    regimes: int = 4
    """Clusters of low-pass heights over the northern hemisphere."""
    seed: int = 0
    """Of the clusters' first guess."""

    def problems(self):
        """What does not fit together, one line each; empty if all is well."""
        if len(self.steps_a_day) != len(self.truncations):
            yield f"steps_a_day={self.steps_a_day} needs one number for each of truncations={self.truncations}"
        elif any(n % 2 for n in self.steps_a_day):
            yield f"steps_a_day={self.steps_a_day} must be even: heights are kept twice a day"
        if not 0 < self.spin_up < self.days - 30:
            yield f"spin_up={self.spin_up} leaves too little of days={self.days}"
        if self.days % 10 or self.spin_up % 10:
            yield f"days={self.days} and spin_up={self.spin_up} are multiples of 10, the chunks of output"


LAPTOP = Config()
SMOKE = replace(LAPTOP, truncations=(10,), steps_a_day=(12,), days=120, spin_up=20)
PRESETS = {"laptop": LAPTOP, "smoke": SMOKE}
