"""Mean and variance, 10,000 weights: Guillaumin–Zanna."""

import equinox as eqx
import jax.random as jr

from experiments.closure_benchmark.probabilistic import learn, likelihood, mean_closure, trunk
from hybridgcm.closures import Sampler
from hybridgcm.nn import Gaussian

WIDTHS = (16, 16)


def closure(problem, seed, folder):
    """Least squares for the mean, then the likelihood for the deviation about it; fresh white noise at every step."""
    inner = mean_closure(problem, WIDTHS, seed, folder / "mean")
    net = Gaussian(inner.net, trunk(6, 2, WIDTHS, jr.key(1000 + seed)))
    sampler = Sampler(eqx.tree_at(lambda inner: inner.net, inner, net), 2)
    where = lambda m: m.closure.inner.net.deviation
    return learn(problem, sampler, likelihood, seed, folder / "deviation", where=where, steps=2000, rate=5e-3)
