"""The same work in dinosaur; importing this fails where it is not installed."""

import importlib.metadata

import jax
import jax.numpy as jnp
import numpy as np
from dinosaur import (
    coordinate_systems,
    layer_coordinates,
    scales,
    shallow_water,
    spherical_harmonic,
    time_integration,
    units,
)

VERSION = importlib.metadata.version("dinosaur")


def sphere(truncation: int):
    """Its grid of that truncation, with its fast transforms."""
    make = getattr(spherical_harmonic.Grid, f"T{truncation}")
    return make(spherical_harmonics_impl=spherical_harmonic.FastSphericalHarmonics)


def model(truncation: int, stepper: str, dt: float):
    """(step, start) of shallow water in one layer, mean g H 2.94e4 m² s⁻², from small noise."""
    grid, specs = sphere(truncation), units.SimUnits.from_si()
    coordinates = coordinate_systems.CoordinateSystem(grid, layer_coordinates.LayerCoordinates(1))
    mean = np.array([float(specs.nondimensionalize(2.94e4 * scales.units.m**2 / scales.units.s**2))])
    equation = shallow_water.ShallowWaterEquations(coordinates, specs, None, mean)
    dt = float(specs.nondimensionalize(dt * scales.units.second))
    rng = np.random.default_rng(0)
    noise = lambda size: _noise(grid, rng, (1, *grid.modal_shape), size)
    start = shallow_water.State(noise(1e-3), noise(1e-4), noise(1e-4))
    if stepper == "SIL3":
        return time_integration.imex_rk_sil3(equation, dt), start
    step = time_integration.semi_implicit_leapfrog(equation, dt, 0.5)
    filters = [time_integration.robert_asselin_leapfrog_filter(0.05)]
    return time_integration.step_with_filters(step, filters), (start, start)


def stepping(truncation: int, stepper: str, dt: float, steps: int):
    """A call of that many steps."""
    step, start = model(truncation, stepper, dt)
    run = jax.jit(lambda state, steps: jax.lax.fori_loop(0, steps, lambda _, state: step(state), state))
    return lambda: run(start, jnp.asarray(steps))


def round_trip(truncation: int, fields: int, loops: int):
    """A call of that many transforms of a batch to the grid and back."""
    grid = sphere(truncation)
    start = _noise(grid, np.random.default_rng(0), (fields, *grid.modal_shape), 1.0)
    trip = lambda _, a: grid.to_modal(grid.to_nodal(a))
    run = jax.jit(lambda a: jax.lax.fori_loop(0, loops, trip, a))
    return lambda: run(start)


def loss(truncation: int, dt: float, steps: int):
    """(loss, start): mean square of the potential after SIL3 steps, all of them kept for the gradient."""
    step, start = model(truncation, "SIL3", dt)

    def mean_square(state):
        state, _ = jax.lax.scan(lambda state, _: (step(state), None), state, None, length=steps)
        return jnp.mean(state.potential**2)

    return mean_square, start


def _noise(grid, rng, shape, size: float):
    return jnp.asarray(grid.clip_wavenumbers(np.asarray(rng.normal(size=shape) * size * grid.mask, np.float32)))
