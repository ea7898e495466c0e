"""CNN offline, 5,000 weights."""

from experiments.closure_benchmark.training import offline, small_cnn


def closure(problem, seed, folder):
    """q, u, v of both layers to S by least squares."""
    return offline(problem, small_cnn(problem, seed), seed, folder)
