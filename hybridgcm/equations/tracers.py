"""Passive tracers that any equation's flow carries."""

from collections.abc import Sequence

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from hybridgcm._typing import Fields, Numbers, Spectral, fixed
from hybridgcm.equations.base import AbstractEquation, AbstractExtension, roughness
from hybridgcm.grids.base import scale as scaled


class Tracers(AbstractExtension):
    """`inner` with ∂c/∂t = −(u + U)·∇c − u·G − D c for every tracer c `[layer, y, x]`.

    c is the anomaly about a mean state of uniform gradient G = `mean_gradient` (∂C/∂x, ∂C/∂y), unit of c per m, one
    pair for all tracers or `[tracer, 2]`, that is maintained; U is the mean flow of `inner`, u its anomaly. Advection
    is written −∇·(uc) + c ∇·u, so a uniform c stays so in a flow that diverges, and the mean of c is exact in one that
    does not. D = (λ/λ₀)^order / tau as in `QuasiGeostrophic`, implicit. `names` need a line in `hybridgcm.VARIABLES`
    to be written to a store.

    Three transforms per tracer and layer beyond those of `inner` (one inverse, two forward); one more with a mean
    gradient or divergence, and one for δ.
    Trainable: `mean_gradient`, `tau`, and what `inner` trains. Fixed at construction: the shape of D.
    Raises `ValueError` for names that are taken or repeated, a wrong shape and a negative tau.
    """

    inner: AbstractEquation
    mean_gradient: Float[Array, "tracer 2"] | None
    tau: Float[Array, ""]
    roughness: Float[Array, "*modes"] = fixed()
    names: tuple[str, ...] = eqx.field(static=True)

    def __init__(
        self,
        inner: AbstractEquation,
        names: Sequence[str] = ("c",),
        *,
        mean_gradient: Numbers | None = None,
        tau: float = np.inf,
        order: int = 4,
        scale: float | None = None,
    ):
        names = (names,) if isinstance(names, str) else tuple(names)
        taken = {"u", "v", "psi", *inner.prognostic} & set(names)
        if taken or len(set(names)) < len(names) or not names:
            raise ValueError(f"tracers need names of their own, at least one; got {names}, taken: {sorted(taken)}")
        if not tau > 0:
            raise ValueError(f"a positive tau (s) damps; got {tau}")
        if mean_gradient is not None:
            gradient = np.asarray(mean_gradient, float)
            if gradient.shape not in ((2,), (len(names), 2)):
                raise ValueError(f"mean_gradient is (2,) or {(len(names), 2)} [tracer, (x, y)]; got {gradient.shape}")
            mean_gradient = np.broadcast_to(gradient, (len(names), 2))
        put = lambda a: None if a is None else jnp.asarray(a, inner.grid.eigenvalues.dtype)
        self.inner, self.names, self.mean_gradient = inner, names, put(mean_gradient)
        self.tau, self.roughness = put(tau), put(roughness(inner.grid, order, scale))

    @property
    def prognostic(self) -> tuple[str, ...]:
        """Prognostics of the inner equation, then the tracers."""
        return (*self.inner.prognostic, *self.names)

    @property
    def dissipation(self) -> Float[Array, "*modes"]:
        """D, decay rate per mode of the tracers, s⁻¹."""
        return self.roughness / self.tau

    def view(self, y: Spectral) -> Fields:
        """Fields of the inner equation and the tracers."""
        c = self.grid.to_grid(jnp.stack([y[name] for name in self.names]))
        return self.inner.view(self._flow(y)) | dict(zip(self.names, c, strict=True))

    def explicit(self, t: Array | float, y: Spectral) -> Spectral:
        grid, flow = self.grid, self._flow(y)
        fields = self.inner.view(flow)  # XLA merges these transforms with those of the inner tendency
        u, v = self.inner.advecting_velocity(flow)
        c = grid.to_grid(jnp.stack([y[name] for name in self.names]))
        tendency = -grid.divergence(u * c, v * c)
        if self.mean_gradient is not None or "delta" in fields:
            source = c * fields["delta"] if "delta" in fields else jnp.zeros_like(c)
            if self.mean_gradient is not None:
                G = self.mean_gradient[:, :, None, None, None]
                source = source - fields["u"] * G[:, 0] - fields["v"] * G[:, 1]
            tendency = tendency + grid.to_spectral(source)
        return self.inner.explicit(t, flow) | dict(zip(self.names, tendency, strict=True))

    def implicit(self, y: Spectral) -> Spectral:
        damped = {name: scaled(-self.dissipation, y[name]) for name in self.names}
        return self.inner.implicit(self._flow(y)) | damped

    def solve(self, y: Spectral, a: Array | float) -> Spectral:
        damped = {name: scaled(1 / (1 + a * self.dissipation), y[name]) for name in self.names}
        return self.inner.solve(self._flow(y), a) | damped

    def lift(self, forcing: Fields) -> dict[str, Array | float]:
        """Accepts what `inner` does, and every tracer (its unit per s) on the grid or spectral as `name_hat`.

        Raises `ValueError` for any other name, half a momentum forcing and a shape that is not one of all layers.
        """
        total = self.lift_prognostics(self.check_forcing(forcing))
        own = {*self.names, *(f"{name}_hat" for name in self.names)}
        rest = {name: a for name, a in forcing.items() if name not in own}
        return self.inner.lift(rest) | {name: total[name] for name in self.names}

    def _flow(self, y: Spectral) -> Spectral:
        return {name: y[name] for name in self.inner.prognostic}
