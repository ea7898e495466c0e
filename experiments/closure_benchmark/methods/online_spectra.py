"""CNN online, loss of energy spectra."""

from experiments.closure_benchmark.training import offline_then_online
from hybridgcm import metrics


def closure(problem, seed, folder):
    """As online_cnn without the energy of the error: nothing asks where the eddies are."""
    return offline_then_online(problem, seed, folder, loss=metrics.spectral)
