"""What every equation offers to steppers, closures and models."""

import abc
from typing import ClassVar

import equinox as eqx
from jaxtyping import Array

from hybridgcm._typing import Fields, Spectral
from hybridgcm.grids import AbstractGrid


class AbstractEquation(eqx.Module):
    """∂y/∂t = explicit(t, y) + implicit(y), with y spectral and `implicit` linear.

    The split is for implicit-explicit steppers; explicit ones add the two.
    """

    prognostic: ClassVar[tuple[str, ...]]
    """Names of the prognostic variables, the keys of y."""
    grid: eqx.AbstractVar[AbstractGrid]
    layers: eqx.AbstractVar[int]
    """Number of layers, the leading axis of every field."""

    @abc.abstractmethod
    def view(self, y: Spectral) -> Fields:
        """Named grid-space fields of a spectral state: prognostics and what closures may read."""

    @abc.abstractmethod
    def explicit(self, t: Array | float, y: Spectral) -> Spectral:
        """Tendency that is stepped explicitly, s⁻¹ times the unit of y; t in s."""

    @abc.abstractmethod
    def implicit(self, y: Spectral) -> Spectral:
        """Linear tendency that implicit-explicit steppers treat implicitly."""

    @abc.abstractmethod
    def solve(self, y: Spectral, a: Array | float) -> Spectral:
        """(1 − a·implicit)⁻¹ y; a in s."""

    @abc.abstractmethod
    def lift(self, forcing: Fields) -> dict[str, Array | float]:
        """Tendency of y from named forcings; raises `ValueError` on a name that it does not know."""

    def advecting_velocity(self, y: Spectral) -> tuple[Array, Array]:
        """(u, v) on the grid, m s⁻¹, that carries the flow, with the mean flow `U` where there is one."""
        fields = self.view(y)
        U = getattr(self, "U", None)
        return fields["u"] if U is None else fields["u"] + U[:, None, None], fields["v"]
