"""Files of others: right ones are read exactly, whatever their layout; anything doubtful is refused by name."""

import json
import time

import jax.random as jr
import numpy as np
import pytest
import xarray as xr
import zarr

import hybridgcm as hg
from hybridgcm.batches import windows
from hybridgcm.inputs import read_fields
from hybridgcm.units import conversion, parse

GRID = hg.Torus(16, 1e6)
RNG = np.random.default_rng(0)
Q = (1e-6 * RNG.standard_normal((5, 2, 16, 16))).astype(np.float32)


def dataset(q=Q, stamps=None, units="s-1", **encoding):
    """A CF data set as another model might write it."""
    stamps = 86400.0 * np.arange(len(q)) if stamps is None else stamps
    about = {"units": "seconds since 2000-01-01", "calendar": "360_day"}
    coordinates = {
        "time": ("time", stamps, about),
        "y": ("y", np.asarray(GRID.y, float), {"units": "m"}),
        "x": ("x", np.asarray(GRID.x, float), {"units": "m"}),
    }
    variable = xr.Variable(("time", "layer", "y", "x"), q, {"units": units} if units else {}, encoding)
    return xr.Dataset({"q": variable}, coordinates)


def write(data, path, kind="nc"):
    path = path / f"file.{kind}"
    if kind == "nc":
        data.to_netcdf(path)
    else:
        data.to_zarr(path, consolidated=False, zarr_format=3)
    return path


@pytest.mark.parametrize("kind", ["nc", "zarr"])
def test_a_right_file_is_read_to_the_bit_and_fits_encode_and_windows(tmp_path, kind):
    found = read_fields(write(dataset(), tmp_path, kind), GRID, ["q"])
    np.testing.assert_array_equal(found.fields["q"], Q)
    assert found.fields["q"].dtype == np.float32 and found.notes == ()
    np.testing.assert_array_equal(found.time, 86400.0 * np.arange(5))
    model = hg.Model(hg.QuasiGeostrophic.two_layer(GRID), hg.AB3(), dt=3600.0)
    assert model.encode({"q": found.fields["q"][0]}).y["q"].shape == (2, *GRID.spectral_shape)
    assert windows(found.fields, 2, 1, 3, jr.key(0))[0]["q"].shape == (1, 2, 2, 16, 16)


def turned(data):
    return data.transpose("x", "time", "y", "layer")


def renamed(data):
    data = data.rename(time="t", layer="depth", y="northing", x="easting")
    data["northing"].attrs["axis"], data["easting"].attrs["axis"] = "Y", "X"
    return data


def kilometres(data):
    return data.assign_coords(x=("x", data.x.values / 1e3, {"units": "km"}))


ZOO = {
    "turned": turned,
    "names": renamed,
    "from north to south": lambda data: data.isel(y=slice(None, None, -1)),
    "from the middle": lambda data: data.roll(x=5, roll_coords=True),
    "centred": lambda data: data.assign_coords(x=("x", (data.x.values + 5e5) % 1e6 - 5e5, {"units": "m"})).sortby("x"),
    "km": kilometres,
    "length one": lambda data: data.expand_dims(member=1),
    "without coordinates": lambda data: data.drop_vars(["x", "y"]),
}


@pytest.mark.parametrize("layout", list(ZOO))
def test_other_layouts_are_put_in_place(tmp_path, layout):
    data = ZOO[layout](dataset())
    found = read_fields(write(data, tmp_path), GRID, ["q"])
    np.testing.assert_array_equal(found.fields["q"], Q)


def test_a_field_without_time_or_layer_and_under_another_name(tmp_path):
    data = dataset().isel(time=0, layer=0, drop=True).rename(q="PV")
    found = read_fields(write(data, tmp_path), GRID, {"q": "PV"})
    np.testing.assert_array_equal(found.fields["q"], Q[0, :1])
    assert found.time is None


@pytest.mark.parametrize(
    ("found", "wanted", "factor", "offset"),
    [
        ("day-1", "s-1", 1 / 86400, 0),
        ("1/day", "s-1", 1 / 86400, 0),
        ("km", "m", 1e3, 0),
        ("cm s^-1", "m s-1", 1e-2, 0),
        ("m/s", "m s-1", 1, 0),
        ("m**2 s**-1", "m2 s-1", 1, 0),
        ("hPa", "Pa", 100, 0),
        ("degC", "K", 1, 273.15),
        ("K", "degC", 1, -273.15),
        ("kg m-3", "g.cm-3", 1e-3, 0),
        ("percent", "1", 0.01, 0),
        ("mbar", "Pa", 100, 0),
    ],
)
def test_units_are_converted_by_what_they_mean(found, wanted, factor, offset):
    np.testing.assert_allclose(conversion(found, wanted), (factor, offset), rtol=1e-12)


@pytest.mark.parametrize("text", ["furlong", "m s-x", "10 m", "m s-1 since"])
def test_units_that_are_not_understood_are_refused(text):
    with pytest.raises(ValueError, match="unit '"):
        parse(text)


@pytest.mark.parametrize(
    ("stored", "units", "given", "words"),
    [
        (Q, None, {}, "q in .* has no units; expected 's-1'"),
        (Q, "m s-1", {}, "cannot be converted to 's-1'"),
        (Q * 86400, "s-1", {}, r"reaches .* plausible is up to 0.01; wrong units\?"),
        (Q, "furlong-1", {}, "'furlong' is not known"),
    ],
)
def test_wrong_and_missing_units_are_refused(tmp_path, stored, units, given, words):
    with pytest.raises(ValueError, match=words):
        read_fields(write(dataset(stored, units=units), tmp_path), GRID, ["q"], units=given)


def test_units_are_converted_and_the_conversion_is_told(tmp_path):
    path = write(dataset(Q.astype(np.float64) * 86400, units="day-1"), tmp_path)
    found = read_fields(path, GRID, ["q"])
    np.testing.assert_allclose(found.fields["q"], Q, rtol=1e-12)
    assert found.notes == ("q: converted from day-1 to s-1",)
    path = write(dataset(Q * 86400, units=None), tmp_path, "zarr")
    np.testing.assert_allclose(read_fields(path, GRID, ["q"], units={"q": "day-1"}).fields["q"], Q, rtol=1e-6)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("kind", ["nc", "zarr"])
def test_one_value_that_is_not_finite_is_refused_with_its_place(tmp_path, kind, value):
    bad = Q.copy()
    bad[3, 1, 2, 7] = value
    with pytest.raises(ValueError, match=r"q in .* has 1 values that are not finite, the first at \(3, 1, 2, 7\)"):
        read_fields(write(dataset(bad), tmp_path, kind), GRID, ["q"])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda d: d.rename(q="w"), r"has no 'q' for q; it has \["),
        (lambda d: d.rename(q="q_"), "did you mean 'q_'"),
        (lambda d: d.expand_dims(member=[1, 2]), r"cannot tell what \['member'\]"),
        (lambda d: d.isel(x=slice(15)), r"has shape \(5, 2, 16, 15\), the grid \(16, 16\)"),
        (lambda d: d.assign_coords(x=("x", d.x.values + 2e4, {"units": "m"})), "interpolate it to the grid first"),
        (lambda d: d.assign_coords(x=("x", d.x.values**1.1, {"units": "m"})), "interpolate it to the grid first"),
        (lambda d: d.assign_coords(x=("x", d.x.values / 1e3, {"units": "m"})), "interpolate it to the grid first"),
        (lambda d: d.assign_coords(x=("x", d.x.values)), "coordinate x of q has no units"),
        (lambda d: d.assign_coords(x=("x", np.arange(16) * 22.5, {"units": "degrees_east"})), "it is no sphere"),
        (lambda d: d.astype("S1"), "of dtype"),
    ],
)
def test_another_grid_or_other_content_is_refused(tmp_path, change, words):
    with pytest.raises(ValueError, match=words):
        read_fields(write(change(dataset()), tmp_path), GRID, ["q"])


@pytest.mark.parametrize(
    ("days", "words"),
    [
        ([0, 1, 2, 4, 5], "stamp 3, 345600 after 172800 .* does not follow"),
        ([0, 1, 1, 2, 3], "stamp 2, .* is repeated"),
        ([0, 2, 1, 3, 4], "stamp 1|stamp 2, .* goes back"),
        ([0, 1, 2, 3, np.nan], "1 values that are not finite"),
    ],
)
def test_gaps_repeats_and_disorder_name_the_first_bad_stamp(tmp_path, days, words):
    with pytest.raises(ValueError, match=words):
        read_fields(write(dataset(stamps=86400.0 * np.array(days)), tmp_path, "zarr"), GRID, ["q"])


def test_calendars_and_units_of_time(tmp_path):
    path = write(dataset(), tmp_path)
    assert read_fields(path, GRID, ["q"], calendar="360_day").time[1] == 86400.0
    with pytest.raises(ValueError, match="calendar '360_day', expected 'noleap'"):
        read_fields(path, GRID, ["q"], calendar="noleap")
    data = dataset(stamps=np.arange(5.0))
    data["time"].attrs["units"] = "days since 2000-01-01"
    np.testing.assert_array_equal(read_fields(write(data, tmp_path), GRID, ["q"]).time, 86400.0 * np.arange(5))
    data["time"].attrs["units"] = "months since 2000-01-01"
    with pytest.raises(ValueError, match="'months' is not known"):
        read_fields(write(data, tmp_path), GRID, ["q"])


@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f8", ">f8", "<f2"])
def test_precisions_and_byte_orders_are_decoded_exactly(tmp_path, dtype):
    stored = Q.astype(dtype)
    group = zarr.create_group(tmp_path / "file.zarr", zarr_format=2)
    data = dataset()
    for name in ("time", "y", "x"):
        values = np.asarray(data[name].values)
        array = group.create_array(name, shape=values.shape, dtype=values.dtype)
        array[:] = values
        array.attrs.update(data[name].attrs | {"_ARRAY_DIMENSIONS": [name]})
    array = group.create_array("q", shape=Q.shape, dtype=dtype, chunks=(1, *Q.shape[1:]), fill_value=np.nan)
    array[:] = stored
    array.attrs.update({"units": "s-1", "_ARRAY_DIMENSIONS": ["time", "layer", "y", "x"]})
    found = read_fields(tmp_path / "file.zarr", GRID, ["q"]).fields["q"]
    assert found.dtype == np.dtype("f8" if dtype[-1] == "8" else "f4") and found.dtype.isnative
    np.testing.assert_array_equal(found, stored.astype("f8"))


def test_packed_integers_are_unpacked_in_double_precision_and_their_missing_values_found(tmp_path):
    scale = 1e-9
    packed = {"dtype": "int16", "scale_factor": scale, "add_offset": 2e-6, "_FillValue": -32768}
    data = dataset(np.clip(Q.astype(float), -3e-6, 3e-6), **packed)
    found = read_fields(write(data, tmp_path), GRID, ["q"]).fields["q"]
    raw = xr.open_dataset(tmp_path / "file.nc", mask_and_scale=False, decode_times=False)["q"]
    assert raw.dtype == np.int16 and found.dtype == np.float64
    np.testing.assert_array_equal(found, raw.values * scale + 2e-6)
    assert np.abs(found - data.q.values).max() <= 0.51 * scale
    data.q.values[0, 0, 0, 0] = np.nan
    with pytest.raises(ValueError, match="1 values that are not finite"):
        read_fields(write(data, tmp_path), GRID, ["q"])
    data = dataset(np.full(Q.shape, 2**53 + 1, np.int64), units="s-1")
    with pytest.raises(ValueError, match="integers above"):
        read_fields(write(data, tmp_path), GRID, ["q"])


def test_a_zarr_chunk_that_is_not_there_or_cut_short_is_refused(tmp_path):
    path = write(dataset(), tmp_path, "zarr")
    chunks = sorted(file for file in (path / "q").rglob("*") if file.is_file() and file.name != "zarr.json")
    content = chunks[-1].read_bytes()
    chunks[-1].write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match="q in .* cannot be read, it is damaged"):
        read_fields(path, GRID, ["q"])
    chunks[-1].unlink()
    with pytest.raises(ValueError, match=rf"q in .* has {len(chunks) - 1} of {len(chunks)} chunks"):
        read_fields(path, GRID, ["q"])


def test_a_file_that_is_none_is_refused(tmp_path):
    with pytest.raises(ValueError, match="does not exist"):
        read_fields(tmp_path / "none.nc", GRID, ["q"])
    path = write(dataset(), tmp_path)
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(ValueError, match="is no netCDF file, or is damaged"):
        read_fields(path, GRID, ["q"])
    (tmp_path / "empty.zarr").mkdir()
    with pytest.raises(ValueError, match="is no Zarr group"):
        read_fields(tmp_path / "empty.zarr", GRID, ["q"])


def rewritten(path, **changes):
    header = json.loads(path.read_text())
    path.write_text(json.dumps(header | changes))


@pytest.mark.parametrize("part", ["q", "time", "netcdf"])
def test_a_header_of_a_million_million_points_is_refused_at_once(tmp_path, part):
    import resource

    import netCDF4

    if part == "netcdf":
        path = tmp_path / "file.nc"
        with netCDF4.Dataset(path, "w") as file:
            for name, size in (("time", 10**6), ("y", 1000), ("x", 1000)):
                file.createDimension(name, size)
            file.createVariable("q", "f4", ("time", "y", "x"), chunksizes=(1, 1000, 1000), zlib=True)
    else:
        path = write(dataset(), tmp_path, "zarr")
        shape = [10**12] if part == "time" else [10**12, 2, 16, 16]
        rewritten(path / part / "zarr.json", shape=shape)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.monotonic()
    with pytest.raises(ValueError, match="would take .* limit=4e"):
        read_fields(path, GRID, ["q"])
    seconds = time.monotonic() - start
    used = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert seconds < 1.0 and used < 100, f"it took {seconds:.2f} s and {used:.0f} MB"
