"""Two-timescale Lorenz 96, the quick test of every method: the coarse model is the slow variables alone."""

from dataclasses import dataclass, replace
from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float

import hybridgcm as hg
from experiments.closure_benchmark.flows import AbstractFlow, mean_square
from hybridgcm import metrics

SLOW = 8
"""K, the number of slow variables."""


class Circle(hg.AbstractGrid):
    """`rows` of K points around a circle of K sites, spectral along it alone: nothing has a derivative across rows.

    Fields `[layer, row, site]`; one site is the unit of length. `resize` keeps the first rows: of the two-timescale
    system the slow variables, so that the sharp cut-off of `coarsen` is the projection on them.
    """

    shape: tuple[int, int] = eqx.field(static=True)
    spectral_shape: tuple[int, int] = eqx.field(static=True)
    n: tuple[int, int] = eqx.field(static=True)
    length: tuple[float, float] = eqx.field(static=True)
    k: Float[Array, " k"]
    eigenvalues: Float[Array, "l k"]
    inverse_eigenvalues: Float[Array, "l k"]
    multiplicity: Float[Array, "l k"]
    weights: Float[Array, ""]
    spacing: Float[Array, ""]

    def __init__(self, rows: int, sites: int):
        waves = np.arange(sites // 2 + 1)
        k = np.where(waves == sites // 2, 0, 2 * np.pi * waves / sites)  # the odd derivative of the last wave is zero
        eigenvalues = np.tile(-((2 * np.pi * waves / sites) ** 2), (rows, 1))
        self.shape = self.n = (rows, sites)
        self.spectral_shape, self.length = (rows, len(waves)), (float(rows), float(sites))
        self.k, self.eigenvalues = jnp.asarray(k, float), jnp.asarray(eigenvalues, float)
        self.inverse_eigenvalues = jnp.where(self.eigenvalues < 0, 1 / jnp.where(eigenvalues < 0, eigenvalues, 1), 0)
        self.multiplicity = jnp.asarray(np.tile(np.where((waves == 0) | (waves == sites // 2), 1.0, 2.0), (rows, 1)))
        self.weights, self.spacing = jnp.asarray(1 / (rows * sites)), jnp.asarray(1.0)

    @property
    def x(self) -> np.ndarray:
        """Number of the site."""
        return np.arange(self.shape[1]) * 1.0

    @property
    def y(self) -> np.ndarray:
        """Number of the row."""
        return np.arange(self.shape[0]) * 1.0

    @property
    def aspect(self) -> tuple[float, float]:
        """One axis has a spacing."""
        return 1.0, 1.0

    @property
    def uniform_flow(self):
        """One everywhere."""
        return jnp.ones(())

    @property
    def uniform_eigenvalue(self) -> float:
        """Zero: the circle has no curvature."""
        return 0.0

    def to_grid(self, a_hat):
        return jnp.fft.irfft(a_hat, self.shape[1], norm="forward")

    def to_spectral(self, a):
        return jnp.fft.rfft(a, norm="forward")

    def gradient(self, a_hat):
        a = self.to_grid(self.zonal_derivative(a_hat))
        return a, jnp.zeros_like(a)

    def divergence(self, u, v):
        return self.zonal_derivative(self.to_spectral(u))

    def zonal_derivative(self, a_hat):
        return 1j * self.k * a_hat

    def curl_and_divergence(self, u, v):
        return self.zonal_derivative(self.to_spectral(v)), self.zonal_derivative(self.to_spectral(u))

    def synthesise(self, psi_hat, *a_hat, potential=None):
        u, v = jnp.zeros_like(psi_hat), self.zonal_derivative(psi_hat)
        u = u if potential is None else u + self.zonal_derivative(potential)
        return tuple(self.to_grid(a) for a in (u, v, *a_hat))

    def velocity_gradient(self, u, v):
        u_x, v_x = (self.gradient(self.to_spectral(a))[0] for a in (u, v))
        return u_x, jnp.zeros_like(u), v_x, jnp.zeros_like(v)

    def stress_divergence(self, xx, xy, yy, factor=None):
        parts = [self.zonal_derivative(self.to_spectral(a)) for a in (xx, xy)]
        return tuple(self.to_grid(a if factor is None else factor * a) for a in parts)

    def resize(self, a_hat, other):
        rows = min(self.shape[0], other.shape[0])
        gap = jnp.zeros((*a_hat.shape[:-2], other.shape[0] - rows, a_hat.shape[-1]), a_hat.dtype)
        return jnp.concatenate([a_hat[..., :rows, :], gap], -2)

    def spectrum(self, density):
        return jnp.sum(density, -2)


class SlowAndFast(hg.AbstractEquation):
    """dX_k/dt = −X_{k−1}(X_{k−2} − X_{k+1}) − X_k + F − (hc/b) Σⱼ Y_{j,k},

    dY_{j,k}/dt = −cb Y_{j+1,k}(Y_{j+2,k} − Y_{j−1,k}) − c Y_{j,k} + (hc/b) X_k, Y_{j+J,k} = Y_{j,k+1}.

    q, row 0 of a `Circle`, is X; the rows below are Y. Of one row alone there is no Y: the slow system, of which a
    closure makes the last term. u is what carries q, sites per unit of time: X itself. All numbers dimensionless, a
    unit of time 5 days. Lorenz (1996), Predictability: a problem partly solved, equations 1 to 3.
    """

    prognostic: ClassVar[tuple[str, ...]] = ("q",)
    grid: Circle
    F: Float[Array, ""] = hg.param()
    h: Float[Array, ""] = hg.param()
    b: Float[Array, ""] = hg.param()
    c: Float[Array, ""] = hg.param()
    layers: int = eqx.field(static=True, default=1)

    def view(self, y):
        q = self.grid.to_grid(y["q"])
        return {"q": q, "u": q, "v": jnp.zeros_like(q)}

    def explicit(self, t, y):
        a = self.grid.to_grid(y["q"])[0]
        X, fast = a[:1], a[1:]
        dX = -jnp.roll(X, 1) * (jnp.roll(X, 2) - jnp.roll(X, -1)) - X + self.F
        if not len(fast):
            return {"q": self.grid.to_spectral(dX[None])}
        coupling = self.h * self.c / self.b
        Y = fast.T.ravel()
        dY = -self.c * self.b * jnp.roll(Y, -1) * (jnp.roll(Y, -2) - jnp.roll(Y, 1)) - self.c * Y
        dY = dY.reshape(fast.T.shape).T + coupling * X
        return {"q": self.grid.to_spectral(jnp.concatenate([dX - coupling * fast.sum(0), dY])[None])}

    def implicit(self, y):
        return {"q": jnp.zeros_like(y["q"])}

    def solve(self, y, a):
        return y

    def lift(self, forcing):
        """Accepts `q` on the sites or spectral `q_hat`; of u and v there is no equation."""
        if set(forcing) - {"q", "q_hat"}:
            raise ValueError(f"Lorenz 96 takes forcing on 'q' or spectral 'q_hat'; got {sorted(forcing)}")
        return self.lift_prognostics(self.check_forcing(forcing))


class SiteNetwork(hg.AbstractClosure):
    """forcing = s_out · net(fields/s_in), with its mean: of X nothing is conserved that a closure could break."""

    net: eqx.Module
    inputs: tuple[str, ...] = eqx.field(static=True)
    input_scale: Float[Array, " channel"]
    output_scale: Float[Array, " channel"]

    def init(self, fields, grid):
        return None

    def __call__(self, fields, grid, memory, key):
        x = jnp.concatenate([fields[name] for name in self.inputs]) / self.input_scale[:, None, None]
        return {"q": self.net(x) * self.output_scale[:, None, None]}, memory


@dataclass(frozen=True)
class Lorenz96(AbstractFlow):
    """Two-timescale Lorenz 96 with K = 8, J = 32 (as many fast variables as the truth's modes say), RK4 for both."""

    name: str
    F: float = 18.0
    h: float = 1.0
    b: float = 10.0
    c: float = 10.0
    length: float = float(SLOW)
    dt: float = 0.005
    snapshot: float = 0.1
    frame: float = 0.05
    day: ClassVar[float] = 0.2
    inputs: ClassVar[tuple[str, ...]] = ("q",)
    operators: ClassVar[tuple[str, ...]] = ("op5",)

    def model(self, n: int, dt: float, closure=None) -> hg.Model:
        """`n` = 8: the slow variables; a larger multiple of 8: those and n fast ones."""
        if n % SLOW:
            raise ValueError(f"Lorenz 96 has {SLOW} slow variables and a multiple of {SLOW} fast ones; got n={n}")
        grid = Circle(1 if n == SLOW else 1 + n // SLOW, SLOW)
        return hg.Model(SlowAndFast(grid, self.F, self.h, self.b, self.c), hg.RK4(), closure, dt=dt)

    def start(self, member: int, n: int) -> dict:
        """X around 3 with a spread of 5, Y near zero."""
        grid = self.grid(n)
        slow, fast = jr.split(jr.fold_in(jr.key(4), member))
        X = 3 + 5 * jr.normal(slow, (1, 1, SLOW))
        return {"q": jnp.concatenate([X, 0.1 * jr.normal(fast, (1, grid.shape[0] - 1, SLOW))], 1)}

    def step(self, n: int) -> float:
        return 0.01

    def sizes(self, truths):
        """More of all but fast variables: a hundred units of climate cost a second."""
        return replace(
            truths, stored=SLOW, warm=2 * truths.warm, scored=8 * truths.scored, frames=10 * truths.frames,
            tuning=4 * truths.tuning,
        )  # fmt: skip

    def loss(self, equation):
        return mean_square(("q",))

    def network(self, net, inputs, outputs) -> SiteNetwork:
        """The network as a closure, its scales from data `[record, layer, y, x]`."""
        scales = [jnp.asarray([np.std(a) for a in fields.values()], float) for fields in (inputs, outputs)]
        return SiteNetwork(net, tuple(inputs), *scales)

    def climate(self, model, snapshots, coarse=None, operator=None, spectra=None) -> metrics.Climate:
        """X as q, and KEspec = |X_k|², twice the energy per wavenumber and site."""
        q = np.asarray(snapshots["q"])[None, :, :, :1]
        KEspec = np.mean(np.abs(np.fft.rfft(q[:, :, :, 0], norm="forward")) ** 2, (0, 1))
        kr = 2 * np.pi * np.arange(KEspec.shape[-1]) / SLOW
        return metrics.Climate(q, None, None, None, np.zeros(1), {"KEspec": KEspec}, kr, limit=np.inf)

    def errors(self, model, target):
        """`autocorrelation`: root mean square difference over lags up to 2 units of time."""
        lags = range(1, 1 + min(round(2 / self.snapshot), target.q.shape[1] - 1))
        ours, theirs = ([_autocorrelation(c.q, lag) for lag in lags] for c in (model, target))
        return {"autocorrelation": float(np.sqrt(np.mean(np.square(np.subtract(ours, theirs)))))}


def _autocorrelation(q: np.ndarray, lag: int) -> float:
    """Correlation of X with itself `lag` snapshots later, over runs and sites."""
    anomaly = q.astype(float) - np.mean(q, dtype=float)
    return float(np.mean(anomaly[:, lag:] * anomaly[:, :-lag]) / np.mean(anomaly**2))
