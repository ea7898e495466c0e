"""The closure experiment end to end, at smoke size: it finishes, resumes without work, and refuses what is wrong."""

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("tyro")

import hybridgcm as hg  # noqa: E402
from experiments.closure import compare, losses, stages  # noqa: E402
from experiments.closure.config import SMOKE  # noqa: E402

ROOT = Path(__file__).parents[1]


def run(*words):
    command = [sys.executable, "experiments/closure/run.py", *map(str, words)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("closure") / "run"
    done = run("--preset", "smoke", "--first", 1, "--out", folder)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def test_the_smoke_run_writes_report_metrics_climates_and_closures(finished):
    metrics = json.loads((finished / "metrics.json").read_text())
    networks = {f"CNN, {kind}{tuned}" for kind in ("offline", "online") for tuned in ("", ", tuned")}
    assert {"No closure", "Smagorinsky", "Smagorinsky, tuned"} | networks < set(metrics["models"])
    for label, row in metrics["models"].items():
        if row["kind"] != "truth":
            assert 0 < row["errors"]["distributional"] < 10, (label, row["errors"])
    assert not re.search(r'(?:src|href)="(?!data:|#)', (finished / "report.html").read_text())
    assert len(list((finished / "climates").glob("*.nc"))) == len(metrics["models"])
    assert len(list((finished / "closures").glob("*.ckpt"))) == 2


def test_runs_on_several_truths_are_compared_pair_by_pair(finished, tmp_path):
    """A second run with both errors of the offline network doubled: the others are below it there."""
    models = json.loads((finished / "metrics.json").read_text())["models"]
    settings = (finished / "config.toml").read_text()
    worse = {name: value * 2e3 for name, value in models["CNN, offline"]["errors"].items()}
    (tmp_path / "config.toml").write_text(settings.replace("first = 1", "first = 2"))
    (tmp_path / "metrics.json").write_text(
        json.dumps({"models": models | {"CNN, offline": models["CNN, offline"] | {"errors": worse}}})
    )
    row = next(line for line in compare.main([finished, tmp_path]).splitlines() if line.startswith("| CNN online |"))
    once = [models["CNN, online"]["errors"][e] < models["CNN, offline"]["errors"][e] for e in compare.ERRORS]
    assert f"| {once[0] + 1}, {once[1] + 1} of 2 | 0 |" in row, row
    (tmp_path / "config.toml").write_text(
        settings.replace("first = 1", "first = 2").replace("channels = 4", "channels = 5")
    )
    with pytest.raises(ValueError, match="channels: 4 -> 5"):
        compare.main([finished, tmp_path])


@pytest.mark.slow
def test_a_second_call_finds_every_stage_done(finished):
    before = {file: file.stat().st_mtime for file in finished.glob("stages/*/manifest.json")}
    again = run("--preset", "smoke", "--first", 1, "--out", finished)
    assert again.returncode == 0, again.stderr[-3000:]
    assert " starts" not in again.stdout, again.stdout
    assert before == {file: file.stat().st_mtime for file in finished.glob("stages/*/manifest.json")}


def test_what_no_closure_does_is_worth_nothing_and_the_truth_everything():
    """The mean over its own windows of the loss of the model without closure is 1, also of their first frames."""
    low = stages.model(SMOKE, SMOKE.coarse)
    rng = np.random.default_rng(0)
    q = rng.normal(size=(3, 3, 2, SMOKE.coarse, SMOKE.coarse)).astype(np.float32)
    windows = 1e-5 * q * np.array([1, 1.5, 0.7])[:, None, None, None]
    loss = losses.energies(low, windows, 2, slice(1, 10))
    roll = eqx.filter_jit(lambda q: hg.rollout(low, low.encode({"q": q}), 4, every=2))
    made = [{"q": roll(window[0])[1]["save"]["q"]} for window in windows]
    for frames in (2, 1):
        cut = lambda fields, frames=frames: {"q": fields["q"][:frames]}
        worth = [loss(cut(p), cut({"q": t[1:]})) for p, t in zip(made, windows)]
        assert abs(np.mean(worth) - 1) < 1e-3, worth
    assert loss({"q": windows[0, 1:]}, {"q": windows[0, 1:]}) == 0
    fields = losses.relative(lambda p, t: jnp.mean((p["q"] - t["q"]) ** 2), low, windows, 2)
    assert abs(np.mean([fields(p, {"q": t[1:]}) for p, t in zip(made, windows)]) - 1) < 1e-3


def test_a_typo_is_refused_at_once_with_the_nearest_name(tmp_path):
    (tmp_path / "run.toml").write_text("onlin_rate = 1e-3\n")
    start = time.monotonic()
    refused = run("--preset", "smoke", "--config", tmp_path / "run.toml", "--out", tmp_path / "run")
    assert refused.returncode == 2 and "online_rate" in refused.stderr, refused.stderr
    assert time.monotonic() - start < 10
    assert not (tmp_path / "run").exists()
