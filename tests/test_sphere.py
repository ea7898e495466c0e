"""The sphere: quadrature, transforms, vector calculus, spectra and changes of truncation."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import error
from scipy.special import sph_harm_y

import hybridgcm as hg
from hybridgcm.grids import legendre

RADIUS = 6.371e6


def sphere(truncation=42, dtype=jnp.float64, **kwargs):
    return hg.Sphere(truncation, RADIUS, dtype=dtype, **kwargs)


def white(grid, seed=0, layers=2):
    """Random coefficients of every resolved harmonic, `[layer, l, k]`; real where m = 0."""
    parts = np.random.default_rng(seed).standard_normal((2, layers, *grid.spectral_shape))
    a_hat = (parts[0] + 1j * np.where(np.asarray(grid.order) == 0, 0, parts[1])) * np.asarray(grid.mask)
    return jnp.asarray(a_hat, jnp.result_type(grid.dtype, jnp.complex64))


def places(grid):
    """(row, column, l, m) of every resolved harmonic."""
    where = np.argwhere(np.asarray(grid.multiplicity) > 0)
    order = np.asarray(grid.order).astype(int)
    return [(i, j, grid.degree[i, j], order[i, j]) for i, j in where]


@pytest.mark.parametrize("n", [1, 2, 7, 64, 512])
def test_quadrature_is_exact(n):
    mu, weights = legendre.gauss_legendre(n)
    degrees = np.arange(0, 2 * n, max(1, n // 8))
    exact = np.where(degrees % 2, 0, 2 / (degrees + 1))
    found = [(weights * mu**d).sum() for d in degrees]
    assert np.abs(np.float64(found - exact)).max() < 2e-16


@pytest.mark.parametrize("truncation", [21, 42, 170])
def test_the_table_is_orthonormal(truncation):
    rows = 2 * -(-(3 * truncation + 1) // 4)
    mu, weights = legendre.gauss_legendre(rows)
    table, w = legendre.associated(truncation, mu), np.float64(weights) / 2
    for parity in (0, 1):
        for m in {0, 1, truncation // 2, truncation}:
            rows_used = [j for j in range(table.shape[2]) if m + 2 * j + parity <= truncation]
            p = table[parity, m, rows_used]
            if len(rows_used):
                assert np.abs((p * w) @ p.T - np.eye(len(p))).max() < 1e-14


def test_every_harmonic_is_that_of_scipy():
    grid = sphere(10)
    theta, phi = np.pi / 2 - np.radians(grid.latitude)[:, None], np.radians(grid.longitude)[None, :]
    worst = 0.0
    for i, j, l, m in places(grid):
        a_hat = jnp.zeros(grid.spectral_shape, complex).at[i, j].set(1.0 if m == 0 else 0.6 + 0.8j)
        harmonic = (-1) ** m * np.sqrt(4 * np.pi) * sph_harm_y(l, m, theta, phi)
        expected = harmonic.real if m == 0 else 2 * ((0.6 + 0.8j) * harmonic).real
        worst = max(worst, error(grid.to_grid(a_hat), expected))
    assert worst < 1e-13


@pytest.mark.parametrize(
    ("truncation", "products"),
    [
        (5, "linear"),
        (21, "linear"),
        (42, "linear"),
        (21, "cubic"),
        (21, "quadratic"),
        (42, "quadratic"),
        (170, "quadratic"),
    ],
)
def test_round_trip(truncation, products):
    for dtype, bound in ((jnp.float64, 2e-15), (jnp.float32, 5e-7)):
        grid = sphere(truncation, dtype, products=products)
        a_hat = white(grid)
        assert error(grid.to_spectral(grid.to_grid(a_hat)), a_hat) < bound, dtype


@pytest.mark.parametrize("truncation", [7, 21, 36, 42])
def test_circles_are_the_same_by_table_and_by_fft(truncation):
    grid = sphere(truncation)
    assert grid.circle is not None and sphere(63).circle is None
    by_fft = eqx.tree_at(lambda g: g.circle, grid, None)
    a_hat = white(grid)
    a = by_fft.to_grid(a_hat)
    assert error(grid.to_grid(a_hat), a) < 1e-14 and error(grid.to_spectral(a), by_fft.to_spectral(a)) < 1e-14


def test_grids_of_the_field():
    shapes = {21: (32, 64), 31: (48, 96), 42: (64, 128), 63: (96, 192), 85: (128, 256), 127: (192, 384)}
    assert {T: sphere(T).shape for T in shapes} == shapes
    assert sphere(63, products="linear").shape == (64, 128)
    assert (np.diff(sphere(21).latitude) > 0).all() and sphere(21).longitude[0] == 0


def test_products_that_the_grid_resolves_are_exact():
    """The product of two resolved fields, truncated, does not depend on the number of points."""
    fine = sphere(21, products="cubic")
    a, b = white(fine, 1), white(fine, 2)
    product = lambda grid: grid.to_spectral(grid.to_grid(a) * grid.to_grid(b))
    assert error(product(sphere(21)), product(fine)) < 1e-13
    assert error(product(sphere(21, products="linear")), product(fine)) > 1e-3


@pytest.mark.parametrize("truncation", [21, 42, 85])
def test_vector_calculus_closes(truncation):
    grid = sphere(truncation)
    psi, chi = white(grid, 1).at[:, 0, 0].set(0), white(grid, 2).at[:, 0, 0].set(0)
    zeta, delta = grid.laplacian(psi), grid.laplacian(chi)
    u, v, back = grid.synthesise(psi, psi, potential=chi)
    curl, divergence = grid.curl_and_divergence(u, v)
    a_x, a_y = grid.gradient(chi)
    rotational = grid.velocity(psi)
    found = {
        "curl": error(curl, zeta),
        "divergence": error(divergence, delta),
        "curl alone": error(grid.curl(u, v), zeta),
        "divergence alone": error(grid.divergence(u, v), delta),
        "gradient": error(grid.divergence(a_x, a_y), delta),
        "curl of a gradient": float(jnp.abs(grid.curl(a_x, a_y)).max() / jnp.abs(delta).max()),
        "parts": error(jnp.stack([rotational[0] + a_x, rotational[1] + a_y]), jnp.stack([u, v])),
        "field": error(back, grid.to_grid(psi)),
        "inverse": error(grid.inverse_laplacian(zeta), psi),
    }
    assert max(found.values()) < 2e-14 * truncation, found


def test_derivatives_of_a_known_field():
    """a = sin φ + cos φ cos λ: a_x = −sin λ/a, a_y = (cos φ − sin φ cos λ)/a; solid rotation is u = U cos φ."""
    grid = sphere(5)
    phi, lam = np.radians(grid.latitude)[:, None], np.radians(grid.longitude)[None, :]
    a_hat = grid.to_spectral(jnp.asarray(np.sin(phi) + np.cos(phi) * np.cos(lam)))
    a_x, a_y = grid.gradient(a_hat)
    assert error(a_x, -np.sin(lam) / RADIUS + 0 * phi) < 1e-13
    assert error(a_y, (np.cos(phi) - np.sin(phi) * np.cos(lam)) / RADIUS) < 1e-13
    psi_hat = grid.to_spectral(jnp.asarray(-20.0 * RADIUS * np.sin(phi) + 0 * lam))
    u, v = grid.velocity(psi_hat)
    assert error(u, 20 * np.cos(phi) + 0 * lam) < 1e-13 and float(jnp.abs(v).max()) < 1e-12
    zonal = grid.to_grid(grid.zonal_derivative(a_hat))
    assert error(zonal, -np.cos(phi) * np.sin(lam) / RADIUS) < 1e-13


def test_means_and_parseval():
    grid = sphere(42)
    a, b = white(grid, 1), white(grid, 2)
    on_grid = grid.mean(grid.to_grid(a) * grid.to_grid(b))
    assert error(grid.inner(a, b), on_grid) < 1e-12
    assert error(grid.spectrum(grid.cospectrum(a, b)).sum(-1), on_grid) < 1e-12
    assert error(grid.mean(grid.to_grid(a)), a[:, 0, 0].real) < 1e-12
    assert float(grid.mean(jnp.full(grid.shape, 3.7))) == 3.7


def test_a_spectrum_is_by_total_degree():
    grid = sphere(21)
    for i, j, l, m in places(grid)[::17]:
        a_hat = jnp.zeros(grid.spectral_shape, complex).at[i, j].set(1.0)
        spectrum = np.asarray(grid.spectrum(grid.cospectrum(a_hat, a_hat)))
        assert spectrum[l] == (1 if m == 0 else 2) and np.count_nonzero(spectrum) == 1
    l = np.arange(22)
    assert error(grid.wavenumber**2, l * (l + 1) / RADIUS**2) < 1e-14


@pytest.mark.parametrize(("low", "high"), [(21, 42), (21, 31), (42, 85)])
def test_resize_keeps_every_harmonic_that_both_have(low, high):
    small, large = sphere(low), sphere(high)
    a_hat = white(small)
    up = small.resize(a_hat, large)
    assert error(large.resize(up, small), a_hat) == 0
    points = large.to_grid(up)
    assert error(large.mean(points**2), small.mean(small.to_grid(a_hat) ** 2)) < 1e-12
    fine = white(large)
    cut = large.resize(fine, small)
    assert error(small.inner(cut, cut), large.spectrum(large.cospectrum(fine, fine))[:, : low + 1].sum(-1)) < 1e-12


def test_rotation_about_the_axis_is_a_phase():
    grid = sphere(21)
    a_hat = white(grid)
    turned = a_hat * jnp.exp(-1j * grid.order * 2 * jnp.pi * 3 / grid.shape[1])
    assert error(grid.to_grid(turned), jnp.roll(grid.to_grid(a_hat), 3, -1)) < 1e-13


def test_transforms_have_their_adjoints():
    """⟨to_grid(a), b⟩ on the points is ⟨a, vjp(b)⟩, and a jvp is the linear map itself."""
    grid = sphere(21)
    a, b = white(grid), jnp.asarray(np.random.default_rng(3).standard_normal((2, *grid.shape)))
    out, back = jax.vjp(grid.to_grid, a)
    (pulled,) = back(b)
    assert abs(float(jnp.sum(out * b) / jnp.sum((a * pulled).real)) - 1) < 1e-12
    out, back = jax.vjp(grid.to_spectral, b)
    (pulled,) = back(a)
    assert abs(float(jnp.sum((out * a).real) / jnp.sum(b * pulled)) - 1) < 1e-12


def test_batches_and_vmap_are_the_single_transform():
    grid = sphere(21)
    a_hat = white(grid, layers=6).reshape(3, 2, *grid.spectral_shape)
    whole = grid.to_grid(a_hat)
    assert whole.shape == (3, 2, *grid.shape)
    assert error(jnp.stack([grid.to_grid(a) for a in a_hat]), whole) < 1e-14
    assert error(jax.vmap(grid.to_grid)(a_hat), whole) < 1e-14
    assert error(jax.vmap(grid.to_spectral)(whole), a_hat) < 1e-13


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="whole truncation"):
        hg.Sphere(0)
    with pytest.raises(ValueError, match="whole truncation"):
        hg.Sphere(42.5)
    with pytest.raises(ValueError, match="positive radius"):
        hg.Sphere(21, -1.0)
    with pytest.raises(ValueError, match="'linear', 'quadratic', 'cubic'"):
        hg.Sphere(21, products="quartic")
    with pytest.raises(ValueError, match="float32 or float64"):
        hg.Sphere(21, dtype=jnp.float16)
    with pytest.raises(ValueError, match="resize needs a Sphere"):
        sphere(21).resize(white(sphere(21)), hg.Sphere(21, 1.0))
    with pytest.raises(ValueError, match="one node"):
        legendre.gauss_legendre(0)


@pytest.mark.parametrize("truncation", [21, 42])
def test_transforms_are_those_of_dinosaur(truncation):
    """Grid values of the same coefficients: its orthonormal harmonics are ours by (−1)^m/√(4π)."""
    harmonic = pytest.importorskip("dinosaur.spherical_harmonic", reason="dinosaur is not installed")
    theirs = getattr(harmonic.Grid, f"T{truncation}")(spherical_harmonics_impl=harmonic.RealSphericalHarmonics)
    grid = sphere(truncation)
    a_hat = white(grid, layers=1)[0]
    m, l = np.meshgrid(*theirs.modal_axes, indexing="ij")
    x = np.zeros(theirs.modal_shape)
    for i, j, degree, order in places(grid):
        amplitude = complex(a_hat[i, j]) * (-1) ** order * np.sqrt(4 * np.pi)
        if order:
            x[(m == order) & (l == degree)] = np.sqrt(2) * amplitude.real
            x[(m == -order) & (l == degree)] = -np.sqrt(2) * amplitude.imag
        else:
            x[(m == 0) & (l == degree)] = amplitude.real
    assert error(np.asarray(theirs.to_nodal(x)).T, grid.to_grid(a_hat)) < 1e-12
