"""What goes with a training: early stopping, averaged weights, logs that last, memory and gradients known before."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest
from helpers import eddies, same_bits

import hybridgcm as hg
from hybridgcm.checkpoint import Checkpoints
from hybridgcm.metrics import mse
from hybridgcm.train import (
    Averaged,
    EarlyStopping,
    Log,
    Together,
    choose_chunk,
    fit,
    gradient_norms,
    memory,
    online,
    preflight,
    read_log,
)

GRID = hg.Torus(16, 1e6)
FLOW = hg.QuasiGeostrophic.two_layer(GRID, tau=6 * 3600.0)
CLOSURE = lambda m: m.closure
CONSTANT = lambda m: float(m.closure.constant)
SGD = optax.sgd(0.1)
SQUARE = lambda m, batch, key: (m.closure.constant - 2) ** 2 / batch["a"]
"""With SGD(0.1) the distance of the constant to 2 shrinks by 0.8 a step; a batch with a = 0 is skipped."""


def model(constant=1.0):
    return hg.Model(FLOW, hg.AB3(), hg.Leith(constant), dt=3600.0)


def batches(count, bad=()):
    """`count` batches for SQUARE; those in `bad` give a loss that is not finite."""
    return [{"a": np.float32(i not in bad)} for i in range(count)]


class Killed(Exception):
    pass


def killer(step):
    def kill(index, model, record):
        if index == step:
            raise Killed

    return kill


# Early stopping


def test_training_stops_after_patience_and_keeps_the_best():
    """The score is lowest at 1.6, which training passes: distances to 2 are 0.8^n, 0.41 after the fourth step."""
    m = model()
    stopping = EarlyStopping(m, CLOSURE, lambda m: abs(CONSTANT(m) - 1.6), every=2, patience=3)
    trained, log = fit(m, batches(40), SQUARE, SGD, where=CLOSURE, key=jr.key(0), callback=stopping)
    assert len(log) == 10, "steps 5, 7 and 9 bring no progress"
    assert stopping.memory["step"] == 3 and CONSTANT(stopping.best) == pytest.approx(2 - 0.8**4, rel=1e-6)
    assert [record["step"] for record in log if "score" in record] == [1, 3, 5, 7, 9]
    assert log[3]["score"] == stopping.memory["score"] == pytest.approx(abs(0.4 - 0.8**4), rel=1e-5)
    assert CONSTANT(trained) == pytest.approx(2 - 0.8**10, rel=1e-6), "the last model is what fit returns"


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_score_that_is_not_finite_is_neither_selected_nor_a_reason_to_stop(bad):
    values = [bad, bad, bad, 5.0, bad, bad, 4.0, bad, 6.0, bad, 7.0, 3.0]
    seen = []

    def score(m):
        seen.append(CONSTANT(m))
        return values[len(seen) - 1]

    m = model()
    stopping = EarlyStopping(m, CLOSURE, score, every=1, patience=2)
    _, log = fit(m, batches(12), SQUARE, SGD, where=CLOSURE, key=jr.key(0), callback=stopping)
    assert len(log) == 11 and stopping.memory["score"] == 4.0
    assert CONSTANT(stopping.best) == seen[6]
    never = EarlyStopping(m, CLOSURE, lambda m: bad, every=1, patience=1)
    _, log = fit(m, batches(5), SQUARE, SGD, where=CLOSURE, key=jr.key(0), callback=never)
    assert len(log) == 5 and same_bits(never.best, m) and never.memory["step"] == -1


@pytest.mark.parametrize("options", [{"every": 0}, {"patience": 0}])
def test_early_stopping_needs_positive_counts(options):
    with pytest.raises(ValueError, match="at least 1"):
        EarlyStopping(model(), CLOSURE, CONSTANT, **options)


# Averaged weights


def test_averaged_weights_are_their_exponential_mean_without_skipped_steps():
    m, seen = model(), []
    averaged = Averaged(m, CLOSURE, decay=0.9)
    assert same_bits(averaged.model, m)
    keep = lambda step, m, record: None if record["skipped"] else seen.append(CONSTANT(m))
    callback = Together(keep, averaged)
    trained, log = fit(m, batches(8, bad=(2, 5)), SQUARE, SGD, where=CLOSURE, key=jr.key(0), callback=callback)
    assert sum(record["skipped"] for record in log) == 2
    weights = 0.9 ** np.arange(len(seen))[::-1]
    assert CONSTANT(averaged.model) == pytest.approx(np.sum(weights * seen) / weights.sum(), rel=1e-6)
    assert same_bits(eqx.tree_at(CLOSURE, averaged.model, None), eqx.tree_at(CLOSURE, m, None))
    assert averaged.model.closure.constant.dtype == jnp.float32


# Everything together, resumed


def tools(folder):
    """(all callbacks in one, those with a result)."""
    m = model()
    averaged = Averaged(m, CLOSURE, decay=0.8)
    stopping = EarlyStopping(m, CLOSURE, lambda _: abs(CONSTANT(averaged.model) - 1.7), every=3, patience=2)
    return Together(averaged, stopping, Log(folder / "log.jsonl")), averaged, stopping


@pytest.mark.parametrize("stop", [2, 9, 13])
def test_a_resumed_training_stops_where_the_uninterrupted_does_with_the_same_best_and_mean(tmp_path, stop):
    options = {"where": CLOSURE, "key": jr.key(0)}
    callback, averaged, stopping = tools(tmp_path / "whole")
    whole, log = fit(model(), batches(60, bad=(4,)), SQUARE, SGD, callback=callback, **options)
    assert 12 < len(log) < 60 and 0 < stopping.memory["step"] < len(log) - 1, (len(log), stopping.memory)
    results = []
    for kill in (killer(stop), killer(-1), killer(-1)):  # killed, resumed, and called again after the end
        callback, *found = tools(tmp_path / "cut")
        kept = {"checkpoints": Checkpoints(tmp_path / "cut" / "checkpoints"), "every": 5}
        try:
            callback = Together(*callback.callbacks, kill)
            results = [*found, *fit(model(), batches(60, bad=(4,)), SQUARE, SGD, callback=callback, **kept, **options)]
        except Killed:
            with open(tmp_path / "cut" / "log.jsonl", "a") as file:
                file.write('{"step": 10, "lo')  # a line that the kill has torn
            continue
        assert same_bits(results[2], whole) and repr(results[3]) == repr(log)
        assert same_bits(results[0].model, averaged.model) and same_bits(results[1].best, stopping.best)
        assert results[1].memory["step"] == stopping.memory["step"]
    read = [(tmp_path / name / "log.jsonl").read_text() for name in ("whole", "cut")]
    assert read[0] == read[1], "the logs differ"
    table = read_log(tmp_path / "cut" / "log.jsonl")
    assert table["step"].tolist() == list(range(len(log))) and table["loss"].tolist()[:3] == [
        r["loss"] for r in log[:3]
    ]
    assert table["score"].notna().sum() == len(log) // 3 and table["skipped"].sum() == 1


def test_a_log_refuses_the_file_of_another_run_and_reads_nested_records(tmp_path):
    options = {"where": CLOSURE, "key": jr.key(0)}
    fit(model(), batches(3), SQUARE, SGD, callback=Log(tmp_path / "log"), **options)
    text = (tmp_path / "log").read_text()
    fit(model(), batches(3), SQUARE, SGD, callback=Log(tmp_path / "log"), **options)
    assert (tmp_path / "log").read_text() == text, "a repeated run is the same run"
    with pytest.raises(FileExistsError, match="holds the log of another run"):
        fit(model(0.5), batches(3), SQUARE, SGD, callback=Log(tmp_path / "log"), **options)
    assert (tmp_path / "log").read_text() == text
    statistics = lambda m: m.closure.constant * jnp.ones(2)
    hg.eki(model(), statistics, np.ones(2), np.eye(2), callback=Log(tmp_path / "eki"), **options)
    assert read_log(tmp_path / "eki")["mean.closure.constant"].iloc[0] == pytest.approx(1.0)


# Before a run


def window(frames, n=16):
    return {"q": jax.ShapeDtypeStruct((1, frames, 2, n, n), jnp.float32)}


def test_predicted_memory_is_that_of_the_step_which_runs():
    m, objective = model(), online(mse("q"))
    total = lambda constant, m, batch: objective(
        eqx.tree_at(lambda m: m.closure.constant, m, constant), batch, jr.key(0)
    )
    batch = {"q": np.zeros((1, 21, 2, 16, 16), np.float32)}
    step = eqx.filter_jit(eqx.filter_value_and_grad(total)).lower(m.closure.constant, m, batch).compile()
    sizes = step.compiled.memory_analysis()
    real = sizes.argument_size_in_bytes + sizes.output_size_in_bytes + sizes.temp_size_in_bytes
    found = memory(objective, m, window(21), CLOSURE)
    assert abs(found / real - 1) < 0.2, (found, real)
    state = 2 * 16 * 9 * 8 * 3  # q and two past tendencies, complex64
    assert found > 20 * state, "less than the states that a backward pass must hold"


def test_a_chunk_within_the_budget_is_found():
    m, batch, where = hg.Model(FLOW, hg.AB3(), dt=3600.0), window(17), lambda m: m.equation.drag
    make = lambda chunk: online(mse("q"), every=2, chunk=chunk)
    plain = memory(make(None), m, batch, where)
    assert choose_chunk(make, m, batch, where, int(0.6 * plain)) in (2, 4, 8)


def test_the_chunk_is_as_plain_as_the_budget_allows(monkeypatch):
    """Sizes as a table: 24 frames, whose root lies between the divisors 4 and 6, 3 is the next."""
    sizes = {None: 1000, 4: 300, 6: 310, 3: 290, 8: 1, 1: 1}
    monkeypatch.setattr(preflight, "memory", lambda make, *rest: sizes[make])
    choose = lambda budget: choose_chunk(lambda chunk: chunk, model(), window(25), CLOSURE, budget)
    assert [choose(budget) for budget in (1000, 999, 300, 290)] == [None, 4, 4, 3]
    with pytest.raises(MemoryError, match="24 frames need 290 bytes with chunk=3, the least of all, and 200 are"):
        choose(200)


class Pump(hg.AbstractClosure):
    """dq = rate q."""

    rate: jax.Array = hg.param()

    def init(self, fields, grid):
        return None

    def __call__(self, fields, grid, memory, key):
        return {"q": self.rate * fields["q"]}, memory


def test_gradient_norms_grow_with_the_horizon_as_the_flow_does():
    """A chaotic-like growth of 1.5 a step: the gradient of frame T grows as T·1.5^T, the cut one as 1.5^T."""
    quiet = 1e-9 * np.asarray(eddies(GRID, 2, 1.0), np.float32)
    truth = {"q": np.broadcast_to(quiet, (20, *quiet.shape))}
    pumped = hg.Model(FLOW, hg.AB3(), hg.Scaled(Pump(0.5 / 3600.0), 1.0), dt=3600.0)
    last = lambda p, t: jnp.sqrt(mse("q")({"q": p["q"][-1]}, {"q": t["q"][-1]}))
    norms = lambda objective: gradient_norms(pumped, truth, objective, (4, 12), lambda m: m.closure.amplitude)
    full, cut = norms(online(last)), norms(online(last, cut=1))
    assert [row["horizon"] for row in full] == [4, 12]
    growth = full[1]["gradient_norm"] / full[0]["gradient_norm"]
    assert growth > 3 * 1.5**7, growth
    assert [a["loss"] for a in full] == pytest.approx([a["loss"] for a in cut], rel=1e-6)
    ratio = [a["gradient_norm"] / b["gradient_norm"] for a, b in zip(full, cut)]
    assert ratio[0] > 2 and ratio[1] > 2 * ratio[0], ratio


def test_gradient_norms_are_those_that_fit_reports():
    q = np.stack([0.9**i * np.asarray(eddies(GRID, 2, 1e-6), np.float32) for i in range(4)])
    (row,) = gradient_norms(model(), {"q": q}, online(mse("q")), [3], CLOSURE, key=jr.fold_in(jr.key(0), 0))
    _, log = fit(model(), [{"q": q[None]}], online(mse("q")), SGD, where=CLOSURE, key=jr.key(0))
    assert row["loss"] == pytest.approx(log[0]["loss"], rel=1e-6)
    assert row["gradient_norm"] == pytest.approx(log[0]["gradient_norm"], rel=1e-5)
    with pytest.raises(ValueError, match=r"1 to 3 for 4 records; got \[4\]"):
        gradient_norms(model(), {"q": q}, online(mse("q")), [4], CLOSURE)
