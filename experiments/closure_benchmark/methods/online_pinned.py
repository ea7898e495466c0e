"""CNN online, loss of energies and of the error against those without closure, 5,000 weights."""

from experiments.closure_benchmark.methods.online_energies import FRAMES
from experiments.closure_benchmark.training import energies_and_error, offline_then_online


def closure(problem, seed, folder):
    """As online_energies; the error of the fields besides says which flow the energies go to and come from."""
    loss = energies_and_error(problem, FRAMES)
    return offline_then_online(problem, seed, folder, frames=(FRAMES,), steps=(250,), loss=loss)
