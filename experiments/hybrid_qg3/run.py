"""An imperfect three-level atmosphere, corrected by what its analysis increments teach: offline, then online.

    python experiments/hybrid_qg3/run.py [--preset NAME] [--inputs qg3_t21.nc] [--out FOLDER] [--FIELD VALUE ...]

Presets: `laptop` (default: T21, five networks, half an hour on two cores), `smoke` (a minute). The model lacks half the
orography, all roughness of land, and has friction and relaxation that are too weak. Corrections: the mean increment,
and beside it a network for what depends on the state, fitted to increments, then trained through the solver. Scores on
days that nothing was trained on: six-hour first guess, and the climate of a free run. The same command goes on after a
kill. Results: report.md, report.json, figures; the closures in stages/.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from experiments._run import Run, configure  # noqa: E402
from experiments.hybrid_qg3.config import PRESETS  # noqa: E402


def main(argv=None) -> Path:
    """Run what is missing and return the path of the report."""
    config, folder = configure(PRESETS, argv, out="runs/hybrid_qg3")
    with Run(folder, config) as run:
        from experiments.hybrid_qg3 import report, stages

        return report.write(run.folder, config, stages.everything(run))


if __name__ == "__main__":
    print(f"report: {main()}")
