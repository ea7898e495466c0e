"""The equation as a loss: zero to second order for what solves it, and enough to learn a step from."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import double, eddies

import hybridgcm as hg
from hybridgcm import batches, cases, nn, train

KEY = jax.random.key(0)


def batch_of(fields):
    return {name: jnp.asarray(a)[None] for name, a in fields.items()}


def solvers():
    """Two layers of QG and shallow water on a sphere, with a start of each."""
    grid = double(16)
    qg = hg.QuasiGeostrophic.two_layer(grid, U=(0.05, 0.0), tau=6 * 3600.0)
    yield "qg", lambda dt: hg.Model(qg, hg.RK4(), dt=dt), {"q": eddies(grid, 2, 5e-6)}, 3600.0
    case = cases.williamson6(hg.Sphere(10, dtype=jnp.float64))
    yield "swe", lambda dt: hg.Model(case.equation, hg.RK4(), dt=dt), case.start, 300.0


@pytest.mark.parametrize(("model", "fields", "dt"), [(m, f, dt) for _, m, f, dt in solvers()], ids=["qg", "swe"])
def test_a_solver_leaves_the_error_of_the_trapezoidal_rule(model, fields, dt):
    """Runge-Kutta steps are exact beside it: R falls as dt², the loss as dt⁴."""
    objective = eqx.filter_jit(lambda m: train.residual(m, 2)(m, batch_of(fields), KEY))
    losses = [float(objective(model(dt / factor))) for factor in (1, 2)]
    assert losses[0] < 0.05 and np.log2(losses[0] / losses[1]) > 3.7, losses


def test_persistence_leaves_all_of_the_tendency():
    _, model, fields, dt = next(solvers())
    solver = model(dt)
    still = hg.Emulator(lambda x: 0 * x, ("q",), 1e-6, dt=dt, grid=solver.equation.grid)
    y = solver.encode(fields).y
    E, I = solver.equation.explicit(0.0, y)["q"], solver.equation.implicit(y)["q"]
    square = lambda a: np.asarray(solver.equation.grid.inner(a, a))
    expected = np.mean(square(E + I) / (square(E) + square(I)))
    assert abs(float(train.residual(solver)(still, batch_of(fields), KEY)) / expected - 1) < 1e-9


def test_an_emulator_learns_a_step_without_seeing_one():
    """From weak random states alone, where flow is linear: it predicts the solver's step of a state it never saw."""
    grid = hg.Torus(16, 5e5, dealias=2 / 3)
    qg = hg.QuasiGeostrophic.two_layer(grid, U=(0.1, 0.0), tau=6 * 3600.0)
    solver = hg.Model(qg, hg.AB3(), dt=3600.0)
    q = np.stack([eddies(grid, 2, 1e-8, seed) for seed in range(9)])
    net = nn.SpectralConvolution(2, 2, (11, 11), key=KEY)
    net = eqx.tree_at(lambda n: n.weights, net, 0 * net.weights)
    emulator = hg.Emulator(net, ("q",), float(q.std()), dt=3600.0, grid=grid, change=float(q.std()) / 20)
    drawn, rate = batches.samples({"q": q[:8]}, 4, 400, KEY), optax.cosine_decay_schedule(5e-2, 400)
    trained, log = hg.fit(
        emulator, drawn, train.residual(solver), optax.adam(rate), where=lambda m: m.net.weights, key=KEY
    )
    step = lambda m: np.asarray(m.decode(m.step(m.encode({"q": q[8]})))["q"])
    truth = step(hg.Model(qg, hg.RK4(), dt=3600.0))
    assert log[-1]["loss"] < 0.1 * log[0]["loss"]
    assert np.linalg.norm(step(trained) - truth) < 0.3 * np.linalg.norm(q[8] - truth)


def test_bad_input():
    _, model, _, dt = next(solvers())
    closed = hg.Model(model(dt).equation, hg.AB3(), hg.Leith(1.0), dt=dt)
    with pytest.raises(ValueError, match="without closure.*got Leith"):
        train.residual(closed)
    with pytest.raises(ValueError, match="steps=0"):
        train.residual(model(dt), 0)
