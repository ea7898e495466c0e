"""The closure benchmark: one row of the leaderboard per system, method and seed.

    python experiments/closure_benchmark/run.py --system eddy64 --method online_pinned [--seed 0]
    python experiments/closure_benchmark/run.py --system eddy64 --method my_closure.py
    python experiments/closure_benchmark/run.py --system eddy64 --method online_pinned --survival
    python experiments/closure_benchmark/run.py --all --preset laptop

Presets: `full` (what the published table is made of), `laptop` (with --all 100 minutes of one core, an hour on two),
`smoke` (minutes, meaningless numbers). Systems: `systems.system`; --trained-on NAME scores, without training it again,
a closure that was trained on another system. Methods: the files of `methods/`, or a path to a Python file of yours with
a function `closure(problem, seed, folder)` that returns a closure. Truths are made once per flow, rows once; a command
that was killed goes on when repeated, and several may run at a time. --survival adds 100,000 steps from ten starts.
Results: rows/*/*/*/row.json, leaderboard.md and .html; --report-only writes these two anew from the rows.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from experiments._run import configure  # noqa: E402
from experiments.closure_benchmark.config import PRESETS  # noqa: E402

HERE = Path(__file__).parent
LAPTOP = {
    "eddy64": ("none", "smagorinsky", "zanna_bolton", "backscatter", "offline_cnn", "online_pinned"),
    "jet64": ("none", "backscatter", "offline_cnn@eddy64", "online_pinned@eddy64"),
}
"""What --all runs with the presets laptop and smoke, by system; METHOD@SYSTEM was trained on SYSTEM."""


def main(argv=None) -> list[Path]:
    """Make what is missing of the rows that are asked for, then the leaderboard; returns the rows' files."""
    choice = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    choice.add_argument("--system", default="eddy64")
    choice.add_argument("--method", default="none")
    choice.add_argument("--trained-on", default=None)
    choice.add_argument("--seed", type=int, default=None)
    choice.add_argument("--all", action="store_true")
    choice.add_argument("--survival", action="store_true")
    choice.add_argument("--report-only", action="store_true")
    chosen, rest = choice.parse_known_args(sys.argv[1:] if argv is None else argv)
    config, root = configure(PRESETS, rest, out="runs/closure_benchmark")
    if chosen.report_only:
        from experiments.closure_benchmark import leaderboard

        leaderboard.write(root)
        return []
    wanted = _everything() if chosen.all else [(chosen.system, chosen.method, chosen.trained_on)]
    from experiments.closure_benchmark import leaderboard, rows

    methods = {method: rows.load_method(method, HERE / "methods") for _, method, _ in wanted}
    one, made = rows.survive if chosen.survival else rows.row, []
    for system, method, trained_on in wanted:
        seeds = range(config.seeds if methods[method].seeds else 1) if chosen.seed is None else [chosen.seed]
        for seed in seeds:
            made.append(one(root, config, system, methods[method], seed, trained_on))
    leaderboard.write(root)
    return made


def _everything() -> list[tuple[str, str, str | None]]:
    return [
        (system, method.partition("@")[0], method.partition("@")[2] or None)
        for system, methods in LAPTOP.items()
        for method in methods
    ]


if __name__ == "__main__":
    for file in main():
        print(f"row: {file}")
