"""CNN online, loss of the state."""

from experiments.closure_benchmark.training import offline_then_online
from hybridgcm import metrics


def closure(problem, seed, folder):
    """As online_cnn with the energy of the error alone, what most of the literature minimises."""
    return offline_then_online(problem, seed, folder, loss=metrics.energy)
