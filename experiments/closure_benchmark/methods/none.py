"""No closure."""

SEEDS = False


def closure(problem, seed, folder):
    """The yardstick."""
    return None
