"""CNN online, one step."""

from experiments.closure_benchmark.training import offline_then_online


def closure(problem, seed, folder):
    """As online_cnn over one interval of the training frames, 4 h: a single step of 14400 s, four of 3600 s.

    Twelve times the optimiser steps, so as many steps of the model. Beside offline training it knows the time step
    and the filter, but nothing of what errors grow into.
    """
    return offline_then_online(problem, seed, folder, frames=(1,), apart=1, steps=(3600,))
