"""Marshall and Molteni's model as an atmosphere: forcing from winds, inputs from files and from none, its climate."""

from pathlib import Path

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import error
from test_sphere import RADIUS, sphere, white

import hybridgcm as hg
from hybridgcm import qg3, reanalysis

xr = pytest.importorskip("xarray")
DATA = Path(__file__).parents[2] / "shared" / "data"
SPEED = 25.0


def shared(name):
    if not (DATA / name).is_file():
        pytest.skip(f"needs the data file {name}")
    return DATA / name


def winds(latitude, longitude, levels=(200.0, 500.0, 800.0), times=2):
    """u, v of ψ = −a U (sin φ + ½ cos² φ sin 2λ), fainter downward, as CF data; ψ at 200 hPa beside it."""
    phi, lam = np.radians(latitude)[:, None], np.radians(longitude)[None, :]
    size = np.log(np.asarray(levels) / 1000)[:, None, None] / np.log(0.2) * np.ones((times, 1, 1, 1))
    u = SPEED * (np.cos(phi) - np.cos(phi) * np.sin(phi) * np.sin(2 * lam))
    v = -SPEED * np.cos(phi) * np.cos(2 * lam)
    coords = {
        "time": np.arange(times).astype("datetime64[D]").astype("datetime64[ns]"),
        "level": ("level", np.asarray(levels), {"units": "hPa"}),
        "latitude": ("latitude", np.asarray(latitude, float), {"units": "degrees_north"}),
        "longitude": ("longitude", np.asarray(longitude, float), {"units": "degrees_east"}),
    }
    field = lambda a: (("time", "level", "latitude", "longitude"), size * a, {"units": "m s-1"})
    return xr.Dataset({"u": field(u), "v": field(v)}, coords)


def streamfunction(grid):
    phi, lam = np.radians(grid.latitude)[:, None], np.radians(grid.longitude)[None, :]
    psi = -RADIUS * SPEED * (np.sin(phi) + 0.5 * np.cos(phi) ** 2 * np.sin(2 * lam))
    return grid.to_spectral(jnp.asarray(psi))


REGULAR = np.linspace(-90, 90, 121), np.arange(0, 360, 1.5)


def test_streamfunction_of_winds_on_a_gaussian_grid_is_exact():
    grid, fine = sphere(21), sphere(42)
    psi_hat, notes = reanalysis.streamfunction(winds(fine.latitude, fine.longitude), grid)
    assert psi_hat.shape == (2, 3, *grid.spectral_shape) and notes == ()
    assert error(psi_hat[1, 0], streamfunction(grid)) < 1e-12
    assert error(psi_hat[0, 2], streamfunction(grid) * np.log(0.8) / np.log(0.2)) < 1e-12


def test_every_order_unit_and_origin_gives_the_same_flow():
    grid = sphere(21)
    plain = winds(*REGULAR)
    expected, notes = reanalysis.streamfunction(plain, grid)
    assert notes == () and error(expected[0, 0], streamfunction(grid)) < 2e-4  # bilinear, 1.5 degrees
    turned = plain.isel(latitude=slice(None, None, -1), level=[2, 0, 1]).transpose("longitude", "time", "level", ...)
    turned = turned.assign_coords(longitude=("longitude", (REGULAR[1] + 180) % 360 - 180, {"units": "degrees_east"}))
    turned = turned.sortby("longitude")
    turned = turned.assign_coords(level=("level", turned.level.values * 100, {"units": "Pa"}))
    turned = turned.rename(u="ua", v="va", latitude="lat", longitude="lon", level="plev")
    turned["ua"], turned["va"] = turned.ua * 100, turned.va * 100
    for name in ("ua", "va"):
        turned[name].attrs["units"] = "cm s-1"
    found, notes = reanalysis.streamfunction(turned, grid)
    assert error(found, expected) < 1e-12
    assert [note.partition(":")[0] for note in notes] == ["ua", "va", "lat", "lon"], notes


def test_a_level_that_is_not_there_is_interpolated_and_said():
    grid = sphere(21)
    psi_hat, notes = reanalysis.streamfunction(winds(*REGULAR, levels=(200, 500, 700, 850)), grid)
    assert notes == ("800 hPa: interpolated in ln p between 700 and 850 hPa",)
    assert error(psi_hat[0, 2], streamfunction(grid) * np.log(0.8) / np.log(0.2)) < 2e-4


def change(**kwargs):
    return lambda data: data.assign(**{name: f(data) for name, f in kwargs.items()})


def without_units(data):
    data = data.copy()
    data["u"].attrs = {}
    return data


def with_units(units):
    def change(data):
        data = data.copy()
        data["u"].attrs = {"units": units}
        return data

    return change


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda d: d.drop_vars("v"), "expected one variable with the standard name 'northward_wind'"),
        (lambda d: d.isel(level=0, drop=True), r"expected a level among them"),
        (
            lambda d: d.isel(level=slice(1, 3)),
            r"expected levels around \[200.0, 500.0, 800.0\] hPa, found \[500.0, 800",
        ),
        (lambda d: d.isel(latitude=slice(60, None)), "expected latitudes from pole to pole, found 0 to 90"),
        (lambda d: d.isel(longitude=slice(0, 100)), "expected longitudes around the globe"),
        (change(u=lambda d: d.u.where(d.latitude > -89).assign_attrs(d.u.attrs)), "u .*not finite|u has"),
        (without_units, "u has no units"),
        (with_units("K"), "measure different things"),
        (with_units("km s-1"), "wrong units"),
    ],
)
def test_winds_that_cannot_be_trusted_are_refused(spoil, message):
    with pytest.raises(ValueError, match=message):
        reanalysis.streamfunction(spoil(winds(*REGULAR, times=1)), sphere(10))


def test_roads_forcing_balances_the_mean_of_its_samples():
    grid = sphere(21)
    flow = hg.QuasiGeostrophic.qg3(grid, orography=1e3 * np.ones(grid.shape))
    damp = jnp.where((grid.degree > 0) & (grid.degree < 12), 1e6, 0)
    psi = damp * jnp.stack([white(grid, seed, 3) for seed in range(4)])
    S = qg3.roads(flow, psi)
    total = 0
    for one in psi:
        q = flow.potential_vorticity(one)
        total = total + flow.explicit(0.0, {"q": q})["q"] + flow.implicit({"q": q})["q"]
    assert error(-S.fields["q_hat"], total / 4) < 1e-12
    steady = qg3.roads(flow, psi[:1])  # one sample is then a steady state
    model = hg.Model(flow, hg.RK4(), dt=600.0, forcing=steady)
    state = model.encode({"q": grid.to_grid(flow.potential_vorticity(psi[0]))})
    assert error(model.step(state).y["q"], state.y["q"]) < 1e-12


def climate(grid, inputs, days=1000, dt=3600.0):
    """Means of u and ψ `[level, y, x]` over the last three quarters of a run."""
    flow = hg.QuasiGeostrophic.qg3(grid, orography=inputs.orography, land=inputs.land)
    model, n = hg.Model(flow, hg.AB3(), dt=dt, forcing=inputs.forcing), round(days / 4 * 86400 / dt)
    pick = lambda model, state: {name: model.view(state)[name] for name in ("u", "psi")}
    roll = eqx.filter_jit(hg.rollout)
    _, out = roll(model, model.encode({"q": inputs.start}), 4 * n, every=n, mean=pick, save=lambda m, s: 0.0)
    return {name: np.asarray(a[1:].mean(0), float) for name, a in out["mean"].items()}


def jet(u, latitude, north):
    zonal = np.where((latitude > 0) == north, u.mean(-1), -np.inf)
    return zonal.max(), abs(latitude[zonal.argmax()])


@pytest.mark.slow
def test_a_winter_without_files_has_jets_and_storms():
    grid = hg.Sphere(21)
    found = climate(grid, qg3.winter(grid), days=400)
    speed, place = jet(found["u"][0], grid.latitude, True)
    assert 30 < speed < 55 and 25 < place < 45, (speed, place)
    assert jet(found["u"][2], grid.latitude, True)[0] < 20


@pytest.mark.slow
def test_climate_of_the_reanalysis_forcing():
    """T21, 1,000 days: jets at 200 hPa within 3 m/s and 6 degrees of 41.8 at 36N and 35.9 at 30S; standing waves."""
    path, grid = shared("qg3_t21.nc"), hg.Sphere(21)
    found = climate(grid, qg3.read(path, grid))
    north, south = (jet(found["u"][0], grid.latitude, side) for side in (True, False))
    assert abs(north[0] - 41.8) < 3 and abs(north[1] - 36) < 6, north
    assert abs(south[0] - 35.9) < 3 and abs(south[1] - 30) < 6, south
    with xr.open_dataset(path) as data:
        mean = data.psi_clim_djf.sortby("lat").values[0]
    eddy = lambda a: a - a.mean(-1, keepdims=True)
    weight = np.cos(np.radians(grid.latitude))[:, None] * (grid.latitude[:, None] > 0)
    inner = lambda a, b: float((weight * eddy(a) * eddy(b)).sum())
    model = found["psi"][0]
    assert inner(model, mean) / np.sqrt(inner(model, model) * inner(mean, mean)) > 0.75
    assert abs(np.sqrt(inner(model, model) / inner(mean, mean)) - 1) < 0.15


def test_inputs_of_files():
    grid = sphere(21)
    inputs = qg3.read(shared("qg3_t21.nc"), grid)
    with xr.open_dataset(DATA / "qg3_t21.nc") as file:
        data = file.sortby("lat").load()
    assert error(inputs.orography, data.orography.values) < 1e-6
    assert error(grid.to_grid(inputs.forcing.fields["q_hat"]), data.forcing_corrected.values) < 1e-5
    drag = np.asarray(hg.QuasiGeostrophic.qg3(grid, orography=inputs.orography, land=inputs.land).drag)
    assert error(drag, data.ekman_rate.values) < 2e-2  # negative heights of the file thin its friction
    deviation = lambda a: np.asarray(a) - np.asarray(grid.mean(jnp.asarray(a, float)))[:, None, None]
    assert error(deviation(inputs.start), deviation(data.q0.values)) < 1e-5
    coarse = qg3.read(shared("qg3_forcing_orography_t63.nc"), grid)
    assert np.corrcoef(coarse.land.ravel(), inputs.land.ravel())[0, 1] > 0.9


def test_inputs_of_pyshqg_are_those_of_the_file_made_of_them():
    """Read in place. Its start is an atmosphere: jets near 35 degrees, faster above."""
    grid = sphere(21)
    try:
        inputs = qg3.pyshqg(grid)
    except FileNotFoundError as missing:
        pytest.skip(str(missing))
    u = np.asarray(grid.velocity(hg.QuasiGeostrophic.qg3(grid).invert(grid.to_spectral(inputs.start)))[0])
    for side in (True, False):
        (speed, place), (below, _) = jet(u[0], grid.latitude, side), jet(u[2], grid.latitude, side)
        assert 15 < speed < 60 and 20 < place < 60 and below < speed, (speed, place, below)
    file = qg3.read(shared("qg3_forcing_orography_t63.nc"), grid)
    for name in ("orography", "land", "start"):
        assert error(getattr(inputs, name), getattr(file, name)) < 1e-5, name
    assert error(inputs.forcing.fields["q_hat"], file.forcing.fields["q_hat"]) < 1e-5


def test_files_that_are_none_are_refused(tmp_path):
    grid = sphere(5)
    with pytest.raises(ValueError, match="there is no file"):
        qg3.read(tmp_path / "nothing.nc", grid)
    winds(*REGULAR, times=1).to_netcdf(tmp_path / "winds.nc")
    with pytest.raises(ValueError, match="expected forcing_corrected or forcing"):
        qg3.read(tmp_path / "winds.nc", grid)
