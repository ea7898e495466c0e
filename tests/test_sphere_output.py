"""Fields of a sphere on disk and on paper: CF files with latitudes, read back in any order; maps and profiles."""

import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from test_plot import texts

import hybridgcm as hg
from hybridgcm import maps, plot, qg3, reanalysis
from hybridgcm._typing import VARIABLES, Variable
from hybridgcm.cf import attributes
from hybridgcm.data import open_store, read_store, save_netcdf, to_dataset
from hybridgcm.inputs import read_fields

pytest.importorskip("matplotlib")
GRID = hg.Sphere(21)
FRAMES, DAY = 4, 86400.0
LEVELS = ("200 hPa", "500 hPa", "800 hPa")


def save(model, state):
    """Fields, and the spectrum of kinetic energy of every level."""
    found = model.view(state)
    psi_hat = GRID.to_spectral(found["psi"])
    spectrum = GRID.spectrum(-0.5 * GRID.eigenvalues * GRID.cospectrum(psi_hat, psi_hat))
    return {name: found[name] for name in ("q", "u", "v", "psi")} | {"ke_spectrum": spectrum}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """(the store of a run of four days, what it should hold)."""
    inputs = qg3.winter(GRID)
    flow = hg.QuasiGeostrophic.qg3(GRID, orography=inputs.orography, land=inputs.land)
    model = hg.Model(flow, hg.AB3(), dt=3600.0, forcing=inputs.forcing)
    path = tmp_path_factory.mktemp("sphere") / "run.zarr"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(VARIABLES, "ke_spectrum", Variable("m2 s-2", "kinetic energy per total degree"))
        store, frames = open_store(path, GRID, DAY * np.arange(1, FRAMES + 1), attrs={"title": "QG3"}), []
        for _, out in hg.stream(model, model.encode({"q": inputs.start}), 24 * FRAMES, every=24, chunk=2, save=save):
            store.append(out)
            frames.append(out["save"])
    return path, jax.tree.map(lambda *a: np.concatenate(a), *frames)


def check_cf(data, stored):
    """What every reader may count on."""
    assert data.psi.dims == ("time", "layer", "latitude", "longitude") and data.psi.shape == (FRAMES, 3, *GRID.shape)
    for name, unit, letter in (("latitude", "degrees_north", "Y"), ("longitude", "degrees_east", "X")):
        about = data[name].attrs
        assert (about["standard_name"], about["units"], about["axis"]) == (name, unit, letter), about
        np.testing.assert_array_equal(data[name], getattr(GRID, name))
    assert "x" not in data.variables and "y" not in data.variables
    assert data.u.standard_name == "eastward_wind" and data.v.standard_name == "northward_wind"
    assert data.u.units == "m s-1" and data.psi.units == "m2 s-1" and data.attrs["Conventions"].startswith("CF")
    for name in set(stored) & set(data.data_vars):
        np.testing.assert_array_equal(data[name], stored[name])


def test_a_store_of_a_run_opens_in_plain_xarray(run):
    path, stored = run
    data = xr.open_zarr(path, consolidated=False)
    check_cf(data, stored)
    assert data.ke_spectrum.dims == ("time", "layer", "wavenumber") and data.wavenumber.units == "m-1"
    np.testing.assert_allclose(data.wavenumber, GRID.wavenumber)
    assert "total degree" in data.wavenumber.long_name
    assert float(data.psi.sel(latitude=45, longitude=90, method="nearest")[-1, 0]) == stored["psi"][-1, 0, 24, 16]


def test_netcdf_and_back(run, tmp_path):
    path, stored = run
    fields = {name: a for name, a in stored.items() if name != "ke_spectrum"}
    data = to_dataset(fields, GRID, DAY * np.arange(1, FRAMES + 1))
    save_netcdf(data, tmp_path / "run.nc")
    save_netcdf(read_store(path), tmp_path / "copy.nc")
    for name in ("run.nc", "copy.nc"):
        with xr.open_dataset(tmp_path / name, decode_times=False) as back:
            check_cf(back.load(), fields)
            np.testing.assert_array_equal(back.time, DAY * np.arange(1, FRAMES + 1))
    with xr.open_dataset(tmp_path / "run.nc", decode_times=False) as back:
        xr.testing.assert_identical(back.load(), data)


@pytest.mark.parametrize("kind", ["nc", "zarr"])
def test_what_was_written_is_read_to_the_bit(run, tmp_path, kind):
    path, stored = run
    if kind == "nc":
        save_netcdf(read_store(path), tmp_path / "run.nc")
        path = tmp_path / "run.nc"
    found = read_fields(path, GRID, ["q", "u"])
    np.testing.assert_array_equal(found.fields["q"], stored["q"])
    np.testing.assert_array_equal(found.fields["u"], stored["u"])
    assert found.notes == () and found.time.tolist() == (DAY * np.arange(1, FRAMES + 1)).tolist()


def test_winds_on_pressure_levels_are_those_of_a_reanalysis(run):
    _, stored = run
    dimensions = dict.fromkeys("uv", ("pressure", "latitude", "longitude"))
    winds = {name: stored[name] for name in "uv"}
    data = to_dataset(winds, GRID, DAY * np.arange(FRAMES), dimensions=dimensions, coordinates={"pressure": qg3.LEVELS})
    assert data.pressure.attrs["units"] == "hPa" and data.pressure.attrs["positive"] == "down"
    psi_hat, notes = reanalysis.streamfunction(data, GRID)
    expected = np.asarray(GRID.to_spectral(jnp.asarray(stored["psi"])))
    assert notes == () and np.abs(psi_hat - expected).max() < 1e-4 * np.abs(expected).max()


def test_a_torus_keeps_its_names_and_its_water():
    data = to_dataset({"u": np.zeros((2, 8, 8))}, hg.Torus(8, 1e6))
    assert data.u.dims == ("layer", "y", "x") and data.u.standard_name == "sea_water_x_velocity"


def test_standard_names_that_a_user_gave_stay(monkeypatch):
    assert attributes("zeta_mean", GRID)["standard_name"] == "atmosphere_relative_vorticity"
    monkeypatch.setitem(VARIABLES, "u", Variable("m s-1", "current", "eastward_sea_water_velocity"))
    assert attributes("u", GRID)["standard_name"] == "eastward_sea_water_velocity"


# Files of others


def file(psi, **names):
    """ψ `[time, layer, latitude, longitude]` as others write it: latitude as lat, longitude as lon."""
    data = to_dataset({"psi": psi}, GRID, DAY * np.arange(len(psi))).rename(latitude="lat", longitude="lon")
    for name, unit in {"lat": "degrees_north", "lon": "degrees_east"}.items():
        data[name].attrs = {"units": unit}
    return data


def places(data, **values):
    return data.assign_coords({name: (name, a, {"units": data[name].attrs["units"]}) for name, a in values.items()})


def with_units(data, name, units):
    data = data.copy()
    data[name].attrs = {"units": units} if units else {}
    return data


def at_levels(data):
    return data.rename(layer="level").assign_coords(level=("level", [200.0, 500.0, 800.0], {"units": "hPa"}))


LAYOUTS = {
    "as it is": (lambda d: d, 0),
    "from the north": (lambda d: d.isel(lat=slice(None, None, -1)), 1),
    "from -180": (lambda d: places(d, lon=(d.lon.values + 180) % 360 - 180).sortby("lon"), 1),
    "both": (lambda d: places(d, lon=(d.lon.values + 180) % 360 - 180).sortby(["lon", "lat"], ascending=False), 2),
    "two digits": (lambda d: places(d, lat=np.round(d.lat.values, 2), lon=np.round(d.lon.values, 2)), 0),
    "degreesN": (lambda d: with_units(d, "lat", "degreesN"), 0),
    "degrees": (lambda d: with_units(d, "lon", "degrees"), 0),
    "turned": (lambda d: d.transpose("lon", "time", "lat", "layer"), 0),
    "from the ground": (lambda d: at_levels(d).isel(level=slice(None, None, -1)), 1),
    "levels from the top": (lambda d: at_levels(d), 0),
}


@pytest.mark.parametrize("layout", list(LAYOUTS))
def test_other_orders_and_origins_are_put_in_place(run, tmp_path, layout):
    psi = run[1]["psi"]
    change, notes = LAYOUTS[layout]
    change(file(psi)).to_netcdf(tmp_path / "file.nc")
    found = read_fields(tmp_path / "file.nc", GRID, ["psi"])
    np.testing.assert_array_equal(found.fields["psi"], psi)
    assert len(found.notes) == notes, found.notes


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda d: places(d, lat=np.linspace(-90, 90, 32)), r"along latitude begin at \[-90.* interpolate it"),
        (lambda d: places(d, lat=90 - d.lat.values), "interpolate it to the grid first"),
        (lambda d: places(d, lon=d.lon.values + 2.8), "along longitude begin at .* interpolate it to the grid"),
        (lambda d: places(d, lat=np.radians(d.lat.values)), "interpolate it to the grid first"),
        (lambda d: with_units(d, "lat", None), "latitude of psi has no units; expected degrees_north"),
        (lambda d: with_units(d, "lat", "m"), "is in m, the grid in degrees_north; set its units"),
        (lambda d: with_units(d, "lat", "degrees_east"), "is in degrees_east, the grid in degrees_north"),
        (lambda d: with_units(d, "lon", "radians"), "is in radians, the grid in degrees_east"),
        (lambda d: d.drop_vars("lat"), "lat of psi has no coordinate; expected one in degrees_north"),
        (lambda d: d.isel(lat=slice(31)), r"the grid \(32, 64\) \[latitude, longitude\]; interpolate or coarsen"),
    ],
)
def test_other_points_are_refused(run, tmp_path, spoil, words):
    spoil(file(run[1]["psi"][:1])).to_netcdf(tmp_path / "file.nc")
    with pytest.raises(ValueError, match=words):
        read_fields(tmp_path / "file.nc", GRID, ["psi"])


def test_a_file_of_the_sphere_is_none_of_a_torus(run, tmp_path):
    file(run[1]["psi"][:1]).to_netcdf(tmp_path / "file.nc")
    with pytest.raises(ValueError, match="the grid in m: it is no sphere"):
        read_fields(tmp_path / "file.nc", hg.Torus((32, 64), (1e6, 2e6), dealias=None), ["psi"])


def test_a_field_of_another_shape_names_the_dimensions():
    with pytest.raises(ValueError, match=r"expected \[layer, latitude, longitude\] of the grid \(32, 64\)"):
        to_dataset({"psi": np.zeros((3, 31, 64))}, GRID)


# Figures


def images(figure):
    """The shaded fields of a figure without its colour bar, panel by panel."""
    return [
        mesh for ax in figure.axes for mesh in ax.collections if np.ndim(mesh.get_array()) == 2 and ax.get_title("left")
    ]


def test_maps_share_a_scale_and_show_the_points_where_they_are(run):
    psi = run[1]["psi"][-1]
    figure = maps.maps(dict(zip(LEVELS, psi)) | {"bad": psi[0] * np.nan, "gone": "blew up"}, GRID, columns=2)
    found = images(figure)
    assert len(found) == 3 and len({mesh.get_clim() for mesh in found}) == 1
    words = texts(figure)
    assert {*LEVELS, "not finite", "blew up", "60°S", "0°", "120°W", "psi (10⁸ m² s⁻¹)"} <= set(words), words
    for centre in (0, 150, 180, -3.3):
        (mesh,) = images(maps.maps({"a": psi[0]}, GRID, centre=centre, limit=1.0))
        left, right = mesh.axes.get_xlim()
        assert (left, right) == (centre - 180, centre + 180) and mesh.axes.get_ylim() == (-90, 90)
        east, north = np.moveaxis(mesh.get_coordinates(), -1, 0)
        assert east.min() <= left and east.max() >= right and (np.diff(east[0]) > 5.6).all()
        rows, columns = np.searchsorted(GRID.latitude, north[1:-1, 0]), np.rint(east[0] / 5.625).astype(int) % 64
        np.testing.assert_array_equal(mesh.get_array()[1:-1], psi[0][rows][:, columns])
        np.testing.assert_allclose(mesh.get_array()[-1], psi[0][-1].mean(), rtol=1e-5)


def test_maps_of_several_resolutions():
    grids = {"T21": GRID, "T10": hg.Sphere(10)}
    figure = maps.maps({title: np.ones(grid.shape) for title, grid in grids.items()}, grids, "u")
    assert [mesh.get_array().shape for mesh in images(figure)] == [(34, 66), (18, 34)]
    data = to_dataset({"u": np.ones(GRID.shape)}, GRID)
    assert len(images(maps.maps({"file": data.u}, data, "u"))) == 1
    with pytest.raises(ValueError, match=r"T10 has shape \(16, 32\), expected \(32, 64\) .*pass grid="):
        maps.maps({"T10": np.ones((16, 32))}, GRID)
    with pytest.raises(ValueError, match=r"a of b has shape \(3, 32, 64\), expected \(32, 64\)"):
        maps.zonal_means({"a": {"b": np.ones((3, 32, 64))}}, GRID)


def cartopy(monkeypatch, path):
    """A cartopy with one coastline from 170 to 190 degrees east, whose data are at `path`."""
    line = types.SimpleNamespace(coords=[(170.0, 0.0), (190.0, 10.0)])
    reader = types.ModuleType("cartopy.io.shapereader")
    reader.natural_earth = path
    reader.Reader = lambda name: types.SimpleNamespace(geometries=lambda: [types.SimpleNamespace(geoms=[line]), line])
    package, io = types.ModuleType("cartopy"), types.ModuleType("cartopy.io")
    package.io, io.shapereader = io, reader
    for name, module in {"cartopy": package, "cartopy.io": io, "cartopy.io.shapereader": reader}.items():
        monkeypatch.setitem(sys.modules, name, module)


@pytest.fixture
def coast():
    maps._coastlines.cache_clear()
    yield
    maps._coastlines.cache_clear()


def lines(figure):
    return [np.asarray(s) for c in figure.axes[0].collections if c.get_array() is None for s in c.get_segments()]


def test_coastlines_are_drawn_on_both_edges_where_cartopy_is(monkeypatch, coast):
    cartopy(monkeypatch, lambda *names: "there")
    drawn = lines(maps.maps({"a": np.ones(GRID.shape)}, GRID))
    assert {-190.0, 170.0} <= {line[0, 0] for line in drawn} and len(drawn) == 6
    assert not lines(maps.maps({"a": np.ones(GRID.shape)}, GRID, coastlines=False))


@pytest.mark.parametrize("state", ["absent", "offline"])
def test_without_cartopy_or_its_data_there_are_no_coastlines(monkeypatch, coast, state):
    def offline(*names):
        raise OSError("no network")

    cartopy(monkeypatch, offline)
    if state == "absent":
        monkeypatch.setitem(sys.modules, "cartopy.io", None)
    figure = maps.maps({"a": np.ones(GRID.shape)}, GRID)
    assert len(images(figure)) == 1 and not lines(figure)


@pytest.mark.parametrize(("edge", "centre"), [(20, 0), (0, -90), (-30, 150)])
def test_a_hemisphere_is_stereographic_from_its_pole_to_its_rim(run, edge, centre):
    """A point is tan((90° − |φ|)/2) from the pole; seen from above, east is counter-clockwise in the north."""
    psi, side = run[1]["psi"][-1, 0], -1 if edge < 0 else 1
    (mesh,) = images(maps.hemispheres({"a": psi}, GRID, edge=edge, centre=centre, limit=1.0))
    x, y = np.moveaxis(mesh.get_coordinates(), -1, 0)
    north = side * (90 - 2 * np.degrees(np.arctan(np.hypot(x, y))))
    east = np.mod(np.degrees(np.arctan2(x, -side * y)) + centre, 360)
    rows = [row for row in range(len(x)) if abs(north[row, 0]) < 89.9]  # but for that of the pole itself
    drawn = np.rint(np.interp(north[rows, 0], GRID.latitude, np.arange(32))).astype(int)
    np.testing.assert_allclose(north[rows], GRID.latitude[drawn][:, None] + 0 * x[rows], atol=1e-9)
    columns = np.rint(east[rows[0]] / 5.625).astype(int) % 64
    np.testing.assert_allclose(np.cos(np.radians(east[rows] - GRID.longitude[columns])), 1, atol=1e-9)
    np.testing.assert_array_equal(np.asarray(mesh.get_array())[rows], psi[drawn][:, columns])
    assert set(np.flatnonzero(side * GRID.latitude >= abs(edge))) < set(drawn), "it is filled up to the rim"
    rim = np.tan(np.radians(90 - abs(edge)) / 2)
    assert mesh.get_clip_path() is not None and rim in [pytest.approx(patch.radius) for patch in mesh.axes.patches]
    (zero,) = (text.get_position() for text in mesh.axes.texts if text.get_text() == "0°")
    turn = np.radians(-centre)
    np.testing.assert_allclose(zero, 1.1 * rim * np.array([np.sin(turn), -side * np.cos(turn)]), atol=1e-12)


def test_hemispheres_share_a_scale_and_say_what_is_wrong(run):
    psi = run[1]["psi"][-1]
    figure = maps.hemispheres(dict(zip(LEVELS, psi)) | {"gone": "blew up"}, GRID, columns=2)
    found = images(figure)
    assert len(found) == 3 and len({mesh.get_clim() for mesh in found}) == 1
    assert {*LEVELS, "blew up", "60°E", "psi (10⁸ m² s⁻¹)"} <= set(texts(figure))
    with pytest.raises(ValueError, match="edge is a latitude within 80 degrees of the equator; got 85"):
        maps.hemispheres({"a": psi[0]}, GRID, edge=85)
    with pytest.raises(ValueError, match=r"a has shape \(3, 4\)"):
        maps.hemispheres({"a": np.ones((3, 4))}, GRID)


def test_coastlines_of_a_hemisphere_stay_in_it(monkeypatch):
    """From 10S to 80N along 60E: what lies south of the rim, whose pole would be at infinity, is left out."""
    monkeypatch.setattr(maps, "_coastlines", lambda: (np.stack([np.full(10, 60.0), np.arange(-10, 90, 10.0)], 1),))
    (line,) = lines(maps.hemispheres({"a": np.ones(GRID.shape)}, GRID, edge=20))
    shown = line[np.isfinite(line[:, 0])]
    np.testing.assert_allclose(np.degrees(np.arctan2(shown[:, 0], -shown[:, 1])), 60)
    np.testing.assert_allclose(np.hypot(*shown.T), np.tan(np.radians(90 - np.arange(20, 90, 10)) / 2))
    assert not lines(maps.hemispheres({"a": np.ones(GRID.shape)}, GRID, coastlines=False))
    monkeypatch.setattr(maps, "_coastlines", lambda: ())  # as without cartopy
    assert not lines(maps.hemispheres({"a": np.ones(GRID.shape)}, GRID))


def test_zonal_means_show_the_means_and_the_difference(run):
    u, coarse = run[1]["u"], hg.Sphere(10)
    cos = 30 * np.cos(np.radians(coarse.latitude))
    panels = {t: {"Truth": u[-1, i], "first day": u[0, i], "cosine": cos} for i, t in enumerate(LEVELS[:2])}
    figure = maps.zonal_means(panels, {"Truth": GRID, "first day": GRID, "cosine": coarse}, reference="Truth")
    assert len(figure.axes) == 4 and len(figure.legends[0].get_texts()) == 3
    top, below = figure.axes[1], figure.axes[3]
    drawn, apart = ({line.get_label(): line.get_xydata() for line in ax.lines} for ax in (top, below))
    np.testing.assert_allclose(drawn["Truth"], np.stack([GRID.latitude, u[-1, 1].mean(-1)], 1), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(drawn["cosine"], np.stack([coarse.latitude, cos], 1))
    np.testing.assert_allclose(apart["first day"][:, 1], (u[0, 1] - u[-1, 1]).mean(-1), atol=1e-4)
    assert not apart["Truth"][:, 1].any()
    words = texts(figure)
    assert {"u (m s⁻¹)", "model − truth", "30°N", *LEVELS[:2]} <= set(words), words
    plain = maps.zonal_means({t: {"a": u[-1, i]} for i, t in enumerate(LEVELS)}, GRID, columns=2)
    assert len([ax for ax in plain.axes if ax.get_title("left")]) == 3 and not plain.legends


def test_spectra_by_total_degree(run):
    spectrum = run[1]["ke_spectrum"][-1, 0]
    figure = plot.spectra(GRID.wavenumber, {"KE": {"a": spectrum}}, radius=GRID.radius, reference="a")
    (line,) = figure.axes[0].lines
    np.testing.assert_allclose(line.get_xdata(), np.arange(1, 22), rtol=1e-12)
    np.testing.assert_array_equal(line.get_ydata(), spectrum[1:])
    assert {"total degree", "20000 km", "5000"} <= set(texts(figure))


def test_every_frame_of_a_movie_shows_its_own_day(run, tmp_path):
    psi = run[1]["psi"][:, 0]
    movie = maps.animation({"a": psi, "b": 2 * psi}, GRID, time=np.arange(FRAMES), centre=180)
    movie.save(tmp_path / "x.gif", writer="pillow", dpi=40)
    from PIL import Image

    with Image.open(tmp_path / "x.gif") as gif:
        assert gif.n_frames == FRAMES
    last = images(movie._fig)[1].get_array()
    np.testing.assert_allclose(last[1:-1, 1:-1] * 1e8, 2 * psi[-1], rtol=1e-6)
