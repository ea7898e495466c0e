"""Several runs of the closure experiment side by side: what one draw of truth and network cannot say.

    for first in 0 1 2 3 4; do
        python experiments/closure/run.py --first $first --seeds 2 --out runs/closure/truth-$first
    done
    python experiments/closure/compare.py runs/closure/truth-*

Prints a table: distributional and spectral error, mean (lowest to highest) over truths and trainings, and in how many
pairs each is below that of the network trained offline (of the same seed; without a seed, of every one). Models of
which all free runs blew up are counted.
"""

import json
import sys
import tomllib
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from experiments._config import config_difference  # noqa: E402

ERRORS = ("distributional", "spectral")


def main(argv=None) -> str:
    """The table of the runs in the folders that are named."""
    folders = [Path(name) for name in (sys.argv[1:] if argv is None else argv)]
    if not folders:
        raise SystemExit(f"name the folders of finished runs\n\n{__doc__}")
    return table(read(folders))


def read(folders: list[Path]) -> list[dict]:
    """The models of every run. Raises ValueError for unfinished runs, and for settings that differ but in `first`."""
    runs, settings = [], None
    for folder in folders:
        if not (folder / "metrics.json").exists():
            raise ValueError(f"{folder} holds no finished run (no metrics.json); repeat its command, it goes on")
        here = tomllib.loads((folder / "config.toml").read_text())
        here = {name: value for name, value in here.items() if name not in ("first", "workers")}
        settings = here if settings is None else settings
        if lines := config_difference(settings, here):
            raise ValueError(f"{folder} differs from {folders[0]} in more than its first member:\n{lines}")
        runs.append(json.loads((folder / "metrics.json").read_text())["models"])
    return runs


def table(runs: list[dict]) -> str:
    """Markdown, a row for each kind of model: untuned ones under their family's name, tuned ones beside them."""
    rows = {}
    for run in runs:
        offline = {m["seed"]: m.get("errors") for m in run.values() if m["kind"] == "offline"}
        for model in run.values():
            if model["kind"] == "truth":
                continue
            family = "No closure" if model["kind"] == "none" else model["family"]
            name = f"{family}, tuned" if model["kind"] == "tuned" else family
            seeds = [model["seed"]] if "seed" in model else list(offline)
            beside = [] if model["kind"] == "offline" else [offline[seed] for seed in seeds if offline[seed]]
            rows.setdefault(name, []).append((model, beside))
    head = "| | runs | distributional error | spectral error | below offline in (each) | blew up |\n"
    lines = [_row(name, found) for name, found in rows.items()]
    return head + "| --- | ---: | ---: | ---: | ---: | ---: |\n" + "\n".join(lines)


def _row(name: str, found: list[tuple[dict, list[dict]]]) -> str:
    alive = [(m["errors"], beside) for m, beside in found if m.get("errors")]
    cells = [_spread([errors[kind] for errors, _ in alive]) for kind in ERRORS]
    pairs = [[errors[kind] < one[kind] for kind in ERRORS] for errors, beside in alive for one in beside]
    below = ", ".join(f"{sum(pair[i] for pair in pairs)}" for i in range(2)) + f" of {len(pairs)}" if pairs else ""
    return f"| {name} | {len(found)} | {' | '.join(cells)} | {below} | {len(found) - len(alive)} |"


def _spread(values: list[float]) -> str:
    if not values:
        return "none lived"
    return f"{np.mean(values):.3f} ({min(values):.3f} to {max(values):.3f})"


if __name__ == "__main__":
    print(main())
