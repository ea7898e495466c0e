"""From the stages to numbers: first-guess errors, climates of free runs, table and figure."""

import json
import shutil
from pathlib import Path

import numpy as np

from experiments.bias_correction import stages
from hybridgcm import data, metrics
from hybridgcm.files import atomic


def write(run, seeds: list[dict]) -> Path:
    """Score every seed; write metrics.json, bias_correction.png, closures/*.ckpt and report.md."""
    config = run.config
    labels = list(seeds[0]["corrections"])
    errors, climates, spectra = [], [], []
    for seed, parts in enumerate(seeds):
        models = {label: stages.model(config, seed, closure) for label, closure in parts["corrections"].items()}
        errors.append(stages.forecasts(config, seed, parts["truth"], models))
        scores, lines = climate_scores(config, seed, parts)
        climates.append(scores)
        spectra.append(lines)
    record = {
        "lead_hours": [config.window * (i + 1) / 3600 for i in range(config.lead)],
        "first_guess": {label: [e[label].tolist() for e in errors] for label in labels},
        "climate": {label: [c[label] for c in climates] for label in labels},
    }
    with atomic(run.folder / "metrics.json") as temporary:
        temporary.write_text(json.dumps(record, indent=1))
    (run.folder / "closures").mkdir(exist_ok=True)
    for seed, parts in enumerate(seeds):
        for kind in ("offline", "online"):
            with atomic(run.folder / "closures" / f"{kind}-{seed}.ckpt") as temporary:
                shutil.copyfile(parts[kind] / "closure.ckpt", temporary)
    figure(run.folder / "bias_correction.png", record, spectra)
    report = run.folder / "report.md"
    with atomic(report) as temporary:
        temporary.write_text("\n".join([*_summary(config, record), "", *_table(config, record), ""]))
    return report


def climate_scores(config, seed: int, parts: dict) -> tuple[dict, dict]:
    """Per model: Perezhogin errors, relative kinetic energy and error of the mean flow; and the spectra to draw.

    The diagnostics know no topography, and need none: spectra and fields depend on q and the inversion only.
    """
    flat = stages.model(config, seed)
    flat = _without_topography(flat)
    target = metrics.climate(flat, stages.frames(parts["truth"], "climate"))
    scores, lines = {}, {"truth": (target.kr, target.spectra["KEspec"])}
    for label, folder in parts["runs"].items():
        if (folder / "blew_up.json").exists():
            scores[label] = json.loads((folder / "blew_up.json").read_text())
            continue
        found = metrics.climate(flat, data.read_store(folder / "run" / "output.zarr")["q"].values)
        distances = metrics.perezhogin_errors(found, target, last=10**9)
        scores[label] = {
            "distributional": distances["distributional"],
            "spectral": distances["spectral"],
            "energy_ratio": _energy(found) / _energy(target),
            "mean_flow_error": _mean_flow_error(found, target),
        }
        lines[label] = (found.kr, found.spectra["KEspec"])
    return scores, lines


def _without_topography(model):
    import equinox as eqx

    return eqx.tree_at(lambda m: m.equation.topography, model, None)


def _energy(climate) -> float:
    return float(np.mean(np.square(climate.u, dtype=float) + np.square(climate.v, dtype=float)))


def _mean_flow_error(climate, target) -> float:
    """Root mean square error of the time-mean anomaly flow over that of the truth's time-mean flow."""
    mean = lambda c: np.stack([c.u.mean((0, 1), dtype=float), c.v.mean((0, 1), dtype=float)])
    return float(np.sqrt(np.mean((mean(climate) - mean(target)) ** 2) / np.mean(mean(target) ** 2)))


def _reductions(config, record, hours=24.0):
    """Fraction by which each model lowers the first-guess error at a lead, per seed."""
    at = int(np.argmin(np.abs(np.array(record["lead_hours"]) - hours)))
    none = np.array(record["first_guess"]["none"])[:, at]
    return {label: 1 - np.array(e)[:, at] / none for label, e in record["first_guess"].items() if label != "none"}


def _summary(config, record) -> list[str]:
    lines = [
        "# Bias correction of a two-layer model",
        "",
        f"Truth: H1/H2 = {config.true_delta:g}, drag {config.true_drag:g} s⁻¹, dt {config.true_dt:g} s. Model: "
        f"{config.model_delta:g}, {config.model_drag:g} s⁻¹, {config.model_dt:g} s. Both {config.n}² with the same "
        f"hills. Increments of {config.learn * config.window / 86400:.0f} days of nudging; tested on later years. "
        f"{config.seeds} seeds, each with another truth and network.",
        "",
    ]
    reductions = _reductions(config, record)
    baseline = reductions["mean increment"]
    for label, values in reductions.items():
        better = int(np.sum(values > baseline))
        spread = f"{values.mean():.0%} ({values.min():.0%} to {values.max():.0%})"
        text = f"- {label}: 24 h first-guess error lower by {spread}"
        if label != "mean increment":
            text += f"; better than the mean increment in {better} of {len(values)} seeds"
        lines.append(text)
    return lines


def _table(config, record) -> list[str]:
    hours = record["lead_hours"]
    at = [0, int(np.argmin(np.abs(np.array(hours) - 24))), len(hours) - 1]
    head = [f"{hours[i]:g} h" for i in at]
    lines = [
        f"| correction | first guess, mm/s: {' | '.join(head)} | free run: distributional | spectral | energy / truth "
        "| mean flow error | survivors |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for label, errors in record["first_guess"].items():
        first = [f"{1e3 * v:.2f}" for v in np.mean(np.array(errors)[:, at], 0)]
        runs = [c for c in record["climate"][label] if "distributional" in c]
        names = ("distributional", "spectral", "energy_ratio", "mean_flow_error")
        cells = [_spread([c[name] for c in runs]) if runs else "–" for name in names]
        total = len(record["climate"][label])
        lines.append(f"| {label} | {' | '.join([*first, *cells])} | {len(runs)}/{total} |")
    return lines


def _spread(values) -> str:
    return f"{np.mean(values):.3f} ({min(values):.3f}–{max(values):.3f})"


def figure(path: Path, record: dict, spectra: list[dict]):
    """First-guess error against lead, and kinetic energy spectra of free runs; bands are the range over seeds."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    colours = dict(zip(record["first_guess"], ("#555555", "#e69f00", "#56b4e9", "#009e73", "#d55e00"), strict=True))
    fig, axes = plt.subplots(1, 3, figsize=(12, 3.8), constrained_layout=True)
    for label, errors in record["first_guess"].items():
        e = 1e3 * np.array(errors)
        axes[0].plot(record["lead_hours"], e.mean(0), color=colours[label], label=label, lw=1.8)
        axes[0].fill_between(record["lead_hours"], e.min(0), e.max(0), color=colours[label], alpha=0.2, lw=0)
    axes[0].set(xlabel="lead time (h)", ylabel="velocity error (mm s⁻¹)", title="First guess", ylim=(0, None))
    axes[0].legend(frameon=False, fontsize=8)
    for layer, ax in enumerate(axes[1:]):
        for label in ("truth", *record["first_guess"]):
            lines = [s[label] for s in spectra if label in s]
            if lines:
                kr = lines[0][0] * 1e3
                mean = np.mean([line[1][layer] for line in lines], 0)
                true = label == "truth"
                ax.loglog(kr, mean, label=label, color=colours.get(label, "black"), lw=2.5 if true else 1.4)
        top = max(float(np.max(line[1][layer])) for s in spectra for line in s.values())
        ax.set(xlabel="wavenumber (rad km⁻¹)", title=f"Free run, layer {layer + 1}", ylim=(top * 1e-6, top * 3))
        ax.grid(alpha=0.2)
    axes[1].set_ylabel("kinetic energy spectrum (m³ s⁻²)")
    axes[2].legend(frameon=False, fontsize=8)
    with atomic(path) as temporary:
        fig.savefig(temporary, dpi=150, format="png")
    plt.close(fig)
