"""Mixed model: gradient model, width 2Δ, and dynamic Leith."""

import hybridgcm as hg
from hybridgcm import closures

SEEDS = False


def closure(problem, seed, folder):
    """The structure of the gradient model and a viscosity that takes what it sends to the grid scale.

    As mixed models of three-dimensional turbulence have it, Vreman et al. (1994), Physics of Fluids 6, 4057. They find
    the coefficient of the viscosity from both parts together; here Leith's is found as if it were alone.
    """
    return hg.Sum(closures.GradientModel(2.0), closures.DynamicLeith())
