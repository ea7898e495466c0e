"""Settings of the operators learned on a sphere. Units in every field's docstring."""

from dataclasses import dataclass, replace
from typing import ClassVar, Literal, get_args

Name = Literal["sfno", "local", "slopes"]


@dataclass(frozen=True)
class Config:
    """Spherical neural operators of shallow water, one lead later: on the grid of the training, and on a finer one."""

    truncation: int = 21
    """Of the pairs for training; 21 has 32 × 64 points."""
    fine: int = 42
    """Of the finer test pairs; 42 has 64 × 128 points."""
    largest: int = 10
    """Largest degree of the starts, on every grid."""
    lead: float = 3600.0
    """From start to target, s; a step of the networks."""
    dt: float = 300.0
    """Time step of the truth, s."""
    mach: float = 0.2
    """Of vorticity and divergence, see `pairs.shallow_water`."""
    thickness: float = 0.012
    """Of the geopotential, see there."""
    epochs: int = 20
    """Of `samples` each; no pair is seen twice."""
    samples: int = 200
    """Pairs of an epoch."""
    batch: int = 4
    """Pairs of a step."""
    rate: float = 8e-4
    """Learning rate at the start; it falls as a cosine to zero."""
    tests: int = 50
    """Test pairs, of the same starts at both resolutions."""
    hidden: int = 48
    """Channels of the networks without local convolutions."""
    local_hidden: int = 24
    """Channels of those with."""
    layers: int = 4
    """Blocks of each."""
    cutoff: float = 2e6
    """Reach of the local convolutions, m."""
    seeds: int = 1
    """Networks of each recipe."""
    starts: int = 3
    """Free runs of each network."""
    steps: int = 2000
    """Their length, in leads."""
    recipes: tuple[Name, ...] = get_args(Name)
    """What is trained: an SFNO, one with local convolutions beside the global ones, one given winds and slopes."""

    selection: ClassVar = ("seeds", "recipes", "starts", "steps")

    def problems(self):
        """What does not fit together, one line each; empty if all is well."""
        for name in ("largest", "epochs", "samples", "batch", "tests", "hidden", "local_hidden", "layers", "seeds"):
            if getattr(self, name) < 1:
                yield f"{name} must be at least 1; got {getattr(self, name)}"
        if not self.recipes or len(set(self.recipes)) != len(self.recipes):
            yield f"recipes must name at least one and each once; got {self.recipes}"
        if not self.largest <= self.truncation < self.fine:
            yield f"largest <= truncation < fine; got {self.largest}, {self.truncation}, {self.fine}"
        if self.samples % self.batch:
            yield f"samples={self.samples} must be a multiple of batch={self.batch}"
        if not 1 <= self.starts <= self.tests:
            yield f"starts={self.starts} are taken from the tests={self.tests}"
        if self.steps < 240 or self.steps % 40:
            yield f"steps={self.steps} must be a multiple of 40 and at least 240"


LAPTOP = Config()
SMOKE = replace(
    LAPTOP, truncation=10, fine=21, largest=4, epochs=2, samples=8, tests=4, hidden=4, local_hidden=4, layers=1,
    cutoff=5e6, seeds=2, starts=2, steps=240,
)  # fmt: skip
PRESETS = {"laptop": LAPTOP, "smoke": SMOKE}
