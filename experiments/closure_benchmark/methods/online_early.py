"""CNN online, selected by free runs."""

from experiments.closure_benchmark.training import offline_then_online
from experiments.closure_benchmark.tuning import misfit


def closure(problem, seed, folder):
    """As online_cnn for twice as long; of ten checks the network whose free runs have the best climate.

    Two runs of two years against spectra and energy flux of the tuning climate; nothing of the scored truths.
    """
    return offline_then_online(problem, seed, folder, steps=(600,), score=misfit(problem))
