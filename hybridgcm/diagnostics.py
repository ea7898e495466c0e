"""Energy, enstrophy, spectra, the spectral energy budget and predictability: functions (model, state) -> array.

They are pure and may be passed as `save=` or `mean=` to `rollout` and `stream`. All act on the anomaly that the
model steps, without its mean flow, and weight layers by their share of the depth.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float

from hybridgcm._typing import Hat
from hybridgcm.equations import QuasiGeostrophic
from hybridgcm.equations.base import AbstractExtension
from hybridgcm.grids import AbstractGrid, Torus
from hybridgcm.grids.base import scale
from hybridgcm.models import Model, State
from hybridgcm.rollout import rollout
from hybridgcm.steppers import Filtered

BUDGET = (
    "KEflux", "APEflux", "APEgenspec", "KEfrictionspec", "paramspec_KEflux", "paramspec_APEflux", "Dissspec",
    "Filterspec",
)  # fmt: skip
"""The terms of the spectral energy budget that add up to ∂E/∂t."""


def energy(model: Model, state: State) -> Float[Array, ""]:
    """E = KE + APE = −½ Σᵢ hᵢ ⟨ψᵢ qᵢ⟩, m² s⁻²: total energy per unit mass, hᵢ the layer's share of the depth.

    This and the three below are of quasi-geostrophic flow, with tracers or without, and raise `TypeError` for others.
    """
    return kinetic_energy(model, state) + potential_energy(model, state)


def kinetic_energy(model: Model, state: State) -> Float[Array, ""]:
    """KE = ½ Σᵢ hᵢ ⟨|∇ψᵢ|²⟩, m² s⁻²."""
    flow = _flow(model)
    grid, psi = flow.grid, flow.invert(state.y["q"])
    return -jnp.sum(flow.thickness * grid.inner(psi, grid.laplacian(psi))) / 2


def potential_energy(model: Model, state: State) -> Float[Array, ""]:
    """APE = −½ Σᵢ hᵢ ⟨ψᵢ (Sψ)ᵢ⟩, m² s⁻², S the stretching matrix."""
    flow = _flow(model)
    psi = flow.invert(state.y["q"])
    return -jnp.sum(flow.thickness * flow.grid.inner(psi, _stretch(flow, psi))) / 2


def enstrophy(model: Model, state: State) -> Float[Array, ""]:
    """Z = ½ Σᵢ hᵢ ⟨qᵢ²⟩, s⁻²: potential enstrophy."""
    flow, q = _flow(model), state.y["q"]
    return jnp.sum(flow.thickness * flow.grid.inner(q, q)) / 2


def budget(model: Model, state: State) -> dict[str, Array]:
    """The spectral energy budget per coefficient, `[l, k]` (KEspec, Ensspec `[layer, l, k]`), names as in pyqg.

    −Σᵢ hᵢ Re ψ̂ᵢ* ∂q̂ᵢ/∂t split by cause, m² s⁻³; positive terms give energy to a wave. Summed with
    `grid.multiplicity` (`total`) the terms in `BUDGET` make dE/dt:

    - `KEflux`, `APEflux`: advection of relative vorticity and of stretching; both sum to zero when dealiased.
    - `APEgenspec`: release from the mean flow. `KEfrictionspec`: bottom drag, negative.
    - `paramspec_KEflux`, `paramspec_APEflux`: the closure, by its KE and APE; their sum is `paramspec`.
    - `Dissspec`: the equation's implicit dissipation. `Filterspec`: energy that the factor of a `Filtered` stepper
      takes in the step that starts here, per dt (pyqg calls its linearisation Dissspec).

    And the state: `KEspec` = κ²|ψ̂ᵢ|² (twice the KE, m² s⁻²), `Ensspec` = |q̂ᵢ|² (s⁻²), per layer, no ½.
    What a model lacks is zero. Raises `TypeError` for an equation that is not `QuasiGeostrophic`, `ValueError` for one
    with V, a profile of U or topography.
    Diagnostics of pyqg 0.7.2; Ross et al. (2023), doi:10.1029/2022MS003258.
    """
    equation, q = model.equation, state.y["q"]
    if not isinstance(equation, QuasiGeostrophic):
        raise TypeError(f"the energy budget needs a QuasiGeostrophic equation, got {type(equation).__name__}")
    parts = equation.V, equation.profile, equation.topography, equation.relaxation
    if any(part is not None for part in parts) or equation.drag.ndim:
        raise ValueError(
            "the energy budget knows a mean flow U and a uniform drag; it lacks the terms of V, a profile, topography, "
            "relaxation and a field of drag"
        )
    grid, h = equation.grid, equation.thickness
    psi = equation.invert(q)
    weighted = _column(h, psi)
    work = lambda tendency: jnp.sum(-weighted * _real_product(psi, tendency), 0)
    zonal = grid.zonal_derivative(scale(_column(equation.U, psi), _stretch(equation, psi)))
    friction = equation.drag * grid.eigenvalues * h[-1] * _real_product(psi[-1], psi[-1])
    dq = _closure_tendency(model, state)
    dpsi = equation.invert(dq)
    closure_ke, closure_ape = work(grid.laplacian(dpsi)), work(_stretch(equation, dpsi))
    ke_flux, ape_flux = _advection(equation, psi)
    return {
        "KEspec": -grid.eigenvalues * _real_product(psi, psi),
        "Ensspec": _real_product(q, q),
        "KEflux": ke_flux,
        "APEflux": ape_flux,
        "APEgenspec": work(-zonal),
        "KEfrictionspec": friction,
        "paramspec": closure_ke + closure_ape,
        "paramspec_KEflux": closure_ke,
        "paramspec_APEflux": closure_ape,
        "Dissspec": work(equation.implicit(state.y)["q"]),
        "Filterspec": _filter_loss(model, state),
    }


def spectral_budget(model: Model, state: State, transfer: Array | float = 1.0) -> dict[str, Array]:
    """`budget` as isotropic spectra `[ring]` or `[layer, ring]` at `wavenumbers(grid)`: see `isotropic`.

    `transfer`: factor per mode (`coarsen.transfer`); its square multiplies each term before the ring mean, which
    gives the budget of the coarse-grained flow with its subgrid part. Small: fit for `mean=` of a rollout.
    """
    grid = model.equation.grid
    return {name: isotropic(grid, transfer**2 * density) for name, density in budget(model, state).items()}


def total(grid: AbstractGrid, density: Float[Array, "*batch l k"]) -> Float[Array, "*batch"]:
    """Σ over the full spectrum of a density per coefficient (Parseval): an area mean."""
    return jnp.sum(grid.multiplicity * density, (-2, -1))


def wavenumbers(grid: Torus) -> np.ndarray:
    """κ of the rings' centres, rad m⁻¹: the rings are √(Δk² + Δl²) wide and begin at zero."""
    width, count = _rings(grid)
    return width * (np.arange(count) + 0.5)


def isotropic(grid: Torus, density: Float[Array, "*batch l k"]) -> Float[Array, "*batch ring"]:
    """Ring-averaged spectrum: 2π κ_r/(Δk Δl) · mean of the density over ring r; unit of density times m.

    This is pyqg 0.7.2's `calc_ispec`: the columns k = 0 and k = Nyquist are halved (the rest stands for two
    coefficients) but count as whole points of the mean; modes beyond the last ring are in none. One departure:
    pyqg lets rounding decide about modes on a ring's edge (|k| = |l|), here they always open the next ring.
    A ring *average* is smooth in κ but does not sum to the variance: `total` does.
    Raises `TypeError` for a grid that is not a `Torus`.
    """
    ring = ring_index(grid)
    count = len(wavenumbers(grid))
    inside = ring >= 0
    points = np.maximum(np.bincount(ring[inside], minlength=count), 1)
    ly, lx = grid.length
    factor = wavenumbers(grid) * lx * ly / (2 * np.pi) / points
    halved = np.ones(grid.spectral_shape[1])
    halved[[0, -1]] = 0.5
    weight = np.where(inside, factor[ring] * halved, 0)
    flat = (jnp.asarray(weight, density.dtype) * density).reshape(-1, ring.size)
    add = lambda row: jax.ops.segment_sum(row, np.where(inside, ring, 0).ravel(), count)
    return jax.vmap(add)(flat).reshape(*density.shape[:-2], count)


def ring_index(grid: Torus) -> np.ndarray:
    """Ring of each coefficient, `[l, k]`, −1 where there is none."""
    width, count = _rings(grid)
    (ny, nx), (ly, lx) = grid.n, grid.length
    l = 2 * np.pi / ly * np.fft.fftfreq(ny, 1 / ny)[:, None]  # noqa: E741
    k = 2 * np.pi / lx * np.arange(nx // 2 + 1)
    # Modes on an edge are multiples of the width up to rounding; 1e-9 is far above that and below any other gap.
    position = np.hypot(k, l) / width + 1e-9
    ring = np.floor(position).astype(int)
    ring[(ring == count) & (position < count + 2e-9)] = count - 1
    return np.where(ring >= count, -1, ring)


def decorrelation_time(
    a: Array | np.ndarray, b: Array | np.ndarray, time: Array | np.ndarray, threshold: float = 0.5
) -> float:
    """Time until two trajectories `[time, layer, y, x]` correlate less than `threshold`, unit of `time`; else inf.

    Pearson correlation over all layers and points of a frame, linear in time between frames. `a` and `b` may be
    truth and model from one start. Raises `ValueError` for shapes that do not agree.
    """
    a, b, time = np.asarray(a, np.float64), np.asarray(b, np.float64), np.asarray(time, np.float64)
    if a.shape != b.shape or len(a) != len(time):
        raise ValueError(f"need two trajectories of one shape and their times; got {a.shape}, {b.shape}, {time.shape}")
    a, b = (x.reshape(len(time), -1) for x in (a, b))
    a, b = (x - x.mean(1, keepdims=True) for x in (a, b))
    correlation = (a * b).sum(1) / np.sqrt((a**2).sum(1) * (b**2).sum(1))
    below = np.flatnonzero(~(correlation >= threshold))
    if not below.size:
        return np.inf
    i = below[0]
    if i == 0 or not np.isfinite(correlation[i]):
        return float(time[i])
    return float(np.interp(-threshold, -correlation[i - 1 : i + 1], time[i - 1 : i + 1]))


def twin_decorrelation_time(
    model: Model,
    state: State,
    steps: int,
    *,
    every: int = 24,
    perturbation: float = 1e-10,
    threshold: float = 0.5,
    key: Array | None = None,
) -> float:
    """Decorrelation time, s, of `model` from `state` and from its twin with white noise added to every prognostic.

    `perturbation`: standard deviation of the noise in the unit of the prognostic, here 1e-10 s⁻¹ as in the code of
    Ross et al. (2023), doi:10.1029/2022MS003258. inf if the twins still agree after `steps` steps. Raises
    `ValueError` if the precision of the grid cannot hold so small a perturbation.
    """
    grid = model.equation.grid
    noise = lambda k: perturbation * jr.normal(k, (model.equation.layers, *grid.shape), grid.eigenvalues.dtype)
    keys = jr.split(jr.key(0) if key is None else key, len(state.y))
    shifted = {name: a + grid.to_spectral(noise(k)) for k, (name, a) in zip(keys, state.y.items())}
    for name, a in state.y.items():
        largest = float(jnp.max(jnp.abs(grid.to_grid(a))))
        if perturbation < largest * float(jnp.finfo(grid.eigenvalues.dtype).eps):
            raise ValueError(
                f"{name} reaches {largest:.2g}, where {grid.eigenvalues.dtype} cannot hold a perturbation of "
                f"{perturbation:.2g}; use a float64 grid or a larger one"
            )
    twin = eqx.tree_at(lambda s: s.y, state, shifted)
    fields = lambda m, s: jnp.concatenate(
        [grid_values.ravel() for grid_values in map(m.equation.grid.to_grid, s.y.values())]
    )
    run = eqx.filter_jit(lambda m, s: rollout(m, s, steps, every=every, save=fields)[1]["save"])
    return decorrelation_time(
        run(model, state), run(model, twin), model.dt * every * np.arange(1, steps // every + 1), threshold
    )


def _flow(model: Model) -> QuasiGeostrophic:
    """What q is stepped by, without what it carries."""
    flow = model.equation
    while isinstance(flow, AbstractExtension):
        flow = flow.inner
    if not isinstance(flow, QuasiGeostrophic):
        raise TypeError(f"energies here are of QuasiGeostrophic flow; got {type(flow).__name__}, whose view has u, v")
    return flow


def _column(a: Array, like: Array) -> Array:
    return a.reshape(-1, *[1] * (like.ndim - 1))


def _real_product(a: Hat, b: Hat) -> Array:
    """Re a* b."""
    return a.real * b.real + a.imag * b.imag


def _stretch(equation: QuasiGeostrophic, psi: Hat) -> Hat:
    """Sψ, as its own sum: q − ∇²ψ would lose all digits at small scales."""
    layers = range(equation.layers)
    rows = [[scale(equation.stretching[i, j], psi[j]) for j in layers] for i in layers]
    return jnp.stack([sum(row[1:], row[0]) for row in rows])


def _advection(equation: QuasiGeostrophic, psi: Hat) -> tuple[Array, Array]:
    """KEflux and APEflux. The latter per pair of layers: S couples ψᵢ − ψⱼ, which the pair's mean flow carries.

    J(ψᵢ, ψⱼ) is taken as J(mean flow of the pair, ψⱼ − ψᵢ), the same but for aliasing; it is how pyqg does it.
    """
    grid, h = equation.grid, equation.thickness
    u, v, zeta = grid.synthesise(psi, grid.laplacian(psi))
    ke = jnp.sum(_column(h, psi) * _real_product(psi, grid.divergence(u * zeta, v * zeta)), 0)
    ape = jnp.zeros_like(ke)
    for i in range(equation.layers):
        for j in range(i + 1, equation.layers):
            share = h[i] / (h[i] + h[j])
            mean = lambda a: share * a[i] + (1 - share) * a[j]  # noqa: B023
            difference = psi[i] - psi[j]
            d = grid.to_grid(difference)
            flux = grid.divergence(mean(u) * d, mean(v) * d)
            ape = ape - h[i] * equation.stretching[i, j] * _real_product(difference, flux)
    return ke, ape


def _closure_tendency(model: Model, state: State) -> Hat:
    """∂q̂/∂t by the closure at this state, with the memory and key of its next step."""
    q = state.y["q"]
    if model.closure is None:
        return jnp.zeros_like(q)
    equation, key = model.equation, jr.fold_in(state.key, state.step)
    forcing, _ = model.closure(equation.view(state.y), equation.grid, state.memory, key)
    return jnp.broadcast_to(equation.lift(forcing)["q"], q.shape)


def _filter_loss(model: Model, state: State) -> Array:
    """Energy change per mode by the factor of a `Filtered` stepper in the next step, m² s⁻³."""
    equation, stepper = model.equation, model.stepper
    if not isinstance(stepper, Filtered):
        return jnp.zeros_like(equation.grid.eigenvalues)
    unfiltered = eqx.tree_at(lambda m: m.stepper, model, stepper.inner)
    q = unfiltered.step(state).y["q"]
    psi = equation.invert(q)
    before = -jnp.sum(_column(equation.thickness, psi) * _real_product(psi, q), 0) / 2
    return (stepper.factor**2 - 1) * before / model.dt


def _rings(grid: Torus) -> tuple[float, int]:
    """Width of the rings, rad m⁻¹, and how many begin below the largest wavenumber of the shorter axis."""
    if not isinstance(grid, Torus):
        raise TypeError(f"ring averages need a Torus, got {type(grid).__name__}; its own shells are grid.spectrum")
    dl, dk = (2 * np.pi / side for side in grid.length)
    width = np.hypot(dk, dl)
    return float(width), int(np.ceil(min(grid.n[0] // 2 * dl, grid.n[1] // 2 * dk) / width - 1e-9))
