"""Smagorinsky, C = .15."""

import hybridgcm as hg

SEEDS = False


def closure(problem, seed, folder):
    """At the constant that Ross et al. (2023), doi:10.1029/2022MS003258, give for *eddy* at 64²."""
    return hg.Smagorinsky(0.15)
