"""The sphere: steps, transforms, the three-level atmosphere and gradients, beside dinosaur where it is installed.

    python experiments/benchmarks/sphere.py [--truncations 42 85 170] [--rounds 15] [--only NAME ...] [--write]

prints a table; with `--write` it replaces the one in docs/performance.md. Everything is in single precision, one call
many steps, all codes by turns (`run.interleave`): medians over rounds, ratios medians of those within a round.

- step: shallow water in one layer, leapfrog with its filter and SIL3, both semi-implicit;
- transforms: five fields to the grid and back;
- qg3: Marshall and Molteni's atmosphere, T21, AB3, 3600 s, in simulated years of 360 days per day;
- gradient: of the mean square of φ after 100 SIL3 steps at T42 by the initial state, over the time of the same loss
  alone, and temporary memory of the compiled gradient; by blocks of `chunk` frames of five steps.
"""

import argparse
import functools
import os
import sys
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import hybridgcm as hg  # noqa: E402
from experiments.benchmarks import cases as shared  # noqa: E402
from experiments.benchmarks import table  # noqa: E402
from experiments.benchmarks.run import interleave  # noqa: E402
from hybridgcm import cases, qg3  # noqa: E402
from hybridgcm.rollout import YEAR  # noqa: E402

try:
    from experiments.benchmarks import dinosaur_sphere as dinosaur
except ImportError:
    dinosaur = None

PAGE = Path(__file__).resolve().parents[2] / "docs/performance.md"
FIELDS, CHUNKS, FRAMES, EVERY = 5, (None, 5, 2), 20, 5
STEPPERS = {"leapfrog": hg.SemiImplicitLeapfrog, "SIL3": hg.SIL3}


@eqx.filter_jit
def advance(model, state, steps):
    """The prognostics after `steps` steps, as a function that no number of steps compiles anew."""
    return jax.lax.fori_loop(0, steps, lambda _, state: model.step(state), state).y


def steps_of(truncation: int) -> int:
    """Steps in a call: about a tenth of a second."""
    return max(5, round(200 * (42 / truncation) ** 2.2))


def step_rows(truncation: int, rounds: int):
    """Milliseconds per step of both steppers."""
    steps = steps_of(truncation)
    flow = cases.williamson6(hg.Sphere(truncation, cases.RADIUS))
    for name, stepper in STEPPERS.items():
        dt = 300.0 * 42 / truncation
        model = hg.Model(flow.equation, stepper(), dt=dt)
        start = model.encode(flow.start)
        calls = {"ours": lambda model=model, start=start: advance(model, start, jnp.asarray(steps))}
        if dinosaur:
            calls["other"] = dinosaur.stepping(truncation, name, dt, steps)
        yield _row(f"shallow water, {name}", truncation, "ms a step", calls, rounds, 1e3 / steps)


def transform_rows(truncation: int, rounds: int):
    """Milliseconds of a round trip per field."""
    grid = hg.Sphere(truncation)
    noise = np.random.default_rng(0).standard_normal((FIELDS, *grid.spectral_shape))
    a_hat = grid.mask * jnp.asarray(noise, jnp.complex64)
    loops = max(1, steps_of(truncation) // 2)

    @eqx.filter_jit
    def trip(grid, a_hat):
        return jax.lax.fori_loop(0, loops, lambda _, a: grid.to_spectral(grid.to_grid(a)), a_hat)

    calls = {"ours": lambda: trip(grid, a_hat)}
    if dinosaur:
        calls["other"] = dinosaur.round_trip(truncation, FIELDS, loops)
    name = f"to the grid and back, {FIELDS} fields at once"
    yield _row(name, truncation, "ms a field", calls, rounds, 1e3 / (loops * FIELDS))


def qg3_rows(rounds: int):
    """Simulated years per day of the three-level atmosphere; dinosaur has none."""
    grid, steps, dt = hg.Sphere(21), 500, 3600.0
    inputs = qg3.winter(grid)
    flow = hg.QuasiGeostrophic.qg3(grid, orography=inputs.orography, land=inputs.land)
    model = hg.Model(flow, hg.AB3(), dt=dt, forcing=inputs.forcing)
    start = model.encode({"q": inputs.start})
    times = interleave({"ours": _done(lambda: advance(model, start, jnp.asarray(steps)))}, rounds)["ours"]
    speed = steps * dt / np.median(times) * 86400 / YEAR
    yield {"what": "QG3, AB3, 3600 s", "T": 21, "unit": "years a day", "ours": f"{speed:,.0f}"}


def gradient_rows(rounds: int):
    """Gradient over forward run, and megabytes."""
    flow = cases.williamson5(hg.Sphere(42, cases.RADIUS))
    model = hg.Model(flow.equation, hg.SIL3(), dt=600.0)

    def loss(start, model, chunk):
        _, out = hg.rollout(model, model.encode(start), FRAMES * EVERY, every=EVERY, chunk=chunk)
        return jnp.mean((1e-4 * out["save"]["phi"][-1]) ** 2)

    for chunk in CHUNKS:
        programs = {"ours": (functools.partial(loss, model=model, chunk=chunk), flow.start)}
        if dinosaur and chunk is None:
            programs["other"] = dinosaur.loss(42, 600.0, FRAMES * EVERY)
        yield from _gradient_rows(programs, chunk, rounds)


def _gradient_rows(programs: dict, chunk, rounds: int):
    calls, row = {}, {"T": 42, "what": f"gradient of {FRAMES * EVERY} steps, SIL3, chunk {chunk or 'none'}"}
    memory = row | {"unit": "MB"}
    for code, (loss, start) in programs.items():
        compiled = jax.jit(jax.value_and_grad(loss)).lower(start).compile()
        memory[code] = f"{shared.temporary_megabytes(compiled):.0f}"
        calls[code, "forward"] = _done(functools.partial(jax.jit(loss), start))
        calls[code, "gradient"] = _done(functools.partial(compiled, start))
    times = {key: np.array(seconds) for key, seconds in interleave(calls, rounds).items()}
    ratios = {code: np.median(times[code, "gradient"] / times[code, "forward"]) for code in programs}
    yield row | {"unit": "forward runs"} | {code: f"{ratio:.2f}" for code, ratio in ratios.items()}
    yield memory


def _row(what: str, truncation: int, unit: str, calls: dict, rounds: int, scale: float) -> dict:
    times = interleave({code: _done(call) for code, call in calls.items()}, rounds)
    row = {"what": what, "T": truncation, "unit": unit}
    row |= {code: f"{scale * np.median(seconds):.3g}" for code, seconds in times.items()}
    if "other" in times:
        row["ratio"] = f"{np.median(np.array(times['ours']) / np.array(times['other'])):.2f}"
    return row


def _done(call):
    return lambda: jax.block_until_ready(call())


def measure(options):
    """All rows, as they come."""
    jobs = {
        "step": [functools.partial(step_rows, T, options.rounds) for T in options.truncations],
        "transforms": [functools.partial(transform_rows, T, options.rounds) for T in options.truncations],
        "qg3": [functools.partial(qg3_rows, options.rounds)],
        "gradient": [functools.partial(gradient_rows, max(3, options.rounds // 2))],
    }
    for name in options.only or jobs:
        for job in jobs[name]:
            for row in job():
                print(row, file=sys.stderr, flush=True)
                yield row
            jax.clear_caches()


def markdown(rows: list[dict], load: float) -> str:
    """Where and when, and the table; without dinosaur its columns are absent."""
    other = [f"dinosaur {dinosaur.VERSION}", "hybridgcm / dinosaur"] if dinosaur else []
    heads = ["", "truncation", "unit", "hybridgcm", *other]
    lines = [heads, ["---", *["---:"] * (len(heads) - 1)]]
    for row in rows:
        beside = [row.get("other", "–"), row.get("ratio", "–")] if dinosaur else []
        lines.append([row["what"], f"T{row['T']}", row["unit"], row["ours"], *beside])
    where = f"{table.here(load)}, single precision"
    missing = "" if dinosaur else "; dinosaur is not installed here and its columns are absent"
    return f"{where}{missing}:\n\n" + "".join(f"| {' | '.join(row)} |\n" for row in lines)


def main(argv=None) -> str:
    """Measure, print, and write if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--truncations", type=int, nargs="+", default=[42, 85, 170])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--only", nargs="+", choices=("step", "transforms", "qg3", "gradient"))
    parser.add_argument("--write", action="store_true")
    options, load = parser.parse_args(argv), os.getloadavg()[0]
    text = markdown(list(measure(options)), load)
    print(text)
    if options.write:
        table.into_page(PAGE, text)
    return text


if __name__ == "__main__":
    main()
