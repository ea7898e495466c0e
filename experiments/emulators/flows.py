"""The flows that are emulated: how the truth is made, on which grids, and what a network is told of its place."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import jax.random as jr
import numpy as np

import hybridgcm as hg
from hybridgcm import cases, closures, qg3
from hybridgcm.models import Steady

DAY = 86400.0


class Flow(NamedTuple):
    """A flow at resolutions 1, 2, 4 ... times that of the emulators, of which the truth has `finest`."""

    title: str
    names: tuple[str, ...]
    """Prognostics."""
    lead: float
    """Seconds that an emulator steps."""
    finest: int
    spin_up: tuple[float, float]
    """Days at resolution 1, then at the finest, before the records begin."""
    grid: Callable[[int], hg.AbstractGrid]
    """On whose points emulators work, with all modes that the points hold."""
    solver: Callable[[int], hg.Model]
    expert: Callable[[], hg.Model]
    """The finest solver, asked from where networks strayed. It damps gravity waves, where a flow has them: the truth
    makes next to none and keeps those it is given for weeks, so it does not teach how to lose them."""
    start: Callable[[hg.Model], dict]
    """Fields from which the solver of resolution 1 is started."""
    place: Callable[[hg.AbstractGrid], np.ndarray]
    """What networks are told of the place, `[channel, y, x]`: nothing where all places are alike."""


def flow(config) -> Flow:
    """The flow of the configuration, built once for each of its sizes."""
    makers = {"qg": _quasi_geostrophic, "shallow_water": _shallow_water, "sphere": _sphere}
    found = _qg3(config.n, config.inputs) if config.flow == "qg3" else makers[config.flow](config.n)
    if config.lead % (dt := found.solver(1).dt):
        raise ValueError(f"lead={config.lead:g} s, but the solver of {found.title} steps {dt:g} s: take a multiple")
    return found._replace(lead=config.lead or found.lead)


@functools.cache
def _quasi_geostrophic(n: int) -> Flow:
    """The eddy regime of Ross et al. (2023), doi:10.1029/2022MS003258; points as far apart as on their 64² grid.

    That is 15.6 km, a deformation radius; the truth has 3.9 km. The box is smaller than theirs where n is below 64.
    """
    length = 1e6 * n / 64

    def solver(factor):
        grid = hg.Torus(n * factor, length, dealias=2 / 3 if factor == 4 else None)
        equation = hg.QuasiGeostrophic.two_layer(
            grid, rd=15e3, beta=1.5e-11, U=(0.025, 0.0), drag=5.787e-7, tau=DAY / 4
        )
        return hg.Model(equation, hg.AB3(), dt=7200.0 if factor == 1 else 3600.0)

    return Flow(
        "two-layer quasi-geostrophic turbulence", ("q",), DAY, 4, (2000, 400),
        lambda factor: hg.Torus(n * factor, length, dealias=None), solver, lambda: solver(4),
        lambda model: {"q": 4e-6 * jr.normal(jr.key(0), (2, *model.equation.grid.shape))}, _nowhere,
    )  # fmt: skip


@functools.cache
def _shallow_water(n: int) -> Flow:
    """One layer of rotating shallow water, stirred by cells of vorticity that stand still; ours.

    The cells of `closure_benchmark`'s shallow water, of half its domain and without their drift: what networks are
    told of the place is the cells' pattern.
    """
    length, waves = 1e6 * n / 16, 2

    def solver(factor, *damping):
        grid = hg.Torus(n * factor, length, dealias=2 / 3 if factor == 4 else None)
        water = hg.ShallowWater(grid, 1e-4, 10.0**2, drag=5e-7, tau=DAY / 4)
        wave = lambda amplitude, m_x, m_y: closures.Kolmogorov(amplitude, m_x=m_x, m_y=m_y, name="zeta")
        cells = closures.Sum(wave(2e-11, waves, 0), wave(-2e-11, 0, waves), *damping)
        return hg.Model(water, hg.SIL3(), cells, dt=3600.0 if factor == 1 else 1800.0)

    def start(model):
        grid = model.equation.grid
        psi_hat = grid.to_spectral(jr.normal(jr.key(0), (1, *grid.shape)))
        psi_hat = jnp.where(grid.eigenvalues > -((2 * np.pi * 5 / length) ** 2), psi_hat, 0)
        size = -grid.inner(psi_hat, grid.laplacian(psi_hat))
        return model.equation.balanced(psi_hat * (0.5 / jnp.sqrt(size))[:, None, None])

    def place(grid):
        across, along = (np.cos(2 * np.pi * waves * np.asarray(a) / length) for a in (grid.x, grid.y))
        return np.stack([across[None] + 0 * along[:, None], along[:, None] + 0 * across[None]])

    return Flow(
        "rotating shallow water on a plane", ("zeta", "delta", "phi"), DAY / 4, 4, (400, 60),
        lambda factor: hg.Torus(n * factor, length, dealias=None), solver, lambda: solver(4, _still()), start, place,
    )  # fmt: skip


@functools.cache
def _sphere(n: int) -> Flow:
    """Shallow water that friction of ten days draws towards the barotropically unstable jets of Galewsky et al. (2004).

    ∂ζ/∂t = ... − (ζ − ζ_J)/10 days, one jet on either hemisphere; δ feels the same friction, φ none.
    """
    friction, sphere = 1 / (10 * DAY), lambda factor: hg.Sphere(2 * n // 3 * factor)

    def solver(factor, closure=None):
        grid = sphere(factor)
        jets = _mirrored(cases.galewsky(grid, perturbed=False).start)
        still = cases.galewsky(grid, perturbed=False).equation
        water = hg.ShallowWater(grid, still.f, float(still.mean[0]), drag=friction, tau=DAY / 4)
        force = {"zeta_hat": friction * grid.to_spectral(jets["zeta"])}
        return hg.Model(water, hg.SIL3(), closure, dt=1800.0 if factor == 1 else 600.0, forcing=Steady(force))

    def start(model):
        return _mirrored(cases.galewsky(model.equation.grid, perturbed=True).start)

    return Flow(
        "unstable jets of shallow water on a sphere", ("zeta", "delta", "phi"), DAY / 4, 4, (60, 40),
        sphere, solver, lambda: solver(4, _still()), start, _latitude,
    )  # fmt: skip


@functools.cache
def _qg3(n: int, inputs: str) -> Flow:
    """The three-level model of Marshall and Molteni (1993), forced from `inputs` or towards a synthetic winter."""
    sphere = functools.cache(lambda factor: hg.Sphere(2 * n // 3 * factor))
    air = functools.cache(lambda grid_factor: _air(sphere(grid_factor), inputs))

    def solver(factor):
        here = air(factor)
        equation = hg.QuasiGeostrophic.qg3(sphere(factor), orography=here.orography, land=here.land)
        return hg.Model(equation, hg.RK4(), dt=3600.0 if factor == 1 else 1800.0, forcing=here.forcing)

    def place(grid):
        here = _air(grid, inputs)
        return np.concatenate([_latitude(grid), here.land[None], here.orography[None] / 1e3])

    return Flow(
        "three-level atmosphere", ("q",), DAY / 4, 2, (100, 60), sphere, solver, lambda: solver(2),
        lambda model: {"q": air(1).start}, place,
    )  # fmt: skip


def _air(grid, inputs: str) -> qg3.Atmosphere:
    return qg3.read(inputs, grid) if inputs else qg3.winter(grid)


def _still() -> closures.AbstractClosure:
    """Damps divergence in 1/2f of 45 degrees north, which is critical for inertial oscillations."""
    return closures.Relaxation({"delta": 0.0}, 5000.0)


def _mirrored(fields: dict) -> dict:
    """A flow and its mirror image beyond the equator, which it does not touch: ζ odd, δ and φ even."""
    return {name: a + (-1 if name == "zeta" else 1) * a[:, ::-1] for name, a in fields.items()}


def _nowhere(grid) -> np.ndarray:
    return np.zeros((0, *grid.shape))


def _latitude(grid) -> np.ndarray:
    return np.broadcast_to(np.sin(np.radians(grid.latitude))[:, None], (1, *grid.shape))
