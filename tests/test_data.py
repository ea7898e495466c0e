"""Fields on disk are CF, readable while they grow, and whole or refused."""

import errno
import hashlib
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
import zarr

import hybridgcm as hg
from hybridgcm._typing import VARIABLES, Variable
from hybridgcm.data import open_store, read_store, save_netcdf, to_dataset

GRID = hg.Torus((24, 32), (6e5, 8e5))
TIME = 3600.0 * np.arange(1, 25)
rng = np.random.default_rng(0)
FIELDS = {"q": rng.normal(size=(24, 2, 24, 32)).astype("f4"), "v": rng.normal(size=(24, 2, 24, 32)).astype("f4")}
SERIES = {"energy": rng.normal(size=24).astype("f4")}


def frames(first, last):
    cut = lambda fields: {name: a[first:last] for name, a in fields.items()}
    return {"save": cut(FIELDS), "mean": cut(SERIES), "step": np.arange(first + 1, last + 1), "time": TIME[first:last]}


def fill(path, counts, **kwargs):
    store, first = open_store(path, GRID, TIME, **kwargs), 0
    for count in counts:
        store.append(frames(first, first + count))
        first += count
    return store


def hashes(folder):
    files = (file for file in folder.rglob("*") if file.is_file())
    return {str(f.relative_to(folder)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


def test_a_store_is_cf_and_holds_the_values_bitwise(tmp_path):
    fill(tmp_path / "s.zarr", [8, 8, 8], attrs={"title": "test", "provenance": "config abc"})
    data = xr.open_zarr(tmp_path / "s.zarr", consolidated=False)
    assert data.q.dims == ("time", "layer", "y", "x") and data.energy_mean.dims == ("time",)
    for name, a in FIELDS.items():
        np.testing.assert_array_equal(data[name].values, a)
        assert data[name].attrs["units"] == VARIABLES[name].units and data[name].attrs["long_name"]
    np.testing.assert_array_equal(data.energy_mean.values, SERIES["energy"])
    assert data.energy_mean.attrs["cell_methods"] == "time: mean"
    assert data.v.attrs["standard_name"] == "sea_water_y_velocity"
    assert data.attrs == {"Conventions": "CF-1.11", "title": "test", "provenance": "config abc", "records_complete": 24}
    assert data.x.attrs["units"] == data.y.attrs["units"] == "m" and data.layer.values.tolist() == [1, 2]
    np.testing.assert_array_equal(data.x, GRID.x)
    assert str(data.time.values[-1]) == "0001-01-02 00:00:00" and data.time.dt.calendar == "360_day"
    raw = xr.open_zarr(tmp_path / "s.zarr", consolidated=False, decode_times=False)
    assert raw.time.attrs["units"] == "seconds since 0001-01-01"


def test_layout_is_one_record_per_inner_chunk_and_one_file_per_append(tmp_path):
    fill(tmp_path / "s.zarr", [8, 8])
    group = zarr.open_group(tmp_path / "s.zarr", mode="r")
    big = np.zeros((3, 2, 64, 64), "f4")
    store = open_store(tmp_path / "b.zarr", hg.Torus(64, 1e6), TIME[:3])
    store.append({"save": {"q": big}, "time": TIME[:3]})
    q = zarr.open_group(tmp_path / "b.zarr", mode="r")["q"]
    assert q.chunks == (1, 2, 64, 64) and q.shards == (3, 2, 64, 64) and np.isnan(q.fill_value)
    assert len([f for f in (tmp_path / "b.zarr" / "q" / "c").rglob("*") if f.is_file()]) == 1
    assert group["energy_mean"].chunks == (1024,), "a series must not make a file per append"


def test_it_reads_at_any_moment_and_only_complete_records(tmp_path):
    store = open_store(tmp_path / "s.zarr", GRID, TIME)
    for first in range(0, 24, 4):
        store.append(frames(first, first + 4))
        live = xr.open_zarr(tmp_path / "s.zarr", consolidated=False)
        done = live.attrs["records_complete"]
        assert done == store.records == first + 4 and live.sizes["time"] == 24
        assert not np.isnan(live.q[:done]).any() and np.isnan(live.q[done:]).all()
        read = read_store(tmp_path / "s.zarr")
        assert read.sizes["time"] == done
        np.testing.assert_array_equal(read.q, FIELDS["q"][:done])
        np.testing.assert_array_equal(read.time, TIME[:done])


@pytest.mark.parametrize("keep", [0, 8, 12, 13, 16])
def test_truncated_and_refilled_it_is_bitwise_that_of_one_go(tmp_path, keep):
    fill(tmp_path / "one.zarr", [4] * 6)
    fill(tmp_path / "two.zarr", [4] * 5)
    (tmp_path / "two.zarr" / "q" / "c" / "9.0abc.partial").write_bytes(b"half")
    store = open_store(tmp_path / "two.zarr", GRID, TIME, keep=keep)
    if keep:
        live = xr.open_zarr(tmp_path / "two.zarr", consolidated=False)
        assert live.attrs["records_complete"] == keep and np.isnan(live.q[keep:]).all(), "records beyond `keep` remain"
    while store.records < 24:
        store.append(frames(store.records, min(store.records + 4 - store.records % 4, 24)))
    assert hashes(tmp_path / "one.zarr") == hashes(tmp_path / "two.zarr")


def test_a_longer_axis_continues_an_old_store(tmp_path):
    store = open_store(tmp_path / "s.zarr", GRID, TIME[:8])
    store.append(frames(0, 8))
    open_store(tmp_path / "s.zarr", GRID, TIME, keep=8).append(frames(8, 24))
    np.testing.assert_array_equal(read_store(tmp_path / "s.zarr").q, FIELDS["q"])


def test_other_dimensions_by_name(tmp_path):
    VARIABLES["spectral_density"] = Variable("m3 s-2", "isotropic kinetic energy spectrum")
    VARIABLES["histogram"] = Variable("1", "counts")
    try:
        spectrum, histogram = np.ones((2, 2, 12)), np.ones((2, 5), int)
        store = open_store(
            tmp_path / "s.zarr",
            GRID,
            TIME,
            dimensions={"histogram": ("bin",)},
            coordinates={"bin": np.linspace(0, 1, 5)},
        )
        store.append({"save": {"spectral_density": spectrum, "histogram": histogram}, "time": TIME[:2]})
        data = read_store(tmp_path / "s.zarr")
        assert data.spectral_density.dims == ("time", "layer", "wavenumber") and data.histogram.dims == ("time", "bin")
        np.testing.assert_allclose(data.wavenumber, GRID.wavenumber)
        assert data.histogram.sum() == 10 and data.bin[-1] == 1
    finally:
        del VARIABLES["spectral_density"], VARIABLES["histogram"]


@pytest.mark.parametrize("name", ["q", "v", "energy_mean", "x", "time"])
def test_a_missing_chunk_is_an_error_that_names_it(tmp_path, name):
    fill(tmp_path / "s.zarr", [8, 8, 8])
    files = sorted(f for f in (tmp_path / "s.zarr" / name / "c").rglob("*") if f.is_file())
    files[-1].unlink()
    with pytest.raises(ValueError, match=rf"{name} is damaged: chunk \d .*missing"):
        read_store(tmp_path / "s.zarr")


@pytest.mark.parametrize("part", [0.0, 0.3, 0.99])
def test_a_chunk_cut_short_is_an_error_that_names_it(tmp_path, part):
    grid = hg.Torus(64, 1e6)
    store = open_store(tmp_path / "s.zarr", grid, TIME[:4])
    store.append({"save": {"q": rng.normal(size=(4, 2, 64, 64))}, "time": TIME[:4]})
    (file,) = (f for f in (tmp_path / "s.zarr" / "q" / "c").rglob("*") if f.is_file())
    whole = file.read_bytes()
    file.write_bytes(whole[: int(part * len(whole))])
    with pytest.raises(ValueError, match="q is damaged: chunk 0"):
        read_store(tmp_path / "s.zarr")
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 4
    file.write_bytes(flipped)
    with pytest.raises(ValueError, match="checksum"):
        read_store(tmp_path / "s.zarr").load()


FULL = """
import resource, sys
import numpy as np, hybridgcm as hg
from hybridgcm.data import open_store
grid, time = hg.Torus(64, 1e6), np.arange(1.0, 9.0)
noise = np.random.default_rng(0).normal(size=(8, 2, 64, 64))
store = open_store(sys.argv[1], grid, time)
store.append({"save": {"q": noise[:2]}, "time": time[:2]})
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
try:
    store.append({"save": {"q": noise[2:8]}, "time": time[2:8]})
except OSError as error:
    print(error)
"""


def test_disk_full_names_the_path_and_earlier_records_stay(tmp_path):
    done = subprocess.run([sys.executable, "-c", FULL, tmp_path / "s.zarr"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "s.zarr/records 2 to 7" in done.stdout and "records before 2 are complete" in done.stdout, done.stdout
    data = read_store(tmp_path / "s.zarr").load()
    assert data.sizes["time"] == 2
    np.testing.assert_array_equal(data.q, np.random.default_rng(0).normal(size=(8, 2, 64, 64))[:2])
    assert not list(tmp_path.rglob("*.partial")), "half-written files remain"


def test_an_append_that_failed_can_be_repeated(tmp_path, monkeypatch):
    store = fill(tmp_path / "s.zarr", [8])

    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("hybridgcm.data.sync", full)
        with pytest.raises(OSError, match="No space left on device"):
            store.append(frames(8, 16))
    assert read_store(tmp_path / "s.zarr").sizes["time"] == 8
    store.append(frames(8, 16))
    store.append(frames(16, 24))
    np.testing.assert_array_equal(read_store(tmp_path / "s.zarr").q, FIELDS["q"])


def test_bad_appends_teach_and_change_nothing(tmp_path):
    store = fill(tmp_path / "s.zarr", [8])
    before = hashes(tmp_path / "s.zarr")
    bad = frames(8, 16)
    bad["save"] = {name: a.copy() for name, a in bad["save"].items()}
    bad["save"]["v"][3, 1, 2, 5] = np.nan
    for wrong, message in [
        (bad, r"v has 1 values that are not finite, the first at \(3, 1, 2, 5\)"),
        (frames(12, 16), r"the next 4 of 24 records .* from 8, are at times"),
        (frames(0, 8), "are at times"),
        (frames(8, 16) | {"save": {"q": FIELDS["q"][8:16]}}, r"holds \['energy_mean', 'q', 'v'\]; got"),
        (frames(8, 16) | {"save": FIELDS["q"]}, "save gave an array without a name"),
        ({"time": TIME[8:16]}, "nothing to store"),
        (frames(8, 16) | {"save": {"q": FIELDS["q"][8:12]}}, "q has 4 records, expected 8"),
    ]:
        with pytest.raises(ValueError, match=message):
            store.append(wrong)
    assert hashes(tmp_path / "s.zarr") == before
    new = lambda: open_store(tmp_path / "n.zarr", GRID, TIME)
    with pytest.raises(ValueError, match="'energi' has no units; did you mean 'energy'"):
        new().append({"save": {"energi": np.zeros(3)}, "time": TIME[:3]})
    with pytest.raises(ValueError, match=r"q has records of shape \(2, 8, 8\), expected \[layer, y, x\] of the grid"):
        new().append({"save": {"q": np.zeros((3, 2, 8, 8))}, "time": TIME[:3]})
    with pytest.raises(FileExistsError, match="keep=N"):
        open_store(tmp_path / "s.zarr", GRID, TIME)
    with pytest.raises(ValueError, match="has 8 complete records, expected at least 16"):
        open_store(tmp_path / "s.zarr", GRID, TIME, keep=16)
    with pytest.raises(ValueError, match="increasing axis"):
        open_store(tmp_path / "o.zarr", GRID, TIME[::-1])
    assert not (tmp_path / "n.zarr").exists() and hashes(tmp_path / "s.zarr") == before


def test_a_data_set_goes_to_netcdf_and_back(tmp_path):
    data = to_dataset(FIELDS, GRID, TIME, attrs={"title": "test"})
    save_netcdf(data, tmp_path / "a" / "f.nc")
    with xr.open_dataset(tmp_path / "a" / "f.nc", decode_times=False) as back:
        xr.testing.assert_identical(back.load(), data)
    with xr.open_dataset(tmp_path / "a" / "f.nc") as back:
        assert back.time.dt.calendar == "360_day"
    assert [f.name for f in (tmp_path / "a").iterdir()] == ["f.nc"]
    snapshot = to_dataset({"q": jnp.asarray(FIELDS["q"][0])}, GRID)
    assert snapshot.q.dims == ("layer", "y", "x") and "time" not in snapshot
    with pytest.raises(ValueError, match="has no units"):
        to_dataset({"nonsense": FIELDS["q"][0]}, GRID)
