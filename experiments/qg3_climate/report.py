"""Figures and tables of the climate of the three-level model."""

import json
from pathlib import Path

import numpy as np

from experiments.qg3_climate import climate
from hybridgcm import maps, plot, qg3
from hybridgcm.data import save_netcdf
from hybridgcm.files import atomic


class Points:
    """Where a climate's fields are."""

    def __init__(self, found):
        self.latitude, self.longitude = found["latitude"], found["longitude"]


def write(folder: Path, config, found: dict, reference: dict | None) -> Path:
    """climate-T*.nc, figures, report.json and report.md; returns the last."""
    scores = {name: climate.against(one, reference) for name, one in found.items()} if reference else {}
    numbers = {}
    for name, one in found.items():
        save_netcdf(climate.dataset(one), folder / f"climate-{name}.nc")
        keep = ("jets", "storms_at", "days", "seconds")
        numbers[name] = {key: one[key] for key in keep} | {"shares": one["shares"].tolist()} | scores.get(name, {})
        numbers[name]["blocking"] = {
            place: float(one["blocking"][_between(one["longitude"], *ends)].mean())
            for place, ends in {"Atlantic and Europe": (-40, 60), "Pacific": (120, 240)}.items()
        }
    if reference:
        numbers["reanalysis"] = {"jets": reference["jets"]}
    with atomic(folder / "report.json") as temporary:
        temporary.write_text(json.dumps(numbers, indent=1))
    figures(folder, found, reference)
    with atomic(folder / "report.md") as temporary:
        temporary.write_text(_text(config, found, numbers))
    return folder / "report.md"


def figures(folder: Path, found: dict, reference: dict | None):
    """means.png, zonal.png, storms.png, blocking.png and regimes.png."""
    all_ = ({"Reanalysis": reference} if reference else {}) | found
    grids = {name: Points(one) for name, one in all_.items()}
    panels, on = {}, {}
    for level in (0, 2):
        for name, one in all_.items():
            title = f"{name}, {qg3.LEVELS[level]:.0f} hPa"
            panels[title], on[title] = one["u"][level], grids[name]
    _save(maps.maps(panels, on, "u", columns=len(all_)), folder / "means.png")
    waves, on = {}, {}
    for name, one in all_.items():
        title = f"{name}, standing waves, 200 hPa"
        waves[title], on[title] = one["psi"][0] - one["psi"][0].mean(-1, keepdims=True), grids[name]
    _save(maps.maps(waves, on, "psi", columns=len(all_)), folder / "waves.png")
    lines = {f"{p:.0f} hPa": {name: one["u"][i] for name, one in all_.items()} for i, p in enumerate(qg3.LEVELS)}
    _save(maps.zonal_means(lines, grids, "u", reference="Reanalysis" if reference else None), folder / "zonal.png")
    storms = {f"{name}, 2.5 to 6 days": one["storms"] for name, one in found.items()}
    on = {title: Points(one) for title, one in zip(storms, found.values(), strict=True)}
    _save(maps.maps(storms, on, "z500", columns=2), folder / "storms.png")
    _save(_blocking(found), folder / "blocking.png")
    name, one = list(found.items())[-1]
    pairs = enumerate(zip(one["regimes"], one["shares"], strict=True), start=1)
    centres = {f"{name}, regime {i}, {share:.0%} of time": a for i, (a, share) in pairs}
    _save(maps.maps(centres, Points(one), "z500", columns=2), folder / "regimes.png")


def _blocking(found):
    with plot.style() as Figure:
        figure = Figure(figsize=(5.6, 2.4), layout="constrained")
        ax = figure.subplots()
        for name, one in found.items():
            east = np.mod(one["longitude"] + 90, 360) - 90
            order = np.argsort(east)
            ax.plot(east[order], 100 * one["blocking"][order], label=name)
        ax.set(xlabel="longitude (degrees east)", ylabel="blocked (% of time)", xlim=(-90, 270), ylim=(0, None))
        ax.legend()
    return figure


def _save(figure, path: Path):
    with atomic(path) as temporary:
        figure.savefig(temporary, format="png", dpi=130)


def _between(longitude: np.ndarray, west: float, east: float) -> np.ndarray:
    return np.mod(longitude - west, 360) <= east - west


def _text(config, found: dict, numbers: dict) -> str:
    source = Path(config.inputs).name if config.inputs else "the synthetic winter (no reanalysis)"
    lines = [
        "# Climate of the three-level quasi-geostrophic atmosphere", "",
        f"Forced from {source}; {config.days} days, the first {config.spin_up} left out.", "",
        "| | jets at 200 hPa | at 500 hPa | at 800 hPa | storm track (m, 2.5 to 6 days) | blocked, Atlantic / Pacific "
        "| standing waves: correlation | amplitude | years a day |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]  # fmt: skip
    for name, one in numbers.items():
        pair = lambda level, one=one: " and ".join(f"{u:.1f} at {_degrees(y)}" for u, y in _jets(one, level))
        cells = [name, *(pair(level) for level in range(3))]
        if name in found:
            y, x, strength = one["storms_at"]["north"]
            cells += [f"{strength:.0f} at {_degrees(y)}, {x:.0f}E"]
            cells += [" / ".join(f"{100 * share:.1f} %" for share in one["blocking"].values())]
            level = lambda key, one=one: " / ".join(f"{a:.2f}" for a in one[key]) if key in one else "–"
            cells += [level("correlation"), level("amplitude")]
            cells += [f"{config.days / 365 / one['seconds'] * 86400:,.0f}"]
        else:
            cells += [""] * 5
        lines.append(f"| {' | '.join(cells)} |")
    lines += [
        "",
        "Jets: strongest zonal-mean westerly of each hemisphere, m/s. Standing waves: ψ of the three levels,",
    ]
    lines += [
        "northern hemisphere, against the reanalysis. Years a day: simulated, with output and compilation.",
        "",
    ]
    for picture in ("means", "waves", "zonal", "storms", "blocking", "regimes"):
        lines += [f"![{picture}]({picture}.png)", ""]
    return "\n".join(lines)


def _jets(one: dict, level: int) -> list[tuple[float, float]]:
    return [one["jets"][side][level] for side in climate.SIDES]


def _degrees(latitude: float) -> str:
    return f"{abs(latitude):.0f}{'N' if latitude > 0 else 'S'}"
