"""CNN of a flux offline, 5,000 weights."""

import jax
import jax.random as jr

from experiments.closure_benchmark.training import flux_network, inner, offline
from hybridgcm import nn


def closure(problem, seed, folder):
    """The network of `offline_cnn` with four outputs, the flux of q per layer; it is trained on the divergence."""
    net = nn.CNN((6, 16, 16, 4), (5, 3, 3), key=jr.key(seed), activation=jax.nn.silu)
    return offline(problem, flux_network(problem, net), seed, folder, where=inner)
