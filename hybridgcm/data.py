"""Fields on disk: CF data sets, and a store that is written record by record and read while it grows."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hybridgcm.cf import attributes, axis, dimension_names, record_dimension
from hybridgcm.files import NETCDF, atomic, failed_write, sync

_SERIES = 1024
"""Records per chunk of variables that are tiny per record (a few numbers), so that they do not fill folders."""


class Store:
    """A Zarr v3 store of CF variables on a time axis that is known from the start. See `open_store`.

    `records`: how many records are complete. The store attribute `records_complete` says the same to readers: it
    is raised after the data are on disk, so that a record below it is whole.
    """

    def __init__(self, path: Path, grid, time, dimensions: Mapping, coordinates: Mapping, attrs: Mapping, missing):
        self.path, self.records, self._grid, self._time = path, 0, grid, time
        self._dimensions, self._coordinates, self._attrs = dimensions, coordinates, attrs
        self._axis, self._missing, self._group = record_dimension(attrs), missing, None

    def append(self, frames: Mapping):
        """Add what `stream` yields: {"save": {name: [record, ...]}, "mean": {...}, "time": [record]}.

        Means are stored as `name_mean`, with the cell method. On `OSError` (disk full) earlier records are
        complete and the call may be repeated. Raises `ValueError` for a name without an entry in `VARIABLES`, a
        shape without dimensions, a value that is not finite, and times that are not the next ones of the axis.
        """
        arrays = collect(frames)
        self._check(arrays, np.atleast_1d(np.asarray(frames["time"], float)))
        first, last = self.records, self.records + len(next(iter(arrays.values())))
        try:
            if self._group is None:
                self._group = self._create(arrays)
            for name, a in arrays.items():
                _writable(self._group, name)[first:last] = a
                for file in _chunk_files(self.path / name, self._group[name], first, last):
                    sync(file)
            self._group.attrs["records_complete"] = last
            sync(self.path / "zarr.json")
        except OSError as error:
            state = f"records before {first} are complete"
            raise failed_write(error, self.path / f"records {first} to {last - 1}", state) from error
        self.records = last

    def _check(self, arrays: dict, time: np.ndarray):
        expected = self._time[self.records : self.records + len(time)]
        if len(expected) != len(time) or not np.array_equal(expected, time):
            raise ValueError(
                f"the next {len(time)} of {len(self._time)} records of {self.path}, from {self.records}, are at times "
                f"{expected} s, got {time}"
            )
        for name, a in arrays.items():
            if len(a) != len(time):
                raise ValueError(f"{name} has {len(a)} records, expected {len(time)} as time")
            check_finite(name, np.where(np.isnan(a), 0, a) if name in self._missing else a)
        known = () if self._group is None else [n for n in self._group.array_keys() if self._is_record(n)]
        if known and sorted(known) != sorted(arrays):
            raise ValueError(f"{self.path} holds {sorted(known)}; got {sorted(arrays)}")

    def _is_record(self, name: str) -> bool:
        return name != self._axis and self._group[name].metadata.dimension_names[:1] == (self._axis,)

    def _create(self, arrays: dict):
        """The whole store with no record in it, made beside its place and moved there: readers see all or nothing."""
        import zarr

        self.path.parent.mkdir(parents=True, exist_ok=True)
        new = self.path.with_name(f".{self.path.name}.new")
        shutil.rmtree(new, ignore_errors=True)
        attrs = {"Conventions": "CF-1.11", **self._attrs, "records_complete": 0}
        group = zarr.create_group(new, zarr_format=3, attributes=attrs)
        _coordinate(group, self._axis, *axis(self._axis, len(self._time), self._grid, {self._axis: self._time}))
        sizes = {self._axis: len(self._time)}
        for name, a in arrays.items():
            names = dimension_names(name, a.shape[1:], self._grid, self._dimensions)
            for dimension, size in zip(names, a.shape[1:], strict=True):
                if sizes.setdefault(dimension, size) != size:
                    raise ValueError(f"{name} has {size} points along {dimension}, another variable {sizes[dimension]}")
                if dimension not in group:
                    values, about = axis(dimension, size, self._grid, self._coordinates)
                    _coordinate(group, dimension, values, about)
            _record_array(group, name, a, len(self._time), (self._axis, *names), attributes(name, self._grid))
        new.rename(self.path)
        sync(self.path.parent)
        return zarr.open_group(self.path, mode="r+")

    def _truncate(self, records: int):
        """Go back to `records`: chunks beyond are removed, the rest of a started one becomes missing."""
        import zarr

        for leftover in self.path.rglob("*.partial"):  # of a writer that was killed
            leftover.unlink()
        self._group = group = zarr.open_group(self.path, mode="r+")
        complete, stored = int(group.attrs["records_complete"]), np.asarray(group[self._axis])
        if complete < records:
            raise ValueError(f"{self.path} has {complete} complete records, expected at least {records} to keep")
        if len(self._time) < records or not np.array_equal(stored[:records], self._time[:records]):
            raise ValueError(f"{self.path} has other times than asked for: its first are {stored[:3]} s")
        group.attrs["records_complete"] = records
        for name in filter(self._is_record, group.array_keys()):
            array, length = _writable(group, name), len(stored)
            whole = -(-records // _step(array)) * _step(array)
            if records < min(whole, length):
                array[records : min(whole, length)] = array.fill_value
            for file in _chunk_files(self.path / name, array, whole, length):
                file.unlink(missing_ok=True)
            if array.shape[0] != len(self._time):
                array.resize((len(self._time), *array.shape[1:]))
        if not np.array_equal(stored, self._time):
            group[self._axis].resize((len(self._time),))
            group[self._axis][:] = self._time
        self.records = records


def open_store(
    path,
    grid,
    time,
    *,
    keep: int | None = None,
    dimensions: Mapping[str, Sequence[str]] | None = None,
    coordinates: Mapping[str, Any] | None = None,
    attrs: Mapping[str, Any] | None = None,
    missing: Sequence[str] = (),
) -> Store:
    """A new Zarr store for records at `time` (s since the start), or an old one to go on with.

    Any reader may open it with `xarray.open_zarr(path, consolidated=False)` at any moment, from the first append
    on; records from the attribute `records_complete` on are missing (nan), and `read_store` leaves them out. The
    frames of the first `append` make one file (shard) per variable and so set the layout.

    - `grid`: gives the dimensions of fields, (layer, y, x) or on a sphere (layer, latitude, longitude), and the points.
    - `keep`: `None` for a new store; else the number of records to keep of an old one, whatever was written after
      them. `time` may be longer than it was.
    - `dimensions`: names of the dimensions after time of variables that are not fields, as {"spectrum": ("layer",
      "wavenumber")}; `coordinates`: values of such dimensions, else an attribute of the grid of that name, else 1, 2...
      A dimension "pressure" is one of levels in hPa.
    - `attrs`: global attributes: title, provenance (configuration and code hashes); `record_dimension`: "lead_time".
    - `missing`: variables in which nan says that there is no value.

    Raises `FileExistsError` for an old store without `keep`, `ValueError` if it does not have these records.
    """
    path, time = Path(path), np.asarray(time, np.float64)
    if time.ndim != 1 or not len(time) or not (np.diff(time) > 0).all():
        raise ValueError(f"time is the increasing axis of all records, s; got {time!r}")
    store = Store(path, grid, time, dict(dimensions or {}), dict(coordinates or {}), dict(attrs or {}), missing)
    if keep:
        store._truncate(keep)
    elif path.exists() and keep is None:
        raise FileExistsError(f"{path} exists; pass keep=N to go on after its first N records, or choose another path")
    elif path.exists():
        old = path.with_name(f".{path.name}.old")
        shutil.rmtree(old, ignore_errors=True)
        path.rename(old)
        shutil.rmtree(old)
    return store


def read_store(path):
    """The complete records of a store as an `xarray.Dataset`, read lazily; time stays a number, in s.

    Raises `ValueError` naming variable and chunk if a chunk is missing or cut short: it is never filled. A chunk with
    flipped bits raises when its values are read.
    """
    import xarray as xr
    import zarr

    path = Path(path)
    group = zarr.open_group(path, mode="r")
    records, along = int(group.attrs["records_complete"]), record_dimension(group.attrs)
    for name, array in group.arrays():
        last = records if (array.metadata.dimension_names or ("",))[0] == along != name else array.shape[0]
        for file in _chunk_files(path / name, array, 0, last):
            _check_chunk(name, file, array, last)
    data = xr.open_zarr(path, consolidated=False, chunks=None, decode_times=False)
    return data.isel({along: slice(records)})


def to_dataset(fields: Mapping, grid, time=None, *, dimensions=None, coordinates=None, attrs=None):
    """CF `xarray.Dataset` of named arrays: `[layer, y, x]`, or with a leading time axis if `time` (s) is given.

    Dimensions, coordinates, units and errors are those of `open_store`. Time stays a number, in s.
    """
    import xarray as xr

    variables, lead = {}, () if time is None else ("time",)
    for name, a in fields.items():
        a = np.asarray(a)
        names = dimension_names(name, a.shape[len(lead) :], grid, dimensions or {})
        for dimension, size in zip(names, a.shape[len(lead) :], strict=True):
            values, about = axis(dimension, size, grid, coordinates or {})
            variables[dimension] = xr.Variable((dimension,), values, about)
        variables[name] = xr.Variable((*lead, *names), a, attributes(name, grid))
    if lead:
        variables["time"] = xr.Variable(lead, *axis("time", len(time), grid, {"time": np.asarray(time, np.float64)}))
    coordinates = {name: variables.pop(name) for name in [n for n, v in variables.items() if v.dims == (n,)]}
    return xr.Dataset(variables, coordinates, {"Conventions": "CF-1.11", **(attrs or {})})


def save_netcdf(dataset, path):
    """Write a data set to a compressed netCDF4 file, which appears under its name complete or not at all."""
    packed = {"zlib": True, "complevel": 4, "shuffle": True}
    encoding = {name: packed for name, a in dataset.data_vars.items() if a.dtype.kind == "f" and a.ndim > 1}
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with atomic(path) as temporary, NETCDF:
        dataset.to_netcdf(temporary, engine="netcdf4", format="NETCDF4", encoding=encoding)


def check_finite(name: str, a, first: int = 0):
    """Raise `ValueError` naming the first value that is not finite; `first` is the number of the first record."""
    bad = ~np.isfinite(np.asarray(a))
    if bad.any():
        index = tuple(int(i) for i in np.argwhere(bad)[0])
        index = (index[0] + first, *index[1:]) if index else index
        raise ValueError(
            f"{name} has {int(bad.sum())} values that are not finite, the first at {index}; mask or fill them"
        )


def collect(frames: Mapping) -> dict[str, np.ndarray]:
    """Arrays to store by name, from what `stream` yields."""
    arrays = {}
    for part, suffix in (("save", ""), ("mean", "_mean")):
        found = frames.get(part)
        if found is not None and not isinstance(found, Mapping):
            raise ValueError(f"{part} gave an array without a name; let it return a dict {{name: array}} to store it")
        arrays |= {f"{name}{suffix}": np.asarray(a) for name, a in (found or {}).items()}
    if not arrays:
        raise ValueError("there is nothing to store: give stream a save or a mean function that returns a dict")
    for name in (name for name, a in arrays.items() if a.dtype.kind not in "fiu"):
        raise ValueError(f"{name} is of dtype {arrays[name].dtype}; store real numbers: complex ones as two variables")
    return arrays


def _coordinate(group, name: str, values: np.ndarray, about: dict):
    array = group.create_array(
        name, shape=values.shape, chunks=values.shape, dtype=values.dtype, dimension_names=(name,), attributes=about,
        fill_value=np.nan if values.dtype.kind == "f" else 0, config={"write_empty_chunks": True},
    )  # fmt: skip
    array[:] = values


def _record_array(group, name: str, a: np.ndarray, records: int, dimensions: tuple, about: dict):
    """An empty array for `records` records like those of `a`: one inner chunk each, one shard per append."""
    from zarr.codecs import BloscCodec, Crc32cCodec

    series = a[0].nbytes < 4096
    group.create_array(
        name,
        shape=(records, *a.shape[1:]),
        chunks=(_SERIES if series else 1, *a.shape[1:]),
        shards=None if series or len(a) == 1 else a.shape,
        dtype=a.dtype,
        fill_value=np.nan if a.dtype.kind == "f" else 0,
        compressors=[BloscCodec(cname="zstd", clevel=3, shuffle="bitshuffle"), Crc32cCodec()],
        dimension_names=dimensions,
        attributes=about,
    )


def _writable(group, name: str):
    # a chunk that happens to hold only the fill value must be written too, else it would read as missing
    return group[name].with_config({"write_empty_chunks": True})


def _step(array) -> int:
    """Records per file."""
    return (array.shards or array.chunks)[0]


def _chunk_files(folder: Path, array, first: int, last: int) -> list[Path]:
    """Files that hold the records `first` to `last` (not included) of an array that is chunked in time only."""
    rest = ["0"] * (array.ndim - 1)
    step = _step(array)
    return [folder.joinpath("c", str(i), *rest) for i in range(first // step, -(-last // step))]


def _check_chunk(name: str, file: Path, array, records: int):
    """Raise if a chunk file lacks one of the first `records` records of its variable."""
    number = int(file.relative_to(file.parents[array.ndim - 1]).parts[0])
    where = f"{name} is damaged: chunk {number} ({file})"
    if not file.is_file() or not file.stat().st_size:
        raise ValueError(f"{where} is missing; it is not filled with zeros")
    if array.shards is None:
        return
    count, size = _step(array), file.stat().st_size
    with open(file, "rb") as shard:  # a shard ends with offset and length of every inner chunk, and a checksum
        shard.seek(max(size - 16 * count - 4, 0))
        index = np.frombuffer(shard.read(16 * count).ljust(16 * count, b"\xff"), "<u8").reshape(count, 2)
    expected = min(count, records - number * count)
    if (index[:expected].astype(float).sum(1) > size).any():
        raise ValueError(f"{where} is cut short or lacks one of its {expected} records; it is not filled")
