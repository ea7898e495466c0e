"""Block means, and the momentum and flux forms of the subgrid forcing."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import double, eddies, error

import hybridgcm as hg
from hybridgcm import coarsen
from hybridgcm.closures import FluxForm

DIAGONAL = (coarsen.operator1, coarsen.operator2, coarsen.cutoff)


def flows(make, dealias=2 / 3, fine=48, coarse=16):
    return make(double(fine, dealias=dealias)), make(double(coarse, dealias=dealias))


def two_layer(grid):
    return hg.QuasiGeostrophic.two_layer(grid, tau=86400.0)


def one_layer(grid):
    return hg.QuasiGeostrophic.barotropic(grid, beta=1.5e-11, U=0.02, drag=1e-7, tau=86400.0)


def start(flow, seed=0):
    sizes = (5e-6, 1e-6)[: flow.layers]
    return {"q": flow.grid.to_spectral(jnp.asarray(eddies(flow.grid, flow.layers, sizes, seed, peak=7.0)))}


# Operator 3


def blocks(a, ratio):
    """Means over blocks of points that begin at multiples of `ratio`."""
    ny, nx = a.shape
    return a.reshape(ny // ratio, ratio, nx // ratio, ratio).mean((1, 3))


@pytest.mark.parametrize("ratio", [3, 4])
def test_operator3_is_the_published_filter_and_block_mean_in_real_space(ratio):
    """gcm-filters' target is exp(-s r²/24) of its five-point Laplacian, here by the matrix exponential of the stencil.

    The field is moved by half a block first, so that the blocks of the plain mean are centred on the coarse points.
    """
    n = 8 * ratio
    fine, coarse = double(n, 1.0, dealias=None), double(8, 1.0, dealias=None)
    a_hat = fine.to_spectral(jnp.asarray(np.random.default_rng(0).standard_normal((n, n))))
    a_hat = a_hat.at[n // 2].set(0).at[:, n // 2].set(0) if n % 2 == 0 else a_hat  # its place is not defined
    second = np.roll(np.eye(n), 1, 0) + np.roll(np.eye(n), -1, 0) - 2 * np.eye(n)
    values, vectors = np.linalg.eigh(second)
    smooth = vectors @ np.diag(np.exp(values * ratio**2 / 24)) @ vectors.T
    offset = (ratio - 1) / 2 / n  # from the first point of a block to its centre, as part of the side
    moved = fine.to_grid(a_hat * np.exp(-1j * np.asarray(fine.k + fine.l) * offset))
    expected = blocks(smooth @ np.asarray(moved) @ smooth.T, ratio)
    found = coarse.to_grid(coarsen.operator3(a_hat, fine, coarse))
    assert error(found, expected) < 1e-12, error(found, expected)


def test_operator3_aliases_and_so_does_not_commute_with_derivatives():
    fine, coarse = double(32, dealias=None), double(8, dealias=None)
    wave = fine.to_spectral(jnp.asarray(np.cos(2 * np.pi * 7 * fine.x / 1e6) * np.ones((32, 1))))
    seen = np.abs(np.asarray(coarsen.operator3(wave, fine, coarse)))
    assert seen[0, 1] > 1e-3 and np.delete(seen.ravel(), 1).max() < 1e-15, "wave 7 appears as wave 1 on 8 points"
    with pytest.raises(ValueError, match="no factor per mode"):
        coarsen.transfer(fine, coarse, coarsen.operator3)


@pytest.mark.parametrize("dealias", [None, 2 / 3, 3 / 2])
def test_operator3_keeps_the_mean_is_linear_and_nearly_operator_free_at_large_scales(dealias):
    fine, coarse = double(48, dealias=dealias), double(16, dealias=dealias)
    a, b = (fine.to_spectral(jnp.asarray(np.random.default_rng(i).standard_normal(fine.shape)) + i) for i in (1, 2))
    op = lambda a: coarsen.operator3(a, fine, coarse)
    assert error(op(2 * a - b), 2 * op(a) - op(b)) < 1e-13
    assert abs(op(a)[0, 0] - a[0, 0]) < 1e-14
    wave = fine.to_spectral(jnp.asarray(np.cos(2 * np.pi * fine.y / 1e6)[:, None] * np.ones(fine.shape)))
    assert 0.95 < 2 * float(op(wave)[1, 0].real) < 1 and abs(float(op(wave)[1, 0].imag)) < 1e-14, "damped, not shifted"


def test_operator3_needs_a_whole_ratio():
    with pytest.raises(ValueError, match="whole ratio of points"):
        coarsen.operator3(jnp.zeros((48, 25), complex), double(48), double(32))


def test_operator3_gives_a_forcing_like_any_other():
    fine, coarse = flows(two_layer)
    sample = eqx.filter_jit(lambda f, c, y: coarsen.sample(f, c, y, coarsen.operator3))(fine, coarse, start(fine))
    low = coarsen.state(fine.grid, coarse.grid, start(fine), coarsen.operator3)
    truth = coarsen.operator3(fine.explicit(0.0, start(fine))["q"], fine.grid, coarse.grid)
    added = coarse.explicit(0.0, low)["q"] + coarse.grid.to_spectral(sample["S"])
    assert error(added, truth) < 1e-12 and coarsen.metadata(fine, coarse, coarsen.operator3)["operator"] == "operator3"


# Flux form


@pytest.mark.parametrize(("operator", "dealias"), list(zip(DIAGONAL, (None, 2 / 3, 3 / 2))))
def test_minus_the_divergence_of_the_flux_is_the_forcing(operator, dealias):
    fine, coarse = flows(two_layer, dealias)
    flux = coarsen.subgrid_flux(fine, coarse, start(fine), operator)
    assert set(flux) == {"q_x", "q_y"} and flux["q_x"].shape == (2, *coarse.grid.shape)
    S = coarse.grid.to_spectral(coarsen.subgrid_forcing(fine, coarse, start(fine), operator)["q"])
    distance = error(-coarse.grid.divergence(flux["q_x"], flux["q_y"]), S)
    assert distance < 1e-11, distance
    assert error(coarse.grid.divergence(flux["q_x"], flux["q_y"]), S) > 1.9, "the sign is that of a tendency"


def test_with_operator3_the_flux_does_not_give_the_forcing():
    fine, coarse = flows(two_layer)
    flux = coarsen.subgrid_flux(fine, coarse, start(fine), coarsen.operator3)
    S = coarse.grid.to_spectral(coarsen.subgrid_forcing(fine, coarse, start(fine), coarsen.operator3)["q"])
    assert error(-coarse.grid.divergence(flux["q_x"], flux["q_y"]), S) > 1e-3


def test_the_flux_is_what_flux_form_closures_return():
    fine, coarse = flows(two_layer)
    flux = coarsen.subgrid_flux(fine, coarse, start(fine))

    class Known(hg.AbstractClosure):
        flux: dict

        def init(self, fields, grid):
            return None

        def __call__(self, fields, grid, memory, key):
            return self.flux, memory

    forcing, _ = FluxForm(Known(flux))({}, coarse.grid, None, None)
    S = coarsen.subgrid_forcing(fine, coarse, start(fine))["q"]
    assert error(coarse.grid.to_grid(coarse.lift(forcing)["q"]), S) < 1e-11


def test_a_smooth_flow_has_the_flux_of_the_gradient_model():
    """φ_uq = (Δ²/12) ∂u/∂x_k ∂q/∂x_k + ... for a Gaussian of width Δ (Clark et al. 1979): waves of number 1 and 2."""
    grid = double(64)
    flow = two_layer(grid)
    q = eddies(grid, 2, (5e-6, 1e-6), peak=1.0)
    keep = np.asarray(-grid.eigenvalues) < (2.5 * 2 * np.pi / 1e6) ** 2
    y = {"q": grid.to_spectral(jnp.asarray(q)) * keep}
    flux = coarsen.subgrid_flux(flow, flow, y, coarsen.operator2)
    u_hat, q_hat = (grid.to_spectral(flow.view(y)[name]) for name in ("u", "q"))
    width = 2 * grid.spacing
    gradient = sum(a * b for a, b in zip(grid.gradient(u_hat), grid.gradient(q_hat))) * width**2 / 12
    assert error(flux["q_x"], gradient) < 0.02, error(flux["q_x"], gradient)


# Momentum form


@pytest.mark.parametrize(("operator", "dealias"), list(zip(DIAGONAL, (3 / 2, 2 / 3, 2 / 3))))
def test_the_curl_of_the_momentum_forcing_is_the_forcing_of_one_layer(operator, dealias):
    fine, coarse = flows(one_layer, dealias)
    force = coarsen.subgrid_momentum(fine, coarse, start(fine), operator)
    S = coarse.grid.to_spectral(coarsen.subgrid_forcing(fine, coarse, start(fine), operator)["q"])
    distance = error(coarse.lift(force)["q"], S)
    assert distance < 1e-10, distance


def test_with_layers_the_momentum_forcing_lacks_the_stretching():
    fine, coarse = flows(two_layer)
    force = coarsen.subgrid_momentum(fine, coarse, start(fine))
    S = coarse.grid.to_spectral(coarsen.subgrid_forcing(fine, coarse, start(fine))["q"])
    assert error(coarse.lift(force)["q"], S) > 0.1


def test_momentum_is_conserved_and_fluxes_of_other_fields_are_to_be_had():
    fine, coarse = flows(two_layer)
    force = coarsen.subgrid_momentum(fine, coarse, start(fine))
    for a in force.values():
        assert float(jnp.abs(coarse.grid.mean(a)).max()) < 1e-14 * float(jnp.abs(a).max())
    flux = coarsen.subgrid_flux(fine, coarse, start(fine), names=("u", "v"))
    assert sorted(flux) == ["u_x", "u_y", "v_x", "v_y"]
    plain = eqx.tree_at(lambda f: f.U, fine, 0 * fine.U), eqx.tree_at(lambda f: f.U, coarse, 0 * coarse.U)
    still = coarsen.subgrid_flux(*plain, start(fine), names=("u", "v"))
    assert error(still["u_y"], still["v_x"]) < 1e-12, "without a mean flow the stress is symmetric"
    with pytest.raises(ValueError, match="got 'b'"):
        coarsen.subgrid_flux(fine, coarse, start(fine), names=("b",))


def test_a_single_precision_flux_is_that_of_double_precision():
    make = lambda dtype: [two_layer(hg.Torus(n, 1e6, dtype=dtype)) for n in (48, 16)]
    double_pair, single_pair = make(jnp.float64), make(jnp.float32)
    y = start(double_pair[0])
    single = {"q": y["q"].astype(jnp.complex64)}
    for form in (coarsen.subgrid_flux, coarsen.subgrid_momentum):
        exact, rough = form(*double_pair, y), form(*single_pair, single)
        for name in exact:
            assert rough[name].dtype == jnp.float32 and error(rough[name], exact[name]) < 2e-4, name


def test_different_equations_are_refused():
    fine, _ = flows(two_layer)
    water = hg.ShallowWater(double(16), 1e-4, 1e4)
    with pytest.raises(ValueError, match="same prognostics"):
        coarsen.subgrid_flux(fine, water, start(fine))


def test_vmap_over_snapshots_agrees_with_the_loop():
    fine, coarse = flows(two_layer)
    ys = jax.tree.map(lambda *a: jnp.stack(a), start(fine, 1), start(fine, 2))
    batch = jax.vmap(lambda y: coarsen.subgrid_flux(fine, coarse, y))(ys)
    assert error(batch["q_y"][1], coarsen.subgrid_flux(fine, coarse, start(fine, 2))["q_y"]) < 1e-12
