"""Table and figures of emulators of our own flows."""

import json
from pathlib import Path

import numpy as np

from experiments.emulators import flows, records
from hybridgcm import VARIABLES, draw, plot
from hybridgcm.files import atomic

HALF = 0.5
"""A forecast is valid until its error exceeds this share of the truth's departures from its mean."""


def write(folder: Path, config, found: dict) -> Path:
    """report.json, errors.png, spectra.png, fields.png and report.md; returns the last."""
    flow, models = flows.flow(config), found["models"]
    rows = {name: [summary(folder, config, flow, found, run) for run in runs] for name, runs in models.items()}
    with atomic(folder / "report.json") as temporary:
        temporary.write_text(json.dumps({"models": models, "rows": rows}, indent=1))
    figures = {"errors": _errors(flow, models), "spectra": _spectra(folder, flow, found),
               "fields": _fields(folder, flow, found)}  # fmt: skip
    for name, figure in figures.items():
        with atomic(folder / f"{name}.png") as temporary:
            figure.savefig(temporary, format="png", dpi=130)
    with atomic(folder / "report.md") as temporary:
        temporary.write_text(_text(config, flow, models, rows))
    return folder / "report.md"


def summary(folder: Path, config, flow, found: dict, run: dict) -> dict:
    """What the table tells of one model: numbers, None where there is none."""
    days = flow.lead / flows.DAY
    row = {}
    for factor in records.factors(flow):
        if f"error{factor}" in run:
            error = np.array(run[f"error{factor}"])
            row |= {f"one{factor}": float(error[:, 0].mean()), f"valid{factor}": days * float(_valid(error).mean())}
    if "free" not in run:
        return row
    row |= {"lived": run["lived"], "asked": run["asked"]}
    looks = folder / "stages" / run["free"] / "looks.npz"
    if run["lived"] == run["asked"]:
        row |= _climate(folder / "stages" / found["reference"] / "looks.npz", looks, flow)
    return row


def _valid(error: np.ndarray) -> np.ndarray:
    """Leads of every forecast until the error exceeds `HALF`; all of them where it never does."""
    late = ~(error <= HALF)
    return np.where(late.any(1), late.argmax(1), error.shape[1])


def _climate(reference: Path, looks: Path, flow) -> dict:
    """Of the last half of a free run against the truth: decades by which spectra differ, energy, drift of the means."""
    with np.load(reference) as truth, np.load(looks) as run:
        half = len(run["kinetic"]) // 2
        decades, drift = [], []
        for name in flow.names:
            expected, got = truth[f"spectrum.{name}"].mean(0), run[f"spectrum.{name}"][half:].mean(0)
            held = expected > 1e-6 * expected.max()
            decades.append(np.abs(np.log10(np.maximum(got[held], 1e-30) / expected[held])).mean())
            size = np.sqrt(truth[f"variance.{name}"].mean(0))
            drift.append(np.abs((run[f"mean.{name}"][-1] - run[f"mean.{name}"][0]) / size).max())
        energy = run["kinetic"][half:].mean() / truth["kinetic"].mean()
    return {"decades": float(np.mean(decades)), "energy": float(energy), "drift": float(np.max(drift))}


def _text(config, flow, models: dict, rows: dict) -> str:
    days, finer = flow.lead / flows.DAY, records.factors(flow)[1:]
    lines = [
        f"# Emulators: {flow.title}", "",
        f"Truth: the solver at {flow.finest} times the emulators' {' × '.join(map(str, flow.grid(1).shape))} points, "
        f"cut to theirs; {config.records} records {days:.3g} days apart for training. Mean of {config.seeds} networks "
        "(lowest to highest). Error: root mean square over that of the truth's departures from its mean, after one "
        f"step; valid: days until it exceeds {HALF:g}, of at most {days * config.forecast:g}. "
        f"{_rounds(config)}Free run: {config.free_steps:,} steps; alive while finite and with less than ten times the "
        "truth's variance; its last half against the truth: decades by which spectra differ (mean over wavenumbers), "
        "kinetic energy over the truth's. Cost: computing time of the truth's solver over the model's.", "",
        "| | weights | error, one step | valid, days | runs lost in training | survivors | first end, steps "
        "| spectra, decades | energy | drift of means | faster than the truth |",
        "| --- |" + " ---: |" * 10,
    ]  # fmt: skip
    for name, runs in rows.items():
        known = models[name][0]
        weights = f"{known['weights']:,}" if "weights" in known else "–"
        alive = [row for row in runs if row.get("lived") == row.get("asked") and "lived" in row]
        ends = [row["lived"] for row in runs if "lived" in row and row["lived"] < row["asked"]]
        cost = f"{known['cost_truth'] / known['cost_seconds']:.0f}" if "cost_seconds" in known else "–"
        cells = [
            weights, _cell(runs, "one1"), _cell(runs, "valid1"), _lost(models[name]),
            f"{len(alive)} of {len(runs)}" if "lived" in runs[0] else "–", f"{min(ends):,}" if ends else "–",
            _cell(alive, "decades"), _cell(alive, "energy"), _cell(alive, "drift"), cost,
        ]  # fmt: skip
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    lines += ["", "![errors](errors.png)", "", "![spectra](spectra.png)", "", "![fields](fields.png)", "",
              "## The same weights on finer grids", "",
              "Nothing was trained there; \"refused\" by networks that know one size.", "",
              "| |" + "".join(f" error, {k}× | valid, {k}× |" for k in (1, *finer)),
              "| --- |" + " ---: |" * (2 * len((1, *finer)))]  # fmt: skip
    for name, runs in rows.items():
        told = lambda key, k, runs=runs, name=name: (
            "refused" if f"refused{k}" in models[name][0] else _cell(runs, f"{key}{k}")
        )
        lines.append(f"| {name} |" + "".join(f" {told('one', k)} | {told('valid', k)} |" for k in (1, *finer)))
    lines += ["", "## Ensembles", "", f"{config.members} members from four starts, noise of {config.noise:g} of the "
              f"truth's departures from its mean; after {days * min(20, config.forecast):.3g} days. "
              f"CRPS of {flow.names[0]} over its size, "
              "spread over error (one is right), Brier score of its highest twentieth.", "",
              "| | members left | CRPS | spread over error | Brier score |", "| --- |" + " ---: |" * 4]  # fmt: skip
    for name, runs in models.items():
        if (scores := runs[0].get("ensemble_scores")) is not None:
            last = [f"{scores[key][-1]:.3f}" for key in ("crps", "spread over error", "brier of the highest twentieth")]
            lines.append(f"| {name} | {scores['left']} of {scores['members']} | " + " | ".join(last) + " |")
    many = [(name, runs[0]["many"]) for name, runs in models.items() if "many" in runs[0]]
    for name, of in many:
        lines += ["", f"{of['scores']['members']:,} members of the {name} over {min(20, config.forecast)} steps took "
                  f"{of['scores']['seconds']:.1f} s."]  # fmt: skip
    return "\n".join([*lines, ""])


def _rounds(config) -> str:
    if not config.rounds:
        return ""
    back = f" (drawing what is beyond the records to their mean within {config.recall:g} days)" if config.recall else ""
    return (
        f"In training up to {config.rounds} rounds: {config.strays} free runs of {config.stray_leads:,} steps from "
        f"records times up to {config.stray_excess:g}, {config.solver_leads} steps of the truth's solver{back} from "
        "where they went, and training on these besides, until no run is lost; runs lost, round by round, of every "
        "network, the one that lost fewest being kept. "
    )


def _lost(runs: list[dict]) -> str:
    """Runs that were lost in the rounds of training of every network."""
    return "; ".join(", ".join(str(len(ends)) for ends in run["lost"]) for run in runs if run.get("lost")) or "–"


def _cell(rows: list[dict], key: str) -> str:
    values = [row[key] for row in rows if row.get(key) is not None]
    if not values:
        return "–"
    number = lambda a: f"{a:.1e}" if 0 < abs(a) < 1e-3 else f"{a:.3f}" if abs(a) < 1 else f"{a:.3g}"
    text = number(np.mean(values))
    return text + (f" ({number(np.min(values))} to {number(np.max(values))})" if len(values) > 1 else "")


def _errors(flow, models: dict):
    """Error by lead time, mean over starts and networks."""
    lines = {}
    for name, runs in models.items():
        error = np.mean([np.mean(run["error1"], 0) for run in runs], 0)
        lines[name] = (np.arange(1, len(error) + 1) * flow.lead / flows.DAY, np.minimum(error, 3.0))
    return plot.series(
        {"error over the truth's departures from its mean": lines}, styles=_styles(models), xlabel="days"
    )


def _spectra(folder: Path, flow, found: dict):
    """Power spectra of the last halves of free runs that lived, of every prognostic's first layer."""
    with np.load(folder / "stages" / found["reference"] / "looks.npz") as truth:
        panels = {name: {"truth": truth[f"spectrum.{name}"].mean(0)[0]} for name in flow.names}
    for name, runs in found["models"].items():
        if "free" not in runs[0] or runs[0]["lived"] < runs[0]["asked"]:
            continue
        with np.load(folder / "stages" / runs[0]["free"] / "looks.npz") as run:
            for field, lines in panels.items():
                got = run[f"spectrum.{field}"]
                lines[name] = got[len(got) // 2 :].mean(0)[0]
    styles = _styles(found["models"]) | {"truth": {"color": "black", "linewidth": 2}}
    with plot.style() as Figure:
        figure = Figure(figsize=(3.4 * len(panels), 3.2), layout="constrained")
        axes = figure.subplots(1, len(panels), squeeze=False)
        for ax, (field, lines) in zip(axes.flat, panels.items()):
            floor = 1e-6 * lines["truth"].max()
            for name, power in lines.items():
                shells = np.arange(1, len(power))
                held = lines["truth"][1:] > floor
                ax.plot(shells[held], np.maximum(power[1:], floor)[held], label=name, **styles[name])
            units = draw.unit(VARIABLES[field].units)
            ax.set(title=f"variance of {field}", xscale="log", yscale="log", xlabel="wavenumber", ylabel=f"({units})²")
            draw.decimals(ax.xaxis)
            ax.grid(True)
        draw.legend(figure, axes)
    return figure


def _fields(folder: Path, flow, found: dict):
    """The first prognostic, top layer: the truth, and every free run at its end."""
    name = flow.names[0]
    truth = np.load(folder / "stages" / found["truth"] / f"later1-{name}.npy", mmap_mode="r")
    panels = {"truth": np.asarray(truth[-1][0])}
    for label, runs in found["models"].items():
        if "free" in runs[0]:
            with np.load(folder / "stages" / runs[0]["free"] / "end.npz") as end:
                lived = runs[0]["lived"]
                panels[f"{label}, step {lived:,}"] = end[name][0]
    limit = draw.bound([panels["truth"]])
    with plot.style() as Figure:
        columns = 4
        rows = -(-len(panels) // columns)
        height = 1.9 * truth.shape[2] / truth.shape[3] + 0.3
        figure = Figure(figsize=(1.9 * columns, height * rows), layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False).ravel()
        for ax in axes:
            ax.set_axis_off()
        for ax, (title, a) in zip(axes, panels.items()):
            ax.imshow(a, origin="lower", vmin=-limit, vmax=limit, cmap=plot.diverging(), aspect="auto")
            ax.set_title(title, fontsize=7)
    return figure


def _styles(models) -> dict:
    names = [name for name in models if name not in ("solver", "persistence")]
    styles = {name: {"color": f"C{i}" if i < 10 else "0.4"} for i, name in enumerate(names)}
    return styles | {"solver": {"color": "0.3", "linestyle": "--"}, "persistence": {"color": "0.6", "linestyle": ":"}}
