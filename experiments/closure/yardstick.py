"""The yardstick: our no-closure model against the published one, before any closure is judged.

    python experiments/closure/yardstick.py [--out FOLDER] [--members 10] [--any FIELD of config.py]

Members of truth and coarse model run for 20 years with pyqg's filter in both; the last 15 years are compared as in
Perezhogin et al. (2023), doi:10.1029/2023MS003681, whose no-closure errors at 64², operator 1, 3600 s are
.0996 / .2722. About five minutes a member on two cores; a killed run goes on with the same command.
"""

import json
import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from experiments._run import Run, configure  # noqa: E402
from experiments.closure.config import LAPTOP, SMOKE  # noqa: E402

PRESETS = {
    "full": replace(LAPTOP, members=10, climate=129_600),
    "smoke": replace(SMOKE, members=2),
}


def main(argv=None) -> dict:
    """Run what is missing, print the comparison, write yardstick.json."""
    config, folder = configure(PRESETS, argv, out="runs/yardstick")
    with Run(folder, config) as run:
        from experiments.closure import published, scores
        from experiments.closure.run import free_runs, whole_truth
        from hybridgcm import metrics
        from hybridgcm.files import atomic

        folders = [whole_truth(run, member)[1] for member in range(config.members)]
        truths = [scores.truth_climate(config, member, folder) for member, folder in enumerate(folders)]
        none = {"No closure": {"kind": "none", "closure": None}}
        climates = [scores.model_climate(config, None, where) for where in free_runs(run, none)["No closure"]]
        target = metrics.pool(*truths)
        errors = lambda climate: metrics.perezhogin_errors(climate, target, last=scores.ALL)
        record = {
            "pooled": errors(metrics.pool(*climates)),
            "members": [errors(climate) for climate in climates],
            "one truth against all": [errors(truth) for truth in truths],
            "published": {"distributional": 0.0996, "spectral": 0.2722, **published.YARDSTICK},
        }
        for name, ours in record["pooled"].items():
            spread = [member[name] for member in record["members"]]
            theirs = record["published"][name]
            print(f"{name:15s} ours {ours:.4f} ({min(spread):.4f} to {max(spread):.4f})  published {theirs:.4f}")
        with atomic(folder / "yardstick.json") as temporary:
            temporary.write_text(json.dumps(record, indent=1))
        return record


if __name__ == "__main__":
    main()
