"""QG Leith, C = 1/π."""

import numpy as np

from hybridgcm import closures

SEEDS = False


def closure(problem, seed, folder):
    """Bachman et al. (2017), doi:10.1002/2016JC012265, with their coefficient, meant for a model without a filter."""
    stretching = -np.diag(problem.model().equation.stretching)
    if not np.all(stretching > 0):
        raise ValueError("QG Leith limits the stretching of potential vorticity; this flow has none: use leith")
    return closures.QGLeith(1 / np.sqrt(stretching))
