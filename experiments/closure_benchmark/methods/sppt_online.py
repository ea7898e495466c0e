"""CNN of online_pinned, stochastically perturbed (SPPT), 5,000 weights."""

from experiments.closure_benchmark.methods import online_pinned
from hybridgcm import closures


def closure(problem, seed, folder):
    """Nothing more is trained: the noise of `sppt_backscatter` on the forcing of the network."""
    trained = online_pinned.closure(problem, seed, problem.beside("online_pinned", seed, folder))
    return closures.SPPT(trained, 0.5, scale=2e5, tau=21600.0, dt=problem.system.dt)
