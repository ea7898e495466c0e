"""Variational autoencoder, decoder of 6,000 weights."""

import jax.random as jr

from experiments.closure_benchmark.probabilistic import Accompanied, evidence, learn, trunk
from experiments.closure_benchmark.training import network
from hybridgcm.closures import Sampler

WIDTHS = (16, 16)
NOISE = 2


def closure(problem, seed, folder):
    """The forcing itself, not a residual, and the decoder without its white noise: Perezhogin et al.'s best."""
    decoder = Sampler(network(problem, trunk(6 + NOISE, 2, WIDTHS, jr.key(seed))), NOISE)
    encoder = trunk(6 + 2, 2 * NOISE, WIDTHS, jr.key(1000 + seed))
    where = lambda m: (m.closure.closure.inner.net, m.closure.companion)
    both = Accompanied(decoder, encoder)
    return learn(problem, both, evidence, seed, folder / "elbo", where=where, steps=5000, rate=5e-3).closure
