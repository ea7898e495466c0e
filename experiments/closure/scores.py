"""From the runs to numbers and pages: climates, scores, metrics.json, netCDF files and the report."""

import json
import shutil
from pathlib import Path

import jax
import numpy as np

from experiments._run import parallel
from experiments.closure import figures, published, stages
from experiments.closure.report import headline, write_report
from hybridgcm import data, diagnostics, metrics, survivors
from hybridgcm.files import atomic
from hybridgcm.rollout import YEAR

ALL = 10**9
"""More snapshots than any climate has: all of them are compared."""


def write(run, models, truths, climates, tunings, trainings) -> Path:
    """Score everything; write metrics.json, climates/*.nc, closures/*.ckpt, headline.png and report.html."""
    config = run.config
    target = metrics.pool(*[truth_climate(config, folder) for _, folder in truths])
    entries = {"Truth": {"kind": "truth", **_truth_entry(config, truths), "climate": target}}
    for label, about in models.items():
        entries[label] = _model_entry(config, about, climates[label])
    none = entries["No closure"]["climate"]
    start = stages.coarse_state(config, config.first)
    for label, entry in entries.items():
        if entry["kind"] == "truth":
            continue
        entry["ms_per_step"] = stages.cost(config, models[label]["closure"], start)
        if entry["climate"] is not None:
            entry["errors"] = metrics.perezhogin_errors(entry["climate"], target, last=ALL)
            entry["runs"] = [_both(metrics.perezhogin_errors(one, target, last=ALL)) for one in entry["single"]]
        if entry["climate"] is not None and none is not None:
            entry["similarities"] = metrics.ross_similarities(entry["climate"], none, target, last=ALL)
    _survival(run, models, entries, climates)
    _files(run, entries, models, trainings)
    results = _results(run, entries, truths, climates, tunings, trainings)
    headline(run.folder / "headline.png", results)
    _metrics(run, entries, tunings)
    return write_report(run.folder / "report.html", results)


def truth_climate(config, folder: Path) -> metrics.Climate:
    """The coarse-grained climate of one truth, from the stage of its scored years."""
    fine, coarse = stages.model(config, config.fine), stages.model(config, config.coarse)
    q = data.read_store(folder / "climate" / "output.zarr")["q"].values
    return metrics.climate(fine, q, coarse=coarse.equation.grid, operator=stages.operator(config))


def _truth_entry(config, truths) -> dict:
    """Kinetic energy of the coarse-grained truth at every snapshot, `[member, frame]`."""
    ke = []
    for start, end in truths:
        folders = (start / "spin-up", start / "learn", end / "climate")
        parts = [data.read_store(folder / "output.zarr") for folder in folders]
        whole = {int(t / config.dt): k for part in parts for t, k in zip(part["time"].values, part["ke"].values)}
        ke.append([k for step, k in sorted(whole.items()) if step % config.snapshot == 0])
    return {"time": np.arange(1, len(ke[0]) + 1) * config.snapshot * config.dt / YEAR, "ke": np.array(ke)}


def model_climate(config, closure, folder: Path) -> metrics.Climate:
    """The climate of one free run over the scored years."""
    q = data.read_store(folder / "run" / "output.zarr")["q"].values[-(config.climate // config.snapshot) :]
    return metrics.climate(stages.model(config, config.coarse, closure), q)


def _model_entry(config, about: dict, folders: list[Path]) -> dict:
    """Climate over the scored years, kinetic energy over all, and the end of runs that blew up."""
    low = stages.model(config, config.coarse, about["closure"])
    entry = {name: value for name, value in about.items() if name != "closure"} | {"climate": None}
    scored = config.climate // config.snapshot
    blown = [json.loads(f.read_text()) for folder in folders if (f := folder / "blew_up.json").exists()]
    alive = [folder for folder in folders if not (folder / "blew_up.json").exists()]
    runs = [data.read_store(folder / "run" / "output.zarr") for folder in alive]
    entry["blew_up"] = blown[0] if blown else None
    entry["survived_years"] = (len(runs), len(folders))
    if runs:
        entry["single"] = [metrics.climate(low, part["q"].values[-scored:]) for part in runs]
        entry["climate"] = metrics.pool(*entry["single"])
        entry["q"] = entry["climate"].q[0, -1]
        entry["time"] = runs[0]["time"].values / YEAR
        entry["ke"] = np.stack([part["ke"].values for part in runs])
    return entry


def _both(errors: dict) -> dict:
    return {name: errors[name] for name in ("distributional", "spectral")}


def _survival(run, models, entries, climates):
    """`survival_steps` further steps from each of `survival_starts` states of the model's own climate."""
    config = run.config
    if not config.survival_starts:
        return
    reference = entries["Truth"]["climate"].q[0]

    def one(label):
        entry = entries[label]
        own = entry["climate"].q[0] if entry["climate"] is not None else reference
        starts = own[:: max(1, len(own) // config.survival_starts)][: config.survival_starts]

        def build(folder):
            low = stages.model(config, config.coarse, models[label]["closure"])
            every = max(1, config.survival_steps // 1000)
            found = survivors(low, {"q": starts}, config.survival_steps, every=every, reference={"q": reference})
            (folder / "survival.json").write_text(json.dumps(found._asdict()))

        inputs = {"runs": climates[label][0], "starts": config.survival_starts, "steps": config.survival_steps}
        folder = run.stage(f"survival-{''.join(c if c.isalnum() else '-' for c in label)}", inputs, build)
        return json.loads((folder / "survival.json").read_text())

    found = parallel(config.workers, {label: (lambda label=label: one(label)) for label in models})
    for label, survival in found.items():
        entries[label]["survivors"] = (survival["survivors"], survival["attempts"])
        entries[label]["survival"] = survival


def _files(run, entries, models, trainings):
    """Climates as CF netCDF, trained closures as verified files."""
    grid = stages.model(run.config, run.config.coarse).equation.grid
    provenance = {"configuration": (run.folder / "config.toml").read_text()}
    for label, entry in entries.items():
        if entry["climate"] is None:
            continue
        c = entry["climate"]
        fields = {"q": c.q[0], "u": c.u[0], "v": c.v[0]}
        time = np.arange(1, c.q.shape[1] + 1) * run.config.snapshot * run.config.dt
        attrs = {"title": f"Climate: {label}", "model": label, **provenance}
        dataset = data.to_dataset(fields, grid, time, attrs=attrs)
        data.save_netcdf(dataset, run.folder / "climates" / f"{_file(label)}.nc")
    (run.folder / "closures").mkdir(exist_ok=True)
    for label, folder in trainings.items():
        with atomic(run.folder / "closures" / f"{_file(label)}.ckpt") as temporary:
            shutil.copyfile(folder / "closure.ckpt", temporary)


def _metrics(run, entries, tunings):
    """metrics.json: every number of the report that is no picture."""
    keep = (
        "kind",
        "family",
        "amplitude",
        "seed",
        "errors",
        "runs",
        "similarities",
        "survived_years",
        "survival",
        "blew_up",
    )
    table = {
        label: {name: entry[name] for name in (*keep, "ms_per_step") if entry.get(name) is not None}
        for label, entry in entries.items()
    }
    tuned = {name: json.loads((folder / "tuning.json").read_text()) for name, folder in tunings.items()}
    record = {"models": table, "tuning": tuned, "seconds": _seconds(run)}
    with atomic(run.folder / "metrics.json") as temporary:
        temporary.write_text(json.dumps(record, indent=1, default=float))


def _results(run, entries, truths, climates, tunings, trainings) -> dict:
    """What `write_report` takes."""
    config = run.config
    coarse = stages.model(config, config.coarse).equation.grid
    target = entries["Truth"]["climate"]
    rings = len(diagnostics.wavenumbers(coarse))
    fine_q = data.read_store(truths[0][1] / "climate" / "output.zarr")["q"].values[-1]
    pdfs = figures.densities(_pdf_fields(target))
    report_models = {}
    for label, entry in entries.items():
        climate = entry["climate"]
        shown = {name: value for name, value in entry.items() if name not in ("climate", "single")}
        if climate is not None:
            shown["spectra"] = {name: a[..., :rings] for name, a in climate.spectra.items()}
            shown["pdf"] = figures.densities(_pdf_fields(climate), pdfs)
            shown.setdefault("q", climate.q[0, -1])
        report_models[label] = shown
    return {
        "title": "A subgrid closure trained through the solver",
        "abstract": _abstract(config),
        "config": json.loads(json.dumps(config.__dict__)),
        "provenance": _provenance(run),
        "length": config.length,
        "wavenumber": diagnostics.wavenumbers(coarse),
        "models": report_models,
        "truth": fine_q,
        "animation": _animation(config, entries, truths[0][0], climates),
        "tuning": _tuning(tunings),
        "training": _training(config, trainings),
        "published": {
            "errors": published.ERRORS.get(("eddy", config.operator, int(config.dt)), {}),
            "similarities": published.SIMILARITIES["eddy"],
        },
    }


def _provenance(run) -> dict:
    here = json.loads((run.folder / "env.json").read_text())["starts"][-1]
    versions = {name: value for name, value in here.items() if isinstance(value, str) and name not in ("git", "start")}
    device = str(here.get("device", ""))
    return {
        "git": here.get("git"), "date": here.get("start"), "device": device, "versions": versions,
        "stages": _seconds(run),
    }  # fmt: skip


def _pdf_fields(climate) -> dict:
    return {"q": climate.q, "u": climate.u, "v": climate.v}


def _animation(config, entries, truth: Path, climates) -> dict:
    """Upper-layer q of truth, no closure and the online network from their common start, 60 frames at most."""
    fine, coarse = (stages.model(config, n).equation.grid for n in (config.fine, config.coarse))
    labels = ["No closure", *[name for name, e in entries.items() if e["kind"] == "online"][:1]]
    spin_up = data.read_store(truth / "spin-up" / "output.zarr")["q"].values[:60, 0]
    low = lambda q: coarse.to_grid(stages.operator(config)(fine.to_spectral(q), fine, coarse))
    frames = {"Truth": np.asarray(jax.jit(jax.vmap(low))(spin_up))}
    for label in labels:
        if entries[label]["climate"] is not None:
            frames[label] = data.read_store(climates[label][0] / "run" / "output.zarr")["q"].values[: len(spin_up), 0]
    days = np.arange(1, len(spin_up) + 1) * config.snapshot * config.dt / 86400
    return {"time": days, "frames": frames}


def _tuning(tunings) -> dict:
    out = {}
    for name, folder in tunings.items():
        found = json.loads((folder / "tuning.json").read_text())
        columns = {key: np.array([row[key] for row in found["rows"]], float) for key in found["rows"][0]}
        out[name] = {**columns, "published": 1.0, "best": found["best"]}
    return out


def _training(config, trainings) -> dict:
    out = {}
    for label, folder in trainings.items():
        log = json.loads((folder / "log.json").read_text())
        curve = {name: np.array([record[name] for record in log], float) for name in ("step", "loss")}
        curve["skipped"] = [record["step"] for record in log if record["skipped"]]
        if "online" in label:
            firsts = np.cumsum((0, *config.online_steps[:-1])).tolist()
            steps = [horizon * config.frame for horizon in config.horizons]
            curve |= {
                "label": "errors over those of no closure",
                "horizons": list(zip(firsts, steps, strict=True)),
            }
        else:
            curve["label"] = "relative error of S, resolved scales"
        out[label] = curve
    return out


def _seconds(run) -> dict:
    stamps = sorted(run.folder.glob("stages/*/manifest.json"), key=lambda file: file.stat().st_mtime)
    records = [json.loads(file.read_text()) for file in stamps]
    return {record["stage"]: record["seconds"] for record in records}


def _abstract(config) -> str:
    years = (config.spin_up + config.learn + config.climate) * config.dt / YEAR
    scored = config.climate * config.dt / YEAR
    text = (
        f"Two-layer quasi-geostrophic turbulence in the eddy regime of Ross et al. (2023) is run at {config.fine}² for "
        f"{years:.3g} years and coarse-grained to {config.coarse}² by {config.operator}. Closures of the coarse model "
        f"are judged by free runs of the same length: the last {scored:.3g} years are scored "
        "against the coarse-grained truth, years that no closure was trained or tuned on.\n\n"
        "Beside the network trained through the solver stand the same network trained offline, "
        f"{len(config.closures)} closures with a formula at their published amplitude and at one tuned a posteriori, "
        "on free runs within the training period, and no closure."
    )
    if config.members > 1 and config.seeds > 1:
        return text
    return text + (
        "\n\nThis run has few samples (members: "
        f"{config.members}, seeds: {config.seeds}), so its order of models is no statistics. Single runs without "
        "closure spread over .02 in the distributional and .05 in the spectral error; smaller differences say nothing."
    )


def _file(label: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in label.lower().replace(", ", "-").replace("–", "-"))
