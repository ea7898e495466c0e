"""The closure experiment: truth, coarse data, training, free runs, scores and a report, in one command.

    python experiments/closure/run.py [--preset NAME] [--out FOLDER] [--config run.toml] [--FIELD VALUE ...]

Presets: `laptop` (default, ten minutes on two cores), `smoke` (a minute, meaningless numbers), `standard` (ten
members, three seeds, the Guillaumin–Zanna network: for a GPU). Stages are kept by content in FOLDER/stages: the same
command goes on after a kill or SIGTERM (exit code 75), and a changed setting redoes what depends on it. Results:
report.html, metrics.json, climates/*.nc, closures/*.ckpt.
"""

import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from experiments._run import Run, configure, parallel  # noqa: E402
from experiments.closure.config import PRESETS  # noqa: E402

PHYSICS = ("fine", "coarse", "operator", "length", "dt", "rd", "delta", "beta", "shear", "drag")
SCHEDULE = ("spin_up", "learn", "climate", "snapshot", "frame")
"""Settings that the truth, and so everything, depends on."""


def main(argv=None) -> Path:
    """Run what is missing and return the path of the report."""
    config, folder = configure(PRESETS, argv, out="runs/closure")
    from hybridgcm.preemption import preemptible

    with preemptible(), Run(folder, config) as run:
        models, truths, tunings, trainings = learn(run)
        climates = free_runs(run, models)
        from experiments.closure import scores

        return scores.write(run, models, truths, climates, tunings, trainings)


def truth(run, member: int) -> Path:
    """Folder of the truth up to the scored years."""
    from experiments.closure import stages

    inputs = _only(run.config, *PHYSICS, *SCHEDULE, "first") | {"member": member}
    return _stage(run, f"truth-{member}", inputs, partial(stages.truth, run.config, member))()


def whole_truth(run, member: int) -> tuple[Path, Path]:
    """Folders of one truth: up to the scored years, and those."""
    from experiments.closure import stages

    start = truth(run, member)
    inputs = _only(run.config, *PHYSICS, *SCHEDULE) | {"member": member, "start": start}
    return start, _stage(run, f"climate-{member}", inputs, partial(stages.truth_climate, run.config, member, start))()


def learn(run):
    """(models, truths, tunings, trainings): closures by label with what they are, and folders of finished stages.

    All that waits for nothing but the training data runs side by side with the rest of the truth, longest jobs first.
    """
    from experiments.closure import stages

    config, start = run.config, truth(run, run.config.first)
    formulas = stages.classical(config)
    tuned = partial(tune, run, start, config.amplitudes)
    jobs = {("train", seed): partial(train, run, seed, start) for seed in range(config.seeds)}
    jobs |= {("truth", member): partial(whole_truth, run, member) for member in config.numbers}
    jobs |= {("tune", name): partial(tuned, name, closure) for name, closure in formulas.items()}
    found = parallel(config.workers, jobs)
    models = {"No closure": {"kind": "none", "closure": None}}
    for name, closure in formulas.items():
        models[name] = {"kind": "classical", "family": name, "amplitude": 1.0, "closure": closure}
    data, trainings = stages.learning_data(start), {}
    for seed in range(config.seeds):
        for kind, folder in found["train", seed].items():
            label = f"CNN, {kind}" + ("" if config.seeds == 1 else f", seed {seed}")
            closure = stages.load_closure(config, seed, folder, data)
            about = {"kind": kind, "family": f"CNN {kind}", "seed": seed, "amplitude": 1.0, "closure": closure}
            models[label], trainings[label] = about, folder
    tuned = partial(tune, run, start, config.network_amplitudes)
    jobs = {label: partial(tuned, label, models[label]["closure"]) for label in trainings if config.network_amplitudes}
    tunings = {name: found["tune", name] for name in formulas} | parallel(config.workers, jobs)
    truths = [found["truth", member] for member in config.numbers]
    return _with_tuned(models, tunings), truths, tunings, trainings


def _with_tuned(models: dict, tunings: dict) -> dict:
    """The models, each with an amplitude followed by itself at the best one."""
    from experiments.closure import stages

    both = {}
    for label, about in models.items():
        both[label] = about
        if label in tunings:
            best = stages.best_amplitude(tunings[label])
            closure = stages.scaled(about["closure"], best)
            both[f"{label}, tuned"] = about | {"kind": "tuned", "amplitude": best, "closure": closure}
    return both


def tune(run, truth: Path, amplitudes, name: str, closure) -> Path:
    """Folder of the free runs that choose a closure's amplitude."""
    from experiments.closure import stages
    from hybridgcm.fingerprint import digest

    config = run.config
    inputs = {"truth": truth, "closure": digest(closure), "amplitudes": amplitudes}
    inputs |= _only(config, *PHYSICS, *SCHEDULE, "tuning")
    return _stage(run, f"tune-{_slug(name)}", inputs, partial(stages.tune, config, closure, amplitudes, truth))()


def train(run, seed: int, truth: Path) -> dict[str, Path]:
    """Folders of the network trained offline, and from there online."""
    from experiments.closure import stages

    config = run.config
    inputs = {"truth": truth, "seed": seed, **_only(config, *PHYSICS, *SCHEDULE, "network", "channels")}
    inputs |= _only(config, "offline_steps", "offline_batch", "offline_rate")
    offline = _stage(run, f"offline-{seed}", inputs, partial(stages.train_offline, config, seed, truth))()
    inputs |= _only(config, "horizons", "online_steps", "online_batch", "online_rate")
    inputs |= {"offline": offline}
    online = _stage(run, f"online-{seed}", inputs, partial(stages.train_online, config, seed, truth, offline))()
    return {"offline": offline, "online": online}


def free_runs(run, models: dict) -> dict[str, list[Path]]:
    """Folders of the free runs of every model and member, `workers` at a time."""
    from hybridgcm.fingerprint import digest

    config = run.config
    total = config.spin_up + config.learn + config.climate
    physics = _only(config, *PHYSICS)
    jobs = {}
    for label, about in models.items():
        for member in config.numbers:
            inputs = {**physics, "closure": digest(about["closure"]), "steps": total, "snapshot": config.snapshot}
            build = partial(_free_run, config, about["closure"], member, total)
            name = f"free-{_slug(label)}-{member}"
            jobs[label, member] = _stage(run, name, inputs | {"member": member}, build)
    found = parallel(config.workers, jobs)
    return {label: [found[label, member] for member in config.numbers] for label in models}


def _free_run(config, closure, member, steps, folder):
    from experiments.closure import stages

    stages.free_run(config, closure, member, steps, stages.coarse_state(config, member), folder)


def _stage(run, name, inputs, build):
    """The stage as a function of nothing; what it is made of includes the code of the stages."""
    program = Path(__file__).with_name("stages.py")
    return lambda: run.stage(name, inputs | {"program": program}, build)


def _only(config, *names) -> dict:
    """Those settings that a stage depends on."""
    return {name: getattr(config, name) for name in names}


def _slug(label: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in label.lower().replace(", ", "-"))


if __name__ == "__main__":
    print(f"report: {main()}")
