"""Climate and Forecast (CF) metadata: dimensions, coordinates and attributes of arrays by name."""

from collections.abc import Mapping

import numpy as np

from hybridgcm._typing import VARIABLES, nearest
from hybridgcm.units import conversion

CALENDAR = {"standard_name": "time", "axis": "T", "units": "seconds since 0001-01-01", "calendar": "360_day"}
_AXES = {
    "time": CALENDAR,
    "start_time": {name: text for name, text in CALENDAR.items() if name != "axis"}
    | {"standard_name": "forecast_reference_time", "long_name": "start of the forecast"},
    "lead_time": {"units": "s", "long_name": "time since the start", "standard_name": "forecast_period"},
    "member": {"units": "1", "long_name": "member of the ensemble", "standard_name": "realization"},
    "layer": {"units": "1", "long_name": "layer, counted from the top", "axis": "Z", "positive": "down"},
    "y": {"units": "m", "long_name": "meridional coordinate", "standard_name": "projection_y_coordinate", "axis": "Y"},
    "x": {"units": "m", "long_name": "zonal coordinate", "standard_name": "projection_x_coordinate", "axis": "X"},
    "latitude": {"units": "degrees_north", "long_name": "latitude", "standard_name": "latitude", "axis": "Y"},
    "longitude": {"units": "degrees_east", "long_name": "longitude", "standard_name": "longitude", "axis": "X"},
    "pressure": {"units": "hPa", "standard_name": "air_pressure", "axis": "Z", "positive": "down"},
    "wavenumber": {"units": "m-1", "long_name": "isotropic angular wavenumber"},
}
_DEGREES = "wavenumber sqrt(l (l + 1)) / radius of total degree l = 0, 1, 2 ..."
_AIR = {
    "sea_water_x_velocity": "eastward_wind",
    "sea_water_y_velocity": "northward_wind",
    "ocean_relative_vorticity": "atmosphere_relative_vorticity",
}
"""Standard names on a sphere: x and y are east and north there, and its fluid is air."""


def record_dimension(attrs: Mapping) -> str:
    """Along what the records of a store follow each other: `time`, or what its attribute of this name says."""
    return attrs.get("record_dimension", "time")


def axes(grid) -> tuple[str, str]:
    """Dimensions of a field: what the grid calls them, else y and x."""
    return getattr(grid, "axes", ("y", "x"))


def is_sphere(grid) -> bool:
    """Whether the points of a grid have a latitude and a longitude."""
    return axes(grid) == ("latitude", "longitude")


def attributes(name: str, grid=None) -> dict:
    """CF attributes of a variable from `VARIABLES`; `name_mean` is the time mean of `name`.

    On a sphere the standard names of sea water become those of air; a name that was put into `VARIABLES` for another
    fluid stays.
    """
    base = name if name in VARIABLES else name.removesuffix("_mean")
    if base not in VARIABLES:
        raise ValueError(
            f"{base!r} has no units{nearest(base, VARIABLES)}; add VARIABLES[{base!r}] = Variable(units, long_name)"
        )
    about = {key: value for key, value in VARIABLES[base]._asdict().items() if value is not None}
    if is_sphere(grid) and about.get("standard_name") in _AIR:
        about["standard_name"] = _AIR[about["standard_name"]]
    return about if base == name else about | {"cell_methods": "time: mean"}


def dimension_names(name: str, shape: tuple, grid, given: Mapping) -> tuple[str, ...]:
    """Dimensions of one record of a variable: as given, or those of a field, a spectrum, a profile or a number."""
    names = given.get(name)
    if names is None and shape[-2:] == tuple(grid.shape):
        names = ("layer", *axes(grid))[-len(shape) :]
    elif names is None and len(shape) < 3 and shape[-1:] == np.shape(getattr(grid, "wavenumber", None)):
        names = ("layer", "wavenumber")[-len(shape) :] if shape else ()
    elif names is None and len(shape) < 2:
        names = ("layer",)[: len(shape)]
    if names is None or len(names) != len(shape):
        raise ValueError(
            f"{name} has records of shape {shape}, expected [layer, {', '.join(axes(grid))}] of the grid "
            f'{tuple(grid.shape)}; name other dimensions with dimensions={{"{name}": (...)}}, {len(shape)} of them, '
            f"got {names}"
        )
    return tuple(names)


def axis(dimension: str, size: int, grid, given: Mapping) -> tuple[np.ndarray, dict]:
    """Values and CF attributes of a coordinate."""
    values = np.asarray(given.get(dimension, getattr(grid, dimension, np.arange(1, size + 1))))
    if values.shape != (size,):
        raise ValueError(f"coordinate {dimension} has shape {values.shape}, expected {(size,)}")
    about = _AXES.get(dimension) or (attributes(dimension) if dimension in VARIABLES else {"units": "1"})
    if dimension == "wavenumber" and is_sphere(grid):
        about = about | {"long_name": _DEGREES}
    return values, about


def order(name: str, dimension: str, found: np.ndarray, units: str | None, grid) -> np.ndarray:
    """Which of the points found along a dimension of the grid stand at those of the grid, in its order.

    Rows may run either way and a periodic dimension may start anywhere. Raises `ValueError` for other points, and for
    units that do not measure what those of the grid do.
    """
    points, unit = np.asarray(getattr(grid, dimension), np.float64), _AXES[dimension]["units"]
    found = found * _factor(name, dimension, units, unit)
    if is_sphere(grid):  # files have degrees with two digits
        length, slack = 180.0 if dimension == "latitude" else 360.0, 1e-2
    else:
        length, slack = float(grid.length[axes(grid).index(dimension)]), 1e-3
    spacing = length / len(points)
    place = found - points[0]
    if dimension != "latitude":
        place = np.mod(place + 0.25 * spacing, length) - 0.25 * spacing
    by_place = np.argsort(place, kind="stable")
    apart = np.abs(place[by_place] - (points - points[0])).max()
    if not apart < slack * spacing:
        raise ValueError(
            f"the points of {name} along {dimension} begin at {found[:3]} {unit}, those of the grid at {points[:3]} "
            f"{unit}, {spacing:g} {unit} apart: up to {apart:.3g} {unit} off; interpolate it to the grid first"
        )
    return by_place


def _factor(name: str, dimension: str, units: str | None, unit: str) -> float:
    """What turns units into those of a coordinate of the grid."""
    if units is None:
        raise ValueError(
            f"the coordinate {dimension} of {name} has no units; expected {unit}{' (or km ...)' if unit == 'm' else ''}"
        )
    turned = str(units).startswith("degree")
    if turned and unit == "m":
        raise ValueError(f"the coordinate {dimension} of {name} is in {units}, the grid in m: it is no sphere")
    if unit == "m":
        return conversion(str(units), unit)[0]
    known = {word + end for word in ("degree", "degrees") for end in ("", f"_{unit[8:]}", f"_{unit[8].upper()}")}
    if str(units) not in known | {text.replace("_", "") for text in known}:
        raise ValueError(
            f"the coordinate {dimension} of {name} is in {units}, the grid in {unit}; set its units, or interpolate "
            "it to the points of the sphere first"
        )
    return 1.0
