"""Error against time and truncation, and maps."""

import numpy as np

from experiments.standard_cases import published
from experiments.standard_cases.stages import SETUPS, sphere
from hybridgcm import draw, plot
from hybridgcm.files import atomic

DINOSAUR = {"marker": "x", "color": "black", "linestyle": "none", "markersize": 6, "label": "dinosaur 1.5.1"}


def draw_all(config, records: list[dict], results: dict, years: list, folder) -> dict[str, str]:
    """{file: caption} of the figures that these cases allow."""
    finest = max(config.truncations)
    best = {name: results[name, finest, config.precisions[0]] for name in config.cases}
    jobs = {
        "errors.png": (lambda: errors(config, records), "l2 error in time, of each case with an exact answer or a "
                       "finer run. Dashed: single precision; crosses: dinosaur 1.5.1."),
        "convergence.png": (lambda: convergence(config, records), "l2 error on the last standard day against the "
                            "truncation. Dashed: single precision; crosses: dinosaur 1.5.1."),
    }  # fmt: skip
    if "williamson5" in best:
        about = f"Williamson 5, surface on day 15 at T{finest}, every 50 m; circles: foot and waist of the mountain."
        jobs["williamson5.png"] = (lambda: mountain(best["williamson5"]), about)
    if "williamson6" in best:
        about = f"Williamson 6, height at T{finest}, every 100 m."
        jobs["williamson6.png"] = (lambda: rossby_haurwitz(best["williamson6"]), about)
    if "galewsky" in best:
        runs = [results["galewsky", T, config.precisions[0]] for T in config.truncations]
        about = "Galewsky's perturbed jet on day 6, relative vorticity, without diffusion."
        jobs["galewsky.png"] = (lambda: jet(runs), about)
    about = (
        f"Stirred barotropic turbulence at T{years[-1].truncation}: ζ on the last day, zonal-mean u, energy, spectra."
    )
    jobs["turbulence.png"] = (lambda: turbulence(years[-1]), about)
    for name, (job, _) in jobs.items():
        figure = job()
        with atomic(folder / name) as temporary, plot.style():
            figure.savefig(temporary, format="png", dpi=150)
    return {name: caption for name, (_, caption) in jobs.items()}


def errors(config, records):
    """One panel per case, lines per truncation and precision."""
    from matplotlib.ticker import MaxNLocator

    shown = [name for name in config.cases if any(r["case"] == name and any(r["days"].values()) for r in records)]
    with plot.style() as Figure:
        figure, axes = _panels(Figure, len(shown), (2.9, 2.1))
        for ax, name in zip(axes.flat, shown):
            for record in (r for r in records if r["case"] == name):
                days = [(day, found["l2"]) for day, found in record["days"].items() if found]
                if days:
                    ax.plot(*zip(*days), **_look(config, record))
            marks = [(day, l2) for (case, T, _, day), l2 in published.DINOSAUR.items()
                     if case == name and T in config.truncations]  # fmt: skip
            if marks:
                ax.plot(*zip(*marks), **DINOSAUR)
            ax.set(title=SETUPS[name].title, yscale="log", xlim=(0, None))
            ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
            ax.grid(axis="y")
            _decades(ax)
            ax.set(xlabel="day", ylabel="l2 error" if ax.get_subplotspec().is_first_col() else "")
        draw.legend(figure, axes)
    return figure


def convergence(config, records):
    """One panel per precision, one line per case."""
    records = [r for r in records if not r["against"].startswith(f"T{r['truncation']} ")]  # that would be rounding
    names = [name for name in config.cases if any(r["case"] == name for r in records)]
    with plot.style() as Figure:
        figure = Figure(figsize=(3.3 * len(config.precisions) + 2.4, 3.4), layout="constrained")
        axes = figure.subplots(1, len(config.precisions), squeeze=False, sharey=True)[0]
        for ax, precision in zip(axes, config.precisions):
            for number, name in enumerate(names):
                last = SETUPS[name].days[-1]
                rows = [r for r in records if (r["case"], r["precision"]) == (name, precision) and r["days"][last]]
                plain = list(dict.fromkeys(other.removesuffix("_tilted") for other in names))
                look = {"color": draw.PALETTE[plain.index(name.removesuffix("_tilted")) % 8]}
                look |= {"linestyle": "--" if name.endswith("_tilted") else "-", "markersize": 4}
                look["marker"] = "os^Dv"[number % 5]
                line = [(r["truncation"], r["days"][last]["l2"]) for r in rows]
                ax.plot(*(zip(*line) if line else ([], [])), **look, label=SETUPS[name].title)
            marks = [(T, l2) for (name, T, kind, day), l2 in published.DINOSAUR.items()
                     if kind == precision and name in names and day == SETUPS[name].days[-1]
                     and T in config.truncations]  # fmt: skip
            if marks:
                ax.plot(*zip(*marks), **DINOSAUR)
            ax.set(title=precision, xscale="log", yscale="log", xlabel="truncation")
            ax.set_xticks(config.truncations, [f"T{T}" for T in config.truncations])
            ax.set_xticks([], minor=True)
            ax.margins(x=0.12)
            ax.grid(axis="y")
            _decades(ax)
        axes[0].set_ylabel("l2 error on the last standard day")
        draw.legend(figure, axes)
    return figure


def mountain(result):
    """Height of case 5 on day 15, the mountain in black."""
    from matplotlib.ticker import MultipleLocator

    h = result.scored(15)
    low = 50 * np.floor(h.min() / 50)
    with plot.style() as Figure:
        figure = Figure(figsize=(7.2, 3.5), layout="constrained")
        ax = figure.subplots()
        image = _map(ax, result.grid, h, np.arange(low, h.max() + 50, 50), "viridis")
        figure.colorbar(image, ax=ax, label="height (m)", aspect=25, pad=0.015, ticks=MultipleLocator(200))
        around = np.linspace(0, 2 * np.pi, 181)
        for radius in (20, 10):  # a circle in longitude and latitude
            ax.plot(270 + radius * np.cos(around), 30 + radius * np.sin(around), color="black", linewidth=0.9)
        ax.set_title(f"Williamson 5, day 15, T{result.truncation}")
    return figure


def rossby_haurwitz(result):
    """Height of case 6 at the start and on its last day."""
    from matplotlib.ticker import MultipleLocator

    last = result.setup.days[-1]
    first, end = result.scored(0), result.scored(last)
    levels = np.arange(100 * np.floor(min(first.min(), end.min()) / 100), max(first.max(), end.max()) + 100, 100)
    with plot.style() as Figure:
        figure = Figure(figsize=(7.2, 6.0), layout="constrained")
        axes = figure.subplots(2, 1, sharex=True)
        for ax, day, h in zip(axes, (0, last), (first, end)):
            image = _map(ax, result.grid, h, levels, "viridis")
            ax.set_title(f"Williamson 6, day {day}, T{result.truncation}")
        axes[0].set_xlabel("")
        figure.colorbar(image, ax=axes, label="height (m)", aspect=40, pad=0.012, ticks=MultipleLocator(400))
    return figure


def jet(results):
    """Vorticity of the northern mid-latitudes, one panel per truncation."""
    with plot.style() as Figure:
        figure = Figure(figsize=(7.2, 1.75 * len(results) + 0.4), layout="constrained")
        axes = figure.subplots(len(results), 1, squeeze=False, sharex=True)[:, 0]
        levels = np.arange(-17, 18, 2)  # none at zero, which noise would cross everywhere
        for ax, result in zip(axes, results):
            fine = sphere(max(result.truncation, 85))  # the polynomial between the points of coarse grids, too
            zeta = 1e5 * result.on_grid(result.arrays["end_zeta"], fine)
            image = _map(ax, fine, zeta, levels, plot.diverging(), "both")
            ax.set(title=f"T{result.truncation}, day 6", ylim=(10, 80), yticks=(20, 40, 60, 80), xlabel="")
        axes[-1].set_xlabel("longitude (degrees east)")
        figure.colorbar(image, ax=axes, label=f"vorticity ({draw.unit('s-1', -5)})", aspect=30, pad=0.012)
    return figure


def turbulence(year):
    """Vorticity in the end, zonal-mean u by day, energy beside what it would be undiffused, spectra by degree."""
    from matplotlib.ticker import MaxNLocator

    u, energy = year.arrays["u"], year.arrays["energy"]
    zonal, degree = year.arrays["zonal_spectrum"].sum(1), np.arange(2, year.truncation + 1)  # nothing drives degree 1
    zeta = 1e5 * np.asarray(year.grid.to_grid(year.arrays["end_q"]))[0]
    top, time = np.abs(u).max(), np.arange(1, len(u) + 1)
    with plot.style() as Figure:
        figure = Figure(figsize=(9.6, 5.6), layout="constrained")
        (left, right), (below, last) = figure.subplots(2, 2)
        limit = np.percentile(np.abs(zeta), 99.7)
        levels = MaxNLocator(14, symmetric=True).tick_values(-limit, limit)
        image = _map(left, year.grid, zeta, levels, plot.diverging(), "both")
        figure.colorbar(image, ax=left, label=f"vorticity ({draw.unit('s-1', -5)})", pad=0.012)
        left.set_title(f"T{year.truncation}, day {len(u)}")
        shades = {"cmap": plot.diverging(), "vmin": -top, "vmax": top, "shading": "nearest", "rasterized": True}
        image = right.pcolormesh(time, year.grid.latitude, u.T, **shades)
        figure.colorbar(image, ax=right, label="zonal-mean u (m s⁻¹)", pad=0.012)
        right.set(xlabel="day", ylabel="latitude (degrees north)", yticks=range(-60, 61, 30))
        for values, label, look in (
            (year.at_rest, "ε/2r (1 − exp(−2rt))", {"color": "#8A8A8A", "linestyle": "--"}),
            (energy, "energy", {"color": draw.PALETTE[6]}),
            (zonal, "of the zonal flow", {"color": draw.PALETTE[7]}),
        ):
            below.plot(time, values, label=label, **look)
        below.set(xlabel="day", ylabel="m² s⁻²", xlim=(0, len(u)), ylim=(0, None))
        for name, label, color in (("spectrum", "all", 6), ("zonal_spectrum", "zonal", 7)):
            last.loglog(degree, year.mean(name)[2:], label=label, color=draw.PALETTE[color])
        last.axvline(16, color="#8A8A8A", linestyle=":", label="stirring")
        last.axvline(year.record()["rhines"], color="#8A8A8A", label="Rhines")
        last.set(xlabel="total degree", ylabel="energy (m² s⁻²)", xlim=(2, year.truncation))
        draw.decimals(last.xaxis)
        for ax, corner in ((below, (0.55, 0.36)), (last, "lower left")):
            ax.legend(loc=corner)
            ax.grid(axis="y")
    return figure


def _map(ax, grid, a, levels, cmap, extend="neither"):
    """Filled contours, closed around the sphere."""
    longitude, closed = np.append(grid.longitude, 360), np.concatenate([a, a[:, :1]], -1)
    image = ax.contourf(longitude, grid.latitude, closed, levels, cmap=cmap, extend=extend)
    last = grid.latitude[-1]
    ax.set(xlim=(0, 360), ylim=(-last, last), xticks=range(0, 361, 60), yticks=range(-60, 61, 30))
    ax.set(xlabel="longitude (degrees east)", ylabel="latitude (degrees north)")
    return image


def _panels(Figure, count: int, size):
    """Figure and axes `[row, column]`; the spare ones are hidden, the last of them holds the legend."""
    columns = min(3, count)
    rows = -(-count // columns)
    margin = 0.0 if count % columns else 1.6
    figure = Figure(figsize=(size[0] * columns + margin, size[1] * rows + 0.2), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for ax in axes.flat[count:]:
        ax.set_axis_off()
    return figure, axes


def _look(config, record) -> dict:
    number = config.truncations.index(record["truncation"])
    double = record["precision"] == "float64"
    label = f"T{record['truncation']}, {record['precision']}"
    return {"color": draw.PALETTE[(1, 7, 2, 3)[number % 4]], "linestyle": "-" if double else "--",
            "marker": "o" if double else "s", "markersize": 2.5 if double else 4.5, "markerfacecolor": "none",
            "linewidth": 1.3, "label": label}  # fmt: skip


def _decades(ax):
    """No ticks between powers of ten; at least one decade in view."""
    from matplotlib.ticker import LogLocator, NullLocator

    low, high = ax.get_ylim()
    ax.set_ylim(10 ** np.floor(np.log10(low)), 10 ** np.ceil(np.log10(high)))
    ax.yaxis.set_major_locator(LogLocator(numticks=7))
    ax.yaxis.set_minor_locator(NullLocator())
