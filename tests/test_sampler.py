"""Networks that draw: their distributions, noise in time, and what they refuse."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from helpers import double, eddies, error, run, same_bits, slope

import hybridgcm as hg
from hybridgcm.closures import Every, NetworkClosure, Sampler
from hybridgcm.nn import CNN, FNO, FlowMatching, Gaussian, sample

GRID = double(16)
RMS = (5e-6, 5e-7)  # of q per layer, s-1
FLOW = hg.QuasiGeostrophic.two_layer(GRID)
FIELDS = FLOW.view({"q": GRID.to_spectral(jnp.asarray(eddies(GRID, 2, RMS)))})


def noise_alone(decorrelation=1.0, scale=(3e-12, 2e-13)):
    """A closure whose forcing is its noise times the scale."""
    inner = NetworkClosure(lambda c: c[2:], ("q",), ("q",), RMS, scale)
    return Sampler(inner, 2, decorrelation=decorrelation)


@eqx.filter_jit
def series(closure, key, steps):
    """Forcing of q at each of `steps` calls on fields that stay, and the last memory."""

    def call(memory, step):
        forcing, memory = closure(FIELDS, GRID, memory, jr.fold_in(key, step))
        return memory, forcing["q"]

    return jax.lax.scan(call, closure.init(FIELDS, GRID), jnp.arange(steps))[::-1]


# Noise in time


@pytest.mark.parametrize("n", [1.0, 3.0, 8.0])
def test_latent_noise_has_variance_one_and_the_autocorrelation_of_its_formula(n):
    closure, steps = noise_alone(n), 12
    draw = jax.vmap(lambda key: series(closure, key, steps)[0] / jnp.array([3e-12, 2e-13])[:, None, None])
    z = np.asarray(draw(jr.split(jr.key(1), 40)))  # [member, step, layer, y, x]: 20,000 series, 1 % each
    variance = (z**2).mean((0, 2, 3, 4)) / (1 - 1 / GRID.shape[0] ** 2)  # the mean over points is removed
    assert np.abs(variance - 1).max() < 0.05, variance
    correlation = (z[:, :1] * z).mean((0, 2, 3, 4)) / (z**2).mean()
    expected = (1 - 1 / n) ** np.arange(steps)
    assert np.abs(correlation - expected).max() < 0.05, correlation - expected


def test_noise_is_white_in_space_and_between_channels():
    z = np.asarray(series(noise_alone(scale=1.0), jr.key(2), 200)[0])
    spectrum = np.abs(np.fft.rfft2(z)).reshape(200, 2, -1)[..., 1:] ** 2
    power = spectrum.mean((0, 1)) / spectrum.mean()
    assert power.std() < 0.08 and abs((z[:, 0] * z[:, 1]).mean()) < 0.02, (power.std(), (z[:, 0] * z[:, 1]).mean())


def test_draws_held_over_steps_are_those_of_every():
    q = np.asarray(series(Every(noise_alone(), 3), jr.key(0), 6)[0])
    assert np.all(q[0] == q[2]) and np.all(q[3] == q[5]) and not np.any(q[2] == q[3])


@pytest.mark.parametrize("n", [1.0, 5.0])
def test_members_differ_and_a_restart_goes_on_with_the_same_noise(n):
    model = hg.Model(FLOW, hg.AB3(), noise_alone(n), dt=3600.0)
    begin = lambda seed: model.encode({"q": eddies(GRID, 2, RMS)}, jr.key(seed))
    once, twice = run(model, begin(0), 20), run(model, run(model, begin(0), 10), 10)
    assert same_bits(once, twice)
    assert error(model.view(once)["q"], model.view(run(model, begin(1), 20))["q"]) > 1e-6


# Distributions


def test_gaussian_sampler_has_its_mean_and_softplus_deviation():
    mean, deviation = (lambda x: 2 * x), (lambda x: x - 1)
    closure = Sampler(NetworkClosure(Gaussian(mean, deviation), ("q",), ("q",), RMS, (3e-12, 2e-13)), 2)
    draws = np.asarray(series(closure, jr.key(3), 4000)[0]) / np.reshape((3e-12, 2e-13), (2, 1, 1))
    x = np.asarray(FIELDS["q"]) / np.reshape(RMS, (2, 1, 1))
    sigma = np.log1p(np.exp(x - 1))
    points = GRID.shape[0] ** 2  # without the area mean of its noise, a point has
    sigma = np.sqrt((1 - 2 / points) * sigma**2 + (sigma**2).mean((1, 2), keepdims=True) / points)
    assert (np.abs(draws.mean(0) - 2 * x) / sigma).max() < 5 / np.sqrt(4000)
    assert np.abs(draws.std(0) / sigma - 1).max() < 5 / np.sqrt(2 * 4000)


def exact_velocity(mean, sigma):
    """v(s, t) that carries N(0, 1) to N(mean, σ²) along s = (1 − t) z + t y: E(y − z | s)."""

    def velocity(c):
        s, t = c[1:2], c[2:3]
        return mean + (t * sigma**2 - (1 - t)) / ((1 - t) ** 2 + (t * sigma) ** 2) * (s - t * mean)

    return velocity


def test_flow_matching_with_the_exact_velocity_reproduces_a_gaussian_at_second_order():
    mean, sigma = 1.5, 0.3
    x, z = jnp.zeros((1, 64, 64)), jr.normal(jr.key(4), (1, 64, 64))
    steps = (8, 16, 32)
    draws = [FlowMatching(exact_velocity(mean, sigma), n)(x, z) for n in steps]
    errors = [error(y - mean, sigma * z) for y in draws]
    assert abs(slope(1 / np.array(steps), errors) - 2) < 0.3, errors
    y = np.asarray(draws[-1])
    assert abs(y.mean() - mean) < 5 * sigma / 64 and abs(y.std() / sigma - 1) < 5 / np.sqrt(2) / 64, (y.mean(), y.std())


def test_generators_and_operators_read_noise_as_further_channels():
    x, z = jr.normal(jr.key(0), (4, 16, 16)), jr.normal(jr.key(1), (3, 16, 16))
    for net in (CNN((7, 2), (3,), key=jr.key(2)), FNO(7, 2, modes=(5, 5), hidden=4, layers=1, key=jr.key(2))):
        assert sample(net, x, z, GRID).shape == (2, 16, 16)


# Wrong use


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: noise_alone(0.5), "decorrelation of at least one step"),
        (lambda: Sampler(noise_alone().inner, 0), "at least one noise channel"),
        (lambda: FlowMatching(lambda c: c[:1], 0), "at least 1"),
        (lambda: Gaussian(lambda x: x, lambda x: x)(jnp.ones((2, 4, 4)), jnp.ones((3, 4, 4))), "need one shape"),
        (lambda: FlowMatching(lambda c: c, 1)(jnp.ones((1, 4, 4)), jnp.ones((1, 4, 4))), "as many channels"),
        (lambda: Sampler(NetworkClosure(lambda c: c, ("psii",), ("q",)), 1).init(FIELDS, GRID), "did you mean 'psi'"),
    ],
)
def test_samplers_that_do_not_fit_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
