"""Closures with a formula: eddy viscosities, the Zanna-Bolton stress and energy backscatter."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from hybridgcm._typing import Fields, OnGrid, param
from hybridgcm.closures.base import AbstractClosure, layers_of, per_layer
from hybridgcm.grids import AbstractGrid
from hybridgcm.grids.base import scale


class Smagorinsky(AbstractClosure):
    """du = 2 [∂x(ν Sxx) + ∂y(ν Sxy)], dv = 2 [∂x(ν Sxy) + ∂y(ν Syy)], ν = (C Δ)² |S|.

    S the rate of strain (Sxx = ∂u/∂x, Sxy = (∂u/∂y + ∂v/∂x)/2), |S|² = 2 (Sxx² + Syy² + 2 Sxy²), s⁻²; Δ the
    grid spacing, so C is scale aware. Dissipates energy at the rate ⟨ν |S|²⟩ ≥ 0; conserves momentum.
    Reads u, v (m s⁻¹); returns u, v (m s⁻²), both `[layer, y, x]`.
    Published at 64² of the *eddy* configuration: C = .15 (Ross et al. 2023); pyqg's default is .1.

    Smagorinsky (1963), doi:10.1175/1520-0493(1963)091<0099:GCEWTP>2.3.CO;2; Ross et al. (2023),
    doi:10.1029/2022MS003258. Adds 14 transforms of a field per step, those of `lift` included (13 from 128² on).
    """

    constant: Float[Array, ""] = param(default=0.1)

    def init(self, fields, grid):
        return None

    def __call__(self, fields, grid, memory, key):
        u_x, u_y, v_x, v_y = grid.velocity_gradient(fields["u"], fields["v"])
        twice_xy = u_y + v_x
        nu = (self.constant * grid.spacing) ** 2 * root(2 * (u_x**2 + v_y**2) + twice_xy**2)
        return _force(grid.stress_divergence(2 * nu * u_x, nu * twice_xy, 2 * nu * v_y)), memory


class Leith(AbstractClosure):
    """dq = div(ν ∇q), ν = (C Δ)³ |∇q|: eddy viscosity for the cascade of potential enstrophy.

    Δ the grid spacing, so C is scale aware. With the potential vorticity of a layered model this is the
    quasi-geostrophic Leith viscosity: it mixes vorticity and thickness alike. q is the anomaly; the mean
    gradient Qy is not mixed. Dissipates potential enstrophy at the rate ⟨ν |∇q|²⟩ ≥ 0; conserves the mean of q.
    Reads q (s⁻¹) `[layer, y, x]`; returns q_hat (s⁻²), which saves a transform each way.
    Ocean models use C near 1/π (Fox-Kemper and Menemenlis 2008, doi:10.1029/177GM19); default .3.

    Leith (1996), doi:10.1016/0167-2789(96)00107-8; Bachman et al. (2017), doi:10.1002/2016JC012265.
    Adds 5 transforms of a field per step.
    """

    constant: Float[Array, ""] = param(default=0.3)

    def init(self, fields, grid):
        return None

    def __call__(self, fields, grid, memory, key):
        q_x, q_y = grid.gradient(grid.to_spectral(fields["q"]))
        nu = (self.constant * grid.spacing) ** 3 * root(q_x**2 + q_y**2)
        return {"q_hat": grid.divergence(nu * q_x, nu * q_y)}, memory


class QGLeith(AbstractClosure):
    """dq = div(ν ∇q), ν = (C Δ)³ |∇ζ + s|: Leith's viscosity of potential vorticity, its stretching part s limited.

    s = ∇(q − ζ)/√(1 + (Bu |∇(q − ζ)|/|∇ζ|)²), ζ = ∂v/∂x − ∂u/∂y, Bu = (radius/Δ)²: stretching counts by what it can
    be at the grid scale, |∇ζ|/Bu, so that thickness of large, resolved eddies does not make the viscosity. Goes to
    Leith's two-dimensional viscosity for Bu → ∞ and to `Leith` for Bu → 0. Dissipates potential enstrophy at the
    rate ⟨ν |∇q|²⟩ ≥ 0; conserves the mean of q.
    Reads q (s⁻¹), u, v (m s⁻¹) `[layer, y, x]`; returns q_hat (s⁻²).

    Taken from Bachman et al. (2017), doi:10.1002/2016JC012265: one coefficient for vorticity and thickness, C = 1/π,
    and the limit of stretching by the grid's Burger number (equation 55), here on the gradient and smooth. Left out:
    the gradient of the divergence (Pearson et al. 2017, doi:10.1016/j.ocemod.2017.05.007) and the limit by the Rossby
    number, both zero in quasi-geostrophic flow, and the gradients of the mean flow and of β: q is the anomaly.
    Scale aware. C is meant for a model without other dissipation: beside pyqg's filter, 3000 steps of *eddy* at 64²
    lose two thirds of their kinetic energy, as with `Leith`.
    Trainable: `constant` C, `radius` (m, per layer), of layer i 1/√−Sᵢᵢ, S the equation's stretching.
    Adds 9 transforms of a field per step.
    """

    radius: Float[Array, " layer"] | Float[Array, ""] = param()
    constant: Float[Array, ""] = param(default=1 / np.pi)

    def init(self, fields, grid):
        layers = layers_of(fields)
        if self.radius.shape not in ((), (layers,)):
            raise ValueError(f"QGLeith needs one radius or one per layer, {layers}; got shape {self.radius.shape}")
        return None

    def __call__(self, fields, grid, memory, key):
        x, y = grid.gradient(jnp.stack([grid.to_spectral(fields["q"]), grid.curl(fields["u"], fields["v"])]))
        stretching_x, stretching_y = x[0] - x[1], y[0] - y[1]
        burger = per_layer(self.radius / grid.spacing) ** 2
        square = x[1] ** 2 + y[1] ** 2
        # A quotient of roots: the derivative of a quotient of squares would overflow single precision in a slow flow.
        limit = root(square) / root(square + burger**2 * (stretching_x**2 + stretching_y**2))
        total = (x[1] + limit * stretching_x) ** 2 + (y[1] + limit * stretching_y) ** 2
        nu = (self.constant * grid.spacing) ** 3 * root(total)
        return {"q_hat": grid.divergence(nu * x[0], nu * y[0])}, memory


class ZannaBolton(AbstractClosure):
    """(du, dv) = κ div [[E − ζD, ζG], [ζG, E + ζD]], E = (ζ² + D² + G²)/2: a stress found by regression.

    ζ = ∂v/∂x − ∂u/∂y, D = ∂v/∂x + ∂u/∂y (shear), G = ∂u/∂x − ∂v/∂y (stretch), s⁻¹; κ in m², negative. The stress
    is orthogonal to the strain at every point: energy neutral in total, but it moves energy between scales,
    forwards; alone it may need extra dissipation. Conserves momentum. Acts on the momentum part only: it knows
    nothing of the buoyancy part of the subgrid forcing of q.
    Reads u, v (m s⁻¹); returns u, v (m s⁻²), both `[layer, y, x]`.

    *Not* scale aware (`ScaleAwareZannaBolton` is). The default κ (pyqg's) was fitted on Δ = 15.6 km (64² on 1000 km)
    with Gaussian-filtered data (operator 2) and is about −1.15 (2Δ)²/24: for another spacing scale it by Δ², for
    operator 1 tune it, as the amplitude of `Scaled` (a number near 1, which an optimiser can step).
    Zanna and Bolton (2020), doi:10.1029/2020GL088376, equation 6; Ross et al. (2023), doi:10.1029/2022MS003258.
    Adds 14 transforms of a field per step, those of `lift` included (13 from 128² on).
    """

    kappa: Float[Array, ""] = param(default=-46_761_284.0)

    def init(self, fields, grid):
        return None

    def __call__(self, fields, grid, memory, key):
        return _force(grid.stress_divergence(*_zanna_bolton(self.kappa, fields, grid))), memory


class ScaleAwareZannaBolton(AbstractClosure):
    """The stress of `ZannaBolton` with κ = −γ Δ², filtered by exp(−κ²(C Δ)²/24) (κ here the wave number).

    Δ the grid spacing: one γ for all resolutions. The filter takes away the noise near the grid scale that the stress
    makes; it costs the exact neutrality of `ZannaBolton`: what is left puts energy into large scales. C = 0 is no
    filter; C² = 6 is one pass of the weights 1/4, 1/2, 1/4 each way, to second order in wave number; default four.
    Reads u, v (m s⁻¹); returns u, v (m s⁻²), both `[layer, y, x]`. Conserves momentum.

    Perezhogin et al. (2024), doi:10.1029/2023MS004104, whose stress is smoothed ("ZB-Smooth"); γ = .5 is the default
    of MOM6, which names .5 to 2.5. The κ of `ZannaBolton` is γ = .19 at its spacing, unfiltered. Their attenuation
    where the flow is not geostrophic (Klöwer et al. 2018, doi:10.1016/j.ocemod.2018.09.006) has no place here.
    Adds 14 transforms of a field per step, those of `lift` included (13 from 128² on).
    """

    gamma: Float[Array, ""] = param(default=0.5)
    width: Float[Array, ""] = param(default=24**0.5)

    def init(self, fields, grid):
        return None

    def __call__(self, fields, grid, memory, key):
        stress = _zanna_bolton(-self.gamma * grid.spacing**2, fields, grid)
        factor = jnp.exp(grid.eigenvalues * (self.width * grid.spacing) ** 2 / 24)
        return _force(grid.stress_divergence(*stress, factor)), memory


class BiharmonicBackscatter(AbstractClosure):
    """dq = −∇²(ν Δ² ∇²ζ) − c_B r ∇²ζ, ν = (C Δ)² |S|, r = −⟨ζ ν Δ² ∇²ζ⟩ / ⟨ζ²⟩ (dissipation, then backscatter).

    ζ = ∇²ψ; ⟨⟩ the mean over the domain and, weighted by thickness, over layers. The first term is a biharmonic
    Smagorinsky viscosity, the second a negative Laplacian one whose single coefficient r (m² s⁻¹, positive while the
    first drains energy) returns the share c_B of the energy that the first removes, at larger scales. Net energy rate:
    −(1 − c_B) × dissipation; c_B > 1 can be stable when the model has other dissipation. Δ the grid spacing, so C is
    scale aware.
    Reads u, v (m s⁻¹) `[layer, y, x]`; returns q_hat (s⁻²).

    `thickness`: depths of the layers in any unit, fixed at construction. Trainable: `smagorinsky` C, `backscatter` c_B.
    pyqg's defaults are C = .08, c_B = .99. Published at 64²: *eddy* C = √.007, c_B = 1.2 (Ross et al. 2023,
    doi:10.1029/2022MS003258), *jet* C = √.005, c_B = .8 (Perezhogin et al. 2023, doi:10.1029/2023MS003681).

    Jansen and Held (2014), doi:10.1016/j.ocemod.2014.06.002; Jansen et al. (2015),
    doi:10.1016/j.ocemod.2015.05.007. Adds 9 transforms of a field per step.
    Raises `ValueError` for a thickness that is not positive or does not match the layers of the fields.
    """

    thickness: tuple[float, ...] = eqx.field(static=True)
    smagorinsky: Float[Array, ""] = param()
    backscatter: Float[Array, ""] = param()

    def __init__(self, thickness, smagorinsky=0.08, backscatter=0.99):
        thickness = np.atleast_1d(np.asarray(thickness, float))
        if thickness.ndim != 1 or not (np.all(thickness > 0) and np.isfinite(thickness.sum())):
            raise ValueError(f"BiharmonicBackscatter needs one positive thickness per layer; got {thickness.tolist()}")
        self.thickness = tuple((thickness / thickness.sum()).tolist())
        self.smagorinsky, self.backscatter = smagorinsky, backscatter

    def init(self, fields, grid):
        layers = fields["u"].shape[0]
        if layers != len(self.thickness):
            raise ValueError(
                f"BiharmonicBackscatter has {len(self.thickness)} thicknesses, the fields {layers} layers; "
                "pass equation.thickness"
            )
        return None

    def __call__(self, fields, grid, memory, key):
        u_x, u_y, v_x, v_y = grid.velocity_gradient(fields["u"], fields["v"])
        vorticity = v_x - u_y
        roughness_hat = grid.laplacian(grid.to_spectral(vorticity))
        nu = (self.smagorinsky * grid.spacing) ** 2 * root(2 * (u_x**2 + v_y**2) + (u_y + v_x) ** 2)
        flux = nu * grid.spacing**2 * grid.to_grid(roughness_hat)
        # Moving Laplacians from ψ to ζ turns ⟨ψ dissipation⟩ / ⟨ψ ∇⁴ψ⟩ into grid means of ζ: no transform of ψ.
        square = self._mean(grid, vorticity**2)
        # Divided by the root twice: the derivative of 1/square would overflow single precision in a slow flow.
        rms = jnp.sqrt(jnp.where(square > 0, square, 1))
        rate = -self._mean(grid, vorticity * flux) / rms / rms
        dissipation_hat = grid.laplacian(grid.to_spectral(flux))
        return {"q_hat": -dissipation_hat - self.backscatter * rate * roughness_hat}, memory

    def _mean(self, grid: AbstractGrid, a: OnGrid) -> Float[Array, ""]:
        means = grid.mean(a)
        return sum(fraction * means[layer] for layer, fraction in enumerate(self.thickness))


class GradientModel(AbstractClosure):
    """dq = −∇·F, Fᵢ = (C Δ)²/12 Σₖ ∂ₖuᵢ ∂ₖq: the first term of the subgrid flux of q in powers of the filter's width.

    Exact to second order for a Gaussian filter exp(−κ²(C Δ)²/24), whose width is C grid spacings Δ: C = 2 is operator
    2 of `coarsen`. It knows the direction of the transfer, both ways, and alone lets small scales grow: use it in a
    `Sum` with a viscosity. Conserves the mean of q. Scale aware.
    Reads q (s⁻¹), u, v (m s⁻¹) `[layer, y, x]`; returns q_hat (s⁻²).

    Leonard (1974), doi:10.1016/S0065-2687(08)60464-1; Clark et al. (1979), doi:10.1017/S002211207900001X.
    Adds 11 transforms of a field per step.
    """

    width: Float[Array, ""] = param(default=2.0)

    def init(self, fields, grid):
        return None

    def __call__(self, fields, grid, memory, key):
        u_x, u_y, v_x, v_y = grid.velocity_gradient(fields["u"], fields["v"])
        q_x, q_y = grid.gradient(grid.to_spectral(fields["q"]))
        factor = (self.width * grid.spacing) ** 2 / 12
        return {"q_hat": -grid.divergence(factor * (u_x * q_x + u_y * q_y), factor * (v_x * q_x + v_y * q_y))}, memory


class Hyperviscosity(AbstractClosure):
    """dq = −(λ/λ₀)^order q / tau, λ the eigenvalue of −∇² and λ₀ the largest resolved one: damps the smallest scales.

    `tau` (s) is the decay time of the smallest resolved wave whatever the resolution, so it is scale aware in that
    sense and depends on neither time step nor units. Explicit: tau must exceed the stepper's damping limit (dt/.54 for
    AB3). The same term as a part of the equation is implicit, `QuasiGeostrophic(..., tau=...)`; this one can be
    trained, scaled and summed with others. Reads q (s⁻¹); returns q_hat (s⁻²). Adds 1 transform of a field per step.
    """

    tau: Float[Array, ""] = param()
    order: int = eqx.field(static=True, default=4)

    def init(self, fields, grid):
        return None

    def __call__(self, fields, grid, memory, key):
        relative = grid.eigenvalues / jnp.min(jnp.where(grid.multiplicity > 0, grid.eigenvalues, 0))
        rate = jnp.where(grid.multiplicity > 0, relative**self.order, 0) / self.tau
        return {"q_hat": scale(-rate, grid.to_spectral(fields["q"]))}, memory


def _zanna_bolton(kappa: Array, fields: Fields, grid: AbstractGrid) -> tuple[OnGrid, OnGrid, OnGrid]:
    """Stress (τxx, τxy, τyy) = κ (E − ζD, ζG, E + ζD), m² s⁻²."""
    u_x, u_y, v_x, v_y = grid.velocity_gradient(fields["u"], fields["v"])
    vorticity, shear, stretch = v_x - u_y, v_x + u_y, u_x - v_y
    trace = (vorticity**2 + shear**2 + stretch**2) / 2
    skew, cross = vorticity * shear, vorticity * stretch
    return kappa * (trace - skew), kappa * cross, kappa * (trace + skew)


def _force(uv: tuple[OnGrid, OnGrid]) -> Fields:
    return {"u": uv[0], "v": uv[1]}


def root(square: Array) -> Array:
    """√square with a zero, not infinite, derivative where the flow is at rest."""
    return jnp.sqrt(jnp.maximum(square, jnp.finfo(square.dtype).tiny))
