"""Readers of public files of pairs and of flows."""

from collections.abc import Mapping
from itertools import product
from pathlib import Path

import numpy as np

from hybridgcm._typing import nearest
from hybridgcm.data import check_finite
from hybridgcm.files import NETCDF
from hybridgcm.pairs.burgers import spread


def read_darcy(path) -> dict[str, dict[str, np.ndarray]]:
    """{"train", "test16", "test32"}: pairs of the coefficient `a`, 0 or 1, and the pressure `u`, points i/n.

    Reads variables a_train, u_train, a_test16... `[sample, y, x]` of a netCDF file. Raises `ValueError` for a variable
    that is missing, shapes that do not pair, values that are missing or not finite, and coefficients besides 0 and 1.
    """
    out = {}
    for part in ("train", "test16", "test32"):
        fields = _read(path, {"a": f"a_{part}", "u": f"u_{part}"})
        a, u = fields["a"], fields["u"]
        if a.ndim != 3 or a.shape != u.shape or a.shape[1] != a.shape[2]:
            raise ValueError(f"{path}: a_{part} and u_{part} are [sample, n, n] alike; got {a.shape} and {u.shape}")
        if not np.isin(a, (0, 1)).all():
            raise ValueError(f"{path}: a_{part} is 0 or 1; got values such as {a[~np.isin(a, (0, 1))][0]}")
        out[part] = {name: field[:, None] for name, field in fields.items()}
    return out


def read_burgers(path) -> dict[str, dict[str, np.ndarray]]:
    """{"train", "test"}: pairs of the initial `u0`, the same at all times, and the solution `u`, both
    `[sample, 1, time, x]`.

    Reads u0_train `[sample, x]`, u_train `[sample, time, x]` and the same of test. Raises `ValueError` as `read_darcy`,
    and if a solution does not begin with its initial values.
    """
    out = {}
    for part in ("train", "test"):
        fields = _read(path, {"u0": f"u0_{part}", "u": f"u_{part}"})
        u0, u = fields["u0"], fields["u"]
        if u.ndim != 3 or u0.shape != (len(u), u.shape[2]):
            expected = "[sample, x] and [sample, time, x]"
            raise ValueError(f"{path}: u0_{part} and u_{part} are {expected}; got {u0.shape} and {u.shape}")
        if np.abs(u[:, 0] - u0).max() > 1e-5 * np.abs(u0).max():
            raise ValueError(f"{path}: u_{part} does not begin with u0_{part}; its first time is another")
        out[part] = spread(u0, u)
    return out


def read_pdebench(path, samples: slice = slice(None)):
    """Flows of a PDEBench file as an xarray.Dataset: variables (sample, time, y, x), or with fewer axes of space.

    The three layouts of Takamoto et al. (2022), doi:10.48550/arXiv.2210.07182: one array `tensor`, beside it perhaps
    coefficients like `nu`, which do not vary in time; arrays by name, as `density`, `Vx`; and one group per sample with
    `data` `[time, x, y, channel]`, which become `data`, or `data_0`, `data_1` ... . Axes x, y of the file are turned to
    y, x; a time after the last record is left out. `samples` says which are read, as they rarely fit into memory.
    Raises `FileNotFoundError`, and `ValueError` for another layout, no sample, and values that are not finite.
    """
    import xarray as xr

    with NETCDF, _open(path) as file:
        runs = sorted(name for name, group in file.groups.items() if "data" in group.variables)
        fields, axes = _groups(path, file, runs, samples) if runs else _arrays(path, file, samples)
    space = [name for name in "xyz" if name in axes]
    dims = {len(space) + 2: ["sample", "time", *space], len(space) + 1: ["sample", *space]}
    if not (space and fields and all(a.ndim in dims for a in fields.values())):
        shapes = {name: a.shape for name, a in fields.items()}
        raise ValueError(
            f"{path} has no layout of PDEBench: [sample, time, x ...] with x-coordinate, or groups; got {shapes}"
        )
    out = {name: (dims[a.ndim], a) for name, a in fields.items()}
    if "time" in axes:
        axes["time"] = axes["time"][: max(a.shape[1] for where, a in out.values() if "time" in where)]
    return _turned(xr.Dataset(out, axes, {"source": Path(path).name}), space)


def _arrays(path, file, samples: slice) -> tuple[dict, dict]:
    known = {f"{name}-coordinate": "time" if name == "t" else name for name in "txyz"}
    fields = {name: _values(path, file, name, samples) for name in file.variables if name not in known}
    return fields, {known[name]: np.asarray(file[name][:]) for name in known if name in file.variables}


def _groups(path, file, runs: list[str], samples: slice) -> tuple[dict, dict]:
    stored = np.stack([_values(path, file[run], "data") for run in _some(path, runs, samples)])
    names = ["data"] if stored.shape[-1] == 1 else [f"data_{channel}" for channel in range(stored.shape[-1])]
    grid = file[runs[0]].groups["grid"].variables if "grid" in file[runs[0]].groups else {}
    axes = {"time" if name == "t" else name: np.asarray(a[:]) for name, a in grid.items()}
    return dict(zip(names, np.moveaxis(stored, -1, 0), strict=True)), axes


def read_well(path, samples: slice = slice(None)):
    """Flows of a file of The Well as an xarray.Dataset: variables (sample, time, y, x), fewer where one does not vary.

    The layout of Ohana et al. (2024), doi:10.48550/arXiv.2412.00568: groups t0_fields, t1_fields and t2_fields of
    scalars, vectors and tensors. Their components become variables of their own, `velocity` to `velocity_x` and
    `velocity_y`, a tensor to `name_xx`, `name_xy` ... . Axes of space are turned round, so that x is the last.
    Scalars of the file that do not vary are attributes. `samples` as in `read_pdebench`, which also says what raises.
    """
    import xarray as xr

    with NETCDF, _open(path) as file:
        if "dimensions" not in file.groups or "t0_fields" not in file.groups:
            raise ValueError(f"{path} has no layout of The Well: groups dimensions, t0_fields; got {list(file.groups)}")
        space = [str(name) for name in np.atleast_1d(file["dimensions"].getncattr("spatial_dims"))]
        out = {}
        for rank in range(3):
            group = file.groups.get(f"t{rank}_fields")
            for name in group.variables if group is not None else ():
                along = _varying(path, group[name])
                axes = zip(["sample", "time", *space], [*along[:2], *np.atleast_1d(along[2])], strict=True)
                dims = [axis for axis, varies in axes if varies]
                a = _values(path, group, name, samples if "sample" in dims else slice(None))
                parts = [""]
                if rank:
                    parts = ["_" + "".join(part) for part in product(space, repeat=rank)]
                    a = a.reshape(*a.shape[: len(dims)], -1)
                if a.shape[len(dims) :] != (len(parts),) * bool(rank):
                    raise ValueError(f"{path}: {name} has shape {a.shape}, expected axes {dims} and {len(parts)} parts")
                for index, part in enumerate(parts):
                    out[name + part] = (dims, a[..., index] if rank else a)
        axes = {name: file["dimensions"].variables.get(name) for name in ("time", *space)}
        coordinates = {name: np.asarray(a[:]) for name, a in axes.items() if a is not None and a.ndim == 1}
        scalars = file.groups["scalars"].variables if "scalars" in file.groups else {}
        attributes = {name: float(a[...].ravel()[0]) for name, a in scalars.items() if a.size == 1}
        return _turned(xr.Dataset(out, coordinates, {"source": Path(path).name} | attributes), space)


def _varying(path, stored) -> list:
    """Along which axes a field of The Well varies: of samples, of times, and each of space."""
    names = [f"{axis}_varying" for axis in ("sample", "time", "dim")]
    missing = sorted(set(names) - set(stored.ncattrs()))
    if missing:
        raise ValueError(
            f"{path} has no layout of The Well: {stored.name} has no attributes {missing}, which say along which axes "
            f"it varies; got {stored.ncattrs()}"
        )
    return [stored.getncattr(name) for name in names]


def _open(path):
    import netCDF4

    if not Path(path).is_file():
        raise FileNotFoundError(f"{path} is not there")
    try:
        file = netCDF4.Dataset(path)
    except OSError as error:
        raise ValueError(f"{path} is not an HDF5 file: {error}") from None
    file.set_auto_mask(False)
    return file


def _some(path, whole, samples: slice):
    chosen = whole[samples]
    if not len(chosen):
        raise ValueError(f"{path} has {len(whole)} samples; {samples} takes none of them")
    return chosen


def _values(path, group, name: str, samples: slice = slice(None)) -> np.ndarray:
    """Samples of an array of a file, checked, in single precision."""
    stored = group.variables[name]
    _some(path, range(len(stored)), samples)
    a = np.asarray(stored[samples], np.float32)
    check_finite(f"{path}: {name}", a)
    return a


def _turned(data, space: list[str]):
    """With the axes of space in the order that grids have: x last."""
    ends = [axis for axis in reversed(space) if axis in data.dims]
    return data.transpose(*(axis for axis in ("sample", "time") if axis in data.dims), *ends)


def _read(path, names: Mapping[str, str]) -> dict[str, np.ndarray]:
    import xarray as xr

    if not Path(path).is_file():
        raise FileNotFoundError(f"{path} is not there; without files, `pairs.darcy` and `pairs.burgers` make pairs")
    out = {}
    with NETCDF, xr.open_dataset(path) as data:
        for name, stored in names.items():
            if stored not in data:
                there = [str(variable) for variable in data.data_vars]
                raise ValueError(f"{path} has no {stored}, only {there}{nearest(stored, there)}")
            out[name] = np.asarray(data[stored].values, np.float32)
            check_finite(f"{path}: {stored}", out[name])
            if len(out[name]) != len(out[next(iter(out))]):
                raise ValueError(f"{path}: {list(names.values())} differ in length; pairs go sample by sample")
    return out
