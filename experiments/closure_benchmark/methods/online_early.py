"""CNN online with the loss of online_pinned, selected by free runs, 5,000 weights."""

from experiments.closure_benchmark.methods.online_energies import FRAMES
from experiments.closure_benchmark.training import energies_and_error, offline_then_online
from experiments.closure_benchmark.tuning import misfit


def closure(problem, seed, folder):
    """As online_pinned for longer; of ten checks the network whose free runs have the best climate.

    Four runs of four years against spectra and energy flux of the tuning climate; nothing of the scored truths.
    """
    loss, score = energies_and_error(problem, FRAMES), misfit(problem, snapshots=32, runs=4)
    return offline_then_online(problem, seed, folder, frames=(FRAMES,), steps=(400,), loss=loss, score=score)
