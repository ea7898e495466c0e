"""Settings of the data-set generator. Units in every field's docstring; defaults are the `laptop` preset."""

from dataclasses import dataclass, replace
from typing import Literal

SAMPLED = {"rd": "m", "delta": "1", "beta": "m-1 s-1", "shear": "m s-1", "drag": "s-1"}
"""Parameters that are drawn for every run, with their units."""
Range = tuple[float, float]


@dataclass(frozen=True)
class Config:
    """Many runs of two-layer quasi-geostrophic turbulence with parameters drawn at random, kept coarse-grained."""

    runs: int = 16
    """Runs in all."""
    members: int = 2
    """Runs per batch: vectorised on the device, one store each. Many on a GPU; on CPU four cost a fifth more."""
    workers: int = 2
    """Batches at a time, one thread each."""
    validation: int = 2
    """Runs of the validation split, the last but `test` ones."""
    test: int = 2
    """Runs of the test split, the last ones; all others train. Runs are independent draws: their order says nothing."""
    seed: int = 0
    """Parameters and initial state of run i are functions of (seed, i)."""

    rd: Range = (14e3, 16e3)
    """Deformation radius, m; this and the next four are drawn uniformly, each run and parameter independently."""
    delta: Range = (0.22, 0.28)
    """Thickness ratio H1/H2."""
    beta: Range = (1.2e-11, 1.65e-11)
    """Planetary vorticity gradient, m-1 s-1."""
    shear: Range = (0.024, 0.028)
    """Mean flow of the upper layer, m s-1; the lower one is at rest."""
    drag: Range = (3e-7, 8e-7)
    """Bottom drag, s-1."""

    fine: int = 256
    """Modes per side of the simulated flow."""
    coarse: int = 64
    """Modes per side of what is kept."""
    operator: Literal["operator1", "operator2", "operator3", "cutoff"] = "operator1"
    """Coarse-graining, a function of `hybridgcm.coarsen`."""
    length: float = 1e6
    """Side of the square domain, m."""
    dt: float = 3600.0
    """Time step, s."""

    spin_up: int = 25920
    """Steps before the first window (3 years of 360 days)."""
    records: int = 72
    """Windows per run."""
    every: int = 240
    """Steps from one window to the next (10 days)."""
    window: int = 5
    """Frames per window: 1 for offline training, more for online training."""
    frame: int = 6
    """Steps between the frames of a window (6 hours)."""

    def problems(self):
        """What does not fit together, one line each; empty if all is well."""
        if self.fine < 2 * self.coarse:
            yield f"fine={self.fine} must be at least twice coarse={self.coarse}: there is nothing to learn otherwise"
        for name in ("runs", "members", "workers", "records", "every", "window", "frame"):
            if getattr(self, name) < 1:
                yield f"{name} must be at least 1; got {getattr(self, name)}"
        if self.spin_up < 0 or min(self.validation, self.test) < 0:
            yield "spin_up, validation and test cannot be negative"
        if self.validation + self.test >= self.runs:
            yield f"of runs={self.runs}, validation={self.validation} and test={self.test} leave none to train on"
        for name in SAMPLED:
            low, high = getattr(self, name)
            if not 0 < low <= high:
                yield f"{name} is a range (low, high) of positive numbers; got {low, high}"
        weakest = self.delta[0] / (1 + self.delta[0]) * self.shear[0] / self.rd[1] ** 2
        if weakest <= self.beta[1]:
            yield (
                f"some runs would decay: at delta={self.delta[0]}, shear={self.shear[0]} and rd={self.rd[1]} the mean "
                f"flow is stable for beta above {weakest:.3g}, and beta goes up to {self.beta[1]}"
            )
        if (courant := 0.5 * self.dt * self.fine / self.length) > 1:
            yield (
                f"dt={self.dt} s is too long for fine={self.fine}: a flow of .5 m s-1 has Courant number {courant:.2f}"
            )


LAPTOP = Config()
SMOKE = replace(
    LAPTOP, runs=5, members=2, workers=1, validation=1, test=1, fine=32, coarse=16,
    spin_up=24, records=6, every=4, window=3, frame=2,
)  # fmt: skip
ROSS = replace(
    LAPTOP, runs=300, members=25, workers=1, validation=25, test=25,
    rd=(15e3, 15e3), delta=(0.25, 0.25), beta=(1.5e-11, 1.5e-11), shear=(0.025, 0.025), drag=(5.787e-7, 5.787e-7),
    spin_up=0, records=86, every=1000, window=1,
)  # fmt: skip
PRESETS = {"laptop": LAPTOP, "smoke": SMOKE, "ross": ROSS}
