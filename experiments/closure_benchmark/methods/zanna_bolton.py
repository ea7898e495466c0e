"""Zanna–Bolton, κ = −46,761,284 m²."""

import hybridgcm as hg

SEEDS = False


def closure(problem, seed, folder):
    """At the coefficient of pyqg, which fits operator 2 at 64². Zanna and Bolton (2020), doi:10.1029/2020GL088376."""
    return hg.ZannaBolton(-46_761_284.0)
