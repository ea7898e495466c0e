"""Rows of the benchmark, read from where they were made or from a compact collection of them.

    python experiments/closure_benchmark/collect.py runs/closure_benchmark/full

writes the collection that the repository carries, `results/SYSTEM.json`: all of a row but its lengthy spectra, which
one seed of every method keeps, and the spectra of the truth. Reading gives the same rows from either.
"""

import json
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

RESULTS = Path(__file__).with_name("results")
SPECTRA = ("KEspec", "Ensspec", "KEflux", "APEflux", "APEgenspec", "KEfrictionspec", "paramspec", "Filterspec",
           "Dissspec", "paramspec_KEflux", "paramspec_APEflux")  # fmt: skip
"""Those of `diagnostics.spectral_budget` that figures are made of."""


def read(*sources: Path) -> dict:
    """{"rows": [row], "truths": {system: {data version: {"kr", "limit", "spectra"}}}} of folders with rows.

    A source is the folder of a benchmark run (`rows/*/*/*/row.json`), or one with files that `write` made. Of rows
    with the same system, method, training system, seed, data and protocol, that of the later source counts.
    Raises `ValueError` for a folder without rows, and for a file that is none.
    """
    rows, truths = {}, {}
    for source in map(Path, sources):
        parts = [_run(source)] if (source / "rows").is_dir() else [*map(_compact, sorted(source.glob("*.json")))]
        if not any(part["rows"] for part in parts):
            raise ValueError(f"{source} holds no rows; expected rows/*/*/*/row.json or SYSTEM.json of collect.py")
        for part in parts:
            rows |= {_identity(row): row for row in part["rows"]}
            for system, found in part["truths"].items():
                truths.setdefault(system, {}).update(found)
    order = sorted(rows, key=lambda key: (key[0], key[1], key[2] or "", key[3], *map(str, key[4:])))
    return {"rows": _thinned([rows[key] for key in order]), "truths": {name: truths[name] for name in sorted(truths)}}


def write(collection: Mapping, folder: Path = RESULTS) -> list[Path]:
    """One JSON file per system in `folder`, equal for equal rows."""
    from hybridgcm.files import atomic

    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for system in sorted({row["system"] for row in collection["rows"]}):
        rows = [row for row in collection["rows"] if row["system"] == system]
        environments = list(
            {json.dumps(row["environment"], sort_keys=True): row["environment"] for row in rows}.values()
        )
        lines = [json.dumps(row | {"environment": environments.index(row["environment"])}) for row in rows]
        truth = json.dumps(collection["truths"].get(system, {}))
        about = f'"system": "{system}",\n"environments": {json.dumps(environments)},\n"truth": {truth}'
        text = f'{{\n{about},\n"rows": [\n' + ",\n".join(lines) + "\n]\n}\n"  # a line per row: differences can be read
        files.append(folder / f"{system}.json")
        with atomic(files[-1]) as temporary:
            temporary.write_text(text)
    return files


def _identity(row: Mapping) -> tuple:
    return tuple(row.get(name) for name in ("system", "method", "trained_on", "seed", "data", "protocol"))


def _run(root: Path) -> dict:
    rows = [compact(json.loads(file.read_text())) for file in sorted(root.glob("rows/*/*/*/row.json"))]
    truths = {}
    for system, data in sorted({(row["system"], row.get("data")) for row in rows}, key=str):
        if found := _truth(root, system, data):
            truths.setdefault(system, {})[data] = found
    return {"rows": rows, "truths": truths}


def _compact(file: Path) -> dict:
    try:
        found = json.loads(file.read_text())
        environments = found["environments"]
        rows = [row | {"environment": environments[row["environment"]]} for row in found["rows"]]
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise ValueError(f"{file} is no collection of rows ({error!r}); make it with collect.py") from error
    return {"rows": rows, "truths": {found["system"]: found["truth"]} if found["truth"] else {}}


def compact(row: Mapping) -> dict:
    """A row with five digits, those of its spectra that figures need, and none of its tuned runs."""
    row = json.loads(json.dumps(row))
    for name in ("unit", "tuned"):
        if spectra := (row.get(name) or {}).pop("spectra", None):
            kept = {key: spectra[key] for key in SPECTRA if name == "unit" and np.any(spectra.get(key, 0.0))}
            row[name] |= {"spectra": kept} if kept else {}
    return {name: value if name == "environment" else _rounded(value) for name, value in row.items()}


def _thinned(rows: Iterable[dict]) -> list[dict]:
    """Rows in order, spectra left with the first seed of a method that has them."""
    seen, out = set(), []
    for row in rows:
        key = _identity(row | {"seed": None})
        if "spectra" in row.get("unit", {}):
            if key in seen:
                row = row | {"unit": {name: value for name, value in row["unit"].items() if name != "spectra"}}
            seen.add(key)
        out.append(row)
    return out


def _truth(root: Path, system: str, data: str) -> dict | None:
    """Spectra of the climate that a system's rows of this data version were scored against, if it is kept.

    They are those of the fine truth seen through the operator; rings that the coarse grid lacks are left out.
    """
    named = re.fullmatch(r"(.+?)-?(\d+)-(op\d)-(\d+)", system)
    path = named and root / "data" / named[1] / "derived" / f"reference-{named[2]}-{named[3]}-{data}.npz"
    if not path or not path.exists():
        return None
    with np.load(path) as file:
        kr, limit = file["kr"], float(file["limit"])
        rings = int(np.sum(kr <= limit / 0.65))  # pyqg's filter begins at .65 of the grid's largest wavenumber
        spectra = {name: file[f"spectra.{name}"][..., :rings] for name in SPECTRA if f"spectra.{name}" in file.files}
    kept = {name: a for name, a in spectra.items() if np.any(a)}
    return _rounded({"kr": kr[:rings], "limit": limit, "spectra": kept})


def _rounded(value):
    """Plain values with five significant digits; what is not finite becomes None, as in rows."""
    if isinstance(value, Mapping):
        return {name: _rounded(item) for name, item in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [_rounded(item) for item in value]
    if isinstance(value, float | np.floating):
        return float(f"{value:.5g}") if np.isfinite(value) else None
    return value


if __name__ == "__main__":
    for made in write(read(*map(Path, sys.argv[1:] or ["runs/closure_benchmark/full"]))):
        print(f"{made}: {made.stat().st_size / 1e3:.0f} kB")
