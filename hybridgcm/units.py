"""Units of measurement as CF writes them: "m s-1", "m/s", "km", "day-1", "hPa", "degC"."""

import re
from typing import NamedTuple

_DIMENSIONS = ("m", "kg", "s", "K")
_UNITS = {
    "m": (1.0, "m"), "metre": (1.0, "m"), "meter": (1.0, "m"), "metres": (1.0, "m"), "meters": (1.0, "m"),
    "g": (1e-3, "kg"), "K": (1.0, "K"), "kelvin": (1.0, "K"),
    "s": (1.0, "s"), "sec": (1.0, "s"), "second": (1.0, "s"), "seconds": (1.0, "s"),
    "min": (60.0, "s"), "minute": (60.0, "s"), "minutes": (60.0, "s"),
    "h": (3600.0, "s"), "hr": (3600.0, "s"), "hour": (3600.0, "s"), "hours": (3600.0, "s"),
    "d": (86400.0, "s"), "day": (86400.0, "s"), "days": (86400.0, "s"),
    "N": (1.0, "kg m s-2"), "Pa": (1.0, "kg m-1 s-2"), "bar": (1e5, "kg m-1 s-2"),
    "millibar": (100.0, "kg m-1 s-2"), "millibars": (100.0, "kg m-1 s-2"),
    "J": (1.0, "kg m2 s-2"), "W": (1.0, "kg m2 s-3"),
}  # fmt: skip
_PREFIXES = {"G": 1e9, "M": 1e6, "k": 1e3, "h": 1e2, "d": 1e-1, "c": 1e-2, "m": 1e-3, "u": 1e-6, "n": 1e-9}
_CELSIUS = ("degC", "deg_C", "celsius", "Celsius", "degrees_Celsius", "degree_Celsius", "degree_C")


class Unit(NamedTuple):
    """value in SI = factor · number + offset; `powers` of m, kg, s and K."""

    factor: float
    powers: tuple[int, ...]
    offset: float = 0.0


def parse(text: str) -> Unit:
    """The unit that a text names. Raises `ValueError` with the part that is not understood."""
    text = text.strip().replace("**", "^")
    if text in _CELSIUS:
        return Unit(1.0, (0, 0, 0, 1), 273.15)
    if text in ("", "1", "none", "dimensionless"):
        return Unit(1.0, (0, 0, 0, 0))
    if text in ("%", "percent"):
        return Unit(0.01, (0, 0, 0, 0))
    factor, powers, sign = 1.0, [0, 0, 0, 0], 1
    for part in re.findall(r"/|[^\s/.*·]+", text):
        if part == "/":
            sign = -1
            continue
        match = re.fullmatch(r"([A-Za-z_]+)\^?([+-]?\d+)?", part)
        if match is None and part != "1":
            raise ValueError(f"unit {text!r}: {part!r} is not understood; write it like 'm s-1'")
        if match is not None:
            power = sign * int(match[2] or 1)
            scale, base = _named(match[1], text)
            factor *= scale**power
            powers = [old + power * new for old, new in zip(powers, base)]
        sign = 1
    return Unit(factor, tuple(powers))


def conversion(found: str, wanted: str) -> tuple[float, float]:
    """(factor, offset) with wanted = factor · found + offset. Raises `ValueError` if they measure different things."""
    a, b = parse(found), parse(wanted)
    if a.powers != b.powers:
        raise ValueError(f"units {found!r} cannot be converted to {wanted!r}: they measure different things")
    return a.factor / b.factor, (a.offset - b.offset) / b.factor


def _named(name: str, text: str) -> tuple[float, tuple[int, ...]]:
    """Scale and powers of one unit with or without a prefix."""
    if name == "kg":
        return 1.0, (0, 1, 0, 0)
    scale = 1.0
    if name not in _UNITS and name[:1] in _PREFIXES and name[1:] in _UNITS:
        scale, name = _PREFIXES[name[0]], name[1:]
    if name not in _UNITS:
        raise ValueError(f"unit {text!r}: {name!r} is not known; known are {', '.join(_UNITS)}, with prefixes")
    factor, base = _UNITS[name]
    powers = [0, 0, 0, 0]
    for part in base.split():
        match = re.fullmatch(r"([A-Za-z]+)(-?\d+)?", part)
        powers[_DIMENSIONS.index(match[1])] = int(match[2] or 1)
    return scale * factor, tuple(powers)
