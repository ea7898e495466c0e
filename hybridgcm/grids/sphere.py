"""Spherical harmonics on a Gaussian grid."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from hybridgcm._typing import Hat, OnGrid, OtherHat
from hybridgcm.grids import circles, legendre
from hybridgcm.grids.base import AbstractGrid, check_dtype, scale

PRODUCTS = {"linear": 2, "quadratic": 3, "cubic": 4}
"""Degree of the polynomials that the quadrature must integrate, in units of the truncation."""
EARTH = 6.371e6
"""Mean radius of the Earth, m."""
ROTATION = 7.292e-5
"""Angular velocity of the Earth, rad s⁻¹."""


class Sphere(AbstractGrid):
    """Sphere, triangular truncation T: a(λ, φ) = Σ_{l≤T} Σ_{|m|≤l} a_lm P_lm(sin φ) exp(imλ), a_l(−m) = conj(a_lm).

    Harmonics are real-valued in φ with area mean of |P_lm exp(imλ)|² equal to one and no Condon-Shortley phase, so the
    coefficient of l = m = 0 is the mean; of an orthonormal coefficient with that phase it is (−1)^m/√(4π).
    Fixed at construction: everything; `fit` trains no field of a grid.

    **Arguments:**

    - `truncation`: T, the largest total degree.
    - `radius`: a, m.
    - `products`: what is free of aliasing: "linear" (transforms alone), "quadratic" (every tendency here; T42 on 64 by
      128 points) or "cubic" products.
    - `dtype`: real precision of every array that the grid makes; tables are built in extended precision first.
    - `precision`: of the matrix products, as in JAX: "highest" is that of `dtype`; "high" and "default" let GPUs and
      TPUs round to fewer bits (TF32, bfloat16), which shows as stripes near the poles.

    Points: `latitude` of Gauss and Legendre from south to north, `longitude` from 0 to the east. Spectral arrays have
    shape (2 (T + 1), (T + 3) // 2): row p (T + 1) + m and column j hold l = m + 2j + p, harmonics even (p = 0) and odd
    about the equator apart, so that one hemisphere of the table serves both; `degree` and `order` say l and m of every
    place, `multiplicity` is zero where there is no coefficient.
    x is a λ cos φ and y is a φ: derivatives are per metre. `zonal_derivative` is (1/a) ∂/∂λ, that of the equator,
    where `beta` = 2Ω/a belongs.

    Memory: two tables of (T + 1)(T + 3) nlat/2 numbers; 15 MB each at T170 in float32, 120 MB at T341.
    Raises `ValueError` for a truncation below 1, a radius that is not positive and unknown `products`.
    """

    shape: tuple[int, int] = eqx.field(static=True)
    spectral_shape: tuple[int, int] = eqx.field(static=True)
    truncation: int = eqx.field(static=True)
    radius: float = eqx.field(static=True)
    products: str = eqx.field(static=True)
    precision: str = eqx.field(static=True)
    order: Float[Array, "l k"]
    eigenvalues: Float[Array, "l k"]
    inverse_eigenvalues: Float[Array, "l k"]
    multiplicity: Float[Array, "l k"]
    mask: Float[Array, "l k"]
    weights: Float[Array, "y 1"]
    spacing: Float[Array, ""]
    secant: Float[Array, "y 1"]
    below: Float[Array, "l k"]
    above: Float[Array, "l k"]
    synthesis: Float[Array, "2 m j half"]
    analysis: Float[Array, "2 m half j"]
    circle: Float[Array, "half m 2 x"] | None

    def __init__(self, truncation, radius=EARTH, products="quadratic", dtype=jnp.float32, precision="highest"):
        _check(truncation, radius, products)
        check_dtype(dtype)
        T = int(truncation)
        self.truncation, self.radius, self.products = T, float(radius), products
        self.precision = str(jax.lax.Precision(precision).name).lower()
        rows = legendre.latitudes(T, PRODUCTS[products])
        self.shape, self.spectral_shape = (rows, 2 * rows), (2 * (T + 1), (T + 3) // 2)
        mu, weights = legendre.gauss_legendre(rows)
        half = rows // 2  # from the pole to the equator
        table = legendre.associated(T, -mu[:half])
        l, m = self.degree, _orders(T)  # noqa: E741
        resolved = l <= T
        put = lambda a: jnp.asarray(np.asarray(a, np.float64), dtype)
        eigenvalues = -l * (l + 1) / self.radius**2
        self.order, self.eigenvalues, self.mask = put(m), put(eigenvalues), put(resolved)
        with np.errstate(divide="ignore"):
            self.inverse_eigenvalues = put(np.where(resolved & (l > 0), 1 / eigenvalues, 0))
        self.multiplicity = put(np.where(m == 0, 1, 2) * resolved)
        self.weights = put(weights[:, None] / (2 * self.shape[1]))
        self.spacing = put(np.pi * self.radius / rows)
        self.secant = put(1 / (np.sqrt(1 - mu**2) * self.radius)[:, None])
        # cos φ ∂P_l/∂φ = (l + 1) ε_l P_(l-1) − l ε_(l+1) P_(l+1): what a coefficient gets from those beside it.
        self.below = put(-(l - 1) * legendre.coupling(l, m))
        self.above = put((l + 2) * legendre.coupling(l + 1, m))
        self.synthesis = put(table)
        self.analysis = put((table * np.float64(weights[:half] / 2)).swapaxes(-1, -2))
        self.circle = jax.tree.map(put, circles.table(T, self.shape[1]))  # None stays None

    @property
    def dtype(self):
        """Real dtype of grid-space arrays."""
        return self.order.dtype

    @property
    def degree(self) -> np.ndarray:
        """Total degree l of every place of a spectral array; those above T hold nothing."""
        T = self.truncation
        return _orders(T) + 2 * np.arange((T + 3) // 2) + np.repeat([0, 1], T + 1)[:, None]

    @property
    def uniform_flow(self) -> Array:
        """cos φ `[y, 1]`: solid rotation with speed one at the equator."""
        return 1 / (self.radius * self.secant)

    @property
    def uniform_eigenvalue(self) -> float:
        """−2/a²: ψ = −a sin φ is a harmonic of degree one."""
        return -2 / self.radius**2

    def coriolis(self, rotation: float = ROTATION) -> Float[Array, "y x"]:
        """f = 2Ω sin φ, s⁻¹, for Ω the `rotation` in rad s⁻¹."""
        f = 2 * rotation * np.sin(np.radians(self.latitude))
        return jnp.asarray(np.broadcast_to(f[:, None], self.shape), self.dtype)

    def beta(self, rotation: float = ROTATION) -> float:
        """∂f/∂y = 2Ω/a at the equator, m⁻¹ s⁻¹; elsewhere times cos φ, which `zonal_derivative` knows."""
        return 2 * rotation / self.radius

    @property
    def aspect(self) -> tuple[float, float]:
        """(Δ/Δx, Δ/Δy): rows lie closest, and points on a row are as close in what T resolves."""
        return 1.0, 1.0

    @property
    def axes(self) -> tuple[str, str]:
        """Dimensions of a field in files: the names of the properties that hold the places of rows and columns."""
        return "latitude", "longitude"

    @property
    def latitude(self) -> np.ndarray:
        """Of the rows, degrees north."""
        return np.degrees(np.arcsin(np.float64(legendre.gauss_legendre(self.shape[0])[0])))

    @property
    def longitude(self) -> np.ndarray:
        """Of the columns, degrees east."""
        return np.arange(self.shape[1]) * (360 / self.shape[1])

    @property
    def wavenumber(self) -> np.ndarray:
        """κ = √(l(l + 1))/a of the shells of `spectrum`, rad m⁻¹; shell l is the total degree l."""
        l = np.arange(self.truncation + 1)  # noqa: E741
        return np.sqrt(l * (l + 1)) / self.radius

    def to_grid(self, a_hat: Hat) -> OnGrid:
        return self._synthesise(a_hat)

    def to_spectral(self, a: OnGrid) -> Hat:
        return scale(self.mask, self._analyse(a))

    def gradient(self, a_hat: Hat) -> tuple[OnGrid, OnGrid]:
        psi_y, psi_x = self.synthesise(a_hat)
        return psi_x, -psi_y

    def divergence(self, u: OnGrid, v: OnGrid) -> Hat:
        u_hat, v_hat = self._analyse(self.secant * jnp.stack([u, v]))
        return scale(self.mask, self._zonal(u_hat) - self._adjoint(v_hat))

    def zonal_derivative(self, a_hat: Hat) -> Hat:
        return scale(1 / self.radius, self._zonal(a_hat))

    def curl_and_divergence(self, u: OnGrid, v: OnGrid) -> tuple[Hat, Hat]:
        u_hat, v_hat = self._analyse(self.secant * jnp.stack([u, v]))
        curl, divergence = self._zonal(v_hat) + self._adjoint(u_hat), self._zonal(u_hat) - self._adjoint(v_hat)
        return scale(self.mask, curl), scale(self.mask, divergence)

    def synthesise(self, psi_hat: Hat, *a_hat: Hat, potential: Hat | None = None) -> tuple[OnGrid, ...]:
        u_hat, v_hat = -self._meridional(psi_hat), self._zonal(psi_hat)
        if potential is not None:
            u_hat, v_hat = u_hat + self._zonal(potential), v_hat + self._meridional(potential)
        u, v, *a = self._synthesise(jnp.stack([u_hat, v_hat, *a_hat]))
        return self.secant * u, self.secant * v, *a

    def velocity_gradient(self, u: OnGrid, v: OnGrid) -> tuple[OnGrid, OnGrid, OnGrid, OnGrid]:
        # Second derivatives of ψ and χ: with P = (∂λλ − sin φ cos φ ∂φ)/cos²φ and Q = (cos φ ∂φ + sin φ) ∂λ/cos²φ,
        # u_x = Pχ − Qψ and v_x = Pψ + Qχ. Eight transforms.
        zeta, delta = self.curl_and_divergence(u, v)
        psi, chi = self.inverse_laplacian(zeta), self.inverse_laplacian(delta)
        psi_x, chi_x = self._zonal(psi), self._zonal(chi)
        parts = (
            self._zonal(chi_x) - self._meridional(psi_x),
            -psi_x - self._meridional(chi),
            self._zonal(psi_x) + self._meridional(chi_x),
            chi_x - self._meridional(psi),
        )
        a, b, c, d, zeta, delta = self._synthesise(jnp.stack([*parts, zeta, delta]))
        sine, square = self._sine, self.secant**2
        u_x, v_x = square * (a + sine * b), square * (c + sine * d)
        return u_x, v_x - zeta, v_x, delta - u_x

    def stress_divergence(
        self, xx: OnGrid, xy: OnGrid, yy: OnGrid, factor: Float[Array, "l k"] | None = None
    ) -> tuple[OnGrid, OnGrid]:
        # Its curl and divergence are the stress against second derivatives of every harmonic. Eight transforms.
        a, b = self.secant**2 * (yy - xx), self.secant**2 * xy
        found = self._analyse(jnp.stack([a, self._sine * a, b, self._sine * b, xy, yy]))
        a, sine_a, b, sine_b, xy_hat, yy_hat = found
        P = lambda f, sine_f: self._zonal(self._zonal(f)) - self._adjoint(sine_f)
        Q = lambda f, sine_f: -self._adjoint(self._zonal(f)) - self._zonal(sine_f)
        curl = Q(a, sine_a) + 2 * P(b, sine_b) - self.laplacian(xy_hat)
        divergence = 2 * Q(b, sine_b) - P(a, sine_a) + self.laplacian(yy_hat)
        mask = self.mask if factor is None else self.mask * factor
        potentials = [self.inverse_laplacian(scale(mask, part)) for part in (curl, divergence)]
        return self.synthesise(potentials[0], potential=potentials[1])

    def resize(self, a_hat: Hat, other: "Sphere") -> OtherHat:
        if not isinstance(other, Sphere) or not np.isclose(other.radius, self.radius):
            raise ValueError(f"resize needs a Sphere of radius {self.radius} m, got {other}")
        orders, columns = (min(a, b) for a, b in zip(self._triangle, other._triangle, strict=True))
        low = a_hat.reshape(*a_hat.shape[:-2], 2, *self._triangle)[..., :orders, :columns]
        room = [(0, 0)] * (low.ndim - 2) + [(0, other._triangle[0] - orders), (0, other._triangle[1] - columns)]
        return scale(other.mask, jnp.pad(low, room).reshape(*a_hat.shape[:-2], *other.spectral_shape))

    def spectrum(self, density: Float[Array, "*batch l k"]) -> Float[Array, "*batch shell"]:
        flat = density.reshape(-1, density.shape[-2] * density.shape[-1])
        total = lambda row: jax.ops.segment_sum(row, self.degree.ravel(), self.truncation + 1)
        return jax.vmap(total)(flat).reshape(*density.shape[:-2], self.truncation + 1)

    @property
    def _sine(self) -> Float[Array, "y 1"]:
        return jnp.asarray(np.sin(np.radians(self.latitude))[:, None], self.dtype)

    @property
    def _triangle(self) -> tuple[int, int]:
        """(orders, columns per parity)."""
        return self.truncation + 1, self.spectral_shape[1]

    @property
    def _blocks(self) -> list[tuple[int, int]]:
        """Ranges of orders: eight save a tenth of the synthesis at T170, below T128 they cost more than they save."""
        edges = np.linspace(0, self.truncation + 1, 9 if self.truncation >= 128 else 2).astype(int).tolist()
        return list(zip(edges, edges[1:]))

    def _zonal(self, a_hat: Hat) -> Hat:
        """∂a/∂λ."""
        return jax.lax.complex(-(self.order * a_hat.imag), self.order * a_hat.real)

    def _meridional(self, a_hat: Hat) -> Hat:
        """cos φ ∂a/∂φ, of degrees up to T + 1."""
        lower, upper = self._beside(a_hat)
        return scale(self.below, lower) + scale(self.above, upper)

    def _adjoint(self, a_hat: Hat) -> Hat:
        """Transpose of `_meridional`: −cos φ ∂(a cos φ)/∂φ, integrated by parts, of degrees up to T."""
        to_above, to_below = scale(self.above, a_hat), scale(self.below, a_hat)
        return self._beside(to_above)[0] + self._beside(to_below)[1]

    def _beside(self, a_hat: Hat) -> tuple[Hat, Hat]:
        """The coefficients of degree l − 1 and of degree l + 1 at the place of l."""
        even, odd = a_hat[..., : self.truncation + 1, :], a_hat[..., self.truncation + 1 :, :]
        pad = lambda a, *room: jnp.pad(a, [(0, 0)] * (a.ndim - 1) + [room])
        right, left = pad(odd[..., :-1], 1, 0), pad(even[..., 1:], 0, 1)
        return jnp.concatenate([right, even], -2), jnp.concatenate([odd, left], -2)

    def _synthesise(self, a_hat: Hat) -> OnGrid:
        """Grid values of coefficients up to degree T + 1."""
        batch, (orders, columns) = a_hat.shape[:-2], self._triangle
        parts = jnp.stack([a_hat.real, a_hat.imag]).reshape(2, -1, 2, orders, columns).transpose(2, 3, 0, 1, 4)
        sums = []
        for low, high in self._blocks:  # high orders have few degrees: a block skips what is zero for all of it
            j = (orders - low) // 2 + 1
            table = self.synthesis[:, low:high, :j]
            sums.append(jnp.einsum("pmrcj,pmjy->pmrcy", parts[:, low:high, ..., :j], table, precision=self.precision))
        even, odd = jnp.concatenate(sums, 1) if len(sums) > 1 else sums[0]
        waves = jnp.concatenate([even - odd, jnp.flip(even + odd, -1)], -1)
        return circles.from_waves(waves, self.circle, self.shape[1], self.precision).reshape(*batch, *self.shape)

    def _analyse(self, a: OnGrid) -> Hat:
        """Coefficients up to degree T + 1, by quadrature."""
        batch, (orders, columns), half = a.shape[:-2], self._triangle, self.shape[0] // 2
        waves = circles.to_waves(a.reshape(-1, *self.shape), self.circle, self.truncation, self.precision)
        south, north = waves[..., :half, :], jnp.flip(waves[..., half:, :], -2)
        folded = jnp.stack([north + south, north - south])
        if self.circle is None:  # folded before it is parted: the other way round takes a third longer at T85
            folded = jnp.stack([folded.real, folded.imag], 1)
        found = jnp.einsum("prcym,pmyj->pmrcj", folded, self.analysis, precision=self.precision)
        found = jax.lax.complex(found[:, :, 0], found[:, :, 1]).transpose(2, 0, 1, 3)
        return found.reshape(*batch, 2 * orders, columns)


def _orders(T: int) -> np.ndarray:
    return np.tile(np.arange(T + 1), 2)[:, None] + np.zeros((T + 3) // 2, int)


def _check(truncation, radius, products):
    if int(truncation) != truncation or truncation < 1:
        raise ValueError(f"Sphere needs a whole truncation of at least 1; got {truncation!r}")
    if not (radius > 0 and np.isfinite(radius)):
        raise ValueError(f"Sphere needs a positive radius in metres; got {radius!r}")
    if products not in PRODUCTS:
        raise ValueError(f"products is one of {', '.join(map(repr, PRODUCTS))}; got {products!r}")
