"""Equivariant CNN offline, 5,000 weights, eight evaluations."""

import jax
import jax.random as jr

from experiments.closure_benchmark.training import inner, network, offline
from hybridgcm import closures, nn


def closure(problem, seed, folder):
    """The network of `offline_cnn`, averaged over quarter turns and mirror images in training and in the model."""
    net = nn.CNN((6, 16, 16, 2), (5, 3, 3), key=jr.key(seed), activation=jax.nn.silu)
    return offline(problem, closures.Equivariant(network(problem, net)), seed, folder, where=inner)
