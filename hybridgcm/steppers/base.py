"""What every time stepper offers."""

import abc
from collections.abc import Callable
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from hybridgcm._typing import Spectral
from hybridgcm.equations.base import AbstractEquation
from hybridgcm.grids.base import scale

Tendency = Callable[[float, Spectral], Spectral]
"""F(offset, y): explicit right-hand side at `offset` seconds after the start of the step."""


class AbstractStepper(eqx.Module):
    """y(t) → y(t + dt). `F` is the explicit tendency with closure; `equation` gives the implicit part.

    Explicit schemes add `equation.implicit` to F; implicit-explicit ones call `equation.solve`.
    """

    order: ClassVar[int]
    """Order of accuracy for the explicit part at a closure that is re-evaluated per stage."""

    @abc.abstractmethod
    def init(self, y: Spectral) -> Any:
        """History before the first step; `None` for one-step schemes."""

    @abc.abstractmethod
    def __call__(
        self, F: Tendency, equation: AbstractEquation, y: Spectral, past: Any, dt: Array | float
    ) -> tuple[Spectral, Any]:
        """One step of dt seconds: the new state and the new history."""


def add(a: Spectral, b: Spectral) -> Spectral:
    """a + b."""
    return jax.tree.map(jnp.add, a, b)


def axpy(weight: Array | float, slope: Spectral, y: Spectral) -> Spectral:
    """y + weight·slope for a real weight."""
    return jax.tree.map(lambda s, y: y + scale(weight, s), slope, y)


def precision(y: Spectral):
    """Real dtype of a spectral state."""
    return jax.tree.leaves(y)[0].real.dtype
