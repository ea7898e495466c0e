"""Dimensionless CNN offline, transfers in the loss, 3,300 weights."""

import jax
import jax.random as jr

from experiments.closure_benchmark.training import offline
from hybridgcm import closures, metrics, nn

TRANSFERS = 0.2
"""Weight of the transfers: of 0, .2 and 1 that with the best tuning climate, tried with one seed of a prototype."""


def closure(problem, seed, folder):
    """A network of one layer's differences without scales of its own, for other flows, grids and time steps, too.

    Least squares of the forcing and of what it does to the second moments of q, scale by scale.
    """
    net = nn.CNN((6, 16, 16, 1), (3, 3, 3), key=jr.key(seed), activation=jax.nn.silu)
    squares, transfers = metrics.mse("S"), metrics.transfers(problem.model().equation)
    loss = lambda made, target: squares(made, target) + TRANSFERS * transfers(made, target)
    return offline(problem, closures.DimensionlessNetwork(net), seed, folder, loss=loss)
