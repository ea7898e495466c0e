"""Table and figures of the learned corrections."""

import json
from pathlib import Path

import numpy as np

from experiments.hybrid_qg3.stages import atmosphere
from hybridgcm import maps, qg3
from hybridgcm.files import atomic

UNITS = {"first guess": "s⁻¹", "mean u": "m/s", "deviation of u": "m/s"}


def write(folder: Path, config, found: dict) -> Path:
    """report.json, zonal.png, bias.png and report.md; returns the last."""
    table = {
        name: {key: _over_seeds([one[key] for one in runs]) for key in UNITS} | {"networks": len(runs)}
        for name, runs in found.items()
    }
    with atomic(folder / "report.json") as temporary:
        temporary.write_text(json.dumps(table, indent=1))
    _figures(folder, config, found)
    with atomic(folder / "report.md") as temporary:
        temporary.write_text(_text(config, table))
    return folder / "report.md"


def _over_seeds(values: list) -> dict:
    """Mean over levels (rms) and seeds, lowest and highest seed, per level."""
    levels = np.array(values, float)
    total = np.sqrt((levels**2).mean(1))
    return {
        "mean": float(total.mean()), "low": float(total.min()), "high": float(total.max()),
        "levels": levels.mean(0).tolist(),
    }  # fmt: skip


def _figures(folder: Path, config, found: dict):
    grid, _ = atmosphere(config)
    stages = folder / "stages"
    truth = next(stages.glob("climate-truth-*"))
    climates = {"Truth": np.load(truth / "climate.npz")["u"]}
    for name, runs in found.items():
        if name != "truth":
            climates[name.capitalize()] = np.load(stages / runs[0]["folder"] / "climate.npz")["u"]
    lines = {f"{p:.0f} hPa": {name: u[i] for name, u in climates.items()} for i, p in enumerate(qg3.LEVELS)}
    _save(maps.zonal_means(lines, grid, "u", reference="Truth"), folder / "zonal.png")
    bias = {f"{name}, 200 hPa": u[0] - climates["Truth"][0] for name, u in climates.items() if name != "Truth"}
    _save(maps.maps(bias, grid, "u", columns=2), folder / "bias.png")


def _save(figure, path: Path):
    with atomic(path) as temporary:
        figure.savefig(temporary, format="png", dpi=130)


def _text(config, table: dict) -> str:
    source = Path(config.inputs).name if config.inputs else "the synthetic winter"
    lines = [
        "# Learned corrections of an imperfect three-level atmosphere", "",
        f"T{config.truncation}, forced from {source}. Errors are rms over area and levels; networks: mean over "
        f"{config.seeds} of them (lowest to highest). First guess: six hours, analyses that nothing was trained on. "
        f"Climate: free runs of {config.climate} days against the truth's. The row *truth* is the truth from another "
        "start: no model can be better but by chance.", "",
        "| | first guess, relative to no correction | mean of u (m/s) | deviation of u in time (m/s) |",
        "| --- | --- | --- | --- |",
    ]  # fmt: skip
    bare = table["no correction"]["first guess"]["mean"]
    for name, row in table.items():
        cell = lambda key, unit=1.0, row=row: _cell(row[key], unit, row["networks"])
        lines.append(f"| {name} | {cell('first guess', bare)} | {cell('mean u')} | {cell('deviation of u')} |")
    return "\n".join([*lines, "", "![zonal means](zonal.png)", "", "![bias](bias.png)", ""])


def _cell(value: dict, unit: float, networks: int) -> str:
    number = lambda key: f"{value[key] / unit:.2f}"
    return number("mean") + (f" ({number('low')} to {number('high')})" if networks > 1 else "")
