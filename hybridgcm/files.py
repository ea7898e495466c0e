"""Files and folders that survive being killed: atomic writes, and one owner per folder."""

import contextlib
import json
import os
import shutil
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

NETCDF = threading.RLock()
"""Held while a netCDF file is open: two threads in the HDF5 library end Python, and xarray opens without a lock."""


class FolderInUse(RuntimeError):
    """Another process works in this folder. `owner`: its pid, host and start time."""

    def __init__(self, folder: Path, owner: dict):
        self.owner = owner
        who = (
            f"process {owner['pid']} on {owner['host']}, started {owner.get('since', 'at an unknown time')}"
            if owner
            else "an unknown process"
        )
        super().__init__(f"{folder} is in use by {who}; wait for it, stop it, or choose another folder")


@contextlib.contextmanager
def claim(folder) -> Iterator[Path]:
    """Hold a folder for this process: `with claim(folder): ...`. A second claim raises `FolderInUse` at once.

    An advisory lock on the file `lock` in it, which the kernel releases however the process ends.
    """
    import fcntl

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "lock", "a+") as file:
        deadline = time.monotonic() + 1.0
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                owner = _owner(file)
                if owner or time.monotonic() > deadline:
                    raise FolderInUse(folder, owner) from None
                time.sleep(0.02)  # the winner has not written its name yet
        file.truncate(0)
        since = time.strftime("%Y-%m-%d %H:%M:%S")
        file.write(json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": since}))
        file.flush()
        try:
            yield folder
        finally:
            file.truncate(0)


@contextlib.contextmanager
def atomic(path) -> Iterator[Path]:
    """Write `path` through a temporary file in the same folder: synced, then renamed. All or nothing.

    Raises `OSError` naming the path and the room left if the disk is full; what was at `path` stays.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}~{socket.gethostname()}~{os.getpid()}~{uuid.uuid4().hex}.tmp")
    try:
        yield temporary
        sync(temporary)
        os.replace(temporary, path)
        sync(path.parent)
    except OSError as error:
        raise failed_write(error, path, "what was there before is unchanged") from error
    finally:
        temporary.unlink(missing_ok=True)


def sync(path):
    """Flush a file or a folder to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sweep(folder):
    """Remove what killed writers of `atomic` left in a folder; writers that still live keep theirs."""
    for file in Path(folder).glob(".*~*~*~*.tmp"):
        host, pid = file.name.split("~")[-3:-1]
        mine = host == socket.gethostname() and (int(pid) == os.getpid() or not _alive(int(pid)))
        if mine or time.time() - file.stat().st_mtime > 3600:
            file.unlink(missing_ok=True)


def failed_write(error: OSError, path, state: str) -> OSError:
    """The same kind of error with the path, the room left on its disk and the `state` of earlier data."""
    with contextlib.suppress(OSError):
        state = f"{shutil.disk_usage(Path(path).parent).free} bytes are free there; {state}"
    return OSError(error.errno, f"could not write {path}: {error.strerror or error}; {state}")


def _owner(file) -> dict:
    """Who holds a lock file, if that can be read and the process lives."""
    file.seek(0)
    try:
        owner = json.loads(file.read())
        live = owner["host"] != socket.gethostname() or _alive(owner["pid"])
    except (ValueError, KeyError, TypeError):
        return {}
    return owner if live else {}


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
