"""What every grid offers: transforms, vector calculus and quadrature, without knowing any equation."""

import abc

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from hybridgcm._typing import Hat, OnGrid, OtherHat


def scale(factor: Array | float, a_hat: Hat) -> Hat:
    """Real factor times complex array without the wasted half of a complex product.

    XLA turns real × complex into a full complex product (four multiplications); on CPU the step spends
    a tenth less outside its transforms this way.
    """
    return jax.lax.complex(factor * a_hat.real, factor * a_hat.imag)


class AbstractGrid(eqx.Module):
    """Discretisation of one horizontal domain: six abstract members, the rest follows.

    Spectral coefficients carry the norm "forward": a coefficient means the same at every resolution, so
    the mean of a field is its first coefficient and coarsening is a slice. `to_spectral` projects on the
    resolved modes, so every product that passes through it is dealiased.
    Axes: spectral arrays `[*batch, l, k]`, grid arrays `[*batch, y, x]` with x fastest.
    """

    shape: eqx.AbstractVar[tuple[int, int]]
    """Points (ny, nx) of grid-space arrays."""
    spectral_shape: eqx.AbstractVar[tuple[int, int]]
    """Shape (nl, nk) of spectral arrays."""
    eigenvalues: eqx.AbstractVar[Array]
    """Eigenvalues of ∇² per coefficient, m⁻², zero or negative."""
    inverse_eigenvalues: eqx.AbstractVar[Array]
    """Their reciprocals, m², zero where the eigenvalue is."""
    multiplicity: eqx.AbstractVar[Array]
    """1 or 2 per coefficient (0 if unresolved): how often it counts in sums over the full spectrum."""
    weights: eqx.AbstractVar[Array]
    """Quadrature weights per point `[y, x]` or broadcastable to it, summing to one over the grid."""
    spacing: eqx.AbstractVar[Array]
    """Grid spacing Δ that closures scale with, m, 0-d."""
    aspect: eqx.AbstractVar[tuple[float, float]]
    """(Δ/Δx, Δ/Δy)."""
    uniform_flow: eqx.AbstractVar[Array]
    """Zonal velocity of a uniform flow of speed one, broadcastable to `[y, x]`; on a sphere it turns as a solid."""
    uniform_eigenvalue: eqx.AbstractVar[float]
    """∇²ψ/ψ of the streamfunction of that flow, m⁻²: zero where y is a straight coordinate."""

    @abc.abstractmethod
    def to_grid(self, a_hat: Hat) -> OnGrid:
        """Synthesis: spectral coefficients to grid values; leading axes are one batch."""

    @abc.abstractmethod
    def to_spectral(self, a: OnGrid) -> Hat:
        """Analysis: grid values to the resolved spectral coefficients; leading axes are one batch."""

    @abc.abstractmethod
    def gradient(self, a_hat: Hat) -> tuple[OnGrid, OnGrid]:
        """(∂a/∂x, ∂a/∂y) on the grid, per metre."""

    @abc.abstractmethod
    def divergence(self, u: OnGrid, v: OnGrid) -> Hat:
        """Spectral ∂u/∂x + ∂v/∂y of a vector given on the grid."""

    @abc.abstractmethod
    def zonal_derivative(self, a_hat: Hat) -> Hat:
        """Spectral derivative along a uniform zonal flow of speed one, for linear terms (β, mean flow): ∂a/∂x."""

    @abc.abstractmethod
    def curl_and_divergence(self, u: OnGrid, v: OnGrid) -> tuple[Hat, Hat]:
        """Spectral ∂v/∂x − ∂u/∂y and ∂u/∂x + ∂v/∂y from one transform of each component."""

    @abc.abstractmethod
    def synthesise(self, psi_hat: Hat, *a_hat: Hat, potential: Hat | None = None) -> tuple[OnGrid, ...]:
        """(u, v, *a) on the grid, u = −∂ψ/∂y + ∂χ/∂x, v = ∂ψ/∂x + ∂χ/∂y, χ the `potential` or zero.

        As many transforms as fields come out, batched.
        """

    @abc.abstractmethod
    def velocity_gradient(self, u: OnGrid, v: OnGrid) -> tuple[OnGrid, OnGrid, OnGrid, OnGrid]:
        """(u_x, u_y, v_x, v_y) on the grid, s⁻¹, with curvature: v_x − u_y is the curl, u_x + v_y the divergence."""

    @abc.abstractmethod
    def stress_divergence(
        self, xx: OnGrid, xy: OnGrid, yy: OnGrid, factor: Float[Array, "l k"] | None = None
    ) -> tuple[OnGrid, OnGrid]:
        """Force (∂x τxx + ∂y τxy, ∂x τxy + ∂y τyy) of a symmetric stress, with a `factor` per mode if given.

        Minus the transpose of `velocity_gradient`: it does work at the rate −⟨τ : ∇u⟩.
        """

    @abc.abstractmethod
    def resize(self, a_hat: Hat, other: "AbstractGrid") -> OtherHat:
        """The same field on the modes of `other`: truncated, or padded with zeros. Sharp, no filter."""

    def curl(self, u: OnGrid, v: OnGrid) -> Hat:
        """Spectral ∂v/∂x − ∂u/∂y."""
        return self.divergence(v, -u)

    def velocity(self, psi_hat: Hat) -> tuple[OnGrid, OnGrid]:
        """(u, v) = (−∂ψ/∂y, ∂ψ/∂x) on the grid."""
        psi_x, psi_y = self.gradient(psi_hat)
        return -psi_y, psi_x

    def laplacian(self, a_hat: Hat) -> Hat:
        """Spectral ∇²a."""
        return scale(self.eigenvalues, a_hat)

    def inverse_laplacian(self, a_hat: Hat) -> Hat:
        """Spectral ∇⁻²a with zero mean; the mean of a is ignored."""
        return scale(self.inverse_eigenvalues, a_hat)

    def mean(self, a: OnGrid) -> Float[Array, "*batch"]:
        """Area mean, exact for a constant.

        Summed about one value: rounding of the weights and of the sum then acts on the deviations only. In single
        precision a constant on 48² points was off by 3e-6.
        """
        about = a[..., :1, :1]
        return about[..., 0, 0] + jnp.sum(self.weights * (a - about), (-2, -1))

    def inner(self, a_hat: Hat, b_hat: Hat) -> Float[Array, "*batch"]:
        """Area mean of a·b from coefficients (Parseval)."""
        return jnp.sum(self.cospectrum(a_hat, b_hat), (-2, -1))

    def cospectrum(self, a_hat: Hat, b_hat: Hat) -> Float[Array, "*batch l k"]:
        """Contribution of each coefficient to the area mean of a·b; summing it gives `inner`."""
        return self.multiplicity * (a_hat.real * b_hat.real + a_hat.imag * b_hat.imag)

    def courant(self, u: OnGrid, v: OnGrid, dt: float) -> Float[Array, ""]:
        """max (|u|/Δx + |v|/Δy)·dt over everything; u and v in m s⁻¹, dt in s."""
        x, y = self.aspect
        return jnp.max(x * jnp.abs(u) + y * jnp.abs(v)) * dt / self.spacing

    @abc.abstractmethod
    def spectrum(self, density: Float[Array, "*batch l k"]) -> Float[Array, "*batch shell"]:
        """Sum of a per-coefficient density over shells of √−eigenvalue; shell s covers (s ± ½)·Δκ."""


def check_dtype(dtype):
    """Raises `ValueError` for a precision that no grid is built in, or that JAX is not set to."""
    if jnp.dtype(dtype) == jnp.float64 and not jax.config.jax_enable_x64:
        raise ValueError(
            'float64 was asked for, but JAX runs in 32 bit; call jax.config.update("jax_enable_x64", True) first'
        )
    if jnp.dtype(dtype) not in (jnp.float32, jnp.float64):
        raise ValueError(f"dtype is float32 or float64; got {dtype}")
