"""The leaderboard: Markdown, HTML and JSON from rows, without computing anything anew.

    python experiments/closure_benchmark/leaderboard.py runs/closure_benchmark/full [further folders] [--out FOLDER]

Folders are those of benchmark runs or of compact collections (`collect.py`); without any, the one that the repository
carries. The files are written into the first folder of a run, or to `--out`.
"""

import argparse
import html
import json
import sys
from collections.abc import Mapping
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from experiments.closure import page  # noqa: E402
from experiments.closure.tables import pairs, table  # noqa: E402
from experiments.closure_benchmark import boards, collect, figures, tables  # noqa: E402
from hybridgcm.files import atomic  # noqa: E402

TITLE = "Closure benchmark: leaderboard"
ABSTRACT = (
    "Subgrid closures of coarse models, judged by free runs: how far the distributions and the spectra of the model's "
    "climate are from those of a coarse-grained truth of higher resolution, which no closure has seen. One table per "
    "system, FLOW-POINTS-OPERATOR-STEP. Errors are those of Perezhogin et al. (2023), doi:10.1029/2023MS003681, "
    "similarities those of Ross et al. (2023), doi:10.1029/2022MS003258; published numbers are rows of their own."
)


def write(root, *more, out=None) -> Path:
    """Write leaderboard.md, .html and .json of the rows in `root` and `more` (see `collect.read`); returns the page.

    `out`: their folder, by default `root`. Raises `ValueError` if there are no rows.
    """
    collection = collect.read(root, *more)
    found = boards.boards(collection["rows"])
    out = Path(out or root)
    out.mkdir(parents=True, exist_ok=True)
    for name, text in (("md", _markdown(found)), ("json", _json(found, collection))):
        with atomic(out / f"leaderboard.{name}") as temporary:
            temporary.write_text(text, encoding="utf-8")
    dates = sorted(date for board in found for one in board["entries"] for date in one["dates"])
    byline = f"{len(collection['rows'])} rows of {len(found)} systems · {dates[0]} to {dates[-1]}"
    return page.write_page(out / "leaderboard.html", TITLE, byline, ABSTRACT, _parts(found, collection))


def name(board: Mapping, others: list[Mapping]) -> str:
    """The system, with the versions where another board has the same one."""
    twins = sum(other["system"] == board["system"] for other in others) > 1
    return board["system"] + (f" · data {board['data']}, protocol {board['protocol']}" if twins else "")


def _json(found, collection) -> str:
    """Everything that the tables show, and every row that they were made of; spectra stay with the rows."""
    entries = lambda board: [{n: v for n, v in one.items() if n != "spectra"} for one in board["entries"]]
    whole = {
        "warnings": boards.warnings(found),
        "boards": [board | {"entries": entries(board)} for board in found],
        "rows": collection["rows"],
    }
    return json.dumps(whole, indent=1)


def _markdown(found) -> str:
    heads, rows = tables.yardstick(found)
    line = lambda cells: f"| {' | '.join(cells)} |"
    lines = [f"# {TITLE}", "", ABSTRACT, ""]
    lines += [f"> **Note.** {text}\n" for text in boards.warnings(found)]
    if rows:
        lines += ["## No closure, against the published numbers", "", line(heads), line(["---"] * len(heads))]
        lines += [*map(line, rows), ""]
    for board in found:
        versions = f"Data version `{board['data']}`, protocol `{board['protocol']}`."
        lines += [f"## {name(board, found)}", "", versions, "", tables.markdown(board), ""]
    return "\n".join([*lines, tables.NOTE, ""])


def _parts(found, collection):
    """(anchor, heading, HTML) of the page."""
    notes = "".join(f"<li>{html.escape(text)}</li>" for text in boards.warnings(found))
    heads, rows = tables.yardstick(found)
    rows = ["<tr><th>{}</th>{}</tr>".format(row[0], "".join(f"<td>{cell}</td>" for cell in row[1:])) for row in rows]
    same = "Closures compare with published ones only where these agree within what the samples leave to chance."
    parts = [("warnings", "Before you compare", f'<ul class="verdict">{notes}</ul>' if notes else "")]
    parts.append(("yardstick", "No closure, against the published numbers", table(heads, rows, same) if rows else ""))
    for number, board in enumerate(found):
        versions = f"<p>Data version <code>{board['data']}</code>, protocol <code>{board['protocol']}</code>.</p>"
        truth = collection["truths"].get(board["system"], {}).get(board["data"])
        body = versions + tables.scores(board) + _figures(board, truth)
        parts.append((f"system-{number}", html.escape(name(board, found)), body))
    parts.append(("transfer", "Trained on, scored on", _transfer(found)))
    parts.append(("provenance", "Provenance", _provenance(collection["rows"])))
    return parts


def _figures(board, truth) -> str:
    title, out = board["system"], ""
    if truth and any(one["spectra"] for one in board["entries"]):
        out += page.plate(figures.spectra(board, truth), figures.SPECTRA, f"Spectra of the truth and models, {title}.")
        out += page.plate(figures.budget(board, truth), figures.BUDGET, f"Energy budgets of truth and models, {title}.")
    if sum(one["unit"]["spectral"]["mean"] is not None for one in board["entries"]) > 1:
        out += page.plate(figures.cost(board), figures.COST, f"Errors over cost per step, {title}.")
        if any(one["offline"]["R2"] for one in board["entries"]):
            out += page.plate(figures.skill(board), figures.SKILL, f"Online errors over offline R², {title}.")
    shades = tables.similarities(board)
    if shades:
        bars = page.plate(figures.bars(board), figures.BARS, f"Bars of the 18 similarities, {title}.")
        out += page.details("Similarities", shades + bars, " open")
    return out


def _transfer(found) -> str:
    return "".join(
        page.plate(figures.transfer(method, found), figures.TRANSFER, f"Heat map of transfer errors of {method}.")
        for method in figures.transferred(found)
    )


def _provenance(rows) -> str:
    environments = {json.dumps(row["environment"], sort_keys=True): row["environment"] for row in rows}
    out = ""
    for key, environment in environments.items():
        count = sum(json.dumps(row["environment"], sort_keys=True) == key for row in rows)
        listed = pairs([(name, str(value)) for name, value in environment.items()], ("setting", "value"))
        out += page.details(f"{count} rows made with code {environment.get('code', 'unknown')[:7]}", listed)
    return out + "<p>All numbers, seed by seed, are in leaderboard.json beside this page.</p>"


def main(argv=None) -> Path:
    """Command line: see the module."""
    choice = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    choice.add_argument("folders", nargs="*", type=Path, default=[collect.RESULTS])
    choice.add_argument("--out", type=Path, default=None)
    chosen = choice.parse_args(argv)
    return write(*chosen.folders, out=chosen.out)


if __name__ == "__main__":
    print(main())
