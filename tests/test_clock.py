"""Forcings and closures of time: training, evaluation and forecasts from records begin at the records' times."""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from helpers import eddies, error

import hybridgcm as hg
from hybridgcm import closures, metrics, nn, train
from hybridgcm.tangent import restarted

HOUR, PERIOD = 3600.0, 40 * 3600.0
GRID = hg.Torus(16, 5e5)
FLOW = hg.QuasiGeostrophic.two_layer(GRID, tau=86400.0)
WAVE = jnp.asarray(np.cos(2 * np.pi * GRID.x / 5e5) * np.ones((2, 16, 16)), jnp.float32)
rollout = eqx.filter_jit(hg.rollout)


def seasons(t, grid):
    return {"q": 3e-11 * jnp.sin(2 * jnp.pi * t / PERIOD) * WAVE}


def halves(dt=HOUR):
    """The same wave, up for half a period and down for the other."""
    return closures.BiasCorrection({"q": jnp.stack([3e-11 * WAVE, -3e-11 * WAVE])}, period=PERIOD, dt=dt)


MODELS = {
    "forcing": hg.Model(FLOW, hg.RK4(), dt=HOUR, forcing=seasons),
    "bias correction": hg.Model(FLOW, hg.RK4(), halves(), dt=HOUR),
    "cells": hg.Model(FLOW, hg.RK4(), closures.GrahamRingler(3e-11, (4e-5, 3e-5), dt=HOUR, waves=2), dt=HOUR),
    "in a sum": hg.Model(FLOW, hg.RK4(), closures.Sum(hg.Smagorinsky(), closures.Scaled(halves(), 2.0)), dt=HOUR),
}


@pytest.fixture(scope="module", params=MODELS)
def truth(request):
    """(model, its records from step 0 on, one a step, with their times)."""
    model = MODELS[request.param]
    start = model.encode({"q": eddies(GRID, 2, (5e-6, 2e-6), 0)})
    _, out = rollout(model, start, 60, save=lambda model, state: model.decode(state))
    q = jnp.concatenate([model.decode(start)["q"][None], out["save"]["q"]])
    return model, {"q": q, "time": HOUR * jnp.arange(61)}


def test_the_model_that_made_the_truth_has_no_loss_at_any_time_of_its_clock(truth):
    model, records = truth
    loss = hg.online(metrics.mse("q"))
    window = lambda at, *names: {name: records[name][None, at : at + 6] for name in names}
    for at in (7, 25):
        assert loss(model, window(at, "q", "time"), jr.key(0)) < 1e-11
    assert loss(model, window(25, "q"), jr.key(0)) > 1e-7, "without its time it is at that of step 0"
    batch = hg.windows(records, length=3, batch=2, steps=1, key=jr.key(1))[0]
    assert batch["time"].shape == (2, 3) and loss(model, batch, jr.key(0)) < 1e-11


def test_evaluation_and_survival_begin_at_the_times_of_their_starts(truth):
    model, records = truth
    at, steps = np.array([7, 25]), 12
    starts = {"q": records["q"][at], "time": records["time"][at]}
    future = {"q": jnp.stack([records["q"][i + 1 : i + 1 + steps] for i in at])}
    table = partial(
        hg.evaluate, {"same": model}, future=future, steps=steps, every=1, metrics={"rmse": metrics.rmse("q")}
    )
    assert table(starts)["same"]["rmse"].max() < 1e-5
    assert table({"q": starts["q"]})["same"]["rmse"].max() > 1e-3
    assert hg.survivors(model, starts, 12, every=6).survivors == 2


def test_forecasts_begin_at_the_times_of_their_starts(truth):
    model, records = truth
    at = np.array([7, 25])
    made = hg.forecast(
        model, {"q": np.asarray(records["q"])[at], "time": np.asarray(records["time"])[at]}, 12, every=12
    )
    ends = np.asarray(records["q"])[at + 12]
    assert error(made["q"].isel(lead_time=-1, member=0).values, ends) < 1e-5


def test_a_time_is_a_step_of_the_model():
    model = MODELS["forcing"]
    fields = {"q": jnp.zeros((2, 16, 16))}
    assert int(model.encode(fields | {"time": 5 * HOUR}).step) == 5
    assert int(jax.jit(lambda t: model.encode(fields | {"time": t}).step)(7 * HOUR)) == 7
    emulator = hg.Emulator(nn.CNN((2, 2), (3,), key=jr.key(0)), ("q",), dt=HOUR, grid=GRID)
    assert int(emulator.encode(fields | {"time": 5 * HOUR}).step) == 5
    for one in (model, emulator):
        with pytest.raises(ValueError, match="1800.0 s is no multiple of the model's time step, 3600.0 s"):
            one.encode(fields | {"time": 0.5 * HOUR})
        with pytest.raises(ValueError, match="time is one number of seconds"):
            one.encode(fields | {"time": jnp.zeros(3)})


def test_a_step_stays_whole_where_single_precision_has_no_such_second():
    """Step 100,001 of 900 s: the nearest float32 is 4 s off, as states of long runs would have it."""
    model = hg.Model(FLOW, hg.AB3(), halves(900.0), dt=900.0)
    with jax.enable_x64(False):
        start = model.encode({"q": jnp.zeros((2, 16, 16)), "time": 900.0 * 100_001})
        again = restarted(model, start, model.decode(start))
        assert int(model.encode({"q": jnp.zeros((2, 16, 16)), "time": jnp.float32(90_000_900)}).step) == 100_001
    assert int(again.step) == 100_001 and int(again.memory["calls"]) == 100_001 % 160


def test_noise_on_starts_leaves_their_time_alone():
    model = MODELS["forcing"]
    seen = {}
    look = lambda model, batch, key: seen.update(batch) or jnp.zeros(())
    batch = {"q": jnp.ones((2, 3, 2, 16, 16)) + WAVE, "time": jnp.asarray([[0.0, HOUR, 2 * HOUR]] * 2)}
    train.perturbed(look, 0.1)(model, batch, jr.key(0))
    assert np.array_equal(seen["time"], batch["time"]) and not np.array_equal(seen["q"], batch["q"])


def test_a_residual_knows_the_time_of_its_states():
    """A quarter of a period after the start the forcing is all of the tendency of a flow that is nearly at rest."""
    model, bare = MODELS["forcing"], hg.Model(FLOW, hg.RK4(), dt=HOUR)
    batch = {"q": 1e-12 * WAVE[None], "time": jnp.asarray([PERIOD / 4])}
    objective = train.residual(model)
    assert objective(model, batch, jr.key(0)) < 0.01 and 0.9 < objective(bare, batch, jr.key(0)) < 1.1
    rest = {"q": jnp.zeros((1, 2, 16, 16))}
    assert float(train.residual(bare)(bare, rest, jr.key(0))) == 0, "at rest nothing is left over"
    with pytest.raises(ValueError, match="a filter per step"):
        train.residual(hg.Model(FLOW, hg.Filtered(hg.AB3(), hg.exponential_filter(GRID)), dt=HOUR))
