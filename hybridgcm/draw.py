"""What `plot` draws on one axes, for figures of your own: axes come in, units and scales are settled here."""

import re
from collections.abc import Mapping

import numpy as np

from hybridgcm._typing import VARIABLES

PALETTE = ("#E69F00", "#56B4E9", "#009E73", "#CC79A7", "#7F3C8D", "#6B6B00", "#0072B2", "#D55E00")
"""Colours that stay apart for colour-blind readers: Okabe and Ito (2008), and two dark ones."""
LATITUDES = (-90, -60, -30, 0, 30, 60, 90)
"""Ticks of an axis of latitude, degrees north."""
_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def unit(units: str, power: int = 0) -> str:
    """CF units for print, with a power of ten taken out: `unit("m2 s-1", -5)` gives "10⁻⁵ m² s⁻¹"."""
    text = re.sub(r"(?<=[a-z])-?\d+", lambda match: match.group().translate(_RAISED), units)
    return f"10{str(power).translate(_RAISED)} {text}" if power else text


def label(name: str, power: int = 0) -> str:
    """Axis label of a variable: `label("q", -5)` gives "q (10⁻⁵ s⁻¹)"; other names only get the power."""
    if name in VARIABLES:
        return f"{name} ({unit(VARIABLES[name].units, power)})"
    return f"{name} × 10{str(power).translate(_RAISED)}" if power else name


def power(value: float) -> int:
    """The power of ten that an axis takes out: none for values within .01 to 1000."""
    return 0 if 0.01 <= value < 1000 or not value > 0 else int(np.floor(np.log10(value)))


def bound(arrays, percent: float = 99.7) -> float:
    """Half-width of a symmetric colour scale: that percentile of |a| in the first array with finite values only."""
    finite = (a for a in arrays if not isinstance(a, str) and np.isfinite(a).all())
    return float(np.percentile(np.abs(next(finite, 1.0)), percent)) or 1.0


def properties(styles, name: str, names) -> dict:
    """Line properties of one label: those of `styles`, else the next colour of the palette."""
    color = PALETTE[list(names).index(name) % len(PALETTE)]
    return {"color": color, "linewidth": 1.5} | (styles or {}).get(name, {})


def field(ax, title: str, a, limit: float, cmap, length: float | None = None):
    """A map of `[y, x]` in shades up to ±`limit`, or the reason why there is none; returns the image or None.

    `length`: side of the domain in m, for ticks in km. Text instead of an array is printed.
    """
    side, scale = (length or 1e3) / 1e3, 10.0 ** power(limit)
    ticks = [0, side / 2, side] if length else []
    ax.set(xticks=ticks, yticks=ticks, xlim=(0, side), ylim=(0, side), box_aspect=1)
    ax.set_title(title, fontsize=8.5)
    for axis, names in ((ax.xaxis, ("left", "center", "right")), (ax.yaxis, ("bottom", "center", "top"))):
        for text, name in zip(axis.get_ticklabels() if length else (), names):
            text.set(**{"ha" if axis is ax.xaxis else "va": name})  # so that no label reaches over to the next panel
    ax.spines[["top", "right"]].set_visible(True)
    if absent(ax, a):
        return None
    shades = {"cmap": cmap, "vmin": -limit / scale, "vmax": limit / scale}
    return ax.imshow(np.asarray(a) / scale, origin="lower", extent=(0, side, 0, side), **shades)


def globe(ax, title: str, a, limit: float, cmap, latitude, longitude, centre=0):
    """A map of `[latitude, longitude]`, in degrees and in rising order, as `field` draws those of `[y, x]`.

    The middle is at the longitude `centre`. Colours are interpolated between the points.
    """
    west = centre - 180
    ticks = 60 * np.arange(west // 60 + 1, np.ceil((west + 360) / 60))
    ax.set(xlim=(west, west + 360), ylim=(-90, 90), aspect="equal")
    ax.set_xticks(ticks, [compass(x, "EW") for x in ticks])
    ax.set_yticks(LATITUDES, [compass(y, "NS") for y in LATITUDES])
    ax.tick_params(labelsize=7.5, length=2.5)
    ax.set_title(title, fontsize=8.5)
    ax.spines[["top", "right"]].set_visible(True)
    if absent(ax, a):
        return None
    scale = 10.0 ** power(limit)
    shades = {"cmap": cmap, "vmin": -limit / scale, "vmax": limit / scale}
    return ax.pcolormesh(longitude, latitude, np.asarray(a) / scale, shading="gouraud", rasterized=True, **shades)


def compass(degrees, names: str) -> str:
    """A place as it is written on maps: `compass(-60, "NS")` gives "60°S", and -180 or 180 "180°"."""
    degrees = (degrees + 180) % 360 - 180
    side = "" if degrees in (0, -180) else names[int(degrees < 0)]
    return f"{abs(degrees):g}°{side}"


def absent(ax, a) -> bool:
    """Whether there is no field to show: text, or values that are not finite. That is printed in the axes."""
    if not isinstance(a, str) and np.isfinite(a).all():
        return False
    text = a if isinstance(a, str) else "not finite"
    ax.set_facecolor("#F2F2F2")
    ax.text(0.5, 0.5, text, ha="center", va="center", transform=ax.transAxes, fontsize=8.5, color="#8B1A1A")
    return True


def profile(ax, latitude, panel: Mapping, styles=None, power: int = 0):
    """Lines `{label: [latitude]}` over `{label: latitude}` in degrees, in units of 10^`power`."""
    for name, a in panel.items():
        a = np.where(np.isfinite(a), a, np.nan) / 10.0**power
        ax.plot(latitude[name], a, label=name, **properties(styles, name, panel))
    ax.axhline(0, color="#444444", linewidth=0.7, zorder=1)
    ax.set(xlim=(-90, 90))
    ax.set_xticks(LATITUDES[1:-1], [compass(y, "NS") for y in LATITUDES[1:-1]])  # five labels fit a narrow panel
    ax.grid()


def spectrum(ax, wavenumber, panel: Mapping, styles=None, reference: str | None = None):
    """Spectra `{label: [ring]}`, log-log; the scale spans at most four decades, those of `reference`."""
    lines(ax, wavenumber, panel, styles)
    shown = [panel[reference]] if reference in panel else list(panel.values())
    values = np.concatenate([np.ravel(a) for a in shown] or [np.ones(1)])
    top = np.max(values[np.isfinite(values)], initial=1e-30)
    bottom = np.min(values[values > 1e-4 * top], initial=top)
    ax.set(yscale="log", ylim=(bottom / 2, 3 * top))


def lines(ax, wavenumber, panel: Mapping, styles=None):
    """`{label: [ring]}` over a log axis of wavenumber, without the mean and without what is not finite."""
    k = np.asarray(wavenumber, float)
    ax.set(xscale="log", xlim=(np.min(k[k > 0]), np.max(k)))
    for name, a in panel.items():
        a = np.asarray(a, float)
        if np.isfinite(a[k > 0]).any():
            ax.plot(k[k > 0], a[k > 0], label=name, **properties(styles, name, panel))


def degrees(wavenumber, radius) -> np.ndarray:
    """Total degrees l of wavenumbers √(l(l + 1))/radius in rad m⁻¹."""
    return np.sqrt((np.asarray(wavenumber, float) * radius) ** 2 + 0.25) - 0.5


def wavelengths(ax, wavenumber, radius=None):
    """A second axis above with the wavelength in km; with `radius` in m, of a total degree l: 2π radius/(l + ½)."""
    shift, scale = (0.5, 2e-3 * np.pi * radius) if radius else (0.0, 2e-3 * np.pi)
    km, back = lambda k: scale / np.maximum(k + shift, 1e-30), lambda x: scale / np.maximum(x, 1e-30) - shift
    above = ax.secondary_xaxis("top", functions=(km, back))
    steps = (20000, 10000, 5000, 2000, 1000, 500, 200, 100, 50, 20, 10)
    ticks = [x for x in steps if km(np.max(wavenumber)) <= x <= km(ax.get_xlim()[0])]
    above.set_xticks(ticks, [f"{x} km" if x == ticks[0] else f"{x}" for x in ticks], fontsize=7, color="#666666")
    above.set_xticks([], minor=True)


def densities(ax, name: str, panel: Mapping, styles=None, reference: str | None = None, floor: float = 1e-4):
    """Densities `{label: (edges, density)}` of one variable; the axes fit `reference`, or all lines without it."""
    finite = {title: tuple(map(np.asarray, pair)) for title, pair in panel.items() if np.isfinite(pair[1]).any()}
    shown = [finite[reference]] if reference in finite else list(finite.values())
    exponent = power(max((np.max(np.abs(edges)) for edges, _ in shown), default=1.0))
    scale = 10.0**exponent
    for title, (edges, density) in finite.items():
        middle, height = (edges[1:] + edges[:-1]) / 2 / scale, density * scale
        ax.plot(middle, np.where(height > 0, height, np.nan), label=title, **properties(styles, title, panel))
        if title == reference:
            ax.fill_between(middle, 1e-300, height, color="black", alpha=0.07, linewidth=0)
    if shown:
        top = max(np.max(density) for _, density in shown)
        reach = max(np.max(np.abs(edges[1:][density > floor * top])) for edges, density in shown) / scale
        ax.set(yscale="log", ylim=(floor * top * scale, 3 * top * scale), xlim=(-1.1 * reach, 1.1 * reach))
    ax.locator_params(axis="x", nbins=4)
    ax.set_xlabel(label(name, exponent))


def curve(ax, x, values, look: dict, *, smooth: float | None = None, raw: bool = False):
    """A line through the finite values, or their running mean of width `smooth` in x (`raw` shows the data too).

    A line whose last value is not finite ends in a cross. `look`: line properties with the label.
    """
    x, values = np.asarray(x, float), np.asarray(values, float)
    ended = len(x) > 0 and not np.isfinite(values[-1])
    x, values = x[np.isfinite(values)], values[np.isfinite(values)]
    if not len(x):
        return
    if smooth and raw:
        ax.plot(x, values, color=look["color"], linewidth=0.6, alpha=0.35, zorder=1)
    if smooth:
        inside = np.abs(x[:, None] - x) <= smooth / 2 * (1 + 1e-9)
        values = inside @ values / inside.sum(1)
    ax.plot(x, values, **look)
    if ended:
        ax.plot(x[-1], values[-1], "x", markersize=8, markeredgewidth=2, color=look["color"], zorder=9)


def decimals(axis):
    """Ticks of a log axis as 0.02, 0.05, 0.1 instead of powers of ten."""
    axis.get_major_locator().set_params(subs=(1, 2, 5))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter("")


def legend(figure, axes):
    """One legend for all panels of `[row, column]` axes: in a spare cell where there is one, else right of them."""
    pairs = [pair for ax in axes.flat for pair in zip(*ax.get_legend_handles_labels())]
    entries = {text: handle for handle, text in reversed(pairs)}
    order = list(dict.fromkeys(text for _, text in pairs))
    handles = [entries[text] for text in order]
    if len(order) > 1 and axes.flat[-1].axison:
        figure.legend(handles, order, loc="outside right center")
    elif len(order) > 1:
        axes.flat[-1].legend(handles, order, loc="center left")
