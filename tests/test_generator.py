"""The data-set generator: vectorised runs are single runs, splits and statistics go by run, a kill costs nothing."""

import hashlib
import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from helpers import error

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import hybridgcm as hg  # noqa: E402
from experiments.data_generator import generate, read  # noqa: E402
from experiments.data_generator.config import PRESETS, SAMPLED, SMOKE  # noqa: E402
from hybridgcm import coarsen, train  # noqa: E402
from hybridgcm.batches import samples  # noqa: E402
from hybridgcm.data import read_store  # noqa: E402


def start(out, *words, cache=None):
    command = [sys.executable, "experiments/data_generator/run.py", "--preset", "smoke", "--out", str(out), *words]
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    environment |= {"JAX_COMPILATION_CACHE_DIR": str(cache), "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1"}
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def finish(process):
    out, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors[-3000:]
    return out


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def finished(tmp_path_factory, cache):
    folder = tmp_path_factory.mktemp("data") / "set"
    assert "catalogue" in finish(start(folder, cache=cache))
    return folder


def contents(store):
    return {
        f.relative_to(store).as_posix(): hashlib.sha256(f.read_bytes()).hexdigest()
        for f in store.rglob("*")
        if f.is_file()
    }


# What a run is


def test_parameters_are_drawn_within_their_ranges_and_depend_on_seed_and_run_alone():
    drawn = [generate.parameters(PRESETS["laptop"], run) for run in range(200)]
    for name in SAMPLED:
        low, high = getattr(PRESETS["laptop"], name)
        values = np.array([each[name] for each in drawn])
        assert low <= values.min() < low + 0.05 * (high - low) and high >= values.max() > high - 0.05 * (high - low)
    other = replace(PRESETS["laptop"], runs=50, members=7, fine=128)
    assert generate.parameters(other, 5) == drawn[5] != generate.parameters(replace(other, seed=1), 5)
    assert generate.parameters(PRESETS["ross"], 3) == pytest.approx(
        {"rd": 15e3, "delta": 0.25, "beta": 1.5e-11, "shear": 0.025, "drag": 5.787e-7}
    )


def test_every_run_is_in_one_split_and_the_presets_fit_together():
    for config in PRESETS.values():
        assert not list(config.problems())
        splits = [generate.split(config, run) for run in range(config.runs)]
        assert splits.count("test") == config.test and splits.count("validation") == config.validation
        assert splits.count("train") == config.runs - config.test - config.validation
    calm = replace(SMOKE, beta=(1.5e-11, 3e-11))
    assert any("would decay" in problem for problem in calm.problems())
    assert any("none to train on" in problem for problem in replace(SMOKE, test=4).problems())


def test_a_vectorised_step_and_record_are_those_of_each_run_alone():
    runs = (0, 1, 2)
    pairs = [generate.models(SMOKE, run) for run in runs]
    ensemble = generate.Ensemble(pairs)
    q = jnp.stack([generate.first_state(SMOKE, run) * 5 for run in runs])
    state = ensemble.encode({"q": q})
    shared = [leaf.ndim for leaf in jax.tree.leaves(ensemble.shared[0].equation.grid)]
    assert shared and not jax.tree.leaves(ensemble.varying[0].equation.grid), "one grid for all runs"
    state = eqx.filter_jit(lambda e, s: hg.rollout(e, s, 5, save=None)[0])(ensemble, state)
    kept = eqx.filter_jit(lambda e, s: generate.record(3, 2, coarsen.operator1, e, s))(ensemble, state)
    assert kept["q"].shape == kept["S"].shape == (3, 3, 2, 16, 16)
    for i, (fine, coarse) in enumerate(pairs):
        alone = eqx.filter_jit(hg.rollout)(fine, fine.encode({"q": q[i]}), 9, save=lambda m, s: s.y)[1]["save"]["q"]
        for lead in range(3):
            sample = coarsen.sample(fine, coarse, {"q": alone[4 + 2 * lead]})
            for name in ("q", "S"):
                assert error(kept[name][i, lead], sample[name]) < 1e-4, (i, lead, name)
    assert error(ensemble.view(state)["q"][2], fine.equation.grid.to_grid(alone[4])) < 1e-5


# The data set


def test_stores_are_sharded_cf_and_say_what_they_hold(finished):
    table = read.catalogue(finished)
    assert [run["run"] for run in table["runs"]] == list(range(5))
    stores = {run["store"] for run in table["runs"]}
    assert len(stores) == 3, "one per batch"
    for store in stores:
        found = read_store(finished / store)
        assert found["q"].dims == ("time", "run", "lead", "layer", "y", "x") and found["S"].attrs["units"] == "s-2"
        assert found["lead"].values.tolist() == [0.0, 7200.0, 14400.0] and found["lead"].attrs["units"] == "s"
        assert found["time"].values.tolist() == [3600.0 * (24 + 4 * i) for i in range(1, 7)]
        assert found.attrs["operator"] == "operator1" and found.attrs["sign"].startswith("tendency")
        for position, run in enumerate(found["run"].values):
            for name in SAMPLED:
                assert found.attrs[name][position] == table["runs"][int(run)]["parameters"][name]
        assert {found.attrs[f"{name}_units"] for name in SAMPLED} == set(SAMPLED.values())


def test_splits_divide_runs_never_time(finished):
    parts = {split: read.load(finished, split) for split in ("train", "validation", "test")}
    assert {split: part["q"].shape for split, part in parts.items()} == {
        "train": (18, 3, 2, 16, 16), "validation": (6, 3, 2, 16, 16), "test": (6, 3, 2, 16, 16)
    }  # fmt: skip
    table = read.catalogue(finished)["runs"]
    last = read_store(finished / table[4]["store"])
    assert table[4]["split"] == "test" and np.array_equal(parts["test"]["S"], last["S"].sel(run=4).values)
    with pytest.raises(ValueError, match="no runs of split 'tets'"):
        read.load(finished, "tets")


def test_frames_of_a_window_follow_each_other(finished):
    """A window's frames and the first frame of the next window are of one trajectory: every = 4, frame = 2."""
    q = read.load(finished, "train")["q"].reshape(3, 6, 3, 2, 16, 16)
    assert error(q[:, :-1, 2], q[:, 1:, 0]) < 1e-6
    assert np.abs(q[:, :, 1] - q[:, :, 0]).max() > 0


def test_statistics_are_those_of_the_training_runs_alone(finished):
    found = json.loads((finished / read.catalogue(finished)["statistics"]).read_text())
    learn = read.load(finished, "train")
    for name in ("q", "S"):
        wide = np.asarray(learn[name], np.float64)
        assert np.allclose(found[name]["mean"], wide.mean((0, 1, 3, 4)), rtol=1e-9, atol=1e-9 * wide.std())
        assert np.allclose(found[name]["rms"], np.sqrt((wide**2).mean((0, 1, 3, 4))), rtol=1e-12)
    assert found["of"]["runs"] == [0, 1, 2] and found["of"]["values_per_layer"] == learn["q"][:, :, 0].size
    assert len(found["of"]["sha256"]) == 64 and found["units"] == {"q": "s-1", "S": "s-2"}


def test_a_closure_trains_on_what_is_read(finished):
    learn = read.load(finished, "train")
    flat = {name: a.reshape(-1, *a.shape[2:]) for name, a in learn.items()}
    closure = hg.NetworkClosure.from_data(
        hg.nn.CNN((2, 4, 2), (3, 3), key=jr.key(0)), {"q": flat["q"]}, {"q": flat["S"]}
    )
    low = generate.models(SMOKE, 0)[1]
    model = hg.Model(low.equation, low.stepper, closure, dt=low.dt)
    import optax

    for objective, data in (
        (train.offline(hg.metrics.mse("S")), flat),
        (train.online(hg.metrics.mse("q"), every=2), {"q": learn["q"]}),
    ):
        batches = samples(data, 4, 3, jr.key(1))
        _, log = hg.fit(model, batches, objective, optax.adam(1e-3), where=lambda m: m.closure.net, key=jr.key(2))
        assert all(np.isfinite(row["loss"]) and row["gradient_norm"] > 0 for row in log), log


# Resuming


def test_a_second_call_finds_everything_done(finished, cache):
    assert " starts" not in finish(start(finished, cache=cache))


@pytest.mark.slow
def test_killed_and_started_again_the_store_has_the_bits_of_an_uninterrupted_run(tmp_path, cache):
    words = ("--records", "59", "--runs", "3", "--members", "3")
    finish(start(tmp_path / "whole", *words, cache=cache))
    (whole,) = (tmp_path / "whole").glob("stages/batch-*/records/output.zarr")
    killed = 0
    for attempt in range(6):
        folder = tmp_path / f"killed-{attempt}"
        for _ in range(2):
            process = start(folder, *words, cache=cache)
            seen = _wait_for_records(folder, process, 10 * (1 + killed % 2))
            process.kill()
            process.communicate()
            killed += seen and process.returncode == -9
        finish(start(folder, *words, cache=cache))
        (store,) = folder.glob("stages/batch-*/records/output.zarr")
        assert contents(store) == contents(whole)
        if killed >= 2:
            return
    pytest.fail(f"only {killed} kills came in time: the runs are too short for this machine")


def _wait_for_records(folder, process, records) -> bool:
    """Whether the store has `records` or more complete records, but not all, while the process still runs."""
    while process.poll() is None:
        for file in folder.glob("stages/batch-*/records/output.zarr/zarr.json"):
            try:
                complete = json.loads(file.read_text())["attributes"]["records_complete"]
            except (ValueError, KeyError, OSError):
                continue
            if records <= complete < 59:
                return True
        time.sleep(0.002)
    return False
