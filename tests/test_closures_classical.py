"""The physics of the classical closures: agreement with pyqg, what they drain and return, how they scale."""

from pathlib import Path

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from helpers import double, error
from test_closures import CLOSURES, DEPTH, forcing_of, model_with, start

import hybridgcm as hg
from hybridgcm.closures import BiharmonicBackscatter, Leith, Smagorinsky, ZannaBolton

GOLDEN = Path(__file__).parent / "golden" / "closures_32.npz"


def power(equation, q_hat, dq_hat):
    """Rate of change of total energy by a tendency of q, m² s⁻³ (mean over area and depth)."""
    return -float(jnp.sum(equation.thickness * equation.grid.inner(equation.invert(q_hat), dq_hat)))


@pytest.mark.parametrize("name", ["smagorinsky", "zanna_bolton", "backscatter"])
def test_forcing_equals_that_of_pyqg(name):
    golden, grid = np.load(GOLDEN), double(32, dealias=None)
    equation = hg.QuasiGeostrophic.two_layer(grid)
    closure = {
        "smagorinsky": Smagorinsky(0.1),
        "zanna_bolton": ZannaBolton(),
        "backscatter": BiharmonicBackscatter(equation.thickness),
    }[name]
    forcing, _ = closure(equation.view({"q": grid.to_spectral(jnp.asarray(golden["q"]))}), grid, None, jr.key(0))
    ours = grid.to_grid(forcing["q_hat"]) if "q_hat" in forcing else jnp.stack([forcing["u"], forcing["v"]])
    keep = (np.arange(17) < 16) & (np.arange(32)[:, None] != 16)  # pyqg differentiates Nyquist modes, we do not
    ours = np.fft.irfft2(np.fft.rfft2(np.asarray(ours)) * keep)
    for layer in range(2):
        distance = error(ours[..., layer, :, :], golden[name][..., layer, :, :])
        assert distance < 1e-13, f"{name}, layer {layer}: {distance} from {golden['versions']}"


def test_eddy_viscosities_drain_energy_and_zanna_bolton_is_neutral():
    grid = double(32)
    rates, scale = {}, None
    for name in ("Smagorinsky", "Leith", "ZannaBolton"):
        model = model_with(CLOSURES[name](), grid)
        state = start(model)
        _, lifted, _ = forcing_of(model, state)
        rates[name] = power(model.equation, state.y["q"], lifted["q"])
        if name == "ZannaBolton":
            psi_hat = model.equation.invert(state.y["q"])
            size = jnp.sqrt(grid.inner(psi_hat, psi_hat) * grid.inner(lifted["q"], lifted["q"]))
            scale = float(jnp.sum(model.equation.thickness * size))
    assert rates["Smagorinsky"] < 0 and rates["Leith"] < 0, rates
    assert abs(rates["ZannaBolton"]) < 1e-14 * scale, f"{rates['ZannaBolton'] / scale}"


def test_smagorinsky_dissipates_nu_times_strain_squared():
    model = model_with(Smagorinsky(0.2), double(32))
    grid, state = model.equation.grid, start(model)
    _, lifted, _ = forcing_of(model, state)
    u, v = (grid.to_spectral(model.view(state)[name]) for name in "uv")
    (u_x, u_y), (v_x, v_y) = grid.gradient(u), grid.gradient(v)
    strain = jnp.sqrt(2 * u_x**2 + 2 * v_y**2 + (u_y + v_x) ** 2)
    expected = -float(jnp.sum(model.equation.thickness * grid.mean((0.2 * grid.spacing) ** 2 * strain**3)))
    ratio = power(model.equation, state.y["q"], lifted["q"]) / expected
    assert abs(ratio - 1) < 1e-12, ratio


def test_leith_dissipates_enstrophy_in_every_layer():
    model = model_with(Leith(0.5), double(32))
    grid, q_hat = model.equation.grid, start(model).y["q"]
    _, lifted, _ = forcing_of(model, start(model))
    q_x, q_y = grid.gradient(q_hat)
    expected = -grid.mean((0.5 * grid.spacing) ** 3 * (q_x**2 + q_y**2) ** 1.5)
    ratio = np.asarray(grid.inner(q_hat, lifted["q"]) / expected)
    assert np.all(np.abs(ratio - 1) < 1e-12), ratio


def test_backscatter_returns_its_share_of_the_energy():
    rates = []
    for share in (0.0, 0.5, 1.0, 1.2):
        model = model_with(BiharmonicBackscatter(DEPTH, 0.2, share), double(32))
        state = start(model)
        rates.append(power(model.equation, state.y["q"], forcing_of(model, state)[1]["q"]))
    ratios = np.array(rates) / rates[0]
    assert rates[0] < 0
    assert np.allclose(ratios, [1, 0.5, 0, -0.2], atol=1e-12), ratios


@pytest.mark.parametrize(("name", "power_of_spacing"), [("Smagorinsky", 2), ("Leith", 3), ("ZannaBolton", 0)])
def test_same_flow_on_a_finer_grid_is_forced_with_the_power_of_the_spacing(name, power_of_spacing):
    coarse, fine = (model_with(CLOSURES[name](), double(n)) for n in (32, 64))
    state = start(coarse)
    q_hat = coarse.equation.grid.resize(state.y["q"], fine.equation.grid)
    lifted = forcing_of(fine, eqx.tree_at(lambda s: s.y["q"], start(fine), q_hat))[1]["q"]
    low = fine.equation.grid.resize(lifted, coarse.equation.grid)
    grid = coarse.equation.grid
    ratio = np.asarray(grid.inner(forcing_of(coarse, state)[1]["q"], q_hat := state.y["q"]) / grid.inner(low, q_hat))
    assert np.all(np.abs(ratio / 2**power_of_spacing - 1) < 0.02), ratio
