"""CNN through a small frozen emulator, loss of the state."""

from experiments.closure_benchmark.emulator import SMALL, through_emulator


def closure(problem, seed, folder):
    """Emulator of 2 blocks, width 16, kernel 3; the losses and horizon of online_cnn."""
    return through_emulator(problem, seed, folder, SMALL)
