"""The figures of the leaderboard: boards in (see `boards.boards`), matplotlib figures out."""

from collections import Counter

import numpy as np

from experiments.closure import tables
from experiments.closure.figures import TERMS
from experiments.closure_benchmark import boards, published
from hybridgcm import draw, plot

MOST = 7
"""Methods drawn beside truth and no closure in figures of lines: those with the smallest product of both errors."""
_BEST = f"Shown are the {MOST} methods with the smallest product of both errors; numbers are those of the table."
SPECTRA = (
    "Time-mean kinetic energy spectra per layer of the truth, coarse-grained, and of free runs at amplitude 1 with the "
    f"first seed; below, the ratio to the truth. Dotted: beyond it no score looks. {_BEST}"
)
BUDGET = (
    "Time-mean spectral energy budget, positive where a term gives energy to a scale; all panels share one scale. "
    "Fluxes of the models contain what their closure does, so that they compare with the truth, whose fluxes contain "
    f"the subgrid part; the whole flux and the generation are part of the spectral error. {_BEST}"
)
COST = (
    "Errors at amplitude 1 (filled) and at the tuned amplitude (hollow) against the cost of a step relative to none; "
    "bars: standard deviation over seeds. Blue: trained on data; orange: nothing trained; grey: no closure. Lines: "
    "published, without closure (dashed) and the best at amplitude 1 (dotted). Numbers are those of the table."
)
SKILL = (
    "Errors of free runs at amplitude 1 against the offline R² of the forcing, mean over layers, on validation truths. "
    "R² below −1 is drawn at −1. Were offline skill enough, points would fall on one falling line."
)
BARS = (
    f"The 18 similarities of the {MOST} methods with the smallest product of errors, one is perfect, zero no better "
    "than no closure, cut off at −1. Diamonds: the best published of each, where there are published ones (other "
    "protocol: 3600 s, the truth not coarse-grained)."
)
TRANSFER = (
    "Errors of one method, trained on the system of the row and scored on that of the column, divided by those of the "
    "model without closure there, mean over seeds: violet is better than no closure, orange worse. Shades end at a "
    "factor of ten. Empty: not run; ×: not all runs finished."
)
_COLORS = {"none": "#8A8A8A", "fixed": "#E69F00", "trained": "#0072B2"}
_TERMS = {"Energy flux, whole": ("KEflux", "APEflux", "paramspec_KEflux", "paramspec_APEflux"), **TERMS}


def title(one) -> str:
    """Number and label of an entry, as legends carry them."""
    return f"{one['number']}  {one['label'].replace(' @ ', chr(10) + '    @ ')}"


def shown(board, have: str = "spectra") -> list[dict]:
    """Entries that figures of lines draw: no closure, then the best `MOST` of those that `have` what is drawn."""
    entries = [one for one in board["entries"] if one[have]]
    bare = [one for one in entries if one["method"] == "none"]
    return bare + sorted((one for one in entries if one["method"] != "none"), key=boards.product)[:MOST]


def spectra(board, truth):
    """Kinetic energy per layer and energy flux, with their ratio to the truth."""
    lines, looks = _lines(board, truth)
    layers = len(np.atleast_2d(truth["spectra"]["KEspec"]))
    panels = {
        f"KE, layer {i + 1} ({draw.unit('m3 s-2')})": {n: np.atleast_2d(a["KEspec"])[i] for n, a in lines.items()}
        for i in range(layers)
    }
    figure = plot.spectra(_rings(lines, truth), panels, styles=looks, reference="Truth")
    for ax in figure.axes:
        ax.axvline(truth["limit"], color="#999999", linewidth=0.8, linestyle=":", zorder=0)
    return figure


def budget(board, truth):
    """Terms of the spectral energy budget, a panel each."""
    lines, looks = _lines(board, truth)
    panels = {}
    for term, names in _TERMS.items():
        sums = {label: [np.asarray(a[n], float) for n in names if n in a] for label, a in lines.items()}
        if sums := {label: sum(parts) for label, parts in sums.items() if parts}:
            panels[term] = sums
    figure = plot.budget(_rings(lines, truth), panels, styles=looks, columns=4)
    for ax in figure.axes[: len(panels)]:
        ax.axvline(truth["limit"], color="#999999", linewidth=0.8, linestyle=":", zorder=0)
    return figure


def cost(board):
    """Both errors over the cost of a step."""
    x = lambda one: one["cost"]["mean"]
    figure = _scatter(board, x, "ms per step / ms per step without closure", tuned=True)
    marks = {"--": board["published"].get("No closure"), ":": published.best(board["system"])}
    for style, pair in marks.items():
        for ax, value in zip(figure.axes, pair or ()):
            ax.axhline(value, color="#777777", linewidth=0.9, linestyle=style, zorder=0)
    figure.axes[0].set_xscale("log", base=2)
    figure.axes[1].set_xscale("log", base=2)
    for ax in figure.axes:
        ax.xaxis.set_major_formatter("{x:g}")
    return figure


def skill(board):
    """Both errors over the offline R²."""

    def mean(one):
        layers = [layer["mean"] for layer in one["offline"]["R2"]]
        return max(float(np.mean(layers)), -1.0) if layers else None

    return _scatter(board, mean, "offline R², mean over layers")


def bars(board):
    """The 18 similarities of the best methods side by side, published bests as diamonds."""
    entries = [one for one in shown(board, "similarities") if one["method"] != "none"]
    theirs = published.similarities(board["system"]).values()
    best = [max((one[name] for one in theirs), default=np.nan) for name in tables.NAMES]
    looks, width = _looks(entries), 0.8 / max(len(entries), 1)
    at = np.arange(len(tables.NAMES))
    with plot.style() as Figure:
        figure = Figure(figsize=(11.4, 3.6), layout="constrained")
        ax = figure.subplots()
        for i, one in enumerate(entries):
            values = [np.clip(one["similarities"].get(name, np.nan), -1, 1) for name in tables.NAMES]
            ax.bar(at + (i + 0.5) * width - 0.4, values, width, color=looks[title(one)]["color"], label=title(one))
        if np.isfinite(best).any():
            ax.plot(at, best, "D", color="black", markersize=4.5, markerfacecolor="white", label="best published")
        ax.axhline(0, color="#444444", linewidth=0.7)
        ax.axvline(9.5, color="#999999", linewidth=0.8, linestyle=":")
        ax.set(ylim=(-1.02, 1.02), xlim=(-0.6, len(at) - 0.4), ylabel="similarity")
        ax.set_xticks(at, tables.NAMES, rotation=35, ha="right", fontsize=8)
        ax.grid(axis="y")
        draw.legend(figure, np.array([[ax]]))
    return figure


def transferred(found) -> list[str]:
    """Methods that were scored on a system that they were not trained on; those of most such rows first."""
    counts = Counter(one["method"] for board in found for one in board["entries"] if one["trained_on"])
    return [method for method, _ in counts.most_common()]


def transfer(method: str, found):
    """Heat map of one method: rows trained on, columns scored on, both errors relative to no closure."""
    cells = {}
    for board in found:
        bare = next((one for one in board["entries"] if one["method"] == "none"), None)
        column = (board["system"], board["data"], board["protocol"])
        for one in board["entries"]:
            if one["method"] == method and bare:
                cells[one["trained_on"] or board["system"], column] = [
                    _ratio(one, bare, name) for name in boards.ERRORS
                ]
    rows, columns = (list(dict.fromkeys(key[i] for key in cells)) for i in (0, 1))
    mixed = len({column[0] for column in columns}) < len(columns)
    names = ["\n".join(column[: 3 if mixed else 1]) for column in columns]
    with plot.style() as Figure:
        size = (2 * (1.0 * len(columns) + 1.2) + 1.6, 0.5 * len(rows) + 1.9)
        figure = Figure(figsize=(max(size[0], 7), size[1]), layout="constrained")
        axes = figure.subplots(1, 2, sharey=True)
        for ax, which in zip(axes, range(2)):
            _heat(ax, cells, rows, columns, which)
            ax.set_xticks(range(len(columns)), names, rotation=30, ha="right", fontsize=7.5)
            ax.set_yticks(range(len(rows)), rows, fontsize=7.5)
            ax.set(title=f"{boards.ERRORS[which]} error / no closure", xlabel="scored on")
        axes[0].set_ylabel("trained on")
        figure.suptitle(method)
    return figure


def _heat(ax, cells, rows, columns, which):
    """One panel of shaded ratios with their numbers."""
    values = np.full((len(rows), len(columns)), np.nan)
    for (row, column), pair in cells.items():
        at = rows.index(row), columns.index(column)
        values[at] = np.nan if pair[which] is None else pair[which]
        ax.annotate(
            "×" if pair[which] is None else f"{pair[which]:.2f}", at[::-1], ha="center", va="center", fontsize=8
        )
    ax.imshow(np.log10(values), cmap="PuOr_r", vmin=-1, vmax=1, aspect="auto")
    ax.spines[["top", "right"]].set_visible(True)
    ax.tick_params(length=0)


def _ratio(one, bare, name):
    ours, theirs = one["unit"][name]["mean"], bare["unit"][name]["mean"]
    return ours / theirs if ours is not None and theirs else None


def _scatter(board, x, label: str, tuned: bool = False):
    """Both errors over x, a panel each, numbered as in the table."""
    with plot.style() as Figure:
        figure = Figure(figsize=(10.4, 3.6), layout="constrained")
        for ax, name in zip(figure.subplots(1, 2), boards.ERRORS):
            for one in board["entries"]:
                for kind in ("tuned", "unit") if tuned else ("unit",):
                    _point(ax, one, x(one), one[kind][name], hollow=kind == "tuned")
            ax.set(yscale="log", xlabel=label, title=f"{name} error")
            draw.decimals(ax.yaxis)
            ax.margins(0.08)
            ax.grid(True)
    return figure


def _point(ax, one, x, value, hollow: bool):
    if x is None or not value["mean"]:
        return
    color, mean = _COLORS[one["kind"]], value["mean"]
    low = min(value["deviation"] or 0.0, 0.9 * mean)  # the axis is logarithmic
    look = {"markerfacecolor": "white" if hollow else color, "markersize": 5.5 if hollow else 7, "linewidth": 1}
    ax.errorbar(x, mean, [[low], [value["deviation"] or 0.0]], fmt="o", color=color, zorder=3 if hollow else 4, **look)
    if not hollow:
        ax.annotate(str(one["number"]), (x, mean), (5, 3), textcoords="offset points", fontsize=8, zorder=9)


def _lines(board, truth):
    """{label: spectra} of the truth and of what is shown, cut to common rings, and the looks of their lines."""
    entries = shown(board)
    lines = {"Truth": truth["spectra"]} | {title(one): one["spectra"] for one in entries}
    rings = min(np.shape(a["KEspec"])[-1] for a in lines.values())
    cut = {label: {name: np.asarray(a, float)[..., :rings] for name, a in one.items()} for label, one in lines.items()}
    looks = plot.line_styles({"Truth": ("truth", "Truth")}) | _looks(entries)
    return cut, looks


def _looks(entries) -> dict[str, dict]:
    colored = [one for one in entries if one["method"] != "none"]
    looks = {title(one): {"color": _COLORS["none"], "linewidth": 1.8, "zorder": 3} for one in entries}
    for color, one in zip(draw.PALETTE, colored):
        looks[title(one)] = {"color": color, "linewidth": 1.7 if one["kind"] == "trained" else 1.1, "zorder": 4}
    return looks


def _rings(lines, truth):
    return np.asarray(truth["kr"], float)[: np.shape(lines["Truth"]["KEspec"])[-1]]
