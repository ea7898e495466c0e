"""Operators learned on the sphere: shallow water an hour later, at two resolutions and step after step.

    python experiments/spherical_operators/run.py [--preset NAME] [--out FOLDER] [--FIELD VALUE]

Presets: `laptop` (default: a network of each recipe, some twenty minutes on one core), `smoke` (seconds). Trained on
32 × 64 points, tested there and, with the same weights, on 64 × 128; then run freely for 240 and 2,000 steps. Beside
them: persistence, linear maps degree by degree, the solver with longer time steps. The same command goes on after a
kill. Results: report.md, report.json, sample.png; networks in stages/.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from experiments._run import Run, configure  # noqa: E402
from experiments.spherical_operators.config import PRESETS  # noqa: E402


def main(argv=None) -> Path:
    """Run what is missing and return the path of the report."""
    config, folder = configure(PRESETS, argv, out="runs/spherical_operators")
    from hybridgcm.preemption import preemptible

    with preemptible(), Run(folder, config) as run:
        from experiments.spherical_operators import report, stages

        return report.write(run.folder, config, stages.everything(run))


if __name__ == "__main__":
    print(f"report: {main()}")
