"""Table and figures of the learned operators."""

import json
from pathlib import Path

import numpy as np

from experiments.operators import stages
from hybridgcm import draw, plot
from hybridgcm.files import atomic

PUBLISHED = {
    "darcy": {
        "neuraloperator, FNO, 191,881 weights, after 10 of 15 epochs": (0.1329, 0.2048, 0.1616, 0.3424),
        "neuraloperator, FNO, 340,833 weights, after 18 of 20": (0.1009, 0.1839, 0.1255, 0.3334),
        "neuraloperator, UNO, 1,405,761 weights, after 25 of 30": (0.1102, 0.2009, 0.1460, 0.3871),
    },
    "burgers": {},
    "burgers1d": {
        f"Li et al. (2021), {name}, trained at each size": [cell for l2 in errors for cell in (l2, None)]
        for name, errors in {
            "FCN": (0.0958, 0.1407, 0.1877, 0.2313, 0.2855, 0.3238),
            "PCA-NN": (0.0398, 0.0395, 0.0391, 0.0383, 0.0392, 0.0393),
            "LNO": (0.0212, 0.0221, 0.0217, 0.0219, 0.0200, 0.0189),
            "FNO": (0.0149, 0.0158, 0.0160, 0.0146, 0.0142, 0.0139),
        }.items()
    },
}
"""L2 and H1 errors, part after part. Darcy: printed by the examples of neuraloperator 2.0's documentation, at 16² and
32², one run each. Circle: Li et al. (2021), arXiv:2010.08895, table 3, on pairs of the same equation of theirs."""
TITLES = {"darcy": "Darcy flow", "burgers": "Burgers' equation", "burgers1d": "Burgers' equation on the circle"}


def write(folder: Path, config, found: dict) -> Path:
    """report.json, samples-*.png, curves.png and report.md; returns the last."""
    table = {problem: {name: _over_seeds(runs) for name, runs in methods.items()} for problem, methods in found.items()}
    with atomic(folder / "report.json") as temporary:
        temporary.write_text(json.dumps(table, indent=1))
    shown = [problem for problem in found if _networks(found[problem])]
    for problem in shown:
        _save(_samples(folder, problem, found[problem]), folder / f"samples-{problem}.png")
    _save(_curves(folder, found), folder / "curves.png")
    with atomic(folder / "report.md") as temporary:
        temporary.write_text(_text(config, table))
    return folder / "report.md"


def _over_seeds(runs: list[dict]) -> dict:
    """{part: {score: (mean, lowest, highest)}} and what else is known of the runs."""
    parts = [key for key, value in runs[0].items() if isinstance(value, dict)]
    three = lambda values: [float(f(values)) for f in (np.mean, np.min, np.max)]
    scores = {part: {name: three([run[part][name] for run in runs]) for name in runs[0][part]} for part in parts}
    rest = {key: runs[0][key] for key in ("weights", "epochs", "seconds") if key in runs[0]}
    if "seconds per epoch" in runs[0]:
        rest["seconds per epoch"] = float(np.median([run["seconds per epoch"] for run in runs]))
    return {"scores": scores, "runs": len(runs), **rest}


def _text(config, table: dict) -> str:
    lines = ["# Operators learned from pairs", ""]
    for problem, methods in table.items():
        file = getattr(config, problem, "")
        parts = list(next(iter(methods.values()))["scores"])
        source = Path(file).name if file else "made by `hybridgcm.pairs`"
        about = f"Relative errors of test pairs; networks: mean of {config.seeds} (lowest to highest)."
        lines += [f"## {TITLES[problem]}", "", f"Pairs: {source}. {about}", ""]
        heads = ["", "weights", "epochs", *(f"{norm}, {part}" for part in parts for norm in ("L2", "H1"))]
        lines += [f"| {' | '.join(heads)} |", f"| --- | {' | '.join('---:' for _ in heads[1:])} |"]
        same = (config.burgers1d_points, config.burgers1d_finest) == (256, 8192)
        comparable = same if problem == "burgers1d" else file and (config.hidden, config.modes) == (24, 8)
        for name, cells in PUBLISHED[problem].items() if comparable else ():
            told = " | ".join("–" if cell is None else f"{cell:.4f}" for cell in cells)
            lines.append(f"| *{name}* | – | – | {told} |")
        for name, row in methods.items():
            cells = [_cell(row["scores"][part][norm]) for part in parts for norm in ("l2", "h1")]
            weights = f"{row['weights']:,}" if "weights" in row else "–"
            lines.append(f"| {name} | {weights} | {row.get('epochs', '–')} | {' | '.join(cells)} |")
        times = {name: row["seconds per epoch"] for name, row in methods.items() if "seconds per epoch" in row}
        told = ", ".join(f"{seconds:.2f} s ({name.removeprefix('FNO, ')})"
                         for name, seconds in times.items() if "symmetrised" not in name)  # fmt: skip
        if times:
            lines += ["", f"An epoch of training takes {told} here (median).", "",
                      f"![samples](samples-{problem}.png)", ""]  # fmt: skip
    return "\n".join([*lines, "![training](curves.png)", ""])


def _cell(three) -> str:
    value, low, high = (f"{number:.4f}" for number in three)
    return value if low == high else f"{value} ({low} to {high})"


def _networks(methods: dict) -> dict[str, list]:
    return {name: runs for name, runs in methods.items() if name.startswith("FNO") and "symmetrised" not in name}


def _samples(folder: Path, problem: str, methods: dict, count: int = 3):
    """Input, truth, prediction and error of a recipe's first network, a test pair a row."""
    source, target = stages.NAMES[problem]
    data = next((folder / "stages").glob(f"pairs-{problem}-*"))
    preferred = [name for name in (f"FNO, {problem}", "FNO, symmetric") if name in methods]
    name = [*preferred, *_networks(methods)][0]
    runs = methods[name]
    part = next(key for key, value in runs[0].items() if isinstance(value, dict))
    pair = stages.load(data)[part]
    model = stages.operator(folder / "stages" / runs[0]["folder"])
    recipe = stages.RECIPES[name.removeprefix("FNO, ")]
    made = np.asarray(stages.PREDICT(model, stages.stacked(recipe, pair)))
    if made.ndim == 3:
        return _lines(pair[source], pair[target], made, count)
    with plot.style() as Figure:
        figure = Figure(figsize=(7.2, 1.75 * count), layout="constrained")
        axes = figure.subplots(count, 4, squeeze=False, sharex=True, sharey=True)
        for row, i in zip(axes, range(count)):
            truth, guess = pair[target][i, 0], made[i, 0]
            bound = float(np.abs(truth).max())
            panels = (("input", pair[source][i, 0], None), ("truth", truth, bound), ("network", guess, bound),
                      ("network − truth", guess - truth, float(np.abs(guess - truth).max())))  # fmt: skip
            for ax, (title, field, limit) in zip(row, panels):
                limit = limit or float(np.abs(field).max())
                image = ax.imshow(field, origin="lower", vmin=-limit, vmax=limit, cmap=plot.diverging())
                ax.set_title(title if i == 0 else "")
                ax.set(xticks=[], yticks=[])
                figure.colorbar(image, ax=ax, shrink=0.8)
    return figure


def _lines(inputs, truths, made, count: int):
    """Input, truth with prediction, and error on a circle, a test pair a row."""
    with plot.style() as Figure:
        figure = Figure(figsize=(7.2, 1.5 * count), layout="constrained")
        axes = figure.subplots(count, 3, squeeze=False, sharex=True)
        for i, row in enumerate(axes):
            x = np.arange(truths.shape[-1]) / truths.shape[-1]
            panels = (("input", [inputs]), ("truth and network", [truths, made]), ("network − truth", [made - truths]))
            for ax, (title, fields) in zip(row, panels):
                for field, style, color in zip(fields, ("-", "--"), draw.PALETTE):
                    ax.plot(x, field[i, 0], style, color=color)
                ax.set_title(title if i == 0 else "")
                ax.grid(True)
    return figure


def _curves(folder: Path, found: dict):
    """Relative L2 error of test pairs after every epoch, a line per network."""
    recipes = [(problem, name, runs) for problem in found for name, runs in _networks(found[problem]).items()]
    with plot.style() as Figure:
        figure = Figure(figsize=(2.6 * len(recipes), 2.4), layout="constrained")
        for ax, (problem, name, runs) in zip(figure.subplots(1, len(recipes), squeeze=False)[0], recipes):
            for run in runs:
                curve = json.loads((folder / "stages" / run["folder"] / "curve.json").read_text())
                test = np.array(curve["test"], float)
                for part, line, color in zip(curve["parts"], test.T, draw.PALETTE):
                    ax.plot(np.arange(1, len(line) + 1), line, color=color, label=part if run is runs[0] else None)
            ax.set(title=f"{TITLES[problem]}, {name.removeprefix('FNO, ')}", xlabel="epoch", yscale="log")
            ax.set_ylabel("relative L2 error")
            ax.legend()
            ax.grid(True)
    return figure


def _save(figure, path: Path):
    with atomic(path) as temporary, plot.style():
        figure.savefig(temporary, format="png", dpi=130)
