"""CNN online, solver's sensitivity neglected."""

from experiments.closure_benchmark.training import offline_then_online
from hybridgcm.train import StraightThrough


def closure(problem, seed, folder):
    """As online_cnn, gradients as if the solver only added the closure's forcing up: `train.StraightThrough`.

    Ours, in the spirit of the approximately online training of Yan et al. (2025), doi:10.1029/2024MS004857, of whom
    only the abstract was at hand: the rollout is the solver's, its Jacobian is replaced by the identity, and the
    closure's response to the states that it changed is left out. No derivative of the solver is needed.
    """
    return offline_then_online(
        problem, seed, folder, through=lambda closure: StraightThrough(problem.model(closure)),
        where=lambda m: m.inner.closure.net, pick=lambda m: m.inner.closure,
    )  # fmt: skip
