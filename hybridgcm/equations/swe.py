"""Rotating shallow water in one or several layers, on any grid."""

from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from hybridgcm._typing import Fields, Hat, Numbers, Spectral, fixed
from hybridgcm.equations import layers as stack
from hybridgcm.equations.base import AbstractEquation, roughness
from hybridgcm.grids import AbstractGrid
from hybridgcm.grids.base import scale as scaled


class ShallowWater(AbstractEquation):
    """∂ζ/∂t = −∇·(a u) − Rζ, ∂δ/∂t = ∇×(a u) − ∇²(M + |u|²/2) − Rδ, ∂φ/∂t = −∇·(φ u) − mean δ, a = ζ + f.

    ζ, δ (s⁻¹): curl and divergence of u `[layer, y, x]`, top layer first; φ (m² s⁻²): gravity times the anomaly of a
    layer's thickness about `mean` = g H > 0. M = Σⱼ min(ρᵢ, ρⱼ)/ρᵢ φⱼ + `topography` is the Montgomery potential of
    layer i from `density` ρ `[layer]`, growing downward, of which the ratios count; `topography` = g h_b is a field
    `[y, x]`, m² s⁻², h_b the height of the bottom: water at rest has φ = −topography in the lowest layer. f (s⁻¹) is
    a number or a field `[y, x]`. R is `drag` (s⁻¹, positive damps) in the lowest layer plus D = (λ/λ₀)^order / tau as
    in `QuasiGeostrophic`; φ is not damped, so that water at rest stays so and mass is exact.
    Vallis (2017), doi:10.1017/9781107588417, sections 3.1 to 3.4.

    Implicit: gravity waves of all layers and D; `solve` is exact, by elimination over layers per mode. ζ and δ
    hold no domain-mean flow: on a torus a uniform force keeps that at zero, which does no work only if the mean
    transport of each layer vanishes, as it does in flows that are symmetric about a point. A sphere has none.
    Nine transforms per layer and evaluation: four inverse, five forward.

    Trainable: `f`, `mean`, `density`, `topography` (projected on the resolved modes), `drag`, `tau`. Fixed at
    construction: the shape of D. Raises `ValueError` for shapes that do not agree and for signs that amplify.
    """

    prognostic: ClassVar[tuple[str, ...]] = ("zeta", "delta", "phi")
    grid: AbstractGrid
    f: Float[Array, "*points"]
    mean: Float[Array, " layer"]
    density: Float[Array, " layer"]
    topography: Float[Array, "y x"] | None
    drag: Float[Array, ""]
    tau: Float[Array, ""]
    roughness: Float[Array, "*modes"] = fixed()
    layers: int = eqx.field(static=True)

    def __init__(
        self,
        grid: AbstractGrid,
        f: Numbers,
        mean: Numbers,
        *,
        density: Numbers | None = None,
        topography: Numbers | None = None,
        drag: float = 0.0,
        tau: float = np.inf,
        order: int = 4,
        scale: float | None = None,
    ):
        mean = np.atleast_1d(np.asarray(mean, float))
        layers, shape = len(mean), tuple(grid.shape)
        rho = np.ones(1) if density is None else np.atleast_1d(np.asarray(density, float))
        if rho.shape != (layers,) or not (mean > 0).all() or not ((np.diff(rho) > 0).all() and rho[0] > 0):
            raise ValueError(
                f"layers need mean > 0 (g H, m2 s-2) and as many densities, growing downward; "
                f"got mean={mean.tolist()} and density={rho.tolist()}"
            )
        if np.shape(f) not in ((), shape) or (topography is not None and np.shape(topography) != shape):
            raise ValueError(
                f"f is a number or a field {shape} [y, x], topography such a field; "
                f"got {np.shape(f)} and {None if topography is None else np.shape(topography)}"
            )
        if not (drag >= 0 and tau > 0):
            raise ValueError(f"positive numbers damp: drag >= 0 (s-1) and tau > 0 (s); got drag={drag}, tau={tau}")
        put = lambda a: jnp.asarray(np.asarray(a, float), grid.eigenvalues.dtype)
        self.grid, self.layers = grid, layers
        self.f, self.mean, self.density = put(f), put(mean), put(rho)
        self.topography = None if topography is None else grid.to_grid(grid.to_spectral(put(topography)))
        self.drag, self.tau, self.roughness = put(drag), put(tau), put(roughness(grid, order, scale))

    @property
    def dissipation(self) -> Float[Array, "*modes"]:
        """D, decay rate per mode of ζ and δ, s⁻¹."""
        return self.roughness / self.tau

    @property
    def coupling(self) -> Float[Array, "layer layer"]:
        """min(ρᵢ, ρⱼ)/ρᵢ: the Montgomery potential of layer i per φ of layer j, dimensionless."""
        return jnp.minimum(self.density[:, None], self.density) / self.density[:, None]

    def _flow(self, y: Spectral) -> tuple[Array, ...]:
        """u, v, ζ and φ on the grid from one batch of transforms."""
        psi_hat, chi_hat = (self.grid.inverse_laplacian(y[name]) for name in ("zeta", "delta"))
        return self.grid.synthesise(psi_hat, y["zeta"], y["phi"], potential=chi_hat)

    def view(self, y: Spectral) -> Fields:
        """zeta, delta (s⁻¹), phi (m² s⁻²), u and v (m s⁻¹) on the grid."""
        u, v, zeta, phi = self._flow(y)
        return {"zeta": zeta, "delta": self.grid.to_grid(y["delta"]), "phi": phi, "u": u, "v": v}

    def explicit(self, t: Array | float, y: Spectral) -> Spectral:
        grid, n = self.grid, self.layers
        u, v, zeta, phi = self._flow(y)
        a = zeta + self.f
        # Momentum and mass fluxes in one batch; the curl of the latter is never used and costs no transform.
        both = lambda w: jnp.concatenate([a * w, phi * w])
        curl, divergence = grid.curl_and_divergence(both(u), both(v))
        bernoulli = (u**2 + v**2) / 2
        if self.topography is not None:
            bernoulli = bernoulli + self.topography
        drag = stack.column(jnp.where(np.arange(n) == n - 1, self.drag, 0), curl)
        return {
            "zeta": -divergence[:n] - scaled(drag, y["zeta"]),
            "delta": curl[:n] - grid.laplacian(grid.to_spectral(bernoulli)) - scaled(drag, y["delta"]),
            "phi": -divergence[n:],
        }

    def implicit(self, y: Spectral) -> Spectral:
        damp = lambda a_hat: scaled(-self.dissipation, a_hat)
        pressure = stack.couple(self.coupling, y["phi"])
        return {
            "zeta": damp(y["zeta"]),
            "delta": damp(y["delta"]) - self.grid.laplacian(pressure),
            "phi": scaled(-stack.column(self.mean, pressure), y["delta"]),
        }

    def solve(self, y: Spectral, a: Array | float) -> Spectral:
        # (1 + aD) δ + a ∇²Rφ = y_δ and φ + a mean δ = y_φ; φ eliminated leaves one small system per mode for δ.
        damped, wave = 1 + a * self.dissipation, -(a**2) * self.grid.eigenvalues
        R, layers = self.coupling, range(self.layers)
        matrix = [[(damped if i == j else 0) + wave * (R[i, j] * self.mean[j]) for j in layers] for i in layers]
        right = y["delta"] - a * self.grid.laplacian(stack.couple(R, y["phi"]))
        delta = jnp.stack(stack.eliminate(matrix, [right[i] for i in layers]))
        phi = y["phi"] - scaled(a * stack.column(self.mean, delta), delta)
        return {"zeta": scaled(1 / damped, y["zeta"]), "delta": delta, "phi": phi}

    def lift(self, forcing: Fields) -> dict[str, Array | float]:
        """Accepts `u` and `v` (m s⁻²), `zeta`, `delta` (s⁻²), `phi` (m² s⁻³) on the grid, or spectral `name_hat`.

        Raises `ValueError` for any other name, half a momentum forcing and a shape that is not one of all layers.
        """
        total = self.lift_prognostics(self.check_forcing(forcing))
        if "u" in forcing:
            curl, divergence = self.grid.curl_and_divergence(forcing["u"], forcing["v"])
            total |= {"zeta": total["zeta"] + curl, "delta": total["delta"] + divergence}
        return total

    def balanced(self, psi_hat: Hat) -> Fields:
        """`zeta`, `delta` = 0 and `phi` on the grid of the linear geostrophic state f ψ = M, for a uniform f.

        A start without gravity waves at small Rossby number. `psi_hat` spectral `[layer, ...]`, m² s⁻¹.
        """
        if self.f.ndim:
            raise ValueError(f"a geostrophic start needs a uniform f; got a field {self.f.shape}")
        bottom = 0.0 if self.topography is None else self.grid.to_spectral(self.topography)
        pressure = scaled(self.f, psi_hat) - bottom
        R = self.coupling
        phi = jnp.stack(stack.eliminate([list(row) for row in R], list(pressure)))
        zeta = self.grid.to_grid(self.grid.laplacian(psi_hat))
        return {"zeta": zeta, "delta": jnp.zeros_like(zeta), "phi": self.grid.to_grid(phi)}
