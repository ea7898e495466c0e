"""Tables and figures of pre-training and what it is worth downstream."""

import json
from pathlib import Path

import numpy as np

from experiments.foundation.problems import DRAWN, TITLES
from hybridgcm import draw, plot
from hybridgcm.files import atomic

STARTS = {
    "fine": ("fine-tuned", draw.PALETTE[1], "-"),
    "scratch": ("from scratch", draw.PALETTE[0], "--"),
    "equation": ("fine-tuned without solutions", draw.PALETTE[2], ":"),
}


def write(folder: Path, config, found: dict) -> Path:
    """report.json, data.png, shifts.png, sizes.png, mixed.png and report.md; returns the last."""
    with atomic(folder / "report.json") as temporary:
        temporary.write_text(json.dumps(found, indent=1))
    table = Found(config, found)
    figures = {"data": _data, "shifts": _shifts, "sizes": _sizes} | ({"mixed": _mixed} if table.mixed else {})
    for name, figure in figures.items():
        with atomic(folder / f"{name}.png") as temporary, plot.style():
            figure(table).savefig(temporary, format="png", dpi=130)
    with atomic(folder / "report.md") as temporary:
        temporary.write_text(_text(table, list(figures)))
    return folder / "report.md"


class Found:
    """What the stages found, by what one asks for: arrays over seeds."""

    def __init__(self, config, found: dict):
        self.config, self.found = config, found
        single = [label for label in found["before"] if "+" not in label]
        self.main = {s: max((a for a in single if a.startswith(f"{s}-")), key=_count) for s in config.systems}
        self.sizes = sorted((a for a in single if a.startswith(f"{config.systems[0]}-")), key=_count)
        self.mixed = next((label for label in found["before"] if "+" in label), None)
        self.middle = config.examples[len(config.examples) // 2]

    def before(self, network: str, system: str, shift: str) -> np.ndarray:
        """Errors of a network as it was pre-trained."""
        return np.array([run["errors"][system][shift] for run in self.found["before"][network]])

    def after(self, network: str, system: str, shift: str, start: str, count: int) -> np.ndarray | None:
        """Errors of a network after training downstream; None where that was not asked for."""
        runs = self.found["after"].get(f"{system} {shift} {network} {start} {count}")
        return None if runs is None else np.array([run["error"] for run in runs])

    def curve(self, system: str, start: str) -> tuple[list[int], np.ndarray]:
        """Numbers of pairs and errors `[count, seed]` at the medium shift."""
        errors = {n: self.after(self.main[system], system, "medium", start, n) for n in self.config.examples}
        known = {n: e for n, e in errors.items() if e is not None}
        return list(known), np.array(list(known.values()))


def saving(counts, fine, scratch) -> list[tuple[int, float, bool]]:
    """(n, how many times as many pairs from scratch give the error of n fine-tuned, whether at least so many).

    From scratch errors fall with the number of pairs as straight lines between the points in logarithms.
    """
    logs = np.log(np.minimum.accumulate(scratch))
    out = []
    for n, error in zip(counts, np.log(fine), strict=True):
        beyond = error < logs[-1]
        wanted = np.log(counts[-1]) if beyond else np.interp(-error, -logs, np.log(counts))
        out.append((n, float(np.exp(wanted) / n), bool(beyond)))
    return out


def _count(label: str) -> int:
    return int(label.rsplit("-", 1)[1])


def _cell(errors) -> str:
    if errors is None:
        return "–"
    three = lambda a: f"{a:.1f}" if a >= 1 else f"{a:.4f}".lstrip("0") if a > 5e-5 else f"{a:.0e}"
    low, middle, high = (three(f(errors)) for f in (np.min, np.mean, np.max))
    return middle if len(errors) == 1 else f"{middle} ({low} to {high})"


def _rows(heads, rows) -> list[str]:
    lines = [f"| {' | '.join(heads)} |", f"| --- |{' ---: |' * (len(heads) - 1)}"]
    return [*lines, *(f"| {' | '.join(map(str, row))} |" for row in rows), ""]


def _text(table: Found, figures: list[str]) -> str:
    config, first = table.config, table.config.systems[0]
    lines = [
        "# Pre-trained operators downstream", "",
        f"{config.n}², {config.train} pairs of each operator for pre-training, {config.tests} for testing. Mean "
        f"relative L2 errors over {config.seeds} networks (lowest to highest).", "",
    ]  # fmt: skip
    lines += _downstream(table)
    lines += ["## Shifts", ""]
    for system in config.systems:
        shifts = [shift for shift in DRAWN[system][1] if shift != "before"]
        name, ranges = DRAWN[system]
        lines += [f"{TITLES[system]}, {name} {_range(ranges['before'])} in pre-training:", ""]
        heads = ["shift", name, "none of it seen", f"fine-tuned, {table.middle}", f"from scratch, {table.middle}"]
        own = ["as pre-trained", _range(ranges["before"]), _cell(table.before(table.main[system], system, "before"))]
        three = {shift: map(_cell, _three(table, table.main[system], system, shift)) for shift in shifts}
        lines += _rows(heads, [[*own, "–", "–"], *([s, _range(ranges[s]), *three[s]] for s in shifts)])
    lines += ["## Sizes", ""]
    about = lambda label: [
        f"{_count(label):,}", *(_cell(table.before(label, first, shift)) for shift in ("before", "medium")),
        *(_cell(table.after(label, first, "medium", start, table.middle)) for start in ("fine", "scratch")),
        f"{np.mean([run['seconds'] for run in table.found['before'][label]]):.0f}",
    ]  # fmt: skip
    heads = ["weights", "as pre-trained", "medium, none seen", f"fine-tuned, {table.middle}",
             f"from scratch, {table.middle}", "pre-training, s"]  # fmt: skip
    lines += _rows(heads, [about(label) for label in table.sizes])
    if table.mixed:
        lines += ["## One network for all operators", ""] + _one_for_all(table)
    return "\n".join(lines + [f"![{name}]({name}.png)\n" for name in figures])


def _downstream(table: Found) -> list[str]:
    lines = []
    for system in table.config.systems:
        counts, fine = table.curve(system, "fine")
        rows = [["zero-shot", _cell(table.before(table.main[system], system, "medium")), *["–"] * (len(counts) - 1)]]
        for start, (title, *_) in STARTS.items():
            cells = [table.after(table.main[system], system, "medium", start, n) for n in counts]
            if any(cell is not None for cell in cells):
                rows.append([title, *map(_cell, cells)])
        for name, errors in table.found["simple"][system].items():
            rows.append([f"*{name}*", *(_cell(np.array(errors[str(n)])) for n in counts)])
        name, ranges = DRAWN[system]
        lines += [f"## {TITLES[system]}: {name} {_range(ranges['before'])}, downstream {_range(ranges['medium'])}", ""]
        lines += _rows(["pairs downstream", *map(str, counts)], rows)
        scratch = table.curve(system, "scratch")[1]
        told = [
            f"{'more than ' if beyond else ''}{factor:.0f} ({n} pairs)"
            for n, factor, beyond in saving(counts, fine.mean(1), scratch.mean(1))
        ]
        lines += [f"Pairs from scratch for the error of one fine-tuned: {', '.join(told)}.", ""]
    return lines


def _one_for_all(table: Found) -> list[str]:
    panels = _panels(table).values()
    row = lambda system: [_cell(pick(n, system)) for pick in panels for n in (table.main[system], table.mixed)]
    rows = [[TITLES[system], *row(system)] for system in table.config.systems]
    heads = ["", "none, own", "none, mixed", "medium, own", "medium, mixed"]
    return _rows([*heads, f"fine-tuned {table.middle}, own", f"fine-tuned {table.middle}, mixed"], rows)


def _range(pair) -> str:
    return f"{pair[0]:g} to {pair[1]:g}"


def _band(ax, x, errors, color, style, label):
    errors = np.asarray(errors)
    ax.fill_between(x, errors.min(1), errors.max(1), color=color, alpha=0.2, lw=0)
    ax.plot(x, errors.mean(1), color=color, ls=style, marker="o", ms=3, label=label)


def _data(table: Found):
    """Error against pairs downstream, an operator a panel: figure 3 of the paper."""
    systems = table.config.systems
    with plot.style() as Figure:
        figure = Figure(figsize=(1.2 + 2.6 * len(systems), 2.9), layout="constrained")
        for ax, system in zip(figure.subplots(1, len(systems), squeeze=False, sharey=True)[0], systems):
            for start, (label, color, style) in STARTS.items():
                counts, errors = table.curve(system, start)
                if counts:
                    _band(ax, counts, errors, color, style, label)
            zero = table.before(table.main[system], system, "medium").mean()
            ax.axhline(zero, color="0.5", lw=1, ls="-.", label="zero-shot")
            own = table.before(table.main[system], system, "before").mean()
            ax.axhline(own, color="0.75", lw=1, label="as pre-trained, no shift")
            ax.set(xscale="log", yscale="log", xlabel="pairs downstream", title=TITLES[system])
            _ticks(ax, table.curve(system, "fine")[0])
        figure.axes[0].set_ylabel("relative L2 error")
        handles = {label: handle for ax in figure.axes for handle, label in zip(*ax.get_legend_handles_labels())}
        figure.legend(handles.values(), handles, loc="outside lower center", ncols=3)
    return figure


def _ticks(ax, places):
    """Marks at these places alone; on the other axis at the powers of ten that it has."""
    ax.set_xticks(places, [f"{place:,}" for place in places])
    ax.set_xticks([], minor=True)
    ax.grid(True, axis="y", which="both")
    ax.grid(True, axis="x")


def _bars(ax, groups, series):
    """Bars of means with the range over seeds; series: {label: (color, errors by group)}."""
    width = 0.8 / len(series)
    for number, (label, (color, errors)) in enumerate(series.items()):
        place = [i + (number - (len(series) - 1) / 2) * width for i, e in enumerate(errors) if e is not None]
        known = [e for e in errors if e is not None]
        mean = np.array([e.mean() for e in known])
        spread = np.array([[m - e.min(), e.max() - m] for m, e in zip(mean, known)]).T
        ax.bar(place, mean, width * 0.92, yerr=spread, color=color, label=label, error_kw={"lw": 0.8})
    ax.set(xticks=range(len(groups)), yscale="log", ylabel="relative L2 error")
    ax.set_xticklabels(groups)
    ax.grid(True, axis="y")


def _three(table: Found, network: str, system: str, shift: str):
    return (
        table.before(network, system, shift),
        *(table.after(network, system, shift, start, table.middle) for start in ("fine", "scratch")),
    )


def _labels(table: Found):
    middle = table.middle
    names = "zero-shot", f"fine-tuned, {middle} pairs", f"from scratch, {middle} pairs"
    return list(zip(names, ("0.6", STARTS["fine"][1], STARTS["scratch"][1])))


def _shifts(table: Found):
    """Error by how far the problem moved."""
    system = table.config.systems[0]
    shifts = [shift for shift in DRAWN[system][1] if shift != "before"]
    columns = list(zip(*(_three(table, table.main[system], system, shift) for shift in shifts)))
    with plot.style() as Figure:
        figure = Figure(figsize=(5.2, 2.9), layout="constrained")
        ax = figure.subplots()
        series = {label: (color, column) for (label, color), column in zip(_labels(table), columns)}
        _bars(ax, [f"{shift}\n{_range(DRAWN[system][1][shift])}" for shift in shifts], series)
        ax.set_xlabel(f"{TITLES[system]}: {DRAWN[system][0]} downstream")
        ax.legend()
    return figure


def _sizes(table: Found):
    """Error by weights of the network: figure 5 of the paper."""
    system = table.config.systems[0]
    weights = [_count(label) for label in table.sizes]
    with plot.style() as Figure:
        figure = Figure(figsize=(5.2, 3.4), layout="constrained")
        ax = figure.subplots()
        own = [table.before(label, system, "before") for label in table.sizes]
        _band(ax, weights, own, "0.75", "-", "as pre-trained, no shift")
        columns = zip(*(_three(table, label, system, "medium") for label in table.sizes))
        for (label, color), errors in zip(_labels(table), columns):
            _band(ax, weights, errors, color, "-", f"medium shift, {label}")
        ax.set(xscale="log", yscale="log", xlabel="weights", ylabel="relative L2 error", title=TITLES[system])
        _ticks(ax, weights)
        figure.legend(loc="outside lower center", ncols=2)
    return figure


def _mixed(table: Found):
    """Networks of one operator beside that of all: figure 6 of the paper."""
    systems = table.config.systems
    with plot.style() as Figure:
        figure = Figure(figsize=(7.2, 2.9), layout="constrained")
        for ax, (title, pick) in zip(figure.subplots(1, 3, sharey=True), _panels(table).items()):
            series = {
                "pre-trained on its operator": (draw.PALETTE[1], [pick(table.main[s], s) for s in systems]),
                "pre-trained on all": (draw.PALETTE[3], [pick(table.mixed, s) for s in systems]),
            }
            _bars(ax, [TITLES[s].replace("–", "–\n") for s in systems], series)
            ax.set(title=title, ylabel="" if ax is not figure.axes[0] else "relative L2 error")
        handles, labels = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=2)
    return figure


def _panels(table: Found):
    return {
        "no shift, zero-shot": lambda network, s: table.before(network, s, "none"),
        "medium shift, zero-shot": lambda network, s: table.before(network, s, "medium"),
        f"medium, {table.middle} pairs": lambda network, s: table.after(network, s, "medium", "fine", table.middle),
    }
