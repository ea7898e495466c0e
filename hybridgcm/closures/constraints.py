"""Closures that make another one keep a law: flux form, mean, energy, symmetry."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from hybridgcm._typing import Fields, nearest
from hybridgcm.closures.base import AbstractClosure, without_mean
from hybridgcm.grids import AbstractGrid


class FluxForm(AbstractClosure):
    """d`name` = −∂x F_x − ∂y F_y from the `inner` closure's forcings `name_x` and `name_y`: conserves the mean exactly.

    F is a flux of the prognostic `name`, its unit times m s⁻¹, `[layer, y, x]`; for a network,
    `NetworkClosure(net, inputs, outputs=("q_x", "q_y"), ...)`. Returns `name_hat`. Two transforms.
    Raises `ValueError` if `inner` gives other names.
    """

    inner: AbstractClosure
    name: str = eqx.field(static=True, default="q")

    def init(self, fields, grid):
        return self.inner.init(fields, grid)

    def __call__(self, fields, grid, memory, key):
        flux, memory = self.inner(fields, grid, memory, key)
        names = (f"{self.name}_x", f"{self.name}_y")
        if set(flux) != set(names):
            raise ValueError(f"FluxForm needs a closure that returns {names}; got {sorted(flux)}")
        return {f"{self.name}_hat": -grid.divergence(flux[names[0]], flux[names[1]])}, memory


class ZeroMean(AbstractClosure):
    """`inner` without the area mean of each forcing, per layer: f − ⟨f⟩. It then moves what it forces and makes none.

    For forcings on the grid or spectral (`_hat`), unit kept; memory is that of `inner`. No transform. Forces u and v on
    a sphere are left as they are, as are those of `NetworkClosure`: a uniform component is no smooth field there.
    """

    inner: AbstractClosure

    def init(self, fields, grid):
        return self.inner.init(fields, grid)

    def __call__(self, fields, grid, memory, key):
        forcing, memory = self.inner(fields, grid, memory, key)
        on_grid = {name: without_mean(name, f, grid) for name, f in forcing.items() if not name.endswith("_hat")}
        waves = grid.eigenvalues != 0
        spectral = {name: jnp.where(waves, f, 0) for name, f in forcing.items() if name.endswith("_hat")}
        return on_grid | spectral, memory


class EnergyNeutral(AbstractClosure):
    """`inner` without the work it does: dq − a ψ with a = ⟨ψ dq⟩/⟨ψ²⟩, or du − a u with a = ⟨u·du⟩/⟨u·u⟩.

    ⟨⟩ is the mean over the domain and, weighted by `thickness` (any unit), over layers: the closure then moves energy
    between scales and layers but neither makes nor removes any. The correction is the smallest in the mean square.
    For a forcing of q it needs `psi` (quasi-geostrophic flow), for one of u and v those.
    Raises `ValueError` for forcings other than q, q_hat or (u, v), and a thickness that does not match the layers.
    """

    inner: AbstractClosure
    thickness: tuple[float, ...] = eqx.field(static=True)

    def __init__(self, inner: AbstractClosure, thickness):
        thickness = np.atleast_1d(np.asarray(thickness, float))
        if thickness.ndim != 1 or not (np.all(thickness > 0) and np.isfinite(thickness.sum())):
            raise ValueError(f"EnergyNeutral needs one positive thickness per layer; got {thickness.tolist()}")
        self.inner, self.thickness = inner, tuple((thickness / thickness.sum()).tolist())

    def init(self, fields, grid):
        layers = next(iter(fields.values())).shape[0]
        if layers != len(self.thickness):
            raise ValueError(
                f"EnergyNeutral has {len(self.thickness)} thicknesses, the fields {layers} layers; "
                "pass equation.thickness"
            )
        return self.inner.init(fields, grid)

    def __call__(self, fields, grid, memory, key):
        forcing, memory = self.inner(fields, grid, memory, key)
        if set(forcing) == {"u", "v"}:
            along = {"u": fields["u"], "v": fields["v"]}
        elif set(forcing) <= {"q", "q_hat"} and "psi" in fields:
            forcing = {"q": sum(grid.to_grid(f) if n.endswith("_hat") else f for n, f in forcing.items())}
            along = {"q": fields["psi"]}
        else:
            raise ValueError(f"EnergyNeutral knows forcings of q, with psi, and of (u, v); got {sorted(forcing)}")
        # Divided by its size first: squares of a forcing of 1e-12 s⁻² times a streamfunction leave single precision.
        square = sum(self._mean(grid, a**2) for a in along.values())
        size = jnp.sqrt(jnp.maximum(square, jnp.finfo(square.dtype).tiny))  # at rest: not infinite in its derivative
        unit = {name: a / size for name, a in along.items()}
        work = sum(self._mean(grid, unit[name] * f) for name, f in forcing.items())
        return {name: f - work * unit[name] for name, f in forcing.items()}, memory

    def _mean(self, grid: AbstractGrid, a):
        means = grid.mean(a)
        return sum(fraction * means[layer] for layer, fraction in enumerate(self.thickness))


PSEUDOSCALARS = ("q", "psi", "zeta", "S")
"""Fields that change sign in a mirror, as vorticity does."""
SCALARS = ("b", "delta", "phi", "c")


class Equivariant(AbstractClosure):
    """`inner` averaged over the quarter turns and mirror images of a square torus: ⟨g⁻¹ inner(g fields)⟩ over g.

    A closure that does not prefer a direction or a sense of rotation, whatever the network in it: turned fields give
    the turned forcing. Vorticities and streamfunctions change sign in a mirror; u and v turn as a vector. The planet
    does prefer a direction (β): use it for what the subgrid scales do. Eight evaluations of `inner`, with one key;
    its memory must be `None`.
    Raises `ValueError` for a grid that is not square, fields whose symmetry is not known, spectral forcings and memory.
    """

    inner: AbstractClosure

    def init(self, fields, grid):
        ny, nx = grid.shape
        if ny != nx or not np.allclose(*getattr(grid, "length", (0, 1))):
            raise ValueError(f"quarter turns need a square torus; got {grid}")
        if self.inner.init(fields, grid) is not None:
            raise ValueError(f"Equivariant cannot turn the memory of {type(self.inner).__name__}")
        return None

    def __call__(self, fields, grid, memory, key):
        known = {name: a for name, a in fields.items() if name in (*PSEUDOSCALARS, *SCALARS, "u", "v")}
        total = {}
        for turns in range(4):
            for mirrored in (False, True):
                forcing, _ = self.inner(_turn(_mirror(known) if mirrored else known, turns), grid, None, key)
                back = _turn(forcing, 4 - turns)
                back = _mirror(back) if mirrored else back
                total = {name: total.get(name, 0) + f / 8 for name, f in back.items()}
        return total, None


def _turn(fields: Fields, turns: int) -> Fields:
    """Fields turned clockwise by quarters, y counted upward."""
    _check_symmetry(fields)
    out = {name: jnp.rot90(a, turns, (-2, -1)) for name, a in fields.items()}
    for _ in range(turns % 4):
        if "u" in out:
            out |= {"u": out["v"], "v": -out["u"]}
    return out


def _mirror(fields: Fields) -> Fields:
    """Fields with x → −x."""
    _check_symmetry(fields)
    return {name: jnp.flip(a, -1) * (-1 if name in (*PSEUDOSCALARS, "u") else 1) for name, a in fields.items()}


def _check_symmetry(fields: Fields):
    known = (*PSEUDOSCALARS, *SCALARS, "u", "v")
    for name in fields:
        if name not in known:
            raise ValueError(f"how {name!r} behaves in a mirror is not known{nearest(name, known)}; known: {known}")
    if ("u" in fields) != ("v" in fields):
        raise ValueError("u and v turn together: the closure gives only one of them")
