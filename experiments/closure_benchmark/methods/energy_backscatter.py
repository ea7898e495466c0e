"""Backscatter from a budget of subgrid energy."""

from hybridgcm import closures

SEEDS = False


def closure(problem, seed, folder):
    """Juricke et al. (2019), Ocean Modelling 138, 51-67: share .1 as in FESOM2, viscosity and diffusion are ours."""
    return closures.EnergyBackscatter(U=problem.model().equation.U, dt=problem.system.dt)
