"""CNN online, 5,000 weights."""

import jax
import jax.random as jr

from experiments.closure_benchmark.training import network, offline, online
from hybridgcm import nn


def closure(problem, seed, folder):
    """The offline network, trained on through the solver over two days."""
    inputs, outputs = problem.channels
    net = nn.CNN((inputs, 16, 16, outputs), (5, 3, 3), key=jr.key(seed), activation=jax.nn.silu)
    start = offline(problem, network(problem, net), seed, folder / "offline")
    return online(problem, start, seed, folder / "online")
