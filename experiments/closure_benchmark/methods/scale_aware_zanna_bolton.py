"""Scale-aware Zanna–Bolton, γ = .5, smoothed."""

from hybridgcm import closures

SEEDS = False


def closure(problem, seed, folder):
    """Perezhogin et al. (2024), doi:10.1029/2023MS004104, with the default coefficient of MOM6."""
    return closures.ScaleAwareZannaBolton(0.5)
