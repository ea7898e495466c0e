"""Backscatter + Zanna–Bolton, three constants by CMA-ES."""

from experiments.closure_benchmark.tuning import by_evolution, classical


def closure(problem, seed, folder):
    """The misfit that eki_classical sees, minimised by an evolution strategy. Needs the library cmaes."""
    return by_evolution(problem, classical(problem), seed, folder)
