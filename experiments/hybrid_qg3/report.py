"""Table and figures of the learned corrections."""

import json
from pathlib import Path

import numpy as np

from experiments.hybrid_qg3.atmosphere import atmosphere
from hybridgcm import maps, plot, qg3
from hybridgcm.files import atomic

SCORES = {
    "first guess": "first guess, relative to no correction", "mean u": "mean of u (m/s)", "jets": "zonal mean u (m/s)",
    "deviation of u": "deviation of u in time (m/s)", "spectrum": "kinetic energy by degree (decades)",
}  # fmt: skip
"""Column of every score: root mean squares over area and levels; the last of log₁₀ E(l) over degrees and levels."""


KINDS = {
    "Truth": ("truth", ""), "No correction": ("none", ""), "Tuned hyperdiffusion": ("tuned", "hyperdiffusion"),
    "Mean increment": ("classical", "mean"), "Mean increment, gradient-free": ("tuned", "mean"),
    "Linear closure": ("tuned", "linear"), "Network, offline": ("offline", "network"),
    "Network, offline, then gradient-free": ("tuned", "free"), "Network, online": ("online", "network"),
}  # fmt: skip
"""Of the lines in figures: `plot.line_styles`."""


def write(folder: Path, config, found: dict) -> Path:
    """report.json, zonal.png, bias.png, spectra.png and report.md; returns the last."""
    table = {
        name: {key: _over_seeds([one[key] for one in runs]) for key in SCORES} | {"networks": len(runs)}
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
    """Of networks the first of every kind."""
    grid, _ = atmosphere(config)
    stages = folder / "stages"
    climates = {"Truth": _climate(next(stages.glob("climate-truth-*")))}
    climates |= {n.capitalize(): _climate(stages / runs[0]["folder"]) for n, runs in found.items() if n != "truth"}
    lines = lambda pick: {
        f"{p:.0f} hPa": {label: pick(climate, i) for label, climate in climates.items()}
        for i, p in enumerate(qg3.LEVELS)
    }
    styles = plot.line_styles({label: KINDS[label] for label in climates})
    zonal = maps.zonal_means(lines(lambda climate, i: climate["u"][i]), grid, "u", reference="Truth", styles=styles)
    _save(zonal, folder / "zonal.png")
    truth = climates["Truth"]["u"][0]
    bias = {f"{label}, 200 hPa": c["u"][0] - truth for label, c in climates.items() if label != "Truth"}
    _save(maps.maps(bias, grid, "u", columns=3), folder / "bias.png")
    energy = lines(lambda climate, i: climate["spectrum"][i, 1:])
    spectra = plot.spectra(grid.wavenumber[1:], energy, reference="Truth", styles=styles, radius=grid.radius)
    _save(spectra, folder / "spectra.png")


def _climate(folder: Path) -> dict:
    with np.load(folder / "climate.npz") as file:
        return dict(file)


def _save(figure, path: Path):
    with atomic(path) as temporary:
        figure.savefig(temporary, format="png", dpi=130)


def _text(config, table: dict) -> str:
    source = Path(config.inputs).name if config.inputs else "the synthetic winter"
    lines = [
        f"# Learned corrections of a three-level atmosphere at T{config.truncation}", "",
        f"Truth at T{config.truth_truncation}, forced from {source}. The model has {config.orography:g} of its "
        + ("orography, its" if config.friction is None else f"orography, over {config.friction:g} days everywhere its")
        + f" friction, and relaxation over {config.relaxation:g} days (the truth: 25). Errors are root mean squares "
        "over area and levels, on the model's harmonics; networks: mean over "
        f"{config.seeds} of them (lowest to highest). First guess: six hours, analyses that nothing was trained on. "
        f"Climate: free runs of {config.climate} days against the truth's. The row *truth* is the truth from another "
        "start: no model can be better but by chance. Gradient-free: amplitudes per level, by ensemble Kalman "
        "inversion of the climate of the analyses.", "",
        "| | " + " | ".join(SCORES.values()) + " |", "| --- |" + " --- |" * len(SCORES),
    ]  # fmt: skip
    bare = table["no correction"]["first guess"]["mean"]
    for name, row in table.items():
        cells = [_cell(row[key], bare if key == "first guess" else 1.0, row["networks"]) for key in SCORES]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    pictures = [f"![{name}]({name}.png)" for name in ("zonal", "bias", "spectra")]
    return "\n".join([*lines, "", *(text for picture in pictures for text in (picture, ""))])


def _cell(value: dict, unit: float, networks: int) -> str:
    digits = 3 if value["mean"] / unit < 0.2 else 2
    number = lambda key: f"{value[key] / unit:.{digits}f}"
    return number("mean") + (f" ({number('low')} to {number('high')})" if networks > 1 else "")
