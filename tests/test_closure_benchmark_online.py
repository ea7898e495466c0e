"""Online, gradient-free and calibrated methods of the closure benchmark: each learns, runs, and repeats bit for bit."""

import json
import shutil
import sys

import equinox as eqx
import jax
import jax.random as jr
import numpy as np
import pytest
from benchmark import METHODS, TINY
from helpers import run, same_bits

from experiments.closure_benchmark import data, emulator, rows, systems, training, tuning
from hybridgcm import nn


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    """(problem, root), the network made smaller, and the scored climate out of reach."""
    root = tmp_path_factory.mktemp("online")

    def unseen(self):
        raise AssertionError("a method read the climate that it is scored against")

    def tiny_cnn(problem, seed):
        return training.network(problem, nn.CNN((6, 4, 2), (3, 3), key=jr.key(seed), activation=jax.nn.silu))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data.Data, "reference", property(unseen))
        for module in (training, emulator):
            patch.setattr(module, "small_cnn", tiny_cnn)
        patch.setattr(emulator, "SMALL", emulator.Size(1, 4, 3))
        problem = training.Problem(TINY, rows.open_data(root, TINY.truths, systems.system("eddy16")))
        training.offline(problem, tiny_cnn(problem, 0), 0, root / "shared" / "offline")
        yield problem, root


def made(bench, name):
    """(closure, its folder) of a method; what all online methods begin with is copied, not trained again."""
    problem, root = bench
    folder = root / name
    if not folder.exists():
        folder.mkdir()
        for part in (root / "shared").iterdir():
            shutil.copytree(part, folder / part.name)
    return rows.load_method(name, METHODS).closure(problem, 0, folder), folder


def check(bench, name, start):
    """The closure differs from `start`, runs, and is given again bit for bit."""
    problem, _ = bench
    closure, folder = made(bench, name)
    assert not same_bits(*(eqx.filter(problem.model(c).closure, eqx.is_array) for c in (closure, start)))
    model = problem.model(closure)
    end = run(model, model.encode({"q": problem.data.validation[0]["q"][-1]}), 5)
    assert np.isfinite(np.asarray(end.y["q"])).all()
    assert same_bits(made(bench, name)[0], closure), "a second call gave another closure"
    return closure, folder


def log_of(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def offline_start(bench):
    problem, root = bench
    return training.offline(problem, training.small_cnn(problem, 0), 0, root / "shared" / "offline")


SLOW = (
    "online_one_step", "online_scratch", "online_spectra", "online_state", "online_curriculum", "online_statistics",
    "online_energies", "online_pinned",
)  # fmt: skip
NETWORKS = ("online_cnn", "online_no_gradient", "approximate_online")


@pytest.mark.parametrize("name", [*NETWORKS, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)])
def test_an_online_method_moves_its_network_runs_and_repeats(bench, name):
    _, folder = check(bench, name, offline_start(bench))
    log = log_of(folder if name == "online_scratch" else folder / "online")
    assert all(record["gradient_norm"] > 0 and not record["skipped"] for record in log), log


def test_three_kinds_of_gradient_of_one_loss(bench):
    """Full, without temporal part, and with the solver taken for the identity: same start, batch and loss."""
    first = [log_of(made(bench, name)[1] / "online")[0] for name in NETWORKS[:3]]
    losses, norms = ([record[key] for record in first] for key in ("loss", "gradient_norm"))
    assert losses == pytest.approx([losses[0]] * 3, rel=1e-4), losses
    assert min(abs(norms[0] / norms[1] - 1), abs(norms[0] / norms[2] - 1), abs(norms[1] / norms[2] - 1)) > 1e-3, norms


@pytest.mark.slow
def test_early_stopping_takes_the_network_with_the_best_free_runs(bench):
    closure, folder = check(bench, "online_early", offline_start(bench))
    scores = [record["score"] for record in log_of(folder / "online")]
    assert len(scores) == 2 and np.isfinite(scores).all()
    score = tuning.misfit(bench[0], snapshots=32, runs=4)
    assert score(bench[0].model(closure)) == pytest.approx(min(scores), rel=1e-4)


def test_an_amplitude_is_trained_through_the_solver(bench):
    closure, _ = made(bench, "tuned_by_gradient")
    check(bench, "tuned_by_gradient", eqx.tree_at(lambda c: c.amplitude, closure, 1 + 0 * closure.amplitude))
    assert closure.inner.smagorinsky == np.float32(0.007**0.5), "one number is trained, not the constants"


# Through an emulator


@pytest.fixture(scope="module")
def stage_two(bench):
    """What `rollouts` was given and gave, in order, while emulator_subgrid_small was made."""
    seen, rollouts = [], training.rollouts

    def watched(problem, model, *rest, **how):
        seen.append((model, rollouts(problem, model, *rest, **how)))
        return seen[-1][1]

    with pytest.MonkeyPatch.context() as patch:
        for module in (training, emulator):
            patch.setattr(module, "rollouts", watched)
        made(bench, "emulator_subgrid_small")
    return seen


def test_the_emulator_learns_alone_and_is_frozen_while_the_closure_learns(bench, stage_two):
    (before, emulated), (start, trained) = stage_two
    assert before.closure is None and not same_bits(before.equation, emulated.equation)
    assert same_bits(start.equation, emulated.equation), "stage two runs in what stage one made"
    assert same_bits(trained.equation, start.equation), "the emulator moved"
    assert not same_bits(trained.closure, start.closure)


def test_a_closure_from_an_emulator_runs_in_the_real_solver_and_its_leakage_is_measured(bench, stage_two):
    _, folder = check(bench, "emulator_subgrid_small", offline_start(bench))
    found = json.loads((folder / "emulator.json").read_text())
    assert found["frames_hours"] == [8.0 * (i + 1) for i in range(6)]
    for part in ("without", "with"):
        assert set(found[part]) == {"emulator", "solver_to_truth", "emulator_to_truth"}
        assert all(len(errors) == 6 and min(errors) > 0 for errors in found[part].values()), found[part]
    errors = found["without"]["emulator"]
    assert errors[0] < errors[-1] < 1, f"a trained emulator follows the solver for two days: {errors}"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["emulator_state_small", "emulator_state_large"])
def test_the_other_emulators_train_closures_too(bench, name):
    check(bench, name, offline_start(bench))


def test_runs_of_the_coarse_solver_are_what_the_emulator_learns(bench):
    problem, _ = bench
    one = emulator.bare_runs(problem, 3, starts=2)[0]["q"]
    model = problem.model()
    state = model.encode({"q": problem.data.train[0]["q"][0]})
    for i in range(4):
        np.testing.assert_allclose(one[i], model.decode(state)["q"], atol=2e-6 * np.abs(one).max())
        state = run(model, state, 1)


# Without gradients


def test_constants_are_calibrated_by_ensemble_kalman_inversion(bench):
    _, folder = check(bench, "eki_classical", tuning.classical(bench[0]))
    records = log_of(folder)
    assert records[0]["failed"] == 0 and np.isfinite(records[0]["misfit"])


def test_constants_are_calibrated_by_evolution(bench):
    pytest.importorskip("cmaes")
    closure, folder = check(bench, "evolution", tuning.classical(bench[0]))
    trials = log_of(folder)
    assert len(trials) == 8 and np.isfinite([trial["misfit"] for trial in trials]).all()
    (folder / "calibrated.ckpt").unlink()  # as if killed before its end: trials that are known are not run again
    assert same_bits(made(bench, "evolution")[0], closure) and len(log_of(folder)) == 8


def test_without_the_library_evolution_says_how_to_get_it(bench, monkeypatch):
    monkeypatch.setitem(sys.modules, "cmaes", None)
    with pytest.raises(RuntimeError, match=r"pip install .*hybridgcm\[benchmark\]"):
        rows.load_method("evolution", METHODS).closure(bench[0], 0, bench[1])


def test_the_statistics_of_the_tuning_climate_itself_fit(bench):
    """A climate is its own target: with the truth's snapshots as the run, every statistic is one or its share."""
    statistics, target, noise = tuning.free_statistics(bench[0])
    assert np.isfinite(target).all() and np.abs(target).max() < 10 and (np.diag(noise) >= tuning.FLOOR**2).all()
    spectra = target[: -(len(target) // 3)]
    assert spectra == pytest.approx(np.ones_like(spectra))
