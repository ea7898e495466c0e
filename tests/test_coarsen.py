"""Coarse-graining operators and the sign, size and definition of the subgrid forcing."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import double, eddies, error

import hybridgcm as hg
from hybridgcm import coarsen

OPERATORS = (coarsen.operator1, coarsen.operator2, coarsen.cutoff)


def flows(fine=48, coarse=16, dealias=2 / 3, dtype=jnp.float64):
    make = lambda n: hg.QuasiGeostrophic.two_layer(hg.Torus(n, 1e6, dealias=dealias, dtype=dtype), tau=86400.0)
    return make(fine), make(coarse)


def start(flow, seed=0):
    return {"q": flow.grid.to_spectral(jnp.asarray(eddies(flow.grid, 2, (5e-6, 1e-6), seed), flow.grid.k.dtype))}


def full(forcing, coarse):
    return coarse.grid.to_spectral(forcing["q"])


def test_sharp_cutoff_to_the_same_grid_leaves_no_subgrid_forcing():
    fine, _ = flows()
    forcing = coarsen.subgrid_forcing(fine, fine, start(fine), coarsen.cutoff)
    tendency = fine.grid.to_grid(fine.explicit(0.0, start(fine))["q"])
    assert error(forcing["q"] + tendency, tendency) < 1e-14, error(forcing["q"] + tendency, tendency)


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("dealias", [None, 2 / 3, 3 / 2])
def test_adding_the_forcing_to_the_coarse_tendency_gives_the_coarsened_truth(operator, dealias):
    fine, coarse = flows(dealias=dealias)
    y = start(fine)
    low = coarsen.state(fine.grid, coarse.grid, y, operator)
    added = coarse.explicit(0.0, low)["q"] + full(coarsen.subgrid_forcing(fine, coarse, y, operator), coarse)
    truth = operator(fine.explicit(0.0, y)["q"], fine.grid, coarse.grid)
    resolved = np.asarray(coarse.grid.multiplicity > 0) & (np.abs(np.asarray(truth[0])) > 0)
    difference = error(np.asarray(added)[:, resolved], np.asarray(truth)[:, resolved])
    assert difference < 1e-12, difference
    wrong = coarse.explicit(0.0, low)["q"] - full(coarsen.subgrid_forcing(fine, coarse, y, operator), coarse)
    assert error(wrong, truth) > 0.01, "the opposite sign must be seen to fail"


def test_one_step_with_the_forcing_follows_the_truth_better_than_without():
    fine, coarse = flows(64, 16)
    y, dt = start(fine), 600.0
    push = lambda flow, y, extra=0.0: y["q"] + dt * (flow.explicit(0.0, y)["q"] + extra)
    low = coarsen.state(fine.grid, coarse.grid, y)
    truth = coarsen.operator1(push(fine, y), fine.grid, coarse.grid)
    bare = error(push(coarse, low), truth)
    helped = error(push(coarse, low, full(coarsen.subgrid_forcing(fine, coarse, y), coarse)), truth)
    assert helped < 1e-10 < bare, (helped, bare)


@pytest.mark.parametrize("operator", OPERATORS)
def test_operators_drop_the_nyquist_modes_and_keep_the_mean(operator):
    fine, coarse = double(48, dealias=None), double(16, dealias=None)
    a_hat = operator(
        fine.to_spectral(jnp.asarray(np.random.default_rng(0).standard_normal((48, 48)) + 3)), fine, coarse
    )
    assert float(jnp.max(jnp.abs(a_hat[8]))) == 0 and float(jnp.max(jnp.abs(a_hat[:, 8]))) == 0
    assert error(a_hat[0, 0], fine.to_spectral(jnp.zeros((48, 48)))[0, 0] + a_hat[0, 0].real) == 0, "the mean is real"


def test_operators_multiply_a_wave_by_their_published_factor():
    fine, coarse = double(96, dealias=None), double(32, dealias=None)
    spacing = 1e6 / 32
    for m in (2, 9, 12, 14):
        wave = fine.to_spectral(jnp.asarray(np.cos(2 * np.pi * m * fine.x / 1e6) * np.ones((96, 1))))
        kappa = 2 * np.pi * m / 1e6 * spacing
        expected = {
            coarsen.operator1: np.exp(-23.6 * max(kappa - 0.65 * np.pi, 0) ** 4),
            coarsen.operator2: np.exp(-(kappa**2) * 4 / 24),
            coarsen.cutoff: 1.0,
        }
        for operator, factor in expected.items():
            found = 2 * float(operator(wave, fine, coarse)[0, m].real)
            assert abs(found - factor) < 1e-13, (operator.__name__, m, found, factor)
            there = float(coarsen.transfer(fine, coarse, operator)[0, m])
            assert abs(there - factor) < 1e-13, (operator.__name__, m, there, factor)


@pytest.mark.parametrize("operator", OPERATORS)
def test_jit_and_vmap_agree_with_the_loop_and_keep_float32(operator):
    fine, coarse = flows(dtype=jnp.float32)
    ys = jax.tree.map(lambda *a: jnp.stack(a), *[start(fine, seed) for seed in range(3)])
    batched = eqx.filter_jit(lambda f, c, y: jax.vmap(lambda y: coarsen.sample(f, c, y, operator))(y))(fine, coarse, ys)
    assert {a.dtype for a in batched.values()} == {jnp.dtype("float32")}
    one = coarsen.sample(fine, coarse, jax.tree.map(lambda a: a[1], ys), operator)
    for name in ("q", "S"):
        assert error(batched[name][1], one[name]) < 2e-5, (name, error(batched[name][1], one[name]))


def test_a_model_and_its_equation_give_the_same_forcing():
    fine, coarse = flows()
    models = [hg.Model(flow, hg.AB3(), dt=600.0) for flow in (fine, coarse)]
    a = coarsen.subgrid_forcing(fine, coarse, start(fine))["q"]
    assert error(coarsen.subgrid_forcing(*models, start(fine))["q"], a) == 0


def test_implicit_dissipation_is_not_part_of_the_forcing_and_the_metadata_say_so():
    fine, coarse = flows(dealias=2 / 3)
    calm = eqx.tree_at(lambda flow: flow.tau, fine, jnp.asarray(np.inf))
    a, b = (coarsen.subgrid_forcing(flow, coarse, start(fine))["q"] for flow in (fine, calm))
    assert error(a, b) == 0
    facts = coarsen.metadata(fine, coarse, coarsen.operator2)
    assert facts["operator"] == "operator2" and facts["dissipation"].startswith("excluded")
    assert (
        facts["sign"].startswith("tendency") and facts["fine_modes"] == [48, 48] and facts["coarse_modes"] == [16, 16]
    )
    assert (
        facts["fine_dealias"] == pytest.approx(2 / 3)
        and coarsen.metadata(*flows(dealias=None))["fine_dealias"] == "none"
    )


@pytest.mark.slow
def test_forcing_of_a_ten_year_run_has_the_published_size():
    """Training data of Perezhogin et al. (2023), operator 1, 64²: std q 5.701e-6 s⁻¹, std S 4.999e-12 s⁻².

    Ten years from rest, sampled every 1000 h, layers pooled; at 48² per layer (7.784e-6, 1.0472e-6) and
    (7.606e-12, 1.6565e-13). Runs differ by 3 % in S, and the length of the spin-up adds to that.
    """
    make = lambda n: hg.QuasiGeostrophic.two_layer(hg.Torus(n, 1e6, dealias=None))
    fine, lows = make(256), (make(64), make(48))
    model = hg.Model(fine, hg.Filtered(hg.AB3(), hg.exponential_filter(fine.grid)), dt=3600.0)
    state = model.encode({"q": eddies(fine.grid, 2, (1e-6, 1e-7), peak=8.0)})
    keep = lambda m, s: [coarsen.sample(fine, low, s.y) for low in lows]
    squares = [[], []]
    for _, out in hg.stream(model, state, 86000, every=1000, chunk=2, save=keep):
        for found, row in zip(squares, out["save"]):
            found.append([np.square(row[n], dtype=np.float64).mean((0, 2, 3)) for n in ("q", "S")])
    size = [np.mean(found, 0) for found in squares]
    pooled = np.sqrt(size[0].mean(-1)) / (5.701e-6, 4.999e-12)
    layers = np.sqrt(size[1]) / ((7.784e-6, 1.0472e-6), (7.606e-12, 1.6565e-13))
    assert np.all(np.abs(pooled[0] - 1) < 0.05) and np.all(np.abs(layers[0] - 1) < 0.05), (pooled, layers)
    assert np.all(np.abs(pooled[1] - 1) < 0.12) and np.all(np.abs(layers[1] - 1) < 0.12), (pooled, layers)


def test_a_sample_of_several_prognostics_names_a_target_for_each():
    fine, coarse = (hg.ShallowWater(double(n), 1e-4, 100.0) for n in (48, 16))
    psi_hat = fine.grid.to_spectral(jnp.asarray(eddies(fine.grid, 1, 1e4)))
    y = {name: fine.grid.to_spectral(a) for name, a in fine.balanced(psi_hat).items()}
    sample, forcing = coarsen.sample(fine, coarse, y), coarsen.subgrid_forcing(fine, coarse, y)
    assert set(sample) == {"zeta", "delta", "phi", "S_zeta", "S_delta", "S_phi"}
    assert all(error(sample[f"S_{name}"], forcing[name]) == 0 for name in forcing)
    assert coarsen.targets(coarse) == {"zeta": "S_zeta", "delta": "S_delta", "phi": "S_phi"}
    assert coarsen.targets(flows()[0]) == {"q": "S"}
