"""The doctor passes a machine that is well, and fails one that is not, by its exit code."""

import json
import subprocess
import sys
import time
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from hybridgcm import doctor

ROOT = Path(__file__).parents[1]


def test_this_machine_is_well(tmp_path, capsys):
    assert doctor.main(["--folder", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "0 of 6 checks failed" in said and "SHA-256" in said and "FAILED" not in said
    assert list(tmp_path.iterdir()) == [], "the doctor leaves nothing behind"


def test_a_device_whose_transforms_are_wrong_is_found(tmp_path, monkeypatch, capsys):
    original = jnp.fft.rfft2
    monkeypatch.setattr(jnp.fft, "rfft2", lambda *a, **k: original(*a, **k) * (1 + 1e-4))
    assert doctor.main(["--folder", str(tmp_path), "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert not found["transforms"]["passed"] and "relative error 1.0e-04" in found["transforms"]["found"]
    assert found["disk"]["passed"] and found["about"]["numpy"] == np.__version__


def test_bits_that_do_not_repeat_are_found(tmp_path, monkeypatch):
    numbers = iter(range(100))
    monkeypatch.setattr("hybridgcm.fingerprint.digest", lambda tree: str(next(numbers)))
    found = doctor.check(tmp_path)
    for name in ("same bits twice", "same bits after a save", "all devices agree"):
        assert not found[name]["passed"], name
    assert found["products"]["passed"]


@pytest.mark.parametrize("fault", ["full", "no locks", "no folder"])
def test_a_disk_that_cannot_be_trusted_is_found(tmp_path, monkeypatch, fault):
    import contextlib
    import shutil

    folder = tmp_path
    if fault == "full":
        usage = shutil.disk_usage(tmp_path)._replace(free=5 << 20)
        monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    elif fault == "no locks":
        monkeypatch.setattr("hybridgcm.files.claim", lambda path: contextlib.nullcontext(path))
    else:
        (tmp_path / "file").write_text("")
        folder = tmp_path / "file" / "runs"
    result = doctor.check(folder)["disk"]
    words = {"full": "5 MB are free", "no locks": "keeps no locks", "no folder": "NotADirectoryError"}[fault]
    assert not result["passed"] and words in result["found"], result


def test_help_is_quick_and_a_wrong_flag_ends_with_2(tmp_path):
    command = [sys.executable, "-m", "hybridgcm.doctor"]
    start = time.monotonic()
    done = subprocess.run([*command, "--help"], cwd=ROOT, capture_output=True, text=True)
    seconds = time.monotonic() - start
    assert done.returncode == 0 and "--folder" in done.stdout
    assert seconds < 10, f"--help took {seconds:.1f} s"
    assert subprocess.run([*command, "--foldr", "x"], cwd=ROOT, capture_output=True).returncode == 2
