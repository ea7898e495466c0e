"""The flows of the benchmark: equation, truth, start and scores of each. See also `shallow_water` and `lorenz96`."""

import abc
from dataclasses import dataclass, replace
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

import hybridgcm as hg
from hybridgcm import closures, metrics


class AbstractFlow(abc.ABC):
    """What a flow is to the benchmark. A final frozen dataclass of plain values, of which truths have their names.

    Attributes: `name`; `length` of the square domain, m; `dt` of the truth, `snapshot` between snapshots of climates
    and `frame` between training frames, s; `day`, what forecasts are counted in, s; `inputs`, fields that a network
    reads unless its method chooses; `operators`, the coarse-graining that makes sense, the source's own first.
    """

    name: str
    length: float
    dt: float
    snapshot: float
    frame: float
    day: float
    inputs: tuple[str, ...]
    operators: tuple[str, ...]

    @abc.abstractmethod
    def model(self, n: int, dt: float, closure=None) -> hg.Model:
        """The flow with n modes per side, with its forcing, beside which the closure acts."""

    @abc.abstractmethod
    def start(self, member: int, n: int) -> dict:
        """Prognostic fields of member `member` on the points of a model of n modes, the same flow at every n."""

    @abc.abstractmethod
    def step(self, n: int) -> float:
        """Time step of the coarse model of n modes unless the system's name says another, s."""

    @abc.abstractmethod
    def sizes(self, truths):
        """The `config.Truths` of this flow where the two-layer flows have those given."""

    @abc.abstractmethod
    def loss(self, equation):
        """Loss of rollouts that online training minimises unless its method chooses."""

    @abc.abstractmethod
    def network(self, net, inputs: dict, outputs: dict) -> hg.AbstractClosure:
        """The network as a closure, with the scales of fields and forcings `[record, layer, y, x]`."""

    @abc.abstractmethod
    def climate(self, model: hg.Model, snapshots: dict, **coarse) -> metrics.Climate:
        """Climate of prognostics `[snapshot, layer, y, x]`, of the coarse-grained ones with `coarse` and `operator`."""

    @abc.abstractmethod
    def errors(self, model: metrics.Climate, target: metrics.Climate) -> dict[str, float]:
        """Errors that the flow's source uses, beside those that all flows have."""

    def grid(self, n: int):
        """The grid of a model of n modes."""
        return self.model(n, self.dt).equation.grid


class AbstractTorusFlow(AbstractFlow):
    """A flow whose networks and climates are those of the library: all that are on a Torus."""

    def network(self, net, inputs, outputs):
        return hg.NetworkClosure.from_data(net, inputs, outputs)

    def climate(self, model, snapshots, **coarse):
        return metrics.climate(model, snapshots, **coarse)


@dataclass(frozen=True)
class TwoLayer(AbstractTorusFlow):
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
    day: ClassVar[float] = 86400.0
    inputs: ClassVar[tuple[str, ...]] = ("q", "u", "v")
    operators: ClassVar[tuple[str, ...]] = ("op1", "op2", "op5")

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

    def step(self, n: int) -> float:
        """14400 s at 48² and 64², 7200 s at 96²: Perezhogin et al. (2023), doi:10.1029/2023MS003681."""
        return 14400.0 if n <= 64 else 7200.0 if n <= 128 else 3600.0

    def sizes(self, truths):
        return truths

    def loss(self, equation):
        return energy_and_spectra(equation)

    def errors(self, model, target):
        return {}


@dataclass(frozen=True)
class OneLayer(AbstractTorusFlow):
    """Barotropic turbulence, ∂ζ/∂t = −u·∇ζ − β v − μ ζ + ν ∇²ζ + F, by BPR(3,5,3) on 3n/2 points for n modes.

    F is steady, A (cos mx + cos my), or, with `rates`, Graham and Ringler's drifting cells. Nothing else parts truth
    and models, which have one ν; that of the truth resolves its dissipation, ν ∝ n⁻² at given flow.
    """

    name: str
    beta: float
    """Planetary vorticity gradient β, m-1 s-1."""
    drag: float
    """Linear drag μ, s-1."""
    viscosity: float
    """ν, m2 s-1."""
    length: float
    dt: float
    snapshot: float
    frame: float
    day: float
    modes: int
    """Modes per side of the truth, of which `dt` and ν are. Coarse steps are longer by the ratio of modes."""
    energy: float
    """Kinetic energy of the start, m2 s-2."""
    band: tuple[int, int]
    """Waves per domain that the start has, the last excluded."""
    amplitude: float = 0.0
    """A of the forcing, s-2."""
    waves: int = 4
    """m of the forcing, waves per domain."""
    rates: tuple[float, float] | None = None
    """Frequencies (ω_x, ω_y) of drifting cells, s-1."""
    inputs: ClassVar[tuple[str, ...]] = ("q", "u", "v")
    operators: ClassVar[tuple[str, ...]] = ("op5", "op1", "op2")

    def forcing(self, dt: float) -> "Maintained | None":
        """F, a function of time."""
        if not self.amplitude:
            return None
        if self.rates is not None:
            return Maintained(closures.GrahamRingler(self.amplitude, self.rates, dt=dt, waves=self.waves), dt)
        wave = lambda m_x, m_y: closures.Kolmogorov(self.amplitude, m_x=m_x, m_y=m_y)
        return Maintained(closures.Sum(wave(self.waves, 0), wave(0, self.waves)), dt)

    def model(self, n: int, dt: float, closure=None) -> hg.Model:
        grid = hg.Torus(n, self.length, dealias=3 / 2)
        flow = hg.QuasiGeostrophic.navier_stokes(grid, viscosity=self.viscosity, drag=self.drag, beta=self.beta)
        return hg.Model(flow, hg.steppers.BPR353(), closure, dt=dt, forcing=self.forcing(dt))

    def start(self, member: int, n: int) -> dict:
        grid = self.grid(n)
        psi_hat = band(jr.fold_in(jr.key(2), member), grid, self.band)
        size = -grid.inner(psi_hat, grid.laplacian(psi_hat)) / 2
        return {"q": grid.to_grid(grid.laplacian(psi_hat) * jnp.sqrt(self.energy / size)[:, None, None])}

    def step(self, n: int) -> float:
        return self.dt * self.modes / n

    def sizes(self, truths):
        """The modes of the truth where the two-layer flows have 256, and frames for models of 128."""
        fine = truths.fine * self.modes // 256
        return replace(truths, fine=fine, stored=min(2 * truths.stored, fine))

    def loss(self, equation):
        return energy_and_spectra(equation)

    def errors(self, model, target):
        """Those of Frezat et al. (2024)."""
        return metrics.frezat_errors(model, target)


class Maintained(eqx.Module):
    """A forcing that reads no field, as the `forcing` of a `Model`: named forcings from time (s).

    Time stands in the place of the count of calls, which such closures take for their clock.
    """

    closure: hg.AbstractClosure
    dt: float = eqx.field(static=True)

    def __call__(self, t, grid):
        fields = {"q": jnp.zeros((1, *grid.shape), grid.eigenvalues.dtype)}
        calls = jax.tree.map(
            lambda _: jnp.asarray(t, grid.eigenvalues.dtype) / self.dt, self.closure.init(fields, grid)
        )
        return self.closure(fields, grid, calls, jr.key(0))[0]


def energy_and_spectra(equation):
    """Relative energy of the error plus error of the energy spectra.

    The energy of the error alone would teach a network to drain the flow, the spectra alone to drive it.
    """
    fields, spectra = metrics.energy(equation), metrics.spectral(equation)
    return lambda prediction, target: fields(prediction, target) + spectra(prediction, target)


def mean_square(names):
    """Mean over `names` of `metrics.mse`."""
    losses = [metrics.mse(name) for name in names]
    return lambda prediction, target: sum(loss(prediction, target) for loss in losses) / len(losses)


def band(key, grid, waves: tuple[int, int]):
    """White noise on the waves of a ring, spectral `[1, l, k]`: the same on every grid that resolves them."""
    rough = hg.Torus(32, grid.length, dealias=None)
    noise = rough.to_spectral(jr.normal(key, (1, *rough.shape)))
    K = np.sqrt(-np.asarray(rough.eigenvalues, float)) * grid.length[0] / (2 * np.pi)
    low, high = waves
    return rough.resize(jnp.where((low <= K) & (high > K), noise, 0), grid)
