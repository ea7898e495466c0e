"""Surface quasi-geostrophic buoyancy on any grid."""

from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from hybridgcm._typing import Fields, Hat, Spectral, fixed
from hybridgcm.equations.base import AbstractEquation, roughness
from hybridgcm.grids import AbstractGrid
from hybridgcm.grids.base import scale as scaled


class SurfaceQuasiGeostrophic(AbstractEquation):
    """∂b/∂t = −u·∇b − U ∂b/∂x − gradient v − drag b − D b,   b_hat = N K tanh(N K depth/f) ψ_hat.

    b `[1, y, x]` in m s⁻² is the buoyancy anomaly f ∂ψ/∂z on the upper surface of a fluid without potential vorticity
    inside: ψ ∝ exp(N K z/f), so b = N K ψ, K the square root of the eigenvalue of −∇². A finite `depth` (m) has a flat
    bottom of uniform buoyancy, for which f (s⁻¹) is needed. N is the buoyancy frequency, s⁻¹; u = (−∂ψ/∂y, ∂ψ/∂x).
    The mean flow U (m s⁻¹) stands in thermal wind balance with the mean `gradient` ∂B/∂y = −f ∂U/∂z, s⁻².
    `drag` (s⁻¹, positive damps) acts on b, every scale alike. pyqg adds +rek K² ψ to ∂b/∂t instead, which amplifies,
    since ψ has the sign of b here; only its rek=0 compares. D = (λ/λ₀)^order / tau as in `QuasiGeostrophic`,
    the only implicit term. Held, Pierrehumbert, Garner and Swanson (1995), doi:10.1017/S0022112095000012.

    Five transforms per evaluation: three inverse, two forward.
    Trainable: `N`, `f`, `depth`, `U`, `gradient`, `drag`, `tau`. Fixed at construction: the shape of D.
    Raises `ValueError` for a `depth` without f and for numbers that are not positive.
    """

    prognostic: ClassVar[tuple[str, ...]] = ("b",)
    grid: AbstractGrid
    N: Float[Array, ""]
    f: Float[Array, ""] | None
    depth: Float[Array, ""] | None
    U: Float[Array, ""]
    gradient: Float[Array, ""]
    drag: Float[Array, ""]
    tau: Float[Array, ""]
    roughness: Float[Array, "*modes"] = fixed()
    layers: int = eqx.field(static=True)

    def __init__(
        self,
        grid: AbstractGrid,
        N: float,
        *,
        f: float | None = None,
        depth: float | None = None,
        U: float = 0.0,
        gradient: float = 0.0,
        drag: float = 0.0,
        tau: float = np.inf,
        order: int = 4,
        scale: float | None = None,
    ):
        if not (drag >= 0 and tau > 0 and N > 0):
            raise ValueError(
                f"positive numbers damp and stratify: drag >= 0 (s-1), tau > 0 (s), N > 0 (s-1); "
                f"got drag={drag}, tau={tau}, N={N}"
            )
        if depth is not None and not (depth > 0 and f):
            raise ValueError(
                f"a finite depth needs depth > 0 (m) and the Coriolis parameter f (s-1); got {depth}, f={f}"
            )
        put = lambda a: None if a is None else jnp.asarray(np.asarray(a, float), grid.eigenvalues.dtype)
        self.grid, self.layers = grid, 1
        self.N, self.f, self.depth, self.U, self.gradient = put(N), put(f), put(depth), put(U), put(gradient)
        self.drag, self.tau, self.roughness = put(drag), put(tau), put(roughness(grid, order, scale))

    @property
    def dissipation(self) -> Float[Array, "*modes"]:
        """D, decay rate per mode, s⁻¹."""
        return self.roughness / self.tau

    @property
    def stiffness(self) -> Float[Array, "*modes"]:
        """b_hat/ψ_hat = N K tanh(N K depth/f) per mode, s⁻¹ m⁻¹; one for the mean, which has no flow."""
        mean = self.grid.eigenvalues == 0
        NK = self.N * jnp.sqrt(jnp.where(mean, 1, -self.grid.eigenvalues))
        tilted = NK if self.depth is None else NK * jnp.tanh(NK * self.depth / jnp.abs(self.f))
        return jnp.where(mean, 1, tilted)

    @property
    def mean_flow(self) -> tuple[Array, Array]:
        """(U, V), m s⁻¹."""
        return self.U, jnp.zeros_like(self.U)

    def invert(self, b_hat: Hat) -> Hat:
        """Streamfunction from buoyancy, both spectral; the mean of ψ is zero."""
        return scaled(jnp.where(self.grid.eigenvalues == 0, 0, 1 / self.stiffness), b_hat)

    def buoyancy(self, psi_hat: Hat) -> Hat:
        """b from ψ, both spectral; the mean of b is zero."""
        return scaled(jnp.where(self.grid.eigenvalues == 0, 0, self.stiffness), psi_hat)

    def view(self, y: Spectral) -> Fields:
        """b (m s⁻²), u, v (m s⁻¹) and psi (m² s⁻¹) on the grid, all without the mean flow."""
        psi_hat = self.invert(y["b"])
        u, v, b = self.grid.synthesise(psi_hat, y["b"])
        return {"b": b, "u": u, "v": v, "psi": self.grid.to_grid(psi_hat)}

    def explicit(self, t: Array | float, y: Spectral) -> Spectral:
        b_hat = y["b"]
        psi_hat = self.invert(b_hat)
        u, v, b = self.grid.synthesise(psi_hat, b_hat)
        zonal = self.grid.zonal_derivative(scaled(self.U, b_hat) + scaled(self.gradient, psi_hat))
        return {"b": -(self.grid.divergence(u * b, v * b) + zonal + scaled(self.drag, b_hat))}

    def implicit(self, y: Spectral) -> Spectral:
        return {"b": scaled(-self.dissipation, y["b"])}

    def solve(self, y: Spectral, a: Array | float) -> Spectral:
        return {"b": scaled(1 / (1 + a * self.dissipation), y["b"])}

    def lift(self, forcing: Fields) -> dict[str, Array | float]:
        """Accepts `b` (m s⁻³) on the grid, spectral `b_hat`, or `u` and `v` (m s⁻²) at the surface.

        A force accelerates the surface flow by its rotational part, at zero potential vorticity inside: the tendency of
        b is that of ψ = ∇⁻² curl. Raises `ValueError` for any other name, half a momentum forcing and a wrong shape.
        """
        total = self.lift_prognostics(self.check_forcing(forcing))
        if "u" in forcing:
            curl = self.grid.curl(forcing["u"], forcing["v"])
            total["b"] = total["b"] + self.buoyancy(self.grid.inverse_laplacian(curl))
        return total
