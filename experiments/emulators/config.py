"""Settings of the emulators of our own flows. Units in every field's docstring."""

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

PLANE = ("FNO", "TFNO", "UNO", "U-Net", "dilated ResNet", "CNN", "transformer", "POD-DeepONet", "linear")
SPHERE = ("SFNO", "local SFNO", "spherical U-Net", "polar CNN", "POD-DeepONet", "linear")
"""Networks on a plane and on a sphere, in the order of the tables; the last is one linear map per wave or degree."""


@dataclass(frozen=True)
class Config:
    """Networks in the place of a solver, and the long runs, finer grids and ensembles that they are put to."""

    flow: Literal["qg", "shallow_water", "sphere", "qg3"] = "qg"
    """Two-layer quasi-geostrophic turbulence, rotating shallow water on a plane, a maintained unstable jet of shallow
    water on a sphere, Marshall and Molteni's three-level atmosphere."""
    inputs: str = ""
    """netCDF file with forcing, orography and land of the three-level atmosphere; empty: the synthetic winter."""
    lead: float = 0.0
    """Seconds that an emulator steps; 0: a day of the two-layer flow, six hours of the others."""
    n: int = 16
    """Points a side of the emulators' plane; on a sphere n rows at truncation ⌊2n/3⌋."""
    networks: tuple[str, ...] = ()
    """Which; empty: all that there are for the flow."""
    seeds: int = 3
    """Networks of every kind."""
    size: float = 1.0
    """Factor on the channels of all networks."""
    calm: float = 1.0
    """Factor on the days that the truth runs before it is recorded."""
    records: int = 10_000
    """Records of the truth for training, one lead apart."""
    one_step: int = 2000
    """Optimiser steps on pairs of records."""
    blur: float = 0.03
    """Standard deviation of the noise on the starts of the first pairs (where networks drift: of all pairs and windows,
    as much in every wavenumber), over that of the fields (on a sphere: of what varies at a place): errors are met in
    training. Less than a lead's change is wanted."""
    unrolled: int = 300
    """Optimiser steps through `horizon` steps of the emulator, after those."""
    horizon: int = 0
    """Steps of an unrolled window; 0: 16 where networks drift, which shows in so many, 4 elsewhere."""
    rounds: int = 6
    """Times at most that the network then runs freely, the truth's solver goes on from where it went, and it trains on
    that besides: until no run is lost. Kept is what loses fewest."""
    strays: int = 32
    """Free runs of a round."""
    stray_leads: int = 5000
    """Leads that these last."""
    stray_excess: float = 1.5
    """Runs start from records times up to this, as more go astray from there."""
    stray_limit: float = 2.5
    """A run is lost where its variance is so many times the largest of the truth's records."""
    stray_decades: float = 0.0
    """Or where its spectra of the last 250 leads differ from the truth's by so many decades, mean over wavenumbers, as
    where waves die out; 0: not looked at. Blocks of 250 records of the sphere differ by .1, at most by .2."""
    solver_leads: int = 20
    """Leads that the solver goes on."""
    recall: float = 0.0
    """Days in which the solver then draws what is far beyond the records to their mean besides (`astray.Recall`): for
    leads in which the truth's own return is too little to be learnt; 0: not."""
    round_steps: int = 1500
    """Optimiser steps of a round on pairs, before `unrolled` ones."""
    batch: int = 8
    """Pairs in a batch; of windows a quarter of it."""
    starts: int = 16
    """Forecasts, from starts that are `apart` leads apart after the training's records."""
    apart: int = 15
    """Leads between the starts of forecasts."""
    forecast: int = 60
    """Leads that forecasts last."""
    free_steps: int = 100_000
    """Steps of the free run of every network."""
    solver_steps: int = 10_000
    """Leads of the free run of the solver at the emulators' resolution."""
    members: int = 50
    """Of an ensemble of every kind of network."""
    many: int = 1000
    """Of one ensemble of the first kind, for its time."""
    noise: float = 0.05
    """Standard deviation of the noise that members start with, over that of what varies at a place."""

    selection: ClassVar = ("networks", "seeds", "free_steps", "solver_steps", "members", "many")

    def problems(self):
        """What does not fit together, one line each; empty if all is well."""
        for name in ("seeds", "one_step", "batch", "starts", "apart", "forecast", "free_steps", "solver_steps"):
            if getattr(self, name) < 1:
                yield f"{name} must be at least 1; got {getattr(self, name)}"
        if self.n < 8 or self.n % 8:
            yield f"n={self.n} must be a multiple of 8, as U-Nets halve it twice and finer grids double it"
        if self.records < max(self.window() + 1, 2):
            yield f"records={self.records} must hold a window of horizon + 1 = {self.window() + 1}"
        if self.free_steps % 100 or self.solver_steps % 100:
            yield f"free runs are looked at every 100 steps; got {self.free_steps} and {self.solver_steps}"
        enough = min(self.strays, self.stray_leads, self.round_steps) >= 1 and self.solver_leads > self.window()
        if self.rounds < 0 or (self.rounds and not enough):
            yield (
                f"rounds={self.rounds} need runs, leads, steps, and horizon + 1 = {self.window() + 1} records of the "
                f"solver; got strays={self.strays}, stray_leads={self.stray_leads}, round_steps={self.round_steps}, "
                f"solver_leads={self.solver_leads}"
            )
        if not (self.lead >= 0 and self.lead % 3600 == 0):
            yield f"lead={self.lead:g} must be whole hours in seconds, or 0 for the flow's own"
        if self.members < 2 or self.many < 0:
            yield f"an ensemble has two members or more; got members={self.members}, many={self.many}"
        if not self.stray_excess >= 1:
            yield f"stray_excess={self.stray_excess} is a factor of at least 1"
        positive, not_negative = (self.size, self.calm, self.noise), (self.blur, self.recall, self.stray_decades)
        if not (min(positive) > 0 and min(not_negative) >= 0):
            yield f"size, calm and noise are positive, blur, recall and stray_decades not negative; got {self}"
        for name in self.networks:
            if name not in self.available():
                yield f"networks: {self.flow} has {', '.join(self.available())}; got {name!r}"

    def window(self) -> int:
        """Leads of an unrolled window."""
        return self.horizon or (16 if self.drift() else 4)

    def drift(self) -> bool:
        """Whether networks drift into slow modes of the flow that its records hardly have: jets on a sphere."""
        return self.flow == "sphere"

    def available(self) -> tuple[str, ...]:
        """Names of the networks that there are for the flow."""
        return PLANE if self.flow in ("qg", "shallow_water") else SPHERE

    def chosen(self) -> tuple[str, ...]:
        """Names of the networks that are trained."""
        return self.networks or self.available()


LAPTOP = Config()
SMOKE = replace(
    LAPTOP, seeds=1, size=0.25, calm=0.02, records=40, one_step=6, unrolled=2, horizon=2, rounds=1, strays=3,
    stray_leads=20, stray_limit=0.0, solver_leads=4, round_steps=4, batch=2, starts=2, apart=4, forecast=6,
    free_steps=200, solver_steps=100, members=3, many=4, networks=("FNO", "linear"),
)  # fmt: skip
FULL = replace(
    LAPTOP, n=64, seeds=5, size=2.0, records=20_000, one_step=20_000, unrolled=2000, horizon=8, round_steps=10_000,
    starts=50,
)  # fmt: skip
PRESETS = {"laptop": LAPTOP, "full": FULL, "smoke": SMOKE}
