"""CNN online, 5,000 weights."""

from experiments.closure_benchmark.training import offline_then_online


def closure(problem, seed, folder):
    """The offline network, trained on through the solver over two days."""
    return offline_then_online(problem, seed, folder)
