"""The standard cases of the sphere: error norms, convergence and maps, beside published numbers.

    python experiments/standard_cases/run.py [--preset NAME] [--out FOLDER] [--config run.toml] [--FIELD VALUE ...]

Williamson 1, 2 (along the equator, almost over the poles, in two layers over a ridge), 5 and 6, the barotropic
Rossby-Haurwitz wave, Galewsky's jet with and without its bump, a gravity wave; a year of stirred turbulence. Presets:
`laptop` (default: T42 and T85, minutes), `smoke` (T21 and T31, a minute), `full` (T170 too, an hour or two). Runs
are kept by content in FOLDER/stages: the same command goes on after a kill. Results: report.md, report.json,
turbulence.json and figures (PNG).
"""

import sys
from functools import partial
from itertools import product
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from experiments._run import Run, configure  # noqa: E402
from experiments.standard_cases.config import PRESETS  # noqa: E402


def main(argv=None) -> Path:
    """Run what is missing and return the path of the report."""
    config, folder = configure(PRESETS, argv, out="runs/standard_cases")
    import jax

    jax.config.update("jax_enable_x64", True)  # before any grid; models in single precision stay in it
    from hybridgcm.preemption import preemptible

    with preemptible(), Run(folder, config) as run:
        from experiments.standard_cases import report

        return report.write(run, simulate(run), stir(run))


def simulate(run) -> dict:
    """Folders of the runs by (case, truncation, precision)."""
    from experiments.standard_cases import stages

    config, program = run.config, Path(__file__).with_name("stages.py")
    keys = product(config.truncations, config.precisions, config.cases)
    out = {}
    for T, precision, name in keys:
        inputs = {"case": name, "truncation": T, "precision": precision, "dt": config.dt, "program": program}
        build = partial(stages.integrate, name, T, precision, config.dt)
        out[name, T, precision] = run.stage(f"{name}-T{T}-{precision}", inputs, build)
    return out


def stir(run) -> dict:
    """Folders of the turbulence by truncation."""
    from experiments.standard_cases import turbulence

    program, days, out = Path(__file__).with_name("turbulence.py"), run.config.days, {}
    for T in run.config.turbulence:
        inputs = {"truncation": T, "days": days, "program": program}
        out[T] = run.stage(f"turbulence-T{T}", inputs, partial(turbulence.integrate, T, days))
    return out


if __name__ == "__main__":
    print(f"report: {main()}")
