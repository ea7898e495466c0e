"""Configurations of experiments: frozen dataclasses, presets, TOML and flags. Imports no JAX, so refusals are fast."""

import argparse
import contextlib
import dataclasses
import difflib
import json
import sys
import tomllib
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def configure(presets: Mapping[str, Any], argv: Sequence[str] | None = None, out: str = "runs"):
    """(config, folder) from a preset < `--config run.toml` < flags; the first preset is the default.

    Configurations are instances of one frozen dataclass, possibly nested, whose optional method `problems()` lists
    what does not fit together. Everything that is wrong is reported at once, with the nearest valid name, and the
    process ends with code 2 before anything is computed or written.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    default = next(iter(presets))
    for flag, value in (("--preset", default), ("--config", None), ("--out", None)):
        first.add_argument(flag, default=value)
    chosen, flags = first.parse_known_args(argv)
    problems = []
    if chosen.preset not in presets:
        problems.append(
            f"--preset {chosen.preset}: expected one of {', '.join(presets)}{_nearest(chosen.preset, presets)}"
        )
    config = presets.get(chosen.preset, presets[default])
    if chosen.config is not None:
        config = _from_toml(config, Path(chosen.config), problems)
    config = _from_flags(config, flags, presets, problems)
    if not problems and hasattr(config, "problems"):
        problems = list(config.problems())
    if problems:
        print("\n".join(["This run cannot start:", *(f"  - {problem}" for problem in problems)]), file=sys.stderr)
        raise SystemExit(2)
    return config, Path(chosen.out or Path(out) / chosen.preset)


def to_toml(config) -> str:
    """All fields of a configuration as TOML that `--config` reads back to the same values."""
    return "\n".join(_toml_lines(dataclasses.asdict(config), ())).strip() + "\n"


def config_difference(there: dict, asked: dict) -> str:
    """One line `key: there -> asked` for every setting in which two TOML tables differ; empty if none."""
    old, new = _flat(there), _flat(asked)
    names = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    return "\n".join(f"  {name}: {old.get(name, 'absent')} -> {new.get(name, 'absent')}" for name in names)


def _from_flags(config, flags: list[str], presets: Mapping, problems: list):
    """Flags over a configuration. Earlier problems are printed even if the flags are refused."""
    try:
        import tyro
    except ImportError as error:
        raise SystemExit('experiments read their flags with tyro; pip install "hybridgcm[cli]"') from error
    fixed = typing.Annotated
    names = ", ".join(presets)
    fields = [
        ("preset", fixed[str, tyro.conf.arg(help=f"One of {names}.")], next(iter(presets))),
        ("config", fixed[Path | None, tyro.conf.arg(help="TOML file with fields that differ from the preset.")], None),
        ("out", fixed[Path | None, tyro.conf.arg(help="Folder of the run, by default runs/PRESET.")], None),
        ("fields", fixed[type(config), tyro.conf.arg(name=""), tyro.conf.AvoidSubcommands], config),
    ]
    form = dataclasses.make_dataclass(
        "Experiment", [(name, kind, dataclasses.field(default=d)) for name, kind, d in fields]
    )
    try:
        return tyro.cli(form, args=flags, description=type(config).__doc__ or "").fields
    except SystemExit as stop:
        if problems and stop.code:
            print("\n".join(["Besides:", *(f"  - {problem}" for problem in problems)]), file=sys.stderr)
        raise


def _from_toml(config, path: Path, problems: list):
    try:
        table = tomllib.loads(path.read_text())
    except OSError as error:
        problems.append(f"--config {path}: {error.strerror}")
        return config
    except tomllib.TOMLDecodeError as error:
        problems.append(f"--config {path}: not valid TOML: {error}")
        return config
    return _merge(config, table, "", path, problems)


def _merge(config, table: dict, prefix: str, path: Path, problems: list):
    """A copy of a dataclass with the values of a TOML table; everything that is wrong goes to `problems`."""
    kinds, changes = typing.get_type_hints(type(config)), {}
    names = [field.name for field in dataclasses.fields(config)]
    for key, value in table.items():
        where = f"{path}: {prefix}{key}"
        if key not in names:
            problems.append(f"{where} is not a setting{_nearest(key, names)}; there are {', '.join(names)}")
        elif dataclasses.is_dataclass(getattr(config, key)):
            if isinstance(value, dict):
                changes[key] = _merge(getattr(config, key), value, f"{prefix}{key}.", path, problems)
            else:
                problems.append(f"{where} = {value!r}, expected a table [{prefix}{key}]")
        else:
            try:
                changes[key] = _convert(value, kinds[key])
            except ValueError:
                problems.append(f"{where} = {value!r}, expected {_in_words(kinds[key])}")
    return dataclasses.replace(config, **changes)


def _convert(value, kind):
    """The TOML value as the annotated type; `ValueError` if it is not one. None is written "none"."""
    origin, options = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        for option in options:
            with contextlib.suppress(ValueError):
                return _convert(value, option)
        raise ValueError
    if origin is typing.Literal:
        matches = [option for option in options if option == value and type(option) is type(value)]
        if not matches:
            raise ValueError
        return matches[0]
    if origin is tuple and isinstance(value, list):
        kinds = [options[0]] * len(value) if options[-1] is Ellipsis else options
        if len(kinds) != len(value):
            raise ValueError
        return tuple(_convert(item, kind) for item, kind in zip(value, kinds, strict=True))
    if kind is types.NoneType and value == "none":
        return None
    if kind is float and type(value) is int:
        return float(value)
    if kind is Path and isinstance(value, str):
        return Path(value)
    if kind not in (bool, int, float, str) or type(value) is not kind:
        raise ValueError
    return value


def _in_words(kind) -> str:
    plain = {bool: "true or false", int: "a whole number", float: "a number", str: "text", Path: "a path"}
    plain[types.NoneType] = '"none"'
    origin, options = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(map(_in_words, options))
    if origin is typing.Literal:
        return f"one of {', '.join(json.dumps(option) for option in options)}"
    if origin is tuple:
        return f"a list: {', '.join('...' if o is Ellipsis else _in_words(o) for o in options)}"
    return plain.get(kind, str(kind))


def _toml_lines(table: dict, path: tuple) -> list[str]:
    plain = [f"{key} = {_toml_value(value)}" for key, value in table.items() if not isinstance(value, dict)]
    lines = [f"[{'.'.join(path)}]", *plain, ""] if path and plain else [*plain, ""]
    for key, value in table.items():
        if isinstance(value, dict):
            lines += _toml_lines(value, (*path, key))
    return lines


def _toml_value(value) -> str:
    if value is None:
        return '"none"'
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_toml_value, value))}]"
    if isinstance(value, float):
        return repr(value)  # nan, inf and -inf are TOML too
    return json.dumps(str(value) if isinstance(value, Path) else value)


def _flat(table: dict, prefix: str = "") -> dict:
    flat = {}
    for key, value in table.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": repr(value)}
    return flat


def _nearest(name: str, valid) -> str:
    close = difflib.get_close_matches(name, list(valid), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
