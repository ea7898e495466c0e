"""The report of the main job: one HTML file that needs nothing else, from plain arrays."""

import html
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

if __package__:
    from . import figures, film, page, tables
else:
    import figures
    import film
    import page
    import tables


def write_report(path: str | os.PathLike, results: Mapping) -> Path:
    """Write `results` as one self-contained HTML page to `path`, and return that path.

    `results` holds (all arrays are NumPy; what is marked with ° may be missing, its part then says so or is left out):

    - `title`, `abstract` (paragraphs apart by an empty line), `config`° (nested dict), `length` (m),
      `wavenumber` `[ring]` (rad m⁻¹, as of `diagnostics.wavenumbers`);
    - `provenance`°: any of `git`, `date`, `device`, `versions` {package: version}, `stages` {name: seconds};
    - `models`: {name: model} in the order of the tables, a model being a dict of
        `kind`: "truth" (one, coarse-grained), "none", "classical", "tuned", "offline" or "online";
        `family`: what a classical closure and its tuned version share; `amplitude`°;
        `q`° `[layer, y, x]` final snapshot (s⁻¹); `time`° `[frame]` (years) and `ke`° `[frame]` or `[member, frame]`
        (m² s⁻²); `spectra`°: means of `diagnostics.spectral_budget`; `pdf`°: see `figures.densities`;
        `errors`°: that of `metrics.perezhogin_errors`, numbers or arrays over seeds; `similarities`°: that of
        `metrics.ross_similarities`; `survivors`° (alive, started); `ms_per_step`°;
        `blew_up`°: None or {"field": name, "step": number};
    - `truth`° `[layer, y, x]` at full resolution; `animation`°: {"time": [frame] (days), "frames": {name:
      [frame, y, x]}} of upper-layer q (s⁻¹); `tuning`°: {family: {"amplitude", "distributional", "spectral": arrays,
      "published": number, "best"°: number}};
    - `training`°: {name: {"step", "loss": arrays, "label"°: what the loss is, "skipped"°: steps,
      "horizons"°: [(first step, model steps)]}};
    - `published`°: {"errors": {name: (distributional, spectral) or None}, "similarities": {name: {...}}}.

    The file is replaced only when the page is complete. Raises `ValueError` for a missing required entry.
    """
    missing = [name for name in ("title", "abstract", "length", "wavenumber", "models") if name not in results]
    if missing:
        raise ValueError(f"a report needs title, abstract, length, wavenumber and models; {missing} are missing")
    return page.write_page(
        path,
        results["title"],
        _byline(results.get("provenance", {})),
        results["abstract"],
        _sections(results),
        max(1, len(results.get("animation", {}).get("frames", {}))),
    )


def headline(path: str | os.PathLike, results: Mapping, largest: int = 400_000):
    """Save the one wide figure of the README (fields, spectrum, scores) as a PNG at `path`; returns the figure.

    The finest of 110, 95, 80 and 65 dots per inch at which the file has at most `largest` bytes.
    """
    figure = figures.summary(results)
    for dpi in (110, 95, 80, 65):
        image = page.image(figure, "png", dpi)
        if len(image) <= largest:
            break
    Path(path).write_bytes(image)
    return figure


def verdict(results: Mapping) -> list[str]:
    """Sentences made from the numbers: each network against every other model, and what did not survive."""
    models, out = results["models"], []
    words = {
        (True, True): "has both errors lower than",
        (True, False): "has a lower distributional but no lower spectral error than",
        (False, True): "has a lower spectral but no lower distributional error than",
        (False, False): "is in neither error better than",
    }
    for name in _networks(models):
        own, groups = figures.errors(models[name]), {key: [] for key in words}
        if not np.isfinite(own).all():
            out.append(f"{name} has no scores{_because(models[name])}: it beats nothing.")
            continue
        for other, model in models.items():
            theirs = figures.errors(model)
            if other != name and model["kind"] != "truth" and np.isfinite(theirs).all():
                won = (own[0] < theirs[0], own[1] < theirs[1])
                groups[won].append(f"{other} ({_pair(theirs)}{_wins(models[name], model)})")
        for won, others in groups.items():
            if others:
                out.append(f"{name} ({_pair(own)}) {words[won]} {_and(others)}.")
    for name, model in models.items():
        if figures.blown(model):
            field = model["blew_up"].get("field", "state")
            out.append(f"{name} {figures.blown(model)} ({field}) and has no scores.")
        elif model.get("survivors") and model["survivors"][0] < model["survivors"][1]:
            out.append("{}: {} of {} runs survived.".format(name, *model["survivors"]))
    return out


def _sections(results):
    """(anchor, heading, HTML) of every part in order; a part without data is empty."""
    energy = any("ke" in m for m in results["models"].values())
    spectral = any(m.get("spectra") for m in results["models"].values())
    return [
        ("verdict", "Verdict", _verdict(results)),
        ("scores", "Scores", _scores(results)),
        ("fields", "Fields", _fields(results)),
        ("animation", "Animation", film.player(results)),
        ("energy", "Energy in time", _energy(results) if energy else ""),
        ("spectra", "Spectra", _spectra(results) if spectral else ""),
        ("budget", "Energy budget", _budget(results) if spectral else ""),
        ("distributions", "Distributions", _pdfs(results)),
        ("training", "Training", _training(results)),
        ("tuning", "Amplitudes", _tuning(results)),
        ("similarities", "Similarities", tables.similarities(results)),
        ("configuration", "Configuration", _configuration(results)),
    ]


def _verdict(results):
    sentences = "".join(f"<li>{html.escape(text)}</li>" for text in verdict(results))
    return (
        f'<ul class="verdict">{sentences}</ul><p>In brackets: distributional / spectral error, lower is better.</p>'
        if sentences
        else ""
    )


def _scores(results):
    pairs = results.get("published", {}).get("errors", {})
    published = {name: pair for name, pair in pairs.items() if pair}
    plotted = page.plate(
        figures.scores(results, published),
        "Distributional error (mean Wasserstein distance of q, u, v, kinetic energy and enstrophy) against spectral "
        "error (kinetic energy per layer, energy flux, generation), both relative to the truth; lower left is better. "
        f"Hollow circles: amplitude tuned a posteriori. Diamonds: published, {tables.PEREZHOGIN}. "
        "A model that blew up has no point.",
        "Scatter plot of spectral error over distributional error for every model and the published ones.",
    )
    return tables.scores(results) + plotted


def _fields(results):
    caption = (
        "Potential vorticity anomaly q of the {} at the end of the free rollouts, units as printed; one colour scale "
        "for all panels, grid points shown as they are. The flow is chaotic: compare texture and strength, not single "
        "eddies."
    )
    alt = "Maps of potential vorticity in the {} for the truth and every model."
    layers = range(2) if any(figures.finite(m.get("q")) for m in results["models"].values()) else ()
    plots = [(figures.maps(results, i), figures.LAYERS[i]) for i in layers]
    return "".join(page.plate(f, caption.format(name), alt.format(name), "png") for f, name in plots)


def _energy(results):
    return page.plate(
        figures.energy(results),
        "Kinetic energy per unit mass, weighted by layer thickness, over model years of 360 days; quarter-year running "
        "means, the truth's own values faintly. A cross ends a run that blew up or rose above twice the truth's "
        "largest value.",
        "Time series of kinetic energy for the truth and every model.",
    )


def _spectra(results):
    caption = (
        "Time-mean isotropic {} per layer over wavenumber (rad m⁻¹; wavelength in km above); below, the ratio to the "
        "truth where that exceeds 1e-4 of its peak. One is perfect."
    )
    out = ""
    for name, what, units, words in (
        ("KEspec", "Kinetic energy", "m3 s-2", "spectrum of kinetic energy (κ²|ψ̂|², no factor ½)"),
        ("Ensspec", "Enstrophy", "m s-2", "spectrum of potential enstrophy (|q̂|², no factor ½)"),
    ):
        figure = figures.spectra(results, name, what, units)
        out += page.plate(figure, caption.format(words), f"{what} spectra per layer for the truth and every model.")
    return out


def _budget(results):
    return page.plate(
        figures.budget(results),
        "Time-mean spectral energy budget (m³ s⁻³), positive where a term gives energy to a scale; all panels share "
        "one scale. Fluxes of the models contain what their closure does to kinetic and to available potential energy, "
        "so that they compare with the truth, whose fluxes contain the subgrid part; the closure is also shown alone.",
        "Terms of the spectral energy budget over wavenumber for the truth and every model.",
    )


def _pdfs(results):
    if not any(m.get("pdf") for m in results["models"].values()):
        return ""
    return page.plate(
        figures.pdfs(results),
        "Probability densities of potential vorticity q and of the velocity anomalies u and v per layer, per unit of "
        "the printed axis, log scale; the truth is shaded.",
        "Probability densities of q, u and v in both layers for the truth and every model.",
    )


def _training(results):
    if not results.get("training"):
        return ""
    logs = results["training"].items()
    skipped = ", ".join(f"{len(log.get('skipped', ()))} of {len(log['step']):,} ({name})" for name, log in logs)
    return page.plate(
        figures.training(results),
        "Training loss by step: values faintly, running mean strongly. Dotted lines: from here gradients run through "
        f"so many model steps. Red ticks: steps skipped because of a gradient that was not finite, {skipped}.",
        "Training loss over steps for each network.",
    )


def _tuning(results):
    if not results.get("tuning"):
        return ""
    return page.plate(
        figures.tuning(results),
        "Errors of free rollouts within the training period by amplitude, relative to the published one or, for a "
        "network, trained one (dotted line). Stars: chosen for the tuned rows. A cross: the next larger one blew up.",
        "Distributional and spectral error over relative amplitude for each closure.",
    )


def _configuration(results):
    about = results.get("provenance", {})
    out = ""
    if stages := about.get("stages"):
        rows = [(name, f"{seconds:,.1f}") for name, seconds in (stages | {"sum": sum(stages.values())}).items()]
        out += page.details("Wall time per stage", tables.pairs(rows, ("stage", "s"), number=True), " open")
    if versions := about.get("versions"):
        out += page.details("Software", tables.pairs(versions.items(), ("package", "version")))
    if results.get("config"):
        out += page.details(
            "Resolved configuration", tables.pairs(tables.nested(results["config"]), ("field", "value"))
        )
    return out


def _byline(about):
    parts = [name for name in ("date", "device", "git") if name in about]
    known = [f"{name} {about[name]}" if name == "git" else str(about[name]) for name in parts]
    return " · ".join(known)


def _pair(errors):
    return "{:.4f}\N{NO-BREAK SPACE}/\N{NO-BREAK SPACE}{:.4f}".format(*errors)


def _networks(models):
    """Names of the networks, those trained through the solver first."""
    own = [name for name, m in models.items() if m["kind"] in ("online", "offline") or "seed" in m]
    return sorted(own, key=lambda name: "online" not in models[name].get("family", models[name]["kind"]))


def _wins(model, other):
    """In how many runs from the same start both errors are lower; empty for single runs."""
    runs = list(zip(model.get("runs", ()), other.get("runs", ()), strict=False))
    won = sum(all(ours[name] < theirs[name] for name in ours) for ours, theirs in runs)
    return f"; both in {won} of {len(runs)} runs" if len(runs) > 1 else ""


def _and(names):
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def _because(model):
    return f" ({figures.blown(model)})" if figures.blown(model) else ""
