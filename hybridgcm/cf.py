"""Climate and Forecast (CF) metadata: dimensions, coordinates and attributes of arrays by name."""

from collections.abc import Mapping

import numpy as np

from hybridgcm._typing import VARIABLES, nearest

CALENDAR = {"standard_name": "time", "axis": "T", "units": "seconds since 0001-01-01", "calendar": "360_day"}
_AXES = {
    "layer": {"units": "1", "long_name": "layer, counted from the top", "axis": "Z", "positive": "down"},
    "y": {"units": "m", "long_name": "meridional coordinate", "standard_name": "projection_y_coordinate", "axis": "Y"},
    "x": {"units": "m", "long_name": "zonal coordinate", "standard_name": "projection_x_coordinate", "axis": "X"},
    "wavenumber": {"units": "m-1", "long_name": "isotropic angular wavenumber"},
}


def attributes(name: str) -> dict:
    """CF attributes of a variable from `VARIABLES`; `name_mean` is the time mean of `name`."""
    base = name if name in VARIABLES else name.removesuffix("_mean")
    if base not in VARIABLES:
        raise ValueError(
            f"{base!r} has no units{nearest(base, VARIABLES)}; add VARIABLES[{base!r}] = Variable(units, long_name)"
        )
    about = {key: value for key, value in VARIABLES[base]._asdict().items() if value is not None}
    return about if base == name else about | {"cell_methods": "time: mean"}


def dimension_names(name: str, shape: tuple, grid, given: Mapping) -> tuple[str, ...]:
    """Dimensions of one record of a variable: as given, or those of a field, a spectrum, a profile or a number."""
    names = given.get(name)
    if names is None and shape[-2:] == tuple(grid.shape):
        names = ("layer", "y", "x")[-len(shape) :]
    elif names is None and len(shape) < 3 and shape[-1:] == np.shape(getattr(grid, "wavenumber", None)):
        names = ("layer", "wavenumber")[-len(shape) :] if shape else ()
    elif names is None and len(shape) < 2:
        names = ("layer",)[: len(shape)]
    if names is None or len(names) != len(shape):
        raise ValueError(
            f"{name} has records of shape {shape}, expected [layer, y, x] of the grid {tuple(grid.shape)}; name other "
            f'dimensions with dimensions={{"{name}": (...)}}, {len(shape)} of them, got {names}'
        )
    return tuple(names)


def axis(dimension: str, size: int, grid, given: Mapping) -> tuple[np.ndarray, dict]:
    """Values and CF attributes of a coordinate."""
    values = np.asarray(given.get(dimension, getattr(grid, dimension, np.arange(1, size + 1))))
    if values.shape != (size,):
        raise ValueError(f"coordinate {dimension} has shape {values.shape}, expected {(size,)}")
    return values, _AXES.get(dimension) or (attributes(dimension) if dimension in VARIABLES else {"units": "1"})
