"""Settings of Burgers' equation that a DeepONet learns from the equation alone. Units in every field's docstring."""

from dataclasses import dataclass, replace
from typing import ClassVar


@dataclass(frozen=True)
class Config:
    """u_t + u u_x = ν u_xx on the unit circle for t in [0, 1]: Wang, Wang and Perdikaris (2021),
    doi:10.1126/sciadv.abi8605."""

    viscosity: float = 0.01
    """ν, for a circle and a time of one."""
    functions: int = 1000
    """Initial values that are trained on; their shifts and mirror images are solved alike, and are drawn besides."""
    tests: int = 100
    """Initial values of which the exact solution is asked for, at all sensors and eleven times."""
    sensors: int = 128
    """Points of the initial values, a divisor of 256."""
    rank: int = 100
    """Products of a function of time and one of place that make a solution."""
    width: int = 100
    """Of hidden layers."""
    depth: int = 4
    """Hidden layers of the branch and of each of the two trunks, all gated by their input."""
    batch: int = 32
    """Functions of a step."""
    times: int = 16
    """Times of a step, drawn at random, the same for all its functions."""
    places: int = 64
    """Points of a step, equally far apart from a random first one."""
    start_weight: float = 20.0
    """Weight of the initial values beside the equation."""
    steps: int = 12_000
    """Of Muon, Jordan et al. (2024), https://kellerjordan.github.io/posts/muon; biases take Adam's."""
    rate: float = 1e-2
    """Learning rate at its largest, after the first steps; it falls as a cosine."""
    seeds: int = 3
    """Networks."""

    selection: ClassVar = ("seeds",)

    def problems(self):
        """What does not fit together, one line each; empty if all is well."""
        for name, value in vars(self).items():
            if not value > 0:
                yield f"{name} must be positive; got {value}"
        if self.sensors < 4 or 256 % self.sensors:
            yield f"sensors={self.sensors} must be a power of two from 4 to 256"


LAPTOP = Config()
SMOKE = replace(
    LAPTOP, functions=20, tests=3, sensors=32, rank=16, width=16, depth=1, batch=8, times=4, places=16, steps=100,
    seeds=1,
)  # fmt: skip
PRESETS = {"laptop": LAPTOP, "smoke": SMOKE}
