"""The systems that closures are judged on, by name: `eddy64`, `jet48-op2`, `mix50-64-3600`."""

import re
from dataclasses import dataclass

import jax.numpy as jnp
import jax.random as jr

import hybridgcm as hg
from hybridgcm import coarsen

OPERATORS = {"op1": coarsen.operator1, "op2": coarsen.operator2, "op5": coarsen.cutoff}
"""Coarse-graining by the short names that systems carry: operators 1 and 2 of Ross et al., 5 of Perezhogin et al."""


@dataclass(frozen=True)
class TwoLayer:
    """Two-layer quasi-geostrophic turbulence as in Ross et al. (2023), doi:10.1029/2022MS003258, table 1.

    Truth and models have pyqg's exponential filter and AB3; published numbers are comparable under that choice only.
    """

    name: str
    beta: float
    """Planetary vorticity gradient, m-1 s-1."""
    drag: float
    """Bottom drag, s-1."""
    delta: float
    """Thickness ratio H1/H2."""
    rd: float = 15e3
    """Deformation radius, m."""
    shear: float = 0.025
    """Mean flow of the upper layer, m s-1; the lower one is at rest."""
    length: float = 1e6
    """Side of the square domain, m."""
    dt: float = 3600.0
    """Time step of the truth, s."""
    snapshot: float = 3.6e6
    """Time between snapshots of climates, s: 1000 h."""
    frame: float = 14400.0
    """Time between frames of the training data, s: 4 h."""

    def model(self, n: int, dt: float, closure=None) -> hg.Model:
        """The flow on n² points."""
        grid = hg.Torus(n, self.length, dealias=None)
        flow = hg.QuasiGeostrophic.two_layer(
            grid, rd=self.rd, delta=self.delta, beta=self.beta, U=(self.shear, 0.0), drag=self.drag
        )
        return hg.Model(flow, hg.Filtered(hg.AB3(), hg.exponential_filter(grid)), closure, dt=dt)

    def start(self, member: int, n: int) -> dict:
        """q of white noise on the modes below 16, 1e-6 s-1 in the upper layer and a tenth of it below, on n² points."""
        rough, grid = (hg.Torus(m, self.length, dealias=None) for m in (min(32, n), n))
        q = 1e-6 * jr.normal(jr.fold_in(jr.key(1), member), (2, *rough.shape)) * jnp.array([1.0, 0.1])[:, None, None]
        return {"q": grid.to_grid(rough.resize(rough.to_spectral(q - q.mean((1, 2), keepdims=True)), grid))}


EDDY = TwoLayer("eddy", beta=1.5e-11, drag=5.787e-7, delta=0.25)
JET = TwoLayer("jet", beta=1e-11, drag=7e-8, delta=0.1)


def between(percent: int) -> TwoLayer:
    """β, drag and δ between *eddy* (0) and *jet* (100) as in Otness et al. (2025), doi:10.1088/2632-2153/ae1a36."""
    mix = lambda name: getattr(EDDY, name) + percent / 100 * (getattr(JET, name) - getattr(EDDY, name))
    return TwoLayer(f"mix{percent}", **{name: mix(name) for name in ("beta", "drag", "delta")})


@dataclass(frozen=True)
class System:
    """A coarse model of a flow, and the operator that its truth is coarse-grained by."""

    flow: TwoLayer
    n: int
    """Modes per side of the coarse model."""
    operator: str = "op1"
    """Key of `OPERATORS`."""
    dt: float = 14400.0
    """Time step of the coarse model, s."""

    @property
    def name(self) -> str:
        """As `system` reads it, every part written out."""
        return f"{self.flow.name}{'-' if self.flow.name[-1].isdigit() else ''}{self.n}-{self.operator}-{self.dt:.0f}"

    @property
    def coarsen(self):
        """operator(a_hat, fine, coarse)."""
        return OPERATORS[self.operator]

    def model(self, closure=None) -> hg.Model:
        """The coarse model with a closure."""
        return self.flow.model(self.n, self.dt, closure)

    def start(self, member: int, fine: int) -> dict:
        """The coarse-grained start of a truth with `fine`² points."""
        grids = hg.Torus(fine, self.flow.length, dealias=None), hg.Torus(self.n, self.flow.length, dealias=None)
        q_hat = self.coarsen(grids[0].to_spectral(self.flow.start(member, fine)["q"]), *grids)
        return {"q": grids[1].to_grid(q_hat)}


def system(name: str) -> System:
    """The system of a name FLOW[-]POINTS[-OPERATOR][-SECONDS]; by default op1 and the published step.

    FLOW is eddy, jet or mixPERCENT-. Published steps: 14400 s at 48² and 64², 7200 s at 96², Perezhogin et al. (2023),
    doi:10.1029/2023MS003681. Raises `ValueError` for any other name.
    """
    found = re.fullmatch(r"(eddy|jet|mix(\d+)-)(\d+)(?:-(op\d))?(?:-(\d+))?", name)
    if not found or (found[4] or "op1") not in OPERATORS or int(found[3]) % 2 or int(found[2] or 0) > 100:
        raise ValueError(
            f"{name!r} is no system; expected FLOW[-]POINTS[-OPERATOR][-SECONDS] such as eddy64, jet48-op2 or "
            f"mix50-64-op1-3600, with an even number of points and an operator of {', '.join(OPERATORS)}"
        )
    flow = {"eddy": EDDY, "jet": JET}.get(found[1]) or between(int(found[2]))
    n = int(found[3])
    dt = float(found[5] or (14400 if n <= 64 else 7200 if n <= 128 else 3600))
    if flow.snapshot % dt or flow.frame % dt:
        raise ValueError(f"{name!r}: the step must divide {flow.frame:g} s, the time between training frames")
    return System(flow, n, found[4] or "op1", dt)
