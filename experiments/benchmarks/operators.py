"""An epoch of training of a Fourier neural operator, beside neuraloperator on PyTorch where that is installed.

    python experiments/benchmarks/operators.py [--sizes 16 32] [--rounds 7] [--samples 1000] [--write]

prints a table; with `--write` it replaces the one in docs/operators.md. One epoch of the published Darcy example: pairs
at n², batches of 64, 191,881 weights, H1 loss, AdamW, single precision, on the cores that the process has. Both codes
in one process by turns (`run.interleave`), after an epoch each that compiles and warms up: medians over rounds, the
ratio the median of those within a round. Ours through `hg.fit` as anybody calls it, checks of every batch included,
the optimiser started anew every epoch.
"""

import argparse
import functools
import os
import sys
from pathlib import Path

import jax.random as jr
import numpy as np
import optax

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import hybridgcm as hg  # noqa: E402
from experiments.benchmarks import table  # noqa: E402
from experiments.benchmarks.run import interleave  # noqa: E402
from hybridgcm import batches, nn, pairs, train  # noqa: E402

try:
    from experiments.benchmarks import neuraloperator_darcy as other
except ImportError:
    other = None

PAGE = Path(__file__).resolve().parents[2] / "docs/operators.md"
HIDDEN, MODES, BATCH = 24, 8, 64


def epoch(pair: dict):
    """A call that trains ours one epoch and returns the last loss."""
    model = nn.Normalised.from_data(
        nn.Bounded(nn.FNO(3, 1, modes=(MODES, MODES), hidden=HIDDEN, key=jr.key(0))), pair["a"], pair["u"]
    )
    objective = train.supervised(hg.metrics.h1("u", periodic=True), ("a",), ("u",))
    optimiser, steps = optax.adamw(1e-2, weight_decay=1e-4), len(pair["a"]) // BATCH
    order = batches.samples(pair, BATCH, steps, jr.key(1))
    fit = functools.partial(hg.fit, model, order, objective, optimiser, where=lambda m: m.net, key=jr.key(2))
    return lambda: np.asarray(fit()[1][-1]["loss"])


def measure(options):
    """A row per size, as they come."""
    for n in options.sizes:
        pair = pairs.darcy(n, options.samples, jr.key(3), refine=max(1, 32 // n))
        calls = {"ours": epoch(pair)}
        if other:
            calls["other"], weights = other.epoch(pair["a"], pair["u"], HIDDEN, MODES, BATCH)
            assert weights == 191_881, weights
        times = {code: np.array(seconds) for code, seconds in interleave(calls, options.rounds).items()}
        row = {"n": n} | {code: f"{np.median(seconds):.3g}" for code, seconds in times.items()}
        if other:
            row["ratio"] = f"{np.median(times['ours'] / times['other']):.2f}"
        print(row, file=sys.stderr, flush=True)
        yield row


def markdown(rows: list[dict], load: float) -> str:
    """Where and when, and the table; without neuraloperator its columns are absent."""
    heads = ["points", "hybridgcm, s an epoch"]
    heads += [f"neuraloperator {other.VERSION}, s an epoch", "hybridgcm / neuraloperator"] if other else []
    lines = [heads, ["---:"] * len(heads)]
    lines += [[f"{row['n']}²", *(row[key] for key in ("ours", "other", "ratio") if key in row)] for row in rows]
    where = table.here(load)
    where += f", torch {other.torch.__version__}" if other else "; neuraloperator is not installed here"
    return f"{where}:\n\n" + "".join(f"| {' | '.join(row)} |\n" for row in lines)


def main(argv=None) -> str:
    """Measure, print, and write if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[16, 32])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--write", action="store_true")
    options, load = parser.parse_args(argv), os.getloadavg()[0]
    text = markdown(list(measure(options)), load)
    print(text)
    if options.write:
        table.into_page(PAGE, text)
    return text


if __name__ == "__main__":
    main()
