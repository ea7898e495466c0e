"""Emulators of our own flows: every architecture in the place of the solver, and what becomes of it in long runs.

    python experiments/emulators/run.py [--preset NAME] [--flow qg|shallow_water|sphere|qg3] [--FIELD VALUE ...]

Presets: `laptop` (default: 16 points a side, three networks of every kind, five to fifteen minutes each on two cores:
name some with --networks), `full` (64 points, five larger networks: for a GPU), `smoke` (a minute). Networks are also
trained on what the truth's solver makes of where they stray, until none is lost (astray.py). The truth has four times
the resolution (the three-level atmosphere: twice). Scores: error after one step, valid time, survival of 100,000
steps, spectra, means and energy then, the same weights on finer grids, ensembles, cost beside the solver's. The same
command goes on after a kill. Results: report.md, report.json and figures; networks in stages/.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from experiments._run import Run, configure  # noqa: E402
from experiments.emulators.config import PRESETS  # noqa: E402


def main(argv=None) -> Path:
    """Run what is missing and return the path of the report."""
    config, folder = configure(PRESETS, argv, out="runs/emulators")
    from hybridgcm.preemption import preemptible

    with preemptible(), Run(folder, config) as run:
        from experiments.emulators import report, stages

        return report.write(run.folder, config, stages.everything(run))


if __name__ == "__main__":
    print(f"report: {main()}")
