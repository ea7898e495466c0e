"""A cluster takes the machine back: SIGTERM ends a run at its next checkpoint with code 75, and nothing is lost."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from hybridgcm.preemption import Preempted, asked, preemptible, stop_if_asked

ROOT = Path(__file__).parents[1]

WORKER = """
import sys
sys.path[:0] = ["tests"]
from resume_worker import rollout, training
from hybridgcm.fingerprint import digest
from hybridgcm.preemption import preemptible
with preemptible():
    print("done", digest({"rollout": rollout, "fit": training}[sys.argv[1]](sys.argv[2])), flush=True)
"""
BUSY = """
import time, jax, jax.numpy as jnp
from hybridgcm.preemption import preemptible
long = jax.jit(lambda x: jax.lax.fori_loop(0, 1_000_000, lambda i, x: jnp.sin(x @ x) / 128, x))
compiled = long.lower(jnp.ones((128, 128))).compile()
with preemptible():
    print("ready", flush=True)
    compiled(jnp.ones((128, 128))).block_until_ready()
"""


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


def start(cache, *words):
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
    command = [sys.executable, "-W", "ignore", "-c", *map(str, words)]
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def ended(process, limit=120):
    out, error = process.communicate(timeout=limit)
    return process.returncode, out.split(), error


@pytest.mark.parametrize("job", [pytest.param("rollout", marks=pytest.mark.slow), "fit"])
def test_sigterm_ends_with_75_and_the_resumed_run_is_the_uninterrupted_one(cache, tmp_path, job):
    code, said, error = ended(start(cache, WORKER, job, tmp_path / "whole"))
    assert code == 0, error[-2000:]
    expected, lines, stops = said[-1], [], 0
    for _ in range(4):
        process = start(cache, WORKER, job, tmp_path / "stopped")
        while stops < 1 and (line := process.stdout.readline()):
            lines.append(line.strip())
            if line.strip().isdigit() and len(lines) > 3:
                process.send_signal(signal.SIGTERM)
                break
        begin = time.monotonic()
        code, said, error = ended(process)
        seconds = time.monotonic() - begin
        if code == 0:
            break
        stops += 1
        assert code == 75, (code, error[-2000:])
        assert seconds < 30, f"it took {seconds:.1f} s to stop"
        assert list((tmp_path / "stopped").rglob("step_*.ckpt")), "nothing was saved"
    assert stops == 1, f"it was not stopped; it said {lines}"
    assert said[-1] == expected, "the resumed run differs from the uninterrupted one"


def test_a_second_sigterm_ends_at_once_even_inside_compiled_code(cache):
    process = start(cache, BUSY)
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    time.sleep(1.0)
    assert process.poll() is None, "the first signal may not end a call that is under way"
    process.send_signal(signal.SIGTERM)
    begin = time.monotonic()
    code, _, error = ended(process, 30)
    assert code == 128 + signal.SIGTERM, (code, error[-2000:])
    assert time.monotonic() - begin < 5


@pytest.mark.slow
def test_the_closure_experiment_stops_with_75_and_goes_on_to_the_same_report(tmp_path):
    command = [sys.executable, "experiments/closure/run.py", "--preset", "smoke", "--out"]
    run = lambda folder: subprocess.Popen(
        [*command, folder], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    code, _, error = ended(run(tmp_path / "whole"), 600)
    assert code == 0, error[-2000:]
    stops = 0
    for number in range(6):
        process = run(tmp_path / "stopped")
        time.sleep(12 + 5 * number)
        process.send_signal(signal.SIGTERM)
        begin = time.monotonic()
        code, _, error = ended(process, 600)
        assert time.monotonic() - begin < 30, "stopping took too long"
        if code == 0:
            break
        assert code == 75, (code, error[-2000:])
        stops += 1
    code, _, error = ended(run(tmp_path / "stopped"), 600)  # a slow machine is not done yet
    assert code == 0 and stops > 0, (stops, error[-2000:])
    scores = [json.loads((tmp_path / part / "metrics.json").read_text())["models"] for part in ("whole", "stopped")]
    errors = [{label: row.get("errors") for label, row in table.items()} for table in scores]
    assert errors[0] == errors[1]


def test_the_signal_is_seen_by_every_thread_and_forgotten_at_the_end():
    def job(seen):
        while not asked():
            time.sleep(0.01)
        try:
            stop_if_asked("at step 3")
        except Preempted as stop:
            seen.append(stop)

    before, seen = signal.getsignal(signal.SIGTERM), []
    with preemptible(), preemptible():
        stop_if_asked()
        worker = threading.Thread(target=job, args=(seen,))
        worker.start()
        os.kill(os.getpid(), signal.SIGTERM)
        worker.join(10)
    assert seen[0].code == 75 and "at step 3" in str(seen[0])
    assert not asked() and signal.getsignal(signal.SIGTERM) is before
