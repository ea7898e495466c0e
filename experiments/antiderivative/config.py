"""Settings of the antiderivative that a DeepONet learns. Units in every field's docstring."""

from dataclasses import dataclass, replace
from typing import ClassVar


@dataclass(frozen=True)
class Config:
    """s(x) = ∫₀ˣ u from the values of u at sensors: Lu et al. (2021), doi:10.1038/s42256-021-00302-5."""

    functions: int = 10_000
    """For training, each known at one place: unaligned data."""
    tests: int = 1000
    """Functions for testing, each asked at all sensors."""
    sensors: int = 100
    """Places in [0, 1] where a function is given."""
    width: float = 0.2
    """Length scale of the Gaussian functions, in units of the interval."""
    hidden: int = 50
    """Width and rank of branch and trunk."""
    depth: int = 4
    """Hidden layers of each."""
    batch: int = 500
    """Functions of a step."""
    mixed: int = 4
    """Functions known at the same place, of whose random combination (squares of the weights add up to one) a function
    of a step is made: known as exactly, since the operator is linear, and as Gaussian."""
    steps: int = 12_000
    """Of Muon, Jordan et al. (2024), https://kellerjordan.github.io/posts/muon; biases take Adam's."""
    rate: float = 1e-2
    """Learning rate at its largest, after the first twentieth of the steps; it falls as a cosine."""
    seeds: int = 3
    """Networks."""

    selection: ClassVar = ("seeds",)

    def problems(self):
        """What does not fit together, one line each; empty if all is well."""
        for name in ("functions", "tests", "hidden", "depth", "batch", "mixed", "steps", "seeds"):
            if getattr(self, name) < 1:
                yield f"{name} must be at least 1; got {getattr(self, name)}"
        if self.sensors < 2 or not self.width > 0:
            yield f"sensors={self.sensors} must be at least 2 and width={self.width} positive"


LAPTOP = Config()
SMOKE = replace(LAPTOP, functions=2000, tests=50, hidden=20, depth=1, batch=100, steps=1000, seeds=1)
PRESETS = {"laptop": LAPTOP, "smoke": SMOKE}
