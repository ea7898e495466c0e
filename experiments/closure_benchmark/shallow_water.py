"""Rotating shallow water, high resolution to low."""

from dataclasses import dataclass
from typing import ClassVar

import jax.numpy as jnp
import jax.random as jr

import hybridgcm as hg
from experiments.closure_benchmark.flows import AbstractTorusFlow, Maintained, band, mean_square
from hybridgcm import closures, metrics


@dataclass(frozen=True)
class RotatingShallowWater(AbstractTorusFlow):
    """One layer of rotating shallow water, driven by drifting cells of vorticity; ours, nobody has published one.

    Ro = ζ/f about .07 and waves of 10 m/s above currents of .5 m/s: near to geostrophy, where vortices live long and
    a closure that feeds gravity waves is seen. c/f = 100 km lies between the cells (500 km) and the spacing of 64
    points. Gravity waves are implicit (SIL3); D takes the smallest resolved wave in `tau` s on every grid, in truth and
    models alike.
    """

    name: str
    f: float = 1e-4
    """Coriolis parameter, s-1."""
    speed: float = 10.0
    """Speed c of long gravity waves, m s-1."""
    drag: float = 5e-7
    """Of vorticity and divergence, s-1."""
    tau: float = 21600.0
    amplitude: float = 2e-11
    """A of the forcing, s-2."""
    waves: int = 4
    rates: tuple[float, float] = (1.2e-6, 1.257e-6)
    velocity: float = 0.6
    """Root mean square of the start's balanced flow, m s-1."""
    length: float = 2e6
    dt: float = 900.0
    snapshot: float = 864000.0
    frame: float = 14400.0
    day: ClassVar[float] = 86400.0
    inputs: ClassVar[tuple[str, ...]] = ("zeta", "delta", "phi", "u", "v")
    operators: ClassVar[tuple[str, ...]] = ("op5", "op1", "op2")

    def model(self, n: int, dt: float, closure=None) -> hg.Model:
        water = hg.ShallowWater(hg.Torus(n, self.length), self.f, self.speed**2, drag=self.drag, tau=self.tau)
        cells = closures.GrahamRingler(self.amplitude, self.rates, dt=dt, waves=self.waves, name="zeta")
        return hg.Model(water, hg.SIL3(), closure, dt=dt, forcing=Maintained(cells, dt))

    def start(self, member: int, n: int) -> dict:
        water = self.model(n, self.dt).equation
        psi_hat = band(jr.fold_in(jr.key(3), member), water.grid, (3, 6))
        size = -water.grid.inner(psi_hat, water.grid.laplacian(psi_hat))
        return water.balanced(psi_hat * (self.velocity / jnp.sqrt(size))[:, None, None])

    def step(self, n: int) -> float:
        """dt ∝ 1/n, at most an hour: f dt = .36 there."""
        return min(3600.0, self.dt * max(1, 256 // n))

    def sizes(self, truths):
        return truths

    def loss(self, equation):
        """Relative mean squares of the prognostics."""
        return mean_square(equation.prognostic)

    def errors(self, model, target):
        return metrics.frezat_errors(model, target)
