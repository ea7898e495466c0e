"""Pre-train, shift, fine-tune: what a Fourier neural operator of one problem is worth for others.

    python experiments/foundation/run.py [--preset NAME] [--out FOLDER] [--FIELD VALUE]

Presets: `laptop` (default: 32², three networks of each kind, some two hours on two cores), `smoke` (seconds), `full`
(128², the sizes of Subramanian et al. 2023; a GPU). Poisson, advection-diffusion and Helmholtz problems with exact
solutions; networks from scratch beside pre-trained ones, one of all operators beside those of one, and beside them what
needs no network. The same command goes on after a kill. Results: report.md, report.json, figures; networks in stages/.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from experiments._run import Run, configure  # noqa: E402
from experiments.foundation.config import PRESETS  # noqa: E402


def main(argv=None) -> Path:
    """Run what is missing and return the path of the report."""
    config, folder = configure(PRESETS, argv, out="runs/foundation")
    from hybridgcm.preemption import preemptible

    with preemptible(), Run(folder, config) as run:
        from experiments.foundation import report, stages

        return report.write(run.folder, config, stages.everything(run))


if __name__ == "__main__":
    print(f"report: {main()}")
