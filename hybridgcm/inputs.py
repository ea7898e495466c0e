"""Fields from files of others, netCDF or Zarr: what cannot be told for sure is refused, never guessed or filled."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from hybridgcm import cf
from hybridgcm._typing import VARIABLES, nearest
from hybridgcm.data import check_finite
from hybridgcm.files import NETCDF
from hybridgcm.units import conversion

PLAUSIBLE = {
    "q": 1e-2,
    "zeta": 1e-2,
    "delta": 1e-2,
    "u": 200.0,
    "v": 200.0,
    "psi": 1e9,
    "b": 10.0,
    "phi": 1e6,
    "c": 1e6,
}
"""Largest magnitude that a variable may have, in the units of `VARIABLES`. Units that are wrong go beyond it."""
_AXES = {
    "time": ("T", ("time", "t"), ("time",)),
    "layer": ("Z", ("layer", "lev", "level", "plev", "pressure", "z", "depth"), ("depth", "height", "air_pressure")),
    "y": ("Y", ("y", "lat", "latitude"), ("projection_y_coordinate", "latitude")),
    "x": ("X", ("x", "lon", "longitude"), ("projection_x_coordinate", "longitude")),
}


class Inputs(NamedTuple):
    """`fields` {name: [time, layer, y, x]} on the points of the grid, `time` in s (None without a time axis, and then
    the fields are [layer, y, x]), and `notes`: what was converted, turned or taken for granted."""

    fields: dict[str, np.ndarray]
    time: np.ndarray | None
    notes: tuple[str, ...]


def read_fields(
    path,
    grid,
    names: Sequence[str] | Mapping[str, str],
    *,
    units: Mapping[str, str] | None = None,
    calendar: str | None = None,
    plausible: Mapping[str, float] = PLAUSIBLE,
    limit: float = 4e9,
) -> Inputs:
    """Named fields of a netCDF file or Zarr store, as `Model.encode`, `windows` and `samples` take them.

    - `names`: names in `VARIABLES`, or a mapping from them to the names in the file.
    - `units`: CF units of variables (by our names) whose attribute is missing or wrong. Units are converted.
    - `calendar`: the CF calendar that the time axis must have, if it matters. `time` is in s since its reference.
    - `limit`: bytes that may be read; larger variables are refused before anything is read.

    Axes are recognised by CF attributes or usual names, in any order; those of length one are dropped, points that
    run the other way or start elsewhere on the periodic grid are put in place (on a sphere rows from the north and
    longitudes from −180), as are levels of pressure from the bottom up. Packed integers, half precision and either
    byte order are decoded, to double precision unless the file is in single.

    Raises `ValueError`, with what was expected and found, for a missing variable, unknown or other units, values that
    are not finite, missing or implausible, other points than the grid's, another calendar, the first time stamp that
    does not follow its predecessor at the common interval, a chunk that is not there, and a file that is too large.
    """
    path = Path(path)
    names = names if isinstance(names, Mapping) else {name: name for name in names}
    _check_size(path, names, limit)
    fields, times, notes = {}, {}, []
    with NETCDF, _open(path) as data:
        for name, stored in names.items():
            variable = data[stored]
            axes = _axes(data, stored)
            a = _decoded(path, stored, variable)
            a, about = _in_units(name, a, variable.attrs, dict(units or {}), path)
            notes += about
            a, about = _on_grid(name, a, data, variable.dims, axes, grid)
            notes += about
            check_finite(f"{name} in {path}", a)
            _check_plausible(name, a, plausible, path)
            if "time" in axes:
                times[name] = _seconds(data, axes["time"], calendar, path)
            fields[name] = a
    lengths = {name: time.shape for name, time in times.items()}
    if times and (len(times) < len(fields) or len({time.tobytes() for time in times.values()}) > 1):
        raise ValueError(f"the variables of {path} are on different time axes: {lengths} of {sorted(fields)}")
    return Inputs(fields, next(iter(times.values()), None), tuple(dict.fromkeys(notes)))


def _open(path: Path):
    import xarray as xr

    plain = {"decode_times": False, "mask_and_scale": False, "decode_coords": False}
    if path.is_dir():
        return xr.open_zarr(path, consolidated=False, chunks=None, **plain)
    return xr.open_dataset(path, engine="netcdf4", **plain)


def _check_size(path: Path, names: Mapping, limit: float):
    """Refuse what is absent or too large by the header alone: opening it with coordinates might fill the memory."""
    if not path.exists():
        raise ValueError(f"{path} does not exist")
    shapes, dimensions = _header(path, set(names.values()))
    for name, stored in names.items():
        if stored not in shapes:
            raise ValueError(f"{path} has no {stored!r} for {name}{nearest(stored, shapes)}; it has {sorted(shapes)}")
    read = {*names.values(), *(d for d in dimensions if d in shapes)}
    size = {name: 8 * int(np.prod([float(n) for n in shapes[name]])) for name in read}
    largest = max(size, key=size.get)
    if sum(size.values()) > limit:
        raise ValueError(
            f"{path} would take {sum(size.values()):.3g} bytes, {largest} with its {tuple(shapes[largest])} values "
            f"most of them; limit={limit:.3g}: pass a larger one, or cut the file"
        )


def _header(path: Path, wanted: set[str]) -> tuple[dict[str, tuple], set[str]]:
    """({variable: shape}, names of dimensions); raises if a chunk of a wanted Zarr array is not there."""
    if not path.is_dir():
        import netCDF4

        try:
            with NETCDF, netCDF4.Dataset(path) as file:
                return {name: v.shape for name, v in file.variables.items()}, set(file.dimensions)
        except OSError as error:
            raise ValueError(f"{path} is no netCDF file, or is damaged: {error}") from None
    import zarr

    try:
        arrays = dict(zarr.open_group(path, mode="r").arrays())
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise ValueError(f"{path} is no Zarr group, or is damaged: {error!r:.300}") from None
    shapes = {name: array.shape for name, array in arrays.items()}
    dimensions = set()
    for array in arrays.values():
        dimensions |= set(getattr(array.metadata, "dimension_names", None) or array.attrs.get("_ARRAY_DIMENSIONS", ()))
    return shapes, dimensions


def _check_chunks(path: Path, name: str):
    """Raise if a chunk of a Zarr array was never written: Zarr would fill it without a word."""
    import zarr

    array = zarr.open_group(path, mode="r")[name]
    sizes = array.shards or array.chunks
    expected = int(np.prod([-(-n // size) for n, size in zip(array.shape, sizes, strict=True)]))
    folder = path / name
    found = sum(1 for file in folder.rglob("*") if file.is_file() and file.name not in _METADATA)
    if found < expected:
        raise ValueError(
            f"{name} in {path} has {found} of {expected} chunks; the others would read as {array.fill_value}. "
            "Copy it again, or write it with write_empty_chunks=True"
        )


_METADATA = ("zarr.json", ".zarray", ".zattrs", ".zgroup")


def _axes(data, stored: str) -> dict[str, str]:
    """{"time" | "layer" | "y" | "x": dimension} of a variable."""
    found = {}
    for dimension in data[stored].dims:
        attrs = data[dimension].attrs if dimension in data.variables else {}
        for role, (letter, usual, standard) in _AXES.items():
            if (
                attrs.get("axis") == letter
                or attrs.get("standard_name") in standard
                or ("axis" not in attrs and dimension.lower() in usual)
            ):
                found.setdefault(role, dimension)
                break
    rest = [d for d in data[stored].dims if d not in found.values() and data.sizes[d] != 1]
    if rest or not {"y", "x"} <= set(found):
        sizes = dict(zip(data[stored].dims, data[stored].shape))
        raise ValueError(
            f"{stored} has dimensions {sizes}, expected time, layer, y and x, "
            f"the last two at least; cannot tell what {rest or 'the others'} are: give them an axis attribute"
        )
    return found


def _decoded(path: Path, stored: str, variable) -> np.ndarray:
    """The values in floating point, exactly; missing ones as nan."""
    if path.is_dir():
        _check_chunks(path, stored)
    try:
        raw = np.asarray(variable.values)
    except (OSError, RuntimeError, ValueError) as error:
        raise ValueError(f"{stored} in {path} cannot be read, it is damaged: {error!r:.200}") from error
    if raw.dtype.kind not in "fiu":
        raise ValueError(f"{stored} in {path} is of dtype {raw.dtype}, expected real numbers")
    a = raw.astype(np.float64)
    if raw.dtype.kind in "iu" and raw.dtype.itemsize == 8 and not np.array_equal(a.astype(raw.dtype), raw):
        raise ValueError(f"{stored} in {path} holds integers above 2^53, which no floating-point number equals")
    for key in ("_FillValue", "missing_value"):
        if key in variable.attrs:
            a[raw == np.asarray(variable.attrs[key]).astype(raw.dtype)] = np.nan
    packed = {key: float(variable.attrs[key]) for key in ("scale_factor", "add_offset") if key in variable.attrs}
    if packed:
        return a * packed.get("scale_factor", 1.0) + packed.get("add_offset", 0.0)
    return a.astype(np.float32) if raw.dtype.kind == "f" and raw.dtype.itemsize <= 4 else a


def _in_units(name: str, a: np.ndarray, attrs: Mapping, given: dict, path: Path) -> tuple[np.ndarray, list[str]]:
    if name not in VARIABLES:
        raise ValueError(f"{name!r} has no units{nearest(name, VARIABLES)}; add VARIABLES[{name!r}] = Variable(...)")
    wanted, found = VARIABLES[name].units, given.get(name, attrs.get("units"))
    if found is None:
        raise ValueError(f'{name} in {path} has no units; expected {wanted!r}: pass units={{"{name}": ...}}')
    try:
        factor, offset = conversion(str(found), wanted)
    except ValueError as error:
        raise ValueError(f"{name} in {path}: {error}") from None
    if (factor, offset) == (1.0, 0.0):
        return a, []
    return (a * factor + offset).astype(a.dtype), [f"{name}: converted from {found} to {wanted}"]


def _on_grid(name: str, a: np.ndarray, data, dims, axes: dict, grid) -> tuple[np.ndarray, list[str]]:
    """[time, layer, y, x] on the points of the grid, in their order."""
    keep = [axes[role] for role in ("time", "layer", "y", "x") if role in axes]
    single = tuple(i for i, d in enumerate(dims) if d not in keep)
    left = [d for d in dims if d in keep]
    a = np.transpose(a.squeeze(single), [left.index(d) for d in keep])
    notes = []
    if "layer" not in axes:
        a = np.expand_dims(a, -3)
    elif axes["layer"] in data.variables and _rises(data[axes["layer"]]):
        a, notes = np.flip(a, -3), [f"{axes['layer']}: turned, lowest pressure first"]
    if a.shape[-2:] != tuple(grid.shape):
        raise ValueError(
            f"{name} has shape {a.shape}, the grid {tuple(grid.shape)} [{', '.join(cf.axes(grid))}]; interpolate or "
            "coarsen it first"
        )
    for number, role, dimension in zip((-2, -1), "yx", cf.axes(grid)):
        if axes[role] not in data.variables and cf.is_sphere(grid):
            raise ValueError(
                f"{axes[role]} of {name} has no coordinate; expected one in {('degrees_north', 'degrees_east')[number]}"
                ": rows may begin at either pole and columns at any longitude"
            )
        if axes[role] not in data.variables:
            notes.append(f"{axes[role]} has no coordinate: taken for {role} of the grid")
            continue
        coordinate = data[axes[role]]
        points = np.asarray(coordinate.values, np.float64)
        order = cf.order(name, dimension, points, coordinate.attrs.get("units"), grid)
        if not np.array_equal(order, np.arange(len(points))):
            a = np.take(a, order, axis=number)
            notes.append(f"{axes[role]}: points put in the order of the grid")
    return np.ascontiguousarray(a), notes


def _rises(coordinate) -> bool:
    """Whether levels of pressure are given from the bottom up; layers here count from the top."""
    pressure = coordinate.attrs.get("standard_name") == "air_pressure" or coordinate.attrs.get("units") in ("hPa", "Pa")
    return pressure and coordinate.size > 1 and bool((np.diff(np.asarray(coordinate.values, np.float64)) < 0).all())


def _check_plausible(name: str, a: np.ndarray, plausible: Mapping, path: Path):
    largest = float(np.abs(a).max()) if a.size else 0.0
    if name in plausible and largest > plausible[name]:
        raise ValueError(
            f"{name} in {path} reaches {largest:.3g} {VARIABLES[name].units}, plausible is up to {plausible[name]:g}; "
            f'wrong units? Pass units={{"{name}": ...}}, or plausible={{}} if it is right'
        )


def _seconds(data, dimension: str, calendar: str | None, path: Path) -> np.ndarray:
    """The time axis in s, one interval throughout."""
    if dimension not in data.variables:
        raise ValueError(f"{path} has a dimension {dimension} without times")
    variable = data[dimension]
    text, kind = str(variable.attrs.get("units", "")), str(variable.attrs.get("calendar", "standard"))
    same = {"gregorian": "standard", "365_day": "noleap"}
    if calendar is not None and same.get(kind, kind) != same.get(calendar, calendar):
        raise ValueError(f"{path} has the calendar {kind!r}, expected {calendar!r}")
    unit = text.partition(" since ")[0]
    if " since " not in text and text != "s":
        raise ValueError(f"the times of {path} have units {text!r}, expected 's' or 'seconds since ...'")
    factor, _ = conversion(unit, "s")
    stamps = np.asarray(variable.values, np.float64)
    check_finite(f"{dimension} in {path}", stamps)
    gaps = np.diff(stamps)
    bad = np.flatnonzero(~np.isclose(gaps, np.median(gaps), rtol=1e-6) | (gaps <= 0)) if len(gaps) else []
    if len(bad):
        i = int(bad[0])
        what = "is repeated" if gaps[i] == 0 else "goes back" if gaps[i] < 0 else "does not follow at that interval"
        raise ValueError(
            f"the times of {path} are {np.median(gaps):g} apart, yet stamp {i + 1}, {stamps[i + 1]:g} after "
            f"{stamps[i]:g} ({text}), {what}; nothing is interpolated"
        )
    return factor * stamps
