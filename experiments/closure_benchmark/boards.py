"""Tables of the leaderboard as plain data: rows of one system and one version of data and protocol, seeds together."""

import statistics
from collections.abc import Iterable, Mapping

from experiments.closure_benchmark import published

ERRORS = ("distributional", "spectral")
SEEDS, MEMBERS = 5, 10
"""Trainings and free runs that a claim needs; tables with fewer say so."""


def boards(rows: Iterable[Mapping]) -> list[dict]:
    """One dict per (system, data, protocol): {"system", "data", "protocol", "entries", "published"}.

    An entry is one method: see `entry`. The order is that of the product of both errors, what has none comes last,
    the model without closure first.
    """
    groups = {}
    for row in rows:
        version = (row["system"], row.get("data") or "unknown", row.get("protocol") or "unknown")
        groups.setdefault(version, {}).setdefault((row["method"], row.get("trained_on")), []).append(row)
    out = []
    for (system, data, protocol), methods in sorted(groups.items()):
        entries = sorted((entry(found) for found in methods.values()), key=_rank)
        for number, one in enumerate(entries):
            one["number"] = number
        out.append({
            "system": system, "data": data, "protocol": protocol, "entries": entries,
            "published": {name: list(pair) for name, pair in published.errors(system).items()},
        })  # fmt: skip
    return out


def entry(rows: list[Mapping]) -> dict:
    """The rows of one method as one: numbers as {"mean", "deviation", "values"} over those seeds that have them.

    `deviation` is the sample standard deviation, None for one value. `unit` and `tuned` hold both errors, `amplitude`,
    `finished` and `runs` (free runs of all seeds); `failed` the reasons of rows without scores, by seed.
    """
    first = rows[0]
    good = [row for row in rows if "failed" not in row]
    label = first["method"] + (f" @ {first['trained_on']}" if first.get("trained_on") else "")
    out = {
        "method": first["method"], "trained_on": first.get("trained_on"), "label": label,
        "title": first.get("title", first["method"]), "seeds": [row["seed"] for row in rows],
        "scored": sum("errors" in row.get("unit", {}) for row in good),
        "failed": {str(row["seed"]): row["failed"] for row in rows if "failed" in row},
        "code": sorted({row.get("code") or "unknown" for row in rows}),
        "dates": sorted({row.get("date") or "unknown" for row in rows}),
        "devices": sorted({(row.get("environment") or {}).get("device", "unknown") for row in rows}),
        "kind": _kind(good),
    }  # fmt: skip
    out |= {name: _free([row[name] for row in good if row.get(name)]) for name in ("unit", "tuned")}
    offline = [row.get("offline") or {} for row in good]
    # of resolved scales where a row has them: networks are trained on no others
    skill = lambda name: [one.get(f"{name}_resolved") or one.get(name) for one in offline]
    out["offline"] = {name: _layers(list(filter(None, skill(name)))) for name in ("R2", "correlation")}
    similar = [row["unit"]["similarities"] for row in good if (row.get("unit") or {}).get("similarities")]
    out["similarities"] = {name: statistics.fmean(one[name] for one in similar) for name in (similar or [{}])[0]}
    survival = [row["survival"] for row in good if row.get("survival")]
    out["survival"] = (
        {name: sum(one[name] for one in survival) for name in ("survivors", "attempts")} if survival else None
    )
    cost = [row["ms_per_step"] / row["ms_without"] for row in good if row.get("ms_per_step") and row.get("ms_without")]
    out |= {"cost": _numbers(cost), "ms_per_step": _numbers(row.get("ms_per_step") for row in good)}
    for name in ("training_seconds", "forecast_days"):
        out[name] = _numbers(row.get(name) for row in good)
    calibration = [row["calibration"] for row in good if isinstance(row.get("calibration"), Mapping)]
    names = dict.fromkeys(name for one in calibration for name, value in one.items() if _number(value))
    out["calibration"] = {name: _numbers(one.get(name) for one in calibration) for name in names}
    out["spectra"] = next((row["unit"]["spectra"] for row in good if (row.get("unit") or {}).get("spectra")), None)
    return out


def warnings(tables: list[Mapping]) -> list[str]:
    """What a reader must know before comparing: mixed versions, few seeds or runs, closures that failed."""
    out = []
    for system in dict.fromkeys(board["system"] for board in tables):
        versions = [(board["data"], board["protocol"]) for board in tables if board["system"] == system]
        if len(versions) > 1:
            named = "; ".join(f"data {data}, protocol {protocol}" for data, protocol in versions)
            out.append(
                f"{system} has rows of {len(versions)} versions ({named}). They stand in separate tables: numbers of "
                "one must not be compared with those of another."
            )
    protocols = sorted({board["protocol"] for board in tables})
    if len(protocols) > 1:
        out.append(f"There are rows of protocols {' and '.join(protocols)}: compare within one protocol only.")
    few = [board["system"] for board in tables if any(not enough(one) for one in board["entries"])]
    if few:
        out.append(
            f"A claim needs {SEEDS} trainings and {MEMBERS} free runs of each. Methods with fewer, marked with °, are "
            f"in the tables of {', '.join(dict.fromkeys(few))}."
        )
    failed = [f"{one['label']} on {board['system']}" for board in tables for one in board["entries"] if one["failed"]]
    if failed:
        out.append(f"Without scores, with the reason in the table, are {', '.join(failed)}.")
    return out


def enough(one: Mapping) -> bool:
    """Whether an entry has the seeds and free runs that a claim needs; those that depend on no seed need one."""
    seeds = len(one["seeds"])
    return (seeds >= SEEDS or one["kind"] != "trained") and one["unit"]["runs"] >= MEMBERS * seeds


def product(one: Mapping, name: str = "unit") -> float:
    """Product of the mean errors at amplitude 1 ("unit") or at the tuned one; infinite without."""
    pair = [one[name][error]["mean"] for error in ERRORS]
    return pair[0] * pair[1] if None not in pair else float("inf")


def _rank(one):
    return one["method"] != "none", product(one), one["label"]


def _kind(rows) -> str:
    """ "none", "fixed" (one result, whatever the seed) or "trained"; rows without the mark by their training's time."""
    if rows and rows[0]["method"] == "none":
        return "none"
    seeded = [row.get("seeded", (row.get("training_seconds") or 0) > 5) for row in rows]
    return "trained" if any(seeded) else "fixed"


def _free(found) -> dict:
    pairs = [one["errors"] for one in found if "errors" in one]
    return {name: _numbers(pair.get(name) for pair in pairs) for name in ERRORS} | {
        "amplitude": _numbers(one.get("amplitude") for one in found),
        "finished": sum(one.get("finished", 0) for one in found),
        "runs": sum(one.get("runs", 0) for one in found),
    }


def _layers(found) -> list[dict]:
    return [_numbers(one[i] for one in found) for i in range(len(found[0]))] if found else []


def _number(value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _numbers(values) -> dict:
    values = [float(value) for value in values if _number(value)]
    deviation = statistics.stdev(values) if len(values) > 1 else None
    return {"mean": statistics.fmean(values) if values else None, "deviation": deviation, "values": values}
