"""Biharmonic backscatter."""

import hybridgcm as hg

SEEDS = False


def closure(problem, seed, folder):
    """C = √.007, 1.2 as tuned by Ross et al. (2023), doi:10.1029/2022MS003258, for *eddy* at 64²."""
    return hg.BiharmonicBackscatter((problem.system.flow.delta, 1.0), 0.007**0.5, 1.2)
