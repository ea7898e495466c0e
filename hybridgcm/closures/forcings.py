"""What drives a flow or holds it: stochastic and steady stirring, relaxation, sponges. Closures like any other."""

import math
from collections.abc import Mapping

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from hybridgcm._typing import param
from hybridgcm.closures.base import (
    AbstractClosure,
    calls_before,
    check_layers,
    layers_of,
    per_layer,
    require,
    time_step,
)
from hybridgcm.closures.stochastic import white
from hybridgcm.grids import AbstractGrid, Torus
from hybridgcm.grids.base import scale


class RingForcing(AbstractClosure):
    """d`name` = Σ √(S/dt) e^{iθ}, S ∝ exp(−(K − K₀)²/2δ²), θ random at every step: white in time, isotropic.

    Gives energy at the rate ε `rate`, m² s⁻³ (per mass and whole depth), whatever `dt` (s, the model's): S is scaled
    so that ½ Σ S/K² = ε. That is Itô's term ½ dt ⟨|∇ψ|²⟩ of the noise itself; the work ⟨−ψ F⟩ on the flow as it is
    before the step has mean zero. K₀ `wavenumber` and δ `width` in rad m⁻¹; the mean of the domain is not forced.
    The same in all layers: barotropic, so that the stratification takes no part in ε (not so above a motionless abyss,
    nor with a free surface, which leave less). `name` is the vorticity that the equation steps: q, zeta.
    Returns `name_hat`; one transform of one layer. The convention of GeophysicalFlows.jl, Constantinou et al. (2021),
    doi:10.21105/joss.03053.

    Raises `ValueError` without `dt`, and at `init` for a ring that holds no resolved wave.
    """

    rate: Float[Array, ""] = param()
    wavenumber: Float[Array, ""] = param()
    width: Float[Array, ""] = param()
    dt: float = eqx.field(static=True)
    name: str = eqx.field(static=True)

    def __init__(self, rate, *, wavenumber, width, dt=None, name: str = "q"):
        self.rate, self.wavenumber, self.width = rate, wavenumber, width
        self.dt, self.name = time_step("RingForcing", dt), name

    def init(self, fields, grid):
        if not any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves((self, grid))):
            K = np.sqrt(-np.asarray(grid.eigenvalues, float)[np.asarray(grid.multiplicity) > 0])
            K, centre, width = K[K > 0], float(self.wavenumber), float(self.width)
            if not np.min(np.abs(K - centre)) < 4 * width:
                raise ValueError(
                    f"no resolved wave lies in the ring {centre:.3g} ± {width:.3g} rad/m; "
                    f"the grid holds {K.min():.3g} to {K.max():.3g} rad/m (a wave of length L has 2π/L)"
                )
        return None

    def __call__(self, fields, grid, memory, key):
        z = white(key, grid, 1)
        size = z.real**2 + z.imag**2
        phase = scale(jax.lax.rsqrt(jnp.where(size > 0, size, 1)), z)
        forcing = scale(self._amplitude(grid), phase)
        return {f"{self.name}_hat": jnp.broadcast_to(forcing, (layers_of(fields), *grid.spectral_shape))}, memory

    def _amplitude(self, grid: AbstractGrid) -> Float[Array, "l k"]:
        """√(S/dt) per coefficient, s⁻²; wavenumbers relative to K₀, whose squares single precision can hold."""
        waves = (grid.multiplicity > 0) & (grid.eigenvalues < 0)
        K = jnp.sqrt(jnp.where(waves, -grid.eigenvalues, 1)) / self.wavenumber
        root = jnp.where(waves, jnp.exp(-(((K - 1) * self.wavenumber / self.width) ** 2) / 4), 0)
        total = jnp.sum(grid.multiplicity * (root / K) ** 2)
        return self.wavenumber * jnp.sqrt(2 * self.rate / (self.dt * total)) * root


class Kolmogorov(AbstractClosure):
    """d`name` = A cos(2π (m_x x/Lx + m_y y/Ly) + phase), steady: one plane wave of vorticity.

    Kolmogorov's flow is m_x = 0. A momentum forcing du = B sin(2π m_y y/Ly) is A = −2π m_y B/Ly, phase 0. A
    `amplitude` in s⁻², one number or one per layer; `phase` in rad; m_x, m_y whole numbers of waves in the domain.
    Several waves are a `Sum`: the cellular forcing of Frezat et al. (2024) is 10 (cos 15x + cos 15y),
    `Sum(Kolmogorov(10.0, m_x=15, m_y=0), Kolmogorov(10.0, m_x=0, m_y=15))` on a domain of 2π.
    One transform of a field, the `lift`'s. Raises `ValueError` at `init` on other than a torus, for no wave at all and
    for one that the grid does not resolve.
    """

    amplitude: Float[Array, ""] | Float[Array, " layer"] = param()
    phase: Float[Array, ""] = param(default=0.0)
    m_x: int = eqx.field(static=True, default=0)
    m_y: int = eqx.field(static=True, default=4)
    name: str = eqx.field(static=True, default="q")

    def init(self, fields, grid):
        _check_wave("Kolmogorov", grid, self.m_x, self.m_y)
        check_layers("Kolmogorov", self.amplitude, fields)
        return None

    def __call__(self, fields, grid, memory, key):
        wave = jnp.cos(_angle(grid, self.m_x, self.m_y) + self.phase)
        shape = (layers_of(fields), *grid.shape)
        return {self.name: jnp.broadcast_to(per_layer(self.amplitude) * wave, shape)}, memory


class GrahamRingler(AbstractClosure):
    """d`name` = A [cos(2π m y/Ly + π sin ω_y t) − cos(2π m x/Lx + π sin ω_x t)]: cells that drift to and fro.

    `rates` (ω_x, ω_y) in s⁻¹; t = `dt` × the number of calls so far, which is the memory: closures are told the time
    of the start (`calls_before`) and no other. A `amplitude` in s⁻², one number or one per layer; `waves` m. Defaults
    are those of Frezat et al. (2022) on a domain of 10 080 km: m = 4, ω_x = 1.2e-6 s⁻¹, ω_y = ω_x π/3. They scale by
    ⟨F²⟩/2 = A²/2 = 3.024 in units of T = 1.2e6 s (their "1.75e-18" times T³), so A = 2.459/T² = 1.708e-12 s⁻²; their
    restriction to waves 3 to 5 does nothing, since the forcing is of wave 4 alone. In units of T and 2π: A = 2.459,
    ω_x = 1.44, ω_y = 1.508.
    One transform of a field, the `lift`'s.

    Graham and Ringler (2013), doi:10.1016/j.ocemod.2013.01.004; Frezat et al. (2022), doi:10.1029/2022MS003124.
    Raises `ValueError` without `dt` (s), and at `init` on other than a torus and for waves that it does not resolve.
    """

    amplitude: Float[Array, ""] | Float[Array, " layer"] = param()
    rates: Float[Array, "2"] = param()
    dt: float = eqx.field(static=True)
    waves: int = eqx.field(static=True)
    name: str = eqx.field(static=True)

    def __init__(self, amplitude=1.708e-12, rates=(1.2e-6, 1.2e-6 * math.pi / 3), *, dt=None, waves=4, name="q"):
        self.amplitude, self.rates = amplitude, rates
        self.dt, self.waves, self.name = time_step("GrahamRingler", dt), int(waves), name

    def init(self, fields, grid):
        _check_wave("GrahamRingler", grid, self.waves, self.waves)
        check_layers("GrahamRingler", self.amplitude, fields)
        return {"calls": calls_before(fields, self.dt)}

    def __call__(self, fields, grid, memory, key):
        time = memory["calls"].astype(grid.eigenvalues.dtype) * self.dt
        x, y = (math.pi * jnp.sin(rate * time) for rate in (self.rates[0], self.rates[1]))
        cells = jnp.cos(_angle(grid, 0, self.waves) + y) - jnp.cos(_angle(grid, self.waves, 0) + x)
        forcing = jnp.broadcast_to(per_layer(self.amplitude) * cells, (layers_of(fields), *grid.shape))
        return {self.name: forcing}, {"calls": memory["calls"] + 1}


class Relaxation(AbstractClosure):
    """d`name` = (target − field)/τ for every name of `target`: Newtonian relaxation, nudging to a state.

    `target` maps prognostics, or u and v, to numbers or arrays that broadcast to `[layer, y, x]`: a profile in y is
    `[y, 1]`, one value per layer `[layer, 1, 1]`. τ `tau`, s; held over a step, the distance shrinks by 1 − dt/τ in it.
    One transform of a field, the `lift`'s. Raises `ValueError` at `init` for an unknown name and a shape that does not
    broadcast.
    """

    target: dict[str, Array]
    tau: Float[Array, ""] = param()

    def __init__(self, target: Mapping, tau):
        self.target = {name: a if eqx.is_array(a) else jnp.asarray(a, float) for name, a in target.items()}
        self.tau = tau

    def init(self, fields, grid):
        require("Relaxation", self.target, fields)
        for name, a in self.target.items():
            shape = fields[name].shape
            fits = a.ndim <= 3 and all(n in (1, m) for n, m in zip(a.shape[::-1], shape[::-1], strict=False))
            if not fits:
                raise ValueError(
                    f"target of {name} has shape {a.shape}, it must broadcast to {shape} [layer, y, x]; a profile in y "
                    "is [y, 1]"
                )
        return None

    def __call__(self, fields, grid, memory, key):
        return {name: (a - fields[name]) / self.tau for name, a in self.target.items()}, memory


class Sponge(AbstractClosure):
    """d`name` = −w(y) field/τ, w = cos²(π d/2b) within the distance b of `centre`, zero beyond: damping in a band.

    d is the distance from y = `centre` (m) the shorter way round the period, b `width` (m), τ `tau` (s) the time scale
    in the middle. By default it is a drag on u and v, which conserves the mean of potential vorticity; `names=("q",)`
    or ("c",) damps the anomaly itself and does not. On (u, v) two transforms of a field, the `lift`'s.
    Raises `ValueError` at `init` for an unknown name, other than a torus, and a band wider than the domain.
    """

    tau: Float[Array, ""] = param()
    centre: Float[Array, ""] = param()
    width: Float[Array, ""] = param()
    names: tuple[str, ...] = eqx.field(static=True, default=("u", "v"))

    def init(self, fields, grid):
        _check_torus("Sponge", grid)
        require("Sponge", self.names, fields)
        if not isinstance(self.width, jax.core.Tracer) and not 0 < float(self.width) <= grid.length[0] / 2:
            raise ValueError(
                f"Sponge reaches {float(self.width)} m to both sides of its centre; half the domain is "
                f"{grid.length[0] / 2} m"
            )
        return None

    def __call__(self, fields, grid, memory, key):
        w = self._profile(grid)[:, None]
        return {name: -w * fields[name] / self.tau for name in self.names}, memory

    def _profile(self, grid: Torus) -> Float[Array, " y"]:
        length = grid.length[0]
        y = jnp.asarray(grid.y, grid.dtype)
        distance = jnp.abs(jnp.mod(y - self.centre + length / 2, length) - length / 2)
        return jnp.where(distance < self.width, jnp.cos(math.pi / 2 * distance / self.width) ** 2, 0)


def _angle(grid: Torus, m_x: int, m_y: int) -> Float[Array, "y x"]:
    """2π (m_x x/Lx + m_y y/Ly); each part taken modulo 2π in double precision first."""
    turn = lambda m, n: jnp.asarray(2 * np.pi * (m * np.arange(n) % n) / n, grid.dtype)
    return turn(m_y, grid.shape[0])[:, None] + turn(m_x, grid.shape[1])


def _check_torus(kind: str, grid: AbstractGrid):
    if not isinstance(grid, Torus):
        raise ValueError(f"{kind} is written for a doubly periodic grid; got {type(grid).__name__}")


def _check_wave(kind: str, grid: AbstractGrid, m_x: int, m_y: int):
    _check_torus(kind, grid)
    if not (m_x or m_y):
        raise ValueError("m_x = m_y = 0 is no wave: it would force the mean of the domain")
    parts = 3 if grid.dealias == 2 / 3 else 2
    for m, n in ((m_x, grid.n[1]), (m_y, grid.n[0])):
        if not parts * abs(m) < n:
            held = f"a grid of {n} modes with dealias={grid.dealias} holds |m| < {n}/{parts}"
            raise ValueError(f"{kind} forces wave {m}, {held}; sampled on its points it would be another wave, or none")
