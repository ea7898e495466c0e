"""What a tree or a run is, as text and hashes that are the same in every process."""

import dataclasses
import functools
import hashlib
import inspect
import itertools
import os
import sys
import types
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jaxlib
import numpy as np


def digest(tree) -> str:
    """SHA-256 of a tree: classes and functions with what they do (`acts`), static settings, every bit of its arrays."""
    total = hashlib.sha256()
    for where, kind, leaf in walk(tree, named=acts):
        total.update(f"{where}\0{kind}\0".encode())
        if is_data(leaf):
            total.update(raw_bytes(leaf))
        elif is_number(leaf):
            total.update(repr(leaf).encode())
    return total.hexdigest()


def difference(old: Mapping, new: Mapping) -> str:
    """One line `name: old -> new` for every entry in which two flat dicts differ; empty if none."""
    names = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    return "\n".join(f"  {name}: {old.get(name, 'absent')} -> {new.get(name, 'absent')}" for name in names)


def compare_trees(path, nodes: list, entries: list):
    """Raise `ValueError` at the first node of a tree (see `walk`) that is not what the header of a file says."""
    saved = [(entry["path"], entry["kind"]) for entry in entries]
    expected = [(where, kind) for where, kind, _ in nodes]
    for ours, theirs in itertools.zip_longest(expected, saved, fillvalue=("the end", "nothing")):
        if ours != theirs:
            if ours[0] == theirs[0]:
                what = f"at {ours[0]}, expected {ours[1]}, the file has {theirs[1]}"
            else:
                what = f"expected {ours[0]} ({ours[1]}) next, the file has {theirs[0]} ({theirs[1]})"
            raise ValueError(
                f"{path} holds another tree: {what}. Build `like` from the class and settings that were saved "
                "(read_meta shows what was noted with them)."
            )


@functools.cache
def code_version() -> str:
    """SHA-256 over the source files of this package."""
    root, total = Path(__file__).parent, hashlib.sha256()
    for file in sorted(root.rglob("*.py")):
        total.update(f"{file.relative_to(root).as_posix()}\0".encode() + file.read_bytes())
    return total.hexdigest()


def environment() -> dict:
    """What decides about bits besides the configuration: code, libraries, precision, device, cores, XLA flags."""
    device = jax.devices()[0]
    found = versions() | {
        "code": code_version(),
        "x64": bool(jax.config.jax_enable_x64),
        "matmul precision": str(jax.config.jax_default_matmul_precision),
        "device": " ".join(dict.fromkeys([device.platform, device.device_kind])),
        "devices": jax.device_count(),
        "XLA_FLAGS": os.environ.get("XLA_FLAGS", ""),
    }
    if device.platform == "cpu":  # the order of a global sum depends on the number of threads
        found["cores"] = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return found


def name_of(thing) -> str:
    """`package.Class`: without submodules, so that moving a class within its package keeps files readable."""
    module = getattr(thing, "__module__", None) or type(thing).__module__
    if module == "__main__":  # a script's classes have one name, whether it is run or imported
        main = sys.modules["__main__"]
        module = main.__spec__.name if getattr(main, "__spec__", None) else Path(getattr(main, "__file__", module)).stem
    qualified = getattr(thing, "__qualname__", None) or thing.__name__
    return f"{module.split('.')[0]}.{qualified.rpartition('<locals>.')[2]}".removeprefix("builtins.")


def acts(thing, seen: tuple = ()) -> str:
    """`name_of`, with a hash of what a function or class does: its code, defaults, and the values that it refers to.

    The code of this package and of installed ones is not read (`environment` has their versions), what a function of
    theirs was made with is: the rate of an optimiser. Of global names it knows numbers, text, arrays, functions and
    classes, in tuples, lists and dicts, too; not the attributes of other modules.
    """
    if id(thing) in seen:  # calls itself
        return name_of(thing)
    named, found = functools.partial(acts, seen=(*seen, id(thing))), []
    if isinstance(thing, type):
        for kind in filter(_is_script, thing.__mro__):
            for name, member in sorted(vars(kind).items()):
                member = _function(member)
                if hasattr(member, "__code__") or not (name.startswith("__") or callable(member)):
                    found.append(f"{name}={describe(member, named)}")
    elif hasattr(function := inspect.unwrap(thing), "__code__"):
        cells = [cell.cell_contents for cell in function.__closure__ or () if cell != types.CellType()]
        refers = cells or None, getattr(function, "__self__", None), function.__defaults__, function.__kwdefaults__
        found = [describe(part, named) for part in refers if part is not None]
        if _is_script(function):
            names, text = _code(function.__code__)
            values = {name: function.__globals__[name] for name in names if name in function.__globals__}
            values = {name: value for name, value in values.items() if not isinstance(value, types.ModuleType)}
            found += [text, describe(values, named)]
    if not found:
        return name_of(thing)
    return f"{name_of(thing)} {hashlib.sha256(chr(0).join(found).encode()).hexdigest()[:16]}"


def _function(member):
    """What is called of a class's member: of a property, static method and the like."""
    member = getattr(member, "__func__", None) or getattr(member, "fget", None) or getattr(member, "func", member)
    generated = getattr(getattr(member, "__code__", None), "co_filename", "") == "<string>"  # by dataclasses
    return None if generated else member


def _is_script(thing) -> bool:
    """Whether a function or class is from a script, a notebook or a package that is not installed."""
    name = getattr(thing, "__module__", None) or "builtins"
    file = getattr(sys.modules.get(name), "__file__", None) or ""
    package = name.split(".")[0]
    known = package in sys.stdlib_module_names - {"__main__"} or package == __package__
    return not (known or {"site-packages", "dist-packages"} & set(Path(file).parts))


def _code(code) -> tuple[set[str], str]:
    """Names that a code object and those in it use, and the code as text."""
    names, parts = set(code.co_names), [code.co_code.hex(), repr(code.co_names)]
    for value in code.co_consts:
        inner, text = _code(value) if isinstance(value, types.CodeType) else (set(), describe(value))
        names |= inner
        parts.append(text)
    return names, "\0".join(parts)


def describe(value, named=name_of) -> str:
    """A setting as text that is the same in every process: no addresses or paths, functions and classes as `named`."""
    every = functools.partial(describe, named=named)
    if value is None or isinstance(value, bool | int | float | complex | str | bytes):
        return repr(value)
    if isinstance(value, tuple | list):
        return f"({', '.join(map(every, value))})"
    if isinstance(value, set | frozenset):
        return f"{{{', '.join(sorted(map(every, value)))}}}"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{every(key)}: {every(value[key])}' for key in sorted(value, key=str))}}}"
    if isinstance(value, functools.partial):
        return f"partial{every((value.func, value.args, value.keywords))}"
    if is_data(value):
        abstract = isinstance(value, jax.ShapeDtypeStruct)
        return leaf_kind(value) + ("" if abstract else f" {hashlib.sha256(raw_bytes(value)).hexdigest()[:16]}")
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return f"{named(type(value))}{every({f.name: getattr(value, f.name) for f in dataclasses.fields(value)})}"
    if hasattr(value, "__qualname__") or hasattr(value, "__name__"):
        return named(value)
    return name_of(type(value)) if " at 0x" in repr(value) or isinstance(value, os.PathLike) else repr(value)


def walk(tree, path=(), named=name_of) -> Iterator[tuple[str, str, Any]]:
    """(path, what is there, leaf) of every node, depth first; the leaf is `None` for containers."""
    children = jax.tree_util.tree_flatten_with_path(tree, is_leaf=lambda node: node is not tree)[0]
    where = jax.tree_util.keystr(path).lstrip(".") or "the whole"
    if tree is None or (len(children) == 1 and not children[0][0]):
        yield where, leaf_kind(tree, named), tree
        return
    yield where, _container(tree, named), None
    for key, child in children:
        yield from walk(child, (*path, *key), named)


def _container(node, named) -> str:
    if isinstance(node, eqx.Module):
        static = [field.name for field in dataclasses.fields(node) if field.metadata.get("static")]
        settings = [f"{name}={describe(getattr(node, name), named)}" for name in static if hasattr(node, name)]
        return f"{named(type(node))}({', '.join(settings)})"
    if isinstance(node, dict | list | tuple):
        return name_of(type(node))
    structure = jax.tree.structure(node, is_leaf=lambda child: child is not node)
    return name_of(type(node)) + describe(structure.node_data()[1], named)


def leaf_kind(leaf, named=name_of) -> str:
    """dtype and shape of an array, the type of a number, or a setting as `describe` gives it."""
    if is_data(leaf):
        kind = jnp.issubdtype
        if not (kind(leaf.dtype, np.number) or kind(leaf.dtype, np.bool_) or kind(leaf.dtype, jax.dtypes.prng_key)):
            raise TypeError(f"an array of dtype {leaf.dtype} cannot be saved; only numbers, booleans and PRNG keys can")
        return f"{leaf.dtype.name}{list(leaf.shape)}"
    return type(leaf).__name__ if is_number(leaf) else describe(leaf, named)


def is_data(leaf) -> bool:
    """Whether a leaf is an array, concrete or abstract."""
    return eqx.is_array(leaf) or isinstance(leaf, np.ndarray | np.generic | jax.ShapeDtypeStruct)


def is_number(leaf) -> bool:
    """Whether a leaf is a Python number."""
    return isinstance(leaf, bool | int | float | complex) and not isinstance(leaf, np.generic)


def is_key(leaf) -> bool:
    """Whether an array is made of typed PRNG keys."""
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def raw_bytes(leaf) -> np.ndarray:
    """The little-endian bytes of an array. Raises `TypeError` for an abstract one."""
    if isinstance(leaf, jax.ShapeDtypeStruct):
        raise TypeError(f"expected an array with values, got {leaf}; abstract trees are for the `like` of load only")
    array = np.asarray(jax.random.key_data(leaf) if is_key(leaf) else leaf)
    order = sys.byteorder if array.dtype.byteorder == "=" else {">": "big"}.get(array.dtype.byteorder, "little")
    if order == "big":
        array = array.astype(array.dtype.newbyteorder("<"))
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)


def versions() -> dict:
    """Versions of the libraries that decide about bits."""
    return {"jax": jax.__version__, "jaxlib": jaxlib.__version__, "equinox": eqx.__version__, "numpy": np.__version__}
