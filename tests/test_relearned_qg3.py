"""The re-learned right-hand side: what can be learned exactly, what is kept, and the experiment end to end."""

import json
import re

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
from experiments.relearned_qg3.config import PRESETS, SMOKE, Config  # noqa: E402


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


def test_the_linear_map_can_be_the_missing_physics():
    """Relaxation and hyperdiffusion by harmonic, friction by point, the forcing as a steady field: to rounding."""
    y = state(SMOKE)
    truth, bare = models.truth(SMOKE), models.jacobian(SMOKE)
    flow, grid = truth.equation, truth.equation.grid
    forced = truth.forcing(0.0, grid)["q_hat"]
    missing = flow.explicit(0.0, y)["q"] + flow.implicit(y)["q"] + forced - bare.equation.explicit(0.0, y)["q"]

    T, S = grid.truncation, np.asarray(flow.stretching, float)
    local, scale = models.network(SMOKE, "linear", 0).nets
    A = np.zeros(scale.weights.shape)
    rate = np.zeros(T + 1)
    rate[grid.degree[grid.degree <= T]] = np.asarray(flow.dissipation)[grid.degree <= T]
    for i in range(3):
        A[0, i, i] = -rate[1:]
        for j in range(3):
            A[0, i, 3 + j] = -float(flow.relaxation) * S[i, j]
    k = grid.to_spectral(flow.drag)
    k_x, k_y = grid.gradient(k)
    W = np.zeros(local.weights.shape)  # −(k ζ + k_x v − k_y u), ζ = q − Sψ
    W[2, 2] = -flow.drag
    for j in range(3):
        W[2, 3 + j] = np.asarray(flow.drag) * S[2, j]
    W[2, 11], W[2, 8] = -k_x, k_y
    net = eqx.tree_at(
        lambda n: (n.nets[0].weights, n.nets[1].weights),
        models.network(SMOKE, "linear", 0), (jnp.asarray(W, jnp.float32), jnp.asarray(A, jnp.float32)),
    )  # fmt: skip
    closure = hg.NetworkClosure(net, models.FEATURES, ("q",))
    made = grid.to_spectral(closure(flow.view(y), grid, None, jr.key(0))[0]["q"]) + forced
    made, missing = (grid.to_grid(a) for a in (made, missing))
    # The model's own friction is −∇·(k∇ψ) with k not truncated: products of the three alias a little differently.
    assert float(jnp.abs(made - missing)[:2].max()) < 1e-4 * float(jnp.abs(missing).max())
    assert float(jnp.sqrt(jnp.mean((made - missing)[2] ** 2) / jnp.mean(missing[2] ** 2))) < 0.1


def test_what_is_for_training_leaves_the_planet_alone():
    for name in models.LEARNED:
        net = models.network(SMOKE, name, 0)
        count = lambda tree: sum(leaf.size for leaf in jax.tree.leaves(tree) if eqx.is_array(leaf))
        planet = sum(part.fields.size for part in getattr(net, "nets", (net,)) if isinstance(part, hg.nn.Beside))
        assert count(models.weights(net)) + planet == count(net)


def test_valid_time():
    assert stages._valid(np.array([0.1, 0.4, 0.6, 0.3]), 0.25) == 0.5
    assert stages._valid(np.array([0.1, np.nan]), 1.0) == 1.0
    assert stages._valid(np.array([0.1, 0.2]), 1.0) == 2.0


@pytest.mark.slow
def test_the_smoke_run_reports(tmp_path):
    report = run.main(["--preset", "smoke", "--out", str(tmp_path / "run")])
    table = json.loads((report.parent / "report.json").read_text())["scores"]
    assert list(table) == ["truth", "Jacobian alone", *models.LEARNED, *models.EMULATORS]
    assert max(table["truth"][0]["q"]) < 1e-3 < min(table["Jacobian alone"][0]["q"])
    assert table["linear"][0]["q"][0] < table["Jacobian alone"][0]["q"][0]
    assert (report.parent / "errors.png").stat().st_size > 5_000
