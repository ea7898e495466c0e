"""Put a trained closure of the benchmark on the shelf of the package, with a card written from its rows.

    python experiments/closure_benchmark/ship.py --row ROOT/rows/SYSTEM/METHOD/seed-N/row.json --name eddy64_online \\
        [--fails "what else is known to go wrong"] [--to FOLDER]

The closure is the one that the row scored. Its card says on which data and how it was trained, every score that the
rows of the same seed have on any system, and where it is no better than no closure or did not finish its runs.
"""

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from hybridgcm import checkpoint  # noqa: E402
from hybridgcm.blueprint import blueprint  # noqa: E402
from hybridgcm.pretrained import put  # noqa: E402
from hybridgcm.pretrained.shelf import SHELF  # noqa: E402


def ship(file: Path, name: str, fails: str = "", folder: Path = SHELF) -> Path:
    """Write the closure of a row and its card; returns the file. Raises `ValueError` for a row that has no scores."""
    file = Path(file)
    row = json.loads(file.read_text())
    if "failed" in row or "errors" not in row.get("unit", {}):
        raise ValueError(f"{file} has no scores ({row.get('failed', 'not all runs finished')}); ship one that has")
    root, made_for = file.parents[4], row.get("trained_on") or row["system"]
    saved = root / "closures" / made_for / row["method"] / f"seed-{row['seed']}" / "closure.ckpt"
    header = checkpoint.read_header(saved)
    closure = checkpoint.load(saved, blueprint(header["tree"]))
    rows = _rows(root, row, made_for)
    about = f"{row['title']}, trained on {made_for}, seed {row['seed']}"
    keep = ("system", "method", "title", "seed", "data", "protocol", "code", "date", "training_seconds")
    meta = {"row": {key: row.get(key) for key in keep} | {"system": made_for}, "versions": header["versions"]}
    return put(name, closure, about, _card(name, row, rows, made_for, fails), meta, folder)


def _rows(root: Path, row: dict, made_for: str) -> list[tuple[dict, dict | None]]:
    """(row, that of no closure) of everything that this closure was scored on, its own system first."""
    out = []
    for file in sorted(root.glob(f"rows/*/*/seed-{row['seed']}/row.json")):
        one = json.loads(file.read_text())
        if one["method"] == row["method"] and (one.get("trained_on") or one["system"]) == made_for:
            bare = file.parents[2] / "none" / "seed-0" / "row.json"
            out.append((one, json.loads(bare.read_text()) if bare.exists() else None))
    return sorted(out, key=lambda pair: pair[0]["system"] != made_for)


def _card(name: str, row: dict, rows, made_for: str, fails: str) -> str:
    lines = [
        f"# {name}", "", f"{row['title']}. `hybridgcm.pretrained({name!r})` gives it, for models of {made_for}.",
        "",
        "## Data", "",
        f"Truths of the closure benchmark for `{made_for}`, data version `{row['data']}`, protocol {row['protocol']}. "
        "Scored truths were never seen in training, tuning or stopping.", "",
        "## Training", "",
        f"Method `{row['method']}` of `experiments/closure_benchmark/methods`, seed {row['seed']}, "
        f"{row.get('training_seconds') or 0:,.0f} s on {row['environment'].get('device', 'an unknown device')}, "
        f"{row['date']}, package code `{row['code'][:12]}`.", "",
        "## Scores", "",
        "Distributional / spectral error of free runs (zero is perfect; doi:10.1029/2023MS003681), one seed:", "",
        "| system | amplitude 1 | no closure | finished runs | survivors | R² per layer | cost, no closure = 1 |",
        "| --- | --- | --- | --- | --- | --- | --- |", *(_line(one, bare) for one, bare in rows), "",
        "## Where it fails", "", *_failures(rows), *([f"- {fails}"] if fails else []),
        "- Nothing is known of flows, grids, time steps and operators that are not in the table.", "",
    ]  # fmt: skip
    return "\n".join(lines)


def _line(one, bare) -> str:
    unit, survival = one.get("unit", {}), one.get("survival")
    alive = f"{survival['survivors']} of {survival['attempts']}" if survival else "not tested"
    skill = (
        " / ".join("–" if value is None else f"{value:.2f}" for value in (one.get("offline") or {}).get("R2", []))
        or "–"
    )
    cost = f"{one['ms_per_step'] / one['ms_without']:.1f}" if one.get("ms_without") else "–"
    runs = f"{unit.get('finished', 0)} of {unit.get('runs', 0)}"
    pairs = [_pair(_errors(one)), _pair(_errors(bare))]
    return f"| {' | '.join([one['system'], *pairs, runs, alive, skill, cost])} |"


def _failures(rows) -> list[str]:
    out = []
    for one, bare in rows:
        ours, theirs = _errors(one), _errors(bare)
        if ours is None:
            reason = one.get("failed") or "{finished} of {runs} runs finished".format(**one["unit"])
            out.append(f"- {one['system']}: {reason}.")
        elif theirs:
            worse = [n for n, a, b in zip(("distributional", "spectral"), ours, theirs) if a >= b]
            out += [
                f"- {one['system']}: the {' and the '.join(worse)} error is no better than without closure."
            ] * bool(worse)
    return out


def _errors(one) -> tuple[float, float] | None:
    errors = (one or {}).get("unit", {}).get("errors")
    return (errors["distributional"], errors["spectral"]) if errors else None


def _pair(errors) -> str:
    return "{:.4f} / {:.4f}".format(*errors) if errors else "–"


def main(argv=None) -> Path:
    """Command line: see the module."""
    choice = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    choice.add_argument("--row", type=Path, required=True)
    choice.add_argument("--name", required=True)
    choice.add_argument("--fails", default="")
    choice.add_argument("--to", type=Path, default=SHELF)
    chosen = choice.parse_args(argv)
    return ship(chosen.row.resolve(), chosen.name, chosen.fails, chosen.to)


if __name__ == "__main__":
    print(main())
