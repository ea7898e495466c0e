"""The re-learned right-hand side: what can be learned exactly, what is kept, and the experiment end to end."""

import json
import re
from dataclasses import replace
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("tyro")

import hybridgcm as hg  # noqa: E402
from experiments.relearned_qg3 import models, run, stages  # noqa: E402
from experiments.relearned_qg3.config import EMULATORS, LEARNED, PRESETS, SMOKE, Config  # noqa: E402


def state(config):
    grid, air = models.atmosphere(config.truncation, config.inputs)
    noise = jr.normal(jr.key(0), (3, *grid.shape)) * 1e-5
    return {"q": grid.to_spectral(air.start + noise)}


def test_settings_that_do_not_fit_are_told():
    for preset in PRESETS.values():
        assert not list(preset.problems())
    for change, message in (
        ({"dt": 5000.0}, "must divide six hours"),
        ({"lead": 5.0}, "multiple of six hours"),
        ({"runs": 30}, "begin at the starts"),
        ({"seeds": 0}, "at least 1"),
        ({"networks": ("linear", "CNN")}, "got 'CNN'"),
    ):
        assert any(re.search(message, line) for line in Config(**change).problems()), change


def test_only_the_jacobian_is_kept():
    """Energy and potential enstrophy are conserved by what is kept but for the sphere's own rotation and mountains."""
    y = state(SMOKE)
    flow = models.jacobian(SMOKE).equation
    tendency = flow.explicit(0.0, y)["q"]
    work = float(jnp.sum(flow.grid.inner(flow.invert(y["q"]), tendency)))
    size = float(jnp.sum(jnp.sqrt(flow.grid.inner(flow.invert(y["q"]), flow.invert(y["q"])))))
    size *= float(jnp.sqrt(jnp.sum(flow.grid.inner(tendency, tendency))))
    assert abs(work) < 1e-5 * size
    assert float(jnp.abs(flow.implicit(y)["q"]).max()) == 0


def test_the_linear_closure_can_be_the_missing_physics():
    """Relaxation, hyperdiffusion and forcing by harmonic, friction by point: to rounding, at all three levels."""
    y = state(SMOKE)
    truth, bare = models.truth(SMOKE), models.jacobian(SMOKE)
    flow, grid = truth.equation, truth.equation.grid
    forced = truth.forcing(0.0, grid)["q_hat"]
    missing = flow.explicit(0.0, y)["q"] + flow.implicit(y)["q"] + forced - bare.equation.explicit(0.0, y)["q"]

    fields = {name: np.asarray(a)[None] for name, a in flow.view(y).items()}
    closure = models.closure(SMOKE, "linear", 0, fields, np.asarray(grid.to_grid(missing))[None])
    force, rest = closure.parts
    T, S = grid.truncation, np.asarray(flow.stretching, float)
    A, rate = np.zeros(rest.net.weights.shape), np.zeros(T + 1)
    rate[grid.degree[grid.degree <= T]] = np.asarray(flow.dissipation)[grid.degree <= T]
    for i in range(3):
        A[0, i, i] = -rate[1:]
        A[0, i, 3:] = -float(flow.relaxation) * S[i][:, None]
    A *= np.asarray(rest.input_scale)[:, None] / np.asarray(rest.output_scale)[:, None, None]
    W = np.zeros(force.net.weights.shape)  # −k of u and v at the lowest level
    W[2, 2] = W[5, 5] = -np.asarray(flow.drag) * 86400
    closure = eqx.tree_at(
        lambda c: (c.parts[0].net.weights, c.parts[1].net.weights),
        closure, (jnp.asarray(W, jnp.float32), jnp.asarray(A, jnp.float32)),
    )  # fmt: skip
    fields, missing = flow.view(y), grid.to_grid(missing)
    for one in (closure, models.folded(closure, flow)):
        forcing, _ = one(fields, grid, one.init(fields, grid), jr.key(0))
        made = grid.to_grid(flow.lift(forcing)["q"] + forced)
        assert float(jnp.abs(made - missing).max()) < 1e-5 * float(jnp.abs(missing).max())
    assert one.parts[1].net.weights.shape == (2, 3, 3, T)


def test_the_linear_closure_is_not_held():
    q = jnp.asarray(models.atmosphere(SMOKE.truncation, SMOKE.inputs)[1].start)
    assert [name for name in LEARNED if not models.held(name)] == ["linear"]
    bare, flow = models.truth(SMOKE), models.jacobian(SMOKE, hg.closures.Relaxation({"q": 0.0}, 86400.0), hold=False)
    held = models.jacobian(SMOKE, flow.closure)
    assert flow.dt == held.dt == bare.dt
    once, stages_ = (eqx.filter_jit(m.step)(m.encode({"q": q})).y["q"] for m in (held, flow))
    assert float(jnp.abs(once - stages_).max()) > 0


def test_what_is_for_training_leaves_planet_and_scales_alone():
    q = np.asarray(models.atmosphere(SMOKE.truncation, SMOKE.inputs)[1].start)[None]
    fields = models.fields_of(models.truth(SMOKE), q)
    for name in LEARNED:
        closure = models.closure(SMOKE, name, 0, fields, q)
        count = lambda tree: sum(leaf.size for leaf in jax.tree.leaves(tree) if eqx.is_array(leaf))
        parts = closure.parts if name == "linear" else (closure,)
        nets = [net for part in parts for net in getattr(part.net, "nets", (part.net,))]
        planet = sum(net.fields.size for net in nets if isinstance(net, hg.nn.Beside))
        scales = sum(part.input_scale.size + part.output_scale.size for part in parts)
        assert count(models.weights(closure)) + planet + scales == count(closure)


def test_a_free_run_goes_on_from_its_last_year(tmp_path, monkeypatch):
    config = replace(SMOKE, years=2, free_dt=7200.0)
    _, air = models.atmosphere(config.truncation, config.inputs)
    np.save(tmp_path / "test.npy", np.asarray(air.start)[None])
    free = lambda name: stages._free(config, partial(models.truth, config), tmp_path, 0, tmp_path / name)
    free("whole")

    def stop(where):
        if "year 2" in where:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(stages, "stop_if_asked", stop)
        free("stopped")
    assert not (tmp_path / "stopped" / "days.json").exists()
    free("stopped")
    whole, stopped = (np.load(tmp_path / name / "climate.npz") for name in ("whole", "stopped"))
    for name in ("u", "deviation"):
        np.testing.assert_array_equal(whole[name], stopped[name])
    assert 20 < np.abs(whole["u"]).max() < 100 and json.loads((tmp_path / "whole" / "days.json").read_text()) == 720


def test_valid_time():
    assert stages._valid(np.array([0.1, 0.4, 0.6, 0.3]), 0.25) == 0.5
    assert stages._valid(np.array([0.1, np.nan]), 1.0) == 1.0
    assert stages._valid(np.array([0.1, 0.2]), 1.0) == 2.0


@pytest.mark.slow
def test_the_smoke_run_reports(tmp_path):
    command = ["--preset", "smoke", "--out", str(tmp_path / "run")]
    report = run.main(command)
    table = json.loads((report.parent / "report.json").read_text())["scores"]
    assert list(table) == ["truth", "Jacobian alone", *LEARNED, *EMULATORS]
    assert max(table["truth"][0]["q"]) < 1e-3 < min(table["Jacobian alone"][0]["q"])
    assert table["linear"][0]["q"][0] < table["Jacobian alone"][0]["q"][0]
    assert (report.parent / "errors.png").stat().st_size > 5_000
    with pytest.raises(ValueError, match="of the truth itself ended after .* AB3 is unstable with free_dt=21600 s"):
        run.main([*command, "--free-dt", "21600"])  # in the same folder: nothing is trained anew
    assert len(list((report.parent / "stages").glob("train-*"))) == len(LEARNED + EMULATORS)
