"""The experiment with DeepONets over several processes: its cases, its report, its settings."""

import json

import equinox as eqx
import jax.random as jr
import numpy as np
import pytest


def test_the_cases_of_the_experiment_trace_and_split():
    """Data, losses over a mesh and the error of each case, in its smallest size; only traced where it takes time."""
    from experiments.deeponet_parallel import cases
    from experiments.deeponet_parallel.config import SMOKE
    from hybridgcm.parallel import mesh, sharded

    assert [cases.shape(case, 4) for case in ("burgers", "darcy", "shallow")] == [(4, 1), (1, 4), (2, 2)]
    for name, make in cases.DATA.items():
        data = {key: np.asarray(a, np.float32) for key, a in make(SMOKE).items()}
        assert all(np.isfinite(a).all() and a.std() > 0 for a in data.values())
        case = cases.make(name, SMOKE, data)
        put = lambda objective, axes: sharded(objective, mesh(1), axes)
        loss = eqx.filter_eval_shape(case.objective(put), case.network, case.batches[0], jr.key(0))
        assert loss.shape == () and len(case.batches) == SMOKE.steps
        assert 0.1 < case.error(case.network) < 10


@pytest.mark.slow
def test_the_experiment_reports(tmp_path):
    """Two processes by hand over one training: weights agree, T1/TN and E are made of the times."""
    pytest.importorskip("matplotlib")
    pytest.importorskip("tyro")
    from experiments.deeponet_parallel import run

    settings = ["--preset", "smoke", "--cases", "darcy", "--parts", "1", "--out", str(tmp_path / "run")]
    report = run.main(settings)
    rows = json.loads((report.parent / "report.json").read_text())["cases"]["darcy"]
    assert list(rows) == ["1", "2"] and rows["2"]["mesh"] == [1, 2]
    assert 0 <= rows["2"]["difference"] < 1e-5 and abs(rows["2"]["loss"] / rows["1"]["loss"] - 1) < 1e-5
    assert abs(rows["2"]["E"] - rows["1"]["seconds"] / rows["2"]["seconds"] / 2) < 1e-12
    assert (report.parent / "scaling.png").stat().st_size > 5_000 and "| 2 | 1 x 2 |" in report.read_text()


def test_settings_that_do_not_fit_are_told():
    from experiments.deeponet_parallel.config import FULL, LAPTOP, SMOKE, Config

    assert not [line for config in (FULL, LAPTOP, SMOKE) for line in config.problems()]
    for change, message in (
        ({"processes": (2, 4)}, "begin with 1"),
        ({"functions": 63}, "multiple of parts"),
        ({"steps": 3}, "at least 4"),
        ({"burgers_sensors": 100}, "power of two"),
        ({"shallow_queries": 10**6}, "more than there are points"),
    ):
        assert any(message in line for line in Config(**change).problems()), change
