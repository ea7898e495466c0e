"""The folder of an experiment: one owner, one configuration, stages that are done once."""

import contextlib
import dataclasses
import hashlib
import json
import subprocess
import time
import tomllib
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from experiments._config import config_difference, to_toml
from experiments._config import configure as configure


class Run:
    """One experiment in one folder: `with Run(folder, config) as run: ...`.

    Claims the folder (a second process is refused with the owner's name), writes `config.toml` and `env.json`, and
    appends to `metrics.jsonl`. Everything in it is relative, so that it may be copied or moved.
    Raises `FolderInUse`, and `ValueError` with the differences if the folder holds another configuration. Settings
    that the class of the configuration names as its `selection` may change from call to call: more seeds, other rows.
    """

    def __init__(self, folder, config):
        from hybridgcm.files import atomic, claim, sweep

        self.folder, self.config = Path(folder), config
        self._held = contextlib.ExitStack()
        self._held.enter_context(claim(self.folder))
        try:
            sweep(self.folder)
            self._adopt(atomic)
            self._metrics = _whole_lines(self.folder / "metrics.jsonl")
        except BaseException:
            self._held.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._held.close()

    @property
    def settings(self) -> dict[str, Any]:
        """All settings but the selection: what a stage may depend on without being made anew for one more seed."""
        return _without(dataclasses.asdict(self.config), self._selection)

    @property
    def _selection(self) -> tuple[str, ...]:
        return getattr(self.config, "selection", ())

    def log(self, **record):
        """Append one line to metrics.jsonl; numbers that are not finite become text."""
        with open(self._metrics, "a") as file:
            file.write(json.dumps(_jsonable(record)) + "\n")

    def stage(
        self, name: str, inputs: Mapping[str, Any], build: Callable[[Path], None], version: str | None = None
    ) -> Path:
        """The folder that `build(folder)` fills, now or in an earlier run with equal inputs and code.

        `inputs`: folders of earlier stages and other files (by content), dataclasses and plain values. The folder's
        name is their hash with that of the package's source, or with `version` where one is given: for data that are
        too dear to be made anew for every change of the package. A stage counts as done once its manifest is written,
        last; a stage that was interrupted gets the same folder again, with whatever checkpoints are in it. A
        finished stage whose files have changed is put aside with a warning and built anew.
        """
        from hybridgcm.files import atomic, claim
        from hybridgcm.fingerprint import code_version
        from hybridgcm.preemption import stop_if_asked

        known = {key: _identity(key, value) for key, value in inputs.items()}
        text = json.dumps({"stage": name, "inputs": known, "code": version or code_version()}, sort_keys=True)
        folder = self.folder / "stages" / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"
        manifest = folder / "manifest.json"
        if manifest.exists():
            if not (changed := _changed(folder, json.loads(manifest.read_text())["files"])):
                _tell(f"[{name}] done before")
                return folder
            aside = folder.with_name(f"{folder.name}.damaged-{time.strftime('%Y%m%d-%H%M%S')}")
            folder.rename(aside)
            warnings.warn(
                f"stage {name}: {', '.join(changed)} changed since; moved to {aside}, building anew", stacklevel=2
            )
        stop_if_asked(f"before stage {name}")
        _tell(f"[{name}] {'continues' if folder.exists() else 'starts'}")
        start = time.monotonic()
        with claim(folder):
            try:
                build(folder)
            except Exception as error:  # told at once: stages that run beside this one are waited for, an hour perhaps
                told = f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"
                _tell(f"[{name}] ended by {told} after {time.monotonic() - start:.1f} s")
                raise
            seconds = round(time.monotonic() - start, 1)
            record = {"stage": name, "inputs": known, "seconds": seconds, "files": _hashes(folder)}
            with atomic(manifest) as temporary:
                temporary.write_text(json.dumps(record, indent=1))
        _tell(f"[{name}] done in {seconds} s")
        return folder

    def _adopt(self, atomic):
        """Write the configuration and what runs it, or compare with what is there."""
        path, text = self.folder / "config.toml", to_toml(self.config)
        if path.exists():
            there, asked = tomllib.loads(path.read_text()), tomllib.loads(text)
            if lines := config_difference(*(_without(table, self._selection) for table in (there, asked))):
                raise ValueError(
                    f"{self.folder} holds a run with another configuration (there -> asked for):\n{lines}\n"
                    f"Choose another folder, or pass --config {path} to go on with that one."
                )
        if not path.exists() or there != asked:
            with atomic(path) as temporary:
                temporary.write_text(text)
        history = self.folder / "env.json"
        starts = json.loads(history.read_text())["starts"] if history.exists() else []
        with atomic(history) as temporary:
            temporary.write_text(json.dumps({"starts": [*starts, _environment()]}, indent=1))


def _tell(line: str):
    """Print a line in one piece, as stages run side by side."""
    print(f"{line}\n", end="", flush=True)


def _without(table: dict, names: tuple[str, ...]) -> dict:
    return {name: value for name, value in table.items() if name not in names}


def parallel(workers: int, jobs: dict) -> dict:
    """Results of the functions in `jobs`, by their keys, on threads: XLA releases Python's lock while it computes."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(workers) as pool:
        futures = {name: pool.submit(job) for name, job in jobs.items()}
        try:
            return {name: future.result() for name, future in futures.items()}
        except BaseException:  # what waits need not start; what runs ends at its next checkpoint if that was asked
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def divisor(frames: int, most: int) -> int:
    """The largest divisor of `frames` that is at most `most`: a size of chunks."""
    return max(n for n in range(1, most + 1) if frames % n == 0)


def _environment() -> dict:
    import platform

    from hybridgcm.fingerprint import environment

    here = Path(__file__).parent
    git = lambda *words: subprocess.run(["git", "-C", here, *words], capture_output=True, text=True).stdout.strip()
    try:
        commit, dirty = git("rev-parse", "HEAD") or None, bool(git("status", "--porcelain"))
    except OSError:
        commit, dirty = None, None
    start = time.strftime("%Y-%m-%d %H:%M:%S")
    return {"start": start, "python": platform.python_version(), "git": commit, "dirty": dirty, **environment()}


def _identity(name: str, value):
    """What a stage's hash is made of for one input."""
    if isinstance(value, Path):
        if (value / "manifest.json").is_file():
            return {"files": json.loads((value / "manifest.json").read_text())["files"]}
        if value.is_file():
            return {"file": _sha256(value)}
        raise ValueError(f"input {name} = {value} is neither a file nor the folder of a finished stage")
    value = dataclasses.asdict(value) if dataclasses.is_dataclass(value) else value
    try:
        return json.loads(json.dumps(value, default=lambda path: str(path) if isinstance(path, Path) else {}[path]))
    except (TypeError, KeyError):
        raise ValueError(
            f"input {name} is a {type(value).__name__}; a stage takes paths, dataclasses and plain values"
        ) from None


def _hashes(folder: Path) -> dict[str, str]:
    files = sorted(file for file in folder.rglob("*") if file.is_file() and not _passing(file))
    return {file.relative_to(folder).as_posix(): _sha256(file) for file in files}


def _passing(file: Path) -> bool:
    """Whether a file is no result: locks, the manifest itself, leftovers of writers that were killed."""
    return file.name in ("lock", "manifest.json") or file.suffix == ".tmp"


def _changed(folder: Path, files: dict) -> list[str]:
    return [name for name, sha in files.items() if not (folder / name).is_file() or _sha256(folder / name) != sha]


def _sha256(file: Path) -> str:
    with open(file, "rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _whole_lines(path: Path) -> Path:
    """Cut a last line that a kill left unfinished."""
    if path.exists() and (content := path.read_bytes()) and not content.endswith(b"\n"):
        path.write_bytes(content[: content.rfind(b"\n") + 1])
    return path


def _jsonable(value):
    if isinstance(value, Mapping):
        return {str(key): _jsonable(item) for key, item in value.items()}
    if hasattr(value, "tolist"):
        return _jsonable(value.tolist())
    if isinstance(value, list | tuple):
        return [_jsonable(item) for item in value]
    if isinstance(value, float) and value - value != 0:
        return str(value)
    return value
