"""Figures of fields on a sphere, in the manner of `plot`: maps, profiles of zonal means, movies.

maps({"200 hPa": psi[0], "500 hPa": psi[1]}, grid, "psi")
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
    limit = limit or draw.bound(panels.values())
    around = {title: _around(title, a, _of(grid, title), centre) for title, a in panels.items()}
    with plot.style() as Figure:
        shared = {"sharex": True, "sharey": True}
        figure, axes = plot.subplots(Figure, panels, columns, (3.5, 2.05), (0.9, 0.1), **shared)
        images = []
        for ax, (title, (a, latitude, longitude)) in zip(axes.flat, around.items()):
            images.append(draw.globe(ax, title, a, limit, plot.diverging(), latitude, longitude, centre))
            if coastlines and images[-1]:
                _coast(ax)
        if drawn := [image for image in images if image]:
            text = draw.label(name, draw.power(limit))
            figure.colorbar(drawn[0], ax=axes, label=text, extend="both", shrink=0.85, aspect=18 * len(axes), pad=0.012)
    return figure


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
    from matplotlib.collections import LineCollection

    look = {"colors": "#333333", "linewidths": 0.5, "alpha": 0.8, "zorder": 3}
    for turn in (-360, 0, 360):  # what lies outside of the map is clipped
        ax.add_collection(LineCollection([line + (turn, 0) for line in _coastlines()], **look), autolim=False)


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
