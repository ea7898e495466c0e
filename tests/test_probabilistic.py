"""Calibration and its scores; what stochastic closures learn of distributions that are known."""

import sys
from pathlib import Path
from types import SimpleNamespace

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest
from helpers import double, eddies

sys.path.insert(0, str(Path(__file__).parents[1]))

import hybridgcm as hg  # noqa: E402
from experiments.closure_benchmark import probabilistic, scores, systems  # noqa: E402
from experiments.closure_benchmark.calibration import DRAWS, calibration, forcings  # noqa: E402
from hybridgcm import closures, train  # noqa: E402
from hybridgcm.closures import NetworkClosure, Sampler  # noqa: E402
from hybridgcm.nn import CNN, FlowMatching, Gaussian  # noqa: E402

GRID = double(24, dealias=None)
RMS = (5e-6, 5e-7)  # of q per layer, s-1
SCALE = np.reshape((7e-12, 2e-13), (2, 1, 1))  # of S, s-2


# Scores


def red(rng, *shape):
    """Gaussian fields `[*shape, 24, 24]` with their power near wave number 4 and variance one each."""
    kappa = np.hypot(np.fft.fftfreq(24, 1 / 24)[:, None], np.arange(13))
    hat = np.fft.rfft2(rng.standard_normal((*shape, 24, 24))) * np.exp(-((kappa / 2 - 2) ** 2)) * (kappa > 0)
    a = np.fft.irfft2(hat)
    return a / a.std((-2, -1), keepdims=True)


@pytest.fixture(scope="module")
def truth():
    """A mean that fields tell, `[frame, layer, y, x]`, and a function that draws about it: red in space, unit sigma."""
    rng = np.random.default_rng(0)
    mean = red(rng, 12, 2)

    def draw(count, sigma=1.0, white=False):
        noise = rng.standard_normal((count, *mean.shape)) if white else red(rng, count, 12, 2)
        return (mean + sigma * noise) * SCALE

    return mean, draw


def test_a_calibrated_sampler_has_the_spread_of_its_error_and_the_spectrum_of_the_truth(truth):
    mean, draw = truth
    found = calibration(draw(16).astype(np.float32), draw(1)[0].astype(np.float32), GRID)
    # 12 frames of some 40 independent numbers each
    for name in ("var_ratio", "spread_skill"):
        assert np.abs(np.array(found[name]) - 1).max() < 0.1, (name, found[name])
    assert np.abs(np.array(found["L2_mean"]) - np.sqrt(1 / 2)).max() < 0.05, found["L2_mean"]
    assert max(found["L2_total"]) < 0.15 and max(found["L2_residual"]) < 0.15, found
    # of Gaussians, the score is proportional to the deviation: 1 about the mean, √2 without it
    assert np.abs(np.array(found["crps"]) - np.sqrt(1 / 2)).max() < 0.05, found["crps"]


@pytest.mark.parametrize("count", [2, 8])
def test_scores_do_not_depend_on_the_number_of_draws(truth, count):
    _, draw = truth
    S = draw(1)[0]
    few, many = calibration(draw(count), S, GRID), calibration(draw(40), S, GRID)
    for name in few:
        distance = np.abs(np.array(few[name]) - many[name]).max()
        # of two draws, the mean misses by half the variance: without correction L2_mean would be .16 off, var_ratio
        # and L2_residual more than .3
        tolerance = 0.2 if name in ("L2_total", "L2_residual", "var_ratio") else 0.12
        assert distance < tolerance, (name, few[name], many[name])


def test_wrong_spread_and_wrong_colour_are_seen(truth):
    _, draw = truth
    S = draw(1)[0]
    narrow, white = calibration(draw(16, 0.5), S, GRID), calibration(draw(16, white=True), S, GRID)
    assert np.abs(np.array(narrow["var_ratio"]) - 0.25).max() < 0.04, narrow
    assert np.abs(np.array(narrow["spread_skill"]) - 0.5).max() < 0.05, narrow
    assert np.abs(np.array(narrow["L2_residual"]) - 0.75).max() < 0.05, narrow
    assert np.abs(np.array(white["var_ratio"]) - 1).max() < 0.1 and min(white["L2_residual"]) > 0.5, white
    assert min(narrow["crps"]) > max(calibration(draw(16), S, GRID)["crps"])


def test_one_draw_and_other_shapes_are_refused(truth):
    _, draw = truth
    for draws, S in ((draw(1), draw(1)[0]), (draw(2), draw(1)[0, 1:])):
        with pytest.raises(ValueError, match="two draws or more"):
            calibration(draws, S, GRID)


def test_only_closures_that_draw_noise_are_drawn_often_and_calibrated(truth):
    system = systems.system("eddy24")
    _, draw = truth
    q = np.stack([eddies(GRID, 2, RMS, seed) for seed in range(12)])
    sets = SimpleNamespace(validation=[{"q": q[:6], "S": draw(1)[0, :6]}, {"q": q[6:], "S": draw(1)[0, 6:]}])
    noise = closures.AR1(SCALE.ravel(), scale=1e5, tau=1e5, dt=system.dt)
    for closure, count in ((hg.Leith(0.2), 1), (hg.Sum(hg.Leith(0.2), noise), DRAWS), (noise, DRAWS)):
        made, S = forcings(system, sets, closure, every=3)
        assert made.shape == (count, 4, 2, 24, 24) and np.array_equal(S[1], sets.validation[0]["S"][3])
    assert "calibration" not in scores.offline_scores(system, sets, hg.Leith(0.2))
    assert "calibration" in scores.offline_scores(system, sets, noise)
    assert np.abs(made.std((0, 1, 3, 4)) / SCALE.ravel() - 1).max() < 0.1


# Learning


def sampler(net, noise=2):
    inner = NetworkClosure(net, ("q",), ("q",), RMS, SCALE.ravel())
    return Sampler(inner, noise)


def trained(closure, objective, where, S, steps, rate=2e-2, optimiser=None):
    """`closure` after `steps` steps on samples of S(q, rng), eight frames a batch."""
    flow = hg.QuasiGeostrophic.two_layer(GRID)
    model = hg.Model(flow, hg.AB3(), closure, dt=3600.0)
    rng, some = np.random.default_rng(1), np.stack([eddies(GRID, 2, RMS, seed) for seed in range(40)])
    chosen = [some[rng.integers(0, 40, 8)] for _ in range(steps)]
    batches = [{"q": q, "S": S(q, rng)} for q in chosen]
    optimiser = optimiser or optax.adam(optax.cosine_decay_schedule(rate, steps, 0.02))
    return train.fit(model, batches, objective, optimiser, where=where, key=jr.key(0))[0].closure


def fields():
    q = jnp.asarray(eddies(GRID, 2, RMS, 10**6))
    return hg.QuasiGeostrophic.two_layer(GRID).view({"q": GRID.to_spectral(q)})


def drawn(closure, count):
    """Draws on fields that no training has seen, `[draw, layer, y, x]` in units of the scale."""
    at = fields()
    one = lambda key: closure(at, GRID, closure.init(at, GRID), key)[0]["q"] / SCALE
    return np.asarray(eqx.filter_jit(lambda keys: jax.lax.map(one, keys))(jr.split(jr.key(9), count)))


def test_mean_and_variance_recover_a_deviation_that_depends_on_the_state():
    silu = dict(activation=jax.nn.silu)
    net = Gaussian(CNN((2, 4, 2), (1, 1), key=jr.key(0), **silu), CNN((2, 8, 2), (1, 1), key=jr.key(1), **silu))
    sigma = lambda x: 0.3 + 0.5 / (1 + np.exp(-2 * x))
    S = lambda q, rng: sigma(q / np.reshape(RMS, (2, 1, 1))) * rng.standard_normal(q.shape) * SCALE
    found = trained(sampler(net), probabilistic.likelihood, lambda m: m.closure.inner.net, S, 300)
    x = np.asarray(fields()["q"]) / np.reshape(RMS, (2, 1, 1))
    mean, made = map(np.asarray, found.inner.net.moments(jnp.asarray(x)))
    assert np.abs(mean - mean.mean((1, 2), keepdims=True)).std() < 0.05
    distance = np.sqrt(np.mean((made / sigma(x) - 1) ** 2))
    assert distance < 0.12 and np.corrcoef(made.ravel(), sigma(x).ravel())[0, 1] > 0.98, distance


@pytest.mark.slow
def test_flow_matching_learns_a_mean_and_a_deviation_from_samples():
    net = CNN((2 + 2 + 1, 16, 16, 2), (1, 1, 1), key=jr.key(0), activation=jax.nn.silu)
    mean = NetworkClosure(CNN((2, 2), (1,), key=jr.key(1)), ("q",), ("q",), RMS, SCALE.ravel())  # zero
    closure = hg.Sum(mean, sampler(FlowMatching(net, 8)))
    S = lambda q, rng: (q / np.reshape(RMS, (2, 1, 1)) + 0.5 * rng.standard_normal(q.shape)) * SCALE
    found = trained(closure, probabilistic.matching, lambda m: m.closure.parts[1].inner.net.net, S, 400)
    draws, x = drawn(found, 200), np.asarray(fields()["q"]) / np.reshape(RMS, (2, 1, 1))
    assert np.sqrt(np.mean((draws.mean(0) - x) ** 2)) < 0.12, np.sqrt(np.mean((draws.mean(0) - x) ** 2))
    assert abs(draws.std(0).mean() / 0.5 - 1) < 0.1, draws.std(0).mean()


def test_encoder_and_decoder_draw_what_is_common_to_layers_and_leave_out_what_is_independent():
    # independent noise of one size costs the bound the same in z and in the decoder's variance: it need not be learnt
    decoder = CNN((2 + 2, 8, 2), (1, 1), key=jr.key(0), activation=jax.nn.silu)
    encoder = CNN((2 + 2, 8, 4), (1, 1), key=jr.key(1), activation=jax.nn.silu)
    closure = probabilistic.Accompanied(sampler(decoder), encoder)
    noise = lambda q, rng: 0.5 * rng.standard_normal((8, 1, 24, 24)) + 0.1 * rng.standard_normal(q.shape)
    S = lambda q, rng: (q / np.reshape(RMS, (2, 1, 1)) + noise(q, rng)) * SCALE
    where = lambda m: (m.closure.closure.inner.net, m.closure.companion)
    found = trained(closure, probabilistic.evidence, where, S, 400).closure
    draws, x = drawn(found, 200), np.asarray(fields()["q"]) / np.reshape(RMS, (2, 1, 1))
    assert np.sqrt(np.mean((draws.mean(0) - x) ** 2)) < 0.15
    upper, lower = (draws - draws.mean(0)).swapaxes(0, 1).reshape(2, -1)
    assert abs(draws.std(0).mean() / 0.5 - 1) < 0.15, draws.std(0).mean()
    assert np.corrcoef(upper, lower)[0, 1] > 0.95, np.corrcoef(upper, lower)[0, 1]


@pytest.mark.slow
def test_critic_teaches_a_generator_its_spread_and_only_every_fifth_step_moves_it():
    net = CNN((2 + 2, 2), (1,), key=jr.key(0))
    both = probabilistic.Accompanied(sampler(net), probabilistic.Critic(6, (8, 8, 8), key=jr.key(1)))
    S = lambda q, rng: 0.7 * rng.standard_normal(q.shape) * SCALE
    where = lambda m: (m.closure.closure.inner.net, m.closure.companion)
    objective = probabilistic.adversarial(jnp.asarray(SCALE.ravel()))
    optimiser = probabilistic.alternating(2e-2, 1e-2)
    early, found = (trained(both, objective, where, S, steps, optimiser=optimiser) for steps in (4, 400))
    still = lambda closure: np.asarray(closure.closure.inner.net.weights[0])
    assert np.all(still(early) == still(both))
    assert np.any(np.asarray(early.companion.weights[0]) != np.asarray(both.companion.weights[0]))
    spread = drawn(found.closure, 50).std(0).mean()
    assert abs(spread / 0.7 - 1) < 0.25, spread
