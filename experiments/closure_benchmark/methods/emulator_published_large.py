"""CNN through the published large emulator, loss of the state."""

from experiments.closure_benchmark.emulator import PUBLISHED_LARGE, through_emulator


def closure(problem, seed, folder):
    """Emulator of 8 blocks, width 64, kernel 7, as Frezat et al. (2024); for a GPU."""
    return through_emulator(problem, seed, folder, PUBLISHED_LARGE)
