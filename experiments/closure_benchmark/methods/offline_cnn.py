"""CNN offline, 5,000 weights."""

import jax
import jax.random as jr

from experiments.closure_benchmark.training import network, offline
from hybridgcm import nn


def closure(problem, seed, folder):
    """q, u, v of both layers to S by least squares; silu has the quadratic part that products of gradients have."""
    net = nn.CNN((6, 16, 16, 2), (5, 3, 3), key=jr.key(seed), activation=jax.nn.silu)
    return offline(problem, network(problem, net), seed, folder)
