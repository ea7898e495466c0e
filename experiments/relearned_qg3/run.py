"""A three-level atmosphere of which only the Jacobian is kept: the rest, or everything, is learned from a trajectory.

    python experiments/relearned_qg3/run.py [--preset NAME] [--inputs qg3_t21.nc] [--out FOLDER] [--FIELD VALUE ...]

Presets: `laptop` (default: T21, two networks of every kind, four free runs of two years each; two hours on slow cores),
`t42` (forecast errors at the truncation of the published ones), `full` (50 free runs of 100 years: for many hours),
`smoke` (some minutes). A perfect-model study after Gelbrecht and others' NeuralQG3: beside the kept Jacobian stand a
linear closure, a pseudo-spectral network and a U-Net; against them emulators, SFNO and U-Net. Scores: e(t), valid time,
survivors, climate. The same command goes on after a kill. Results: report.md, report.json, errors.png.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from experiments._run import Run, configure  # noqa: E402
from experiments.relearned_qg3.config import PRESETS  # noqa: E402


def main(argv=None) -> Path:
    """Run what is missing and return the path of the report."""
    config, folder = configure(PRESETS, argv, out="runs/relearned_qg3")
    from experiments.relearned_qg3 import report, stages
    from hybridgcm.preemption import preemptible

    with preemptible(), Run(folder, config) as run:
        return report.write(run.folder, config, stages.everything(run))


if __name__ == "__main__":
    print(f"report: {main()}")
