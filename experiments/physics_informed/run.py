"""Burgers' equation learned by a DeepONet from the equation alone, without any solution.

    python experiments/physics_informed/run.py [--preset NAME] [--out FOLDER] [--FIELD VALUE]

Presets: `laptop` (default: some five minutes a network on one core), `smoke` (seconds). The same command goes on after
a kill. Results: report.json: mean relative L2 errors of test functions, of networks and of what needs none; and
solutions.png.
"""

import functools
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from experiments._run import Run, configure  # noqa: E402
from experiments.physics_informed.config import PRESETS  # noqa: E402


def main(argv=None) -> Path:
    """Run what is missing and return the path of the report."""
    config, folder = configure(PRESETS, argv, out="runs/physics_informed")
    from experiments.physics_informed import stages
    from hybridgcm.files import atomic
    from hybridgcm.preemption import preemptible

    with preemptible(), Run(folder, config) as run:
        data = run.stage("data", {"config": run.settings}, functools.partial(stages.data, config))
        found = stages.simple(config, data) | {"networks": []}
        for seed in range(config.seeds):
            build = functools.partial(stages.train, config, data, seed)
            stage = run.stage(f"network-{seed}", {"config": run.settings, "data": data, "seed": seed}, build)
            found["networks"].append(json.loads((stage / "scores.json").read_text()))
            if not seed:
                stages.draw(config, data, stage, run.folder / "solutions.png")
        with atomic(run.folder / "report.json") as temporary:
            temporary.write_text(json.dumps(found, indent=1))
        return run.folder / "report.json"


if __name__ == "__main__":
    print(f"report: {main()}")
