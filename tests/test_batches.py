"""Training batches are functions of (key, index), of any kind of array, and refuse bad data."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
import zarr

from hybridgcm.batches import concatenate, fingerprint, samples, windows

rng = np.random.default_rng(0)


def test_windows_are_consecutive_and_a_function_of_key_and_index():
    truth = {"q": np.arange(30.0)[:, None, None, None] * np.ones((1, 2, 4, 4)), "psi": np.arange(30.0)[:, None]}
    make = lambda key=1: windows(truth, length=5, batch=4, steps=20, key=jr.key(key))
    batches = make()
    assert len(batches) == 20 and len(list(batches)) == 20
    assert batches[3]["q"].shape == (4, 5, 2, 4, 4) and batches[3]["psi"].shape == (4, 5, 1)
    for batch in batches:
        start = batch["q"][:, :1, 0, 0, 0]
        np.testing.assert_array_equal(batch["q"][..., 0, 0, 0], start + np.arange(5))
        np.testing.assert_array_equal(batch["psi"][..., 0], batch["q"][..., 0, 0, 0])
    again = make()
    for index in (17, 2, -1):
        np.testing.assert_array_equal(again[index]["q"], batches[index]["q"])
    assert any((make(2)[i]["q"] != batches[i]["q"]).any() for i in range(3))
    with pytest.raises(IndexError):
        batches[20]


def test_every_epoch_visits_every_window_once_in_its_own_order():
    batches = windows({"q": np.arange(28.0)[:, None]}, length=5, batch=4, steps=12, key=jr.key(0))
    starts = np.concatenate([batch["q"][:, 0, 0] for batch in batches])
    first, second = starts[:24], starts[24:]
    assert sorted(first) == sorted(second) == list(range(24)) and (first != second).any()


@pytest.mark.parametrize("kind", ["jax", "memmap", "zarr", "trajectories"])
def test_windows_of_any_kind_of_array_are_the_same(tmp_path, kind):
    a = rng.normal(size=(20, 2, 4, 4)).astype("f4")
    plain = windows({"q": a}, 3, 4, 6, jr.key(3))
    if kind == "jax":
        other = {"q": jnp.asarray(a)}
    elif kind == "memmap":
        np.save(tmp_path / "a.npy", a)
        other = {"q": np.load(tmp_path / "a.npy", mmap_mode="r")}
    elif kind == "zarr":
        other = {"q": zarr.create_array(tmp_path / "a.zarr", data=a)}
    else:
        other = [{"q": a}]
    same = windows(other, 3, 4, 6, jr.key(3))
    for i in range(6):
        np.testing.assert_array_equal(same[i]["q"], plain[i]["q"])
    assert isinstance(same[0]["q"], jax.Array) == (kind == "jax")
    if kind != "trajectories":
        assert fingerprint(other) == fingerprint({"q": a}) != fingerprint({"q": a + 1})


def test_no_window_spans_two_trajectories():
    parts = [{"q": np.arange(0.0, 9)[:, None]}, {"q": np.arange(100.0, 106)[:, None]}]
    batches = windows(parts, length=4, batch=3, steps=3, key=jr.key(0))
    starts = np.concatenate([batch["q"][:, 0, 0] for batch in batches])
    assert sorted(starts) == [0, 1, 2, 3, 4, 5, 100, 101, 102]
    for batch in batches:
        np.testing.assert_array_equal(batch["q"][..., 0] - batch["q"][:, :1, 0], np.tile(np.arange(4), (3, 1)))


def test_samples_and_growing_horizons():
    data = {"q": np.arange(10.0)[:, None], "S": -np.arange(10.0)[:, None]}
    drawn = samples(data, batch=5, steps=2, key=jr.key(0))
    assert sorted(np.concatenate([b["q"][:, 0] for b in drawn])) == list(range(10))
    np.testing.assert_array_equal(drawn[1]["S"], -drawn[1]["q"])
    short, long = windows(data, 2, 3, 4, jr.key(1)), windows(data, 5, 3, 2, jr.key(2))
    both = concatenate(short, long)
    assert len(both) == 6 and [b["q"].shape[1] for b in both] == [2, 2, 2, 2, 5, 5]
    np.testing.assert_array_equal(both[4]["q"], long[0]["q"])
    np.testing.assert_array_equal(both[-1]["q"], long[1]["q"])
    with pytest.raises(IndexError):
        both[6]


def test_bad_training_data_teach():
    good = np.zeros((10, 2, 4, 4))
    bad = good.copy()
    bad[7, 1, 2, 3] = np.inf
    make = lambda truth, length=3, batch=2: windows(truth, length, batch, 5, jr.key(0))
    for call, message in [
        (lambda: make({"q": good}, 11), "windows of 11 records need data as long; got 10"),
        (lambda: make({"q": bad}), r"q has 1 values that are not finite, the first at \(7, 1, 2, 3\)"),
        (lambda: make([{"q": good}, {"q": bad}]), r"q of trajectory 1 has 1 values"),
        (lambda: make({"q": good, "v": good[:9]}), "as many records as each other; got"),
        (lambda: make([{"q": good}, {"v": good}]), "the same names"),
        (lambda: make({"q": good}, 0), "at least 1"),
        (lambda: make({"q": good}, 3, 0), "batch is at least 1"),
    ]:
        with pytest.raises(ValueError, match=message):
            call()
