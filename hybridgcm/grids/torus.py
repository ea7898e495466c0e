"""Doubly periodic Fourier grid."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from hybridgcm._typing import Hat, OnGrid, OtherHat
from hybridgcm.grids.base import AbstractGrid, check_dtype, scale


class Torus(AbstractGrid):
    """Doubly periodic rectangle, a(x, y) = Σ a_hat(k, l) exp(i(kx + ly)), wavenumbers in rad m⁻¹.

    Fixed at construction: everything; `fit` trains no field of a grid.

    **Arguments:**

    - `n`: modes per side, one number or (ny, nx). Even.
    - `length`: side in m, one number or (Ly, Lx).
    - `dealias`: `None` keeps all n modes on n points (products alias; pyqg's choice together with its
      filter); `2 / 3` keeps the modes below n/3 on n points; `3 / 2` keeps all n modes (but the Nyquist
      one) and evaluates products on 3n/2 points, so `shape` is (3ny/2, 3nx/2). Quadratic products are
      exact in the last two (Orszag 1971, doi:10.1175/1520-0469(1971)028<1074:OTEOAI>2.0.CO;2).
    - `dtype`: real precision of every array that the grid makes; tables are built in float64 first.

    `spacing`, by which closures and operators scale, is √(Lx Ly/(nx ny)) whatever `dealias` is, as published constants
    ask with `None`. With 2/3 the shortest wave is three of it, not two: grids of n modes with 2/3 and of 2n/3 with 3/2
    hold the same waves, but one Smagorinsky constant gives the first (2/3)² of the viscosity.
    Points are x_i = i·Lx/nx. An odd derivative of a Nyquist mode is zero.
    Raises `ValueError` for odd or tiny n, non-positive length, unknown `dealias`, float64 without x64.
    """

    shape: tuple[int, int] = eqx.field(static=True)
    spectral_shape: tuple[int, int] = eqx.field(static=True)
    n: tuple[int, int] = eqx.field(static=True)
    length: tuple[float, float] = eqx.field(static=True)
    dealias: float | None = eqx.field(static=True)
    k: Float[Array, " k"]
    l: Float[Array, "l 1"]  # noqa: E741 - the field's name for it
    eigenvalues: Float[Array, "l k"]
    inverse_eigenvalues: Float[Array, "l k"]
    multiplicity: Float[Array, "l k"]
    mask: Float[Array, "l k"]
    weights: Float[Array, ""]
    spacing: Float[Array, ""]
    shell: Array

    def __init__(self, n, length, dealias=2 / 3, dtype=jnp.float32):
        ny, nx = (int(n), int(n)) if np.ndim(n) == 0 else map(int, n)
        ly, lx = (float(length),) * 2 if np.ndim(length) == 0 else map(float, length)
        _check(ny, nx, ly, lx, dealias, dtype)
        points = 3 / 2 if dealias == 3 / 2 else 1
        self.n, self.length, self.dealias = (ny, nx), (ly, lx), dealias
        self.shape = (int(ny * points), int(nx * points))
        self.spectral_shape = (ny, nx // 2 + 1)
        m_y, m_x = np.fft.fftfreq(ny, 1 / ny)[:, None], np.arange(nx // 2 + 1)
        k, l = 2 * np.pi / lx * m_x, 2 * np.pi / ly * m_y  # noqa: E741
        nyquist = (m_x == nx // 2) | (np.abs(m_y) == ny // 2)
        mask = np.ones(self.spectral_shape)
        if dealias == 2 / 3:
            mask = (m_x < nx / 3) & (np.abs(m_y) < ny / 3)
        elif dealias == 3 / 2:
            mask = ~nyquist
        eigenvalues = -(k**2 + l**2)
        twice = np.where((m_x == 0) | (m_x == nx // 2), 1, 2)
        shell_width = max(2 * np.pi / lx, 2 * np.pi / ly)
        put = lambda a: jnp.asarray(np.asarray(a, np.float64), dtype)
        self.k = put(np.where(m_x == nx // 2, 0, k))
        self.l = put(np.where(np.abs(m_y) == ny // 2, 0, l))
        self.eigenvalues = put(eigenvalues)
        with np.errstate(divide="ignore"):
            self.inverse_eigenvalues = put(np.where(eigenvalues == 0, 0, 1 / eigenvalues) * mask)
        self.multiplicity = put(twice * mask)
        self.mask = put(mask)
        self.weights = put(1 / np.prod(self.shape))
        self.spacing = put(np.sqrt(lx / nx * ly / ny))
        self.shell = jnp.asarray(np.rint(np.sqrt(-eigenvalues) / shell_width), jnp.int32)

    @property
    def dtype(self):
        """Real dtype of grid-space arrays."""
        return self.k.dtype

    @property
    def aspect(self) -> tuple[float, float]:
        """(Δ/Δx, Δ/Δy), Δ the geometric mean of the spacings of modes L/n."""
        (ny, nx), (ly, lx) = self.n, self.length
        ratio = (lx * ny / (ly * nx)) ** 0.5
        return 1 / ratio, ratio

    @property
    def axes(self) -> tuple[str, str]:
        """Dimensions of a field in files: the names of the properties that hold the places of rows and columns."""
        return "y", "x"

    @property
    def x(self) -> np.ndarray:
        """Zonal coordinate of the points, m."""
        return np.arange(self.shape[1]) * (self.length[1] / self.shape[1])

    @property
    def y(self) -> np.ndarray:
        """Meridional coordinate of the points, m."""
        return np.arange(self.shape[0]) * (self.length[0] / self.shape[0])

    @property
    def uniform_flow(self) -> Array:
        """One everywhere."""
        return jnp.ones((), self.dtype)

    @property
    def uniform_eigenvalue(self) -> float:
        """Zero: no vorticity in it."""
        return 0.0

    @property
    def wavenumber(self) -> np.ndarray:
        """κ of the shells of `spectrum`, rad m⁻¹."""
        ly, lx = self.length
        return np.arange(min(self.n) // 2) * max(2 * np.pi / lx, 2 * np.pi / ly)

    def to_grid(self, a_hat: Hat) -> OnGrid:
        if self.dealias == 3 / 2:
            a_hat = _pad(a_hat, self.shape)
        return jnp.fft.irfft2(a_hat, s=self.shape, norm="forward")

    def to_spectral(self, a: OnGrid) -> Hat:
        return self._project(jnp.fft.rfft2(a, norm="forward"))

    def _each(self, transform, *arrays):
        """Transform arrays of one shape: in one batched call if they are small, else one call each.

        XLA's CPU runtime spreads separate calls over the cores but not the batch of one call (a 256² step is
        1.3 times faster), while at 64² the calls themselves would cost a tenth.
        """
        if self.shape[0] * self.shape[1] >= 128**2:
            return tuple(map(transform, arrays))
        return tuple(transform(jnp.stack(arrays)))

    def gradient(self, a_hat: Hat) -> tuple[OnGrid, OnGrid]:
        return self._each(self.to_grid, _times_i(self.k, a_hat), _times_i(self.l, a_hat))

    def divergence(self, u: OnGrid, v: OnGrid) -> Hat:
        u_hat, v_hat = self._each(self.to_spectral, u, v)
        return _times_i(self.k, u_hat) + _times_i(self.l, v_hat)

    def zonal_derivative(self, a_hat: Hat) -> Hat:
        return _times_i(self.k, a_hat)

    def curl_and_divergence(self, u: OnGrid, v: OnGrid) -> tuple[Hat, Hat]:
        u_hat, v_hat = self._each(self.to_spectral, u, v)
        curl = _times_i(self.k, v_hat) - _times_i(self.l, u_hat)
        return curl, _times_i(self.k, u_hat) + _times_i(self.l, v_hat)

    def synthesise(self, psi_hat: Hat, *a_hat: Hat, potential: Hat | None = None) -> tuple[OnGrid, ...]:
        u_hat, v_hat = -_times_i(self.l, psi_hat), _times_i(self.k, psi_hat)
        if potential is not None:
            u_hat, v_hat = u_hat + _times_i(self.k, potential), v_hat + _times_i(self.l, potential)
        return self._each(self.to_grid, u_hat, v_hat, *a_hat)

    def velocity_gradient(self, u: OnGrid, v: OnGrid) -> tuple[OnGrid, OnGrid, OnGrid, OnGrid]:
        x, y = self.gradient(self.to_spectral(jnp.stack([u, v])))
        return x[0], y[0], x[1], y[1]

    def stress_divergence(
        self, xx: OnGrid, xy: OnGrid, yy: OnGrid, factor: Float[Array, "l k"] | None = None
    ) -> tuple[OnGrid, OnGrid]:
        # Two calls, not one on a stack: no slower where a grid batches, and else XLA merges the transform of τxy.
        hats = jnp.stack([self.divergence(xx, xy), self.divergence(xy, yy)])
        force = self.to_grid(hats if factor is None else scale(factor, hats))
        return force[0], force[1]

    def resize(self, a_hat: Hat, other: "Torus") -> OtherHat:
        if not isinstance(other, Torus) or not np.allclose(other.length, self.length):
            raise ValueError(f"resize needs a Torus of length {self.length} m, got {other}")
        low = _crop(a_hat, tuple(min(a, b) for a, b in zip(self.n, other.n, strict=True)))
        return scale(other.mask, _pad(low, other.n))

    def spectrum(self, density: Float[Array, "*batch l k"]) -> Float[Array, "*batch shell"]:
        shells = min(self.n) // 2
        flat = density.reshape(-1, density.shape[-2] * density.shape[-1])
        total = lambda row: jax.ops.segment_sum(row, self.shell.ravel(), shells)
        return jax.vmap(total)(flat).reshape(*density.shape[:-2], shells)

    def _project(self, full: OtherHat) -> Hat:
        if self.dealias is None:
            return full
        if self.dealias == 3 / 2:
            full = _pad(_crop(full, self.n), self.n)
        return scale(self.mask, full)


def _times_i(wavenumber: Array, a_hat: Hat) -> Hat:
    """i·wavenumber·a as two real products."""
    # The sign on the product: that of an array of the grid would be hoisted out of loops, once for every use, and the
    # compiler then no longer sees that two uses are the same. A closure's view cost six transforms for that reason.
    return jax.lax.complex(-(wavenumber * a_hat.imag), wavenumber * a_hat.real)


def _crop(a_hat: Hat, n: tuple[int, int]) -> OtherHat:
    """Modes strictly below the Nyquist ones of an (ny, nx) grid: `[*batch, ny - 1, nx // 2]`."""
    half = n[0] // 2
    return jnp.concatenate([a_hat[..., :half, : n[1] // 2], a_hat[..., -half + 1 :, : n[1] // 2]], -2)


def _pad(a_hat: Hat, n: tuple[int, int]) -> OtherHat:
    """Put rows ordered 0..m, -m..-1 (or with a Nyquist row between) on the modes of an (ny, nx) grid."""
    rows, columns = a_hat.shape[-2:]
    positive, negative = (rows + 1) // 2, rows // 2
    gap = jnp.zeros((*a_hat.shape[:-2], n[0] - rows, columns), a_hat.dtype)
    a_hat = jnp.concatenate([a_hat[..., :positive, :], gap, a_hat[..., rows - negative :, :]], -2)
    return jnp.pad(a_hat, [(0, 0)] * (a_hat.ndim - 1) + [(0, n[1] // 2 + 1 - columns)])


def _check(ny, nx, ly, lx, dealias, dtype):
    if min(ny, nx) < 4 or ny % 2 or nx % 2:
        raise ValueError(f"Torus needs an even number of modes per side, at least 4; got (ny, nx) = {(ny, nx)}")
    if not (ly > 0 and lx > 0 and np.isfinite(ly * lx)):
        raise ValueError(f"Torus needs a positive length in metres; got (Ly, Lx) = {(ly, lx)}")
    if dealias not in (None, 2 / 3, 3 / 2):
        raise ValueError(f"dealias is None, 2 / 3 or 3 / 2; got {dealias!r}")
    check_dtype(dtype)
