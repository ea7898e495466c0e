"""The bias-correction experiment at smoke size, and its regression against a bias that is known."""

import json
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from experiments.bias_correction import stages  # noqa: E402
from experiments.bias_correction.config import SMOKE  # noqa: E402

RUN = "experiments/bias_correction/run.py"


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bias") / "run"
    command = [sys.executable, RUN, "--preset", "smoke", "--seeds", "1", "--out", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


@pytest.mark.slow
def test_the_smoke_run_scores_every_correction(finished):
    record = json.loads((finished / "metrics.json").read_text())
    labels = {"none", "mean increment", "linear regression", "network, offline", "network, online"}
    assert set(record["first_guess"]) == labels == set(record["climate"])
    for label in labels:
        errors = np.array(record["first_guess"][label])
        assert errors.shape == (1, SMOKE.lead) and (np.diff(errors) > 0).all(), label
        assert 0 < record["climate"][label][0]["distributional"] < 10
    report = (finished / "report.md").read_text()
    assert all(f"| {label} |" in report for label in labels)
    assert (finished / "bias_correction.png").stat().st_size > 10_000
    assert len(list((finished / "closures").glob("*.ckpt"))) == 2


@pytest.mark.slow
def test_nudging_keeps_the_model_near_the_truth(finished):
    (kept,) = finished.glob("stages/increments-0-*")
    (truth,) = finished.glob("stages/truth-0-*")
    x, q = stages.learning_data(kept)["q"], stages.frames(truth, "learn")
    q = q[len(q) - 1 - len(x) : -1]
    assert np.sqrt(np.mean((x - q) ** 2) / np.mean(q**2)) < 0.05


def test_the_regression_recovers_a_linear_bias():
    """Increments that are a map plus drag on q of the upper layer, local and linear: recovered to rounding."""
    bare = stages.model(SMOKE, 0)
    resolved = lambda q: bare.decode(bare.encode({"q": 1e-6 * q}))["q"]
    q = np.asarray(jax.vmap(resolved)(jr.normal(jr.key(1), (40, 2, 16, 16))))
    field = 1e-12 * np.asarray(jr.normal(jr.key(2), (2, 16, 16)))
    field -= field.mean((1, 2), keepdims=True)
    q = q - q.mean((2, 3), keepdims=True)
    bias = lambda q: field - 1e-6 * q * np.array([1.0, 0.5])[:, None, None]
    closure = stages.regression(SMOKE, 0, {"q": q, "S": np.stack([bias(a) for a in q])})
    low = stages.model(SMOKE, 0, closure)
    state = low.encode({"q": jnp.asarray(1e-6 * jr.normal(jr.key(3), (2, 16, 16)))})
    view = low.equation.view(state.y)
    forcing, _ = closure(view, low.equation.grid, state.memory, jr.key(0))
    x = np.asarray(view["q"])
    expected = bias(x - x.mean((1, 2), keepdims=True))
    error = np.asarray(forcing["q"]) - expected
    assert np.sqrt(np.mean(error**2) / np.mean(expected**2)) < 1e-4


def test_settings_that_do_not_fit_are_refused_together(tmp_path):
    command = [sys.executable, RUN, "--model-dt", "14400", "--nudging", "7200", "--out", str(tmp_path / "run")]
    refused = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert refused.returncode == 2 and "multiple of model_dt" in refused.stderr and ".54" in refused.stderr
    assert not (tmp_path / "run").exists()
