"""CNN through a large frozen emulator, loss of the state."""

from experiments.closure_benchmark.emulator import LARGE, through_emulator


def closure(problem, seed, folder):
    """Emulator of 4 blocks, width 24, kernel 5; the losses and horizon of online_cnn."""
    return through_emulator(problem, seed, folder, LARGE)
