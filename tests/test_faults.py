"""Faults that belong to no one module: a disk that is really full, hostile files, archives, slow refusals."""

import ast
import hashlib
import shutil
import subprocess
import sys
import time
from pathlib import Path

import jax.numpy as jnp
import pytest

import hybridgcm
from hybridgcm.checkpoint import CorruptFile, load, save

ROOT = Path(__file__).parents[1]
PACKAGE = Path(hybridgcm.__file__).parent

FILL = """
import sys
import jax, jax.numpy as jnp
import hybridgcm as hg
from hybridgcm.fingerprint import digest
grid = hg.Torus(32, 1e6)
model = hg.Model(hg.QuasiGeostrophic.two_layer(grid, tau=1e5), hg.RK4(), dt=3600.0)
state = model.encode({"q": 1e-6 * jax.random.normal(jax.random.key(0), (2, 32, 32), jnp.float32)})
print(digest(hg.resumable_rollout(model, state, 60, sys.argv[1], chunk=5)))
"""
SHELL = """
set -e
mount -t tmpfs -o size=1m none {disk}
{python} -c {fill} {disk}/run && echo full disk unnoticed || echo code $?
mount -o remount,size=64m {disk}
{python} -c {fill} {disk}/run
find {disk}/run -name '*.tmp' -o -name '*.partial'
"""


def unshared(words):
    return subprocess.run(
        ["unshare", "-rm", "bash", "-c", words], cwd=ROOT, capture_output=True, text=True, timeout=300
    )


def test_a_run_on_a_disk_that_fills_up_ends_with_an_error_and_goes_on_when_there_is_room(tmp_path):
    import shlex

    if not shutil.which("unshare") or unshared(f"mount -t tmpfs -o size=1m none {tmp_path}").returncode:
        pytest.skip("this system lets nobody mount a small disk")
    (tmp_path / "disk").mkdir()
    whole = subprocess.run([sys.executable, "-c", FILL, tmp_path / "whole"], cwd=ROOT, capture_output=True, text=True)
    done = unshared(SHELL.format(disk=tmp_path / "disk", python=sys.executable, fill=shlex.quote(FILL)))
    said = done.stdout.split("\n")
    assert said[0] == "code 1" and "No space left on device" in done.stderr, (done.stdout, done.stderr[-2000:])
    assert "bytes are free there" in done.stderr
    assert said[1:] == [whole.stdout.strip(), ""], (done.stdout, done.stderr[-2000:])


AUDIT = """
import pickle, sys
from pathlib import Path
import jax.numpy as jnp
import numpy as np
from hybridgcm.checkpoint import CorruptFile, load, save
like, folder = {"w": jnp.ones(2)}, Path(sys.argv[1])
save(folder / "good", like)
load(folder / "good", like)
class Bomb:
    def __reduce__(self):
        return exec, ("import os; os.system('true')",)
content = (folder / "good").read_bytes()
corpus = [pickle.dumps(Bomb()), content[:23] + pickle.dumps(Bomb()), content + pickle.dumps(Bomb()), content[:-8]]
for number, bad in enumerate(corpus):
    (folder / str(number)).write_bytes(bad)
seen = []
wary = ("os.system", "os.exec", "os.posix_spawn", "subprocess.Popen", "exec", "compile", "import", "pickle.find_class")
sys.addaudithook(lambda event, arguments: seen.append(event) if event in wary else None)
for number in range(len(corpus)):
    try:
        load(folder / str(number), like)
        print("loaded", number)
    except CorruptFile:
        pass
load(folder / "good", like)
print("events", seen)
"""


def test_reading_a_checkpoint_executes_and_imports_nothing(tmp_path):
    done = subprocess.run([sys.executable, "-c", AUDIT, tmp_path], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "events []\n", done.stdout + done.stderr[-2000:]


def test_a_header_that_asks_for_more_than_there_is_is_refused_at_once(tmp_path):
    save(tmp_path / "a", {"w": jnp.ones(2)})
    content = (tmp_path / "a").read_bytes()
    start = len(content) - len(content.partition(b"\n")[2])
    text = b'{"format": 1, "tree": [{"path": "w", "kind": "float64[2]", "bytes": 1000000000000, "sha256": ""}]}'
    signed = len(text).to_bytes(8, "little") + hashlib.sha256(text).digest() + text
    for hostile in (content[:start] + signed, content[:start] + b"\xff" * 8 + content[start + 8 :]):
        (tmp_path / "a").write_bytes(hostile)
        begin = time.monotonic()
        with pytest.raises(CorruptFile):
            load(tmp_path / "a", {"w": jnp.ones(2)})
        assert time.monotonic() - begin < 1


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_nothing_unpacks_archives_or_turns_data_into_code(path):
    tree = ast.parse(path.read_text())
    modules = {"pickle", "marshal", "shelve", "tarfile", "zipfile", "yaml", "dill", "joblib", "ctypes"}
    calls = {"eval", "exec", "compile", "__import__", "import_module", "unpack_archive", "system", "popen"}
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [getattr(node, "module", None) or "", *(alias.name for alias in node.names)]
            found += [name for name in names if name.split(".")[0] in modules]
        elif isinstance(node, ast.Call):
            name, owner = getattr(node.func, "attr", getattr(node.func, "id", "")), getattr(node.func, "value", None)
            if name in calls - ({"compile"} if owner is not None else set()) and getattr(owner, "id", "") != "platform":
                found.append(f"line {node.lineno}: {ast.unparse(node.func)}")
            if name == "load" and any(keyword.arg == "allow_pickle" for keyword in node.keywords):
                found.append(f"line {node.lineno}: allow_pickle")
    assert not found, found


@pytest.mark.parametrize("job", ["closure", "long_run"])
def test_help_of_the_experiments_needs_no_jax(job):
    words = f"import sys; sys.argv = ['run', '--help']; from experiments.{job}.run import main\n"
    words += "try:\n    main()\nfinally:\n    print('jax' in sys.modules)"
    begin = time.monotonic()
    done = subprocess.run([sys.executable, "-c", words], cwd=ROOT, capture_output=True, text=True)
    seconds = time.monotonic() - begin
    assert done.returncode == 0 and done.stdout.splitlines()[-1] == "False", done.stderr[-2000:]
    assert seconds < 2.0, f"--help took {seconds:.2f} s"
