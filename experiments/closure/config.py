"""Settings of the closure experiment. Units in every field's docstring; defaults are the `laptop` preset."""

from dataclasses import dataclass, replace
from typing import Literal


@dataclass(frozen=True)
class Config:
    """Two-layer quasi-geostrophic turbulence at high resolution, and closures for a coarse model of it."""

    fine: int = 256
    """Modes per side of the truth."""
    coarse: int = 64
    """Modes per side of the coarse models."""
    operator: Literal["operator1", "operator2", "cutoff"] = "operator1"
    """Coarse-graining: operators 1 and 2 of Ross et al. (2023), or the sharp cut-off."""

    length: float = 1e6
    """Side of the square domain, m."""
    dt: float = 3600.0
    """Time step of truth and models, s."""
    rd: float = 15e3
    """Deformation radius, m."""
    delta: float = 0.25
    """Thickness ratio H1/H2."""
    beta: float = 1.5e-11
    """Planetary vorticity gradient, m-1 s-1."""
    shear: float = 0.025
    """Mean flow of the upper layer, m s-1; the lower one is at rest."""
    drag: float = 5.787e-7
    """Bottom drag, s-1."""

    spin_up: int = 25920
    """Steps before the training data begin (3 years of 360 days; at 1.5 the flow holds half of its later energy)."""
    learn: int = 17280
    """Steps that the training data span (2 years)."""
    climate: int = 43200
    """Steps that are scored, after the two above (5 years); nothing of them is ever trained or tuned on."""
    snapshot: int = 240
    """Steps between snapshots of climates (10 days)."""
    frame: int = 6
    """Steps between frames of the training data."""
    members: int = 1
    """Truths and free runs per model, from different initial states; data of the first train the closures."""
    first: int = 0
    """Number of the first member: another one is another truth to train on and to be scored by."""

    seeds: int = 1
    """Trainings of each network."""
    network: Literal["small", "guillaumin-zanna"] = "small"
    """A small CNN, or the trunk of Guillaumin and Zanna (2021)."""
    channels: int = 16
    """Hidden channels of the small network."""
    offline_steps: int = 2000
    """Optimiser steps against the subgrid forcing."""
    offline_batch: int = 8
    """Snapshots per offline step."""
    offline_rate: float = 1e-2
    """Largest learning rate offline."""
    horizons: tuple[int, ...] = (4,)
    """Frames per rollout, one stage of online training each."""
    online_steps: tuple[int, ...] = (240,)
    """Optimiser steps of each stage."""
    online_batch: int = 8
    """Trajectories per online step."""
    online_rate: float = 1e-3
    """Largest learning rate online."""

    closures: tuple[str, ...] = ("Smagorinsky", "Leith", "Zanna-Bolton", "Backscatter")
    """Closures with a formula that run beside the networks."""
    amplitudes: tuple[float, ...] = (0.25, 0.5, 0.75, 1.0, 1.25)
    """Multiples of the published amplitude that are tried for each classical closure."""
    network_amplitudes: tuple[float, ...] = ()
    """Multiples of each trained network's output that are tried; empty leaves it at the amplitude that it learned."""
    tuning: int = 21600
    """Steps of each tuning run (2.5 years)."""
    survival_starts: int = 0
    """Starts of the survival test of each model; 0 leaves it out."""
    survival_steps: int = 100_000
    """Steps of each survival run."""
    workers: int = 2
    """Free runs at a time, one thread each."""

    @property
    def numbers(self) -> range:
        """Numbers of the members."""
        return range(self.first, self.first + self.members)

    def problems(self):
        """What does not fit together, one line each; empty if all is well."""
        if self.fine < 2 * self.coarse:
            yield f"fine={self.fine} must be at least twice coarse={self.coarse}: there is nothing to learn otherwise"
        for name in ("spin_up", "learn", "climate", "tuning"):
            steps = getattr(self, name)
            if steps < self.snapshot or steps % self.snapshot:
                yield f"{name}={steps} must be a positive multiple of snapshot={self.snapshot} steps"
        if self.snapshot % self.frame:
            yield f"snapshot={self.snapshot} must be a multiple of frame={self.frame} steps"
        known = type(self).closures
        for name in self.closures:
            if name not in known:
                yield f"closures are of {', '.join(known)}; got {name}"
        if len(self.horizons) != len(self.online_steps):
            yield f"every horizon needs its online_steps; got {self.horizons} and {self.online_steps}"
        courant = 0.5 * self.dt * self.fine / self.length
        if courant > 1:
            yield (
                f"dt={self.dt} s is too long for fine={self.fine}: a flow of .5 m s-1 has Courant number {courant:.2f}"
            )
        if self.first < 0:
            yield f"first={self.first} must be at least 0: members are counted from it"
        for name in ("members", "seeds", "workers", "offline_steps"):
            if getattr(self, name) < 1:
                yield f"{name} must be at least 1; got {getattr(self, name)}"


LAPTOP = Config()
SMOKE = replace(
    LAPTOP, fine=64, coarse=32, spin_up=960, learn=480, climate=480, snapshot=48, frame=4, channels=4,
    offline_steps=10, offline_batch=4, horizons=(1, 2), online_steps=(3, 3), online_batch=2,
    closures=("Smagorinsky",), amplitudes=(0.5, 1.0), network_amplitudes=(1.0,), tuning=480,
)  # fmt: skip
STANDARD = replace(
    LAPTOP, members=10, seeds=3, network="guillaumin-zanna", network_amplitudes=(0.7, 0.85, 1.15),
    offline_steps=5000, offline_batch=64, offline_rate=1e-3,
    horizons=(4, 8), online_steps=(1000, 500), online_rate=3e-4, survival_starts=5,
)  # fmt: skip
PRESETS = {"laptop": LAPTOP, "smoke": SMOKE, "standard": STANDARD}
