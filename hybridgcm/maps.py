"""Figures of fields on a sphere, in the manner of `plot`: maps, hemispheres, profiles of zonal means, movies.

maps({"200 hPa": psi[0], "500 hPa": psi[1]}, grid, "psi")
hemispheres({"storm track": storms, "blocking": blocking}, grid, "z500")
zonal_means({"200 hPa": {"Truth": u, "Model": u_model}}, grid, "u", reference="Truth")
plot.spectra(grid.wavenumber, {"200 hPa": {"Model": grid.spectrum(density)}}, radius=grid.radius)

`grid` is whatever has a `latitude` and a `longitude` in degrees in rising order, or `{title or label: grid}` where
resolutions differ. Needs `hybridgcm[plot]`; coastlines need cartopy and, once, the network.
"""

import contextlib
import functools
import warnings
from collections.abc import Mapping

import numpy as np

from hybridgcm import draw, plot


def maps(panels: Mapping, grid, name: str = "psi", *, limit=None, centre=0, columns: int = 3, coastlines=True):
    """Maps `{title: [latitude, longitude]}` of one variable on one symmetric colour scale of half-width `limit`.

    - `centre`: longitude in the middle, degrees east.
    - `coastlines`: drawn where cartopy and its data can be had, silently left out where not.

    Text instead of an array, and the fact that values are not finite, is printed. Raises `ValueError` for an array of
    another shape than the points of its grid.
    """

    def show(ax, title, a, limit, latitude, longitude):
        image = draw.globe(ax, title, a, limit, plot.diverging(), latitude, longitude, centre)
        if coastlines and image:
            _coast(ax)
        return image

    return _panels(panels, grid, name, show, (3.5, 2.05), limit, centre, columns, sharex=True, sharey=True)


def hemispheres(panels: Mapping, grid, name: str = "psi", *, edge=20, limit=None, centre=0, columns=3, coastlines=True):
    """Maps as `maps` draws them, seen from above a pole: stereographic, so that small shapes keep theirs.

    - `edge`: latitude of the rim, degrees north: 20 shows what is north of 20N, −20 what is south of 20S.
    - `centre`: longitude that points down, degrees east; up in the south.

    Prints and raises as `maps` does, and `ValueError` for a rim beyond 80 degrees.
    """
    if not abs(edge) <= 80:
        raise ValueError(f"edge is a latitude within 80 degrees of the equator; got {edge}")

    def show(ax, title, a, limit, latitude, longitude):
        return _hemisphere(ax, title, a, limit, latitude, longitude, edge, centre, _coastlines() if coastlines else ())

    return _panels(panels, grid, name, show, (2.7, 2.9), limit, centre, columns)


def animation(frames: Mapping, grid, name: str = "psi", *, time=None, interval: int = 80, centre=0, **kwargs):
    """Movie of `{title: [frame, latitude, longitude]}` as of `plot.animation`; `kwargs` as of `maps`."""
    limit = kwargs.pop("limit", None) or draw.bound(np.asarray(a) for a in frames.values())
    options = {"columns": len(frames)} | kwargs
    first = {title: a[0] for title, a in frames.items()}
    figure = maps(first, grid, name, limit=limit, centre=centre, **options)
    around = {title: _around(title, np.asarray(a), _of(grid, title), centre)[0] for title, a in frames.items()}
    return plot.movie(figure, around, limit, time=time, interval=interval)


def zonal_means(panels: Mapping, grid, name: str = "u", *, styles=None, reference: str | None = None, columns: int = 3):
    """Zonal means `{title: {label: [latitude, longitude] or [latitude]}}` of one variable against latitude.

    One panel per title (a level, a season), each with its own scale. With `reference`, a second row shows every line
    minus that label's (interpolated if on other latitudes). Panels then stand in one row, whatever `columns`.
    """
    grids = {label: _of(grid, label) for lines in panels.values() for label in lines}
    latitude = {label: np.asarray(of.latitude, float) for label, of in grids.items()}
    means = {
        title: {label: _mean(f"{title} of {label}", a, grids[label]) for label, a in lines.items()}
        for title, lines in panels.items()
    }
    finite = [np.abs(a[np.isfinite(a)]) for lines in means.values() for a in lines.values()]
    power = draw.power(np.max(np.concatenate([np.zeros(1), *finite])))
    rows = 2 if reference else 1
    with plot.style() as Figure:
        if reference:
            size = (2.75 * max(len(panels), 1) + 1.9, 4.0)
            figure = Figure(figsize=size, layout="constrained")
            axes = figure.subplots(2, max(len(panels), 1), squeeze=False, sharex=True, height_ratios=[2, 1])
        else:
            figure, axes = plot.subplots(Figure, panels, columns, (2.75, 2.3), (1.9, 0.2))
        for ax, (title, lines) in zip(axes[: None if rows == 1 else 1].flat, means.items()):
            draw.profile(ax, latitude, lines, styles, power)
            ax.set_title(title)
        for ax, lines in zip(axes[1] if reference else (), means.values()):
            draw.profile(ax, latitude, _differences(lines, latitude, reference), styles, power)
        for ax in axes[:1, 0] if reference else axes[:, 0]:
            ax.set_ylabel(draw.label(name, power))
        if reference:
            axes[1, 0].set_ylabel(f"model − {reference[0].lower()}{reference[1:]}")
            figure.align_ylabels(axes[:, 0])
        draw.legend(figure, axes)
    return figure


def _panels(panels: Mapping, grid, name: str, show, size, limit, centre, columns: int, **shared):
    """Figure of maps that `show(ax, title, a, limit, latitude, longitude)` draws, with their colour bar."""
    limit = limit or draw.bound(panels.values())
    around = {title: _around(title, a, _of(grid, title), centre) for title, a in panels.items()}
    with plot.style() as Figure:
        figure, axes = plot.subplots(Figure, panels, columns, size, (0.9, 0.1), **shared)
        images = [
            show(ax, title, a, limit, latitude, longitude)
            for ax, (title, (a, latitude, longitude)) in zip(axes.flat, around.items())
        ]
        if drawn := [image for image in images if image]:
            text = draw.label(name, draw.power(limit))
            figure.colorbar(drawn[0], ax=axes, label=text, extend="both", shrink=0.85, aspect=18 * len(axes), pad=0.012)
    return figure


def _hemisphere(ax, title: str, a, limit: float, latitude, longitude, edge, centre, coast):
    """One panel of `hemispheres`; the image or None."""
    from matplotlib.patches import Circle

    side = -1 if edge < 0 else 1

    def place(north, east):
        """`[..., (x, y)]` on the plane, in radii of the circle that is the equator."""
        r, turn = np.tan(np.radians(90 - side * np.asarray(north)) / 2), np.radians(np.asarray(east) - centre)
        return np.stack([r * np.sin(turn), -side * r * np.cos(turn)], -1)

    rim = float(np.hypot(*place(edge, centre)))
    room = 1.2 * rim  # for the longitudes around it
    ax.set(xlim=(-room, room), ylim=(-room, room), aspect="equal", xticks=[], yticks=[])
    ax.set_title(title, fontsize=8.5)
    ax.spines[:].set_visible(False)
    if draw.absent(ax, a):
        return None
    inside = np.convolve(side * latitude >= abs(edge), np.ones(3), "same") > 0  # and one row beyond the rim
    x, y = np.moveaxis(place(latitude[inside, None], longitude), -1, 0)
    scale = 10.0 ** draw.power(limit)
    shades = {"cmap": plot.diverging(), "vmin": -limit / scale, "vmax": limit / scale}
    image = ax.pcolormesh(x, y, np.asarray(a)[inside] / scale, shading="gouraud", rasterized=True, **shades)
    disc = ax.add_patch(Circle((0, 0), rim, fill=False, color="#444444", linewidth=0.7, zorder=4))
    image.set_clip_path(disc)
    # Of the other hemisphere, whose pole is at infinity, nothing is drawn.
    shown = [np.where(side * line[:, 1:] > abs(edge) - 10, line, np.nan) for line in coast]
    _outline(ax, [place(line[:, 1], line[:, 0]) for line in shown]).set_clip_path(disc)
    look = {"color": "#444444", "linewidth": 0.4, "alpha": 0.5, "zorder": 2}
    for north in {30, 60} - set(range(int(abs(edge)) + 1)):
        ax.add_patch(Circle((0, 0), float(np.hypot(*place(side * north, centre))), fill=False, **look))
    for east in range(-180, 180, 60):
        ax.plot(*place([edge, side * 90], [east, east]).T, **look)
        ax.text(*1.1 * place(edge, east), draw.compass(east, "EW"), ha="center", va="center", fontsize=6.5)
    return image


def _of(grid, title):
    return grid if hasattr(grid, "latitude") else grid[title]  # a data set is a mapping too


def _check(what: str, shape: tuple, grid, expected: tuple):
    if shape != expected:
        raise ValueError(
            f"{what} has shape {shape}, expected {expected} [latitude, longitude] of {type(grid).__name__}; for panels "
            "of other resolutions pass grid={title: grid}"
        )


def _around(title: str, a, grid, centre):
    """(a with its columns in the order of a map around `centre`, latitudes, longitudes).

    There is a column more at either end, so that the map is covered, and the poles, with the mean of the row beside.
    """
    east, west = np.asarray(grid.longitude, float), centre - 180
    place = np.mod(east - west + 1e-9, 360) + west - 1e-9
    order = np.argsort(place, kind="stable")
    order = np.concatenate([order[-1:], order, order[:1]])
    longitude = place[order] + np.concatenate([[-360], np.zeros(len(east)), [360]])
    latitude = np.concatenate([[-90], np.asarray(grid.latitude, float), [90]])
    if isinstance(a, str):
        return a, latitude, longitude
    _check(title, np.shape(a)[-2:], grid, (len(grid.latitude), len(east)))
    a = np.asarray(a)[..., order]
    south, north = (np.broadcast_to(a[..., i, 1:-1].mean(-1)[..., None], a[..., 0, :].shape) for i in (0, -1))
    return np.concatenate([south[..., None, :], a, north[..., None, :]], -2), latitude, longitude


def _mean(what: str, a, grid) -> np.ndarray:
    a = np.asarray(a, float)
    if a.shape == (len(grid.latitude),):
        return a
    _check(what, a.shape, grid, (len(grid.latitude), len(grid.longitude)))
    return a.mean(-1)


def _differences(lines: Mapping, latitude: Mapping, reference: str) -> dict:
    if reference not in lines:
        return {}
    on = lambda label: np.interp(latitude[label], latitude[reference], lines[reference])
    return {label: a - on(label) for label, a in lines.items()}


def _coast(ax):
    for turn in (-360, 0, 360):  # what lies outside of the map is clipped
        _outline(ax, [line + (turn, 0) for line in _coastlines()])


def _outline(ax, lines):
    from matplotlib.collections import LineCollection

    look = {"colors": "#333333", "linewidths": 0.5, "alpha": 0.8, "zorder": 3}
    return ax.add_collection(LineCollection(lines, **look), autolim=False)


@functools.cache
def _coastlines() -> tuple[np.ndarray, ...]:
    """Natural Earth's coastlines `[point, (east, north)]` in degrees, as cartopy keeps or downloads them; or none."""
    with contextlib.suppress(ImportError, OSError), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # cartopy says that it downloads
        from cartopy.io import shapereader

        path = shapereader.natural_earth("110m", "physical", "coastline")
        parts = [part for line in shapereader.Reader(path).geometries() for part in getattr(line, "geoms", [line])]
        return tuple(np.asarray(part.coords)[:, :2] for part in parts)
    return ()
