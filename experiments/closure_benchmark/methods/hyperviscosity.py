"""Hyperviscosity ∇⁸, one day at the grid scale."""

from hybridgcm import closures

SEEDS = False


def closure(problem, seed, folder):
    """The smallest resolved waves decay in a day. The order is the usual one, the time is ours: none is published."""
    return closures.Hyperviscosity(86400.0, 4)
