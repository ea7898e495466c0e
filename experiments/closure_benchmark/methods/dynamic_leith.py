"""Dynamic Leith."""

from hybridgcm import closures

SEEDS = False


def closure(problem, seed, folder):
    """No constant: Germano et al. (1991), doi:10.1063/1.857955, and Lilly (1992), doi:10.1063/1.858280."""
    return closures.DynamicLeith()
