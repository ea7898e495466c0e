"""Gradient model, width 2Δ."""

from hybridgcm import closures

SEEDS = False


def closure(problem, seed, folder):
    """Alone, at the width of operator 2, for which it is derived: Clark et al. (1979), doi:10.1017/S002211207900001X.

    The other operators are no Gaussians and have no published width; they get the same one.
    """
    return closures.GradientModel(2.0)
