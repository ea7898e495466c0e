"""Speed and memory of the solver, beside its transforms alone, pyqg and pyqg-jax, all interleaved in one run.

    python experiments/benchmarks/run.py [--sizes 64 128 256] [--precisions float32 float64] [--rounds 7]
        [--cases step gradient memory transforms compile] [--ensemble 1000] [--out results.jsonl] [--full]

Appends one JSON line per measurement to the file and prints the tables of this run (see README.md beside this).
"""

import argparse
import json
import math
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

CASES = ("step", "gradient", "memory", "transforms", "compile")
LARGEST = 512
"""Modes per side above which pyqg is not timed and gradients are not taken."""


def main(argv=None) -> list[dict]:
    """Measure, append to the file, print the tables; returns the records."""
    options = _options(argv)
    import jax

    jax.config.update("jax_enable_x64", True)  # for float64 and for pyqg-jax, whose inversion needs it
    from experiments.benchmarks import table

    about, records = _about(), []
    options.out.parent.mkdir(parents=True, exist_ok=True)
    with open(options.out, "a") as file:
        for record in measure(options):
            records.append(about | record)
            file.write(json.dumps(records[-1]) + "\n")
            file.flush()
            print(" ".join(str(value) for value in list(record.values())[:6]), file=sys.stderr, flush=True)
    print(table.markdown(records))
    return records


def measure(options):
    """All records, as they come."""
    for n in options.sizes:
        if "step" in options.cases:
            yield from steps(n, options.precisions, options.rounds, options.steps)
        if "gradient" in options.cases and n <= LARGEST:
            for precision in options.precisions:
                yield from gradient(n, precision, options.rounds, min(50, options.steps or 50))
        if "transforms" in options.cases:
            yield from transforms(n, options.precisions[0])
    if "memory" in options.cases:
        for precision in options.precisions:
            yield from memory(min(64, *options.sizes), precision, options.steps or 1000)
    if "compile" in options.cases:
        for n in options.sizes:
            for precision in options.precisions:
                yield from compile_time(n, precision)
    if options.ensemble:
        for precision in options.precisions:
            yield from ensemble(min(64, *options.sizes), precision, options.ensemble, options.rounds, options.steps)


def interleave(calls: dict, rounds: int) -> dict[object, list[float]]:
    """Seconds of every call per round; each round runs all, beginning with another one, after one unmeasured call.

    Whatever slows the machine for a while so meets all of them. Raises `ValueError` for a result that is not finite.
    """
    for name, call in calls.items():
        _check_finite(name, call())
    times, names = {name: [] for name in calls}, list(calls)
    for number in range(rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            begin = time.perf_counter()
            calls[name]()
            times[name].append(time.perf_counter() - begin)
    return times


def steps(n: int, precisions, rounds: int, count: int | None):
    """Milliseconds per step of every code."""
    from experiments.benchmarks import cases

    count = count or max(5, round(2000 * (64 / n) ** 2))
    calls = {}
    for precision in precisions:
        calls["hybridgcm", precision] = cases.step(n, precision, count)
        calls["hybridgcm, no filter", precision] = cases.step(n, precision, count, filtered=False)
        calls["FFT floor, batched", precision] = cases.floor(n, precision, count, batched=True)
        calls["FFT floor, separate", precision] = cases.floor(n, precision, count, batched=False)
        calls["pyqg-jax", precision] = cases.pyqg_jax(n, precision, count)
    calls["pyqg", "float64"] = cases.pyqg(n, count) if n <= LARGEST else None
    times = interleave({name: call for name, call in calls.items() if call is not None}, rounds)
    for name in calls:
        record = {"case": "step", "code": name[0], "n": n, "precision": name[1]}
        if name in times:
            yield record | _milliseconds(times[name], count)
        else:
            yield record | {"absent": "not installed" if n <= LARGEST else f"not timed above {LARGEST}"}


def gradient(n: int, precision: str, rounds: int, count: int):
    """Gradients through `count` steps, in forward steps."""
    from experiments.benchmarks import cases

    found = cases.gradients(n, precision, count)
    forward = {name: calls[0] for (name, chunk), calls in found.items() if chunk is None}
    times = interleave(forward | {key: calls[1] for key, calls in found.items()}, rounds)
    for (name, chunk), (_, _, compiled) in found.items():
        record = {"case": "gradient", "wrt": name, "n": n, "precision": precision, "chunk": chunk}
        ratios = [backward / one for backward, one in zip(times[name, chunk], times[name])]
        yield record | {
            "ratio": _median(ratios), "ratio_min": min(ratios), "ratio_max": max(ratios),
            "forward_ms": 1e3 * _median(times[name]) / count, "megabytes": cases.temporary_megabytes(compiled),
            **_milliseconds(times[name, chunk], count),
        }  # fmt: skip


def memory(n: int, precision: str, count: int):
    """Temporary memory of a gradient through `count` steps; compiled, not run."""
    import equinox as eqx

    from experiments.benchmarks import cases

    best = _divisor_near(count, math.sqrt(count))
    for chunk in (None, *sorted({_divisor_near(count, best / 3), best})):
        loss, arguments = cases.gradient_program("initial state", n, precision, count, chunk)
        compiled = eqx.filter_jit(eqx.filter_value_and_grad(loss)).lower(*arguments).compile().compiled
        record = {"case": "memory", "n": n, "precision": precision, "steps": count, "chunk": chunk}
        yield record | {"megabytes": cases.temporary_megabytes(compiled)}


def transforms(n: int, precision: str):
    """Transforms of a field in the compiled step, by closure."""
    from experiments.benchmarks import cases

    bare = None
    for name, (closure, least) in cases.closures().items():
        count = cases.transforms(n, precision, closure)
        bare = count if closure is None else bare
        yield {
            "case": "transforms", "closure": name, "n": n, "precision": precision, "transforms": count,
            "added": count - bare, "least": 10 + 2 * least,
        }  # fmt: skip


def compile_time(n: int, precision: str):
    """First calls, each in a fresh process without a persistent cache."""
    environment = {key: value for key, value in os.environ.items() if "COMPILATION_CACHE" not in key}
    for program in ("step", "gradient"):
        if program == "gradient" and n > LARGEST:
            continue
        command = [sys.executable, str(Path(__file__).with_name("first_call.py")), program, str(n), precision]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr}")
        yield {"case": "compile", "program": program, "n": n, "precision": precision} | json.loads(done.stdout)


def ensemble(n: int, precision: str, members: int, rounds: int, count: int | None):
    """Steps per second, all members together, of one state and of `members` states in one program."""
    from experiments.benchmarks import cases

    count = count or 200
    times = interleave({m: cases.ensemble(n, precision, count, m) for m in sorted({1, members})}, rounds)
    for size, seconds in times.items():
        rate = size * count / _median(seconds)
        record = {"case": "ensemble", "members": size, "n": n, "precision": precision, "member_steps_per_second": rate}
        yield record | _milliseconds(seconds, count)


def _milliseconds(seconds: list[float], count: int) -> dict:
    """Per step: median, extremes and every round."""
    rounds = [1e3 * s / count for s in seconds]
    return {"ms": _median(rounds), "ms_min": min(rounds), "ms_max": max(rounds), "ms_rounds": rounds, "steps": count}


def _median(values) -> float:
    import numpy as np

    return float(np.median(values))


def _check_finite(name, result):
    import jax
    import numpy as np

    if not all(np.isfinite(np.asarray(leaf)).all() for leaf in jax.tree.leaves(result)):
        raise ValueError(f"{name} is not finite after these steps: its speed would mean nothing; take fewer steps")


def _divisor_near(number: int, wish: float) -> int:
    return min((d for d in range(1, number + 1) if number % d == 0), key=lambda d: abs(math.log(d / wish)))


def _about() -> dict:
    """What every record carries: date, code, versions, device, threads and how busy the machine was at the start."""
    from importlib import metadata

    from hybridgcm.fingerprint import environment

    here = Path(__file__).parent
    git = lambda *words: subprocess.run(["git", "-C", here, *words], capture_output=True, text=True).stdout.strip()
    found = environment()
    for name in ("pyqg", "pyqg-jax"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    about = {"date": time.strftime("%Y-%m-%d %H:%M:%S"), "python": platform.python_version(), "processor": _processor()}
    about |= {
        "git": git("rev-parse", "--verify", "--quiet", "HEAD") or None,
        "dirty": bool(git("status", "--porcelain")),
    }
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return about | {"threads": found.pop("cores", os.cpu_count()), "load": load} | found


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())


def _options(argv):
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=None, help="modes per side (default 64 128 256)")
    parser.add_argument("--precisions", nargs="+", default=["float32", "float64"], choices=["float32", "float64"])
    parser.add_argument("--rounds", type=int, default=7, help="times that every code is measured")
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=CASES)
    parser.add_argument("--steps", type=int, default=None, help="steps per call, instead of the defaults of each case")
    parser.add_argument("--ensemble", type=int, default=0, metavar="N", help="members of an ensemble at 64², e.g. 1000")
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks/results.jsonl"))
    parser.add_argument("--full", action="store_true", help="to 512², on a GPU to 4096² and with 1,000 members")
    options = parser.parse_args(argv)
    if options.full:
        import jax

        gpu = jax.default_backend() != "cpu"
        options.sizes = options.sizes or [64, 128, 256, 512, *((1024, 2048, 4096) if gpu else ())]
        options.ensemble = options.ensemble or (1000 if gpu else 8)
    options.sizes = options.sizes or [64, 128, 256]
    return options


if __name__ == "__main__":
    main()
