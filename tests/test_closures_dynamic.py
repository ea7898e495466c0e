"""Viscosities with a constant from the flow: recovered where it is known, absent where it is not needed."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from helpers import double, eddies, error

import hybridgcm as hg
from hybridgcm.closures import DynamicLeith, DynamicSmagorinsky

KINDS = {"DynamicSmagorinsky": (DynamicSmagorinsky, 2), "DynamicLeith": (DynamicLeith, 3)}
every_kind = pytest.mark.parametrize("name", KINDS)


def fields(grid, seed=0, peak=4.0):
    flow = hg.QuasiGeostrophic.two_layer(grid)
    return flow.view({"q": grid.to_spectral(jnp.asarray(eddies(grid, 2, (5e-6, 5e-7), seed, peak)))})


def forcing(closure, given, grid):
    return closure(given, grid, None, jr.key(0))[0]["q_hat"]


def identity(grid, q, power):
    """L and M of Germano's identity as real numbers, functions of the velocity; written out for the test."""
    rows = np.fft.fftfreq(grid.n[0], 1 / grid.n[0])[:, None]
    m = np.hypot(rows, np.arange(grid.n[1] // 2 + 1))
    test = 1.0 * (m <= np.sqrt(30) / 2)  # the mean of m² over |m| < 6, each way, is 10: K² = 30
    low = lambda a: grid.to_grid(test * grid.to_spectral(a))
    real = lambda a: jnp.stack([a.real, a.imag])[:, test > 0]

    def pair(u, v, q):
        (u_x, u_y), (v_x, v_y), (q_x, q_y) = (grid.gradient(grid.to_spectral(a)) for a in (u, v, q))
        strain = jnp.sqrt(2 * u_x**2 + 2 * v_y**2 + (u_y + v_x) ** 2)
        rate = jnp.hypot(q_x, q_y) if power == 3 else strain
        nu = rate * float(grid.spacing) ** power
        return grid.to_spectral(u * q_x + v * q_y), grid.divergence(nu * q_x, nu * q_y)

    def sides(velocity):
        fine, coarse = pair(*velocity, q), pair(low(velocity[0]), low(velocity[1]), low(q))
        return real(coarse[0] - fine[0]) * 1e12, real(2.0**power * coarse[1] - fine[1]) * 1e12

    return sides


@every_kind
@pytest.mark.parametrize("constant", [0.03, -0.03])
def test_coefficient_of_a_flow_whose_stress_is_the_models_is_recovered(name, constant):
    kind, power = KINDS[name]
    grid = double(16)
    q, start = (jnp.asarray(eddies(grid, layers, 1.0, layers)) for layers in (1, 2))
    sides = identity(grid, 5e-6 * q[0], power)

    @jax.jit
    def mismatch(w):
        found, modelled = sides(w.reshape(2, *grid.shape))
        return (found - constant * modelled).ravel()

    slope = jax.jit(jax.jacrev(mismatch))
    w = np.asarray(0.1 * start).ravel()  # m s-1
    for _ in range(12):  # fewer equations than unknowns: the nearest velocity that satisfies them, by Newton's method
        w = w - np.linalg.lstsq(np.asarray(slope(w)), np.asarray(mismatch(w)), rcond=1e-12)[0]
    velocity = jnp.asarray(w.reshape(2, *grid.shape))
    assert jnp.max(jnp.abs(mismatch(w))) < 1e-10 * jnp.max(jnp.abs(sides(velocity)[0]))
    u, v = velocity[:, None]
    given = {"q": 5e-6 * q, "u": u, "v": v}
    coefficient = float(kind().coefficient(given, grid)[0])
    assert abs(coefficient - max(constant, 0)) < 1e-9, coefficient
    if constant < 0:
        assert not jnp.any(forcing(kind(), given, grid)), "a flow that asks for backscatter is left alone"


@every_kind
def test_a_flow_resolved_by_the_test_filter_needs_no_viscosity(name):
    kind, _ = KINDS[name]
    grid = double(64)
    fine = fields(grid, peak=2.0)
    low = grid.eigenvalues > -((2.5 * 2 * np.pi / 1e6) ** 2)  # products reach wave 5, the test filter 10
    smooth = {name: grid.to_grid(low * grid.to_spectral(a)) for name, a in fine.items()}
    assert jnp.all(kind().coefficient(smooth, grid) < 1e-12)
    assert jnp.max(kind(1.5).coefficient(fields(double(16)), double(16))) > 1e-3


@every_kind
def test_coefficient_has_no_dimension_and_does_not_see_a_uniform_flow(name):
    kind, _ = KINDS[name]
    grid, large = double(32), double(32, 1e7)
    given = fields(grid)
    c = kind(1.5).coefficient(given, grid)
    assert jnp.max(c) > 1e-4
    moved = given | {"u": given["u"] + 0.3, "v": given["v"] - 0.2}
    faster = {name: 3 * a for name, a in given.items()}
    wider = given | {"u": 10 * given["u"], "v": 10 * given["v"]}
    for other, on in ((moved, grid), (faster, grid), (wider, large)):
        assert error(kind(1.5).coefficient(other, on), c) < 1e-10


@every_kind
def test_enstrophy_is_dissipated_in_every_layer(name):
    kind, power = KINDS[name]
    grid, given = double(32), fields(double(32))
    closure = kind(1.5)
    c, q_hat = closure.coefficient(given, grid), grid.to_spectral(given["q"])
    q_x, q_y = grid.gradient(q_hat)
    (u_x, u_y), (v_x, v_y) = (grid.gradient(grid.to_spectral(given[n])) for n in "uv")
    rate = jnp.hypot(q_x, q_y) if power == 3 else jnp.sqrt(2 * u_x**2 + 2 * v_y**2 + (u_y + v_x) ** 2)
    expected = -c * grid.mean(grid.spacing**power * rate * (q_x**2 + q_y**2))
    found = grid.inner(q_hat, forcing(closure, given, grid))
    assert jnp.all(found <= 0) and jnp.any(found < 0)
    assert error(found, expected) < 1e-12


@every_kind
def test_turned_and_mirrored_fields_give_the_turned_and_mirrored_forcing(name):
    closure, grid = KINDS[name][0](1.5), double(32)
    given, turn = fields(grid), lambda a: jnp.rot90(a, 1, (-2, -1))  # clockwise, y counted upward
    plain = grid.to_grid(forcing(closure, given, grid))
    turned = {"q": turn(given["q"]), "u": turn(given["v"]), "v": -turn(given["u"])}
    mirrored = {name: jnp.flip(a, -1) * (1 if name == "v" else -1) for name, a in given.items()}
    assert jnp.any(plain)
    assert error(grid.to_grid(forcing(closure, turned, grid)), turn(plain)) < 1e-11
    assert error(grid.to_grid(forcing(closure, mirrored, grid)), -jnp.flip(plain, -1)) < 1e-11


@every_kind
def test_single_precision_knows_the_coefficient_of_a_slow_flow(name):
    kind, _ = KINDS[name]
    given, single = fields(double(32)), hg.Torus(32, 1e6)
    c = kind(1.5).coefficient(given, double(32))
    slow = {name: (1e-4 * a).astype(jnp.float32) for name, a in given.items()}  # q of 5e-10 s-1: M² is 1e-39 s-4
    assert error(kind(1.5).coefficient(slow, single), c) < 1e-3


def test_test_filter_must_be_wider_than_the_grid():
    for kind, _ in KINDS.values():
        with pytest.raises(ValueError, match="ratio > 1"):
            kind(1.0)
