"""Pre-emption: a cluster asks a process to end with SIGTERM; a run then stops at its next checkpoint, with code 75."""

import contextlib
import os
import signal
import socket
import threading
from collections.abc import Iterator

EX_TEMPFAIL = 75
"""Exit code of a run that has to be started again (sysexits.h): nothing failed, it is not done."""

_asked = threading.Event()
_active = threading.Lock()


class Preempted(SystemExit):
    """The run was asked to stop, and all that it needs to go on is on disk. Left alone, it ends Python with code 75."""

    def __init__(self, where: str = ""):
        super().__init__(EX_TEMPFAIL)
        self.where = where

    def __str__(self):
        return f"stopped as asked by SIGTERM{self.where and ' ' + self.where}; the same command goes on from there"


@contextlib.contextmanager
def preemptible(signals: tuple[int, ...] = (signal.SIGTERM,)) -> Iterator[None]:
    """`with preemptible(): ...` lets `resumable_rollout` and `fit` end at their next checkpoint on SIGTERM.

    The first signal lets them finish the chunk (of a rollout) or the step (of a training) that they are at, save, and
    raise `Preempted`, which ends the process with code 75 unless it is caught: choose chunks that take less time than
    the cluster leaves (two of them may be under way). A second signal ends the process at once, with the
    code of that signal, 128 + 15; what is on disk stays good, as after a kill.

    Main thread only (`ValueError` elsewhere), jobs inside may run on any thread; inside another `preemptible` it does
    nothing. Signals are noticed while compiled code runs, too.
    """
    if not _active.acquire(blocking=False):
        yield
        return
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    try:
        # Python's own handlers wait for the main thread, which may be in a long compiled call; the byte does not.
        before = {number: signal.signal(number, _noted) for number in signals}
        wakeup = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        watcher = threading.Thread(target=_watch, args=(reader, signals), name="preemption", daemon=True)
        watcher.start()
        try:
            yield
        finally:
            signal.set_wakeup_fd(wakeup)
            for number, handler in before.items():
                signal.signal(number, handler)
            writer.close()
            watcher.join()
    finally:
        reader.close()
        writer.close()
        _asked.clear()
        _active.release()


def asked() -> bool:
    """Whether this process has been asked to stop."""
    return _asked.is_set()


def stop_if_asked(where: str = ""):
    """Raise `Preempted` if this process has been asked to stop. Call it where everything is on disk."""
    if asked():
        raise Preempted(where)


def _noted(number, frame):
    """Replaces the default action; `_watch` acts."""


def _watch(reader: socket.socket, signals: tuple[int, ...]):
    while byte := reader.recv(1):
        if byte[0] not in signals:
            continue
        if asked():
            os._exit(128 + byte[0])
        _asked.set()
