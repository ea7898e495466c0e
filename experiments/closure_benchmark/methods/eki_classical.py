"""Backscatter + Zanna–Bolton, three constants by EKI."""

from experiments.closure_benchmark.tuning import by_eki, classical


def closure(problem, seed, folder):
    """Ensemble Kalman inversion against spectra and energy flux of the tuning climate: forward runs alone."""
    return by_eki(problem, classical(problem), seed, folder)
