"""Operators learned from pairs: Darcy flow and Burgers' equation, beside published numbers and simple methods.

    python experiments/operators/run.py [--preset NAME] [--darcy FILE] [--burgers FILE] [--out FOLDER] [--FIELD VALUE]

Presets: `laptop` (default: three networks of each recipe, about half an hour on two cores), `smoke` (seconds),
`burgers1d` (Burgers' equation of Li et al. (2021), trained at 256 points, tested at 256 to 8192; 8 minutes a network on
one core). Without files the pairs are made, of the same distributions. Networks: neuraloperator's FNO by its published
recipe, and with the symmetries of the square; on the circle that of Li et al. Beside them: the mean of the training
outputs, linear and kernel regression, the numerical solution from the same inputs. The same command goes on after a
kill. Results: report.md, report.json, figures; networks with their normalisers in stages/.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from experiments._run import Run, configure  # noqa: E402
from experiments.operators.config import PRESETS  # noqa: E402


def main(argv=None) -> Path:
    """Run what is missing and return the path of the report."""
    config, folder = configure(PRESETS, argv, out="runs/operators")
    from hybridgcm.preemption import preemptible

    with preemptible(), Run(folder, config) as run:
        from experiments.operators import report, stages

        return report.write(run.folder, config, stages.everything(run))


if __name__ == "__main__":
    print(f"report: {main()}")
