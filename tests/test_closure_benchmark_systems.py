"""The other systems of the closure benchmark: forcings, energies, names, Lorenz 96, and rows on each of them."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

import hybridgcm as hg  # noqa: E402
from experiments.closure_benchmark import lorenz96, rows, systems  # noqa: E402
from experiments.closure_benchmark.config import SMOKE, Truths  # noqa: E402
from hybridgcm import coarsen, diagnostics  # noqa: E402

METHODS = Path(rows.__file__).with_name("methods")
SMALL = Truths(fine=32, stored=16, members=1, warm=0, scored=2, learn=1, validation=1, spin_up=0, frames=1, tuning=1)
TINY = replace(SMOKE, amplitudes=(), truths=SMALL, members=1)
FORCED = ("beta512", "gr", "grbeta", "swe")
FLOWS = {flow.name: flow for flow in systems.FLOWS}


def advanced(model, fields, steps):
    run = eqx.filter_jit(lambda m, s: hg.rollout(m, s, steps, every=steps, save=None)[0])
    return run(model, model.encode(fields))


@pytest.mark.parametrize(
    ("name", "full", "fine"),
    [
        ("beta128", "beta128-op5-0.0032", 2048),
        ("beta512-64", "beta512-64-op5-0.0064", 512),
        ("gr64", "gr64-op5-3840", 512),
        ("grdecay128-op1", "grdecay128-op1-1920", 512),
        ("grbeta64-1920", "grbeta64-op5-1920", 512),
        ("swe64", "swe64-op5-3600", 256),
        ("yan64", "yan64-op1-14400", 256),
        ("lorenz96", "lorenz96-8-op5-0.01", 256),
    ],
)
def test_a_systems_name_says_all_that_it_is(name, full, fine):
    assert systems.system(name).name == full and systems.system(full) == systems.system(name)
    sizes = systems.system(name).flow.sizes(Truths())
    assert sizes.fine == fine and sizes.stored >= systems.system(name).n


@pytest.mark.parametrize("name", ["lorenz96-8-op1", "beta51264", "beta128-0.003", "swe64-0", "gr", "mix101-64"])
def test_other_names_are_refused(name):
    with pytest.raises(ValueError, match="no system|must divide"):
        systems.system(name)


@pytest.mark.parametrize("name", FORCED)
def test_the_forcing_drives_truth_and_models_with_its_amplitude_and_is_no_part_of_subgrid_data(name):
    flow = FLOWS[name]
    fine, low = flow.model(64, flow.dt), flow.model(32, flow.dt)
    (key, given), time = next(iter(fine.forcing(0.0, fine.equation.grid).items())), 4321.0
    coarse = low.forcing(0.0, low.equation.grid)[key]
    assert np.sqrt(np.mean(np.square(given))) == pytest.approx(flow.amplitude, rel=1e-5), "two crossed waves: A²/2 each"
    brought = lambda a: low.equation.grid.to_grid(
        coarsen.cutoff(fine.equation.grid.to_spectral(a), fine.equation.grid, low.equation.grid)
    )
    np.testing.assert_allclose(brought(given), coarse, atol=1e-5 * flow.amplitude)
    moved = fine.forcing(time, fine.equation.grid)[key]
    steady = getattr(flow, "rates", None) is None
    assert np.allclose(moved, given, atol=1e-4 * flow.amplitude) == steady, "Graham and Ringler's cells drift"
    rest = {n: jnp.zeros((1, *fine.equation.grid.shape)) for n in fine.equation.prognostic}
    S = coarsen.sample(fine, low, fine.encode(rest).y, coarsen.operator2)
    assert not any(np.any(a) for a in S.values()), "without flow there is no subgrid forcing"
    after = fine.decode(advanced(fine, rest, 1))[key]
    np.testing.assert_allclose(after, flow.dt * given, atol=5e-3 * flow.dt * flow.amplitude)


def test_a_decaying_flow_loses_energy_by_viscosity_alone_and_starts_alike_at_every_resolution():
    flow = FLOWS["grdecay"]
    model, low = flow.model(128, 1920.0), flow.model(64, 1920.0)
    assert model.forcing is None
    start, coarse = flow.start(3, 128), flow.start(3, 64)
    kept = coarsen.state(model.equation.grid, low.equation.grid, model.encode(start).y, coarsen.cutoff)["q"]
    np.testing.assert_allclose(low.equation.grid.to_grid(kept), coarse["q"], atol=1e-5 * np.abs(coarse["q"]).max())
    assert np.abs(np.subtract(start["q"], flow.start(4, 128)["q"])).max() > np.abs(start["q"]).std()
    state = model.encode(start)
    energy = [float(diagnostics.energy(model, s)) for s in (state, advanced(model, start, 100))]
    enstrophy = float(diagnostics.enstrophy(model, state))
    assert energy[0] == pytest.approx(flow.energy, rel=1e-5)
    lost = 2 * flow.viscosity * enstrophy * 100 * model.dt
    assert energy[0] - energy[1] == pytest.approx(lost, rel=0.05), "dE/dt = −2νZ"


def test_shallow_water_starts_near_geostrophy_and_stays_there():
    flow = FLOWS["swe"]
    model = flow.model(64, 3600.0)
    start = flow.start(0, 64)
    u = model.view(model.encode(start))["u"]
    assert np.sqrt(2 * np.mean(np.square(u))) == pytest.approx(flow.velocity, rel=0.2)
    after = model.view(advanced(model, start, 240))
    rms = {n: float(jnp.sqrt(jnp.mean(a**2))) for n, a in after.items()}
    assert rms["zeta"] / flow.f < 0.2 and rms["delta"] < 0.1 * rms["zeta"], rms
    assert abs(float(jnp.mean(after["phi"]))) < 1e-5 * flow.speed**2, "mass"


# Lorenz 96


def lorenz_tendency(X, Y, F=18.0, h=1.0, b=10.0, c=10.0):
    """The two sums written with loops over the published indices."""
    J, K = Y.shape
    dX, dY, flat = np.zeros(K), np.zeros((J, K)), lambda i: Y[i % (J * K) % J, i % (J * K) // J]
    for k in range(K):
        dX[k] = -X[k - 1] * (X[k - 2] - X[(k + 1) % K]) - X[k] + F - h * c / b * Y[:, k].sum()
        for j in range(J):
            i = j + J * k
            dY[j, k] = -c * b * flat(i + 1) * (flat(i + 2) - flat(i - 1)) - c * Y[j, k] + h * c / b * X[k]
    return dX, dY


def test_lorenz_96_has_its_published_tendency_and_its_coupling_is_the_subgrid_forcing():
    flow = FLOWS["lorenz96"]
    fine, low = flow.model(32, 0.001), flow.model(8, 0.01)
    fields = np.random.default_rng(0).normal(size=(1, 5, 8)).astype(np.float32)
    y = fine.encode({"q": fields}).y
    found = fine.equation.grid.to_grid(fine.equation.explicit(0.0, y)["q"])
    dX, dY = lorenz_tendency(fields[0, 0], fields[0, 1:])
    np.testing.assert_allclose(found[0], np.concatenate([dX[None], dY]), rtol=1e-4, atol=1e-3)
    sample = coarsen.sample(fine, low, y, coarsen.cutoff)
    np.testing.assert_allclose(sample["q"][0, 0], fields[0, 0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(sample["S"][0, 0], -fields[0, 1:].sum(0), rtol=1e-4, atol=1e-4)


def test_the_quadratic_terms_of_lorenz_96_conserve_energy():
    fine = lorenz96.Lorenz96("free", F=0.0, h=0.0).model(32, 0.001)
    fields = np.random.default_rng(1).normal(size=(1, 5, 8)).astype(np.float32)
    tendency = fine.equation.grid.to_grid(fine.equation.explicit(0.0, fine.encode({"q": fields}).y)["q"])
    damping = np.concatenate([fields[:, :1], 10 * fields[:, 1:]], 1)
    assert abs(np.sum(fields * (tendency + damping))) < 1e-5 * np.sum(np.abs(fields * tendency))


def test_the_circle_differentiates_its_waves_and_keeps_its_first_rows():
    grid, first = lorenz96.Circle(3, 8), lorenz96.Circle(1, 8)
    wave = np.tile(np.sin(2 * np.pi * 3 * grid.x / 8), (1, 3, 1))
    a_hat = grid.to_spectral(jnp.asarray(wave))
    np.testing.assert_allclose(grid.to_grid(a_hat), wave, atol=1e-6)
    np.testing.assert_allclose(grid.to_grid(grid.laplacian(a_hat)), -((2 * np.pi * 3 / 8) ** 2) * wave, atol=1e-5)
    np.testing.assert_allclose(grid.gradient(a_hat)[0][0, 0, 0], 2 * np.pi * 3 / 8, rtol=1e-5)
    assert float(grid.inner(a_hat, a_hat)[0]) == pytest.approx(3 * 0.5, rel=1e-5), "summed over the rows"
    assert grid.resize(a_hat, first).shape == (1, 1, 5)


def test_the_errors_of_lorenz_96_see_a_wrong_spectrum_and_a_wrong_clock():
    flow = FLOWS["lorenz96"]
    model = flow.model(8, 0.01)
    run = eqx.filter_jit(lambda m, s: hg.rollout(m, s, 3000, every=10, save=lambda m, s: m.decode(s))[1]["save"])
    X = np.asarray(run(model, model.encode(flow.start(0, 8)))["q"])[50:]
    target = flow.climate(model, {"q": X})
    assert target.spectra["KEspec"].shape == (1, 5)
    assert flow.errors(target, target) == {"autocorrelation": 0}
    assert flow.errors(flow.climate(model, {"q": X[::2]}), target)["autocorrelation"] > 0.1


# Rows


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("systems")


def written(root, name, method, config=TINY):
    file = rows.row(root, config, name, rows.load_method(method, METHODS), 0)
    return json.loads(file.read_text())


def quick(monkeypatch):
    """Flows that take few steps between snapshots: the plumbing, not the physics."""
    for name in ("beta512", "gr", "swe"):
        flow = FLOWS[name]
        ratio = round(flow.frame / flow.dt)
        own = replace(flow, snapshot=4 * ratio * flow.dt)
        monkeypatch.setattr(systems, "FLOWS", tuple(own if f.name == name else f for f in systems.FLOWS))


@pytest.mark.parametrize(
    "name", ["lorenz96", *(pytest.param(name, marks=pytest.mark.slow) for name in ("beta512-32", "swe16"))]
)
def test_a_row_of_no_closure_and_of_an_offline_network(root, monkeypatch, name):
    quick(monkeypatch)
    none, network = (written(root, name, method) for method in ("none", "offline_cnn"))
    for found in (none, network):
        assert "failed" not in found, found.get("failed")
        assert found["unit"]["finished"] == 1 and found["unit"]["errors"]["distributional"] > 0
    assert len(network["offline"]["R2"]) == (3 if name == "swe16" else 1)
    assert "APEgenspec" not in none["unit"]["errors"] and "KEspec1" in none["unit"]["errors"]
    own = {"beta512-32": "Z(k)", "swe16": "E(t)", "lorenz96": "autocorrelation"}[name]
    assert own in network["unit"]["own_errors"] and own in network["unit"]["own_similarities"]
    assert all(np.isfinite(v) for v in network["unit"]["similarities"].values())


def test_a_network_learns_the_coupling_of_lorenz_96(root):
    config = replace(TINY, truths=replace(SMALL, fine=256, spin_up=5, frames=2), effort=0.1)
    found = written(root / "learnt", "lorenz96", "offline_cnn", config)
    assert found["offline"]["correlation"][0] > 0.8, found["offline"]
    noise = {"q": np.random.default_rng(0).normal(size=(9, 1, 1, 8))}
    closure = systems.system("lorenz96").flow.network(lambda x: x + 1, noise, noise)
    made, _ = closure({"q": jnp.zeros((1, 1, 8))}, None, None, None)
    assert float(jnp.mean(made["q"])) > 0.5, "the mean is kept: the coupling takes energy on average"


def test_modes_that_the_training_frames_lack_are_refused(root):
    with pytest.raises(ValueError, match="more modes than the training frames keep: truths.stored=16"):
        rows.open_data(root, SMALL, systems.system("swe64"))


@pytest.mark.slow
def test_online_training_goes_through_several_prognostics(root, monkeypatch):
    quick(monkeypatch)
    config = replace(TINY, truths=replace(SMALL, frames=4))
    found = written(root / "online", "swe16", "online_cnn", config)
    assert "failed" not in found, found.get("failed")
    assert jax.tree.all(jax.tree.map(np.isfinite, found["offline"]["R2"]))
