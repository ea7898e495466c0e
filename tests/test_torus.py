"""The torus: transforms, vector calculus, quadrature, dealiasing and changes of resolution."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import double, eddies, error, wave

import hybridgcm as hg

KINDS = (None, 2 / 3, 3 / 2)
GRIDS = [double(n, length, kind) for kind in KINDS for n, length in [(32, 1e6), ((24, 40), (1e6, 3e6))]]
every_grid = pytest.mark.parametrize("grid", GRIDS, ids=lambda g: f"{g.n[0]}x{g.n[1]}-{g.dealias}")


def noise(grid, seed, layers=2):
    """Random values on every point: all modes, Nyquist included."""
    return jnp.asarray(np.random.default_rng(seed).standard_normal((layers, *grid.shape)))


def resolved(grid, seed, layers=2):
    """Random coefficients on every resolved mode but the Nyquist ones."""
    ny, nx = grid.n
    rows, columns = np.fft.fftfreq(ny, 1 / ny)[:, None], np.arange(nx // 2 + 1)
    inside = (np.abs(rows) < ny // 2) & (columns < nx // 2)
    return grid.to_spectral(noise(grid, seed, layers)) * jnp.asarray(inside)


@every_grid
def test_transforms_are_inverse_on_the_resolved_modes(grid):
    a_hat = grid.to_spectral(noise(grid, 0))
    assert error(grid.to_spectral(grid.to_grid(a_hat)), a_hat) < 1e-14
    if grid.dealias is None:
        assert error(grid.to_grid(grid.to_spectral(noise(grid, 0))), noise(grid, 0)) < 1e-14


@every_grid
def test_a_coefficient_means_the_same_at_every_resolution(grid):
    a_hat = grid.to_spectral(jnp.asarray(3.0 + 2.0 * wave(grid, 2, -1, 0.3)))
    found = np.array([a_hat[0, 0], a_hat[-1, 2]])
    assert error(found, np.array([3.0, np.exp(0.3j)])) < 1e-14, found


@every_grid
def test_derivatives_of_a_wave_are_exact_on_any_rectangle(grid):
    k, l = 2 * np.pi * 5 / grid.length[1], 2 * np.pi * -3 / grid.length[0]
    a_hat = grid.to_spectral(jnp.asarray(wave(grid, 5, -3)))
    down = wave(grid, 5, -3, np.pi / 2)  # -sin
    a_x, a_y = grid.gradient(a_hat)
    found = {
        "a_x": error(a_x, k * down),
        "a_y": error(a_y, l * down),
        "zonal_derivative": error(grid.to_grid(grid.zonal_derivative(a_hat)), k * down),
        "laplacian": error(grid.to_grid(grid.laplacian(a_hat)), -(k**2 + l**2) * wave(grid, 5, -3)),
        "inverse": error(grid.to_grid(grid.inverse_laplacian(a_hat)), wave(grid, 5, -3) / -(k**2 + l**2)),
    }
    assert max(found.values()) < 2e-13, found


@every_grid
def test_curl_of_velocity_is_the_laplacian_and_it_has_no_divergence(grid):
    psi_hat = resolved(grid, 1)
    u, v = grid.velocity(psi_hat)
    assert error(grid.curl(u, v), grid.laplacian(psi_hat)) < 1e-13
    size = float(jnp.max(jnp.abs(grid.laplacian(psi_hat))))
    assert float(jnp.max(jnp.abs(grid.divergence(u, v)))) < 1e-13 * size


@every_grid
def test_synthesise_is_velocity_and_value_in_one_call(grid):
    psi_hat, a_hat = resolved(grid, 2), resolved(grid, 3)
    for one, other in zip(grid.synthesise(psi_hat, a_hat), (*grid.velocity(psi_hat), grid.to_grid(a_hat))):
        assert error(one, other) < 1e-14


@every_grid
def test_divergence_is_minus_the_adjoint_of_gradient(grid):
    a_hat, u, v = resolved(grid, 4), noise(grid, 5), noise(grid, 6)
    a_x, a_y = grid.gradient(a_hat)
    left = grid.inner(a_hat, grid.divergence(u, v))
    right = -grid.mean(a_x * u + a_y * v)
    assert error(left, right) < 1e-12, (left, right)


@every_grid
def test_parseval(grid):
    a_hat, b_hat = grid.to_spectral(noise(grid, 7)), grid.to_spectral(noise(grid, 8))
    on_grid = grid.mean(grid.to_grid(a_hat) * grid.to_grid(b_hat))
    assert error(grid.inner(a_hat, b_hat), on_grid) < 1e-12
    assert error(jnp.sum(grid.cospectrum(a_hat, b_hat), (-2, -1)), on_grid) < 1e-12
    assert float(jnp.sum(grid.weights * jnp.ones(grid.shape))) == pytest.approx(1, abs=1e-13)


@every_grid
def test_spectrum_sums_to_the_variance_and_finds_the_scale_of_a_wave(grid):
    a = jnp.asarray(eddies(grid, 2, 1.0, peak=3.0))
    a_hat = grid.to_spectral(a)
    shells = grid.spectrum(grid.cospectrum(a_hat, a_hat))
    assert shells.shape == (2, *grid.wavenumber.shape)
    assert error(jnp.sum(shells, -1), grid.mean(a * a)) < 1e-6, "the tail beyond the last shell is 1e-6 of it"
    b_hat = grid.to_spectral(jnp.asarray(wave(grid, 4, 3)))
    shell = grid.spectrum(grid.cospectrum(b_hat, b_hat))
    kappa = np.hypot(2 * np.pi * 4 / grid.length[1], 2 * np.pi * 3 / grid.length[0])
    peak = int(jnp.argmax(shell))
    assert float(shell[peak]) == pytest.approx(0.5, rel=1e-13)
    assert abs(grid.wavenumber[peak] - kappa) <= grid.wavenumber[1] / 2


def test_odd_derivatives_of_the_nyquist_modes_are_zero():
    """In the coefficients too: a transform back hides some of them, yet they would grow in the state."""
    grid = double(16, 1e6, None)
    saw, slow = (-1.0) ** np.arange(16), wave(grid, 3, 2, 0.4)
    across, along = jnp.asarray(saw * slow[:, :1]), jnp.asarray(saw[:, None] * slow[:1])
    zero = jnp.zeros(grid.shape)
    largest = lambda a: float(jnp.max(jnp.abs(a)))
    assert largest(grid.gradient(grid.to_spectral(across))[0]) == 0.0
    assert largest(grid.gradient(grid.to_spectral(along))[1]) == 0.0
    assert largest(grid.zonal_derivative(grid.to_spectral(across))) < 1e-20  # 1e-5 if it were kept
    assert largest(grid.divergence(across, zero)) < 1e-20 and largest(grid.divergence(zero, along)) < 1e-20
    assert largest(grid.laplacian(grid.to_spectral(across))) > 1e-10, "an even derivative is kept"


@pytest.mark.parametrize("kind", KINDS[1:])
def test_dealiased_grids_have_no_nyquist_modes(kind):
    grid = double((12, 16), 1e6, kind)
    a_hat = grid.to_spectral(noise(grid, 9))
    assert float(jnp.max(jnp.abs(a_hat[..., 6, :]))) == 0.0 and float(jnp.max(jnp.abs(a_hat[..., 8]))) == 0.0


@pytest.mark.parametrize("n", [(24, 40), (32, 32)])
@pytest.mark.parametrize("kind", KINDS)
def test_products_are_exact_when_dealiased_and_aliased_when_not(kind, n):
    grid, fine = double(n, (1e6, 2e6), kind), double(tuple(4 * m for m in n), (1e6, 2e6), None)
    a_hat, b_hat = resolved(grid, 10), resolved(grid, 11)
    here = grid.to_spectral(grid.to_grid(a_hat) * grid.to_grid(b_hat))
    exact = fine.to_grid(grid.resize(a_hat, fine)) * fine.to_grid(grid.resize(b_hat, fine))
    wrong = error(here, fine.resize(fine.to_spectral(exact), grid))
    if kind is None:
        assert wrong > 0.1, f"without dealiasing the product must alias; error {wrong}"
    else:
        assert wrong < 1e-14, f"error {wrong}"


def test_the_alias_of_a_square_lands_where_theory_says():
    for kind, expected in ((None, 0.25), (2 / 3, 0.0), (3 / 2, 0.0)):
        grid = double(32, 1e6, kind)
        a = grid.to_grid(grid.to_spectral(jnp.asarray(wave(grid, 10, 0))))
        square = grid.to_spectral(a * a)  # 1/2 + cos(20 x)/2, and wave 20 looks like wave 12 on 32 points
        assert float(jnp.abs(square[0, 12])) == pytest.approx(expected, abs=1e-15)
        assert float(square[0, 0].real) == pytest.approx(0.5, abs=1e-14)


@pytest.mark.parametrize("kinds", list(itertools.product(KINDS, KINDS)))
def test_resize_up_and_down_is_the_identity_and_keeps_values_at_common_points(kinds):
    coarse, fine = double((16, 24), (1e6, 3e6), kinds[0]), double((48, 72), (1e6, 3e6), kinds[1])
    a_hat = resolved(coarse, 12)
    up = coarse.resize(a_hat, fine)
    assert up.shape == (2, *fine.spectral_shape)
    assert float(jnp.max(jnp.abs(fine.resize(up, coarse) - a_hat))) == 0.0
    assert error(fine.inner(up, up), coarse.inner(a_hat, a_hat)) < 1e-13
    every = [f // c for f, c in zip(fine.shape, coarse.shape)]
    if all(f % c == 0 for f, c in zip(fine.shape, coarse.shape)):
        assert error(fine.to_grid(up)[:, :: every[0], :: every[1]], coarse.to_grid(a_hat)) < 1e-13


def test_resize_down_drops_small_scales_only_and_refuses_another_domain():
    fine, coarse = double(64), double(32)
    a_hat = fine.to_spectral(jnp.asarray(wave(fine, 3, 2) + wave(fine, 15, 0)))
    assert error(coarse.to_grid(fine.resize(a_hat, coarse)), wave(coarse, 3, 2)) < 1e-13
    with pytest.raises(ValueError, match="length"):
        fine.resize(a_hat, double(32, 2e6))


@pytest.mark.parametrize("kind", KINDS[1:])
def test_unresolved_coefficients_are_never_made_and_never_counted(kind):
    grid = double((24, 40), (1e6, 2e6), kind)
    outside = np.asarray(grid.mask) == 0
    assert outside.any()
    a_hat, u, v = grid.to_spectral(noise(grid, 13)), noise(grid, 14), noise(grid, 15)
    made = {
        "to_spectral": a_hat,
        "divergence": grid.divergence(u, v),
        "zonal_derivative": grid.zonal_derivative(a_hat),
        "laplacian": grid.laplacian(a_hat),
        "inverse_laplacian": grid.inverse_laplacian(a_hat),
        "resize": double((48, 80), (1e6, 2e6), None).resize(resolved(double((48, 80), (1e6, 2e6), None), 16), grid),
    }
    for name, b_hat in made.items():
        assert float(jnp.max(jnp.abs(b_hat * outside))) == 0.0, name
    poisoned = jnp.where(outside, 1e30 * (1 + 1j), a_hat)
    assert error(grid.inner(poisoned, poisoned), grid.inner(a_hat, a_hat)) < 1e-15
    assert error(grid.spectrum(grid.cospectrum(poisoned, a_hat)), grid.spectrum(grid.cospectrum(a_hat, a_hat))) < 1e-14


@pytest.mark.parametrize("kind", KINDS)
def test_single_precision_agrees_with_double_and_stays_single(kind):
    double_, single = double((24, 40), (1e6, 2e6), kind), hg.Torus((24, 40), (1e6, 2e6), dealias=kind)
    a = eddies(double_, 2, 1.0)
    results = []
    for grid in (double_, single):
        a_hat = grid.to_spectral(jnp.asarray(a, grid.dtype))
        u, v = grid.velocity(a_hat)
        variance = grid.inner(a_hat, a_hat), grid.mean(u * u)
        results.append((grid.gradient(a_hat), grid.inverse_laplacian(a_hat), grid.curl(u, v), variance, grid.spacing))
    for exact, found in zip(jax.tree.leaves(results[0]), jax.tree.leaves(results[1])):
        assert found.dtype in (jnp.float32, jnp.complex64), found.dtype
        assert error(found, exact) < 2e-6, error(found, exact)


def test_leading_axes_are_a_batch():
    grid = double((12, 16), 1e6, 3 / 2)
    a = jnp.asarray(np.random.default_rng(0).standard_normal((3, 2, *grid.shape)))
    a_hat = grid.to_spectral(a)
    assert error(a_hat[1], grid.to_spectral(a[1])) < 1e-15
    assert error(jax.vmap(grid.to_grid)(a_hat), grid.to_grid(a_hat)) < 1e-15
    assert grid.spectrum(grid.cospectrum(a_hat, a_hat)).shape == (3, 2, 6)


def test_a_wave_travels_over_the_points_of_its_own_axis():
    """Four times as many points along x: the Courant number counts Δx for u and Δy for v, the filter likewise."""
    grid = hg.Torus((16, 64), 1e6, dealias=None, dtype=jnp.float64)
    u = jnp.full((2, *grid.shape), 0.5)
    assert float(grid.courant(u, 0 * u, 3600.0)) == pytest.approx(0.5 * 3600 / (1e6 / 64), rel=1e-12)
    assert float(grid.courant(0 * u, u, 3600.0)) == pytest.approx(0.5 * 3600 / (1e6 / 16), rel=1e-12)
    found = np.asarray(hg.exponential_filter(grid))
    of = lambda n: np.asarray(hg.exponential_filter(hg.Torus(n, 1e6, dealias=None, dtype=jnp.float64)))
    assert error(found[0], of(64)[0]) < 1e-15 and error(found[:, 0], of(16)[:, 0]) < 1e-15
    stretched = hg.Torus((16, 64), (1e6, 4e6), dealias=None, dtype=jnp.float64)
    assert np.array_equal(hg.exponential_filter(stretched), found), "a matter of points per wave alone"


def test_courant_number_of_a_uniform_flow():
    grid = double(32, 1e6)
    u = jnp.full((2, *grid.shape), 0.5)
    assert float(grid.courant(u, -u, 3600.0)) == pytest.approx(1.0 * 3600 / (1e6 / 32), rel=1e-12)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n": 33, "length": 1e6}, "even"),
        ({"n": (32, 2), "length": 1e6}, "at least 4"),
        ({"n": 32, "length": -1.0}, "positive length"),
        ({"n": 32, "length": float("nan")}, "positive length"),
        ({"n": 32, "length": 1e6, "dealias": 0.5}, "2 / 3 or 3 / 2"),
        ({"n": 32, "length": 1e6, "dtype": jnp.float16}, "float32 or float64"),
    ],
)
def test_the_constructor_says_what_it_expects_and_what_it_got(arguments, message):
    with pytest.raises(ValueError, match=message) as caught:
        hg.Torus(**arguments)
    assert "got" in str(caught.value)


def test_double_precision_without_x64_is_refused_with_the_remedy():
    with jax.enable_x64(False), pytest.raises(ValueError, match="jax_enable_x64"):
        hg.Torus(32, 1e6, dtype=jnp.float64)


@pytest.mark.parametrize("n", [48, 96, (40, 72)])
def test_the_mean_of_a_constant_is_exact_in_single_precision_and_rounding_acts_on_deviations_only(n):
    grid = hg.Torus(n, 1e6)
    a = np.random.default_rng(0).standard_normal(grid.shape)
    means = grid.mean(jnp.asarray(np.stack([0 * a + 1234.5, 1e4 + a]), jnp.float32))
    assert float(means[0]) == 1234.5, float(means[0])
    exact = np.asarray(1e4 + a, np.float32).astype(float).mean()
    assert abs(float(means[1]) - exact) < 1e-3, f"{float(means[1]) - exact:.1e}: one unit in the last place is 1e-3"


@pytest.mark.parametrize("n", [16, 128])
def test_curl_divergence_and_synthesis_with_a_potential_are_those_of_the_parts(n):
    grid = double(n, (1e6, 2e6))
    psi_hat, chi_hat = (grid.to_spectral(jnp.asarray(eddies(grid, 2, 1.0, seed))) for seed in (0, 1))
    u, v, one, other = grid.synthesise(psi_hat, psi_hat, chi_hat, potential=chi_hat)
    chi_x, chi_y = grid.gradient(chi_hat)
    for found, expected in ((u, grid.velocity(psi_hat)[0] + chi_x), (v, grid.velocity(psi_hat)[1] + chi_y)):
        assert error(found, expected) < 1e-13
    assert error(one, grid.to_grid(psi_hat)) < 1e-14 and error(other, grid.to_grid(chi_hat)) < 1e-14
    curl, divergence = grid.curl_and_divergence(u, v)
    assert error(curl, grid.laplacian(psi_hat)) < 1e-12 and error(divergence, grid.laplacian(chi_hat)) < 1e-12
    assert error(curl, grid.curl(u, v)) < 1e-14 and error(divergence, grid.divergence(u, v)) < 1e-14
