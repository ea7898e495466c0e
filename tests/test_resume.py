"""Killed at any moment and started again, a rollout and a training end with the bits of an uninterrupted one."""

import errno
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
import xarray as xr

import hybridgcm as hg
from hybridgcm.checkpoint import FingerprintMismatch
from hybridgcm.data import read_store
from hybridgcm.files import FolderInUse
from hybridgcm.fingerprint import digest
from hybridgcm.resume import resumable_rollout

WORKER = Path(__file__).parent / "resume_worker.py"


@pytest.fixture(scope="module")
def code(tmp_path_factory):
    """A copy of the package: an edit while the tests run would rightly be refused by its checkpoints."""
    root = tmp_path_factory.mktemp("code")
    shutil.copytree(Path(hg.__file__).parent, root / "hybridgcm", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(WORKER, root)
    return root


def start(code, job, folder):
    command = [sys.executable, "-W", "ignore", str(code / WORKER.name), job, str(folder)]
    environment = os.environ | {
        "PYTHONPATH": str(code),
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": str(code / "cache"),  # filled by the run that is not killed
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process):
    out, error = process.communicate(timeout=300)
    assert process.returncode == 0, error[-3000:]
    return out.split()[-1]


def kill_at_random(process, rng, most):
    """Kill after a random number of printed lines, at a random moment until the next but some; the last line seen."""
    line = ""
    for _ in range(1 + int(rng.integers(most))):
        line = process.stdout.readline() or line
    time.sleep(rng.uniform(0, 0.1))
    process.kill()
    process.communicate()
    return line.strip()


def contents(folder):
    kept = lambda f: f.is_file() and f.name != "lock"
    return {
        str(f.relative_to(folder)): hashlib.sha256(f.read_bytes()).hexdigest() for f in folder.rglob("*") if kept(f)
    }


def trial(code, tmp_path, job, kills, seed, most, check=None):
    """Kill until there are `kills`; a job that ends before is compared and begun anew."""
    whole, folder = tmp_path / "whole", tmp_path / "killed"
    expected = finish(start(code, job, whole))
    rng, killed, lines = np.random.default_rng(seed), 0, []
    while killed < kills:
        process = start(code, job, folder)
        lines.append(kill_at_random(process, rng, most))
        killed += process.returncode == -9
        if process.returncode == 0:
            compare(whole, folder, lines)
            shutil.rmtree(folder)
        elif check is not None:
            check(folder, whole)
    assert finish(start(code, job, folder)) == expected, f"final state differs after kills at {lines}"
    compare(whole, folder, lines)


def compare(whole, folder, lines):
    expected, found = contents(whole), contents(folder)
    differing = [name for name in {**expected, **found} if expected.get(name) != found.get(name)]
    assert not differing, f"after kills at {lines}: {len(differing)} of {len(expected)} files differ: {differing[:5]}"


def prefix(killed, whole):
    """What is on disk after a kill opens as it is, and its complete records are those of the whole run."""
    if (killed / "output.zarr").exists():
        found, expected = read_store(killed / "output.zarr"), read_store(whole / "output.zarr")
        live = xr.open_zarr(killed / "output.zarr", consolidated=False)
        assert live.sizes["time"] == expected.sizes["time"]
        for name in found.data_vars:
            np.testing.assert_array_equal(found[name], expected[name][: found.sizes["time"]])


def test_a_kill_of_a_rollout_changes_no_bit(code, tmp_path):
    trial(code, tmp_path, "rollout", 1, 0, 10, prefix)


@pytest.mark.slow
def test_a_kill_of_a_training_changes_no_bit(code, tmp_path):
    trial(code, tmp_path, "fit", 1, 1, 16)


@pytest.mark.slow
@pytest.mark.parametrize("job", ["rollout", "fit"])
def test_twenty_kills_change_no_bit(code, tmp_path, job):
    trial(code, tmp_path, job, 20, 2, {"rollout": 3, "fit": 5}[job], prefix if job == "rollout" else None)


class Growth(hg.AbstractClosure):
    """dq = q per three steps: leaves every bound."""

    def init(self, fields, grid):
        return None

    def __call__(self, fields, grid, memory, key):
        return {"q": 1e-4 * fields["q"]}, memory


def small():
    grid = hg.Torus(16, 1e6)
    model = hg.Model(hg.QuasiGeostrophic.two_layer(grid, tau=1e5), hg.RK4(), dt=3600.0)
    return model, model.encode({"q": 1e-6 * jr.normal(jr.key(0), (2, 16, 16), jnp.float32)})


def test_the_call_is_repeatable_extensible_and_equal_to_rollout(tmp_path):
    model, state = small()
    chunks = []
    call = lambda steps: resumable_rollout(
        model, state, steps, tmp_path / "a", every=2, chunk=3, callback=lambda s, f: chunks.append(int(s.step))
    )
    first = call(12)
    assert chunks == [6, 12]
    assert digest(call(12)) == digest(first) and chunks == [6, 12], "a finished run computed again"
    last = call(24)
    assert chunks == [6, 12, 18, 24]
    expected, out = hg.rollout(model, state, 24, every=2)
    assert digest(last.y) == digest(expected.y), "resumed and whole rollouts differ"
    np.testing.assert_array_equal(read_store(tmp_path / "a" / "output.zarr").q, out["save"]["q"])
    with pytest.raises(ValueError, match="already at step 24, beyond the 12"):
        call(12)


def test_another_model_start_or_output_is_refused(tmp_path):
    model, state = small()
    folder = tmp_path / "a"
    resumable_rollout(model, state, 2, folder)
    other = hg.Model(model.equation, hg.RK4(), dt=1800.0)
    moved = model.encode({"q": 2e-6 * jr.normal(jr.key(0), (2, 16, 16), jnp.float32)})
    save = lambda m, s: {"q": m.view(s)["q"]}
    for arguments, options, what in [
        ((other, state, 4), {}, "model"),
        ((model, moved, 4), {}, "start"),
        ((model, state, 4), {"every": 2}, "every"),
        ((model, state, 4), {"save": save}, "save"),
    ]:
        with pytest.raises(FingerprintMismatch, match=f"  {what}: "):
            resumable_rollout(*arguments, folder, **options)
    shutil.rmtree(folder / "checkpoints")
    with pytest.raises(FileExistsError, match="output.zarr exists"):
        resumable_rollout(model, state, 4, folder)
    assert read_store(folder / "output.zarr").sizes["time"] == 2, "refused calls must not touch the output"


@pytest.mark.parametrize("call", range(0, 24, 5))
def test_a_run_that_found_the_disk_full_goes_on_once_there_is_room(tmp_path, monkeypatch, call):
    model, state = small()
    whole = resumable_rollout(model, state, 6, tmp_path / "whole", chunk=2)
    counter, original = iter(range(1000)), os.fsync

    def full(descriptor):
        if next(counter) == call:
            raise OSError(errno.ENOSPC, "No space left on device")
        original(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match=r"could not write .*: No space left on device; \d+ bytes are free there"):
            resumable_rollout(model, state, 6, tmp_path / "full", chunk=2)
    assert digest(resumable_rollout(model, state, 6, tmp_path / "full", chunk=2)) == digest(whole)
    assert contents(tmp_path / "full") == contents(tmp_path / "whole")


def test_a_moved_folder_goes_on(tmp_path):
    model, state = small()
    resumable_rollout(model, state, 2, tmp_path / "a")
    shutil.copytree(tmp_path / "a", tmp_path / "b" / "c")
    shutil.rmtree(tmp_path / "a")
    moved = resumable_rollout(model, state, 4, tmp_path / "b" / "c")
    assert digest(moved) == digest(resumable_rollout(model, state, 4, tmp_path / "d"))


def test_a_second_run_is_refused_and_a_blow_up_keeps_what_was_written(tmp_path):
    model, state = small()

    def second(state, frames):
        with pytest.raises(FolderInUse, match=f"process {os.getpid()}"):
            resumable_rollout(model, state, 2, tmp_path / "a")

    resumable_rollout(model, state, 1, tmp_path / "a", callback=second)
    wild = hg.Model(model.equation, hg.RK4(), Growth(), dt=3600.0)
    with pytest.raises(hg.BlewUp) as caught:
        resumable_rollout(wild, state, 40, tmp_path / "b", courant=20 * float(wild.courant(state)))
    good = caught.value.state
    records = (
        read_store(tmp_path / "b" / "output.zarr").sizes["time"] if (tmp_path / "b" / "output.zarr").exists() else 0
    )
    assert records == int(good.step), f"{records} records on disk, the last good step is {int(good.step)}"


def _script(folder, rate: float, factor: int):
    """A user's script as a module: closure, forcing and output whose bodies and constants may change."""
    path = folder / "script.py"
    path.write_text(
        f"""import hybridgcm as hg

RATE = {rate!r}


def damping(q):
    return -RATE * q


class Mine(hg.AbstractClosure):
    def init(self, fields, grid):
        return None

    def __call__(self, fields, grid, memory, key):
        return {{"q": damping(fields["q"])}}, memory


def out(model, state):  # {rate}: a comment is no change
    return {{"q": {factor} * model.decode(state)["q"]}}
"""
    )
    spec = importlib.util.spec_from_file_location("script", path)
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def test_a_script_that_was_edited_is_refused_and_one_that_was_not_goes_on(tmp_path):
    grid = hg.Torus(16, 1e6)
    flow = hg.QuasiGeostrophic.two_layer(grid)
    fields = {"q": 1e-6 * jr.normal(jr.key(0), (2, 16, 16))}

    def run(steps, **script):
        found = _script(tmp_path, **script)
        model = hg.Model(flow, hg.AB3(), found.Mine(), dt=3600.0)
        return resumable_rollout(model, model.encode(fields), steps, tmp_path / "run", every=2, save=found.out)

    run(4, rate=1e-7, factor=1)
    with pytest.raises(FingerprintMismatch, match="model: "):
        run(8, rate=2e-7, factor=1)  # a constant that a function called by the closure reads
    with pytest.raises(FingerprintMismatch, match="save: script.out .* -> script.out "):
        run(8, rate=1e-7, factor=2)
    assert int(run(8, rate=1e-7, factor=1).step) == 8


def test_outputs_that_cannot_be_stored_are_refused_before_anything_is_written(tmp_path):
    model = hg.Model(hg.QuasiGeostrophic.two_layer(hg.Torus(16, 1e6)), hg.AB3(), dt=3600.0)
    start = model.encode({"q": jnp.zeros((2, 16, 16))})
    for options, message in (
        ({"mean": hg.diagnostics.energy}, "mean gave an array without a name"),
        ({"save": lambda m, s: {"mine": m.decode(s)["q"]}}, "mine"),
        ({"save": lambda m, s: {"q": s.y["q"]}}, "complex"),
        ({"save": None}, "nothing to store"),
    ):
        with pytest.raises(ValueError, match=message):
            resumable_rollout(model, start, 4, tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()
