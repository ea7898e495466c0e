"""The climate of the three-level model: its statistics on made-up heights, and the experiment end to end."""

import json
import re

import numpy as np
import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("tyro")

from experiments.qg3_climate import climate, run  # noqa: E402
from experiments.qg3_climate.config import Config  # noqa: E402

LATITUDE = np.linspace(-87, 87, 30)


def heights(times=400, columns=24):
    """Zonal flow: heights that fall from the equator to the poles, `[time, latitude, longitude]`."""
    return np.broadcast_to(-800 * np.sin(np.radians(LATITUDE))[:, None] ** 2, (times, 30, columns)).astype(np.float32)


def test_a_band_keeps_its_waves_and_no_others():
    t = np.arange(2000) * 0.5
    wave = lambda days: np.sin(2 * np.pi * t / days)
    series = (wave(4.0) + 3 * wave(20.0) + 2 * wave(1.5))[:, None, None] * np.ones((1, 2, 3))
    kept = climate.band(series, 0.5, 1 / 2.5, 1 / 6)
    middle = slice(100, -100)
    assert np.abs(kept[middle, 0, 0] - wave(4.0)[middle]).max() < 0.05


def test_blocking_is_seen_where_and_as_long_as_it_lasts():
    z = heights().copy()
    assert climate.blocking(z, LATITUDE, 5.0).max() == 0
    bump = lambda north: np.exp(-(((LATITUDE - north) / 8) ** 2))
    z[100:140, :, 6] += 900 * bump(60)[:, None].T
    z[200:206, :, 12] += 900 * bump(60)[:, None].T  # three days are too short
    share = climate.blocking(z, LATITUDE, 5.0)
    assert share[6] == 40 / 400 and share[12] == 0 and np.count_nonzero(share) == 1


def test_regimes_find_the_states_that_were_put_in():
    rng = np.random.default_rng(0)
    patterns = rng.standard_normal((3, 30, 24))
    which = rng.choice(3, 300, p=[0.5, 0.3, 0.2])
    z = patterns[which] + 0.05 * rng.standard_normal((300, 30, 24))
    centroids, shares = climate.regimes(z, LATITUDE, 3, 0)
    exact = np.bincount(which) / 300
    assert np.allclose(shares, exact)
    for i in range(3):
        assert np.corrcoef(centroids[i].ravel(), (patterns[i] - z.mean(0)).ravel())[0, 1] > 0.99


def test_a_jet_is_found_in_its_hemisphere():
    u = 40 * np.exp(-(((LATITUDE - 33) / 10) ** 2)) + 30 * np.exp(-(((LATITUDE + 45) / 10) ** 2))
    u = u[:, None] * np.ones((1, 8))
    assert climate.jet(u, LATITUDE, 1) == (u[:, 0].max(), LATITUDE[u[:, 0].argmax()])
    assert climate.jet(u, LATITUDE, -1)[1] == -45


def test_settings_that_do_not_fit_are_told():
    assert not list(Config().problems())
    for change, message in (
        ({"steps_a_day": (24,)}, "one number for each"),
        ({"steps_a_day": (24, 25)}, "must be even"),
        ({"spin_up": 20_000}, "leaves too little"),
        ({"days": 10_001}, "multiples of 10"),
    ):
        assert any(re.search(message, line) for line in Config(**change).problems()), change


def test_the_smoke_run_reports_and_goes_on(tmp_path, capsys):
    report = run.main(["--preset", "smoke", "--out", str(tmp_path / "run")])
    text = report.read_text()
    assert "synthetic winter" in text and "| T10 |" in text
    numbers = json.loads((report.parent / "report.json").read_text())["T10"]
    assert 25 < numbers["jets"]["north"][0][0] < 60 and abs(sum(numbers["shares"]) - 1) < 1e-9
    for picture in re.findall(r"\((\w+\.png)\)", text):
        assert (report.parent / picture).stat().st_size > 5_000
    import xarray as xr

    with xr.open_dataset(report.parent / "climate-T10.nc") as data:
        assert data.u.standard_name == "eastward_wind" and dict(data.sizes)["level"] == 3
    before = (report.parent / "T10" / "seconds.json").read_text()
    assert run.main(["--preset", "smoke", "--out", str(tmp_path / "run")]) == report
    assert float((report.parent / "T10" / "seconds.json").read_text()) < float(before) + 30
