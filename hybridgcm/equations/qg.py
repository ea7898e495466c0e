"""Layered quasi-geostrophic potential vorticity on any grid."""

from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from hybridgcm._typing import Fields, Hat, Numbers, OnGrid, Spectral, fixed
from hybridgcm.equations import layers as stack
from hybridgcm.equations.base import AbstractEquation, reference_eigenvalue, roughness
from hybridgcm.grids import AbstractGrid
from hybridgcm.grids.base import scale as scaled
from hybridgcm.grids.sphere import ROTATION

DAY = 86400.0


class QuasiGeostrophic(AbstractEquation):
    """∂q/∂t = −(u + U)·∇(q + δ_N η) − u·∇Q − δ_N ∇·(k ∇ψ) − r Sψ − D q,  q = ∇²ψ + Sψ,  u = (−∂ψ/∂y, ∂ψ/∂x).

    q `[layer, y, x]` in s⁻¹, top layer first, is the anomaly about a mean flow U = (U, V), m s⁻¹, that is maintained
    and whose potential vorticity has the gradients Qy = β − S U and Qx = S V, m⁻¹ s⁻¹. U is a number, one per layer or
    a zonal profile `[layer, y]` on the points of the grid, which adds −U_yy to Qy; V is a number, one per layer or
    absent.
    `topography` acts on the lowest layer N: η = f h/H_N on the grid `[y, x]` in s⁻¹, h the height of the bottom, or
    the gradient (η_x, η_y) of a plane slope, m⁻¹ s⁻¹. `drag` k (s⁻¹, positive damps), a number or a field `[y, x]`,
    acts on the velocity of layer N; `relaxation` r (s⁻¹), if given, on the temperature, i.e. the stretching.
    D = (λ/λ₀)^order / tau, s⁻¹, λ the eigenvalue of −∇²: waves of eigenvalue λ₀ = (π/scale)² decay at the rate 1/tau
    (s). `scale` is half a wavelength, m; by default that of the smallest resolved wave. A rate depends on neither time
    step nor, at given `scale`, resolution. It is the only implicit term. pyqg's per-step filter is not part of the
    equation: see `Filtered`.
    Vallis (2017), doi:10.1017/9781107588417, section 5.3; two layers as in pyqg (Ross et al. 2023,
    doi:10.1029/2022MS003258, equations 1 to 4).

    On a sphere, where u = −(1/a) ∂ψ/∂φ and so on, a number U is the speed at the equator of solid rotation, U cos φ,
    `beta` is 2Ω/a (`Sphere.beta`), and both stay linear terms; V and plane slopes do not exist.

    Ten transforms of a layer per evaluation on two layers: three inverse and two forward each. Profile, topography
    and a field of drag add none; V or a zonal slope of the bottom add one.

    Trainable: `beta`, `U` (of a profile: its uniform part), `V`, `topography`, `drag`, `relaxation`, `tau`. Fixed at
    construction: `stretching` S `[layer, layer]`, m⁻², its inverse operator, `thickness` (fractions of the depth, sum
    one), the rest of the `profile` with its potential vorticity, and the shape of D. Profile and topography are
    projected on the resolved modes.

    Raises `ValueError` for shapes that do not agree and for negative `drag` or `tau`.
    """

    prognostic: ClassVar[tuple[str, ...]] = ("q",)
    grid: AbstractGrid
    stretching: Float[Array, "layer layer"] = fixed()
    thickness: Float[Array, " layer"] = fixed()
    inverse: Float[Array, "layer layer *modes"] = fixed()
    beta: Float[Array, ""]
    U: Float[Array, " layer"]
    V: Float[Array, " layer"] | None
    profile: tuple[Float[Array, "layer y x"], Float[Array, "layer y x"]] | None
    topography: Float[Array, "y x"] | Float[Array, "2"] | None
    drag: Float[Array, "*points"]
    relaxation: Float[Array, ""] | None
    tau: Float[Array, ""]
    roughness: Float[Array, "*modes"] = fixed()
    layers: int = eqx.field(static=True)

    def __init__(
        self,
        grid: AbstractGrid,
        stretching,
        thickness,
        *,
        beta: float = 0.0,
        U: Numbers = 0.0,
        V: Numbers | None = None,
        topography=None,
        drag: Numbers = 0.0,
        relaxation: float | None = None,
        tau: float = np.inf,
        order: int = 4,
        scale: float | None = None,
    ):
        stretching, thickness = (
            np.atleast_2d(np.asarray(stretching, float)),
            np.atleast_1d(np.asarray(thickness, float)),
        )
        layers = len(thickness)
        U, V = (a if a is None else _per_layer(a, layers) for a in (U, V))
        profile = U[:, :, None] if U.ndim == 2 else None
        U = U if profile is None else U.mean(1)
        stack.check(grid, layers, stretching, U, V, profile, topography, drag)
        if not (np.min(drag) >= 0 and (relaxation or 0) >= 0 and tau > 0):
            raise ValueError(
                f"positive numbers damp: drag >= 0 and relaxation >= 0 (s-1), tau > 0 (s); "
                f"got drag={np.min(drag)}, relaxation={relaxation}, tau={tau}"
            )
        if profile is not None:
            uniform = np.asarray(grid.uniform_flow, float)
            weight = np.broadcast_to(np.asarray(grid.weights, float) * uniform, grid.shape)
            U = (weight * profile).sum((1, 2)) / (weight * uniform).sum()
        put = lambda a: jnp.asarray(np.asarray(a, float), grid.eigenvalues.dtype)
        self.grid, self.layers = grid, layers
        self.stretching, self.thickness, self.U = put(stretching), put(thickness / thickness.sum()), put(U)
        self.V = None if V is None else put(V)
        self.beta, self.drag, self.tau = put(beta), put(drag), put(tau)
        self.relaxation = None if relaxation is None else put(relaxation)
        self.inverse = put(stack.inversion(np.asarray(grid.eigenvalues, float), stretching))
        self.roughness = put(roughness(grid, order, scale))
        project = lambda a: grid.to_grid(grid.to_spectral(put(a)))
        field = topography is not None and np.shape(topography) != (2,)
        self.topography = project(topography) if field else None if topography is None else put(topography)
        self.profile = None
        if profile is not None:
            zonal = np.broadcast_to(profile - U[:, None, None] * uniform, (layers, *grid.shape))
            psi_hat = grid.inverse_laplacian(grid.curl(put(zonal), put(0 * zonal)))
            self.profile = grid.velocity(psi_hat)[0], grid.to_grid(self.potential_vorticity(psi_hat))

    @classmethod
    def layered(
        cls, grid, thickness, *, f=None, reduced_gravity=None, density=None, radii=None, gravity=9.81, **kwargs
    ):
        """Any number of layers of `thickness` H (m), coupled by one of `reduced_gravity`, `density` and `radii`.

        (Sψ)ᵢ = Σ f²/(g'Hᵢ) (ψ − ψᵢ) over the interfaces of layer i; f in s⁻¹, g' in m s⁻² per interface from the top,
        density ρ in kg m⁻³ per layer with g' = gravity (ρᵢ₊₁ − ρᵢ)/ρᵢ, or deformation radii in m of the pairs of layers
        that an interface parts (`two_layer`'s rd). One value more parts the lowest layer from a motionless abyss:
        a finite equivalent-barotropic radius. `topography` here is the height h of the bottom on the grid, m, or its
        plane slope (h_x, h_y), and becomes η = f h/H_N. Vallis (2017), equation 5.86; pyqg's `LayeredModel`.
        """
        strength = stack.interfaces(
            thickness, f=f, reduced_gravity=reduced_gravity, density=density, radii=radii, gravity=gravity
        )
        if kwargs.get("topography") is not None:
            if f is None:
                raise ValueError("topography in m needs the Coriolis parameter: pass f (s-1)")
            kwargs["topography"] = f / thickness[-1] * np.asarray(kwargs["topography"], float)
        return cls(grid, stack.stretching(thickness, strength), thickness, **kwargs)

    @classmethod
    def two_layer(cls, grid, *, rd=15e3, delta=0.25, beta=1.5e-11, U=(0.025, 0.0), drag=5.787e-7, **kwargs):
        """Two layers with deformation radius `rd` (m) and thickness ratio `delta` = H1/H2, pyqg's parameters.

        S = [[−F1, F1], [F2, −F2]], F1 = rd⁻²/(1 + delta), F2 = delta·F1. Defaults: the *eddy* regime of
        Ross et al. (2023), doi:10.1029/2022MS003258; its *jet* has delta=.1, beta=1e-11, drag=7e-8.
        """
        if not (rd > 0 and delta > 0):
            raise ValueError(f"two_layer needs rd > 0 (m) and delta > 0; got rd={rd}, delta={delta}")
        f1 = rd**-2 / (1 + delta)
        f2 = delta * f1
        return cls(grid, [[-f1, f1], [f2, -f2]], [delta, 1.0], beta=beta, U=U, drag=drag, **kwargs)

    @classmethod
    def barotropic(cls, grid, *, rd=np.inf, beta=0.0, U=0.0, drag=0.0, **kwargs):
        """One layer, q = ∇²ψ − ψ/rd²; infinite `rd` (m) gives the barotropic vorticity equation."""
        if not rd > 0:
            raise ValueError(f"barotropic needs rd > 0 (m); got {rd}")
        return cls(grid, [[-(rd**-2.0)]], [1.0], beta=beta, U=U, drag=drag, **kwargs)

    @classmethod
    def navier_stokes(cls, grid, *, viscosity=0.0, drag=0.0, order=1, **kwargs):
        """Two-dimensional Navier–Stokes flow, ∂ζ/∂t = −u·∇ζ − drag ζ − viscosity (−∇²)^order ζ; q is the vorticity ζ.

        `viscosity` ν in m² s⁻¹ (order 1; else m^(2 order) s⁻¹), held as the rate 1/tau = ν λ₀^order at the smallest
        resolved wave or at `scale`. Further arguments as for the class, so also `beta`, `U` and `topography`.
        Raises `ValueError` for negative `viscosity`.
        """
        if not viscosity >= 0:
            raise ValueError(f"positive viscosity damps; got {viscosity}")
        rate = viscosity * reference_eigenvalue(grid, kwargs.get("scale")) ** order
        return cls(grid, [[0.0]], [1.0], drag=drag, tau=1 / rate if rate else np.inf, order=order, **kwargs)

    @classmethod
    def qg3(cls, grid, *, radii=(7e5, 4.5e5), rotation=ROTATION, orography=None, land=None, tau=2 * DAY, **kwargs):
        """Marshall and Molteni's three levels, 200, 500 and 800 hPa, on a sphere; the forcing S is the model's.

        q is the potential vorticity without f: dq/dt = −J(ψ, q) − (2Ω/a²) ∂ψ/∂λ − ..., so waves go west. `radii` of
        deformation (m) between the levels; f h/9 km in the lowest for `orography` h (m, `[y, x]`). Unless given:
        temperature `relaxation` 1/(25 days), Ekman `drag` k = (1 + .5 `land` + .5 (1 − exp(−h/1 km)))/(3 days), `land`
        a mask or fraction, and hyperdiffusion ∇⁸ of q with `tau` 2 days at the truncation.
        Marshall and Molteni (1993), doi:10.1175/1520-0469(1993)050<1792:TADUOP>2.0.CO;2.
        """
        upper, lower = (float(r) ** -2 for r in radii)
        S = [[-upper, upper, 0], [upper, -upper - lower, lower], [0, lower, -lower]]
        h = np.zeros(grid.shape) if orography is None else np.asarray(orography, float)
        roughness = 0.5 * (0 if land is None else np.asarray(land, float)) + 0.5 * (1 - np.exp(-np.maximum(h, 0) / 1e3))
        if orography is not None:
            kwargs["topography"] = np.asarray(grid.coriolis(rotation), float) * h / 9e3
        kwargs = {"relaxation": 1 / (25 * DAY), "drag": (1 + roughness) / (3 * DAY)} | kwargs
        return cls(grid, S, np.ones(3), beta=grid.beta(rotation), tau=tau, **kwargs)

    @property
    def Qy(self) -> Float[Array, " layer"]:
        """Gradient of the mean potential vorticity in y, β − S U + δ_N η_y, m⁻¹ s⁻¹, U without its profile."""
        Qy = self.beta - self.stretching @ self.U - self.grid.uniform_eigenvalue * self.U
        return Qy + self._bottom * self.topography[1] if self._slope else Qy

    @property
    def Qx(self) -> Float[Array, " layer"] | None:
        """Gradient of the mean potential vorticity in x, S V + δ_N η_x, m⁻¹ s⁻¹; `None` without V and slope."""
        Qx = None if self.V is None else self.stretching @ self.V
        if self._slope:
            Qx = self._bottom * self.topography[0] + (0 if Qx is None else Qx)
        return Qx

    @property
    def mean_flow(self) -> tuple[Array, Array]:
        """(U, V), m s⁻¹, to be added to fields `[layer, y, x]`."""
        U = self.U[:, None, None] * self.grid.uniform_flow + (0 if self.profile is None else self.profile[0])
        return U, jnp.zeros_like(U) if self.V is None else self.V[:, None, None]

    @property
    def dissipation(self) -> Float[Array, "*modes"]:
        """D, decay rate per mode, s⁻¹."""
        return self.roughness / self.tau

    def invert(self, q_hat: Hat) -> Hat:
        """Streamfunction from potential vorticity, both spectral `[layer, ...]`; the mean of ψ is zero."""
        return stack.couple(self.inverse, q_hat)

    def potential_vorticity(self, psi_hat: Hat) -> Hat:
        """q = ∇²ψ + Sψ, both spectral."""
        return self.grid.laplacian(psi_hat) + stack.couple(self.stretching, psi_hat)

    def view(self, y: Spectral) -> Fields:
        """q (s⁻¹), u, v (m s⁻¹) and psi (m² s⁻¹) on the grid, all without the mean flow."""
        psi_hat = self.invert(y["q"])
        u, v, q = self.grid.synthesise(psi_hat, y["q"])
        return {"q": q, "u": u, "v": v, "psi": self.grid.to_grid(psi_hat)}

    def explicit(self, t: Array | float, y: Spectral) -> Spectral:
        q_hat = y["q"]
        psi_hat = self.invert(q_hat)
        u, v, q = self.grid.synthesise(psi_hat, q_hat)
        per_layer = lambda a: stack.column(a, q_hat)
        zonal = scaled(per_layer(self.Qy), psi_hat)
        if self.profile is None and self.topography is None and self.V is None:
            # A uniform zonal flow stays spectral: exact, and free of products on the grid.
            zonal = scaled(per_layer(self.U), q_hat) + zonal
            flux = u * q, v * q
        else:
            flux = self._flux(u, v, q, psi_hat)
        friction = 0.0
        if self.drag.ndim:  # its flux k ∇ψ goes through the same transforms
            k = stack.column(self._bottom, u) * self.drag
            flux = flux[0] + k * v, flux[1] - k * u
        else:
            friction = scaled(per_layer(self._bottom * self.drag) * self.grid.eigenvalues, psi_hat)
        if self.relaxation is not None:
            friction = friction + scaled(self.relaxation, stack.couple(self.stretching, psi_hat))
        return {"q": -(self.grid.divergence(*flux) + self.grid.zonal_derivative(zonal) + friction)}

    def _flux(self, u: OnGrid, v: OnGrid, q: OnGrid, psi_hat: Hat) -> tuple[OnGrid, OnGrid]:
        """Flux of potential vorticity with the mean flow, but for the part −Qy ∂ψ/∂x that stays spectral."""
        if self.topography is not None and not self._slope:
            q = q + stack.column(self._bottom, q) * self.topography
        U, V = self.mean_flow
        zonal, meridional = (u + U) * q, (v + V) * q
        if self.profile is not None:
            zonal, meridional = zonal + u * self.profile[1], meridional + v * self.profile[1]
        if (Qx := self.Qx) is not None:
            meridional = meridional - stack.column(Qx, q) * self.grid.to_grid(psi_hat)
        return zonal, meridional

    @property
    def _bottom(self) -> Float[Array, " layer"]:
        """1 for the lowest layer, else 0."""
        return jnp.asarray(np.arange(self.layers) == self.layers - 1, self.thickness.dtype)

    @property
    def _slope(self) -> bool:
        return self.topography is not None and self.topography.ndim == 1

    def implicit(self, y: Spectral) -> Spectral:
        return {"q": scaled(-self.dissipation, y["q"])}

    def solve(self, y: Spectral, a: Array | float) -> Spectral:
        return {"q": scaled(1 / (1 + a * self.dissipation), y["q"])}

    def lift(self, forcing: Fields) -> dict[str, Array | float]:
        """Accepts `q` (s⁻²) or `u` and `v` (m s⁻², by their curl) on the grid, or spectral `q_hat`.

        Raises `ValueError` for any other name, half a momentum forcing and a shape that is not one of all layers.
        """
        total = self.lift_prognostics(self.check_forcing(forcing))
        if "u" in forcing:
            total["q"] = total["q"] + self.grid.curl(forcing["u"], forcing["v"])
        return total


def _per_layer(a, layers: int) -> np.ndarray:
    """A number for all layers, or an array as it is."""
    return np.full(layers, float(a)) if np.ndim(a) == 0 else np.asarray(a, float)
