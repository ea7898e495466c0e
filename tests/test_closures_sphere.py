"""The closures of the periodic model on the sphere, with no line changed."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from helpers import error, run, same_bits
from test_closures import CLOSURES, RMS, forcing_of, model_with
from test_sphere import white

import hybridgcm as hg
from hybridgcm import closures, nn

PLANAR = {"Kolmogorov", "GrahamRingler", "Relaxation", "Sponge", "BiasCorrection", "DimensionlessNetwork"}
"""Forcings whose patterns are given on a plane, `ZeroMean` is tested around one; and what goes around both axes."""
CLOSURES = {name: make for name, make in CLOSURES.items() if name not in PLANAR | {"ZeroMean"}}
CLOSURES["ZeroMean"] = lambda: closures.ZeroMean(hg.Leith(0.5))
RADIUS = 16 * 1e6 / 16 / np.pi  # m: the spacing of the torus that the contract's numbers are made for


def grid(truncation=10, dtype=jnp.float64):
    return hg.Sphere(truncation, RADIUS, dtype=dtype)


def made(name):
    """The closure with its CNN, which would join the poles, as the polar one of the same weights."""

    def polar(net):
        if not isinstance(net, nn.CNN):
            return net
        channels = (net.weights[0].shape[1], *(len(w) for w in net.weights))
        kernels = tuple(w.shape[-1] for w in net.weights)
        other = nn.PolarCNN(channels, kernels, key=jr.key(0), activation=net.activation)
        return eqx.tree_at(lambda n: (n.weights, n.biases), other, (net.weights, net.biases))

    return jax.tree.map(polar, CLOSURES[name](), is_leaf=lambda a: isinstance(a, nn.CNN))


def start(model, seed=0):
    on = model.equation.grid
    a_hat = white(on, seed).at[:, 0, 0].set(0) * jnp.exp(-(((jnp.asarray(on.degree, on.dtype) - 4) / 2) ** 2))
    a = on.to_grid(a_hat)
    rms = jnp.sqrt(on.mean(a**2)) / jnp.asarray(RMS)
    return model.encode({"q": a / rms[:, None, None]}, jr.key(7))


@pytest.mark.parametrize("name", CLOSURES)
def test_every_closure_runs_and_restarts(name):
    """Forcing finite and of the right kind, its mean no tendency of q; 20 steps bitwise 10 + 10."""
    model = model_with(made(name), grid())
    state = start(model)
    forcing, lifted, _ = forcing_of(model, state)
    assert all(bool(jnp.isfinite(a).all()) for a in forcing.values())
    assert float(jnp.abs(lifted["q"]).max()) > 0
    once, twice = run(model, state, 20), run(model, run(model, state, 10), 10)
    assert same_bits(once, twice) and bool(jnp.isfinite(once.y["q"]).all())


@pytest.mark.parametrize("name", ["Smagorinsky", "Leith", "NetworkClosure"])
def test_gradient_of_ten_steps_equals_central_differences(name):
    model = model_with(made(name), grid())
    state = start(model)
    weights, fixed = eqx.partition(model.closure, eqx.is_inexact_array)
    noise = jax.tree.map(lambda a: jnp.asarray(np.random.default_rng(3).standard_normal(a.shape)) * a, weights)

    @jax.jit
    def loss(shift):
        closure = eqx.combine(jax.tree.map(lambda a, b: a + shift * b, weights, noise), fixed)
        moved = eqx.tree_at(lambda m: m.closure, model, closure)
        return jnp.mean(moved.view(jax.lax.fori_loop(0, 10, lambda _, s: moved.step(s), state))["q"] ** 2) * 1e11

    shifts = (0.0, 1e-3, -1e-3, 2e-3, -2e-3)
    _, f1, b1, f2, b2 = (float(loss(s)) for s in shifts)
    numeric = (8 * (f1 - b1) - (f2 - b2)) / 12e-3
    exact = float(jax.jit(jax.jacfwd(loss))(0.0))
    assert abs(exact) > 1e-12 and abs(numeric / exact - 1) < 1e-5, (exact, numeric)


@pytest.mark.parametrize("truncation", [10, 21])
def test_velocity_gradient_is_that_of_the_sphere(truncation):
    on = grid(truncation)
    psi, chi = (white(on, seed).at[:, 0, 0].set(0) for seed in (1, 2))
    u, v = on.synthesise(psi, potential=chi)
    u_x, u_y, v_x, v_y = on.velocity_gradient(u, v)
    assert error(v_x - u_y, on.to_grid(on.laplacian(psi))) < 1e-13
    assert error(u_x + v_y, on.to_grid(on.laplacian(chi))) < 1e-13
    stress = [on.to_grid(white(on, seed)) for seed in (3, 4, 5)]
    force = on.stress_divergence(*stress)
    work = on.mean(force[0] * u + force[1] * v)
    strain = on.mean(stress[0] * u_x + stress[1] * (u_y + v_x) + stress[2] * v_y)
    assert error(-work, strain) < 1e-12


def test_solid_rotation_about_any_axis_has_no_strain():
    on = grid()
    lam, phi = np.radians(on.longitude)[None, :], np.radians(on.latitude)[:, None]
    axis = np.sin(phi) * np.cos(0.7) - np.cos(lam) * np.cos(phi) * np.sin(0.7)
    u, v = on.velocity(on.to_spectral(jnp.asarray(-axis)))
    u_x, u_y, v_x, v_y = on.velocity_gradient(u, v)
    size = float(jnp.abs(v_x - u_y).max())
    assert float(jnp.abs(u_x - v_y).max()) < 1e-12 * size and float(jnp.abs(u_y + v_x).max()) < 1e-12 * size


def test_uniform_viscosity_is_the_laplacian_with_its_curvature():
    """curl of ∇·(2νS) of a flow without divergence is ν(∇² + 2/a²)ζ: solid rotation feels no viscosity."""
    on = grid(21)
    psi = white(on).at[:, 0, 0].set(0)
    u_x, u_y, v_x, v_y = on.velocity_gradient(*on.velocity(psi))
    curl, divergence = on.curl_and_divergence(*on.stress_divergence(2 * u_x, u_y + v_x, 2 * v_y))
    zeta = on.laplacian(psi)
    expected = on.laplacian(zeta) + 2 / on.radius**2 * zeta
    assert error(curl, expected) < 1e-13
    assert float(jnp.abs(divergence).max()) < 1e-13 * float(jnp.abs(expected).max())


def test_smagorinsky_takes_energy_and_zanna_bolton_none():
    on = grid(21)
    model = model_with(hg.Smagorinsky(0.2), on)
    fields = model.equation.view(start(model).y)
    u_x, u_y, v_x, v_y = on.velocity_gradient(fields["u"], fields["v"])
    square = 2 * (u_x**2 + v_y**2) + (u_y + v_x) ** 2
    for closure, expected in (
        (hg.Smagorinsky(0.2), -((0.2 * on.spacing) ** 2) * square**1.5),
        (hg.ZannaBolton(-4e8), 0),
    ):
        force, _ = closure(fields, on, None, None)
        work = on.mean(force["u"] * fields["u"] + force["v"] * fields["v"])
        size = on.mean(jnp.abs(force["u"] * fields["u"]))
        assert np.all(np.abs(work - on.mean(jnp.zeros_like(square) + expected)) < 1e-9 * size)
