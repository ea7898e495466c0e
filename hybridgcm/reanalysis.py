"""Winds of a reanalysis on pressure levels, as streamfunctions of a spectral model."""

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float

from hybridgcm.data import check_finite
from hybridgcm.grids import Sphere
from hybridgcm.units import conversion

_WINDS = {
    "u": ("eastward_wind", ("u", "ua", "uwnd", "u_component_of_wind")),
    "v": ("northward_wind", ("v", "va", "vwnd", "v_component_of_wind")),
}
_AXES = {
    "latitude": ("latitude", "lat", "degrees_north", "degree_north"),
    "longitude": ("longitude", "lon", "degrees_east", "degree_east"),
    "level": ("air_pressure", "level", "plev", "pressure", "pressure_level", "isobaricInhPa", "lev"),
}
_FASTEST = 200.0
"""m s⁻¹; a wind beyond it is in other units."""


class Flow(NamedTuple):
    """`psi_hat` [sample, level, l, k], m² s⁻¹, zero mean, and `notes`: what was converted or taken for granted."""

    psi_hat: Complex[Array, "sample level l k"]
    notes: tuple[str, ...]


def streamfunction(dataset, grid: Sphere, levels: Sequence[float] = (200.0, 500.0, 800.0)) -> Flow:
    """∇²ψ = ∂v/∂x − ∂u/∂y of every sample, on the harmonics of `grid`, from an xarray data set of u and v.

    Winds, latitude, longitude and pressure are recognised by CF standard names or usual ones; every other axis (time,
    month, member) is one of samples, in the order of the data. Rows from north to south, longitudes from −180 and
    levels in Pa are put right; `levels` (hPa) that are not there are interpolated in ln p between their neighbours.
    Global and regular in longitude, any latitudes (with poles, without, Gaussian): interpolated bilinearly to a
    Gaussian grid at least as fine, and truncated there.

    Raises `ValueError`, with what was expected and found, for winds or axes that are missing, units that are none of
    wind or pressure, values that are missing or implausible, levels outside of the data and a part of the globe.
    """
    notes: list[str] = []
    names = {name: _variable(dataset, name) for name in _WINDS}
    axes = {role: _axis(dataset[names["u"]], role) for role in _AXES}
    arrays = [_samples(dataset[names[name]], name, axes, notes) for name in _WINDS]
    if arrays[0].shape != arrays[1].shape:
        raise ValueError(f"u and v have shapes {arrays[0].shape} and {arrays[1].shape}, expected equal ones")
    winds = np.stack(arrays, 1)  # [sample, wind, level, latitude, longitude]
    winds = _at_levels(winds, dataset[axes["level"]], np.asarray(levels, float), notes)
    winds, latitude, longitude = _ordered(winds, dataset, axes, notes)
    fine = Sphere(max(grid.truncation, (2 * len(latitude) - 1) // 3), grid.radius, dtype=grid.dtype)
    on_points = jnp.asarray(_interpolated(winds, latitude, longitude, fine), grid.dtype)
    found = [fine.inverse_laplacian(fine.curl(one[0], one[1])) for one in on_points]
    return Flow(jnp.stack([fine.resize(psi_hat, grid) for psi_hat in found]), tuple(dict.fromkeys(notes)))


def to_points(a, latitude, longitude, grid: Sphere) -> Float[np.ndarray, "*batch y x"]:
    """A field `[..., latitude, longitude]` in degrees, in any order of rows, bilinearly on the points of `grid`."""
    a, rows = np.asarray(a, float), np.argsort(np.asarray(latitude, float))
    columns = np.argsort(np.mod(np.asarray(longitude, float), 360))
    a = a[..., rows, :][..., columns]
    return _interpolated(a, np.asarray(latitude, float)[rows], np.mod(np.asarray(longitude, float), 360)[columns], grid)


def _variable(dataset, name: str) -> str:
    standard, usual = _WINDS[name]
    by_standard = [key for key, a in dataset.data_vars.items() if a.attrs.get("standard_name") == standard]
    found = by_standard or [key for key in usual if key in dataset.data_vars]
    if len(found) != 1:
        raise ValueError(
            f"expected one variable with the standard name {standard!r}, or one of {usual}; "
            f"found {found or sorted(map(str, dataset.data_vars))}"
        )
    return found[0]


def _axis(a, role: str) -> str:
    known = _AXES[role]
    for dimension in a.dims:
        attrs = a[dimension].attrs if dimension in a.coords else {}
        if {dimension, attrs.get("standard_name"), attrs.get("units")} & set(known):
            return dimension
    raise ValueError(f"{a.name} has dimensions {a.dims}; expected a {role} among them, named as one of {known}")


def _samples(a, name: str, axes: dict, notes: list) -> np.ndarray:
    """[sample, level, latitude, longitude] in m s⁻¹."""
    if "units" not in a.attrs:
        raise ValueError(f"{a.name} has no units; expected those of a wind: set dataset[{a.name!r}].attrs['units']")
    factor, _ = conversion(str(a.attrs["units"]), "m s-1")
    if factor != 1:
        notes.append(f"{a.name}: converted from {a.attrs['units']} to m s-1")
    missing = [dimension for dimension in axes.values() if dimension not in a.dims]
    if missing:
        raise ValueError(f"{a.name} has dimensions {a.dims}; expected {tuple(axes.values())} among them")
    for dimension in a.dims:
        if dimension not in axes.values() and dimension in a.coords and a[dimension].dtype.kind in "mM":
            gaps = np.diff(np.asarray(a[dimension].values).astype(np.int64))
            if len(gaps) and (gaps != gaps[0]).any():
                notes.append(f"{dimension}: steps of different lengths; every sample counts alike")
    others = [dimension for dimension in a.dims if dimension not in axes.values()]
    values = np.asarray(a.transpose(*others, axes["level"], axes["latitude"], axes["longitude"]).values, float) * factor
    check_finite(str(a.name), values)
    if np.abs(values).max() > _FASTEST:
        raise ValueError(
            f"{a.name} reaches {np.abs(values).max():.3g} m s-1, expected at most {_FASTEST:g}: wrong units?"
        )
    return values.reshape(-1, *values.shape[-3:])


def _at_levels(winds: np.ndarray, coordinate, levels: np.ndarray, notes: list) -> np.ndarray:
    there = np.asarray(coordinate.values, float)
    units = coordinate.attrs.get("units")
    if units is None:
        units = "Pa" if there.max() > 2000 else "hPa"
        notes.append(f"{coordinate.name} has no units: taken for {units}")
    there = there * conversion(str(units), "hPa")[0]
    order = np.argsort(there)
    winds, there = winds[:, :, order], there[order]
    if levels.min() < there[0] - 1 or levels.max() > there[-1] + 1:
        raise ValueError(
            f"expected levels around {levels.tolist()} hPa, found {there.tolist()} hPa; nothing is extrapolated"
        )
    parts = []
    for p in levels:
        nearest = int(np.argmin(np.abs(there - p)))
        if abs(there[nearest] - p) < 1:
            parts.append(winds[:, :, nearest])
            continue
        above = int(np.searchsorted(there, p)) - 1
        weight = np.log(p / there[above]) / np.log(there[above + 1] / there[above])
        parts.append((1 - weight) * winds[:, :, above] + weight * winds[:, :, above + 1])
        notes.append(f"{p:g} hPa: interpolated in ln p between {there[above]:g} and {there[above + 1]:g} hPa")
    return np.stack(parts, 2)


def _ordered(winds: np.ndarray, dataset, axes: dict, notes: list) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows from south to north and columns from 0 to the east, and their places in degrees."""
    latitude = np.asarray(dataset[axes["latitude"]].values, float)
    longitude = np.mod(np.asarray(dataset[axes["longitude"]].values, float), 360)
    rows, (places, columns) = np.argsort(latitude), np.unique(longitude, return_index=True)
    for name, order in ((axes["latitude"], rows), (axes["longitude"], columns)):
        if len(order) != len(dataset[name]) or (order != np.arange(len(order))).any():
            notes.append(f"{name}: put in order, from south to north and from 0 to the east")
    latitude = latitude[rows]
    step, gap = np.diff(places), np.diff(latitude)
    if len(places) < 4 or not np.allclose(step, 360 / len(places), atol=1e-2):
        raise ValueError(f"expected longitudes around the globe at one interval, found {places[:3]} to {places[-1]}")
    if len(latitude) < 4 or latitude[0] - 1.5 * gap.max() > -90 or latitude[-1] + 1.5 * gap.max() < 90:
        raise ValueError(f"expected latitudes from pole to pole, found {latitude[0]:g} to {latitude[-1]:g}")
    return winds[..., rows, :][..., columns], latitude, places


def _interpolated(a: np.ndarray, latitude: np.ndarray, longitude: np.ndarray, grid: Sphere) -> np.ndarray:
    """Bilinear, periodic in longitude; beyond the last row the value of that row."""
    if a.shape[-2:] == grid.shape and np.allclose(latitude, grid.latitude, atol=1e-3) and longitude[0] < 1e-6:
        return a
    row = np.clip(np.searchsorted(latitude, grid.latitude) - 1, 0, len(latitude) - 2)
    y = np.clip((grid.latitude - latitude[row]) / (latitude[row + 1] - latitude[row]), 0, 1)[:, None]
    a = (1 - y) * a[..., row, :] + y * a[..., row + 1, :]
    place = np.mod((grid.longitude - longitude[0]) / (360 / len(longitude)), len(longitude))
    column = np.floor(place).astype(int)
    x = place - column
    return (1 - x) * a[..., column % len(longitude)] + x * a[..., (column + 1) % len(longitude)]
