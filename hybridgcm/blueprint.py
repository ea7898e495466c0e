"""The structure of a saved closure from the header of its file alone: what `checkpoint.load` takes as `like`."""

import ast
import dataclasses
import io
import sys
import tokenize
from collections.abc import Mapping

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from hybridgcm import closures, nn

_ACTIVATIONS = ("relu", "silu", "gelu", "tanh", "elu", "softplus", "leaky_relu", "sigmoid")


def blueprint(entries: list[Mapping]):
    """A tree of the classes and settings that a file's header names, arrays as shapes: the `like` of `load`.

    `entries`: of `checkpoint.read_header(path)["tree"]`. Classes are looked up among those of
    `hybridgcm.closures` and `hybridgcm.nn`, functions among jax.nn's activations; nothing of a file is executed.
    Raises `ValueError` for any other class or function, and for settings that are no plain values.
    """
    if not entries:
        raise ValueError("the file's header names no tree; it was not written by hybridgcm.save")
    tree, rest = _node(entries)
    if rest:
        raise ValueError(f"the file's header goes on after its tree, at {rest[0]['path']}")
    return tree


def _node(entries):
    """The node that the first entry names with all below it, and the entries after them."""
    kind, rest = entries[0]["kind"], entries[1:]
    if "bytes" in entries[0]:
        return _array(kind), rest
    if "value" in entries[0]:
        return {"int": int, "float": float, "bool": bool, "complex": complex}[kind](), rest
    if kind in ("tuple", "list", "dict"):
        prefix = "" if entries[0]["path"] == "the whole" else entries[0]["path"]
        items = {}
        while rest and rest[0]["path"].startswith(f"{prefix}[") and (key := _key(rest[0]["path"], prefix)) is not None:
            items[key], rest = _node(rest)
        return (items if kind == "dict" else {"tuple": tuple, "list": list}[kind](items.values())), rest
    if kind.startswith("hybridgcm."):
        return _module(entries)
    return _setting(_parsed(kind)), rest


def _module(entries):
    call = _parsed(entries[0]["kind"])
    name = call.func.attr
    homes = [module for path, module in sys.modules.items() if path.startswith((closures.__name__, nn.__name__))]
    found = [getattr(module, name) for module in homes if hasattr(module, name)]
    cls = next((a for a in found if isinstance(a, type) and issubclass(a, eqx.Module)), None)
    if cls is None or name.startswith("Abstract"):
        raise ValueError(
            f"the file holds a {name}, which is no class of hybridgcm.closures or hybridgcm.nn; load it with "
            "hybridgcm.load(path, like), where `like` is one that you made"
        )
    given = {part.arg: _setting(part.value) for part in call.keywords}
    module, rest = object.__new__(cls), entries[1:]
    for field in dataclasses.fields(cls):
        if field.metadata.get("static"):
            if field.name in given:
                object.__setattr__(module, field.name, given[field.name])
        else:
            value, rest = _node(rest)
            object.__setattr__(module, field.name, value)
    return module, rest


def _array(kind: str):
    name, _, shape = kind.partition("[")
    if name.startswith("key<"):
        raise ValueError(f"the file holds random keys ({kind}); closures that ship hold numbers only")
    return jax.ShapeDtypeStruct(tuple(_shape(f"[{shape}")), np.dtype(getattr(jnp, name)))


def _shape(text: str) -> list[int]:
    """The lengths in "[2, 3]"."""
    return [int(part) for part in text.strip("[]").split(",") if part.strip()]


def _key(path: str, prefix: str):
    """The index or name right behind `prefix` in a path such as `net.weights[0]`."""
    return ast.literal_eval(path[len(prefix) + 1 : path.index("]", len(prefix))])


def _parsed(text: str) -> ast.expr:
    """The expression in a text of `fingerprint.describe`, which writes a tuple of one without its comma."""
    parts, opened, before = [], [], None
    try:
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            mark = token.string
            if mark in (")", "]", "}"):
                group = opened.pop()
                parts += [","] if group["tuple"] and group["items"] and not group["commas"] else []
            if opened and mark:
                opened[-1]["commas" if mark == "," else "items"] += 1
            if mark in ("(", "[", "{"):
                opened.append({"tuple": mark == "(" and before != tokenize.NAME, "commas": 0, "items": 0})
            before = token.type
            parts.append(mark)
        return ast.parse("".join(parts).strip(), mode="eval").body
    except (SyntaxError, tokenize.TokenError, IndexError) as error:
        raise ValueError(f"the file names a node that cannot be read, {text!r}") from error


def _setting(node: ast.expr):
    """A static setting: a plain value, or an activation."""
    if isinstance(node, ast.Attribute) and node.attr in _ACTIVATIONS:
        return getattr(jax.nn, node.attr)
    if isinstance(node, ast.Tuple):
        return tuple(map(_setting, node.elts))
    if isinstance(node, ast.Call) and ast.unparse(node.func) == "dtype":
        return np.dtype(ast.literal_eval(node.args[0]))
    try:
        return ast.literal_eval(node)
    except ValueError:
        raise ValueError(
            f"a setting of the saved closure, {ast.unparse(node)}, is no plain value and none of jax.nn's "
            f"{', '.join(_ACTIVATIONS)}; load it with hybridgcm.load(path, like), where `like` is one that you made"
        ) from None
