"""The learned corrections of the three-level model: the experiment end to end, and what it refuses."""

import json
import re

import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("tyro")

from experiments.hybrid_qg3 import atmosphere, run  # noqa: E402
from experiments.hybrid_qg3.config import SMOKE, Config  # noqa: E402


def test_settings_that_do_not_fit_are_told():
    assert not list(Config().problems()) and not list(SMOKE.problems())
    for change, message in (
        ({"dt": 5000.0}, "must divide six hours"),
        ({"horizon": 600}, "leave no window"),
        ({"horizon": 3}, "must be even"),
        ({"friction": 0.0}, "a time scale, positive"),
        ({"seeds": 0}, "at least 1"),
    ):
        assert any(re.search(message, line) for line in Config(**change).problems()), change


def test_the_model_is_wrong_where_it_says():
    truth, model = (atmosphere.model(SMOKE, name).equation for name in ("truth", "model"))
    assert float(model.drag.max()) < float(truth.drag.min())
    assert float(model.relaxation) < float(truth.relaxation)
    assert float(abs(2 * model.topography - truth.topography).max()) < 1e-6 * float(abs(truth.topography).max())


@pytest.mark.slow
def test_the_smoke_run_reports(tmp_path):
    report = run.main(["--preset", "smoke", "--seeds", "1", "--out", str(tmp_path / "run")])
    table = json.loads((report.parent / "report.json").read_text())
    assert list(table) == [
        "truth", "no correction", "tuned hyperdiffusion", "mean increment", "mean increment, gradient-free",
        "linear closure", "network, offline", "network, offline, then gradient-free",
        "network, online",
    ]  # fmt: skip
    assert table["truth"]["first guess"]["mean"] < 1e-3 * table["no correction"]["first guess"]["mean"]
    assert table["mean increment"]["first guess"]["mean"] < table["no correction"]["first guess"]["mean"]
    assert table["linear closure"]["first guess"]["mean"] < 0.8 * table["no correction"]["first guess"]["mean"]
    text = report.read_text()
    for picture in re.findall(r"\((\w+\.png)\)", text):
        assert (report.parent / picture).stat().st_size > 5_000
