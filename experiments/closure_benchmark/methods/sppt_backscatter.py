"""Stochastically perturbed backscatter (SPPT)."""

from experiments.closure_benchmark.methods import backscatter
from hybridgcm import closures

SEEDS = False


def closure(problem, seed, folder):
    """Biharmonic backscatter, perturbed."""
    return perturbed(problem, backscatter.closure(problem, seed, folder))


def perturbed(problem, closure):
    """σ = .5 and τ = 6 h of weather forecasts, Palmer et al. (2009), ECMWF Technical Memorandum 598.

    Their 500 km would be half of this domain; ours are 200 km, some 13 deformation radii.
    """
    return closures.SPPT(closure, 0.5, scale=2e5, tau=21600.0, dt=problem.system.dt)
