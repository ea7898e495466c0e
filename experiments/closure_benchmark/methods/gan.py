"""Generative adversarial network, 11,000 weights."""

import jax.random as jr

import hybridgcm as hg
from experiments.closure_benchmark.probabilistic import (
    Accompanied,
    Critic,
    adversarial,
    alternating,
    learn,
    mean_closure,
    of_residual,
    trunk,
)
from hybridgcm.closures import Sampler

WIDTHS = (16, 16)
CRITIC = (16, 16, 32)
NOISE = 2


def closure(problem, seed, folder):
    """Least squares for the mean, a generator for the residual about it; the critic judges the sum."""
    mean = mean_closure(problem, WIDTHS, seed, folder / "mean")
    generator = Sampler(of_residual(problem, mean, trunk(6 + NOISE, 2, WIDTHS, jr.key(1000 + seed))), NOISE)
    both = Accompanied(hg.Sum(mean, generator), Critic(6, CRITIC, key=jr.key(2000 + seed)))
    where = lambda m: (m.closure.closure.parts[1].inner.net, m.closure.companion)
    objective, optimiser = adversarial(mean.output_scale), alternating(1e-3, 1e-3)
    return learn(
        problem, both, objective, seed, folder / "wgan", where=where, steps=5000, rate=0.0, optimiser=optimiser
    ).closure
