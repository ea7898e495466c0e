"""The long run at smoke size: statistics made while it runs are those of its states, and it can be interrupted."""

import json
import subprocess
import sys
from functools import partial
from pathlib import Path

import equinox as eqx
import jax
import jax.random as jr
import numpy as np
import pytest
import xarray as xr

import hybridgcm as hg
from hybridgcm import diagnostics

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
from experiments.long_run import statistics  # noqa: E402
from experiments.long_run.config import SMOKE  # noqa: E402
from experiments.long_run.run import model, resident  # noqa: E402


def test_online_statistics_are_those_of_the_sampled_states():
    flow = model(SMOKE)
    state = flow.encode({"q": 1e-6 * jr.normal(jr.key(0), (2, 16, 16))})
    moments = eqx.Partial(statistics.moments, (3e-6, 3e-6), 11)
    _, out = eqx.filter_jit(partial(hg.rollout, every=20, save=None, mean=moments, sample=4))(flow, state, 40)
    _, every = eqx.filter_jit(partial(hg.rollout, every=4, save=lambda m, s: s))(flow, state, 40)
    states = [jax.tree.map(lambda a, i=i: a[i], every["save"]) for i in range(10)]
    q = np.asarray([flow.decode(s)["q"] for s in states])
    energy = [float(diagnostics.energy(flow, s)) for s in states]
    for frame, part in enumerate((slice(0, 5), slice(5, 10))):
        found = {name: np.asarray(a[frame]) for name, a in out["mean"].items()}
        np.testing.assert_allclose(found["q"], q[part].mean(0), rtol=0, atol=1e-5 * np.abs(q).max())
        np.testing.assert_allclose(found["q2"], (q[part] ** 2).mean(0), rtol=0, atol=1e-5 * (q**2).max())
        np.testing.assert_allclose(found["energy"], np.mean(energy[part]), rtol=1e-5)
        counts = [np.histogram(np.clip(q[part][:, layer], -2.99e-6, 2.99e-6), 11, (-3e-6, 3e-6))[0] for layer in (0, 1)]
        np.testing.assert_allclose(found["q_pdf"], np.array(counts) / (5 * 256), atol=2e-3)
        np.testing.assert_allclose(found["q_pdf"].sum(1), 1, rtol=1e-5)


def test_a_trend_is_found_and_noise_has_none_beyond_its_interval():
    rng, time = np.random.default_rng(0), np.arange(60.0)
    steady = statistics.trend(time, 5 + 0.1 * rng.standard_normal(60))
    assert abs(steady["per decade"]) < 1.5 * steady["interval"] and steady["interval"] < 0.02
    rising = statistics.trend(time, 5 + 0.1 * rng.standard_normal(60) + 0.05 * time)
    assert rising["per decade"] == pytest.approx(0.5 / rising["mean"], rel=0.1) and rising["interval"] < 0.02
    red = np.convolve(rng.standard_normal(80), np.ones(20) / 20, "valid")[:60]
    assert statistics.trend(time, 5 + red)["interval"] > statistics.trend(time, 5 + rng.permutation(red))["interval"]


def test_the_smoke_run_goes_on_where_it_was_stopped_and_writes_its_climate(tmp_path):
    command = [sys.executable, "experiments/long_run/run.py", "--preset", "smoke", "--out", tmp_path]
    done = subprocess.run([str(word) for word in command], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["ladder"] == [] and summary["years per minute"] > 1 and summary["trends"]["energy"]["mean"] > 0
    with xr.open_dataset(tmp_path / "climate.nc", decode_times=False) as climate:
        assert climate["ke_spectrum_mean"].dims == ("layer", "wavenumber")
        assert float(climate["variance"].min()) > 0
        np.testing.assert_allclose(climate["q_pdf_mean"].sum("bin"), 1, rtol=1e-5)
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 4
    assert resident() is None or resident() > 50


def test_a_configuration_that_does_not_fit_is_refused(tmp_path):
    command = [
        sys.executable,
        "experiments/long_run/run.py",
        "--dt",
        "7000",
        "--spin-up",
        "200",
        "--out",
        tmp_path / "r",
    ]
    done = subprocess.run([str(word) for word in command], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert "dt=7000 s must divide a year" in done.stderr and "spin_up=200 must be shorter" in done.stderr
    assert not (tmp_path / "r").exists()
