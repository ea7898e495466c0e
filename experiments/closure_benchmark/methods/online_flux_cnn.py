"""CNN of a flux online, 5,000 weights."""

from experiments.closure_benchmark.methods import offline_flux_cnn
from experiments.closure_benchmark.training import inner, online


def closure(problem, seed, folder):
    """The offline network, trained on through the solver over two days."""
    start = offline_flux_cnn.closure(problem, seed, problem.beside("offline_flux_cnn", seed, folder))
    return online(problem, start, seed, folder / "online", where=inner)
