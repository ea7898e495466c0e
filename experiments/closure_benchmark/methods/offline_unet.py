"""U-Net offline, 30,000 weights."""

import jax.random as jr

from experiments.closure_benchmark.training import network, offline
from hybridgcm import nn


def closure(problem, seed, folder):
    """Three levels, 8 to 32 channels: Ronneberger et al. (2015), doi:10.1007/978-3-319-24574-4_28; sizes are ours."""
    net = nn.UNet(6, 2, widths=(8, 16, 32), key=jr.key(seed))
    return offline(problem, network(problem, net), seed, folder)
