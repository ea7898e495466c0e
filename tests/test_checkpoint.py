"""Saved trees: every bit verified, nothing executed, nothing lost to an interrupted write."""

import errno
import json
import os
import pickle
import subprocess
import sys
import time
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest

import hybridgcm as hg
from hybridgcm import files
from hybridgcm.checkpoint import Checkpoints, CorruptFile, FingerprintMismatch, load, read_meta, save
from hybridgcm.fingerprint import digest


class Left(eqx.Module):
    """A network with a number, a setting and a function in it."""

    weight: jax.Array
    net: eqx.nn.MLP
    rate: float = 0.5
    name: str = eqx.field(static=True, default="a")


class Right(eqx.Module):
    """The same leaves as `Left`."""

    weight: jax.Array
    net: eqx.nn.MLP
    rate: float = 0.5
    name: str = eqx.field(static=True, default="a")


def model(cls=Left, width=4, key=0, **kwargs):
    return cls(jnp.arange(6.0, dtype=jnp.float32).reshape(2, 3), eqx.nn.MLP(2, 2, width, 1, key=jr.key(key)), **kwargs)


def tree(step=0):
    """Model, optimiser state, typed key, integer, half precision, complex, NumPy, nothing."""
    inner = model(key=step)
    state = optax.adamw(1e-3).init(eqx.filter(inner, eqx.is_inexact_array))
    arrays = {"h": jnp.ones(3, jnp.bfloat16), "c": jnp.array([1 + 2j], jnp.complex64), "n": np.arange(4, dtype=">f8")}
    return inner, state, jr.key(step), jnp.asarray(step), arrays, {"none": None, "int": 3, "nan": float("nan"), "z": 1j}


def test_every_bit_and_type_comes_back(tmp_path):
    saved = tree(3)
    save(tmp_path / "a", saved, {"note": "é", "loss": np.float32(0.1)})
    like = tree(9)
    back = load(tmp_path / "a", like)
    assert digest(back) == digest(saved), "a leaf differs from what was saved"
    assert digest(back) != digest(like), "the values of `like` were kept"
    for a, b in zip(jax.tree.leaves(saved), jax.tree.leaves(back), strict=True):
        assert type(a) is type(b), f"{type(a)} came back as {type(b)}"
    assert jr.uniform(back[2]) == jr.uniform(saved[2])
    assert read_meta(tmp_path / "a") == {"note": "é", "loss": float(np.float32(0.1))}


def test_abstract_like_is_enough(tmp_path):
    saved = (model(), jr.key(1), jnp.zeros((), jnp.int32))
    save(tmp_path / "a", saved)
    back = load(tmp_path / "a", eqx.filter_eval_shape(lambda: saved))
    assert digest(back) == digest(saved)
    with pytest.raises(TypeError, match="abstract trees"):
        save(tmp_path / "b", eqx.filter_eval_shape(lambda: saved))


@pytest.mark.parametrize(
    ("like", "message"),
    [
        (lambda: model(width=5), r"at net, expected .*width_size=5.* the file has .*width_size=4"),
        (lambda: model(Right), r"at the whole, expected .*Right\(name='a'\), the file has .*Left\(name='a'\)"),
        (lambda: model(name="b"), r"name='b'.* the file has .*name='a'"),
        (lambda: eqx.tree_at(lambda m: m.weight, model(), jnp.ones(6)), r"at weight, expected .*\[6\]"),
        (lambda: eqx.tree_at(lambda m: m.weight, model(), jnp.ones((2, 3), jnp.float64)), r"expected float64"),
        (lambda: eqx.tree_at(lambda m: m.rate, model(), 1), r"at rate, expected int, the file has float"),
        (lambda: eqx.tree_at(lambda m: m.net.activation, model(), jnp.tanh), r"at net\.activation"),
        (lambda: (model(),), r"expected tuple"),
    ],
)
def test_another_architecture_is_refused_by_place(tmp_path, like, message):
    save(tmp_path / "a", model())
    with pytest.raises(ValueError, match=message):
        load(tmp_path / "a", like())


def test_missing_and_additional_leaves_are_named(tmp_path):
    save(tmp_path / "a", {"a": jnp.ones(2), "b": jnp.ones(2)})
    with pytest.raises(ValueError, match=r"expected the end .* the file has \['b'\]"):
        load(tmp_path / "a", {"a": jnp.ones(2)})
    with pytest.raises(ValueError, match=r"expected \['c'\] .* the file has the end"):
        load(tmp_path / "a", {"a": jnp.ones(2), "b": jnp.ones(2), "c": jnp.ones(2)})


def test_every_flipped_bit_and_every_truncation_is_found(tmp_path):
    path, small = tmp_path / "a", {"w": jnp.arange(5.0), "k": 3}
    save(path, small, {"m": 1})
    content = path.read_bytes()
    silent = []
    for at in range(len(content)):
        for bad in (content[:at], content[:at] + bytes([content[at] ^ (1 << at % 8)]) + content[at + 1 :]):
            path.write_bytes(bad)
            try:
                load(path, small)
                silent.append(at)
            except CorruptFile:
                pass
    path.write_bytes(content + b"x")
    with pytest.raises(CorruptFile, match="expected 40 bytes of arrays, it has 41"):
        load(path, small)
    assert not silent, f"damage loaded silently at bytes {silent[:10]} of {len(content)}"


class Bomb:
    """Pickles to a call that leaves a trace."""

    def __reduce__(self):
        return exec, (f"open({str(Path(os.environ['TRACE']))!r}, 'w')",)


def test_pickle_and_object_arrays_are_never_executed(tmp_path, monkeypatch):
    trace = tmp_path / "executed"
    monkeypatch.setenv("TRACE", str(trace))
    like, payload = {"w": jnp.ones(2)}, pickle.dumps(Bomb())
    save(tmp_path / "good", like)
    good = (tmp_path / "good").read_bytes()
    np.save(tmp_path / "object.npy", np.array([Bomb()], object), allow_pickle=True)
    corpus = [payload, (tmp_path / "object.npy").read_bytes(), good[:23] + payload, good + payload, b"", b"\x80\x04"]
    for content in corpus:
        (tmp_path / "bad").write_bytes(content)
        with pytest.raises(CorruptFile):
            load(tmp_path / "bad", like)
    for entry in ({"bytes": "os.system('touch x')", "sha256": ""}, {}, {"bytes": -16, "sha256": ""}):
        (tmp_path / "bad").write_bytes(_resigned(good, {"path": "['w']", "kind": "float64[2]"} | entry))
        with pytest.raises(CorruptFile):
            load(tmp_path / "bad", like)
    with pytest.raises(TypeError, match="dtype object"):
        save(tmp_path / "bad", {"w": np.array([Bomb()], object)})
    assert not trace.exists(), "a payload was executed"
    sources = "".join(Path(m.__file__).read_text() for m in (sys.modules["hybridgcm.checkpoint"], files))
    assert not any(word in sources for word in ("pickle", "eval(", "exec(", "import_module"))


def _resigned(content: bytes, entry: dict) -> bytes:
    """A file with a hostile header whose hashes are right."""
    import hashlib

    size = int.from_bytes(content[23:31], "little")
    header = json.loads(content[63 : 63 + size])
    header["tree"][-1] = entry
    text = json.dumps(header).encode()
    return content[:23] + len(text).to_bytes(8, "little") + hashlib.sha256(text).digest() + text + content[63 + size :]


@pytest.mark.parametrize("call", ["fsync", "replace", "open"])
def test_a_write_that_fails_at_any_call_leaves_the_old_file(tmp_path, monkeypatch, call):
    path, old, new = tmp_path / "a", {"w": jnp.zeros(3)}, {"w": jnp.ones(3)}
    save(path, old)
    for number in range(8):
        counter = iter(range(1000))
        with monkeypatch.context() as patch:
            original = getattr(os, call)

            def failing(*args, original=original, counter=counter, number=number, **kwargs):
                if next(counter) == number:
                    raise OSError(errno.ENOSPC, "No space left on device")
                return original(*args, **kwargs)

            patch.setattr(os, call, failing)
            try:
                save(path, new)
            except OSError as error:
                assert error.errno == errno.ENOSPC and str(path) in str(error) and "bytes are free" in str(error)
        found = load(path, old)["w"][0]
        assert found in (0.0, 1.0)
        assert [file.name for file in tmp_path.iterdir()] == ["a"], "a temporary file was left"
        save(path, old)
        if next(counter) <= number:
            assert number > 0, f"os.{call} was never called"
            break


FULL = """
import resource, sys
import jax.numpy as jnp
from hybridgcm.checkpoint import Checkpoints
runs = Checkpoints(sys.argv[1])
runs.save(1, {"w": jnp.zeros(1000)})
resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
try:
    runs.save(2, {"w": jnp.ones(100_000)})
except OSError as error:
    print(error)
print(runs.latest({"w": jnp.ones(1000)})[0])
"""


def test_disk_full_leaves_the_previous_checkpoint_and_names_the_path(tmp_path):
    done = subprocess.run([sys.executable, "-c", FULL, tmp_path / "c"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    lines = done.stdout.splitlines()
    assert "step_000000000002.ckpt" in lines[0] and "unchanged" in lines[0], lines
    assert lines[1] == "1" and len(list((tmp_path / "c").iterdir())) == 1, lines


def test_the_newest_that_verifies_wins_and_the_others_are_reported(tmp_path):
    runs = Checkpoints(tmp_path, keep=3)
    assert runs.latest({"w": jnp.zeros(2)}) is None
    for step in (10, 20, 30, 40):
        runs.save(step, {"w": jnp.full(2, float(step))}, {"log": [step]})
    paths = sorted(tmp_path.iterdir())
    assert [int(path.stem[5:]) for path in paths] == [20, 30, 40], "the oldest is dropped, no more"
    paths[2].write_bytes(paths[2].read_bytes()[:-3])
    damaged = bytearray(paths[1].read_bytes())
    damaged[-1] ^= 1
    paths[1].write_bytes(damaged)
    with pytest.warns(UserWarning) as caught:
        step, back, meta = runs.latest({"w": jnp.zeros(2)})
    assert (step, float(back["w"][0]), meta) == (20, 20.0, {"log": [20]})
    texts = [str(w.message) for w in caught]
    assert str(paths[2]) in texts[0] and "bytes of arrays" in texts[0] and str(paths[1]) in texts[1], texts
    runs.save(25, {"w": jnp.zeros(2)})
    kept = sorted(int(path.stem[5:]) for path in tmp_path.iterdir())
    assert kept == [20, 25], f"damaged checkpoints must not count as kept: {kept}"


def test_all_damaged_is_an_error_not_a_fresh_start(tmp_path):
    runs = Checkpoints(tmp_path)
    runs.save(1, {"w": jnp.zeros(2)}).write_bytes(b"")
    with pytest.warns(UserWarning), pytest.raises(CorruptFile, match="all 1 checkpoints"):
        runs.latest({"w": jnp.zeros(2)})


def test_leftovers_of_killed_writers_are_removed_those_of_living_ones_kept(tmp_path):
    runs, host = Checkpoints(tmp_path), __import__("socket").gethostname()
    runs.save(1, {"w": jnp.zeros(2)})
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    (tmp_path / f".step_000000000002.ckpt~{host}~{dead.pid}~abc.tmp").write_bytes(b"half")
    living = tmp_path / f".step_000000000002.ckpt~{host}~{os.getppid()}~abc.tmp"
    living.write_bytes(b"half")
    assert runs.latest({"w": jnp.zeros(2)})[0] == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([living.name, "step_000000000001.ckpt"])


@pytest.mark.parametrize("change", ["code", "jax", "x64", "device", "cores", "config", "remat"])
def test_other_conditions_are_refused_with_the_difference(tmp_path, monkeypatch, change):
    like, own = {"w": jnp.zeros(2)}, {"config": "abc", "remat": 5}
    Checkpoints(tmp_path, fingerprint=own).save(7, like)
    assert Checkpoints(tmp_path, fingerprint=own).latest(like)[0] == 7
    now = Checkpoints(tmp_path, fingerprint=own)
    before, now.fingerprint[change] = now.fingerprint[change], "another"
    with pytest.raises(FingerprintMismatch, match=f"{change}: {before} -> another") as caught:
        now.latest(like)
    assert "allow=True" in str(caught.value) and str(caught.value).count("->") == 2, caught.value
    now.allow = True
    with pytest.warns(UserWarning, match="not bit for bit"):
        assert now.latest(like)[0] == 7


def test_a_model_and_its_state_step_on_bit_for_bit(tmp_path):
    grid = hg.Torus(16, 1e6)
    qg = hg.Model(hg.QuasiGeostrophic.two_layer(grid, tau=1e5), hg.AB3(), dt=3600.0)
    state = qg.encode({"q": 1e-6 * jr.normal(jr.key(0), (2, 16, 16), jnp.float32)}, jr.key(5))
    run = eqx.filter_jit(lambda m, s: hg.rollout(m, s, 5, save=None)[0])
    middle = run(qg, state)
    save(tmp_path / "a", (qg, middle))
    model_back, state_back = load(tmp_path / "a", (qg, state))
    assert digest(run(model_back, state_back)) == digest(run(qg, middle))


def test_saving_costs_little(tmp_path):
    state = {"y": jnp.ones((2, 256, 129), jnp.complex64), "past": jnp.ones((2, 2, 256, 129), jnp.complex64)}
    times = []
    for step in range(5):
        start = time.perf_counter()
        Checkpoints(tmp_path).save(step, state)
        times.append(time.perf_counter() - start)
    assert min(times) < 0.2, f"1.6 MB took {1e3 * min(times):.0f} ms"


def test_checkpoints_move_with_their_folder(tmp_path):
    import shutil

    Checkpoints(tmp_path / "a").save(4, {"w": jnp.ones(2)})
    shutil.copytree(tmp_path / "a", tmp_path / "b" / "c")
    shutil.rmtree(tmp_path / "a")
    assert Checkpoints(tmp_path / "b" / "c").latest({"w": jnp.ones(2)})[0] == 4


def test_meta_beyond_json_is_refused(tmp_path):
    with pytest.raises(TypeError, match="meta holds what JSON cannot"):
        save(tmp_path / "a", {"w": jnp.ones(1)}, {"f": object()})
    assert not (tmp_path / "a").exists()
