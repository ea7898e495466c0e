"""Flow matching, 11,000 weights, four steps."""

import jax.random as jr

import hybridgcm as hg
from experiments.closure_benchmark.probabilistic import learn, matching, mean_closure, of_residual, trunk
from hybridgcm.closures import Sampler
from hybridgcm.nn import FlowMatching

WIDTHS = (16, 16)
STEPS = 4


def closure(problem, seed, folder):
    """Least squares for the mean, then a velocity that carries white noise to the residual about it."""
    mean = mean_closure(problem, WIDTHS, seed, folder / "mean")
    velocity = trunk(6 + 2 + 1, 2, WIDTHS, jr.key(1000 + seed))
    sampler = Sampler(of_residual(problem, mean, FlowMatching(velocity, STEPS)), 2)
    where = lambda m: m.closure.parts[1].inner.net.net
    return learn(
        problem, hg.Sum(mean, sampler), matching, seed, folder / "velocity", where=where, steps=5000, rate=5e-3
    )
