"""CNN offline, 5,000 weights."""

import jax
import jax.random as jr

from experiments.closure_benchmark.training import network, offline
from hybridgcm import nn


def closure(problem, seed, folder):
    """q, u, v of all layers to S by least squares; silu has the quadratic part that products of gradients have."""
    inputs, outputs = problem.channels
    net = nn.CNN((inputs, 16, 16, outputs), (5, 3, 3), key=jr.key(seed), activation=jax.nn.silu)
    return offline(problem, network(problem, net), seed, folder)
