"""Figures from plain arrays and labels: what experiments and notebooks share. Needs `hybridgcm[plot]`.

Every function returns a new `matplotlib.figure.Figure` (show it in a notebook, or `figure.savefig(path)`) and
leaves pyplot alone. Data come as `{title: {label: array}}`: panels with lines. Values that are not finite are not
drawn. `styles` maps labels to line properties, see `line_styles`; names in `VARIABLES` bring their units.
The parts that act on one axes are in `draw`.
"""

import contextlib
import functools
import io
import warnings
from collections.abc import Mapping

import numpy as np

from hybridgcm import draw
from hybridgcm._typing import nearest

_KINDS = {
    "truth": {"color": "black", "linewidth": 3.0, "zorder": 1.5},
    "none": {"color": "#8A8A8A", "linewidth": 1.8, "zorder": 3},
    "classical": {"linewidth": 1.0, "zorder": 2},
    "tuned": {"linewidth": 1.3, "linestyle": (0, (4, 1.6)), "zorder": 2.5},
    "offline": {"color": "#0072B2", "linewidth": 1.9, "zorder": 5},
    "online": {"color": "#D55E00", "linewidth": 1.9, "zorder": 6},
}
_RC = {
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "axes.edgecolor": "#444444",
    "grid.color": "#E6E6E6",
    "grid.linewidth": 0.7,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "legend.handlelength": 2.8,
    "svg.hashsalt": "hybridgcm",
}


@contextlib.contextmanager
def style():
    """Fonts and lines of this module while a figure is made or saved; yields the `Figure` class.

    Raises `ImportError` naming the extra when matplotlib is missing.
    """
    try:
        import matplotlib
    except ImportError as error:
        raise ImportError("figures need matplotlib: pip install 'hybridgcm[plot]'") from error
    with matplotlib.rc_context(_RC):
        yield _figure()


@functools.cache
def _figure():
    """matplotlib's `Figure` with its own PNG for Jupyter, which otherwise learns only from pyplot how to show one."""
    from matplotlib.figure import Figure

    class Shown(Figure):
        def _repr_png_(self):
            buffer = io.BytesIO()
            self.savefig(buffer, format="png")
            return buffer.getvalue()

    return Shown


def line_styles(kinds: Mapping[str, tuple[str, str]]) -> dict[str, dict]:
    """Line properties per label from `{label: (kind, family)}`, the same in every figure.

    Kinds: "truth" black (wide, so that lines on top of it keep a black rim), "none" grey, "classical" thin, "tuned"
    dashed in the colour of the same family, "offline" and "online" thick. Raises `ValueError` for another kind.
    """
    trained = {family: _KINDS[kind]["color"] for kind, family in kinds.values() if kind in ("offline", "online")}
    families = [family for kind, family in kinds.values() if kind in ("classical", "tuned") and family not in trained]
    families = list(dict.fromkeys(families))
    out = {}
    for name, (kind, family) in kinds.items():
        if kind not in _KINDS:
            raise ValueError(f"kind of {name!r} is one of {list(_KINDS)}; got {kind!r}{nearest(kind, _KINDS)}")
        color = draw.PALETTE[families.index(family) % 6] if family in families else trained.get(family)
        out[name] = ({"color": color} if color else {}) | _KINDS[kind]
    return out


def diverging():
    """The colour map of signed fields: cmocean's `balance`, or `RdBu_r` where cmocean is not installed."""
    import matplotlib

    with contextlib.suppress(ImportError), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its registration uses what matplotlib 3.11 calls deprecated
        import cmocean  # noqa: F401 - registers its maps
    return matplotlib.colormaps["cmo.balance" if "cmo.balance" in matplotlib.colormaps else "RdBu_r"]


def fields(panels: Mapping, name: str = "q", *, length: float | None = None, columns: int = 4, limit=None):
    """Maps `{title: [y, x]}` of one variable on one symmetric colour scale of half-width `limit` (`draw.bound`).

    `length`: side of the domain in m, for axes in km. A string instead of an array is printed in an empty panel,
    as is the fact that an array has values that are not finite. Panels may differ in resolution.
    """
    limit = limit or draw.bound(panels.values())
    with style() as Figure:
        figure, axes = subplots(Figure, panels, columns, (1.75, 1.92), (0.8, 0.2), sharex=True, sharey=True)
        images = [
            draw.field(ax, title, a, limit, diverging(), length) for ax, (title, a) in zip(axes.flat, panels.items())
        ]
        for ax in axes[:, 0]:
            ax.set_ylabel("y (km)" if length else "")
        for ax in axes[-1]:
            ax.set_xlabel("x (km)" if length else "")
        if drawn := [image for image in images if image]:
            text = draw.label(name, draw.power(limit))
            figure.colorbar(drawn[0], ax=axes, label=text, extend="both", shrink=0.85, aspect=35, pad=0.012)
    return figure


def spectra(wavenumber, panels: Mapping, *, styles=None, reference: str | None = None, radius=None):
    """Spectra `{title: {label: [ring]}}` over wavenumber `[ring]` in rad m⁻¹, log-log, wavelength above.

    Units belong into the title. With `reference`, a second row shows every line divided by that label's, where
    that is above 1e-4 of its largest value. With the `radius` of a sphere in m, the axis is the total degree instead.
    """
    rows = 2 if reference else 1
    wavenumber = wavenumber if radius is None else draw.degrees(wavenumber, radius)
    with style() as Figure:
        figure = Figure(figsize=(max(3.0 * len(panels), 7.6) + 1.9, 2.9 + 1.6 * (rows - 1)), layout="constrained")
        axes = figure.subplots(rows, len(panels), squeeze=False, height_ratios=[2.1, 1.0][:rows])
        for column, (title, lines) in zip(axes.T, panels.items()):
            draw.spectrum(column[0], wavenumber, lines, styles, reference)
            draw.wavelengths(column[0], wavenumber, radius)
            column[0].set_title(title, pad=8)
            if reference in lines:
                against = np.asarray(lines[reference], float)
                against = np.where(against > 1e-4 * np.nanmax(against), against, np.nan)
                draw.lines(column[1], wavenumber, {name: np.asarray(a) / against for name, a in lines.items()}, styles)
                column[1].set(ylim=(0, 2), yticks=(0, 0.5, 1, 1.5, 2))
                column[1].grid(axis="y")
            column[-1].set_xlabel("wavenumber (rad m⁻¹)" if radius is None else "total degree")
            for ax in column if radius else ():
                draw.decimals(ax.xaxis)
        if reference:
            axes[1, 0].set_ylabel(f"model / {reference[0].lower()}{reference[1:]}")
        draw.legend(figure, axes)
    return figure


def budget(wavenumber, panels: Mapping, *, styles=None, columns: int = 3, units: str = "m3 s-3"):
    """Spectral budget `{term: {label: [ring]}}` over wavenumber `[ring]` in rad m⁻¹, with zero lines.

    One panel per term, all on one linear scale of `units`, so that terms compare by eye; positive is a gain.
    """
    finite = [np.abs(a)[np.isfinite(a)] for lines in panels.values() for a in lines.values()]
    scale = 10.0 ** (power := draw.power(np.max(np.concatenate([np.zeros(1), *finite]))))
    with style() as Figure:
        margin = 0.4 if len(panels) % columns else 1.9  # the legend takes a spare cell
        figure, axes = subplots(Figure, panels, columns, (2.55, 2.2), (margin, 0.2), sharey=True)
        for ax, (title, lines) in zip(axes.flat, panels.items()):
            ax.axhline(0, color="#444444", linewidth=0.7, zorder=1)
            draw.lines(ax, wavenumber, {name: np.asarray(a) / scale for name, a in lines.items()}, styles)
            ax.set_title(title)
        for ax in axes[-1]:
            ax.set_xlabel("wavenumber (rad m⁻¹)")
        for ax in axes[:, 0]:
            ax.set_ylabel(draw.unit(units, power))
        draw.legend(figure, axes)
    return figure


def pdfs(panels: Mapping, *, styles=None, reference: str | None = None, floor: float = 1e-4):
    """Probability densities `{(row, variable): {label: (edges, density)}}`, log scale, `reference` shaded.

    `floor`: lowest density shown, as a part of the highest. Densities are per unit of the printed axis.
    """
    rows, names = (list(dict.fromkeys(key[i] for key in panels)) for i in (0, 1))
    with style() as Figure:
        figure = Figure(figsize=(2.55 * len(names) + 1.9, 2.2 * len(rows) + 0.2), layout="constrained")
        axes = figure.subplots(len(rows), len(names), squeeze=False)
        for (row, name), lines in panels.items():
            ax = axes[rows.index(row), names.index(name)]
            draw.densities(ax, name, lines, styles, reference, floor)
            ax.set_title(row if name == names[0] else "")
            ax.set_ylabel("probability density" if name == names[0] else "")
        draw.legend(figure, axes)
    return figure


def series(
    panels: Mapping, *, xlabel="time (years)", ylabel="", styles=None, smooth=None, raw=(), marks=None, log=False
):
    """Lines `{title: {label: (x, values)}}`, one panel per title: energy in time, losses, tuning curves.

    `smooth`: width in x of a centred running mean; labels in `raw` then also show the data, faintly. A line that
    whose last value is not finite ends in a cross. `marks`: `{title: [(x, text)]}`, vertical lines. `log`: y scale.
    """
    with style() as Figure:
        figure = Figure(figsize=(max(7.6, 3.7 * len(panels)) + 1.9, 3.2), layout="constrained")
        axes = figure.subplots(1, max(len(panels), 1), squeeze=False)
        for ax, (title, lines) in zip(axes.flat, panels.items()):
            ax.set(title=title, xlabel=xlabel, yscale="log" if log else "linear")
            for name, (x, values) in lines.items():
                look = {"label": name} | draw.properties(styles, name, lines)
                draw.curve(ax, x, values, look, smooth=smooth, raw=name in raw)
            for x, text in (marks or {}).get(title, ()):
                ax.axvline(x, color="#999999", linewidth=0.8, linestyle=":", zorder=0)
                ax.annotate(text, (x, 1), (3, -2), ("data", "axes fraction"), "offset points", va="top", fontsize=7.5)
            ax.grid(axis="y")
            ax.margins(x=0.01)
            if log:
                draw.decimals(ax.yaxis)
            else:
                ax.set_ylim(bottom=0)
        axes[0, 0].set_ylabel(ylabel)
        draw.legend(figure, axes)
    return figure


def animation(frames: Mapping, name: str = "q", *, time=None, interval: int = 80):
    """Movie of `{title: [frame, y, x]}` side by side, as a `matplotlib.animation.FuncAnimation`.

    `time` per frame in days goes above. `.save("x.gif", writer="pillow")`, or `.to_jshtml()` in a notebook.
    """
    limit = draw.bound(np.asarray(a) for a in frames.values())
    first = {title: a[0] for title, a in frames.items()}
    return movie(fields(first, name, columns=len(frames), limit=limit), frames, limit, time=time, interval=interval)


def movie(figure, frames: Mapping, limit: float, *, time=None, interval: int = 80):
    """Movie of a figure whose first axes show `{title: [frame, y, x]}` on scales of half-width `limit`."""
    from matplotlib.animation import FuncAnimation

    def show(index):
        for ax, a in zip(figure.axes, frames.values()):
            for image in (*ax.images, *ax.collections):
                if image.get_array() is not None:  # coastlines are a collection too
                    image.set_array(np.asarray(a[index]) / 10.0 ** draw.power(limit))
        if time is not None:
            figure.suptitle(f"day {time[index]:.1f}", fontsize=9)

    return FuncAnimation(figure, show, frames=min(map(len, frames.values())), interval=interval)


def subplots(Figure, panels, columns, size, margin, **kwargs):
    """(figure, axes [row, column]) with one axes per panel in at most `columns` columns; spare ones are hidden.

    `size` of a panel and `margin` of the figure in inches.
    """
    columns = max(1, min(columns, len(panels)))
    rows = max(1, -(-len(panels) // columns))
    figure = Figure(figsize=(size[0] * columns + margin[0], size[1] * rows + margin[1]), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, **kwargs)
    for ax in axes.flat[len(panels) :]:
        ax.set_axis_off()
    return figure, axes
