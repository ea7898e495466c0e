"""FNO offline, all resolved modes."""

import jax.random as jr

from experiments.closure_benchmark.training import network, offline
from hybridgcm import nn


def closure(problem, seed, folder):
    """Two blocks of eight channels, Li et al. (2021), arXiv:2010.08895; sizes are ours.

    Every mode that pyqg's filter leaves alone has weights: the subgrid forcing lives in the highest of them.
    """
    reach = int(0.65 * problem.system.n / 2)
    net = nn.FNO(6, 2, modes=(2 * reach + 1, 2 * reach + 1), hidden=8, layers=2, key=jr.key(seed))
    return offline(problem, network(problem, net), seed, folder, rate=3e-3)
