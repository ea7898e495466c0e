"""What every equation offers to steppers, closures and models."""

import abc
from collections.abc import Callable
from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from hybridgcm._typing import Fields, Spectral, nearest
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

    def check_forcing(self, forcing: Fields) -> Fields:
        """`forcing` itself, if `lift` can take it: the prognostics or `u` and `v` on the grid, or `name_hat` spectral.

        Raises `ValueError` for any other name, for half a momentum forcing, and for a shape other than `[layer, y, x]`
        (`[layer, l, k]` where spectral): a forcing of one layer would silently be that of all.
        """
        known = [*self.prognostic, "u", "v", *(f"{name}_hat" for name in self.prognostic)]
        unknown, half = sorted(set(forcing) - set(known)), ("u" in forcing) != ("v" in forcing)
        if unknown or half:
            hint = nearest(unknown[0], known) if unknown else "; u and v come together"
            listed = f"{', '.join(map(repr, self.prognostic))}, ('u', 'v') or spectral {known[-1]!r}"
            raise ValueError(f"{type(self).__name__} takes forcing on {listed}; got {sorted(forcing)}{hint}")
        for name, a in forcing.items():
            spectral = name.endswith("_hat")
            expected = (self.layers, *(self.grid.spectral_shape if spectral else self.grid.shape))
            if jnp.shape(a) != expected:
                axes = "[layer, l, k]" if spectral else "[layer, y, x]"
                raise ValueError(
                    f"forcing on {name} has shape {jnp.shape(a)}, expected {expected} {axes}; one layer alone is "
                    f"forced by zeros in the others"
                )
        return forcing

    def lift_prognostics(self, forcing: Fields) -> dict[str, Array | float]:
        """The part of `lift` that needs no physics: forcing of each prognostic, on the grid plus spectral."""
        total = {name: forcing.get(f"{name}_hat", 0.0) for name in self.prognostic}
        for name in set(forcing) & set(self.prognostic):
            total[name] = total[name] + self.grid.to_spectral(forcing[name])
        return total

    def advecting_velocity(self, y: Spectral) -> tuple[Array, Array]:
        """(u, v) on the grid, m s⁻¹, that carries the flow, with the `mean_flow` where there is one."""
        fields = self.view(y)
        U, V = getattr(self, "mean_flow", (0, 0))
        return fields["u"] + U, fields["v"] + V


class AbstractExtension(AbstractEquation):
    """An equation around `inner`, on its grid and with its layers and mean flow."""

    inner: eqx.AbstractVar[AbstractEquation]

    @property
    def grid(self) -> AbstractGrid:
        """Grid of the inner equation."""
        return self.inner.grid

    @property
    def layers(self) -> int:
        """Layers of the inner equation."""
        return self.inner.layers

    @property
    def mean_flow(self) -> tuple:
        """(U, V) of the inner equation, m s⁻¹."""
        return getattr(self.inner, "mean_flow", (0, 0))


class SurrogateEquation(AbstractExtension):
    """∂y/∂t = lift(N(view(y))) + implicit(y): `inner` whose explicit tendency an emulator N gives. All else is inner's.

    `tendency`: N, called as a closure is, `forcing, _ = tendency(fields, grid, None, None)`, with fields of
    `inner.view`, `[layer, y, x]`; it returns the *whole* explicit tendency under names that `inner.lift` knows, such as
    {"q": s⁻²}. A `NetworkClosure` serves, fitted to `inner.explicit`. What forces the flow from outside, being a
    closure of the model, stays outside of N. So gradients of a rollout pass through N instead of the explicit solver,
    and a closure trained in `Model(SurrogateEquation(equation, N), stepper, closure, dt=dt)` goes into the real model
    as it is, or the real equation into its place: `eqx.tree_at(lambda m: m.equation, model, model.equation.inner)`.

    Frezat, Fablet, Balarac and Le Sommer (2024), arXiv:2310.19385: N is trained first, to rollouts of `inner` without
    closure, and then frozen, so that the closure does not make up for its errors.
    Trainable: what `tendency` trains, and the parameters of the implicit part. Those of the explicit part have no
    effect. Raises `ValueError` for a tendency that does not name every prognostic, and what `inner.lift` refuses.
    """

    inner: AbstractEquation
    tendency: Callable

    @property
    def prognostic(self) -> tuple[str, ...]:
        """Prognostics of the inner equation."""
        return self.inner.prognostic

    def view(self, y: Spectral) -> Fields:
        return self.inner.view(y)

    def explicit(self, t: Array | float, y: Spectral) -> Spectral:
        forcing, _ = self.tendency(self.inner.view(y), self.grid, None, None)
        missing = [name for name in self.prognostic if name not in forcing and f"{name}_hat" not in forcing]
        if missing and not {"u", "v"} <= set(forcing):
            raise ValueError(
                f"an emulator of {type(self.inner).__name__} gives the whole tendency of {self.prognostic}; "
                f"{missing} missing, got {sorted(forcing)}"
            )
        return self.inner.lift(forcing)

    def implicit(self, y: Spectral) -> Spectral:
        return self.inner.implicit(y)

    def solve(self, y: Spectral, a: Array | float) -> Spectral:
        return self.inner.solve(y, a)

    def lift(self, forcing: Fields) -> dict[str, Array | float]:
        """As the inner equation does."""
        return self.inner.lift(forcing)


def reference_eigenvalue(grid: AbstractGrid, scale: float | None = None) -> float:
    """λ₀ = (π/scale)², m⁻², `scale` half a wavelength in m; by default that of the smallest resolved wave."""
    resolved = np.asarray(grid.multiplicity) > 0
    return float(np.max(-np.asarray(grid.eigenvalues, float)[resolved]) if scale is None else (np.pi / scale) ** 2)


def roughness(grid: AbstractGrid, order: int, scale: float | None = None) -> np.ndarray:
    """(λ/λ₀)^order per mode, what a hyper-dissipation of rate 1/tau is multiplied by; λ eigenvalues of −∇².

    Zero where nothing is resolved: there explicit schemes are unstable, which no state feels but gradients do.
    """
    resolved = np.asarray(grid.multiplicity) > 0
    return np.where(resolved, (-np.asarray(grid.eigenvalues, float) / reference_eigenvalue(grid, scale)) ** order, 0)
