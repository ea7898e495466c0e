"""Equation discovery, a few terms per layer."""

from experiments.closure_benchmark.discovery import discover

SEEDS = False


def closure(problem, seed, folder):
    """Regression on a library of operators, as long as the validation frames ask for; the formula: `formula.md`."""
    return discover(problem.model(), problem.data.train, problem.data.validation, folder)
