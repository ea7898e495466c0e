"""Table and figures of the re-learned right-hand side."""

import json
from pathlib import Path

import numpy as np

from experiments.relearned_qg3 import models
from hybridgcm import plot
from hybridgcm.files import atomic

PUBLISHED = {
    "pseudo-spectral network": {1: 0.003, 4: 0.010}, "U-Net beside the Jacobian": {1: 0.011, 4: 0.048},
    "Jacobian alone": {1: 0.13},
}  # fmt: skip
"""e(t) at T42 by days, read off the figures of Gelbrecht and others' NeuralQG3, one network each."""


def write(folder: Path, config, found: dict) -> Path:
    """report.json, errors.png and report.md; returns the last."""
    climate = _climates(folder, config, found)
    with atomic(folder / "report.json") as temporary:
        temporary.write_text(json.dumps({"scores": found, "climate": climate}, indent=1))
    with atomic(folder / "errors.png") as temporary:
        _figure(found).savefig(temporary, format="png", dpi=130)
    with atomic(folder / "report.md") as temporary:
        temporary.write_text(_text(config, found, climate))
    return folder / "report.md"


def _climates(folder: Path, config, found: dict) -> dict:
    """{name: [mean u and its deviation against the truth's, m/s, of each seed]}, over all runs of a seed that lived."""
    grid, _ = models.atmosphere(config.truncation, config.inputs)
    weight = np.asarray(grid.weights, float)
    rms = lambda a: float(np.sqrt((weight * a**2).sum((-2, -1)).mean()))

    def load(runs):
        files = [np.load(folder / "stages" / name / "climate.npz") for name in runs["free"]]
        mean = lambda key: np.mean([f[key] for f in files if np.isfinite(f["u"]).all()] or [files[0][key]], 0)
        return mean("u"), mean("deviation")

    truth = load(found["truth"][0])
    return {
        name: [[rms(a - b) for a, b in zip(load(one), truth, strict=True)] for one in runs]
        for name, runs in found.items()
        if name != "truth"
    }


def _figure(found: dict):
    kinds = {"linear": ("classical", "linear"), "Jacobian alone": ("none", "")}
    kinds |= {"pseudo-spectral network": ("online", "psn"), "U-Net beside the Jacobian": ("offline", "unet")}
    kinds |= {"SFNO emulator": ("tuned", "sfno"), "U-Net emulator": ("tuned", "unet emulator")}
    lines = {
        name: (np.array(runs[0]["days"]), np.mean([one["q"] for one in runs], 0))
        for name, runs in found.items()
        if name != "truth"
    }
    styles = plot.line_styles({name: kinds[name] for name in lines})
    return plot.series({"error of q, relative to its size": lines}, styles=styles, log=True, xlabel="days")


def _text(config, found: dict, climate: dict) -> str:
    source = Path(config.inputs).name if config.inputs else "the synthetic winter"
    lines = [
        f"# A three-level atmosphere, re-learned at T{config.truncation}", "",
        f"Truth: Marshall and Molteni's model, forced from {source}; {config.days} days of it for training. The rows: "
        "its Jacobian alone; the Jacobian and a learned rest, by linear maps (of the winds for every point, of the "
        "fields for every harmonic), by a "
        "U-Net and one per harmonic (after Gelbrecht and others' pseudo-spectral network), by a U-Net; and emulators "
        f"of everything, over {config.lead:g} hours. e(t): error of q, root mean square over the area, relative to "
        f"that of q; mean over {config.starts} starts and up to {config.seeds} networks (lowest to highest). Valid: "
        f"days until the error is half of the anomalies' size. Free runs: {config.runs} of {config.years} years from "
        "each network; climate against the truth's, of those that lived.", "",
        "| | e(1 d) | e(4 d) | e(4 d) of q + f | published e(1 d), e(4 d) | valid, days | survivors "
        "| first blow-up, days | mean of u, m/s | its deviation, m/s |",
        "| --- |" + " --- |" * 9,
    ]  # fmt: skip
    for name, runs in found.items():
        if name == "truth":
            continue
        at = lambda key, days, runs=runs: [one[key][one["days"].index(days)] for one in runs]
        lived = [day for one in runs for day in one["days_lived"]]
        whole = 360 * config.years
        dead = [day for day in lived if day < whole]
        published = ", ".join(f"{e:g}" for e in PUBLISHED.get(name, {}).values()) or "–"
        cells = [
            _cell(at("q", 1.0)), _cell(at("q", 4.0)), _cell(at("q + f", 4.0)), published,
            _cell([np.mean(one["valid"]) for one in runs]), f"{len(lived) - len(dead)} of {len(lived)}",
            f"{min(dead)}" if dead else "–", _cell([pair[0] for pair in climate[name]]),
            _cell([pair[1] for pair in climate[name]]),
        ]  # fmt: skip
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", "![errors](errors.png)", ""])


def _cell(values) -> str:
    number = lambda a: f"{a:.{2 if a < 1 else 3}g}" if np.isfinite(a) else "–"  # of runs of which none lived
    text = number(np.mean(values))
    return text + (f" ({number(np.min(values))} to {number(np.max(values))})" if len(values) > 1 else "")
