"""Symbolic closure of Ross et al. (2023)."""

from hybridgcm import closures

SEEDS = False


def closure(problem, seed, folder):
    """Genetic programming and regression, doi:10.1029/2022MS003258, at the published weights.

    They hold for operator 1 at 64² of *eddy* and do not scale with the grid: other systems show what that costs.
    """
    return closures.RossSymbolic(problem.model().equation.U)
