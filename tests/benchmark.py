"""What the tests of the closure benchmark share: its methods and the smallest sizes that run."""

import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from experiments.closure_benchmark import rows  # noqa: E402
from experiments.closure_benchmark.config import SMOKE, Truths  # noqa: E402

METHODS = Path(rows.__file__).with_name("methods")
SMALL = Truths(fine=32, stored=24, members=1, warm=0, scored=2, learn=1, validation=1, spin_up=0, frames=1, tuning=1)
TINY = replace(SMOKE, amplitudes=(), truths=SMALL, members=1)
