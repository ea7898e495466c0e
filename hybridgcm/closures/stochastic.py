"""Closures that draw: red noise in time with a scale in space, as a forcing and as a factor of another closure."""

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float

from hybridgcm._typing import Hat, param
from hybridgcm.closures.base import AbstractClosure, check_layers, layers_of, per_layer, time_step, without_mean
from hybridgcm.grids import AbstractGrid
from hybridgcm.grids.base import scale as scaled


def white(key: Array, grid: AbstractGrid, layers: int) -> Hat:
    """Spectral white noise of a real field `[layer, l, k]`: E|â|² = 1 for every resolved coefficient, Gaussian.

    Drawn on the grid, so that it has the symmetry of a real field on any grid. One transform.
    """
    noise = jr.normal(key, (layers, *grid.shape), grid.eigenvalues.dtype)
    return grid.to_spectral(noise / jnp.sqrt(grid.weights))


class AR1(AbstractClosure):
    """d`name` = σ r(x, t), r Gaussian with correlation exp(−d²/2ℓ²) over a distance d and e^{−t/τ} over a time t.

    σ `amplitude`, the rms of the forcing in its unit, one number or one per layer; ℓ `scale`, m; τ `tau`, s. The update
    of a step is exact, r ← φ r + √(1 − φ²) ξ with φ = e^{−dt/τ}, so the statistics depend on neither `dt` (s, the
    model's) nor grid; ℓ below the grid spacing gives white noise in space. r has no area mean. The first call draws r
    from its stationary distribution: `init`, which has no key, only notes that it is still to be drawn.
    Layers are independent, or the same with `coherent`. Returns `name_hat`; memory: r, spectral. One transform.
    Raises `ValueError` without `dt` and for an amplitude that does not match the layers.
    """

    amplitude: Float[Array, ""] | Float[Array, " layer"] = param()
    scale: Float[Array, ""] = param()
    tau: Float[Array, ""] = param()
    dt: float = eqx.field(static=True)
    name: str = eqx.field(static=True)
    coherent: bool = eqx.field(static=True)

    def __init__(self, amplitude, *, scale, tau, dt=None, name: str = "q", coherent: bool = False):
        self.amplitude, self.scale, self.tau = amplitude, scale, tau
        self.dt, self.name, self.coherent = time_step("AR1", dt), name, coherent

    def init(self, fields, grid):
        layers = layers_of(fields)
        check_layers("AR1", self.amplitude, fields)
        shape = (1 if self.coherent else layers, *grid.spectral_shape)
        return {"pattern": jnp.zeros(shape, jnp.result_type(grid.eigenvalues.dtype, 1j)), "drawn": jnp.array(False)}

    def __call__(self, fields, grid, memory, key):
        keep = jnp.where(memory["drawn"], jnp.exp(-self.dt / self.tau), 0)
        fresh = jnp.where(memory["drawn"], jnp.sqrt(-jnp.expm1(-2 * self.dt / self.tau)), 1)
        noise = scaled(self._shape(grid), white(key, grid, len(memory["pattern"])))
        pattern = scaled(keep, memory["pattern"]) + scaled(fresh, noise)
        layers = (layers_of(fields), *grid.spectral_shape)
        forcing = scaled(per_layer(self.amplitude), jnp.broadcast_to(pattern, layers))
        return {f"{self.name}_hat": forcing}, {"pattern": pattern, "drawn": jnp.ones_like(memory["drawn"])}

    def _shape(self, grid: AbstractGrid) -> Float[Array, "l k"]:
        """Factor per coefficient that gives white noise the correlation exp(−d²/2ℓ²) and the variance one."""
        waves = (grid.multiplicity > 0) & (grid.eigenvalues < 0)
        lowest = jnp.max(jnp.where(waves, grid.eigenvalues, -jnp.inf))  # of all: its factor is 1, so none is 0/0
        factor = jnp.where(waves, jnp.exp((grid.eigenvalues - lowest) * self.scale**2 / 4), 0)
        return factor / jnp.sqrt(jnp.sum(grid.multiplicity * factor**2))


class SPPT(AbstractClosure):
    """(1 + r) × the forcing of `inner`: stochastically perturbed tendencies, with r the same in all layers.

    r is an `AR1` pattern of standard deviation σ `pattern.amplitude`, scale ℓ (m) and decorrelation time τ (s), clipped
    to |r| ≤ `limit`; up to 1 the perturbed forcing keeps its sign. The area mean of the perturbation r × forcing is
    removed, so that what `inner` conserves stays conserved (not that of u and v on a sphere: it is no momentum there).
    Weather forecasts use σ = .5 with ℓ = 500 km and τ = 6 h.
    Forcings come back on the grid. Adds two transforms of one layer; with a spectral `inner` also two of a field.

    Buizza et al. (1999), doi:10.1002/qj.49712556006; Palmer et al. (2009), ECMWF Technical Memorandum 598.
    Raises `ValueError` without `dt`, and for a limit that is not positive.
    """

    inner: AbstractClosure
    pattern: AR1
    limit: float = eqx.field(static=True)

    def __init__(self, inner: AbstractClosure, sigma=0.5, *, scale, tau, dt=None, limit: float = 1.0):
        if not limit > 0:
            raise ValueError(f"limit bounds |r| in 1 + r, 1 keeps the sign of the forcing; got {limit}")
        self.inner, self.limit = inner, float(limit)
        self.pattern = AR1(sigma, scale=scale, tau=tau, dt=time_step("SPPT", dt), name="r", coherent=True)

    def init(self, fields, grid):
        return {"inner": self.inner.init(fields, grid), "pattern": self.pattern.init(fields, grid)}

    def __call__(self, fields, grid, memory, key):
        own, below = jr.split(key)
        drawn, pattern = self.pattern(fields, grid, memory["pattern"], own)
        r = jnp.clip(grid.to_grid(drawn["r_hat"][:1]), -self.limit, self.limit)
        forcing, inner = self.inner(fields, grid, memory["inner"], below)
        total = {}
        for name, f in forcing.items():
            f = grid.to_grid(f) if name.endswith("_hat") else f
            f, name = f + without_mean(name, r * f, grid), name.removesuffix("_hat")
            total[name] = total[name] + f if name in total else f
        return total, {"inner": inner, "pattern": pattern}
