"""Biharmonic backscatter."""

import hybridgcm as hg

SEEDS = False


def closure(problem, seed, folder):
    """C and c_B as tuned in the literature for a flow at 64²; the flows between *eddy* and *jet* get those of *eddy*.

    *eddy*: √.007 and 1.2, Ross et al. (2023), doi:10.1029/2022MS003258; *jet*: √.005 and .8, Perezhogin et al. (2023),
    doi:10.1029/2023MS003681.
    """
    square, share = (0.005, 0.8) if problem.system.flow.name == "jet" else (0.007, 1.2)
    return hg.BiharmonicBackscatter(problem.model().equation.thickness, square**0.5, share)
