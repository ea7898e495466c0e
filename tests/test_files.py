"""A folder has one owner, however the owner ends, and netCDF files are read by one thread at a time."""

import os
import subprocess
import sys

import pytest

from hybridgcm.files import FolderInUse, claim

HOLD = """
import sys, time, os
from hybridgcm.files import FolderInUse, claim
print("ready", flush=True)
sys.stdin.readline()
start = time.monotonic()
try:
    with claim(sys.argv[1]):
        print("won", os.getpid(), flush=True)
        sys.stdin.readline()
except FolderInUse as error:
    print(f"lost {time.monotonic() - start:.3f} {error}", flush=True)
"""

READ = """
import sys
from concurrent.futures import ThreadPoolExecutor
import numpy as np, xarray as xr
from hybridgcm import pairs
from hybridgcm.data import save_netcdf

a = np.indices((3, 4, 4)).sum(0) % 2.0
names = [f"{kind}_{part}" for part in ("train", "test16", "test32") for kind in "au"]
data = xr.Dataset({name: (("sample", "y", "x"), a) for name in names})
one = lambda i: (save_netcdf(data, f"{sys.argv[1]}/{i % 20}.nc"), pairs.read_darcy(f"{sys.argv[1]}/{i % 20}.nc"))[1]
with ThreadPoolExecutor(8) as pool:
    print(sum(float(read["train"]["u"].sum()) for read in pool.map(one, range(100))))
"""


def test_of_five_starters_exactly_one_wins_and_a_kill_frees_the_folder(tmp_path):
    start = lambda: subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    starters = [start() for _ in range(5)]
    try:
        for process in starters:
            assert process.stdout.readline() == "ready\n"
        for process in starters:
            process.stdin.write("go\n")
            process.stdin.flush()
        said = [process.stdout.readline().split() for process in starters]
        winners = [p for p, words in zip(starters, said, strict=True) if words[0] == "won"]
        losers = [words for words in said if words[0] == "lost"]
        assert len(winners) == 1 and len(losers) == 4, said
        for words in losers:
            assert float(words[1]) < 2.0, f"refusal took {words[1]} s"
            assert f"process {winners[0].pid} on" in " ".join(words), words
        winners[0].kill()
        winners[0].wait()
        with claim(tmp_path):
            pass
    finally:
        for process in starters:
            process.kill()
            process.communicate()


def test_a_claim_ends_with_its_block_and_is_not_shared_within_a_process(tmp_path):
    with claim(tmp_path / "new"), pytest.raises(FolderInUse, match=f"process {os.getpid()}"), claim(tmp_path / "new"):
        pass
    with claim(tmp_path / "new"):
        pass


def test_threads_may_read_and_write_netcdf(tmp_path):
    """Without the lock, Python ends in the HDF5 library, most times; hence a process of its own."""
    done = subprocess.run([sys.executable, "-c", READ, tmp_path], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert float(done.stdout) == 100 * 3 * 8
