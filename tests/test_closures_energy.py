"""Backscatter with a budget: what the flow loses is in the subgrid energy, and comes back only from there."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from helpers import double, eddies, error, run, wave

import hybridgcm as hg
from hybridgcm import diagnostics
from hybridgcm.closures import EnergyBackscatter

DT, GRID = 3600.0, double(32)
FLOW = hg.QuasiGeostrophic.two_layer(GRID)


def state(seed=0):
    return {"q": GRID.to_spectral(jnp.asarray(eddies(GRID, 2, (5e-6, 5e-7), seed)))}


def advance(closure, y, e):
    """Rate of change of the flow's energy by the closure, and new subgrid energy, per layer."""
    forcing, new = closure(FLOW.view(y), GRID, e, jr.key(0))
    return -GRID.inner(FLOW.invert(y["q"]), forcing["q_hat"]), new


def some_energy():
    return jnp.asarray(1e-3 + eddies(GRID, 2, 2e-4, 5))


@pytest.mark.parametrize("tau", [1e30, 20 * 86400.0])
def test_energy_of_flow_and_subgrid_scales_changes_by_the_known_sink_alone(tau):
    e = some_energy()
    for seed in range(3):
        closure = EnergyBackscatter(0.3, 0.2, tau=tau, U=(0.025, 0.0), dt=DT)
        flow, new = advance(closure, state(seed), e)
        subgrid, sink = (GRID.mean(new) - GRID.mean(e)) / DT, GRID.mean(new) / tau
        turnover = -advance(EnergyBackscatter(0.3, 0.0, dt=DT), state(seed), e)[0]
        assert jnp.all(turnover > 0)
        assert jnp.all(jnp.abs(flow + subgrid + sink) < 1e-10 * (turnover + sink)), (flow, subgrid, sink)


def test_viscosity_takes_and_backscatter_gives():
    e = some_energy()
    loss, grown = advance(EnergyBackscatter(0.3, 0.0, tau=1e30, dt=DT), state(), e)
    gain, spent = advance(EnergyBackscatter(0.0, 0.2, tau=1e30, dt=DT), state(), e)
    assert jnp.all(loss < 0) and jnp.all(GRID.mean(grown) > GRID.mean(e))
    assert jnp.all(gain > 0) and jnp.all(GRID.mean(spent) < GRID.mean(e))
    nothing, _ = advance(EnergyBackscatter(0.0, 0.2, dt=DT), state(), 0 * e)
    assert jnp.all(jnp.abs(nothing) < 1e-12 * gain), "without subgrid energy nothing comes back"


def test_backscatter_is_the_published_one_for_a_short_step():
    e, short = some_energy(), 1e-3
    gain, _ = advance(EnergyBackscatter(0.0, 0.2, dt=short), state(), e)
    fields = FLOW.view(state())
    zeta = GRID.to_grid(GRID.curl(fields["u"], fields["v"]))
    assert error(gain, GRID.mean(0.2 * GRID.spacing * jnp.sqrt(2 * e) * zeta**2)) < 1e-5


def test_no_step_returns_more_than_there_is():
    e = some_energy() * 1e-6
    gain, _ = advance(EnergyBackscatter(0.0, 100.0, dt=DT), state(), e)
    share = gain * DT / GRID.mean(e)
    assert jnp.all((share > 0.9) & (share < 1)), share


def test_subgrid_energy_moves_with_the_mean_flow_spreads_and_decays():
    tau, U = 1e6, 0.4
    closure = EnergyBackscatter(0.2, 0.1, diffusion=0.5, tau=tau, U=U, dt=DT)
    rest = {name: jnp.zeros((2, *GRID.shape)) for name in ("q", "u", "v", "psi")}
    k = 2 * np.pi * 3 / 1e6
    shape = np.broadcast_to(wave(GRID, 3, 0), (2, *GRID.shape))
    new = closure(rest, GRID, jnp.asarray(2e-3 + 1e-3 * shape), jr.key(0))[1]
    mixing = 0.5 * float(GRID.spacing) * np.sqrt(2 * 2e-3) + DT * U**2 / 2
    moved = 1e-3 * (shape + DT * U * k * np.broadcast_to(wave(GRID, 3, 0, -np.pi / 2), shape.shape))
    expected = 2e-3 / (1 + DT / tau) + moved / (1 + DT / tau + DT * mixing * k**2)
    assert error(new, expected) < 1e-12


def test_quarter_turn_of_the_flow_turns_forcing_and_memory():
    closure, e, given = EnergyBackscatter(0.3, 0.2, dt=DT), some_energy(), FLOW.view(state())
    turn = lambda a: jnp.rot90(a, 1, (-2, -1))  # clockwise, y counted upward
    turned = {"u": turn(given["v"]), "v": -turn(given["u"])}
    forcing, new = closure(given, GRID, e, jr.key(0))
    forcing_turned, new_turned = closure(turned, GRID, turn(e), jr.key(0))
    assert error(GRID.to_grid(forcing_turned["q_hat"]), turn(GRID.to_grid(forcing["q_hat"]))) < 1e-11
    assert error(new_turned, turn(new)) < 1e-12


@pytest.mark.slow
def test_two_thousand_steps_of_eddies_in_single_precision():
    grid = hg.Torus(64, 1e6, dealias=None)
    flow, filtered = hg.QuasiGeostrophic.two_layer(grid), hg.Filtered(hg.AB3(), hg.exponential_filter(grid))
    energies = {}
    for name, closure in (("none", None), ("backscatter", EnergyBackscatter(U=(0.025, 0.0), dt=DT))):
        model = hg.Model(flow, filtered, closure, dt=DT)
        end = run(model, model.encode({"q": eddies(grid, 2, (8e-6, 1e-6), peak=6.0)}), 2000)
        energies[name] = float(jax.jit(diagnostics.energy)(model, end))
    assert 0.5 < energies["backscatter"] / energies["none"] < 2, energies
    assert 0 < float(end.memory[0].mean()) < 10 * energies["none"]


def test_time_step_and_mean_flow_must_fit():
    with pytest.raises(ValueError, match="needs dt"):
        EnergyBackscatter()
    with pytest.raises(ValueError, match="was made for steps of 60.0 s"):
        hg.Model(FLOW, hg.AB3(), EnergyBackscatter(dt=60.0), dt=DT)
    with pytest.raises(ValueError, match="3 mean flows for 2 layers"):
        EnergyBackscatter(U=(1.0, 2.0, 3.0), dt=DT).init(FLOW.view(state()), GRID)
