"""CNN through the published small emulator, loss of the state."""

from experiments.closure_benchmark.emulator import PUBLISHED_SMALL, through_emulator


def closure(problem, seed, folder):
    """Emulator of 8 blocks, width 32, kernel 5, as Frezat et al. (2024); for a GPU."""
    return through_emulator(problem, seed, folder, PUBLISHED_SMALL)
