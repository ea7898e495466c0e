"""One table of all closures with a formula: survivors, drift and cost over long free runs.

    python experiments/benchmarks/closures.py [--steps 100000] [--starts 5] [--out FOLDER] [--only NAME ...] [--write]

Two-layer *eddy* at 64² with pyqg's filter, AB3, 3600 s, float32. Every closure, at its published or default constants,
runs freely from the same five states of a flow without closure, `spin_up` steps old. FOLDER/closures.jsonl gets one
line per closure as it ends; the same command goes on with those that are missing. `--write` puts the table into
docs/closures.md.

- survivors: finite, Courant number below one, variance of q at most ten times the largest of the starts, all along;
- energy: kinetic energy, mean over the last half and all survivors, over that of the flow without closure;
- drift: slope of kinetic energy per 10,000 steps over the last half, over its mean, with a 95 % interval from the
  survivors' slopes;
- cost: a step over a step without closure, medians, measured back to back.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import hybridgcm as hg  # noqa: E402
from experiments.benchmarks import cases  # noqa: E402
from hybridgcm import closures, diagnostics  # noqa: E402
from hybridgcm.evaluate import LIMIT  # noqa: E402

PAGE = Path(__file__).resolve().parents[2] / "docs/closures.md"
MARKS = "<!-- measured -->\n", "<!-- end -->"
N, DT, EVERY = 64, 3600.0, 500


def formulas() -> dict:
    """{name: (closure, what it is at)}."""
    depth, U = (0.25, 1.0), (0.025, 0.0)
    stretching = np.asarray(cases.model(N, "float32").equation.stretching)
    radius = 1 / np.sqrt(-np.diag(stretching))
    backscatter = hg.BiharmonicBackscatter(depth, 0.007**0.5, 1.2)
    normal = {"q": (((4e-6, 4e-7), (1.2e-10, 1.6e-11)), ((2e-6, 2e-7), (6e-11, 8e-12)))}
    return {
        "none": (None, ""),
        "Smagorinsky": (hg.Smagorinsky(0.15), "C = .15"),
        "Leith": (hg.Leith(0.3), "C = .3"),
        "QGLeith": (closures.QGLeith(radius), "C = 1/π"),
        "DynamicSmagorinsky": (closures.DynamicSmagorinsky(), "no constant"),
        "DynamicLeith": (closures.DynamicLeith(), "no constant"),
        "ZannaBolton": (hg.ZannaBolton(-46_761_284.0), "κ = −4.68e7 m²"),
        "ScaleAwareZannaBolton": (closures.ScaleAwareZannaBolton(), "γ = .5"),
        "BiharmonicBackscatter": (backscatter, "C² = .007, c_B = 1.2"),
        "EnergyBackscatter": (closures.EnergyBackscatter(U=U, dt=DT), "defaults"),
        "RossSymbolic": (closures.RossSymbolic(), "published weights"),
        "GradientModel": (closures.GradientModel(1.0), "C = 1"),
        "Hyperviscosity": (closures.Hyperviscosity(86400.0, 4), "1 day"),
        "Sum(Leith, AR1)": (
            hg.Sum(hg.Leith(0.1), closures.AR1((1e-12, 1e-13), scale=5e4, tau=86400.0, dt=DT)), "σ = 1e-12 s⁻²",
        ),
        "SPPT(BiharmonicBackscatter)": (closures.SPPT(backscatter, scale=2e5, tau=21600.0, dt=DT), "σ = .5"),
        "Every(BiharmonicBackscatter, 4)": (closures.Every(backscatter, 4), ""),
        "FailSafe(GradientModel)": (
            closures.FailSafe(closures.GradientModel(1.0), normal, {"q": (2e-11, 2e-12)}), "C = 1",
        ),
    }  # fmt: skip


def main(argv=None):
    """Run what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=100_000)
    parser.add_argument("--starts", type=int, default=5)
    parser.add_argument("--spin-up", type=int, default=30_000)
    parser.add_argument("--out", type=Path, default=Path("runs/closures"))
    parser.add_argument("--only", nargs="*", choices=list(formulas()), metavar="NAME")
    parser.add_argument("--write", action="store_true", help="replace the table in docs/closures.md")
    options = parser.parse_args(argv)
    options.out.mkdir(parents=True, exist_ok=True)
    log = options.out / "closures.jsonl"
    rows = {row["closure"]: row for row in map(json.loads, log.read_text().splitlines())} if log.exists() else {}
    q = states(options.starts, options.spin_up)
    for name, (closure, at) in formulas().items():
        if name in rows or (options.only and name not in options.only):
            continue
        begin = time.monotonic()
        rows[name] = {"closure": name, "at": at, **endurance(closure, q, options.steps), "cost": cost(closure, q[0])}
        rows[name]["seconds"] = round(time.monotonic() - begin, 1)
        with open(log, "a") as file:
            file.write(json.dumps(rows[name]) + "\n")
        print(row_of(rows[name], rows["none"]), flush=True)
    text = table([rows[name] for name in formulas() if name in rows], options)
    print(text)
    if options.write:
        before, rest = PAGE.read_text().split(MARKS[0])
        PAGE.write_text(before + MARKS[0] + text + "\n" + MARKS[1] + rest.split(MARKS[1])[1])


def states(starts: int, spin_up: int) -> np.ndarray:
    """q of flows without closure after `spin_up` steps from different noise, `[start, layer, y, x]`."""
    low = cases.model(N, "float32")
    run = eqx.filter_jit(lambda low, state: hg.rollout(low, state, spin_up, every=spin_up, save=None)[0])
    out = []
    for member in range(starts):
        noise = 1e-6 * jr.normal(jr.key(member), (2, N, N)) * jnp.array([1.0, 0.1])[:, None, None]
        noise = noise - noise.mean((1, 2), keepdims=True)
        out.append(np.asarray(low.decode(run(low, low.encode({"q": noise})))["q"]))
    return np.stack(out)


def watched(model, state) -> dict:
    """Variance of q per layer, s⁻², and kinetic energy, m² s⁻²."""
    return {
        "variance": jnp.var(1e6 * model.decode(state)["q"], (-2, -1)),
        "ke": diagnostics.kinetic_energy(model, state),
    }


def endurance(closure, q: np.ndarray, steps: int) -> dict:
    """Free runs from every start: where each ended and why, its kinetic energy and drift over the last half."""
    low = hg.Model(cases.model(N, "float32").equation, cases.model(N, "float32").stepper, closure, dt=DT)
    bound = LIMIT * np.var(1e6 * q.astype(float), (-2, -1)).max(0)
    ends, reasons, energies, slopes = [], [], [], []
    for member, start in enumerate(q):
        energy, end, why = [], None, ""
        try:
            for _, out in hg.stream(
                low, low.encode({"q": start}, jr.key(member)), steps, every=EVERY, chunk=10, save=watched
            ):
                energy += np.sum(np.atleast_2d(out["save"]["ke"].T), 0).tolist()
                if (large := (out["save"]["variance"] > bound).any(-1)).any():
                    end, why = int(out["step"][large.argmax()]), "variance"
                    break
        except hg.BlewUp as error:
            end, why = error.step, error.field
        ends.append(end)
        reasons.append(why)
        if end is None:
            half = np.array(energy[len(energy) // 2 :])
            energies.append(float(half.mean()))
            slopes.append(float(np.polyfit(EVERY * np.arange(len(half)) / 1e4, half / half.mean(), 1)[0]))
    return {"attempts": len(q), "steps": steps, "ends": ends, "reasons": reasons, "energy": energies, "slopes": slopes}


def cost(closure, q: np.ndarray, steps: int = 200, rounds: int = 7) -> float:
    """Time of a step over that of a step without closure, the median of rounds that alternate."""
    bare = cases.model(N, "float32")
    pair = [bare, hg.Model(bare.equation, bare.stepper, closure, dt=DT)]
    run = eqx.filter_jit(lambda low, state: hg.rollout(low, state, steps, every=steps, save=None)[0])
    begun = [run(low, low.encode({"q": q})) for low in pair]
    times = [[], []]
    for _ in range(rounds):
        for i, low in enumerate(pair):
            start = time.perf_counter()
            jax.block_until_ready(run(low, begun[i]))
            times[i].append(time.perf_counter() - start)
    return float(np.median(times[1]) / np.median(times[0]))


def row_of(row: dict, none: dict) -> str:
    """One line of the table."""
    alive = row["ends"].count(None)
    cells = [row["closure"], row["at"], f"{alive}/{row['attempts']}"]
    if alive:
        slopes = 100 * np.array(row["slopes"])
        half = 2.78 * slopes.std(ddof=1) / np.sqrt(alive) if alive > 2 else np.nan  # t quantile of five
        cells += [f"{np.mean(row['energy']) / np.mean(none['energy']):.2f}", f"{slopes.mean():+.1f} ± {half:.1f} %"]
    else:
        cells += ["–", f"{row['reasons'][0]} at {min(row['ends'])}"]
    return f"| {' | '.join([*cells, format(row['cost'], '.1f')])} |"


def table(rows: list[dict], options) -> str:
    """Markdown."""
    head = f"| closure | at | survive {options.steps:,} steps | energy / none | drift per 10,000 steps | cost / none |"
    none = next(row for row in rows if row["closure"] == "none")
    return "\n".join([head, "|---|---|---|---|---|---|", *(row_of(row, none) for row in rows)])


if __name__ == "__main__":
    main()
