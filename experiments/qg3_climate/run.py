"""The climate of Marshall and Molteni's three-level atmosphere: jets, standing waves, storm tracks, blocking, regimes.

    python experiments/qg3_climate/run.py [--preset NAME] [--inputs qg3_t21.nc] [--out FOLDER] [--FIELD VALUE ...]

Presets: `laptop` (default: 10,000 days at T21 and T42, some ten minutes on two cores), `smoke` (seconds). With a file
of inputs that holds a reanalysis mean (`psi_clim_djf`), the climate stands beside it; without a file a synthetic winter
forces the model. The same command goes on after a kill. Results: T*/output.zarr (heights of 500 hPa twice a day and
means of u and ψ), climate-T*.nc, figures, report.md, report.json.
"""

import json
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from experiments._run import Run, configure  # noqa: E402
from experiments.qg3_climate.config import DAY, PRESETS  # noqa: E402


def main(argv=None) -> Path:
    """Run what is missing and return the path of the report."""
    config, folder = configure(PRESETS, argv, out="runs/qg3_climate")
    from hybridgcm.preemption import preemptible

    with preemptible(), Run(folder, config) as run:
        from experiments.qg3_climate import climate, report

        found = {}
        for truncation, steps in zip(config.truncations, config.steps_a_day, strict=True):
            seconds = simulate(run, truncation, steps)
            found[f"T{truncation}"] = climate.climate(run.folder / f"T{truncation}", config) | {"seconds": seconds}
        reference = climate.reference(config.inputs) if config.inputs else None
        return report.write(run.folder, config, found, reference)


def model(config, truncation: int, steps: int):
    """(model, start) at a truncation."""
    import hybridgcm as hg
    from hybridgcm import qg3

    grid = hg.Sphere(truncation)
    atmosphere = qg3.read(config.inputs, grid) if config.inputs else qg3.winter(grid)
    flow = hg.QuasiGeostrophic.qg3(grid, orography=atmosphere.orography, land=atmosphere.land)
    return hg.Model(flow, hg.AB3(), dt=DAY / steps, forcing=atmosphere.forcing), atmosphere.start


def simulate(run, truncation: int, steps: int) -> float:
    """The rollout into T*/, ten days a chunk; returns the seconds that all its starts took."""
    from experiments.qg3_climate import climate
    from hybridgcm.resume import resumable_rollout

    flow, start = model(run.config, truncation, steps)
    folder, begin = run.folder / f"T{truncation}", time.monotonic()
    resumable_rollout(
        flow, flow.encode({"q": start}), run.config.days * steps, folder, every=steps // 2, chunk=20,
        save=climate.height, mean=climate.flow, sample=steps // 2, progress=f"T{truncation}",
        attrs={"title": f"three-level quasi-geostrophic atmosphere at T{truncation}"},
    )  # fmt: skip
    clock = folder / "seconds.json"
    seconds = time.monotonic() - begin + (json.loads(clock.read_text()) if clock.exists() else 0)
    clock.write_text(json.dumps(seconds))
    return seconds


if __name__ == "__main__":
    print(f"report: {main()}")
