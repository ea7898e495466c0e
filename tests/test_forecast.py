"""Forecasts are labelled, reproducible member by member, go on after a kill, and outlive members that blow up."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
import xarray as xr
from forecast_worker import energy, flow, run
from helpers import cnn, error

import hybridgcm as hg
from hybridgcm import metrics, perturbations
from hybridgcm.checkpoint import FingerprintMismatch
from hybridgcm.evaluate import verify

ROOT = Path(__file__).parents[1]
WORKER = Path(__file__).parent / "forecast_worker.py"


def bare(closure=None):
    """The worker's flow without its noise, and the starts."""
    model, starts = flow()
    return hg.Model(model.equation, hg.AB3(), closure, dt=1800.0), starts


@pytest.fixture(scope="module")
def made():
    """Three members of two starts, 24 records after the start."""
    return run(None)


def test_the_output_is_labelled(made, tmp_path):
    assert dict(made.sizes) == {"start_time": 2, "member": 3, "lead_time": 25, "layer": 2, "y": 16, "x": 16}
    assert made.q.dims == ("start_time", "member", "lead_time", "layer", "y", "x")
    assert made.energy.dims == ("start_time", "member", "lead_time")
    assert made.q.attrs["units"] == "s-1" and made.energy.attrs["units"] == "m2 s-2"
    assert made.lead_time.attrs["units"] == "s" and made.lead_time.attrs["standard_name"] == "forecast_period"
    assert made.start_time.attrs["standard_name"] == "forecast_reference_time"
    assert made.member.attrs["standard_name"] == "realization" and made.x.attrs["units"] == "m"
    np.testing.assert_array_equal(made.lead_time, 18000.0 * np.arange(25))
    np.testing.assert_array_equal(made.time, made.start_time + made.lead_time)
    assert made.failed_at.isnull().all() and not made.q.isnull().any()
    made.to_netcdf(tmp_path / "f.nc")
    with xr.open_dataset(tmp_path / "f.nc") as read:
        assert read.time.dt.calendar == "360_day" and str(read.time.values[0, 0]) == "0001-01-01 01:00:00"
        np.testing.assert_array_equal(read.q, made.q)


def test_a_forecast_is_the_rollout_of_its_start(tmp_path):
    model, starts = bare(hg.Smagorinsky(0.1))
    data = hg.forecast(model, {"q": starts["q"][0]}, 20, every=5, variables=("q", "u"))
    _, out = eqx.filter_jit(hg.rollout)(model, model.encode({"q": starts["q"][0]}), 20, every=5)
    assert data.sizes["start_time"] == data.sizes["member"] == 1 and set(data.data_vars) == {"q", "u"}
    scale = float(np.abs(out["save"]["q"]).max())
    np.testing.assert_allclose(data.q[0, 0, 1:], out["save"]["q"], rtol=0, atol=1e-6 * scale)
    np.testing.assert_allclose(data.q[0, 0, 0], model.decode(model.encode({"q": starts["q"][0]}))["q"], rtol=0)


def test_the_clock_starts_at_the_time_of_the_start():
    model, starts = flow()
    forcing = lambda t, grid: {"q": 1e-11 * jnp.sin(2 * jnp.pi * t / 86400.0) * jnp.ones((2, *grid.shape), t.dtype)}
    forced = hg.Model(model.equation, hg.RK4(), dt=1800.0, forcing=forcing)
    q = {"q": starts["q"][0]}
    late = hg.forecast(forced, q | {"time": 43200.0}, 4, diagnostics={"c": lambda m, s: s.step})
    early = hg.forecast(forced, q, 4)
    assert late["c"].values[0, 0].tolist() == [24, 25, 26, 27, 28] and late.time.values[0, 0] == 43200.0
    mean = lambda data: (data.q[0, 0, -1] - data.q[0, 0, 0]).mean().item()
    assert abs(mean(late) + mean(early)) < 1e-2 * abs(mean(early)) and mean(early) > 0, "half a day later: the sign"


def test_members_and_starts_do_not_depend_on_each_other(made):
    more = run(None, members=4)
    np.testing.assert_array_equal(more.q.sel(member=made.member), made.q)
    model, starts = flow()
    one = hg.forecast(
        model, {"q": starts["q"][1:], "time": starts["time"][1:]}, 240, every=10, members=2, key=jr.key(1),
        perturb=perturbations.noise(1e-7),
    )  # fmt: skip
    assert error(one.q[0], made.q[1, :2]) < 1e-6, "two members are compiled for themselves"
    assert len(np.unique(made.q[:, :, -1, 0, 0, 0])) == 6, "members are alike"
    noise = hg.forecast(model, {"q": starts["q"][1]}, 10, every=10, members=2, key=jr.key(1))
    assert (noise.q[0, 0, 0] == noise.q[0, 1, 0]).all() and (noise.q[0, 0, 1] != noise.q[0, 1, 1]).any()


def test_members_that_would_be_equal_are_refused():
    model, starts = bare()
    q = {"q": starts["q"][0]}
    emulator = hg.Emulator(lambda x: 0 * x, ("q",), 1e-5, dt=model.dt, grid=model.equation.grid)
    for one, kind in ((model, "a model without closure"), (emulator, "an emulator")):
        with pytest.raises(ValueError, match=f"3 members of {kind} are equal.*perturbations.noise"):
            hg.forecast(one, q, 2, members=3, key=jr.key(0))
        window = {"q": jnp.zeros((1, 3, *q["q"].shape))}
        with pytest.raises(ValueError, match=f"2 members of {kind} are equal.*leave members out"):
            hg.online(metrics.crps("q"), members=2)(one, window, jr.key(0))
        assert hg.forecast(one, q, 2, members=2, key=jr.key(0), perturb=perturbations.noise(1e-7)).sizes["member"] == 2


@pytest.mark.slow
def test_two_devices_and_an_odd_number_of_members_give_the_same_bits(made, tmp_path):
    code = f"import sys; sys.path.insert(0, {str(WORKER.parent)!r})\nimport jax, numpy as np\n"
    code += "assert jax.device_count() == 2\nfrom forecast_worker import run\n"
    code += f"np.savez({str(tmp_path / 'two.npz')!r}, **run(None, steps=20))"
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=2", "JAX_PLATFORMS": "cpu", "JAX_ENABLE_X64": "1"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], cwd=ROOT, capture_output=True, text=True,
        env=os.environ | flags | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    with np.load(tmp_path / "two.npz") as two:
        np.testing.assert_array_equal(two["q"], made.q[:, :, :3])


# Stores


def contents(folder):
    kept = lambda f: f.is_file() and f.name != "lock"
    return {
        str(f.relative_to(folder)): hashlib.sha256(f.read_bytes()).hexdigest() for f in folder.rglob("*") if kept(f)
    }


def records(folder):
    about = folder / "output.zarr" / "zarr.json"
    return json.loads(about.read_text())["attributes"]["records_complete"] if about.exists() else 0


@pytest.mark.slow
def test_killed_and_called_again_a_forecast_changes_no_bit(tmp_path):
    code = tmp_path / "code"  # an edit while the tests run would rightly be refused
    shutil.copytree(ROOT / "hybridgcm", code / "hybridgcm", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(WORKER, code)
    environment = os.environ | {
        "PYTHONPATH": str(code),
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "cache"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
    call = lambda folder: subprocess.Popen(
        [sys.executable, "-W", "ignore", str(code / WORKER.name), str(folder)], env=environment,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    whole, folder = tmp_path / "whole", tmp_path / "killed"
    for target, killed in ((whole, False), (folder, True), (folder, False)):
        process, deadline = call(target), time.monotonic() + 120
        while killed and records(folder) < 5 and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.002)
        if killed:
            process.kill()
        _, error = process.communicate()
        assert process.returncode == (-9 if killed else 0), error[-3000:]
        if killed:
            done = records(folder)
            live = xr.open_zarr(folder / "output.zarr", consolidated=False)
            assert 5 <= done < 25 and live.sizes["lead_time"] == 25
            assert not live.q[:done].isnull().any() and live.q[done + 1 :].isnull().all()
            np.testing.assert_array_equal(live.q[:done], hg.read_store(whole / "output.zarr").q[:done])
    assert contents(whole) == contents(folder)


def test_a_store_gives_the_same_data_set_and_refuses_another_forecast(made, tmp_path):
    stored = run(tmp_path / "f")
    assert stored.q.dims == made.q.dims and stored.time.dims == made.time.dims
    xr.testing.assert_equal(stored.load(), made)
    for name in (*made.data_vars, *made.coords):
        assert stored[name].attrs == made[name].attrs, name
    with pytest.raises(FingerprintMismatch, match="start: "):
        run(tmp_path / "f", perturb=perturbations.noise(2e-7))
    longer = run(tmp_path / "f", steps=260)
    assert longer.sizes["lead_time"] == 27
    np.testing.assert_array_equal(longer.q[:, :, :25], made.q)
    raw = xr.open_zarr(tmp_path / "f" / "output.zarr", consolidated=False)
    assert str(raw.start_time.values[0]) == "0001-01-01 01:00:00" and raw.lead_time.values[1] == 18000.0


# Failures


class Hot(hg.AbstractClosure):
    """dq = rate · q once the flow is faster than any other here: what is too strong gets stronger."""

    def init(self, fields, grid):
        return None

    def __call__(self, fields, grid, memory, key):
        strong = jnp.max(jnp.abs(fields["q"])) > 1e-3
        return {"q": jnp.where(strong, 1e-2, 0.0) * fields["q"]}, memory


def wild(model, state, keys):
    """Three members; the last is a hundred times too strong."""
    noisy = perturbations.noise(1e-7)(model, state, keys)
    factor = jnp.where(jnp.arange(len(keys)) == 2, 300.0, 1.0)
    y = {n: a * factor.reshape(-1, 1, 1, 1).astype(a.real.dtype) for n, a in noisy.y.items()}
    return eqx.tree_at(lambda s: s.y, noisy, y)


def test_a_member_that_blows_up_is_nan_from_there_on_and_the_others_go_on(tmp_path):
    model, starts = bare(Hot())
    call = lambda perturb, store: hg.forecast(
        model, starts, 24, every=2, members=3, perturb=perturb, key=jr.key(1), courant=np.inf, store=store,
        diagnostics={"energy": energy},
    ).load()  # fmt: skip
    with pytest.warns(RuntimeWarning, match="2 of 6 members failed, the first number 2 of the start at 3600 s"):
        data = call(wild, tmp_path / "f")
    tame = call(perturbations.noise(1e-7), None)
    np.testing.assert_array_equal(data.q.values[:, :2], tame.q.values[:, :2])
    assert data.failed_at[:, :2].isnull().all() and (data.failed_at[:, 2] > 0).all(), data.failed_at.values
    bad = data.lead_time >= data.failed_at
    assert (data.q.isnull() == bad).all() and (data.energy.isnull() == bad).all()
    assert 0 < int(bad.sel(member=2)[:, 0].sum()) < 13


def test_a_member_above_the_courant_number_has_failed_and_a_broken_diagnostic_is_nan():
    model, starts = bare()
    root = lambda m, s: jnp.sqrt(-hg.diagnostics.energy(m, s))
    with pytest.warns(RuntimeWarning, match="1 of 3 members failed"):
        data = hg.forecast(
            model, {"q": starts["q"][0]}, 4, members=3, key=jr.key(1), perturb=wild, courant=2.0,
            diagnostics={"energy": root},
        )  # fmt: skip
    assert data.failed_at.values[0, 2] == 0 and data.q[0, 2].isnull().all()
    assert data.energy.isnull().all() and not data.q[0, :2].isnull().any()


# Any model


def sphere():
    grid = hg.Sphere(10)
    equation = hg.QuasiGeostrophic.qg3(grid)
    q = np.asarray(grid.to_grid(grid.to_spectral(1e-5 * jr.normal(jr.key(0), (2, 3, *grid.shape), jnp.float32))))
    return hg.Model(equation, hg.AB3(), dt=1800.0), q, ("layer", "latitude", "longitude")


def emulator():
    net = cnn(2, 2, 3)
    q = np.asarray(jr.normal(jr.key(0), (2, 2, 16, 16), jnp.float32))
    return hg.Emulator(net, ("q",), dt=1800.0, grid=hg.Torus(16, 1e6)), q, ("layer", "y", "x")


@pytest.mark.parametrize("case", [sphere, emulator])
def test_sphere_and_emulator(case, tmp_path):
    model, q, axes = case()
    starts = xr.Dataset({"q": (("time", *axes), q)}, {"time": [0.0, 7200.0]})
    data = hg.forecast(
        model, starts, 6, every=3, members=2, key=jr.key(2), store=tmp_path / "f",
        perturb=perturbations.noise(1e-3 * q.std()),
    )  # fmt: skip
    assert data.q.dims == ("start_time", "member", "lead_time", *axes) and data.q.shape[:3] == (2, 2, 3)
    _, out = eqx.filter_jit(hg.rollout)(model, model.encode({"q": q[1]}), 6, every=3)
    control = hg.forecast(model, starts.isel(time=1), 6, every=3)
    np.testing.assert_allclose(control.q[0, 0, 1:], out["save"]["q"], rtol=0, atol=2e-6 * np.abs(q).max())
    away = np.sqrt(((data.q[1, 0] - control.q[0, 0]) ** 2).mean(axes))
    assert 0.3e-3 < away.values[0] / q.std() < 3e-3


def test_a_diagnostic_with_dimensions_of_its_own():
    model, starts = bare()
    spectrum = lambda m, s: metrics.energy_spectrum(m.equation)(m.decode(s))
    grid = model.equation.grid
    data = hg.forecast(model, {"q": starts["q"][0]}, 4, every=2, variables=(), diagnostics={"ke": spectrum})
    assert set(data.data_vars) == {"ke"} and data.ke.dims[-2:] == ("layer", "wavenumber")
    np.testing.assert_allclose(data.wavenumber, grid.wavenumber)
    third = lambda m, s: jnp.stack([hg.diagnostics.energy(m, s)] * 5)
    data = hg.forecast(
        model, {"q": starts["q"][0]}, 4, every=2, diagnostics={"ke": third}, dimensions={"ke": ("kind",)},
        coordinates={"kind": [2, 3, 5, 7, 11]},
    )  # fmt: skip
    assert data.ke.dims[-1] == "kind" and data.kind.values.tolist() == [2, 3, 5, 7, 11]


# What is refused


def one_key(model, state, key):
    return state


def half(model, state, keys):
    return perturbations.noise(1e-7)(model, state, keys[:1])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"members": 0, "key": 1}, "a whole number from 1; got 0"),
        ({"members": 2}, r"2 members draw random numbers, so a key is needed; pass key=jax.random.key"),
        ({"perturb": wild}, "a key is needed"),
        ({"members": 2, "key": 1, "perturb": one_key}, r"y\['q'\] is \(2, 16, 9\) complex64, expected \(2, 2, 16, 9\)"),
        ({"members": 2, "key": 1, "perturb": half}, "wrap a function of one key in perturbations.each"),
        ({"members": 2, "key": 1, "perturb": lambda *_: None}, "states of all 2 members"),
        ({"variables": "q"}, r"like \('q',\)"),
        ({"variables": ("uu",)}, "no 'uu', it offers"),
        ({"variables": ("q",), "diagnostics": {"q": energy}}, "both as variables and as diagnostics"),
        ({"diagnostics": {"zap": energy}}, "'zap' has no units"),
        ({"diagnostics": {"energy": lambda m, s: m.decode(s)}}, "expected one array"),
        ({"every": 7}, "every=7 must divide steps=10"),
    ],
)
def test_wrong_arguments_are_refused(options, words):
    model, starts = flow()
    if "key" in options:
        options = options | {"key": jr.key(1)}
    with pytest.raises(ValueError, match=words):
        hg.forecast(model, {"q": starts["q"][0]}, 10, **options)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda q: {"q": q}, '2 starts need their times: add "time"'),
        (lambda q: {"q": q[0, 0]}, r"starts are fields \[layer, y, x\]"),
        (lambda q: {"time": [0.0]}, "starts are fields"),
        (lambda q: {"q": q, "time": [0.0]}, "the times of 2 starts are as many numbers"),
        (lambda q: {"q": q, "time": [3600.0, 0.0]}, "increasing"),
        (lambda q: {"q": q[0], "time": np.datetime64("2020-01-01")}, "decode_times=False"),
        (lambda q: {"q": q[0], "time": 100.0}, "100.0 s is no multiple of the model's time step, 1800.0 s"),
        (lambda q: {"p": q[0]}, "unknown 'p'"),
        (lambda q: {"q": q[0, :1]}, r"expected \(2, 16, 16\)"),
    ],
)
def test_wrong_starts_are_refused(change, words):
    model, starts = flow()
    with pytest.raises(ValueError, match=words):
        hg.forecast(model, change(starts["q"]), 10)


def test_an_emulator_without_a_grid_is_refused():
    model = hg.Emulator(cnn(1, 1, 3), ("q",), dt=1.0)
    with pytest.raises(ValueError, match="has no grid"):
        hg.forecast(model, {"q": np.zeros((1, 8, 8))}, 1)


def test_verify_labels_scores_and_leaves_failed_members_out(made):
    truth = made.isel(member=0)
    record = {"q": truth.q[0].values, "time": truth.time[0].values}
    data = made.isel(start_time=[0], lead_time=[0, 2, 5])
    scores = {"crps": metrics.crps("q"), "ranks": metrics.rank_histogram("q")}
    table = verify(data, record, scores)
    assert table.crps.dims == ("start_time", "lead_time") and table.ranks.dims[2:] == ("ranks_0",)
    assert table.ranks.shape == (1, 3, 4) and table.attrs["members"] == 3
    expected = metrics.crps("q")({"q": jnp.asarray(data.q[0, :, 2].values)}, {"q": jnp.asarray(record["q"][5])})
    np.testing.assert_allclose(table.crps[0, 2], expected, rtol=1e-6)
    some = data.assign_coords(failed_at=(("start_time", "member"), [[np.nan, 1.0, np.nan]]))
    few = verify(some, record, scores)
    assert few.attrs["members"] == 2 and few.ranks.shape == (1, 3, 3)
    with pytest.raises(ValueError, match="the truth has no record at"):
        verify(made, record, scores)
    with pytest.raises(ValueError, match="every member failed"):
        verify(data.assign_coords(failed_at=data.failed_at.fillna(0.0)), record, scores)
