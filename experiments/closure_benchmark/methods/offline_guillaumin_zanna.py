"""Guillaumin–Zanna CNN offline, 267,000 weights (needs a GPU)."""

import jax.random as jr

from experiments.closure_benchmark.training import network, offline
from hybridgcm import nn


def closure(problem, seed, folder):
    """q of both layers to S: Guillaumin and Zanna (2021), doi:10.1029/2021MS002534, as in Ross et al. (2023).

    Without batch normalisation, and one network for both layers, as in Perezhogin et al. (2023),
    doi:10.1029/2023MS003681; their batch and first rate. On two cores a step at 64² takes 40 ms.
    """
    net = nn.guillaumin_zanna(2, 2, key=jr.key(seed))
    return offline(problem, network(problem, net, ("q",)), seed, folder, batch=64, rate=1e-3)
