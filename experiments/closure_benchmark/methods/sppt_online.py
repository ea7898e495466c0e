"""CNN of online_pinned, stochastically perturbed (SPPT), 5,000 weights."""

from experiments.closure_benchmark.methods import online_pinned
from experiments.closure_benchmark.methods.sppt_backscatter import perturbed


def closure(problem, seed, folder):
    """Nothing more is trained: the noise of `sppt_backscatter` on the forcing of the network."""
    return perturbed(problem, online_pinned.closure(problem, seed, problem.beside("online_pinned", seed, folder)))
