"""Backscatter, amplitude trained online."""

import hybridgcm as hg
from experiments.closure_benchmark.methods.backscatter import closure as backscatter
from experiments.closure_benchmark.training import online


def closure(problem, seed, folder):
    """One number, a multiple of the whole closure, by the losses and horizon of online_cnn: the honest baseline."""
    start = hg.Scaled(backscatter(problem, seed, folder), 1.0)
    return online(problem, start, seed, folder, steps=(100,), rate=(0.05,), where=lambda m: m.closure.amplitude)
