"""CNN online, loss of energies against the error without closure, 5,000 weights."""

from experiments.closure_benchmark.training import energies, offline_then_online

FRAMES = 12
"""8 h apart: four days."""


def closure(problem, seed, folder):
    """The offline network, trained on until the energies of all rings are right, as far as the model has them wrong."""
    loss = energies(problem, FRAMES)
    return offline_then_online(problem, seed, folder, frames=(FRAMES,), steps=(250,), loss=loss)
