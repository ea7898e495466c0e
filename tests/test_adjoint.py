"""Gradients through the solver: adjoints, Taylor remainders and single precision, for every stepper and closure."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from helpers import eddies, slope

import hybridgcm as hg
from hybridgcm.metrics import mse

STEPS = 5
STEPPERS = {
    "AB3": hg.AB3(),
    "RK4": hg.RK4(),
    "SIL3": hg.SIL3(),
    "BPR353": hg.steppers.BPR353(),
    "ETDRK4": hg.ETDRK4(),
    "Leapfrog": hg.SemiImplicitLeapfrog(),
    "Diffrax": hg.steppers.FromDiffrax(diffrax.Bosh3()),
    "Filtered": hg.Filtered(hg.AB3(), hg.exponential_filter(hg.Torus(16, 1e6))),
}
CLOSURES = {
    "none": lambda: None,
    "Leith": lambda: hg.Leith(0.5),
    "Smagorinsky": lambda: hg.Smagorinsky(0.3),
    "ZannaBolton": lambda: hg.ZannaBolton(),
    "Backscatter": lambda: hg.BiharmonicBackscatter((1.0, 4.0), 0.3, 0.9),
    "Gradient": lambda: hg.closures.GradientModel(),
}
QUICK = ("AB3", "SIL3", "Leapfrog", "Diffrax")
"""Compiling takes the time; the other steppers and closures are in the slow run."""
SLOW = lambda name, quick: [] if name in quick else [pytest.mark.slow]
CASES = [pytest.param(name, "Leith", marks=SLOW(name, QUICK)) for name in STEPPERS] + [
    pytest.param("AB3", name, marks=SLOW(name, ("Backscatter",))) for name in CLOSURES if name != "Leith"
]
every_case = pytest.mark.parametrize(("stepper", "closure"), CASES)


def model(stepper, closure, dtype=jnp.float64):
    grid = hg.Torus(16, 1e6, dtype=dtype)
    flow = hg.QuasiGeostrophic.two_layer(grid, U=(0.1, 0.0), tau=5 * 86400.0)
    return hg.Model(flow, STEPPERS[stepper], CLOSURES[closure](), dt=3600.0)


def propagator(m):
    """q after a few steps, in 1e-6 s-1, as a function of q before, in the same unit."""
    grid = m.equation.grid

    def after(q):
        final = hg.rollout(m, m.encode({"q": 1e-6 * q}), STEPS, save=None)[0]
        return 1e6 * grid.to_grid(final.y["q"])

    return after


def random(dtype, seed, rms=(10.0, 5.0)):
    grid = hg.Torus(16, 1e6, dtype=jnp.float64)
    return jnp.asarray(eddies(grid, 2, rms, seed, peak=3.0), dtype)


def linearised(after, q, v, w):
    """f(q), M'w and <M v, w> for the tangent M of f = `after` at q."""
    value, transpose = jax.vjp(after, q)
    return value, transpose(w)[0], jnp.vdot(jax.jvp(after, (q,), (v,))[1], w)


@every_case
def test_the_adjoint_is_the_transpose_and_the_remainder_of_second_order(stepper, closure):
    """<M v, w> = <v, M'w>, and |<w, f(q + h v) - f(q)> - h <v, M'w>| falls as h^2."""
    after = propagator(model(stepper, closure))
    q, v, w = (random(jnp.float64, seed) for seed in range(3))
    if stepper == "Diffrax":  # its loops are differentiable in reverse mode alone: no M v
        value, transpose = jax.vjp(jax.jit(after), q)
        adjoint = transpose(w)[0]
    else:
        value, adjoint, product = jax.jit(lambda *at: linearised(after, *at))(q, v, w)
        size = jnp.linalg.norm(v) * jnp.linalg.norm(adjoint)
        assert abs(product - jnp.vdot(v, adjoint)) < 1e-12 * size, f"{product} and {jnp.vdot(v, adjoint)}"
    change = jax.jit(lambda h: jnp.vdot(w, after(q + h * v) - value) - h * jnp.vdot(v, adjoint))
    sizes = np.array([1e-2, 5e-3, 2.5e-3, 1.25e-3])
    errors = [abs(float(change(h))) for h in sizes]
    found = slope(sizes, errors)
    assert abs(found - 2) < 0.05, f"slope {found}, remainders {errors}"


@pytest.mark.parametrize(
    "stepper", [pytest.param(name, marks=SLOW(name, ("AB3",))) for name in STEPPERS if name != "Diffrax"]
)
def test_the_adjoint_is_the_transpose_in_single_precision(stepper):
    after = propagator(model(stepper, "Leith", jnp.float32))
    q, v, w = (random(jnp.float32, seed) for seed in range(3))
    _, adjoint, product = jax.jit(lambda *at: linearised(after, *at))(q, v, w)
    size = jnp.linalg.norm(v) * jnp.linalg.norm(adjoint)
    assert abs(product - jnp.vdot(v, adjoint)) < 1e-5 * size, f"{product} and {jnp.vdot(v, adjoint)}"


def test_single_precision_gradients_of_a_hundred_steps_agree_with_double():
    """A loss of 100 steps with an eddy viscosity, by its constant and by the start."""

    def gradients(dtype):
        m = model("AB3", "Leith", dtype)
        q = random(dtype, 0)
        fading = jnp.stack([0.9**i * 1e-6 * q for i in range(1, 11)])

        @eqx.filter_jit
        @jax.grad
        def loss(parameters):
            constant, start = parameters
            changed = eqx.tree_at(lambda m: m.closure.constant, m, constant)
            batch = {"q": jnp.concatenate([1e-6 * start[None], fading])[None]}
            return hg.online(mse("q"), every=10, chunk=2)(changed, batch, jr.key(0))

        return loss((m.closure.constant, q))

    single, exact = gradients(jnp.float32), gradients(jnp.float64)
    relative = [float(jnp.linalg.norm(a - b) / jnp.linalg.norm(b)) for a, b in zip(single, exact)]
    assert all(a.dtype == jnp.float32 for a in single) and max(relative) < 1e-3, relative
