"""The one closure interface, and closures made of closures."""

import abc
from typing import Any

import equinox as eqx
import jax.random as jr
from jaxtyping import Array

from hybridgcm._typing import Fields, param
from hybridgcm.grids import AbstractGrid


class AbstractClosure(eqx.Module):
    """Named forcings from named resolved fields: `forcing, memory = closure(fields, grid, memory, key)`.

    `fields` are what the equation's `view` gives, `[layer, y, x]`. A forcing is a tendency: the equation adds
    it to its right-hand side. Closures without memory return it untouched; deterministic ones ignore `key`.
    """

    @abc.abstractmethod
    def init(self, fields: Fields, grid: AbstractGrid) -> Any:
        """Memory before the first step; `None` for a closure without."""

    @abc.abstractmethod
    def __call__(self, fields: Fields, grid: AbstractGrid, memory: Any, key: Array) -> tuple[Fields, Any]:
        """Forcing and new memory. `key` is fresh at every step."""


class Sum(AbstractClosure):
    """Σ closures; forcings of the same name add up, memories stay apart, every part gets its own key."""

    parts: tuple[AbstractClosure, ...]

    def __init__(self, *parts: AbstractClosure):
        self.parts = parts

    def init(self, fields, grid):
        return tuple(part.init(fields, grid) for part in self.parts)

    def __call__(self, fields, grid, memory, key):
        total, memories = {}, []
        for part, inner, subkey in zip(self.parts, memory, jr.split(key, len(self.parts)), strict=True):
            forcing, inner = part(fields, grid, inner, subkey)
            total |= {name: total[name] + f if name in total else f for name, f in forcing.items()}
            memories.append(inner)
        return total, tuple(memories)


class Scaled(AbstractClosure):
    """amplitude × closure, a dimensionless trainable scalar: the one-parameter online calibration."""

    inner: AbstractClosure
    amplitude: Array = param(default=1.0)

    def init(self, fields, grid):
        return self.inner.init(fields, grid)

    def __call__(self, fields, grid, memory, key):
        forcing, memory = self.inner(fields, grid, memory, key)
        return {name: self.amplitude * f for name, f in forcing.items()}, memory
