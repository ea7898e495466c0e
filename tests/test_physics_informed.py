"""Burgers' equation from the equation alone: what is drawn, answers are periodic, the experiment."""

import json

import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from hybridgcm import pairs

pytest.importorskip("tyro")

from experiments.physics_informed import run, stages  # noqa: E402
from experiments.physics_informed.config import SMOKE  # noqa: E402


def test_what_is_drawn_is_a_shift_or_a_mirror_image():
    u0 = pairs.burgers(32, 1, jr.key(0))["u0"][0, 0, 0]
    drawn = stages.batch(SMOKE, u0[None].astype(np.float32), jr.key(1))
    seen = set()
    for row in drawn["u0"]:
        fits = [
            (kind, shift) for kind, a in enumerate((u0, -u0[::-1])) for shift in range(32)
            if np.allclose(np.roll(a, shift), row, atol=1e-6)
        ]  # fmt: skip
        assert len(fits) == 1
        seen.add(fits[0])
    assert {kind for kind, _ in seen} == {0, 1} and len(seen) > 4
    assert drawn["start"].shape == (8, 1, 32) and drawn["t"].shape == (4,) and drawn["x"].shape == (16,)


def test_answers_are_periodic_and_the_objective_is_zero_for_still_water():
    net = stages.network(SMOKE, 0)
    ends = net(jnp.ones(32), jnp.asarray([0.1, 0.9]), jnp.asarray([0.25, 1.25, -0.75]))[0]
    assert np.allclose(ends, ends[:, :1], atol=1e-6) and float(jnp.abs(ends).max()) > 0
    still = lambda u0, t, x: jnp.zeros((1, len(t), len(x))) + 0 * t[:, None] * x
    drawn = stages.batch(SMOKE, np.zeros((2, 32), np.float32), jr.key(0))
    assert float(stages.objective(SMOKE)(still, drawn, jr.key(0))) == 0


def test_the_smoke_run_beats_no_change(tmp_path):
    report = run.main(["--preset", "smoke", "--out", str(tmp_path / "run")])
    found = json.loads(report.read_text())
    (network,) = found["networks"]
    assert network["error"] < 0.8 * found["no change"] and found["heat equation"] < found["no change"]
    assert (report.parent / "solutions.png").stat().st_size > 10_000
