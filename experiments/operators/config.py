"""Settings of the operator learning on small pairs. Units in every field's docstring."""

from dataclasses import dataclass, replace
from typing import Literal, get_args

Name = Literal["published", "symmetric", "hybrid", "burgers", "burgers1d"]


@dataclass(frozen=True)
class Config:
    """Fourier neural operators of Darcy flow and Burgers' equation, beside published numbers and simple methods."""

    darcy: str = ""
    """netCDF file of the public Darcy pairs (`pairs.read_darcy`); empty: pairs of our own generator."""
    burgers: str = ""
    """netCDF file of the public Burgers pairs (`pairs.read_burgers`); empty: pairs of our own generator."""
    n: int = 16
    """Points a side of pairs that are made; Darcy's are tested on 2n as well."""
    samples: int = 1000
    """Pairs for training that are made (800 of 1000 of Burgers)."""
    tests: int = 50
    """Pairs for testing that are made, at each resolution."""
    hidden: int = 24
    """Channels of the networks."""
    layers: int = 4
    """Fourier layers of the networks."""
    modes: int = 8
    """Modes of Darcy's networks along each axis, both signs."""
    epochs: int = 15
    """Of the published recipe."""
    symmetric_epochs: int = 60
    """Of the recipes with symmetries."""
    burgers_epochs: int = 40
    """Of Burgers' recipe."""
    burgers1d_epochs: int = 100
    """Of the recipe on the circle."""
    burgers1d_points: int = 256
    """Points of Burgers' equation on the circle, for training."""
    burgers1d_finest: int = 8192
    """Points that solutions are made at; tests are at twice, four times ... as many as trained, up to these."""
    burgers1d_hidden: int = 64
    """Channels of its network."""
    burgers1d_modes: int = 16
    """Modes of its network, from the mean on."""
    seeds: int = 3
    """Networks of each recipe."""
    recipes: tuple[Name, ...] = get_args(Name)[:-1]
    """What is trained: on Darcy's pairs neuraloperator's recipe, one with symmetries, the same beside the numerical
    solution; on Burgers' pairs; on those of Burgers' equation on the circle from time 0 to 1 (`burgers1d`)."""

    def problems(self):
        """What does not fit together, one line each; empty if all is well."""
        epochs = ("epochs", "symmetric_epochs", "burgers_epochs", "burgers1d_epochs")
        for name in ("samples", "tests", "hidden", "layers", *epochs, "seeds", "burgers1d_hidden", "burgers1d_modes"):
            if getattr(self, name) < 1:
                yield f"{name} must be at least 1; got {getattr(self, name)}"
        if not self.recipes or len(set(self.recipes)) != len(self.recipes):
            yield f"recipes must name at least one and each once; got {self.recipes}"
        if self.samples < 64:
            yield f"samples={self.samples} must be at least 64, a batch"
        n = 16 if self.darcy else self.n
        if n % 4 or 256 % n:
            yield f"n={n} must be a power of two from 4 to 256"
        if not 1 <= self.modes < n:
            yield f"modes={self.modes} must be below the {n} points a side, else they reach beyond Nyquist"
        first, last = self.burgers1d_points, self.burgers1d_finest
        if not 4 <= first <= last or first & (first - 1) or last & (last - 1):
            yield f"burgers1d_points={first} and burgers1d_finest={last} must be powers of two from 4 on, in this order"
        if 2 * self.burgers1d_modes > first:
            yield f"burgers1d_modes={self.burgers1d_modes} must be at most half of the {first} points"


LAPTOP = Config()
SMOKE = replace(
    LAPTOP, n=8, samples=64, tests=8, hidden=4, layers=1, modes=4, epochs=3, symmetric_epochs=2, burgers_epochs=2,
    seeds=2, recipes=("symmetric", "burgers"),
)  # fmt: skip
BURGERS1D = replace(LAPTOP, tests=200, recipes=("burgers1d",))
PRESETS = {"laptop": LAPTOP, "smoke": SMOKE, "burgers1d": BURGERS1D}
