"""report.md and report.json: norms on the standard days, other numbers, figures."""

import json
from pathlib import Path

from experiments.standard_cases import figures, published, scores, turbulence
from experiments.standard_cases.stages import SETUPS, UNITS
from hybridgcm.files import atomic

ABOUT = """Norms l1, l2 and l∞ of Williamson et al. (1992), eqs. 82 to 84: difference relative to the reference, by
area, of the coefficients in double precision, whatever the model's. Heights are those of the surface. *Against* says of
what: the exact answer on the points of the run, or the finest run in {precision}, to whose grid the coefficients of the
others are padded; beside that run itself the norms are those of rounding alone. The error of the gravity wave is that
of the time step. Nothing is diffused: the perturbed jet of Galewsky et al. (2004) converges only slowly so.

The turbulence (`cases.turbulence`) is stirred at total degree 16 at the rate ε against a drag r of 100 days; what
hyperdiffusion takes is measured, and the energy at which the year ends follows from it.

dinosaur 1.5.1 was measured apart from this, case 5 against its own T85; in single precision its norms may contain the
rounding of the comparison, too. Published: Jakob-Chien et al. (1995), read off, against T213."""


def write(run, folders: dict, stirred: dict) -> Path:
    """Score the runs, write report.json, turbulence.json, the figures and report.md; prints the tables."""
    config = run.config
    records, results = scores.score(config, folders)
    years = [turbulence.Year(T, folder) for T, folder in stirred.items()]
    budgets = [year.record() for year in years]
    for name, found in {"report": records, "turbulence": budgets}.items():
        with atomic(run.folder / f"{name}.json") as temporary:
            temporary.write_text(json.dumps(found, indent=1))
    drawn = figures.draw_all(config, records, results, years, run.folder)
    tables = "\n".join([*norm_table(records), "", *fact_table(records), *turbulence.rows(budgets)])
    print(f"\n{tables}\n", flush=True)
    lines = ["# Standard cases on the sphere", "", ABOUT.format(precision=config.precisions[0]), "", tables, ""]
    lines += [part for name, caption in drawn.items() for part in (f"![{caption}]({name})", "", caption, "")]
    report = run.folder / "report.md"
    with atomic(report) as temporary:
        temporary.write_text("\n".join(lines))
    return report


def norm_table(records: list[dict]) -> list[str]:
    """Markdown rows, one per run and standard day."""
    heads = "case", "field", "run", "precision", "day", "against", "l1", "l2", "l∞", "dinosaur l2", "published l2"
    rows = [heads, ["---"] * 4 + ["---:"] + ["---"] + ["---:"] * 5]
    order = list(SETUPS)
    for record in sorted(records, key=lambda record: order.index(record["case"])):
        name, T, precision = record["case"], record["truncation"], record["precision"]
        for day in SETUPS[name].days:
            if (found := record["days"][day]) is None:
                continue
            other = published.DINOSAUR.get((name, T, precision, day))
            paper = published.JAKOB_CHIEN.get((name, T, day)) if precision == "float64" else None
            about = [SETUPS[name].title, UNITS[record["scored"]], f"T{T}", precision, str(day), record["against"]]
            rows.append([*about, *map(_number, (found["l1"], found["l2"], found["linf"], other, paper))])
    return [f"| {' | '.join(row)} |" for row in rows]


def fact_table(records: list[dict]) -> list[str]:
    """Markdown rows of what is no norm."""
    rows = [("quantity", "run", "precision", "here", "elsewhere"), ["---"] * 5]
    about = lambda record: (f"T{record['truncation']}", record["precision"])
    facts = published.FACTS
    of = lambda name: [record for record in records if record["case"] == name]
    for record in of("williamson5"):
        low, high = record["depth"]
        here = f"{low:.0f} to {high:.0f} m"
        rows.append(("Williamson 5, depth of the water on day 15", *about(record), here, facts["depth"]))
    for record in of("williamson5"):
        days = [record["days"][day] for day in SETUPS["williamson5"].days if record["days"][day]]
        if days and not record["against"].startswith(about(record)[0]):  # not the reference in single precision
            low, high = (f(found["linf"] for found in days) for f in (min, max))
            here = f"{low:.1e} to {high:.1e}"
            rows.append(("Williamson 5, l∞ on days 5, 10, 15", *about(record), here, facts["linf"]))
    for record in of("williamson6"):
        rows.append(("Williamson 6, wave 4, degrees a day", *about(record), f"{record['speed']:.3f}", facts["speed"]))
        here = f"{record['amplitude']:.3f} of the start; l2 {record['shape']:.1e} from the start, turned"
        rows.append(("Williamson 6, wave 4, shape on day 14", *about(record), here, ""))
    for record in of("galewsky_balanced")[:: max(1, len({r["precision"] for r in records}))]:
        here = f"{record['supremum']:.4e} m⁻¹ s⁻¹ at {record['latitude']:.2f} N"
        rows.append(("Galewsky, largest (ζ + f)/h of the start", about(record)[0], "float64", here, facts["supremum"]))
    if mass := [record["mass"] for record in records if "mass" in record]:
        rows.append(("largest relative change of mass, all cases", "all", "all", f"{max(mass):.1e}", facts["mass"]))
    return [f"| {' | '.join(row)} |" for row in rows]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.1e}"
