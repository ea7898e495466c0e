"""Solvers of diffrax as steppers."""

import typing
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp

from hybridgcm._typing import Spectral
from hybridgcm.steppers.base import AbstractStepper, add, precision


class FromDiffrax(AbstractStepper):
    """Any solver of diffrax over one dt: `FromDiffrax(diffrax.Tsit5())`, or adaptive within dt with a `controller`.

    dy/dt = F + implicit, of which diffrax sees the real view {name: (real part, imaginary part)}. Solvers of its
    implicit–explicit pairs (`KenCarp4`, `Sil3`) get F and `implicit` apart; they find their stages by Newton
    iteration with dense Jacobians, for tiny grids only: `SIL3` and `BPR353` use the equation's own `solve`.

    Without controller one step of dt; order and stability are the solver's. With one, such as
    `diffrax.PIDController(rtol=1e-6, atol=1e-12)`, as many steps as it takes, dt first; the tolerance `atol` has the
    unit of y (s⁻¹ for vorticity). A solver starts afresh at every dt, as the closure that is held over dt wants: the
    memory of multi-step solvers (`LeapfrogMidpoint`) is lost, the reuse of a last stage ("FSAL") too.
    Reverse-mode differentiable through all steps (`RecursiveCheckpointAdjoint`).

    For reference integrations; an adaptive step costs a few times one of `RK4`. Kidger (2021), arXiv:2202.02435.
    Needs the extra `pip install "hybridgcm[diffrax]"`. Raises `ImportError` without, and while it runs if there are
    more than `max_steps` steps or implicit stages are not found.
    """

    order: ClassVar[int] = 0
    solver: Any
    controller: Any = None
    max_steps: int = eqx.field(default=4096, static=True)

    def init(self, y: Spectral):
        return None

    def __call__(self, F, equation, y, past, dt):
        diffrax = _import()
        view = lambda f: lambda t, pairs, _: _pairs(f(t, _complex(pairs)))
        if typing.get_origin(getattr(self.solver, "term_structure", None)) is diffrax.MultiTerm:
            parts = view(F), view(lambda t, y: equation.implicit(y))
            terms = diffrax.MultiTerm(*map(diffrax.ODETerm, parts))
        else:
            terms = diffrax.ODETerm(view(lambda t, y: add(F(t, y), equation.implicit(y))))
        begin, end = (jnp.asarray(t, precision(y)) for t in (0, dt))
        if self.controller is None:
            memory = self.solver.init(terms, begin, end, _pairs(y), None)
            found, *_, code = self.solver.step(terms, begin, end, _pairs(y), None, memory, False)
            if isinstance(self.solver, diffrax.AbstractImplicitSolver):
                found = code.error_if(found, ~diffrax.is_successful(code))
            return _complex(found), None
        found = diffrax.diffeqsolve(
            terms,
            self.solver,
            begin,
            end,
            end,
            _pairs(y),
            stepsize_controller=self.controller,
            max_steps=self.max_steps,
        )
        return _complex(jax.tree.map(lambda a: a[-1], found.ys)), None


def _pairs(y):
    return {name: (a.real, a.imag) for name, a in y.items()}


def _complex(pairs):
    return {name: jax.lax.complex(*parts) for name, parts in pairs.items()}


def _import():
    try:
        import diffrax
    except ImportError as error:
        raise ImportError('FromDiffrax needs diffrax: pip install "hybridgcm[diffrax]"') from error
    return diffrax
