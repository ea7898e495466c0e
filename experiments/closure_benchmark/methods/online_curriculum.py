"""CNN online, horizons from 16 h to 6 days."""

from experiments.closure_benchmark.training import offline_then_online


def closure(problem, seed, folder):
    """The offline network, trained on over 16 h, 2 and 6 days, at learning rates that fall with the horizon.

    Errors grow and gradients with them: long horizons are only useful from a closure that is good at short ones.
    """
    return offline_then_online(problem, seed, folder, frames=(2, 6, 18), steps=(200, 150, 60), rate=(1e-3, 5e-4, 2e-4))
