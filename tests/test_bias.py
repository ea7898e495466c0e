"""Bias correction: increments, their climatology by calendar phase, and a twin whose missing forcing is found."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest
from helpers import double, eddies, error, run

import hybridgcm as hg
from hybridgcm.batches import increments, samples
from hybridgcm.closures import BiasCorrection
from hybridgcm.metrics import mse

GRID = double(16)
RMS = (5e-6, 5e-7)  # of q per layer, s-1
FLOW = hg.QuasiGeostrophic.two_layer(GRID, tau=86400.0)
BIAS = 2e-6 / 86400 * eddies(GRID, 2, (1.0, 0.1), 9, peak=2.0)


def model_with(closure):
    return hg.Model(FLOW, hg.AB3(), closure, dt=3600.0)


TRUTH = model_with(BiasCorrection({"q": BIAS}))  # the world has a forcing that the model lacks


def pairs(count=12, steps=2):
    """Analyses (the truth) and forecasts from the truth `steps` before, with the window's length in s."""
    state = run(TRUTH, TRUTH.encode({"q": eddies(GRID, 2, RMS)}), 100)
    _, out = eqx.filter_jit(hg.rollout)(TRUTH, state, count * steps, every=steps)
    analyses = np.asarray(out["save"]["q"])
    poor = model_with(None)
    forecast = jax.jit(lambda q: hg.rollout(poor, poor.encode({"q": q}), steps, every=steps)[1]["save"]["q"][0])
    background = np.stack([np.asarray(forecast(jnp.asarray(q))) for q in analyses[:-1]])
    return {"q": background}, {"q": analyses[1:]}, steps * 3600.0


def test_mean_increment_of_a_perfect_analysis_is_the_missing_tendency():
    data = increments(*pairs())
    assert data["q"].shape == data["S"].shape == (11, 2, *GRID.shape)
    found = BiasCorrection.from_increments({"q": data["S"]}).increments["q"]
    for layer in range(2):  # to first order in the window of two steps
        assert error(found[layer], BIAS[layer]) < 0.03, error(found[layer], BIAS[layer])


def test_correction_fitted_offline_removes_the_drift_of_a_free_run():
    data = increments(*pairs())
    unit = np.reshape((1e-11, 1e-12), (2, 1, 1))
    loss = lambda prediction, target: mse("S")({"S": prediction["S"] / unit}, {"S": target["S"] / unit})
    start = model_with(BiasCorrection({"q": 0 * BIAS}))
    trained, log = hg.fit(
        start,
        samples(data, batch=11, steps=60, key=jr.key(0)),
        hg.offline(loss),
        optax.adam(2e-12),
        where=lambda model: model.closure,
        key=jr.key(1),
    )
    assert log[-1]["loss"] < 0.01 * log[0]["loss"], (log[0]["loss"], log[-1]["loss"])
    q = eddies(GRID, 2, RMS, 3)
    truth, drift = TRUTH.view(run(TRUTH, TRUTH.encode({"q": q}), 72))["q"], {}
    for name, model in {"uncorrected": model_with(None), "corrected": trained}.items():
        end = model.view(run(model, model.encode({"q": q}), 72))["q"]
        drift[name] = float(jnp.sqrt(jnp.mean((end - truth) ** 2)))
    assert drift["corrected"] < 0.1 * drift["uncorrected"], drift


def test_each_phase_of_the_calendar_has_its_own_increment():
    phases = np.stack([number * BIAS for number in (1.0, 2.0, 3.0)])
    closure = BiasCorrection({"q": phases}, period=7 * 3600.0, start=5 * 3600.0, dt=3600.0)
    fields = {"q": jnp.zeros((2, *GRID.shape))}
    memory, seen = closure.init(fields, GRID), []
    for _ in range(15):
        forcing, memory = closure(fields, GRID, memory, jr.key(0))
        seen.append(round(float(forcing["q"][0, 3, 4] / BIAS[0, 3, 4])))
    year = [1, 1, 1, 2, 2, 3, 3]  # thirds of seven steps begin at 0, 2.33 and 4.67
    assert seen == [year[(5 + step) % 7] for step in range(15)]


def test_climatology_is_the_mean_of_each_phase():
    rng = np.random.default_rng(0)
    phase = np.arange(20) % 4
    data = rng.standard_normal((20, 2, 4, 4)) + phase[:, None, None, None]
    closure = BiasCorrection.from_increments({"q": data}, phase=phase, period=4.0, dt=1.0)
    assert error(closure.increments["q"], np.stack([data[p::4].mean(0) for p in range(4)])) < 1e-14
    with pytest.raises(ValueError, match=r"phases 0 to 3 need samples each; got \[5, 0, 5, 5\]"):
        BiasCorrection.from_increments({"q": data[phase != 1]}, phase=phase[phase != 1], period=4.0, dt=1.0)


def test_increments_keep_the_precision_that_single_precision_has():
    background = (1e-6 * np.random.default_rng(1).standard_normal((3, 1, 4, 4))).astype(np.float32)
    analysis = (background * np.float32(1 + 2**-20)).astype(np.float32)
    data = increments({"q": background}, {"q": analysis}, 1e5)
    expected = (analysis.astype(float) - background.astype(float)) / 1e5
    assert data["S"].dtype == np.float32 and error(data["S"], expected) < 1e-6


Q = np.zeros((3, 2, 4, 4))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (({"q": Q}, {"psi": Q}, 1.0), "of one prognostic"),
        (({"q": Q}, {"q": Q[:2]}, 1.0), "pair them by time"),
        (({"q": Q}, {"q": Q}, 0.0), "length of the assimilation window"),
        (({"q": Q}, {"q": Q + np.nan}, 1.0), "analysis of q has 96 values that are not finite"),
    ],
)
def test_increments_that_do_not_pair_raise(arguments, message):
    with pytest.raises(ValueError, match=message):
        increments(*arguments)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: BiasCorrection({"q": Q[0]}, period=4.0, dt=1.0), "with one, as many for all names"),
        (lambda: BiasCorrection({"q": Q}), "without a period"),
        (lambda: BiasCorrection({"q": Q}, period=4.0), "needs dt, the time step of its model"),
        (lambda: BiasCorrection({"q": Q}, period=4.5, dt=1.0), "not a whole number of steps"),
        (lambda: model_with(BiasCorrection({"q": Q[0]})).encode({"q": 0 * BIAS}), r"expected \(2, 16, 16\)"),
        (lambda: model_with(BiasCorrection({"qq": BIAS})).encode({"q": 0 * BIAS}), "did you mean 'q'"),
    ],
)
def test_correction_that_does_not_fit_raises(make, message):
    with pytest.raises(ValueError, match=message):
        make()
