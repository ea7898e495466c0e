"""Markdown tables of benchmark records.

    python experiments/benchmarks/table.py results.jsonl

prints those of the last run in the file. Numbers beyond a limit of `LIMITS` carry an asterisk.
"""

import json
import os
import platform
import sys
import time
from pathlib import Path

import numpy as np

LIMITS = {"floor": 1.3, "pyqg-jax": 4.0, "pyqg": 1.7, "gradient": 3.5, "memory": 100.0, "compile": 10.0}
"""What the project promises on two CPU cores: at most, but for pyqg and pyqg-jax at least."""


def markdown(records: list[dict]) -> str:
    """One section per case that was measured, after a line about machine and versions."""
    sections = {
        "Step, ms": (_steps, "step"),
        "Gradient, in forward steps": (_gradients, "gradient"),
        "Memory of a gradient through many steps": (_memory, "memory"),
        "Transforms of a field in the compiled step": (_transforms, "transforms"),
        "First call in a fresh process": (_compile, "compile"),
        "Ensemble": (_ensemble, "ensemble"),
    }
    parts = [_heading(records[0])]
    for title, (table, case) in sections.items():
        if rows := [record for record in records if record["case"] == case]:
            parts.append(f"### {title}\n\n{table(rows)}")
    promises = ", ".join(f"{name} {'≥' if name.startswith('pyqg') else '≤'} {x:g}" for name, x in LIMITS.items())
    parts.append(f"\\* beyond the limits for two CPU cores ({promises}).")
    return "\n\n".join(parts) + "\n"


def last_run(path) -> list[dict]:
    """The records that the last run appended to a file."""
    records = [json.loads(line) for line in Path(path).read_text().splitlines()]
    if not records:
        raise ValueError(f"{path} holds no records; run.py writes them")
    return [record for record in records if record["date"] == records[-1]["date"]]


def here(load: float) -> str:
    """Date and machine, for tables of benchmarks that write into a page."""
    import jax

    where = f"{time.strftime('%Y-%m-%d')}, {jax.default_backend()}, {platform.machine()}, {os.cpu_count()} cores, "
    return f"{where}load {load:.1f} at the start, jax {jax.__version__}"


def into_page(page: Path, text: str):
    """Put a table between the marks of a page, whatever is there."""
    before, rest = page.read_text().split("<!-- measured -->\n")
    page.write_text(f"{before}<!-- measured -->\n{text}<!-- end -->{rest.split('<!-- end -->', 1)[1]}")


def _heading(about) -> str:
    git = f"{(about.get('git') or 'no commit')[:10]}{', changed' if about.get('dirty') else ''}"
    load = "" if about.get("load") is None else f", load {about['load']:.1f} at the start"
    others = ", ".join(f"{name} {about.get(name) or 'absent'}" for name in ("jax", "jaxlib", "pyqg", "pyqg-jax"))
    machine = f"{about.get('device')}, {about.get('processor')}, {about.get('threads')} threads{load}"
    return f"{about['date']}; {machine}; hybridgcm {git}; {others}; medians (lowest to highest round)"


def _steps(rows) -> str:
    found = {(row["code"], row["n"], row["precision"]): row for row in rows}
    out = []
    for n, precision in dict.fromkeys((row["n"], row["precision"]) for row in rows):
        get = lambda code, kind=precision, n=n: found.get((code, n, kind), {"absent": "not measured"})
        ours, bare, other = get("hybridgcm"), get("hybridgcm, no filter"), get("pyqg-jax")
        if "absent" in ours:  # float64 of pyqg alone
            continue
        floors = [get("FFT floor, batched"), get("FFT floor, separate")]
        floor, double = min(floors, key=lambda row: row["ms"]), get("pyqg", "float64")
        out.append([
            f"{n}²", precision, _time(ours), _time(bare), *map(_time, floors),
            _ratio(ours, floor, "floor"), _ratio(bare, floor, "floor"),
            _time(other), _ratio(other, ours, "pyqg-jax"), _time(double), _ratio(double, ours, "pyqg"),
        ])  # fmt: skip
    heads = (
        *("size", "precision", "hybridgcm", "no filter", "FFTs, batched", "FFTs, separate", "hybridgcm / FFTs"),
        *("no filter / FFTs", "pyqg-jax", "pyqg-jax / hybridgcm", "pyqg, f64", "pyqg / hybridgcm"),
    )
    return _table(heads, out)


def _gradients(rows) -> str:
    heads = (
        "size",
        "precision",
        "with respect to",
        "chunk",
        "steps",
        "forward, ms per step",
        "gradient / forward",
        "MB",
    )
    out = [
        [
            f"{row['n']}²", row["precision"], row["wrt"], _chunk(row), str(row["steps"]), f"{row['forward_ms']:.3g}",
            f"{_marked(row['ratio'], 'gradient')} ({row['ratio_min']:.2f} to {row['ratio_max']:.2f})",
            f"{row['megabytes']:.1f}",
        ]
        for row in rows
    ]  # fmt: skip
    return _table(heads, out)


def _memory(rows) -> str:
    out = [[f"{row['n']}²", row["precision"], str(row["steps"]), _chunk(row), _megabytes(row)] for row in rows]
    return _table(("size", "precision", "steps", "chunk", "MB"), out)


def _transforms(rows) -> str:
    out = [
        [f"{row['n']}²", row["closure"], str(row["transforms"]), str(row["added"]), str(row["least"])] for row in rows
    ]
    return _table(("size", "closure", "transforms", "beyond no closure", "least possible"), out)


def _compile(rows) -> str:
    out = [
        [
            f"{row['n']}²", row["precision"], {"step": "step", "gradient": "gradient, 50 steps"}[row["program"]],
            _marked(row["seconds"], "compile"), f"{row['with_imports']:.2f}",
        ]
        for row in rows
    ]  # fmt: skip
    return _table(("size", "precision", "program", "first call, s", "with imports and set-up, s"), out)


def _ensemble(rows) -> str:
    single = {row["precision"]: row["member_steps_per_second"] for row in rows if row["members"] == 1}
    out = [
        [
            f"{row['n']}²", row["precision"], str(row["members"]), _time(row), f"{row['member_steps_per_second']:,.0f}",
            f"{row['member_steps_per_second'] / single[row['precision']]:.2f}",
        ]
        for row in rows
    ]  # fmt: skip
    return _table(("size", "precision", "members", "ms per step of all", "member-steps per s", "gain over one"), out)


def _time(row) -> str:
    return row["absent"] if "absent" in row else f"{row['ms']:.3g} ({row['ms_min']:.3g} to {row['ms_max']:.3g})"


def _ratio(slow, fast, limit: str) -> str:
    """Median over rounds of the ratio within a round."""
    if "absent" in slow or "absent" in fast:
        return "–"
    return _marked(float(np.median(np.divide(slow["ms_rounds"], fast["ms_rounds"]))), limit)


def _marked(value: float, limit: str) -> str:
    beyond = value < LIMITS[limit] if limit.startswith("pyqg") else value > LIMITS[limit]
    return f"{value:.2f}{'*' if beyond else ''}"


def _megabytes(row) -> str:
    return f"{row['megabytes']:.1f}" if row["chunk"] is None else _marked(row["megabytes"], "memory")


def _chunk(row) -> str:
    return "none" if row["chunk"] is None else str(row["chunk"])


def _table(heads, rows) -> str:
    lines = [heads, ["---"] * 2 + ["---:"] * (len(heads) - 2), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    print(markdown(last_run(sys.argv[1])))
