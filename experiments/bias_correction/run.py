"""The bias-correction experiment: a model with wrong depths, drag and time step, corrected by learned tendencies.

    python experiments/bias_correction/run.py [--preset NAME] [--out FOLDER] [--config run.toml] [--FIELD VALUE ...]

The model is nudged towards the truth; what the nudging adds is learned as a mean increment, by linear regression, by a
network, and by the same network trained on through the solver. Presets: `laptop` (default, five seeds), `smoke` (a
minute, meaningless numbers). Stages are kept by content in FOLDER/stages: the same command goes on after a kill.
Results: report.md, bias_correction.png, metrics.json, closures/*.ckpt.
"""

import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from experiments._run import Run, configure  # noqa: E402
from experiments.bias_correction.config import PRESETS  # noqa: E402


def main(argv=None) -> Path:
    """Run what is missing and return the path of the report."""
    config, folder = configure(PRESETS, argv, out="runs/bias_correction")
    with Run(folder, config) as run:
        from experiments.bias_correction import scores

        return scores.write(run, [learn(run, seed) for seed in range(config.seeds)])


def learn(run, seed: int) -> dict:
    """Folders of the stages of one seed by name, and its corrections by label."""
    from experiments.bias_correction import stages

    config, program = run.config, Path(__file__).with_name("stages.py")
    inputs = {"config": config, "seed": seed, "program": program}
    stage = lambda name, build, **more: run.stage(f"{name}-{seed}", inputs | more, build)
    truth = stage("truth", partial(stages.truth, config, seed))
    kept = stage("increments", partial(stages.increments, config, seed, truth), truth=truth)
    offline = stage("offline", partial(stages.train_offline, config, seed, kept), increments=kept)
    online = stage("online", partial(stages.train_online, config, seed, truth, kept, offline), offline=offline)
    data = stages.learning_data(kept)
    corrections = {
        "none": None,
        "mean increment": stages.climatology(data),
        "linear regression": stages.regression(config, seed, data),
        "network, offline": stages.load_closure(config, seed, kept, offline),
        "network, online": stages.load_closure(config, seed, kept, online),
    }
    from hybridgcm.fingerprint import digest

    start, runs = {"q": stages.frames(truth, "forecasts")[0]}, {}
    for label, closure in corrections.items():
        build = partial(stages.free_run, config, seed, closure, start)
        name = "-".join(["free", *label.replace(",", "").split()])
        runs[label] = stage(name, build, closure=digest(closure), truth=truth)
    return {"truth": truth, "online": online, "offline": offline, "corrections": corrections, "runs": runs}


if __name__ == "__main__":
    print(f"report: {main()}")
