"""Emulators of our own flows: what they are trained on and judged by, and the experiment end to end."""

import json
import re
from dataclasses import replace

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import error, same_bits

pytest.importorskip("matplotlib")
pytest.importorskip("tyro")

import hybridgcm as hg  # noqa: E402
from experiments.emulators import astray, flows, networks, records, report, run, scores, stages  # noqa: E402
from experiments.emulators.config import PRESETS, SMOKE, Config  # noqa: E402

FLOWS = ("qg", "shallow_water", "sphere", "qg3")


def noise(flow, count=4):
    """Random fields of the flow's shape."""
    grid, rng = flow.grid(1), np.random.default_rng(0)
    layers = flow.solver(1).equation.layers
    return {name: rng.normal(size=(count, layers, *grid.shape)).astype(np.float32) for name in flow.names}


def test_settings_that_do_not_fit_are_told():
    for preset in PRESETS.values():
        assert not list(preset.problems())
    for change, message in (
        ({"n": 12}, "multiple of 8"),
        ({"seeds": 0}, "at least 1"),
        ({"records": 3}, "window of horizon"),
        ({"free_steps": 150}, "every 100 steps"),
        ({"members": 1}, "two members"),
        ({"lead": 5400.0}, "whole hours in seconds"),
        ({"solver_leads": 4}, "horizon \\+ 1 = 5 records"),
        ({"networks": ("SFNO",)}, "qg has FNO, TFNO.*got 'SFNO'"),
    ):
        assert any(re.search(message, line) for line in Config(**change).problems()), change
    with pytest.raises(ValueError, match="two-layer quasi-geostrophic turbulence steps 7200 s"):
        flows.flow(replace(SMOKE, flow="qg", lead=3600.0))
    assert flows.flow(replace(SMOKE, flow="qg", lead=7200.0)).lead == 7200


@pytest.mark.parametrize("name", [*FLOWS[:2], *(pytest.param(name, marks=pytest.mark.slow) for name in FLOWS[2:])])
def test_the_truth_is_steady_in_what_it_conserves_and_its_grids_are_multiples(name):
    """One step of the finest solver keeps the area mean of every prognostic, and its time steps divide a lead."""
    flow = flows.flow(replace(SMOKE, flow=name))
    coarse, fine = flow.solver(1), flow.solver(flow.finest)
    for factor in records.factors(flow):
        assert flow.grid(factor).shape == tuple(factor * n for n in flow.grid(1).shape)
    for model in (coarse, fine):
        assert (flow.lead / model.dt) % 1 == 0
    state = coarse.encode(flow.start(coarse))
    before, after = coarse.decode(state), coarse.decode(eqx.filter_jit(coarse.step)(state))
    for key, a in before.items():
        change = np.abs(np.asarray(coarse.equation.grid.mean(after[key]) - coarse.equation.grid.mean(a)))
        assert (change < 1e-5 * np.abs(np.asarray(a)).max() + 1e-12).all() or key == "delta", key


def test_what_networks_are_told_of_the_place_does_not_depend_on_the_points():
    for name in ("shallow_water", "sphere"):
        flow = flows.flow(replace(SMOKE, flow=name))
        if name == "shallow_water":
            assert error(flow.place(flow.grid(2))[:, ::2, ::2], flow.place(flow.grid(1))) < 1e-6
        else:
            sine = flow.place(flow.grid(2))[0]
            assert np.abs(sine[:, 0] - np.sin(np.radians(flow.grid(2).latitude))).max() < 1e-6
    assert flows.flow(SMOKE).place(flows.flow(SMOKE).grid(1)).shape[0] == 0


def test_mirrored_jets_are_balanced():
    """Both jets of the shallow-water sphere stand still for a day without friction: they do not touch."""
    flow = flows.flow(replace(SMOKE, flow="sphere", n=32))
    model = flow.solver(1)
    jets = flows._mirrored(flows.cases.galewsky(model.equation.grid, perturbed=False).start)
    free = hg.Model(flows.cases.galewsky(model.equation.grid, perturbed=False).equation, hg.SIL3(), dt=1800.0)
    end, _ = eqx.filter_jit(hg.rollout)(free, free.encode(jets), 48, every=48, save=None)
    moved, still = free.decode(end)["phi"], free.decode(free.encode(jets))["phi"]
    assert error(moved, still) < 0.01
    assert error(moved[:, ::-1], moved) < 1e-4


@pytest.mark.parametrize("name", ("FNO", "linear", "POD-DeepONet"))
def test_untrained_emulators_persist_or_stay_in_their_basis(name):
    config = replace(SMOKE, networks=(name,))
    flow = flows.flow(config)
    data = noise(flow, 30)
    model = networks.emulator(config, flow, name, 0, data)
    start = {key: a[0] for key, a in data.items()}
    after = model.decode(model.step(model.encode(start)))
    if name == "POD-DeepONet":
        moved = (np.asarray(after["q"]) - start["q"]).ravel()
        basis = np.asarray(model.net.net.net.trunk.modes)
        assert np.linalg.norm(moved) > 0 and basis.shape[0] == 2 and np.isfinite(moved).all()
        with pytest.raises(ValueError, match="basis is of fields of 256 points"):
            finer = networks.at(flow, model, 2)
            finer.step(finer.encode({"q": np.zeros((2, 32, 32), np.float32)}))
    else:
        assert same_bits(np.asarray(after["q"]), start["q"])


@pytest.mark.parametrize("name", ["qg", "sphere"])
def test_every_network_fits_the_grid_of_the_default(name):
    config = Config(flow=name)
    flow = flows.flow(config)
    data = noise(flow, 10)
    for network in config.available():
        model = networks.emulator(config, flow, network, 0, data)
        state = model.encode({key: a[0] for key, a in data.items()})
        after = eqx.filter_eval_shape(model.step, state)
        assert {key: a.shape for key, a in after.y.items()} == {key: a.shape for key, a in state.y.items()}, network


def test_finer_grids_give_the_linear_map_of_the_same_waves():
    """The linear map knows wavenumbers, not points: a smooth field changes by the same field at 2n."""
    config = replace(SMOKE, networks=("linear",))
    flow = flows.flow(config)
    model = networks.emulator(config, flow, "linear", 0, noise(flow))
    rng = np.random.default_rng(1)
    net = model.net.net
    filled = jnp.asarray(rng.normal(size=net.weights.shape), jnp.float32)
    model = eqx.tree_at(lambda m: m.net.net.weights, model, filled)
    coarse, fine = flow.grid(1), flow.grid(2)
    q_hat = coarse.to_spectral(jnp.asarray(rng.normal(size=(2, *coarse.shape)), jnp.float32))
    q_hat = jnp.where(coarse.eigenvalues > -((2 * np.pi * 4 / coarse.length[0]) ** 2), q_hat, 0)
    finer = networks.at(flow, model, 2)
    step = lambda m, grid, a: m.decode(m.step(m.encode({"q": grid.to_grid(a)})))["q"]
    small, large = step(model, coarse, q_hat), step(finer, fine, coarse.resize(q_hat, fine))
    assert error(large[:, ::2, ::2], small) < 1e-5


def growing(rate):
    """An emulator whose fields grow by the same share in every lead."""
    return hg.Emulator(lambda x: rate * x, ("q",), dt=1.0)


def test_states_of_lost_runs_are_those_before_they_were_lost():
    """Fields that grow by 1 % a lead: variance by 4 after 70 leads, and the states are the record times powers.

    Of fields that shrink it is the first that is looked at once amplified records had time to come back.
    """
    rng = np.random.default_rng(0)
    fields = {"q": np.tile(rng.normal(size=(1, 1, 16, 16)).astype(np.float32), (3, 1, 1, 1))}
    fields["q"] -= fields["q"].mean()
    config = replace(SMOKE, strays=2, stray_leads=200, stray_excess=1.0, stray_limit=4.0, stray_decades=0.0)
    grid = flows.flow(SMOKE).grid(1)
    found, lost = astray.states(config, grid, growing(0.01), fields, rng)
    assert lost == [70, 70] and len(found) == 6  # looks after 10, 20 ... 60 leads: the twelfth before is none
    for made, leads in zip(found, (60, 40, 10) * 2, strict=True):
        assert error(made["q"], 1.01**leads * fields["q"][0]) < 1e-5
    found, lost = astray.states(replace(config, strays=5, stray_leads=600), grid, growing(-0.001), fields, rng)
    assert lost == [] and len(found) == 5
    leads = (astray.RELAX + 1) * astray.LOOK
    assert all(error(a["q"], 0.999**leads * fields["q"][0]) < 1e-4 for a in found)


def test_runs_that_die_out_are_lost_by_their_spectra():
    """Power that falls by 1 % in a lead, looked at over the last 25 looks once amplified records had time to return."""
    rng, grid = np.random.default_rng(0), flows.flow(SMOKE).grid(1)
    fields = {"q": np.tile(rng.normal(size=(1, 1, 16, 16)).astype(np.float32), (3, 1, 1, 1))}
    fields["q"] -= fields["q"].mean()
    config = replace(SMOKE, strays=2, stray_leads=900, stray_excess=1.0, stray_limit=4.0, stray_decades=1.5)
    rate = 1 - 0.99**0.5
    found, lost = astray.states(config, grid, growing(-rate), fields, rng)
    powers = lambda look: np.log10(np.mean(0.99 ** (astray.LOOK * np.arange(look - astray.SPAN + 1, look + 1))))
    first = next(look for look in range(astray.RELAX + 1, 90) if -powers(look) >= 1.5)
    assert lost == [first * astray.LOOK] * 2 and len(found) == 2 * len(astray.BEFORE)
    assert error(found[0]["q"], (1 - rate) ** (astray.LOOK * (first - 1)) * fields["q"][0]) < 1e-4
    truth = {"q": np.array([[1.0, 2.0, 1e-9]])}
    assert np.allclose(astray.decades({"q": np.array([[[0.1, 200.0, 5.0]]])}, truth), 1.5)
    assert np.isnan(astray.decades({"q": np.full((1, 1, 3), np.nan)}, truth))


def test_the_solver_goes_on_where_it_can():
    """From rest it stays there, the start is the first record, and what blows up is left out."""
    flow = flows.flow(SMOKE)
    shape = 2, *flow.grid(1).shape
    rng = np.random.default_rng(0)
    wave = np.cos(2 * np.pi * np.arange(16) / 16).astype(np.float32)
    starts = [np.zeros(shape, np.float32), np.broadcast_to(1e-6 * wave, shape), 1e3 * rng.normal(size=shape)]
    runs = astray.onwards(flow, [{"q": a.astype(np.float32)} for a in starts], 2)
    assert len(runs) == 2 and runs[0]["q"].shape == (3, *shape) and not runs[0]["q"].any()
    model = flow.solver(1)
    state, _ = eqx.filter_jit(hg.rollout)(model, model.encode({"q": starts[1]}), 12, every=12, save=None)
    assert np.array_equal(runs[1]["q"][0], starts[1].astype(np.float32))
    assert error(runs[1]["q"][1], model.decode(state)["q"]) < 1e-3


def test_the_solver_draws_back_what_is_beyond_the_records_and_nothing_else():
    """Uniform in x a flow stands still, but for drag in weeks: x' = −2 (x − 1)/τ, x as in `Recall`."""
    flow = flows.flow(SMOKE)._replace(lead=7200.0)
    shape, tau = (2, *flow.grid(1).shape), 2 * flow.lead
    wave = 1e-9 * np.cos(2 * np.pi * np.arange(16) / 16).astype(np.float32)[:, None]
    usual = np.broadcast_to(np.roll(wave, 4, 0), shape)
    records = {"q": np.stack([usual + wave, usual - wave])}
    size = lambda run: [np.sqrt((a - usual).var() / wave.var()) for a in run["q"]]
    runs = astray.onwards(flow, [{"q": usual + 2 * wave}, {"q": usual + 0.5 * wave}], 2, records, tau)
    assert np.allclose(size(runs[0]), np.sqrt(1 + 3 * np.exp([0, -1, -2])), rtol=0.02)
    assert np.allclose(size(runs[1]), 0.5, rtol=0.02)


def test_the_expert_of_shallow_water_loses_gravity_waves_and_keeps_vortices():
    """A day from a hill without wind: hardly a wave of divergence is left, unlike in the truth; the rest is alike."""
    flow = flows.flow(replace(SMOKE, flow="shallow_water"))
    rest = flow.grid(1)
    hill = np.exp(-((np.asarray(rest.x) - 5e5) ** 2 + (np.asarray(rest.y)[:, None] - 5e5) ** 2) / 2e5**2)
    fields = {name: np.zeros((1, 16, 16), np.float32) for name in flow.names} | {"phi": 20 * (hill - hill.mean())[None]}
    (made,) = astray.onwards(flow, [fields], 4)
    (truth,) = astray.onwards(flow._replace(expert=lambda: flow.solver(4)), [fields], 4)
    ends = [{name: run[name][-1] for name in ("zeta", "delta")} for run in (made, truth)]
    assert ends[0]["delta"].std() < 0.1 * ends[1]["delta"].std()
    assert np.corrcoef(ends[0]["zeta"].ravel(), ends[1]["zeta"].ravel())[0, 1] > 0.8


def test_looks_measure_energy_and_variance():
    """A plane wave of u: kinetic energy U²/4, all variance of q in the shell of its wavenumber."""
    flow = flows.flow(SMOKE)
    solver, grid = flow.solver(1), flow.grid(1)
    k, psi = 2 * np.pi / grid.length[0] * 3, np.zeros((2, *grid.shape), np.float32)
    psi[:] = 100 * np.cos(k * np.asarray(grid.y))[:, None]
    q_hat = solver.equation.potential_vorticity(solver.equation.grid.to_spectral(jnp.asarray(psi)))
    look = scores.Look(solver, grid).of({"q": solver.equation.grid.to_grid(q_hat)})
    assert np.allclose(look["kinetic"], (100 * k) ** 2 / 4, rtol=1e-4)
    spectrum = np.asarray(look["spectrum"]["q"])
    assert (spectrum.argmax(1) == 3).all() and np.allclose(spectrum.sum(1), look["variance"]["q"], rtol=1e-4)


def test_valid_times_are_counted_until_the_first_crossing():
    errors = np.array([[0.1, 0.4, 0.6, 0.2], [0.6, 0.1, 0.1, 0.1], [0.1, 0.2, 0.3, 0.4], [0.1, np.nan, 0.1, 0.1]])
    assert report._valid(errors).tolist() == [2, 0, 4, 1]


def test_the_network_that_loses_fewest_runs_is_kept():
    assert stages.best([]) == 0
    assert stages.best([[10, 20, 30], [], []]) == 2
    assert stages.best([[10, 20], [900], [50, 60, 70]]) == 1
    assert stages.best([[10, 20], [50, 60], [10, 30]]) == 1


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("emulators") / "smoke"
    run.main(["--preset", "smoke", "--out", str(folder)])
    return folder


def test_the_experiment_runs_and_reports(finished):
    found = json.loads((finished / "report.json").read_text())
    assert set(found["models"]) == {"solver", "FNO", "linear", "persistence"}
    still, fno = found["models"]["persistence"][0], found["models"]["FNO"][0]
    assert np.array(fno["error1"]).shape == (SMOKE.starts, SMOKE.forecast)
    assert np.array(fno["error2"]).shape == np.array(fno["error4"]).shape == (1, SMOKE.forecast)
    assert np.mean(fno["error1"], 0)[0] < 1.5 * np.mean(still["error1"], 0)[0]
    assert fno["lost"] == [[astray.LOOK] * SMOKE.strays] * 2 and fno["kept"] == 1
    assert fno["many"]["scores"]["members"] == SMOKE.many and fno["ensemble_scores"]["members"] == SMOKE.members
    text = (finished / "report.md").read_text()
    assert text.count("\n| FNO |") == 3 and "![spectra](spectra.png)" in text
    for name in ("errors", "spectra", "fields"):
        assert (finished / f"{name}.png").stat().st_size > 5000


def test_the_records_are_the_solvers_and_their_grids_agree(finished):
    flow = flows.flow(SMOKE)
    data = next((finished / "stages").glob("truth-*"))
    fine, coarse = (records.later(flow, data, factor)["q"] for factor in (4, 1))
    grid, small = flow.grid(4), flow.grid(1)
    cut = small.to_grid(grid.resize(grid.to_spectral(jnp.asarray(fine[0])), small))
    assert error(cut, coarse[0]) < 1e-5
    model = flow.solver(4)
    state = model.encode({"q": jnp.asarray(fine[1])})
    stride = round(flow.lead / model.dt)
    _, out = records.ROLL(model, state, stride, every=stride, save=scores.decoded)
    assert error(out["save"]["q"][0], fine[2]) < 0.05  # the multistep scheme starts anew, at a day of the calm start


def test_a_finished_run_is_read_not_repeated(finished, capsys):
    before = (finished / "report.json").read_bytes()
    run.main(["--preset", "smoke", "--out", str(finished)])
    assert "starts" not in capsys.readouterr().out
    assert (finished / "report.json").read_bytes() == before
