"""The figures of the report: a results dict (see `report.write_report`) in, matplotlib figures out."""

import numpy as np

from hybridgcm import draw, plot

LAYERS = ("upper layer", "lower layer")
TRUTH = "Truth"
TERMS = {
    "KE flux + closure": ("KEflux", "paramspec_KEflux"),
    "APE flux + closure": ("APEflux", "paramspec_APEflux"),
    "APE generation": ("APEgenspec",),
    "Bottom friction": ("KEfrictionspec",),
    "Closure": ("paramspec",),
    "Dissipation and filter": ("Dissspec", "Filterspec"),
}
"""Panels of the budget, each the sum of what a model has of these terms."""


def styles(results) -> dict:
    """Line properties per model, the same in all figures."""
    return plot.line_styles({name: (m["kind"], m.get("family", name)) for name, m in results["models"].items()})


def truth(results) -> str:
    """Name of the model of kind "truth"."""
    return next((name for name, m in results["models"].items() if m["kind"] == "truth"), TRUTH)


def finite(value) -> bool:
    """Whether a number or array is there and finite."""
    return value is not None and bool(np.isfinite(value).all())


def blown(model) -> str:
    """ "blew up at step N" or, for one that did not, an empty string."""
    blew = model.get("blew_up")
    return f"blew up at step {int(blew['step']):,}" if blew else ""


def errors(model) -> tuple[float, float]:
    """Distributional and spectral error; nan where there is none."""
    values = model.get("errors") or {}
    return tuple(float(values.get(name, np.nan)) for name in ("distributional", "spectral"))


def maps(results, layer: int):
    """Final potential vorticity of the full-resolution truth and of every model."""
    panels = {}
    if results.get("truth") is not None:
        side = np.shape(results["truth"])[-1]
        panels[f"{truth(results)}, {side} × {side}"] = results["truth"][layer]
    for name, model in results["models"].items():
        text = blown(model).replace(" at", "\nat") or "no snapshot"
        title = f"{name}, coarse-grained" if model["kind"] == "truth" else name
        panels[title] = model["q"][layer] if finite(model.get("q")) and not blown(model) else text
    coarse = [a for a in panels.values() if not isinstance(a, str)]
    return plot.fields(panels, "q", length=results["length"], columns=5, limit=draw.bound(coarse[1:] or coarse))


def energy(results):
    """Kinetic energy in time, mean over members."""
    lines, largest = {}, np.inf
    for name, model in results["models"].items():
        if "ke" not in model:
            continue
        time, ke = np.asarray(model["time"], float), np.atleast_2d(np.asarray(model["ke"], float)).mean(0) * 1e4
        if model["kind"] == "truth":
            largest = 2 * np.max(ke)
        good = np.cumprod(ke < largest).astype(bool)  # false once it is not finite, too
        end = (np.nan, np.nan) if blown(model) or not good.all() else ()
        lines[name] = (np.append(time[good], end[:1]), np.append(ke[good], end[1:]))
    ylabel = f"kinetic energy ({draw.unit('m2 s-2', -4)})"
    return plot.series({"": lines}, ylabel=ylabel, styles=styles(results), smooth=0.25, raw=(truth(results),))


def spectra(results, name: str, what: str, units: str):
    """Time-mean spectrum of one quantity per layer, and its ratio to the truth's."""
    panels = {f"{what}, {layer} ({draw.unit(units)})": _of(results, (name,), i) for i, layer in enumerate(LAYERS)}
    return plot.spectra(results["wavenumber"], panels, styles=styles(results), reference=truth(results))


def budget(results):
    """The time-mean spectral energy budget, a panel per term that any model has."""
    panels = {title: _of(results, names) for title, names in TERMS.items()}
    panels = {title: lines for title, lines in panels.items() if lines}
    return plot.budget(results["wavenumber"], panels, styles=styles(results), columns=3)


def pdfs(results):
    """Probability densities of q, u and v per layer."""
    panels = {(layer, name): {} for layer in LAYERS for name in "quv"}
    for title, model in results["models"].items():
        for name, (edges, density) in model.get("pdf", {}).items():
            for i, layer in enumerate(LAYERS):
                panels[layer, name][title] = (edges[i], density[i])
    return plot.pdfs(panels, styles=styles(results), reference=truth(results))


def training(results):
    """Losses by training step, with horizons and skipped steps marked."""
    panels, marks, looks = {}, {}, {}
    for name, log in results["training"].items():
        title = f"{name}: {log.get('label', 'loss')}"
        step, loss = np.asarray(log["step"]), np.asarray(log["loss"], float)
        step, loss = step[np.isfinite(loss)], loss[np.isfinite(loss)]
        marks[title] = [(first, f"{steps} steps") for first, steps in log.get("horizons", ())]
        parts = np.searchsorted(step, [first for first, _ in marks[title]])
        pairs = zip(np.split(step, parts), np.split(loss, parts))  # no running mean across a change of horizon
        panels[title] = {f"_{name} {i}": pair for i, pair in enumerate(pairs)}
        looks |= dict.fromkeys(panels[title], styles(results).get(name, {}))
    smooth = max((np.ptp(log["step"]) for log in results["training"].values()), default=0) / 60
    figure = plot.series(
        panels,
        xlabel="training step",
        ylabel="loss",
        styles=looks,
        smooth=smooth,
        raw=tuple(looks),
        marks=marks,
        log=True,
    )
    for ax, log in zip(figure.axes, results["training"].values()):
        skipped = np.asarray(log.get("skipped", ()), float)
        ax.plot(
            skipped, np.full(len(skipped), 0.03), "|", color="#C00000", markersize=9, transform=ax.get_xaxis_transform()
        )
    return figure


def tuning(results):
    """Errors of free runs by amplitude, relative to the published or trained one; chosen ones as stars."""
    panels = {f"{name} error": {} for name in ("distributional", "spectral")}
    colors = {name: look["color"] for name, look in styles(results).items()}
    looks = {name: {"color": c, "linewidth": 1.3, "marker": "o", "markersize": 3.5} for name, c in colors.items()}
    stars = []
    for label, sweep in results["tuning"].items():
        x = np.asarray(sweep["amplitude"], float) / sweep["published"]
        for column, (title, lines) in enumerate(panels.items()):
            y = np.asarray(sweep[title.split()[0]], float)
            lines[label] = (x, y)
            if sweep.get("best") is not None and np.isfinite(y).any():
                at = sweep["best"] / sweep["published"]
                stars.append((column, label, at, np.interp(at, x[np.isfinite(y)], y[np.isfinite(y)])))
    marks = {title: [(1.0, "")] for title in panels}
    xlabel = "amplitude / published or trained amplitude"
    figure = plot.series(panels, xlabel=xlabel, ylabel="error", styles=looks, marks=marks, log=True)
    for column, label, x, y in stars:
        color = looks.get(label, {}).get("color", "black")
        figure.axes[column].plot(x, y, "*", markersize=12, color=color, markeredgecolor="black", zorder=8)
    return figure


def scores(results, published=None):
    """Distributional against spectral error, log-log; the lower left corner is best."""
    with plot.style() as Figure:
        figure = Figure(figsize=(9.5, 4.3), layout="constrained")
        ax = figure.subplots()
        for name, look in styles(results).items():
            x, y = errors(results["models"][name])
            if not (x > 0 and y > 0):
                continue
            face = "white" if results["models"][name]["kind"] == "tuned" else look["color"]
            size = 7.5 if results["models"][name]["kind"] in ("classical", "tuned") else 11
            ax.plot(
                x, y, "o", label=name, markersize=size, color=look["color"], markerfacecolor=face, zorder=look["zorder"]
            )
        for name, point in (published or {}).items():
            ax.plot(*point, "D", markersize=5, color="#777777", markerfacecolor="white", zorder=3)
            near = any(1 < x / point[0] < 2 and 0.88 < y / point[1] < 1.14 for x, y in published.values())
            place = {"xytext": (-6, -3), "ha": "right"} if near else {"xytext": (6, -3)}  # clear of a neighbour
            ax.annotate(name, point, textcoords="offset points", fontsize=7.5, color="#555555", zorder=9, **place)
        ax.set(xscale="log", yscale="log", xlabel="distributional error", ylabel="spectral error")
        ax.margins(x=0.14)  # room for the names
        draw.decimals(ax.xaxis)
        draw.decimals(ax.yaxis)
        ax.grid(True)
        draw.legend(figure, np.array([[ax]]))
    return figure


def summary(results, models=None):
    """One wide figure: fields side by side, the kinetic energy spectrum and both errors as bars."""
    known = results["models"]
    kinds = {m["kind"]: name for name, m in known.items()}
    models = models or [kinds[kind] for kind in ("truth", "none", "online") if kind in kinds]
    limit = draw.bound(known[name].get("q", "")[0] for name in models if finite(known[name].get("q")))
    look = styles(results)
    with plot.style() as Figure:
        figure = Figure(figsize=(2.2 * len(models) + 7.0, 2.9), layout="constrained")
        axes = figure.subplots(1, len(models) + 3, width_ratios=[1] * len(models) + [1.25, 0.7, 0.7])
        for ax, name in zip(axes, models):
            q = (
                refined(known[name]["q"][0], 4)
                if finite(known[name].get("q"))
                else blown(known[name]).replace(" at", "\nat")
            )
            draw.field(ax, name, q, limit, plot.diverging())
        axes[0].set_ylabel(f"upper-layer q, ±{limit / 1e-5:.1f} ({draw.unit('s-1', -5)})", fontsize=8)
        lines = _of(results, ("KEspec",), 0)
        draw.spectrum(axes[-3], results["wavenumber"], lines, look, truth(results))
        axes[-3].set(xlabel="wavenumber (rad m⁻¹)")
        axes[-3].set_title(f"KE spectrum ({draw.unit('m3 s-2')})", fontsize=8.5)
        scored = [name for name, m in known.items() if m["kind"] != "truth"]
        for ax, i in zip(axes[-2:], (0, 1)):
            _bars(ax, {name: errors(known[name])[i] for name in scored}, look)
            ax.set_title(("distributional error", "spectral error")[i], fontsize=8.5)
        axes[-2].set_yticks(range(len(scored)), scored, fontsize=7.5)
    return figure


def densities(fields, edges=None, bins: int = 81) -> dict:
    """`pdf` of a model: {name: (edges, density)}, each `[layer, bin]`, from `{name: [..., layer, y, x]}`.

    `edges`: the `pdf` of the truth, for the same bins; without, they reach 1.25 times the largest value.
    """
    out = {}
    for name, a in fields.items():
        samples = np.moveaxis(np.asarray(a), -3, 0).reshape(np.shape(a)[-3], -1)
        reach = [1.25 * np.max(np.abs(row)) for row in samples]
        grids = [np.linspace(-r, r, bins + 1) for r in reach] if edges is None else edges[name][0]
        counts = [np.histogram(row, grid)[0] / np.diff(grid) / row.size for row, grid in zip(samples, grids)]
        out[name] = (np.stack(list(grids)), np.stack(counts))
    return out


def refined(a, factor: int):
    """`[y, x]` on a grid `factor` times finer, by Fourier interpolation on the periodic domain."""
    a_hat = np.fft.fftshift(np.fft.fft2(a))
    pad = [((factor - 1) * n // 2,) * 2 for n in np.shape(a)]
    return factor**2 * np.fft.ifft2(np.fft.ifftshift(np.pad(a_hat, pad))).real


def _of(results, names, layer=None) -> dict:
    """Per model the sum of those of its spectra that are there and not all zero."""
    out = {}
    for title, model in results["models"].items():
        terms = [np.asarray(model.get("spectra", {}).get(name, 0.0), float) for name in names]
        terms = [a if layer is None else a[layer] for a in terms if np.any(a)]
        if terms:
            out[title] = sum(terms)
    return out


def _bars(ax, values, look):
    """Horizontal bars with their numbers, names left to the caller; no bar for what has no finite value."""
    for row, (name, value) in enumerate(values.items()):
        good = finite(value)
        color = look[name]["color"]
        tuned = look[name].get("linestyle")
        ax.barh(row, value if good else 0, 0.66, color="white" if tuned else color, edgecolor=color, linewidth=1.2)
        text, x = (f"{value:.3f}", value) if good else ("blew up", 0)
        ax.annotate(text, (x, row), (3, 0), textcoords="offset points", va="center", fontsize=7)
    ax.invert_yaxis()
    ax.set_yticks([])
    ax.tick_params(left=False)
    ax.spines["left"].set_visible(False)
    ax.margins(x=0.3)
