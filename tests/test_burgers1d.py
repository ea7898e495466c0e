"""Burgers' equation on the circle from time 0 to 1: the initial values of Li et al. (2021), and the experiment."""

import json
from dataclasses import replace

import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from helpers import error

from hybridgcm import pairs


def test_initial_values_have_the_published_covariance():
    """625 (−∂² + 25)⁻² by modes; as before, 25⁴ (−∂² + 25)⁻⁴ of the public file, when not told otherwise."""
    k = np.arange(1, 6)
    made = {s: pairs.burgers(256, 2000, jr.key(0), times=(0.0,), smoothed=s) for s in (1, 2)}
    for smoothed, pair in made.items():
        assert pair["u"].shape == (2000, 1, 1, 256)
        power = (np.abs(np.fft.rfft(pair["u0"][:, 0, 0], norm="forward")) ** 2).mean(0)
        expected = (25 / (4 * np.pi**2 * k**2 + 25)) ** (2 * smoothed)
        assert np.abs(power[1:6] / expected - 1).max() < 0.12 and power[0] < 1e-12 * power[1], (smoothed, power[:6])
    with pytest.raises(ValueError, match="smoothed at least once"):
        pairs.burgers(16, 1, jr.key(0), smoothed=0)


def test_a_viscosity_that_the_exact_solution_cannot_have_is_refused():
    for viscosity, message in (
        (0.001, "is too small .* samples, .* a solver for shocks"),
        (-0.1, "is positive; got -0.1"),
    ):
        with pytest.raises(ValueError, match=f"viscosity.*{message}"):
            pairs.burgers(256, 8, jr.key(1), times=(0.0, 0.3), viscosity=viscosity)
    made = pairs.burgers(256, 200, jr.key(1), times=(0.0, 1e-6), viscosity=0.01)
    assert np.array_equal(made["u"][:, 0, 0], made["u0"][:, 0, 0])
    assert error(made["u"][:, 0, 1], made["u0"][:, 0, 0]) < 1e-4, "the smallest that is left is right"


def test_solutions_at_time_one_do_not_depend_on_the_points():
    """The same initial values on an eighth of the points: exact up to what those lack of them."""
    fine = pairs.burgers(2048, 4, jr.key(1), times=(1.0,), viscosity=0.1, smoothed=1)
    for i in range(4):
        coarse = pairs.solve_burgers(jnp.asarray(fine["u0"][i, 0, 0, ::8], float), jnp.ones(1), 0.1)[0]
        assert error(coarse, fine["u"][i, 0, 0, ::8]) < 2e-3  # rough initial values alias
    smooth = np.sin(2 * np.pi * np.arange(2048) / 2048)
    at = lambda every: np.asarray(pairs.solve_burgers(jnp.asarray(smooth[::every]), jnp.ones(1), 0.1)[0])
    assert error(at(8), at(1)[::8]) < 1e-12


def test_a_small_run_reports_every_size(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    pytest.importorskip("tyro")
    from experiments.operators import config, run

    tiny = replace(config.SMOKE, recipes=("burgers1d",), burgers1d_points=32, burgers1d_finest=128,
                   burgers1d_hidden=8, burgers1d_modes=8, burgers1d_epochs=100, tests=16, seeds=1)  # fmt: skip
    monkeypatch.setitem(config.PRESETS, "tiny", tiny)
    report = run.main(["--preset", "tiny", "--out", str(tmp_path / "run")])
    table = json.loads((report.parent / "report.json").read_text())
    assert list(table) == ["burgers1d"]
    scores = {name: [row["scores"][f"test{n}"]["l2"][0] for n in (32, 64, 128)]
              for name, row in table["burgers1d"].items()}  # fmt: skip
    network = scores["FNO, burgers1d"]
    assert max(network) < 0.5 * min(scores["mean of the outputs"]), scores
    assert max(network) / min(network) < 1.3, "the same weights at every size"
    assert max(scores["kernel ridge"]) < 0.1, scores
    first, second, last = scores["exact solution"]  # waves that few points take for a mean, which does not decay
    assert first > 2 * second > 4 * last and last < 1e-3, scores
    for picture in ("samples-burgers1d.png", "curves.png"):
        assert (report.parent / picture).stat().st_size > 5_000


def test_settings_that_do_not_fit_are_told():
    from experiments.operators.config import BURGERS1D

    assert not list(BURGERS1D.problems())
    for change, message in (
        ({"burgers1d_points": 100}, "powers of two"),
        ({"burgers1d_finest": 128}, "in this order"),
        ({"burgers1d_modes": 200}, "at most half of the 256"),
        ({"burgers1d_epochs": 0}, "at least 1"),
    ):
        assert any(message in line for line in replace(BURGERS1D, **change).problems()), change
