"""Several processes in one computation: joining them, and starting some on this machine to try it."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import jax

from hybridgcm.preemption import stop_if_asked

LAUNCHERS = (
    ("HYBRIDGCM_COORDINATOR", "HYBRIDGCM_PROCESSES", "HYBRIDGCM_PROCESS"),
    ("MASTER_ADDR", "WORLD_SIZE", "RANK"),
)
"""Variables that tell a process the address of the first, how many there are, and which it is: ours, torchrun's."""


def join() -> int:
    """Join the other processes of this job, if there are any, and return the number of this one.

    Call it before anything else of JAX. Reads the variables of `start` and `LAUNCHERS`; under torchrun and its like
    (MASTER_ADDR, MASTER_PORT, WORLD_SIZE, RANK) each process takes the one GPU LOCAL_RANK. Inside `srun` of more than
    one task JAX reads Slurm's variables itself. A process that was started alone stays alone and is number 0.
    Raises `ValueError` if only some of the variables are set.
    """
    for names in LAUNCHERS:
        found = [os.environ.get(name) for name in names]
        if not any(found[1:]):
            continue
        if not all(found):
            values = dict(zip(names, found, strict=True))
            raise ValueError(f"processes join by {names}; got {values}: set all of them, or none for a single process")
        address, count, number = found[0], int(found[1]), int(found[2])
        address = address if ":" in address else f"{address}:{os.environ.get('MASTER_PORT', '29500')}"
        local = os.environ.get("LOCAL_RANK") if names[0] == "MASTER_ADDR" else None
        if count > 1:
            devices = None if local is None else [int(local)]
            jax.distributed.initialize(address, count, number, local_device_ids=devices)
        return number
    if int(os.environ.get("SLURM_STEP_NUM_TASKS", "1")) > 1:
        jax.distributed.initialize()
    return jax.process_index()


def start(
    command: Sequence[str],
    processes: int,
    *,
    devices: int = 1,
    cores: Sequence[Sequence[int]] | None = None,
    environment: Mapping[str, str] | None = None,
    timeout: int | float = 600,
) -> list[str]:
    """Run `command`, a Python program that calls `join`, as that many processes on CPUs here; what each printed.

    Each has `devices` simulated devices; `cores`: those that each may use, as [[0], [1]], all unless given. They meet
    on the loopback. Raises `RuntimeError` with the end of the error output of the first process that fails, and ends
    the others, which would wait for it; `TimeoutError` after `timeout` seconds.
    """
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}".strip()
    common = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags, **(environment or {})}
    coordinator, count, number = LAUNCHERS[0]
    common |= {coordinator: f"127.0.0.1:{_free_port()}", count: str(processes)}
    with TemporaryDirectory() as folder:
        running, files = [], []
        try:
            for index in range(processes):
                out, error = (Path(folder) / f"{kind}{index}" for kind in ("out", "error"))
                bound = [] if cores is None else _bound(cores[index])
                with open(out, "w") as out_file, open(error, "w") as error_file:
                    own = common | {number: str(index)}
                    streams = {"stdout": out_file, "stderr": error_file}
                    running.append(subprocess.Popen([*bound, *command], env=own, **streams))
                files.append((out, error))
            _wait(running, files, timeout)
        finally:
            for process in running:
                process.kill()
                process.wait()
        return [out.read_text() for out, _ in files]


def _wait(running: list, files: list, timeout: int | float):
    """Until all have ended well."""
    end = time.monotonic() + timeout
    while True:
        codes = [process.poll() for process in running]
        for index, code in enumerate(codes):
            if code not in (None, 0):
                text = files[index][0].read_text()[-1000:] + files[index][1].read_text()[-3000:]
                raise RuntimeError(f"process {index} of {len(running)} ended with code {code}:\n{text}")
        if all(code == 0 for code in codes):
            return
        if time.monotonic() > end:
            waiting = [index for index, code in enumerate(codes) if code is None]
            raise TimeoutError(f"processes {waiting} of {len(running)} have not ended within {timeout:g} s")
        stop_if_asked("while it waited for processes that it had started")
        time.sleep(0.02)


def _bound(cores: Sequence[int]) -> list[str]:
    """What starts a command on some cores only, set before its first thread."""
    bind = "import os, sys; os.sched_setaffinity(0, map(int, sys.argv[1].split(',')))"
    code = f"{bind}; os.execvp(sys.argv[2], sys.argv[2:])"
    return [sys.executable, "-c", code, ",".join(map(str, cores))]


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]
