"""The systems that closures are judged on, by name: `eddy64`, `jet48-op2`, `mix50-64-3600`, `beta128`, `lorenz96`."""

import re
from dataclasses import dataclass

import hybridgcm as hg
from experiments.closure_benchmark.flows import AbstractFlow, OneLayer
from experiments.closure_benchmark.flows import TwoLayer as TwoLayer
from experiments.closure_benchmark.lorenz96 import Lorenz96
from experiments.closure_benchmark.shallow_water import RotatingShallowWater
from hybridgcm import coarsen

OPERATORS = {"op1": coarsen.operator1, "op2": coarsen.operator2, "op5": coarsen.cutoff}
"""Coarse-graining by the short names that systems carry: operators 1 and 2 of Ross et al., 5 of Perezhogin et al."""

EDDY = TwoLayer("eddy", beta=1.5e-11, drag=5.787e-7, delta=0.25)
JET = TwoLayer("jet", beta=1e-11, drag=7e-8, delta=0.1)
# For adjoint-based training as in Yan et al. (2025), doi:10.1029/2024MS004857: two-layer baroclinic turbulence. Their
# parameters could not be had; these are ours: layers of equal depth, otherwise *eddy*, supercritical by F2 U/β = 3.7.
YAN = TwoLayer("yan", beta=1.5e-11, drag=5.787e-7, delta=1.0)

# Frezat et al. (2024), arXiv:2310.19385: F = 10 (cos 15x + cos 15y) on 2π, time in units of its large scales' .81.
# Their spin-up of 1000 from 1e-3 is replaced by a start of near the final energy and 84 units, 1.7/μ.
BETA = OneLayer(
    "beta", beta=30.0, drag=2e-2, viscosity=1e-5, length=6.283185307179586, dt=2e-4, snapshot=1.92, frame=6.4e-3,
    day=0.81, modes=2048, energy=1.0, band=(3, 9), amplitude=10.0, waves=15,
)  # fmt: skip
# The same for a CPU, ours: 512 modes, hence ν 16 times larger (dissipation at the same fraction of the largest wave,
# as Frezat et al. (2022) scale theirs between 2048 and 512) and steps 4 times longer; forcing, drag and β as they are.
BETA512 = OneLayer(
    "beta512", beta=30.0, drag=2e-2, viscosity=1.6e-4, length=6.283185307179586, dt=8e-4, snapshot=1.92, frame=1.28e-2,
    day=0.81, modes=512, energy=1.0, band=(3, 9), amplitude=10.0, waves=15,
)  # fmt: skip

# Graham and Ringler's forcing as in Frezat et al. (2022), doi:10.1029/2022MS003124, with the ν, μ and dt of their code
# at 512². T = 1.2e6 s and 10,080 km/2π are its units. The decaying flow's start and β = 1.6e-11 (31 in these units)
# are ours; there the flow decays by ν alone.
GR = OneLayer(
    "gr", beta=0.0, drag=1.67e-8, viscosity=352.0, length=10_080e3, dt=480.0, snapshot=491_520.0, frame=7680.0,
    day=86400.0, modes=512, energy=2.4, band=(3, 6), amplitude=1.708e-12, rates=(1.2e-6, 1.257e-6),
)  # fmt: skip
GR_DECAY = OneLayer(
    "grdecay", beta=0.0, drag=0.0, viscosity=352.0, length=10_080e3, dt=480.0, snapshot=491_520.0, frame=7680.0,
    day=86400.0, modes=512, energy=1.0, band=(8, 14),
)  # fmt: skip
GR_BETA = OneLayer(
    "grbeta", beta=1.6e-11, drag=1.67e-8, viscosity=352.0, length=10_080e3, dt=480.0, snapshot=491_520.0, frame=7680.0,
    day=86400.0, modes=512, energy=2.4, band=(3, 6), amplitude=1.708e-12, rates=(1.2e-6, 1.257e-6),
)  # fmt: skip

FLOWS = (EDDY, JET, YAN, BETA, BETA512, GR, GR_DECAY, GR_BETA, RotatingShallowWater("swe"), Lorenz96("lorenz96"))


def between(percent: int) -> TwoLayer:
    """β, drag and δ between *eddy* (0) and *jet* (100) as in Otness et al. (2025), doi:10.1088/2632-2153/ae1a36."""
    mix = lambda name: getattr(EDDY, name) + percent / 100 * (getattr(JET, name) - getattr(EDDY, name))
    return TwoLayer(f"mix{percent}", **{name: mix(name) for name in ("beta", "drag", "delta")})


@dataclass(frozen=True)
class System:
    """A coarse model of a flow, and the operator that its truth is coarse-grained by."""

    flow: AbstractFlow
    n: int
    """Modes per side of the coarse model."""
    operator: str = "op1"
    """Key of `OPERATORS`."""
    dt: float = 14400.0
    """Time step of the coarse model, s."""

    @property
    def name(self) -> str:
        """As `system` reads it, every part written out."""
        return f"{self.flow.name}{'-' if self.flow.name[-1].isdigit() else ''}{self.n}-{self.operator}-{self.dt:g}"

    @property
    def coarsen(self):
        """operator(a_hat, fine, coarse)."""
        return OPERATORS[self.operator]

    def model(self, closure=None) -> hg.Model:
        """The coarse model with a closure."""
        return self.flow.model(self.n, self.dt, closure)

    def start(self, member: int, fine: int) -> dict:
        """The coarse-grained start of a truth with `fine`² points."""
        fine, coarse, fields = self.flow.grid(fine), self.flow.grid(self.n), self.flow.start(member, fine)
        return {name: coarse.to_grid(self.coarsen(fine.to_spectral(a), fine, coarse)) for name, a in fields.items()}


def system(name: str) -> System:
    """The system of a name FLOW[-]POINTS[-OPERATOR][-STEP]; by default the operator and step of the flow's source.

    FLOW: eddy, jet, mixPERCENT-, yan; beta (2048² truth), beta512- (512²); gr, grdecay, grbeta; swe. `lorenz96` is
    `lorenz96-8`. STEP in s, or in the flow's unit of time. Raises `ValueError` for any other name.
    """
    mixed = re.match(r"mix(\d+)-", name)
    known = [between(int(mixed[1]))] if mixed and int(mixed[1]) <= 100 else sorted(FLOWS, key=lambda f: -len(f.name))
    flow = next((flow for flow in known if name.startswith(flow.name)), None)
    rest = {"lorenz96": "-8"}.get(name, name.removeprefix(flow.name if flow else ""))
    hyphen = "-" if flow and flow.name[-1].isdigit() else ""
    found = re.fullmatch(hyphen + r"(\d+)(?:-(op\d))?(?:-(\d+\.?\d*(?:e-?\d+)?))?", rest)
    if not (flow and found) or int(found[1]) % 2 or (found[2] or flow.operators[0]) not in flow.operators:
        operators = ", ".join(flow.operators if flow else OPERATORS)
        raise ValueError(
            f"{name!r} is no system; expected FLOW[-]POINTS[-OPERATOR][-STEP] such as eddy64, jet48-op2, "
            f"mix50-64-3600 or beta512-64, FLOW of {', '.join(f.name for f in FLOWS)}, an even number of points and an "
            f"operator of {operators}"
        )
    n = int(found[1])
    dt = float(found[3] or flow.step(n))
    if dt == 0 or not all(_divides(dt, span) for span in (flow.snapshot, flow.frame)):
        raise ValueError(f"{name!r}: the step must divide {flow.frame:g} s, the time between training frames")
    return System(flow, n, found[2] or flow.operators[0], dt)


def _divides(dt: float, span: float) -> bool:
    """Whether a span is a whole number of steps, to rounding."""
    return round(span / dt) >= 1 and abs(span / dt - round(span / dt)) < 1e-6
