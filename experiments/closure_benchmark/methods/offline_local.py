"""Local network offline, 3 × 3 points, 24-24."""

import jax
import jax.random as jr

from experiments.closure_benchmark.training import network, offline
from hybridgcm import nn


def closure(problem, seed, folder):
    """Two hidden layers at every point that see its neighbours only, as the ANN of Perezhogin et al. (2023).

    doi:10.1029/2023MS003681. Inputs, activation and training are those of `offline_cnn`.
    """
    net = nn.CNN((6, 24, 24, 2), (3, 1, 1), key=jr.key(seed), activation=jax.nn.silu)
    return offline(problem, network(problem, net), seed, folder)
