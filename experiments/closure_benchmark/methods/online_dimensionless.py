"""Dimensionless CNN online, loss of energies and of the error against those without closure, 3,300 weights."""

from experiments.closure_benchmark.methods.offline_dimensionless import closure as offline_dimensionless
from experiments.closure_benchmark.methods.online_energies import FRAMES
from experiments.closure_benchmark.training import energies_and_error, online


def closure(problem, seed, folder):
    """That of offline_dimensionless, trained on as in online_pinned."""
    start = offline_dimensionless(problem, seed, problem.beside("offline_dimensionless", seed, folder))
    loss = energies_and_error(problem, FRAMES)
    return online(problem, start, seed, folder / "online", frames=(FRAMES,), steps=(250,), loss=loss)
