"""CNN through a small frozen emulator, loss of the subgrid forcing."""

from experiments.closure_benchmark.emulator import SMALL, subgrid, through_emulator


def closure(problem, seed, folder):
    """As emulator_state_small, but the closure's forcing at the states of the rollout is to be S of the truth there."""
    data = [{name: part[name] for name in ("q", "S")} for part in problem.data.train]
    return through_emulator(problem, seed, folder, SMALL, data=data, objective=subgrid(problem))
