"""What is particular to single steppers: exponential weights, implicit waves, time filters."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import double, eddies, error, integrate, slope, wave

import hybridgcm as hg
from hybridgcm.steppers import exponential, semi_implicit

GRID = double(16)
FLOW = hg.QuasiGeostrophic.two_layer(GRID, U=(0.1, 0.0), tau=5 * 86400.0, order=2)
Q = GRID.to_spectral(jnp.asarray(eddies(GRID, 2, (2e-5, 1e-5), peak=3.0)))


class GravityWaves(hg.AbstractEquation):
    """zeta_t = -f delta, delta_t = f zeta - lap phi, phi_t = -mean delta: f explicit, gravity implicit and coupled."""

    prognostic: ClassVar[tuple[str, ...]] = ("zeta", "delta", "phi")
    grid: hg.AbstractGrid
    f: jax.Array = hg.param()
    mean: jax.Array = hg.param()
    layers: int = eqx.field(default=1, static=True)

    def view(self, y):
        return {name: self.grid.to_grid(a_hat) for name, a_hat in y.items()}

    def explicit(self, t, y):
        return {"zeta": -self.f * y["delta"], "delta": self.f * y["zeta"], "phi": 0 * y["phi"]}

    def implicit(self, y):
        return {"zeta": 0 * y["zeta"], "delta": -self.grid.laplacian(y["phi"]), "phi": -self.mean * y["delta"]}

    def solve(self, y, a):
        eig = self.grid.eigenvalues
        delta = (y["delta"] - a * eig * y["phi"]) / (1 - a**2 * self.mean * eig)
        return y | {"delta": delta, "phi": y["phi"] - a * self.mean * delta}

    def lift(self, forcing):
        raise ValueError(f"GravityWaves takes no forcing; got {sorted(forcing)}")


class Diagonal(hg.AbstractEquation):
    """a_t = rate a, implicit; `swap` mixes the two layers instead."""

    prognostic: ClassVar[tuple[str, ...]] = ("a",)
    grid: hg.AbstractGrid
    rate: jax.Array
    swap: bool = eqx.field(default=False, static=True)
    layers: int = eqx.field(default=2, static=True)

    def view(self, y):
        return {"a": self.grid.to_grid(y["a"])}

    def explicit(self, t, y):
        return {"a": 0 * y["a"]}

    def implicit(self, y):
        return {"a": self.rate * (y["a"][::-1] if self.swap else y["a"])}

    def solve(self, y, a):
        return {"a": y["a"] / (1 - a * self.rate)}

    def lift(self, forcing):
        raise ValueError(f"Diagonal takes no forcing; got {sorted(forcing)}")


def after(stepper, equation, y, time, steps):
    return integrate(stepper, equation, y, jnp.asarray(time / steps), jnp.asarray(steps))


def order(stepper, equation, y, time, counts, exact):
    """Measured order of the first prognostic's error, and the errors."""
    name = equation.prognostic[0]
    errors = [error(after(stepper, equation, y, time, n)[name], exact[name]) for n in counts]
    return slope(1 / np.array(counts), errors), errors


# ETDRK4


def contour(z):
    """The weights of Kassam and Trefethen (2005) as means over 64 points of a circle around z, complex128."""
    points = np.asarray(z, complex)[..., None] + np.exp(2j * np.pi * (np.arange(64) + 0.5) / 64)
    e, cube = np.exp(points), points**3
    return {
        "q": np.mean((np.exp(points / 2) - 1) / points, -1),
        "f1": np.mean((-4 - points + e * (4 - 3 * points + points**2)) / cube, -1),
        "f2": np.mean((2 + points + e * (points - 2)) / cube, -1),
        "f3": np.mean((-4 - 3 * points - points**2 + e * (4 - points)) / cube, -1),
    }


REAL = np.concatenate([-np.logspace(-9, 3, 60), [0.0], -np.linspace(1.9, 2.1, 21), np.linspace(0.1, 3, 9)])
TURNED = REAL[:60, None] * np.exp(1j * np.linspace(-np.pi / 2, np.pi / 2, 7))


@pytest.mark.parametrize(("z", "tolerance"), [(REAL, 2e-15), (TURNED, 4e-14), (REAL.astype("f4"), 2.5e-7)])
def test_etdrk4_weights_agree_with_contour_means_in_every_precision(z, tolerance):
    # the circles of complex z with |z| near 1 pass close to zero, where the means themselves lose digits
    found, expected = jax.jit(exponential._weights)(jnp.asarray(z)), contour(z)
    for name, value in expected.items():
        worst = np.abs((np.asarray(found[name]) - value) / np.maximum(1, np.abs(value))).max()
        assert worst < tolerance, f"{name}: {worst:.1e}"


def test_etdrk4_weights_are_differentiable_through_zero_and_where_the_formulas_meet():
    z, h = np.array([-50.0, -2.1, -2.0, -1.9, -1e-3, -1e-9, 0.0, 1e-9, 1.0]), 1e-4
    for name in ("q", "f1", "f2", "f3"):
        exact = jax.jit(jax.vmap(jax.grad(lambda z, name=name: exponential._weights(z)[name])))(z)
        numeric = (contour(z + h)[name].real - contour(z - h)[name].real) / (2 * h)
        assert np.abs(exact - numeric).max() < 1e-8, (name, exact, numeric)


@pytest.mark.parametrize("stiffness", [1e-4, 1.0, 1e2, 1e6])
def test_etdrk4_damps_exactly_at_any_stiffness(stiffness):
    flow = hg.QuasiGeostrophic.barotropic(GRID, tau=1.0)
    q = 1e-15 * GRID.to_spectral(jnp.asarray(wave(GRID, 3, 2))[None])  # so weak that advection of rounding is nothing
    end = after(hg.ETDRK4(), flow, {"q": q}, stiffness, 10)["q"]
    decay = np.exp(-stiffness * np.asarray(flow.roughness)[2, 3])
    worst = float(jnp.abs(end - decay * q).max() / jnp.abs(q).max())
    assert worst < 1e-14, worst


def test_etdrk4_turns_waves_of_an_imaginary_diagonal_exactly():
    rate = jnp.asarray(1j * np.random.default_rng(0).uniform(-300, 300, GRID.spectral_shape))
    end = after(hg.ETDRK4(), Diagonal(GRID, rate), {"a": Q}, 1.0, 2)["a"]
    assert error(end, Q * jnp.exp(rate)) < 1e-12, error(end, Q * jnp.exp(rate))  # 300 rad to rounding


def test_etdrk4_without_an_implicit_part_is_rk4():
    flow = eqx.tree_at(lambda f: f.tau, FLOW, jnp.asarray(np.inf))
    ends = [after(s, flow, {"q": Q}, 36e3, 10)["q"] for s in (hg.ETDRK4(), hg.RK4())]
    assert error(*ends) < 1e-14, error(*ends)


def test_etdrk4_refuses_implicit_parts_that_are_not_diagonal():
    y = {name: Q[:1] for name in ("zeta", "delta", "phi")}
    waves = GravityWaves(GRID, 1e-4, 0.0)  # refused although the coupling vanishes for this depth
    message = r"GravityWaves couples others into \['delta', 'phi'\]. Use SIL3 or BPR353"
    F = lambda offset, y: y
    with pytest.raises(ValueError, match=message):
        hg.ETDRK4()(F, waves, y, None, 1.0)
    with pytest.raises(ValueError, match=message):
        after(hg.ETDRK4(), waves, y, 1.0, 1)
    with pytest.raises(ValueError, match=r"Diagonal couples others into \['a'\]"):
        after(hg.ETDRK4(), Diagonal(GRID, jnp.ones(()), swap=True), {"a": Q}, 1.0, 1)


def test_etdrk4_gradient_by_tau_in_single_precision_is_that_in_double():
    found, q = {}, np.asarray(GRID.to_grid(Q))
    for dtype in (jnp.float32, jnp.float64):
        grid = hg.Torus(16, 1e6, dtype=dtype)

        def loss(tau, grid=grid):
            flow = eqx.tree_at(lambda f: f.tau, hg.QuasiGeostrophic.two_layer(grid), tau)
            model = hg.Model(flow, hg.ETDRK4(), dt=3600.0)
            state = model.step(model.encode({"q": q}))
            return 1e10 * grid.inner(state.y["q"], state.y["q"]).sum()

        taus = jnp.asarray([60.0, 3600.0, 864e3, 1e9], dtype)
        found[dtype] = jax.jit(jax.vmap(jax.grad(loss)))(taus)
    ratio = np.asarray(found[jnp.float32], float) / np.asarray(found[jnp.float64])
    assert np.abs(ratio - 1).max() < 1e-3, (ratio, found)


# Implicit–explicit schemes


def test_bpr353_meets_the_order_conditions_of_third_order_also_those_that_couple_both_tableaus():
    rows = [np.zeros((5, 5)), np.zeros((5, 5))]
    for tableau, matrix in zip(semi_implicit._BPR353, rows):
        for i, weights in enumerate(tableau, 1):
            matrix[i, : len(weights)] = weights
    c = [matrix.sum(1) for matrix in rows]
    assert np.allclose(c[0], [0, 1, 2 / 3, 1, 1], atol=1e-15) and np.allclose(c[0], c[1], atol=1e-15)
    for b in (rows[0][-1], rows[1][-1]):  # the last stage is the new state: b is the last row
        sums = [b.sum(), b @ c[0], b @ c[0] ** 2, b @ rows[0] @ c[0], b @ rows[1] @ c[0]]
        assert np.allclose(sums, [1, 1 / 2, 1 / 3, 1 / 6, 1 / 6], atol=1e-15), sums


WAVES = double(8, 2 * np.pi)
SCHEMES = [hg.SIL3(), hg.steppers.BPR353(), hg.SemiImplicitLeapfrog(robert=0.0), hg.SemiImplicitLeapfrog()]
every_scheme = pytest.mark.parametrize("stepper", SCHEMES, ids=lambda s: type(s).__name__)


def packet():
    """Gravity waves and vortices of several lengths, spectral."""
    return {n: WAVES.to_spectral(jnp.asarray(eddies(WAVES, 1, 1.0, seed=i, peak=1.5))) for i, n in enumerate("zdp")}


def inertia_gravity(f, mean, time):
    """The exact solution from `packet` by the matrix exponential of each mode."""
    z, d, p = (np.asarray(a)[0] for a in packet().values())
    out = np.zeros((3, *z.shape), complex)
    for at in np.ndindex(*z.shape):
        matrix = np.array([[0, -f, 0], [f, 0, -float(WAVES.eigenvalues[at])], [0, -mean, 0]], complex)
        if at != (0, 0):
            values, vectors = np.linalg.eig(matrix)
            start = np.linalg.solve(vectors, [z[at], d[at], p[at]])
            out[(slice(None), *at)] = vectors @ (np.exp(values * time) * start)
    return dict(zip(GravityWaves.prognostic, out[:, None]))


@every_scheme
def test_inertia_gravity_waves_converge_at_the_nominal_order(stepper):
    waves, y = GravityWaves(WAVES, 1.0, 1.0), dict(zip(GravityWaves.prognostic, packet().values()))
    found, errors = order(stepper, waves, y, 4.0, (128, 256, 512), inertia_gravity(1.0, 1.0, 4.0))
    assert abs(found - stepper.order) < 0.2, f"order {found:.2f}, errors {errors}"


def energy(y, mean):
    """Kinetic and potential energy, which the equation conserves."""
    kinetic = sum(-WAVES.inner(WAVES.inverse_laplacian(y[name]), y[name]) for name in ("zeta", "delta"))
    return float((kinetic + WAVES.inner(y["phi"], y["phi"]) / mean).sum())


@every_scheme
def test_fast_gravity_waves_are_stable_at_a_hundred_times_the_explicit_limit_and_balance_stays(stepper):
    f, mean = 1.0, 1e6
    waves, y = GravityWaves(WAVES, f, mean), dict(zip(GravityWaves.prognostic, packet().values()))
    y = y | {"phi": mean**0.5 * y["phi"]}
    end = after(stepper, waves, y, 50.0, 500)  # omega dt is 100 to 400, f dt 0.1
    assert energy(end, mean) < 2 * energy(y, mean), f"{energy(end, mean):.2g} after {energy(y, mean):.2g}"
    balance = {"zeta": y["zeta"], "delta": 0 * y["delta"], "phi": f * WAVES.inverse_laplacian(y["zeta"])}
    kept = after(stepper, waves, balance, 50.0, 500)
    assert error(kept["zeta"], y["zeta"]) < 1e-11, error(kept["zeta"], y["zeta"])
    with np.errstate(all="ignore"):
        assert not np.isfinite(after(hg.AB3(), waves, y, 50.0, 500)["delta"]).all(), "explicit AB3 must fail here"


# Leapfrog


def test_the_leapfrog_starts_with_a_short_trapezoidal_step_that_is_not_filtered():
    dt, stepper = 3600.0, hg.SemiImplicitLeapfrog()
    first, past = stepper(FLOW.explicit, FLOW, {"q": Q}, stepper.init({"q": Q}), dt)
    damped = FLOW.dissipation * dt / 2
    expected = ((1 - damped) * Q + dt * FLOW.explicit(0.0, {"q": Q})["q"]) / (1 + damped)
    assert error(first["q"], expected) < 1e-15 and error(past["before"]["q"], Q) == 0
    second = stepper(FLOW.explicit, FLOW, first, past, dt)[0]["q"]
    unfiltered = ((1 - 2 * damped) * Q + 2 * dt * FLOW.explicit(0.0, first)["q"]) / (1 + 2 * damped)
    filtered = unfiltered - 0.47 * 0.05 * (Q - 2 * first["q"] + unfiltered)
    assert error(second, filtered) < 1e-15, error(second, filtered)


def test_the_filter_damps_the_computational_mode():
    flow = hg.QuasiGeostrophic.barotropic(GRID)
    y, size = {"q": GRID.to_spectral(1e-9 * jnp.asarray(wave(GRID, 3, 2))[None])}, {}
    for robert in (0.0, 0.1):
        stepper = hg.SemiImplicitLeapfrog(robert=robert)
        past = {"before": jax.tree.map(lambda a: 1.01 * a, y), "count": jnp.int32(1)}
        advance = lambda _, carry, s=stepper: s(flow.explicit, flow, *carry, 1.0)
        ends = [jax.lax.fori_loop(0, n, advance, (y, past))[0]["q"] for n in (100, 101)]
        size[robert] = error(*ends)
    assert size[0.0] == pytest.approx(0.01, rel=0.02), size
    # the flow is steady, so its alternating part is multiplied by nu - 1 in every step
    assert size[0.1] == pytest.approx(size[0.0] * 0.9**100, rel=0.1), size


def losses(williams, counts):
    """Relative change of the amplitude of a Rossby wave from time 20 to 40, long after the start."""
    grid = double(16, 2 * np.pi)
    flow = hg.QuasiGeostrophic.barotropic(grid, beta=2.0)
    y, stepper = {"q": grid.to_spectral(jnp.asarray(wave(grid, 3, 2))[None])}, hg.SemiImplicitLeapfrog(0.1, williams)
    size = lambda time, n: float(jnp.abs(after(stepper, flow, y, time, n)["q"]).max())
    return np.array([size(40.0, 2 * n) / size(20.0, n) - 1 for n in counts])


def test_williams_filter_makes_the_amplitude_error_of_a_wave_third_order_and_roberts_first():
    counts = np.array([160, 240, 320])
    robert, raw = losses(1.0, counts), losses(0.5, counts)
    orders = slope(1 / counts, -robert), slope(1 / counts, raw)
    assert abs(orders[0] - 1) < 0.1 and abs(orders[1] - 3) < 0.1, f"orders {orders}, changes {robert}, {raw}"
    for williams, found in ((1.0, robert), (0.53, losses(0.53, counts))):  # the rate in the docstring
        predicted = -0.1 * (2 * williams - 1) * (6 / 13) ** 2 * (20 / counts) / 4 * 20
        assert np.allclose(found, predicted, rtol=0.2), (williams, found, predicted)


def test_the_leapfrog_loses_less_energy_with_williams_filter_than_with_roberts():
    flow = hg.QuasiGeostrophic.two_layer(GRID, U=(0.0, 0.0), drag=0.0)
    total = lambda q: -float(sum(h * GRID.inner(p, a) for h, p, a in zip(flow.thickness, flow.invert(q), q)))
    change = {}
    for name, robert, williams in (("none", 0.0, 1.0), ("Williams", 0.1, 0.53), ("Robert", 0.1, 1.0)):
        stepper = hg.SemiImplicitLeapfrog(robert=robert, williams=williams)
        change[name] = total(after(stepper, flow, {"q": Q}, 10 * 86400.0, 480)["q"]) / total(Q) - 1
    assert change["Robert"] < 0 and abs(change["Robert"]) > 5 * abs(change["Williams"]), change
    assert abs(change["none"]) < abs(change["Robert"]) / 5, change


def test_filter_weights_are_checked():
    with pytest.raises(ValueError, match="robert is a number from 0 to 1; got -0.1"):
        hg.SemiImplicitLeapfrog(robert=-0.1)
    with pytest.raises(ValueError, match="williams is a number"):
        hg.SemiImplicitLeapfrog(williams=np.nan)
