"""Closures without a scale of their own: limits, powers of the spacing, filter, symmetry."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from helpers import cnn, double, eddies, error

import hybridgcm as hg
from hybridgcm.closures import DimensionlessNetwork, QGLeith, ScaleAwareZannaBolton

RMS = (5e-6, 5e-7)


def fields(grid, flow=None, seed=0):
    flow = hg.QuasiGeostrophic.two_layer(grid) if flow is None else flow
    return flow.view({"q": grid.to_spectral(jnp.asarray(eddies(grid, flow.layers, RMS[: flow.layers], seed)))})


def forcing(closure, given, grid):
    return closure(given, grid, closure.init(given, grid), jr.key(0))[0]


# ---- QG Leith ----


def test_qg_leith_is_leith_without_stretching_and_for_a_coarse_grid():
    grid = double(32)
    barotropic = fields(grid, hg.QuasiGeostrophic.barotropic(grid))
    assert (
        error(forcing(QGLeith(2e4, 0.3), barotropic, grid)["q_hat"], forcing(hg.Leith(0.3), barotropic, grid)["q_hat"])
        < 1e-12
    )
    given = fields(grid)
    leith = forcing(hg.Leith(0.3), given, grid)["q_hat"]
    assert error(forcing(QGLeith(1.0, 0.3), given, grid)["q_hat"], leith) < 1e-6  # a radius of 1 m: Bu is 1e-9
    assert error(forcing(QGLeith((2e4, 4e4), 0.3), given, grid)["q_hat"], leith) > 0.1


def test_qg_leith_forgets_stretching_for_a_fine_grid():
    grid = double(32)
    given = fields(grid)
    q_hat, zeta_hat = grid.to_spectral(given["q"]), grid.curl(given["u"], given["v"])
    nu = (0.3 * grid.spacing) ** 3 * jnp.hypot(*grid.gradient(zeta_hat))
    q_x, q_y = grid.gradient(q_hat)
    found = forcing(QGLeith(1e9, 0.3), given, grid)["q_hat"]
    assert error(found, grid.divergence(nu * q_x, nu * q_y)) < 1e-6


def test_qg_leith_dissipates_enstrophy_less_than_leith_where_large_eddies_are_thick():
    grid = double(64)
    given = fields(grid, hg.QuasiGeostrophic.barotropic(grid, rd=15e3))  # q = ζ − ψ/rd²: one sign, large scales
    q_hat = grid.to_spectral(given["q"])
    ours = grid.inner(q_hat, forcing(QGLeith(15e3, 0.3), given, grid)["q_hat"])
    leith = grid.inner(q_hat, forcing(hg.Leith(0.3), given, grid)["q_hat"])
    assert 0.9 * leith < ours < 0, (ours, leith)


def test_qg_leith_needs_a_radius_per_layer():
    grid = double(16)
    with pytest.raises(ValueError, match="one per layer, 2"):
        forcing(QGLeith((1e4, 2e4, 3e4)), fields(grid), grid)


# ---- Zanna-Bolton ----


def test_scale_aware_zanna_bolton_without_filter_is_the_published_stress():
    grid = double(32)
    given = fields(grid)
    ours = forcing(ScaleAwareZannaBolton(0.2, 0.0), given, grid)
    theirs = forcing(hg.ZannaBolton(-0.2 * float(grid.spacing) ** 2), given, grid)
    for name in "uv":
        assert error(ours[name], theirs[name]) < 1e-13


def test_stress_of_one_flow_falls_with_the_square_of_the_spacing():
    coarse, given = double(32), fields(double(32))
    norms = []
    for n in (32, 64, 128):
        grid = double(n)
        same = {name: grid.to_grid(coarse.resize(coarse.to_spectral(given[name]), grid)) for name in "uv"}
        made = forcing(ScaleAwareZannaBolton(0.2, 0.0), same, grid)
        low = grid.resize(grid.curl(made["u"], made["v"]), coarse)
        norms.append(np.asarray(coarse.inner(low, low)))
    ratios = np.sqrt([norms[0] / norms[1], norms[1] / norms[2]])
    assert np.all(np.abs(ratios / 4 - 1) < 1e-10), ratios


def test_stress_is_filtered_by_the_gaussian_of_its_width():
    grid = double(32)
    given = fields(grid)
    plain, smooth = (forcing(ScaleAwareZannaBolton(0.2, width), given, grid)["u"] for width in (0.0, 3.0))
    factor = jnp.exp(grid.eigenvalues * (3 * grid.spacing) ** 2 / 24)
    assert error(grid.to_spectral(smooth), factor * grid.to_spectral(plain)) < 1e-12


@pytest.mark.parametrize("closure", [QGLeith((2e4, 4e4)), ScaleAwareZannaBolton()], ids=lambda c: type(c).__name__)
def test_turned_fields_give_the_turned_forcing(closure):
    grid = double(32)
    flow, given, turn = hg.QuasiGeostrophic.two_layer(grid), fields(grid), lambda a: jnp.rot90(a, 1, (-2, -1))
    turned = {"q": turn(given["q"]), "u": turn(given["v"]), "v": -turn(given["u"])}  # clockwise, y counted upward
    lifted = [grid.to_grid(flow.lift(forcing(closure, a, grid))["q"]) for a in (given, turned)]
    assert error(lifted[1], turn(lifted[0])) < 1e-11


# ---- a network without scales ----


def dimensionless(inputs=6, outputs=1):
    return DimensionlessNetwork(cnn(inputs, outputs, 8, activation=jax.nn.silu))


def test_dimensionless_network_scales_as_advection_and_sees_neither_uniform_flow_nor_other_layers():
    grid, closure = double(32), dimensionless()
    given = fields(grid)
    made = forcing(closure, given, grid)["q"]
    assert np.all(np.std(made, (-2, -1)) > 0)
    faster = forcing(closure, {name: 3 * a for name, a in given.items()}, grid)["q"]
    assert error(faster, 9 * made) < 1e-12
    larger = forcing(closure, given, double(32, 2 * grid.length[0]))["q"]
    assert error(larger, made / 2) < 1e-12
    carried = {"q": given["q"] + 1e-4, "u": given["u"] + 2.0, "v": given["v"] - 1.0}
    assert error(forcing(closure, carried, grid)["q"], made) < 1e-8  # differences of numbers a hundred times larger
    below = {name: a.at[1].multiply(-2) for name, a in given.items()}
    assert error(forcing(closure, below, grid)["q"][0], made[0]) < 1e-12


def test_dimensionless_network_in_single_precision_is_that_in_double():
    grid, closure = double(32), dimensionless()
    given = fields(grid)
    single = jax.tree.map(lambda a: a.astype("float32"), (closure, given))
    made = forcing(*single, hg.Torus(32, grid.length, dtype=jnp.float32))["q"]
    assert made.dtype == jnp.float32 and error(made, forcing(closure, given, grid)["q"]) < 1e-5


def test_dimensionless_network_says_what_it_needs():
    grid = double(16)
    with pytest.raises(ValueError, match=r"\['v'\] missing"):
        dimensionless().init({name: a for name, a in fields(grid).items() if name != "v"}, grid)
    with pytest.raises(ValueError, match=r"expected \(1, 16, 16\)"):
        forcing(dimensionless(outputs=2), fields(grid), grid)
