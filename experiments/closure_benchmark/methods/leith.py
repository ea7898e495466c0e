"""Leith, C = .3."""

import hybridgcm as hg

SEEDS = False


def closure(problem, seed, folder):
    """Near the 1/π of ocean models, Fox-Kemper and Menemenlis (2008), doi:10.1029/177GM19; on potential vorticity."""
    return hg.Leith(0.3)
