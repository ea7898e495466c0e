"""DeepONets trained by several processes: the weights of one process, and T1, TN, S = T1/TN and E = T1/(N TN).

    python experiments/deeponet_parallel/run.py [--preset NAME] [--processes 1 2] [--out FOLDER] [--FIELD VALUE]

Presets: `laptop` (default: minutes on two cores), `smoke` (a minute), `full` (the sizes of the talk that this follows,
for a cluster: see docs/parallel.md). Physics-informed Burgers' equation with functions split, Darcy flow with queries
split, shallow water with both. The processes are started here, on CPUs, and meet on the loopback. The same command goes
on after a kill. Results: report.md, report.json, scaling.png.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from experiments._run import Run, configure  # noqa: E402
from experiments.deeponet_parallel.config import PRESETS  # noqa: E402


def main(argv=None) -> Path:
    """Run what is missing and return the path of the report."""
    config, folder = configure(PRESETS, argv, out="runs/deeponet_parallel")
    from hybridgcm.preemption import preemptible

    with preemptible(), Run(folder, config) as run:
        from experiments.deeponet_parallel import report, stages

        return report.write(run.folder, config, stages.everything(run))


if __name__ == "__main__":
    print(f"report: {main()}")
