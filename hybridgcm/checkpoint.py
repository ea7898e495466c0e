"""Saved models and runs: verified, atomic, and nothing in a file is ever executed."""

import copy
import hashlib
import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hybridgcm.files import atomic, sweep
from hybridgcm.fingerprint import (
    compare_trees,
    difference,
    environment,
    is_data,
    is_key,
    is_number,
    raw_bytes,
    versions,
    walk,
)

_MAGIC = b"hybridgcm saved tree 1\n"


class CorruptFile(RuntimeError):
    """The bytes of a file are not those that were written."""


class FingerprintMismatch(ValueError):
    """A run would go on with something that its checkpoint was not written with."""


def save(path, tree, meta: Mapping | None = None):
    """Write a tree (model, state, optimiser state) to one file, with `meta`, a dict that JSON can hold.

    The file holds arrays as raw bytes, Python numbers, the classes with their static settings, library versions,
    and SHA-256 of everything. It appears under its name complete or not at all: on an `OSError` (disk full) what
    was at `path` before is still there. Typed PRNG keys are fine. Raises `TypeError` for meta beyond JSON.
    """
    entries, arrays = [], []
    for where, kind, leaf in walk(tree):
        entry = {"path": where, "kind": kind}
        if is_data(leaf):
            data = raw_bytes(leaf)
            arrays.append(data)
            entry |= {"bytes": data.nbytes, "sha256": hashlib.sha256(data).hexdigest()}
            if is_key(leaf):
                entry["impl"] = str(jax.random.key_impl(leaf))
        elif is_number(leaf):
            entry["value"] = [leaf.real, leaf.imag] if isinstance(leaf, complex) else leaf
        entries.append(entry)
    header = {"format": 1, "versions": versions(), "meta": meta or {}, "tree": entries}
    try:
        text = json.dumps(header, default=_plain).encode()
    except TypeError as error:
        raise TypeError(
            f"meta holds what JSON cannot ({error}); keep arrays in the tree, text and numbers in meta"
        ) from None
    with atomic(path) as temporary, open(temporary, "wb") as file:
        file.write(_MAGIC + len(text).to_bytes(8, "little") + hashlib.sha256(text).digest() + text)
        for data in arrays:
            file.write(data)


def load(path, like) -> Any:
    """The tree in `path`, in the structure of `like`: the same classes and settings with any values.

    `like` may come from `equinox.filter_eval_shape`. Arrays and Python numbers are read, all else is that of `like`.
    Raises `CorruptFile` if a single bit differs from what was saved, and `ValueError` naming the first place in the
    tree where `like` and the file are of different class, setting, shape or dtype.
    """
    header, body = _read(path)
    return _rebuild(path, header, body, like)


def read_header(path) -> dict:
    """What a file says of itself: "versions", "meta", and "tree", an entry per node. Raises `CorruptFile` as `load`."""
    return _read(path)[0]


def read_meta(path) -> dict:
    """The `meta` that a tree was saved with. Raises `CorruptFile` as `load` does."""
    return _read(path)[0]["meta"]


class Checkpoints:
    """The newest `keep` checkpoints of one run in a folder, and the way back to them.

    `fingerprint`: what the next steps depend on besides the tree (hash of the configuration, of the data). It is
    stored together with the code's own hash, library versions, precision and device, and compared by `latest`;
    `allow=True` continues in spite of differences, with a warning, and then not bit for bit.
    """

    def __init__(self, folder, keep: int = 2, fingerprint: Mapping | None = None, allow: bool = False):
        if keep < 1:
            raise ValueError(f"keep is the number of checkpoints to hold, at least 1; got {keep}")
        self.folder, self.keep, self.allow = Path(folder), keep, allow
        self.fingerprint = json.loads(json.dumps(environment() | dict(fingerprint or {}), default=_plain))
        self._broken: set[Path] = set()

    def beside(self, fingerprint: Mapping) -> "Checkpoints":
        """These checkpoints, of a run that depends on more."""
        found = copy.copy(self)
        found.fingerprint = self.fingerprint | dict(fingerprint)
        return found

    def save(self, step: int, tree, meta: Mapping | None = None) -> Path:
        """Write the tree as the state after `step` steps, then drop the oldest beyond `keep`."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"step_{step:012d}.ckpt"
        save(path, tree, {"step": int(step), "fingerprint": self.fingerprint, "meta": dict(meta or {})})
        self._broken.discard(path)
        earlier = [other for other in self._paths() if other <= path and other not in self._broken]
        for old in (*earlier[: -self.keep], *self._broken):
            old.unlink(missing_ok=True)
        self._broken.clear()
        return path

    def latest(self, like) -> tuple[int, Any, dict] | None:
        """(step, tree, meta) of the newest checkpoint that verifies; `None` if there is none at all.

        Damaged ones are passed over with a warning each, leftovers of interrupted saves removed. Raises
        `CorruptFile` if all are damaged, `FingerprintMismatch` with the differences, and `ValueError` as `load`.
        """
        sweep(self.folder)
        paths = self._paths()
        for path in reversed(paths):
            try:
                header, body = _read(path)
            except CorruptFile as error:
                warnings.warn(f"{error}; falling back to the checkpoint before it", stacklevel=2)
                self._broken.add(path)
                continue
            saved = header["meta"]
            self._compare(path, saved["fingerprint"])
            return saved["step"], _rebuild(path, header, body, like), saved["meta"]
        if paths:
            raise CorruptFile(f"all {len(paths)} checkpoints in {self.folder} are damaged; remove them to start anew")
        return None

    def _paths(self) -> list[Path]:
        return sorted(self.folder.glob("step_*.ckpt"))

    def _compare(self, path: Path, saved: dict):
        lines = difference(saved, self.fingerprint)
        if lines and self.allow:
            warnings.warn(f"{path} goes on under other conditions, not bit for bit:\n{lines}", stacklevel=3)
        elif lines:
            raise FingerprintMismatch(
                f"{path} was written under other conditions (saved -> now):\n{lines}\n"
                "Restore them, start in an empty folder, or pass allow=True to go on, then not bit for bit."
            )


def _plain(value):
    if isinstance(value, np.ndarray | np.generic | jax.Array):
        return np.asarray(value).tolist()
    raise TypeError(f"{type(value).__name__} {value!r:.60}")


def _read(path) -> tuple[dict, memoryview]:
    """Header and body of a file whose every bit verifies."""
    content = Path(path).read_bytes()
    start = len(_MAGIC) + 8 + 32
    if content[: len(_MAGIC)] != _MAGIC:
        raise CorruptFile(f"{path} is damaged or was not written by hybridgcm.save: it begins with {content[:23]!r}")
    end = start + int.from_bytes(content[start - 40 : start - 32], "little")
    text, body = content[start:end], memoryview(content)[end:]
    if hashlib.sha256(text).digest() != content[start - 32 : start]:
        raise CorruptFile(f"{path} is damaged: its header does not match its hash")
    try:
        header = json.loads(text)
        sizes = [(entry["path"], entry["bytes"], entry["sha256"]) for entry in header["tree"] if "bytes" in entry]
        expected = sum(size for _, size, _ in sizes)
    except (ValueError, KeyError, TypeError) as error:
        raise CorruptFile(f"{path} has a header that cannot be read: {error!r}") from error
    if len(body) != expected:
        raise CorruptFile(f"{path} is damaged: expected {expected} bytes of arrays, it has {len(body)}")
    offset = 0
    for where, size, sha in sizes:
        if hashlib.sha256(body[offset : offset + size]).hexdigest() != sha:
            raise CorruptFile(f"{path} is damaged: the bytes of {where} do not match their hash")
        offset += size
    return header, body


def _rebuild(path, header: dict, body: memoryview, like):
    nodes, entries = list(walk(like)), header["tree"]
    compare_trees(path, nodes, entries)
    leaves, offset = [], 0
    try:
        for (_, _, leaf), entry in zip(nodes, entries, strict=True):
            if is_data(leaf):
                leaves.append(_restore(leaf, entry, body[offset : offset + entry["bytes"]]))
                offset += entry["bytes"]
            elif is_number(leaf):
                value = entry["value"]
                leaves.append(complex(*value) if isinstance(leaf, complex) else type(leaf)(value))
            elif leaf is not None:
                leaves.append(leaf)
    except (KeyError, TypeError, ValueError) as error:
        raise CorruptFile(f"{path} was not written by hybridgcm.save: {error!r}") from error
    return jax.tree.unflatten(jax.tree.structure(like), leaves)


def _restore(like, entry: dict, data: memoryview):
    # dtype and shape are those of `like`, which the header was compared with: nothing is built from the file's word
    if is_key(like):
        raw = jnp.array(np.frombuffer(data, "<u4")).reshape(*like.shape, -1)
        return jax.random.wrap_key_data(raw, impl=entry["impl"])
    array = np.frombuffer(data, np.dtype(like.dtype).newbyteorder("<")).reshape(like.shape).astype(like.dtype)
    if isinstance(like, np.generic):
        return array[()]
    return array if isinstance(like, np.ndarray) else jnp.array(array)
