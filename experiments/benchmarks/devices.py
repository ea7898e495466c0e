"""Throughput of an ensemble over CPU devices, against one member alone on the same machine.

    python experiments/benchmarks/devices.py [members [devices [points [steps [repeats]]]]]

Prints one JSON line: member-steps per second of the ensemble and of one member, medians and fastest of alternating
repeats, and their ratios. Close other programs first, or take many short repeats and look at the fastest: the ratio is
bounded by the cores that are free.
"""

import json
import os
import statistics
import sys
import time
from pathlib import Path

COUNT, DEVICES, POINTS, STEPS, REPEATS = [
    int(word) for word in (*sys.argv[1:], *(8, 2, 64, 1000, 9)[len(sys.argv) - 1 :])
]
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={DEVICES}".strip()
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import equinox as eqx  # noqa: E402
import jax  # noqa: E402
import numpy as np  # noqa: E402

import hybridgcm as hg  # noqa: E402
from experiments.benchmarks import cases  # noqa: E402
from hybridgcm.parallel import members, split  # noqa: E402


def main():
    """Measure and print."""
    model = cases.model(POINTS, "float32")
    start = cases.start(POINTS)
    batch = np.stack([np.roll(start, number, -1) for number in range(COUNT)])
    states = eqx.filter_vmap(model.encode)({"q": batch}, jax.random.split(jax.random.key(0), COUNT))
    advance = lambda model, state: hg.rollout(model, state, STEPS, every=STEPS, save=None)[0]
    one = jax.tree.map(lambda a: a[0], states)
    runs = {"one": (eqx.filter_jit(advance), one, 1), "ensemble": (members(advance), split(states), COUNT)}
    rates, busy = {name: [] for name in runs}, {name: [] for name in runs}
    for number in range(REPEATS + 1):
        for name, (run, state, count) in runs.items():
            begin, spent = time.perf_counter(), time.process_time()
            jax.block_until_ready(run(model, state))
            seconds = time.perf_counter() - begin
            if number:  # the first compiles
                rates[name].append(count * STEPS / seconds)
                busy[name].append((time.process_time() - spent) / seconds)
    found = {name: round(statistics.median(values)) for name, values in rates.items()}
    cores = {name: round(max(values), 2) for name, values in busy.items()}
    ratios = [b / a for a, b in zip(rates["one"], rates["ensemble"])]
    about = {"members": COUNT, "devices": DEVICES, "points": POINTS, "cores": os.cpu_count(), "jax": jax.__version__}
    best = {name: round(max(values)) for name, values in rates.items()}
    about |= {"steps/s": found, "ratio": round(statistics.median(ratios), 2)}
    about |= {"fastest": best, "ratio of the fastest": round(best["ensemble"] / best["one"], 2)}
    print(json.dumps(about | {"ratios": [round(r, 2) for r in ratios], "most cores used": cores}))


if __name__ == "__main__":
    main()
