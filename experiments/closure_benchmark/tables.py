"""The tables of the leaderboard, once for Markdown and for HTML: plain data of `boards` in, text out."""

import html
import re
from collections.abc import Mapping

from experiments.closure import tables
from experiments.closure_benchmark import boards, published

HEADS = (
    *("method", "seeds", "free runs", "distributional error", "spectral error", "tuned amplitude"),
    *("distributional error, tuned", "spectral error, tuned", "R² per layer", "correlation per layer"),
    *("forecast, days", "survivors", "cost, none = 1", "training, s", "code"),
)
NOTE = (
    "Mean ± standard deviation over training seeds; errors at amplitude 1, then with the closure multiplied by the one "
    "number that served best on the tuning climate. Zero is perfect. Free runs: finished of started, all seeds; a "
    "method has errors only where all runs of a seed finished. R² and correlation: forcing against subgrid forcing on "
    "validation truths. Survivors: of the long runs. ° fewer than five trainings or ten free runs. Underlined: lowest "
    "error of this table. The published rows come from other code and other samples. Cost: time per step over that of "
    "the model without closure, measured in the same process; code: digest of the package that made the rows."
)


def markdown(board: Mapping) -> str:
    """A board as a Markdown table with its failures below."""
    heads, rows = _grid(board)
    line = lambda cells: f"| {' | '.join(text.replace('|', '/') for text in cells)} |"
    body = [line(heads), line("---" for _ in heads), *(line(text for text, _ in cells) for _, cells in rows)]
    notes = [f"{label}: {reason}" for label, reason in reasons(board)]
    return "\n".join(body + [f"\nFailed: {note}" for note in notes])


def scores(board: Mapping) -> str:
    """A board as an HTML table with its failures and a note below."""
    heads, rows = _grid(board)
    body, split = [], False
    for kind, cells in rows:
        mine = kind != "published"
        if not mine and not split:
            body.append(tables.heading(f"Published, other code, trained on eddy: {published.PEREZHOGIN}", len(heads)))
            split = True
        shown = "".join(f'<td class="{mark}">{_stacked(text)}</td>' for text, mark in cells[1:])
        name = html.escape(cells[0][0].removesuffix(", published"))
        name = name.replace(" (", "<br><small>(") + "</small>" if mine else name
        body.append(f'<tr class="{kind}"><th scope="row">{name}</th>{shown}</tr>')
    failed = "".join(f"<li><b>{html.escape(a)}</b>: {html.escape(b)}</li>" for a, b in reasons(board))
    below = f'<p>Failed:</p><ul class="bad">{failed}</ul>' if failed else ""
    return (
        tables.table([re.sub(r", | (?=error|per|amplitude)", "<br>", head) for head in heads], body, NOTE, "board")
        + below
    )


def similarities(board: Mapping) -> str:
    """The 18 similarities of every method in shades, with the published ones of its flow; empty without any."""
    models = {
        f"{one['number']}  {one['label']}": {"kind": "classical", "similarities": one["similarities"]}
        for one in board["entries"] if len(one["similarities"]) == len(tables.NAMES) and one["method"] != "none"
    }  # fmt: skip
    if not models:
        return ""
    theirs = {"similarities": published.similarities(board["system"])}
    return tables.similarities({"models": models, "published": theirs})


def yardstick(everything: list[Mapping]) -> tuple[list[str], list[list[str]]]:
    """Heads and rows: the model without closure, ours beside the published one, for every board that has both."""
    rows = []
    for board in everything:
        ours = next((one["unit"] for one in board["entries"] if one["method"] == "none"), None)
        theirs = board["published"].get("No closure")
        if not ours or not theirs or ours["spectral"]["mean"] is None:
            continue
        pairs = [(ours[name]["mean"], value) for name, value in zip(boards.ERRORS, theirs)]
        cells = [f"{a:.4f} / {b:.4f}, {100 * (a / b - 1):+.0f} %" for a, b in pairs]
        rows.append([board["system"], board["data"], str(ours["runs"]), *cells])
    return ["system", "data", "free runs", "distributional, ours / published", "spectral, ours / published"], rows


def reasons(board: Mapping) -> list[tuple[str, str]]:
    """(method and seeds, reason) of every failure, equal reasons together."""
    found = {}
    for one in board["entries"]:
        for seed, reason in one["failed"].items():
            found.setdefault((one["label"], reason), []).append(seed)
    return [(f"{label}, seed {', '.join(seeds)}", reason) for (label, reason), seeds in found.items()]


def _grid(board):
    """Heads, and (kind of row, [(text, class)]) of every row; columns that nobody fills are left out but the first."""
    names = list(dict.fromkeys(name for one in board["entries"] for name in one["calibration"]))
    heads = [*HEADS[:-1], *(name.replace("_", " ") for name in names), HEADS[-1]]
    best = {
        name: min((one["unit"][name]["mean"] for one in board["entries"] if one["unit"][name]["mean"] is not None),
                  default=None) for name in boards.ERRORS
    }  # fmt: skip
    rows = [(_look(one), _own(one, names, best)) for one in board["entries"]]
    rows += [("published", _theirs(name, pair, len(heads))) for name, pair in board["published"].items()]
    used = [i < 5 or any(cells[i][0] not in ("", "–") for _, cells in rows) for i in range(len(heads))]
    kept = lambda items: [item for item, keep in zip(items, used) if keep]
    return kept(heads), [(kind, kept(cells)) for kind, cells in rows]


def _stacked(text: str) -> str:
    """A cell's text as HTML: deviations small below, layers below each other."""
    mean, found, deviation = html.escape(text).partition(" ± ")
    return mean.replace(" / ", "<br>") + (f"<br><small>± {deviation}</small>" if found else "")


def _look(one) -> str:
    return {"none": "none", "fixed": "classical", "trained": "offline"}[one["kind"]]


def _own(one, names, best):
    unit, tuned = one["unit"], one["tuned"]
    seeds = f"{one['scored']} of {len(one['seeds'])}" if one["scored"] < len(one["seeds"]) else str(one["scored"])
    runs = f"{unit['finished']} of {unit['runs']}" if unit["runs"] else "failed" if one["failed"] else "–"
    bad = "bad" if one["failed"] or unit["finished"] < unit["runs"] else ""
    name = f"{one['number']}{'' if boards.enough(one) else '°'}  {one['title']} ({one['label']})"
    marks = ["best" if unit[n]["mean"] is not None and unit[n]["mean"] == best[n] else "" for n in boards.ERRORS]
    survival = one["survival"]
    alive = f"{survival['survivors']} of {survival['attempts']}" if survival else "–"
    return [
        (name, ""), (seeds, bad), (runs, bad),
        *((_spread(unit[n], ".4f"), mark) for n, mark in zip(boards.ERRORS, marks)),
        ("–" if one["kind"] == "none" else _spread(tuned["amplitude"], ".3g"), ""),
        *((_spread(tuned[n], ".4f"), "") for n in boards.ERRORS),
        (_pair(one["offline"]["R2"]), ""), (_pair(one["offline"]["correlation"]), ""),
        (_spread(one["forecast_days"], ".1f"), ""),
        (alive, "bad" if survival and survival["survivors"] < survival["attempts"] else ""),
        (tables.number(one["cost"]["mean"], ".2f"), ""), (_seconds(one), ""),
        *((_spread(one["calibration"].get(n), ".3g"), "") for n in names),
        (" ".join(code[:7] for code in one["code"]), ""),
    ]  # fmt: skip


def _theirs(name, pair, columns):
    cells = [("", "")] * columns
    label, _, amplitude = name.partition(" × ")
    cells[0] = (f"{label}, published", "")
    if amplitude:
        cells[5] = (f"0{amplitude}", "")
    start = 6 if amplitude else 3
    cells[start : start + 2] = [(f"{value:.4f}", "") for value in pair]
    return cells


def _spread(value, form: str) -> str:
    if not value or value["mean"] is None:
        return "–"
    deviation = value["deviation"]
    return tables.number(value["mean"], form) + (f" ± {deviation:{form}}" if deviation is not None else "")


def _pair(layers) -> str:
    return " / ".join(tables.number(one["mean"], ".2f") for one in layers) or "–"


def _seconds(one) -> str:
    return tables.number(one["training_seconds"]["mean"], ",.0f") if one["kind"] == "trained" else "–"
