"""Table and figure of the trainings by several processes."""

import json
import os
from pathlib import Path

import numpy as np

from hybridgcm import draw, plot
from hybridgcm.files import atomic

TITLES = {
    "burgers": "Burgers' equation, physics-informed, functions split",
    "darcy": "Darcy flow, queries split",
    "shallow": "Shallow water, functions and, from four processes on, queries split",
}


def write(folder: Path, config, found: dict) -> Path:
    """report.json, scaling.png and report.md; returns the last."""
    cores = len(os.sched_getaffinity(0))
    table = {
        case: {label: _row(about, runs["1"], label) for label, about in runs.items()} for case, runs in found.items()
    }
    with atomic(folder / "report.json") as temporary:
        temporary.write_text(json.dumps({"cores": cores, "cases": table}, indent=1))
    with atomic(folder / "scaling.png") as temporary, plot.style():
        _figure(folder, found, table).savefig(temporary, format="png", dpi=130)
    with atomic(folder / "report.md") as temporary:
        temporary.write_text(_text(config, table, cores))
    return folder / "report.md"


def _row(about: dict, one: dict, label: str) -> dict:
    """T, S = T1/TN and E = T1/(N TN), with what else is known of the run."""
    count = int(label.split(",")[0])
    speed_up = one["seconds"] / about["seconds"]
    best = one["fastest"] / about["fastest"] / count
    return about | {"processes": count, "S": speed_up, "E": speed_up / count, "E of the fastest": best}


def _text(config, table: dict, cores: int) -> str:
    about = (
        f"{config.steps} steps of the same batches, {cores} cores, each process bound to one. T: median of a step; "
        "S = T1/TN; E = T1/(N TN), also of the fastest steps, which other programs disturb less. Difference: of the "
        "weights at the end from those of one process, over the largest, in single precision. Error: relative L2 of "
        f"functions that were not trained on. With more processes than cores, E cannot exceed {cores}/N. The processes "
        "exchange gradients over the loopback."
    )
    lines = ["# DeepONets trained by several processes", "", about]
    heads = ("processes", "mesh", "T, ms", "S", "E", "E, fastest", "difference", "loss", "error")
    for case, rows in table.items():
        weights = next(iter(rows.values()))["weights"]
        lines += ["", f"## {TITLES[case]}", "", f"{weights:,} weights, {config.functions} functions in a batch.", ""]
        lines += [f"| {' | '.join(heads)} |", f"|{' ---: |' * len(heads)}"]
        lines += [f"| {' | '.join(_cells(label, row))} |" for label, row in rows.items()]
    return "\n".join([*lines, "", "![scaling](scaling.png)", ""])


def _cells(label: str, row: dict) -> list[str]:
    """A line of the table."""
    numbers = [f"{row[name]:.2f}" for name in ("S", "E", "E of the fastest")]
    difference = "0" if row["difference"] == 0 else f"{row['difference']:.0e}"
    time, mesh = f"{1e3 * row['seconds']:.1f}", " x ".join(map(str, row["mesh"]))
    return [label, mesh, time, *numbers, difference, f"{row['loss']:.2e}", f"{row['error']:.3f}"]


def _figure(folder: Path, found: dict, table: dict):
    """Efficiency over processes, and the loss of every run: lines that lie on each other."""
    with plot.style() as Figure:
        figure = Figure(figsize=(2.6 * (1 + len(found)), 2.4), layout="constrained")
        first, *others = figure.subplots(1, 1 + len(found))
        for (case, rows), color in zip(table.items(), draw.PALETTE):
            several = [row for label, row in rows.items() if "," not in label]
            first.plot([r["processes"] for r in several], [r["E"] for r in several], "o-", color=color, label=case)
        counts = sorted({row["processes"] for rows in table.values() for row in rows.values()})
        first.axhline(0.8, color="0.6", linestyle=":")
        first.set(xlabel="processes", ylabel="efficiency T1/(N TN)", ylim=(0, None), xticks=counts)
        first.legend()
        for ax, (case, runs) in zip(others, found.items()):
            for (label, about), color in zip(runs.items(), draw.PALETTE):
                with np.load(folder / "stages" / about["folder"] / "trained.npz") as file:
                    ax.plot(file["losses"], color=color, label=label, linewidth=1)
            ax.set(title=case, xlabel="step", ylabel="loss", yscale="log")
            ax.legend()
    return figure
