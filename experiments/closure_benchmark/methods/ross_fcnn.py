"""FCNN of Ross et al. (2023), their weights (needs a GPU)."""

import os

from experiments.closure_benchmark.published_network import ross_fcnn

SEEDS = False


def closure(problem, seed, folder):
    """Two networks of 267,841 weights, q to S, doi:10.1029/2022MS003258, from the folder that ROSS_FCNN names.

    It is models/fcnn_q_to_Sqtot1 of a clone of https://github.com/m2lines/pyqg_parameterization_benchmarks. For
    operator 1 at 64² of *eddy*; other systems show what that costs.
    """
    if "ROSS_FCNN" not in os.environ:
        raise FileNotFoundError(
            "set ROSS_FCNN to models/fcnn_q_to_Sqtot1 of a clone of "
            "https://github.com/m2lines/pyqg_parameterization_benchmarks"
        )
    return ross_fcnn(os.environ["ROSS_FCNN"])
