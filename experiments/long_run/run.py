"""A century of free run with yearly climate statistics, that survives kills, pre-emption and blow-ups.

    python experiments/long_run/run.py [--preset NAME] [--out FOLDER] [--config run.toml] [--FIELD VALUE ...]

Presets: `laptop` (default, 100 years at 64²), `smoke` (seconds). The same command goes on after a kill, and after
SIGTERM, which it answers by exit code 75 at the end of the year. Results: rollout/output.zarr (one record a year),
climate.nc (means after the spin-up), summary.json (trends, speed, memory, what the crash ladder did), metrics.jsonl.
"""

import json
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from experiments._run import Run, configure  # noqa: E402
from experiments.long_run.config import PRESETS, YEAR  # noqa: E402


def main(argv=None) -> Path:
    """Run what is missing and return the path of the summary."""
    config, folder = configure(PRESETS, argv, out="runs/long_run")
    from hybridgcm.preemption import preemptible

    with preemptible(), Run(folder, config) as run:
        simulate(run)
        return summarise(run)


def model(config):
    """The two-layer model of the closure experiment with the closure asked for."""
    import hybridgcm as hg

    grid = hg.Torus(config.n, config.length, dealias=None)
    closures = {
        "none": None,
        "Smagorinsky": hg.Smagorinsky(0.15),
        "Leith": hg.Leith(0.3),
        "Backscatter": hg.BiharmonicBackscatter((0.25, 1.0), 0.007**0.5, 1.2),
    }
    stepper = hg.Filtered(hg.AB3(), hg.exponential_filter(grid))
    return hg.Model(hg.QuasiGeostrophic.two_layer(grid), stepper, closures[config.closure], dt=config.dt)


def simulate(run):
    """The rollout, year by year, into rollout/; speed and memory of each year into metrics.jsonl."""
    import equinox as eqx
    import jax.random as jr

    from experiments.long_run import statistics
    from hybridgcm import diagnostics, ladder
    from hybridgcm.resume import resumable_rollout

    config, flow = run.config, model(run.config)
    key = jr.key(config.seed)
    state = flow.encode({"q": 1e-6 * jr.normal(key, (2, config.n, config.n))}, key)
    year = round(YEAR / config.dt)
    mean = eqx.Partial(statistics.moments, config.largest, config.bins)
    clock = [time.monotonic()]

    def log(state, frames):
        now = time.monotonic()
        energy = float(frames["mean"]["energy"][-1])
        run.log(year=int(state.step) // year, seconds=now - clock[0], energy=energy, resident_MB=resident())
        clock[0] = now

    resumable_rollout(
        flow, state, config.years * year, run.folder / "rollout", every=year, save=None,
        mean=mean, sample=config.sample, callback=log,
        dimensions=statistics.DIMENSIONS,
        coordinates={
            "wavenumber": diagnostics.wavenumbers(flow.equation.grid),
            "bin": range(config.bins),
        },
        attrs={"title": f"{config.years} years of two-layer flow, closure: {config.closure}"},
        courant=config.courant, rungs=ladder.RUNGS if config.ladder else (), progress=f"{config.n}²",
    )  # fmt: skip


def summarise(run) -> Path:
    """climate.nc and summary.json."""
    from experiments.long_run import statistics
    from hybridgcm.data import save_netcdf
    from hybridgcm.files import atomic

    config, folder = run.config, run.folder
    climate, trends = statistics.climate(folder / "rollout", config.spin_up)
    save_netcdf(climate, folder / "climate.nc")
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    speeds = sorted(60 / row["seconds"] for row in rows if row["seconds"] > 0)
    events = folder / "rollout" / "ladder.json"
    summary = {
        "years": config.years,
        "closure": config.closure,
        "years per minute": speeds[len(speeds) // 2],
        "trends": trends,
        "ladder": json.loads(events.read_text()) if events.exists() else [],
        "MB per 10,000 steps": leak(rows, round(YEAR / config.dt)),
    }
    with atomic(folder / "summary.json") as temporary:
        temporary.write_text(json.dumps(summary, indent=1))
    return folder / "summary.json"


def leak(rows: list[dict], year: int) -> float | None:
    """Slope of the memory over the second half of the last start, MB per 10,000 steps of which a year has `year`."""
    first = max((i for i in range(1, len(rows)) if rows[i]["year"] <= rows[i - 1]["year"]), default=0)
    rows = [row for row in rows[(first + len(rows)) // 2 :] if row["resident_MB"] is not None]
    n, step = len(rows), 1e4 / year
    if n < 3:
        return None
    t, m = [row["year"] / step for row in rows], [row["resident_MB"] for row in rows]
    middle = sum(t) / n
    return sum((a - middle) * b for a, b in zip(t, m)) / sum((a - middle) ** 2 for a in t)


def resident() -> float | None:
    """Memory of this process, MB; None where the system does not tell."""
    try:
        import resource

        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * resource.getpagesize() / 1e6
    except (OSError, ImportError):
        return None


if __name__ == "__main__":
    print(f"summary: {main()}")
