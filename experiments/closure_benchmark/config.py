"""Sizes of the closure benchmark: how much truth, how many seeds. Defaults are the `full` preset."""

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Truths:
    """How much truth of every flow. Times are numbers of snapshots, 1000 h apart in the two-layer flows."""

    fine: int = 256
    """Modes per side of the truth."""
    stored: int = 96
    """Modes per side of the training frames, cut off sharply: coarser data of any operator are made from them."""

    members: int = 10
    """Truths that are scored against."""
    warm: int = 44
    """Snapshots before the scored ones (5 years of 360 days)."""
    scored: int = 128
    """Scored snapshots (15 years)."""

    learn: int = 8
    """Truths that closures are trained on; their starts are others than those of `members`."""
    validation: int = 2
    """Further truths, for early stopping and a-priori scores."""
    spin_up: int = 26
    """Snapshots before the training frames (3 years)."""
    frames: int = 9
    """Snapshots that the training frames of each run span (a year)."""
    tuning: int = 51
    """Snapshots after the frames, of all these runs: the climate for tuning and model selection (6 years each)."""


@dataclass(frozen=True)
class Config:
    """The truths, and how much is done with every closure."""

    truths: Truths = Truths()
    """Sizes of the data."""
    members: int = 10
    """Free runs per closure, from the coarse-grained starts of the truths, as long as these."""
    seeds: int = 5
    """Trainings of every network."""
    effort: float = 1.0
    """Optimiser steps of every training, as a multiple of the method's own number."""
    amplitudes: tuple[float, ...] = (0.25, 0.5, 0.75, 1.25, 1.5)
    """Multiples of every closure's output that are tried beside 1, one number tuned a posteriori; empty: none."""
    tuning_members: int = 2
    """Free runs per amplitude that is tried."""
    starts: int = 10
    """Starts of the survival test."""
    survival: int = 100_000
    """Steps of each survival run."""

    def problems(self):
        """What does not fit together, one line each; empty if all is well."""
        truths = self.truths
        if truths.stored > truths.fine:
            yield f"truths.stored={truths.stored} cannot be finer than truths.fine={truths.fine}"
        for name in ("members", "scored", "learn", "validation", "frames", "tuning"):
            if getattr(truths, name) < 1:
                yield f"truths.{name} must be at least 1; got {getattr(truths, name)}"
        for name in ("members", "seeds", "tuning_members", "starts", "survival"):
            if getattr(self, name) < 1:
                yield f"{name} must be at least 1; got {getattr(self, name)}"
        if self.effort <= 0:
            yield f"effort must be positive; got {self.effort}"


FULL = Config()
LAPTOP = Config(
    Truths(members=3, scored=64, learn=3, validation=1, frames=5, tuning=30),
    members=3, seeds=2, effort=0.5, tuning_members=1, amplitudes=(0.5, 1.5), starts=2,
)  # fmt: skip
SMOKE = replace(
    LAPTOP,
    truths=Truths(
        fine=128, stored=64, members=2, warm=1, scored=2, learn=1, validation=1, spin_up=1, frames=1, tuning=2
    ),
    members=2, seeds=1, effort=0.005, amplitudes=(0.5,),
)  # fmt: skip
PRESETS = {"full": FULL, "laptop": LAPTOP, "smoke": SMOKE}
