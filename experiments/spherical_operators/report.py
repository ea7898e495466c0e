"""Tables and a figure of the operators learned on the sphere."""

import json
from pathlib import Path

import numpy as np

import hybridgcm as hg
from experiments.spherical_operators import stages
from experiments.spherical_operators.baselines import NAMES
from experiments.spherical_operators.networks import TITLES
from hybridgcm import plot
from hybridgcm.files import atomic

SYMBOLS = {"phi": "φ", "zeta": "ζ", "delta": "δ"}
SHORT = 240
"""Steps of the shorter free runs."""


def write(folder: Path, config, found: dict) -> Path:
    """report.json, sample.png and report.md; returns the last."""
    with atomic(folder / "report.json") as temporary:
        temporary.write_text(json.dumps(found, indent=1))
    with atomic(folder / "sample.png") as temporary, plot.style():
        _sample(folder, config, found).savefig(temporary, format="png", dpi=130)
    with atomic(folder / "report.md") as temporary:
        temporary.write_text("\n".join([*_scores(config, found), *_runs(config, found), ""]))
    return folder / "report.md"


def _scores(config, found: dict) -> list[str]:
    labels = list(stages.parts(config))
    heads = ["", "weights", *(f"{SYMBOLS[name]}, {part}" for part in labels for name in NAMES)]
    heads += [f"ms, {part}" for part in labels]
    lines = ["# Shallow water on a sphere, learned", ""]
    lines += [f"Relative L2 errors by quadrature after {config.lead:.0f} s, mean of {config.tests} pairs; networks:"]
    lines += [f"mean of seeds (lowest to highest), {config.seeds} each, trained on {labels[0]} points.", ""]
    lines += [f"| {' | '.join(heads)} |", f"| --- | {' | '.join('---:' for _ in heads[1:])} |"]
    for label, rows in found["scores"].items():
        cells = [_cell([row[part][name] for row in rows]) for part in labels for name in NAMES]
        cells += [f"{np.median([row['ms'][part] for row in rows]):.1f}" for part in labels]
        weights = f"{rows[0]['weights']:,}" if "weights" in rows[0] else "–"
        lines.append(f"| {label} | {weights} | {' | '.join(cells)} |")
    times = {label: rows for label, rows in found["scores"].items() if "weights" in rows[0]}
    told = (f"{np.median([row['seconds a step'] for row in rows]):.3f} s ({label})" for label, rows in times.items())
    return [*lines, "", f"A step of training, {config.batch} pairs, takes {', '.join(told)} here (median).", ""]


def _runs(config, found: dict) -> list[str]:
    heads = [f"{SYMBOLS[name]} after {lead}" for lead in stages.LEADS for name in NAMES]
    heads = ["", *heads, *(f"bounded after {steps}" for steps in (SHORT, config.steps)), "first failure"]
    lines = ["Free runs: errors, and how many stay finite with at most ten times the starts' variance."]
    lines += ["", f"| {' | '.join(heads)} |", f"| --- | {' | '.join('---:' for _ in heads[1:])} |"]
    for label, rows in found["runs"].items():
        cells = [_cell([row["errors"][str(lead)][name] for row in rows]) for lead in stages.LEADS for name in NAMES]
        failed = [step for row in rows for step in row["failed"]]
        for steps in (SHORT, config.steps):
            cells.append(f"{sum(step is None or step > steps for step in failed)} of {len(failed)}")
        first = min((step for step in failed if step is not None), default=None)
        lines.append(f"| {label} | {' | '.join(cells)} | {'–' if first is None else first} |")
    return [*lines, "", "![a pair](sample.png)"]


def _cell(values: list[float]) -> str:
    numbers = [f"{np.mean(values):.4f}", f"{np.min(values):.4f}", f"{np.max(values):.4f}"]
    return numbers[0] if numbers[1] == numbers[2] else f"{numbers[0]} ({numbers[1]} to {numbers[2]})"


def _sample(folder: Path, config, found: dict):
    """Start, truth, a network's answer and its error at the finer grid, a field a row."""
    recipe = config.recipes[0]
    stage = folder / "stages" / found["scores"][TITLES[recipe]][0]["folder"]
    data = next((folder / "stages").glob("pairs-*"))
    part, truncation = list(stages.parts(config).items())[1]
    pair = {name: a[:1] for name, a in stages.load(data, part).items()}
    model = stages.at(stages.trained(config, recipe, data, stage), truncation)
    made = stages.advanced(model, {name: a[:, 0] for name, a in pair.items()}, 1)
    grid = hg.Sphere(truncation)
    with plot.style() as Figure:
        figure = Figure(figsize=(9.5, 4.2), layout="constrained")
        axes = figure.subplots(3, 4, sharex=True, sharey=True)
        for row, name in zip(axes, NAMES):
            start, truth, guess = pair[name][0, 0, 0], pair[name][0, 1, 0], np.asarray(made[name])[0, 0]
            panels = (("start", start), ("truth", truth), (TITLES[recipe], guess), ("error", guess - truth))
            for ax, (title, field) in zip(row, panels):
                limit = float(np.abs(field if title == "error" else truth).max())
                image = ax.pcolormesh(
                    grid.longitude, grid.latitude, field, vmin=-limit, vmax=limit, cmap=plot.diverging()
                )
                ax.set(title=title if name == NAMES[0] else "", xticks=[], yticks=[])
                figure.colorbar(image, ax=ax, shrink=0.8)
            row[0].set_ylabel(SYMBOLS[name])
    return figure
