"""Training over devices and processes is training on one: losses, gradients, weights, checkpoints, no gathering."""

import functools
import itertools
import json
import sys
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest
import sharding_worker as worker
from helpers import error

import hybridgcm as hg
from hybridgcm import nn, train
from hybridgcm.parallel import accumulated, collected, mesh, sharded
from hybridgcm.processes import join, start

ROOT = Path(__file__).parents[1]
ONE_PROCESS = [
    [4, 1, "data", True], [1, 4, "data", False], [2, 2, "data", False], [4, 1, "accumulated", False],
    [4, 1, "physics", False], [1, 4, "physics", True], [2, 2, "physics", False],
]  # fmt: skip
TWO_PROCESSES = [[2, 1, "data", True], [1, 2, "data", False], [1, 2, "physics", True], [2, 2, "physics", False]]
EVERY = [list(case) for case in itertools.product((1, 2, 4), (1, 2, 4), worker.KINDS, (True, False))]
TOLERANCE = 1e-12
"""In double precision, relative to the largest value; measured: 6e-15. The acceptance bound is 1e-6."""


def run(folder, cases, processes, devices):
    """(results of process 0 by name, what each process reports)."""
    command = [sys.executable, str(ROOT / "tests" / "sharding_worker.py"), str(folder / "out.npz"), json.dumps(cases)]
    environment = {"PYTHONPATH": str(ROOT), "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}  # they compile in half the time
    printed = start(command, processes, devices=devices, environment=environment, timeout=170)
    report = lambda text: json.loads(next(line for line in text.splitlines() if line.startswith("REPORT"))[6:])
    return dict(np.load(folder / "out.npz")), [report(text) for text in printed]


@pytest.fixture(scope="module")
def four(tmp_path_factory):
    return run(tmp_path_factory.mktemp("four"), ONE_PROCESS, 1, 4)


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    return run(tmp_path_factory.mktemp("two"), TWO_PROCESSES, 2, 2)


@pytest.fixture(scope="module")
def alone():
    """Trained by plain `fit` here, on one device and without a mesh: {(kind, even): results}."""
    known = {}

    def get(kind, even):
        kind = "data" if kind == "accumulated" else kind
        if (kind, even) not in known:
            known[kind, even] = worker.trained(
                worker.objective(kind, lambda term, axes: term), [worker.everything(even)] * 10
            )
        return known[kind, even]

    return get


def label(case):
    return f"{case[0]}x{case[1]} {case[2]} {'even' if case[3] else 'uneven'}"


def compare(found, cases, alone):
    wrong = {}
    for case in cases:
        for name, expected in alone(*case[2:]).items():
            made = found[f"{label(case)}/{name}"]
            assert np.isfinite(expected).all() and np.abs(expected).max() > 0
            wrong[f"{label(case)}: {name}"] = error(made, expected)
    assert max(wrong.values()) < TOLERANCE, {name: value for name, value in wrong.items() if value >= TOLERANCE}


def test_four_devices_train_as_one(four, alone):
    compare(four[0], ONE_PROCESS, alone)


def test_two_processes_train_as_one(two, alone):
    compare(two[0], TWO_PROCESSES, alone)


@pytest.mark.slow
@pytest.mark.parametrize(("processes", "devices"), [(1, 4), (1, 2), (1, 1), (2, 1), (2, 2)])
def test_the_whole_matrix(processes, devices, alone, tmp_path):
    cases = [case for case in EVERY if case[0] * case[1] == processes * devices]
    compare(run(tmp_path, cases, processes, devices)[0], cases, alone)


def test_training_through_the_solver_is_split_too(four):
    """Three windows over four devices, in single precision."""
    for name, expected in worker.solver(None).items():
        assert error(four[0][f"4x1 solver uneven/{name}"], expected) < 1e-5, name


def test_a_step_gathers_nothing(four):
    counts = four[1][0]["collectives"]
    assert len(counts) == 2
    for case, found in counts.items():
        others = {name: count for name, count in found.items() if name != "all-reduce"}
        assert not any(others.values()) and 1 <= found["all-reduce"] <= 6, (case, found)


def test_gradients_inside_are_wrong_by_the_number_of_devices(four):
    """The reason why `sharded` sums losses and leaves the gradient to `fit`; when JAX changes this, we want to know."""
    assert four[1][0]["trap"] == {"inside": 4.0, "outside": 1.0}


def test_processes_stop_together_and_one_of_them_saves(two, alone):
    """One of two is asked to stop after five steps; both do, and go on to the bits of... one device, to rounding."""
    first, second = (report["resumed"] for report in two[1])
    assert first["steps"] == second["steps"] == list(range(10)), (first["steps"], second["steps"])
    assert first["saves"] == [3, 5, 6, 9, 10] and second["saves"] == []
    assert first["weights"] == second["weights"]
    assert error(first["weights"], alone("data", False)["weights"]) < TOLERANCE


# On one device


@functools.cache
def setting(even=False):
    net, batch = worker.network(), worker.everything(even)
    return net, batch, train.queries(train.squares, ("u0",), ("t", "x"), ("u",))


def refuse(objective, batch, words):
    with pytest.raises(ValueError, match=words):
        eqx.filter_eval_shape(objective, setting()[0], batch, jr.key(0))


def evaluate(objective, model, batch):
    return eqx.filter_jit(objective)(model, batch, jr.key(0))


def test_weights_count_samples_and_queries():
    """A weight of zero is as leaving out; weights 2 are as two copies."""
    net, batch, objective = setting()
    weights = {"w": np.array([1.0, 2, 0, 1, 0, 0, 1]), "v": np.array([1.0, 0, 1, 1, 2, 0, 0, 0, 1, 1])}
    made = sharded(objective, mesh(1), worker.LAYOUTS["data"], {"branch": "w", "trunk": "v"})
    found = evaluate(made, net, batch | weights)
    rows, columns = (np.repeat(np.arange(len(w)), w.astype(int)) for w in weights.values())
    chosen = {"u0": batch["u0"][rows], "u": batch["u"][rows][:, columns]} | {n: batch[n][columns] for n in ("t", "x")}
    assert abs(float(found / jnp.mean(evaluate(objective, net, chosen))) - 1) < 1e-13


@pytest.mark.parametrize("parts", [1, 2, None])
def test_parts_add_up(parts):
    net, batch, objective = setting(even=True)
    split = accumulated(objective, parts, names=("u0", "u"))
    gradient = lambda objective: eqx.filter_jit(
        eqx.filter_grad(lambda net: jnp.mean(objective(net, batch, jr.key(0))))
    )(net)
    for a, b in zip(jax.tree.leaves(gradient(split)), jax.tree.leaves(gradient(objective)), strict=True):
        assert error(a, b) < 1e-12
    assert eqx.filter_eval_shape(split, net, batch, jr.key(0)).shape == (8, 12)


def test_parts_take_the_memory_of_one():
    net = nn.point_deeponet(8, 2, rank=8, width=8, depth=1, key=jr.key(0))
    batch = {"u0": np.ones((256, 8)), "t": np.ones(256), "x": np.ones(256)}
    inside = train.physics(train.burgers(0.1), ("u0",), ("t", "x"))

    def needed(objective):
        weights, rest = eqx.partition(net, eqx.is_inexact_array)
        loss = lambda weights, batch: jnp.mean(objective(eqx.combine(weights, rest), batch, jr.key(0)))
        return jax.jit(jax.grad(loss)).lower(weights, batch).compile().memory_analysis().temp_size_in_bytes

    whole, parts = needed(inside), needed(accumulated(inside, 16, names=("u0",)))
    assert parts < 0.25 * whole, (parts, whole)


def test_an_objective_of_numbers_is_split_by_samples():
    """`supervised` gives a number; over one device it is itself."""
    model = nn.Normalised(lambda x: 2 * x, (0.0, 0.0), (1.0, 1.0))
    batch = {name: jr.normal(jr.key(seed), (3, 1, 4, 4)) for seed, name in enumerate("au")}
    objective = train.supervised(hg.metrics.mse("u"), ("a",), ("u",))
    expected = evaluate(objective, model, batch)
    for made in (objective, accumulated(objective)):
        assert abs(float(evaluate(sharded(made, mesh(1)), model, batch) / expected) - 1) < 1e-12


@pytest.mark.parametrize(
    ("axes", "weights", "words"),
    [
        ({"v": ("branch",)}, None, r"axes names \['v'\], which the batch does not hold"),
        ({"u0": ("brunch",)}, None, r"\['brunch'\] are not axes of the mesh"),
        ({"t": ("trunk", None)}, None, "too few dimensions"),
        ({"u0": ("branch",), "u": ("trunk",)}, {"trunk": "t"}, "on 'trunk' there are"),
        (None, {"branch": "w"}, r"axes names \['w'\], which the batch does not hold"),
        (None, None, "on 'branch' there are"),
    ],
)
def test_layouts_that_do_not_fit_are_refused(axes, weights, words):
    _, batch, objective = setting()
    refuse(sharded(objective, mesh(1), axes, weights), batch, words)


def test_losses_that_cannot_be_told_apart_are_refused():
    _, batch, objective = setting()
    mean = lambda *arguments: jnp.mean(objective(*arguments))
    one = lambda weights: sharded(mean, mesh(1), worker.LAYOUTS["data"], weights)
    refuse(one({"branch": "w"}), batch | {"w": np.ones(7)}, "expected one per sample")
    refuse(one({"trunk": "v"}), batch | {"v": np.ones(10)}, "expected one per query")
    refuse(accumulated(objective, 2, names=("u0", "u")), batch, "2 equal parts of a batch with samples")


def test_meshes_and_launchers_that_do_not_fit_are_refused(monkeypatch):
    with pytest.raises(ValueError, match="a mesh of 3 x 2 needs 6 devices"):
        mesh(3, 2)
    assert join() == 0, "alone"
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="set all of them"):
        join()


def test_a_process_that_fails_ends_the_others():
    code = "import os, sys, time; sys.exit('no') if os.environ['HYBRIDGCM_PROCESS'] == '1' else time.sleep(60)"
    with pytest.raises(RuntimeError, match="process 1 of 2 ended with code 1"):
        start([sys.executable, "-c", code], 2)
    with pytest.raises(TimeoutError, match=r"processes \[0\] of 1"):
        start([sys.executable, "-c", "import time; time.sleep(60)"], 1, timeout=0.3)


def test_batches_are_laid_over_the_mesh():
    net, batch, objective = setting(even=True)
    over, axes = mesh(1), worker.LAYOUTS["data"]
    (laid,) = collected([batch], over, axes)
    assert tuple(laid["u"].sharding.spec) == ("branch", "trunk") and tuple(laid["start"].sharding.spec) == ()
    options = {"where": lambda m: m, "key": jr.key(0)}
    made, _ = hg.fit(net, [laid], sharded(objective, over, axes), optax.sgd(0.1), **options)
    expected, _ = hg.fit(net, [batch], objective, optax.sgd(0.1), **options)
    assert error(worker.flat(made), worker.flat(expected)) < 1e-14
