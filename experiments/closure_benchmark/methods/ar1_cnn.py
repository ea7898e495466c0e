"""CNN offline and red noise, 5,000 weights."""

import hybridgcm as hg
from experiments.closure_benchmark.probabilistic import mean_closure, red_noise

WIDTHS = (16, 16)


def closure(problem, seed, folder):
    """Least squares for the mean, AR(1) noise with the amplitude, scale and memory of what is left."""
    mean = mean_closure(problem, WIDTHS, seed, folder / "mean")
    return hg.Sum(mean, red_noise(problem, mean))
