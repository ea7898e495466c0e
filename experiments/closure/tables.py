"""The tables of the report as HTML: scores, similarities, configuration."""

import html
from collections.abc import Mapping

import numpy as np

if __package__:
    from . import figures
else:
    import figures

NAMES = (
    *("q1", "q2", "u1", "u2", "v1", "v2", "KE1", "KE2", "Ens1", "Ens2"),
    *("KEspec1", "KEspec2", "Ensspec1", "Ensspec2", "KEflux", "APEflux", "APEgenspec", "KEfrictionspec"),
)
"""The similarities in print, the first ten distributional; 1 and 2 are the layers."""
ROSS = "Ross et al. (2023), doi:10.1029/2022MS003258"
PEREZHOGIN = "Perezhogin, Zanna and Fernandez-Granda (2023), doi:10.1029/2023MS003681"
_SURVIVED = "runs<br>survived"
_HEADS = (
    *("model", "amplitude", "distributional<br>error", "spectral<br>error", "similarity,<br>distributions"),
    *("similarity,<br>spectra", _SURVIVED, "ms per<br>step", "cost, no<br>closure = 1"),
)


def scores(results: Mapping) -> str:
    """Errors, mean similarities, survivors if any were counted, and cost of every model, published numbers below."""
    models, published = results["models"], results.get("published", {})
    best = [
        np.nanmin([e[i] for e in map(figures.errors, models.values()) if np.isfinite(e[i])] or [-1]) for i in (0, 1)
    ]
    bare = next((m.get("ms_per_step") for m in models.values() if m["kind"] == "none"), None)
    look = figures.styles(results)
    tested = any(model.get("survivors") for model in models.values())
    heads = tuple(head for head in _HEADS if tested or head != _SURVIVED)  # a column of dashes reads like no survivors
    rows = [
        _row(name, model, look[name], best, bare, tested) for name, model in models.items() if model["kind"] != "truth"
    ]
    costs = "<td></td>" * (2 + tested)
    if errors := published.get("errors"):
        rows.append(heading(f"Published errors, same configuration, other code: {PEREZHOGIN}", len(heads)))
        for name, pair in errors.items():
            cells = [f"{x:.4f}" for x in pair] if pair else ["–", "–"]
            rows.append(
                _published(name, "<td></td>" + "".join(f"<td>{c}</td>" for c in cells) + "<td></td>" * 2 + costs)
            )
    if similar := published.get("similarities"):
        rows.append(heading(f"Published similarities, same configuration, other code: {ROSS}", len(heads)))
        for name, values in similar.items():
            cells = "".join(f"<td>{number(x, '.3f')}</td>" for x in _means(values))
            rows.append(_published(name, "<td></td>" * 3 + cells + costs))
    note = (
        "Errors: zero is perfect; distances are divided by the size of the truth's own fields and spectra. "
        "Similarities: means of the ten distributional and the eight spectral ones; one is perfect, zero no better "
        "than no closure. The lowest error of each kind is underlined. Errors are those of all runs pooled, with the "
        "range of single runs below, larger by what the years of one run leave to chance. "
        "Published rows come from other code and other samples: compare magnitudes, not last digits."
    )
    return table(heads, rows, note)


def similarities(results: Mapping) -> str:
    """All similarities with a colour scale, published rows last; empty without any."""
    own = {name: m for name, m in results["models"].items() if m["kind"] not in ("truth", "none")}
    published = results.get("published", {}).get("similarities", {})
    if not published and not any(m.get("similarities") for m in own.values()):
        return ""
    rows = [_shades(name, m.get("similarities"), m["kind"], figures.blown(m)) for name, m in own.items()]
    if published:
        rows.append(heading(f"Published, single runs: {ROSS}", len(NAMES) + 1))
        rows += [_shades(name, values, "published", "") for name, values in published.items()]
    note = (
        "1 − D(model, truth) / D(no closure, truth). Blue is towards the truth, orange worse than no closure; shades "
        "end at ±1. Up to Ens2, D is the Wasserstein distance between distributions, then the difference between "
        "spectra. 1 and 2 are the upper and the lower layer."
    )
    heads = ["model", *(name.replace("flux", "<br>flux").replace("spec", "<br>spec") for name in NAMES)]
    return table(
        [h.replace("KEfriction", "KE<br>friction").replace("APEgen", "APE<br>gen") for h in heads],
        rows,
        note,
        "similarity",
    )


def nested(config: Mapping, prefix: str = "") -> list[tuple[str, str]]:
    """(dotted name, value) pairs of nested dicts."""
    pairs = []
    for name, value in config.items():
        if isinstance(value, Mapping):
            pairs += nested(value, f"{prefix}{name}.")
        else:
            pairs.append((prefix + str(name), str(value)))
    return pairs


def pairs(rows, heads: tuple[str, str], number: bool = False) -> str:
    """A table of two columns."""
    body = [f"<tr><th>{html.escape(a)}</th><td>{html.escape(b)}</td></tr>" for a, b in rows]
    return table(heads, body, "", "number" if number else "")


def table(heads, rows, note, kind=""):
    """A table that scrolls sideways where the window is narrow, with a note below; all of it HTML."""
    head = "".join(f'<th scope="col">{h}</th>' for h in heads)
    below = f'<p class="note">{note}</p>' if note else ""
    body = f"<thead><tr>{head}</tr></thead>\n<tbody>{chr(10).join(rows)}</tbody>"
    return f'<div class="scroll"><table class="{kind}">{body}</table></div>{below}'


def heading(text, columns):
    """A row of text across the table."""
    return f'<tr class="head"><td colspan="{columns}">{text}</td></tr>'


def _published(name, cells):
    return f'<tr class="published"><th scope="row">{html.escape(name)}</th>{cells}</tr>'


def _row(name, model, look, best, bare, tested):
    """One model in the score table."""
    values = model.get("errors") or {}
    cells = [("", number(model.get("amplitude"), ".3g", ""))]
    own = figures.errors(model)
    if figures.blown(model) and not np.isfinite(own).all():
        cells.append(('bad" colspan="2', figures.blown(model)))
    else:
        names = ("distributional", "spectral")
        single = [[run[name] for run in model.get("runs", ())] for name in names]
        cells += [
            ("best" if own[i] == best[i] else "", _spread(values.get(name), single[i])) for i, name in enumerate(names)
        ]
    cells += [("", number(x, ".3f")) for x in _means(model.get("similarities"))]
    if tested:
        alive = model.get("survivors")
        cells.append(("bad" if alive and alive[0] < alive[1] else "", f"{alive[0]} of {alive[1]}" if alive else "–"))
    cost = model.get("ms_per_step")
    cells += [("", number(cost, ".3f")), ("", number(cost / bare if cost and bare else None, ".2f"))]
    style = "dashed" if look.get("linestyle") else "solid"
    swatch = f'<span class="swatch" style="border-top:3px {style} {look["color"]}"></span>'
    tds = "".join(f'<td class="{c}">{text}</td>' for c, text in cells)
    return f'<tr class="{model["kind"]}"><th scope="row">{swatch}{html.escape(name)}</th>{tds}</tr>'


def _shades(name, values, kind, blown):
    """One row of coloured cells; blue to white to orange, saturated at ±1."""
    if not values:
        text = blown or "no similarities"
        return (
            f'<tr><th scope="row">{html.escape(name)}</th><td class="text bad" colspan="{len(NAMES)}">{text}</td></tr>'
        )
    cells = []
    for key in NAMES:
        value = float(np.mean(values.get(key, np.nan)))
        if not np.isfinite(value):
            cells.append("<td>–</td>")
            continue
        share = min(abs(value), 1) ** 0.8
        end = np.array([94, 160, 214] if value > 0 else [236, 145, 70])
        color = "rgb({},{},{})".format(*np.rint(255 + share * (end - 255)).astype(int))
        cells.append(
            f'<td class="shade" style="background:{color}">{number(value, ".2f" if abs(value) < 10 else ".1f")}</td>'
        )
    return f'<tr class="{kind}"><th scope="row">{html.escape(name)}</th>{"".join(cells)}</tr>'


def _means(values):
    """Means of the distributional and of the spectral similarities, nan where one is missing."""
    if not values:
        return np.nan, np.nan
    flat = [float(np.mean(values.get(name, np.nan))) for name in NAMES]
    return float(np.mean(flat[:10])), float(np.mean(flat[10:]))


def number(value, form, missing="–"):
    """A number in print, with a real minus; `missing` for None and what is not finite."""
    return missing if value is None or not np.isfinite(value) else format(float(value), form).replace("-", "−")


def _spread(value, runs):
    """An error, with the range of the single runs' below it."""
    if value is None or not np.isfinite(value):
        return "–"
    below = f"<br><small>{min(runs):.4f} to {max(runs):.4f}</small>" if len(runs) > 1 else ""
    return f"{value:.4f}{below}"
