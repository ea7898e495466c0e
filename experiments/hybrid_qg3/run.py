"""A three-level atmosphere that is not the truth, corrected by what its increments teach: offline, then online.

    python experiments/hybrid_qg3/run.py [--preset NAME] [--inputs qg3_t21.nc] [--out FOLDER] [--FIELD VALUE ...]

Presets: `imperfect` (default): half the orography, no roughness of land, friction and relaxation too weak; `coarse`:
right physics at T21, truth at T42; each with five networks, an hour on two cores; `smoke` and `coarse-smoke`: minutes.
Corrections: hyperdiffusion tuned; the mean increment; beside it a linear closure (a force on the winds by point, a map
of the fields by degree), trained through the solver, or a network for what depends on the state, fitted to increments,
then trained through the solver; and amplitudes of the mean and the network found without gradients. Scores on days that
nothing was trained on: six-hour first guess, and the climate of a free run. The same command goes on after a kill.
Results: report.md, report.json, figures; the closures in stages/.
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
