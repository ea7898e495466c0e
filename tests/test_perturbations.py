"""Perturbations are what they say: spectra and sizes, growth by singular values, exponents that are known."""

import sys
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from helpers import cnn, eddies, same_bits

sys.path.insert(0, str(Path(__file__).parents[1]))

import hybridgcm as hg  # noqa: E402
from experiments.closure_benchmark.lorenz96 import Circle, SlowAndFast  # noqa: E402
from hybridgcm import perturbations, tangent  # noqa: E402
from hybridgcm.models import State  # noqa: E402


class Linear(hg.AbstractModel):
    """x(t + dt) = A x on the points of one row: everything about it is known."""

    A: jax.Array
    dt: float = eqx.field(static=True, default=2.0)
    grid = None

    def encode(self, fields, key=None):
        return State({"x": jnp.asarray(fields["x"])}, jnp.zeros((), jnp.int32), None, None, key)

    def step(self, state):
        return State({"x": (self.A @ state.y["x"][0, 0])[None, None]}, state.step + 1, None, None, state.key)

    def view(self, state):
        return dict(state.y)

    def decode(self, state):
        return dict(state.y)

    def courant(self, state):
        return jnp.zeros(())


def two_layer(n=24, length=5e5, dtype=jnp.float32, **kwargs):
    grid = hg.Torus(n, length, dtype=dtype)
    qg = hg.QuasiGeostrophic.two_layer(grid, U=(0.1, 0.0), tau=6 * 3600.0)
    return hg.Model(qg, hg.AB3(), dt=3600.0, **kwargs)


def at_time(model, fields, steps):
    """The state of fields after so many steps."""
    return eqx.tree_at(lambda s: s.step, model.encode(fields, jr.key(0)), jnp.asarray(steps, jnp.int32))


@pytest.fixture(scope="module")
def turbulence():
    """A two-layer model in its statistical equilibrium: 100 daily analyses."""
    model = two_layer()
    state = model.encode({"q": 1e-5 * jr.normal(jr.key(0), (2, 24, 24), jnp.float32)})
    state, _ = eqx.filter_jit(hg.rollout)(model, state, 24 * 200, save=None)
    _, out = eqx.filter_jit(hg.rollout)(model, state, 24 * 100, every=24)
    return model, {"q": np.asarray(out["save"]["q"]), "time": (200 + np.arange(1, 101)) * 86400.0}


@pytest.fixture(scope="module")
def lorenz():
    """Lorenz 96 with twelve variables, F = 8: model, trajectory, exponents and vectors at its end."""
    model = hg.Model(SlowAndFast(Circle(1, 12), 8.0, 0.0, 1.0, 1.0), hg.RK4(), dt=0.05)
    state = model.encode({"q": 8 + jr.normal(jr.key(0), (1, 1, 12))})
    state, _ = eqx.filter_jit(hg.rollout)(model, state, 400, save=None)
    _, out = eqx.filter_jit(hg.rollout)(model, state, 8000, every=4, save=lambda m, s: m.decode(s))
    past = {"q": out["save"]["q"], "time": (400 + 4 * np.arange(1, 2001)) * 0.05}
    return model, past, *tangent.lyapunov_vectors(model, past, count=12, skip=200)


# Norms


def test_the_energy_norm_is_the_energy_on_torus_and_sphere():
    sphere = hg.Sphere(8, dtype=jnp.float64)
    for model in (
        two_layer(dtype=jnp.float64),
        hg.Model(hg.QuasiGeostrophic.qg3(sphere), hg.RK4(), dt=1800.0),
    ):
        grid, layers = model.equation.grid, model.equation.layers
        q = jr.normal(jr.key(1), (layers, *grid.shape)) * 1e-5
        q = grid.to_grid(grid.to_spectral(q))
        weigh, unweigh = tangent.energy(model.equation)(model, {"q": q})
        z = weigh({"q": q})
        np.testing.assert_allclose(z @ z, hg.diagnostics.energy(model, model.encode({"q": q})), rtol=1e-10)
        np.testing.assert_allclose(unweigh(z)["q"], q - grid.mean(q)[:, None, None], atol=1e-15)


def test_the_l2_norm_is_a_mean_over_the_area_with_a_scale_per_layer():
    model = hg.Model(hg.QuasiGeostrophic.qg3(hg.Sphere(8, dtype=jnp.float64)), hg.RK4(), dt=1800.0)
    q = jr.normal(jr.key(1), (3, *model.equation.grid.shape))
    weigh, unweigh = tangent.l2({"q": (1.0, 2.0, 4.0)})(model, {"q": q})
    z = weigh({"q": q})
    scale = np.reshape((1.0, 2.0, 4.0), (3, 1, 1))
    np.testing.assert_allclose(z @ z, jnp.mean(model.equation.grid.mean((q / scale) ** 2)), rtol=1e-12)
    np.testing.assert_allclose(unweigh(z)["q"], q, rtol=1e-12)


# Singular vectors


def swirl(model, layers, seed=3, size=2e-5):
    q = jnp.asarray(eddies(model.equation.grid, layers, size, seed, peak=2.0))
    return model.encode({"q": q})


def cases():
    torus = two_layer(8, dtype=jnp.float64)
    sphere = hg.Model(hg.QuasiGeostrophic.qg3(hg.Sphere(4, dtype=jnp.float64)), hg.AB3(), dt=3600.0)
    emulator = hg.Emulator(cnn(1, 1, 5), ("q",), dt=3600.0, grid=hg.Torus(8, 1e6, dtype=jnp.float64))
    waves = sphere.equation.grid
    rough = waves.to_grid(waves.to_spectral(1e-4 * jr.normal(jr.key(2), (3, *waves.shape))))
    return {
        "torus, l2 then energy": (torus, swirl(torus, 2), tangent.l2(1e-6), tangent.energy(torus.equation)),
        "sphere, energy": (sphere, sphere.encode({"q": rough}), tangent.energy(sphere.equation), None),
        "emulator, l2": (emulator, emulator.encode({"q": jr.normal(jr.key(3), (1, 8, 8))}), tangent.l2(), None),
    }


@pytest.mark.parametrize(
    "case",
    ["emulator, l2", *(pytest.param(n, marks=pytest.mark.slow) for n in ("torus, l2 then energy", "sphere, energy"))],
)
def test_singular_vectors_are_those_of_the_dense_jacobian(case):
    model, state, norm, final = cases()[case]
    values, vectors = tangent.singular_vectors(model, state, 12, count=3, norm=norm, final=final)
    f = tangent.flow(model, state, 12, norm, final)
    weigh, _ = norm(model, model.decode(state))
    size = weigh(model.decode(state)).size
    J = jax.jit(lambda: jax.lax.map(lambda e: jax.jvp(f, (0 * e,), (e,))[1], jnp.eye(size)).T)()
    _, expected, Vt = np.linalg.svd(J)
    np.testing.assert_allclose(values, expected[:3], rtol=1e-6)
    z = np.asarray(jax.vmap(weigh)(vectors))
    np.testing.assert_allclose(z @ z.T, np.eye(3), atol=1e-6)
    apart = expected[:3] - expected[1:4] > 0.02 * expected[0]
    alike = np.abs(np.sum(z * Vt[:3], 1))
    assert np.all(alike[apart] > 1 - 1e-3), f"cosines {alike}, values {expected[:4]}"
    assert expected[0] > 1.01 * expected[2], "all changes grow alike: the case is no test"


def test_singular_vectors_of_a_linear_model_are_those_of_its_matrix():
    A = np.random.default_rng(0).normal(size=(6, 6)) / 3
    model = Linear(jnp.asarray(A))
    state = model.encode({"x": jnp.ones((1, 1, 6))}, jr.key(0))
    values, _ = tangent.singular_vectors(model, state, 4, count=2)
    np.testing.assert_allclose(values, np.linalg.svd(np.linalg.matrix_power(A, 4))[1][:2], rtol=1e-8)


# Lyapunov and bred vectors


def test_lyapunov_exponents_of_a_linear_model_are_logarithms_of_its_eigenvalues():
    rng, growth = np.random.default_rng(1), np.array([1.3, 1.1, 0.9, 0.7, 0.4])
    basis = rng.normal(size=(5, 5))
    model = Linear(jnp.asarray(basis @ np.diag(growth) @ np.linalg.inv(basis)))
    past = {"x": np.zeros((300, 1, 1, 5)), "time": 4.0 * np.arange(300)}
    exponents, vectors = tangent.lyapunov_vectors(model, past, count=4, skip=150)
    np.testing.assert_allclose(exponents, np.log(growth[:4]) / model.dt, rtol=1e-6)
    leading = np.asarray(vectors["x"][0]).ravel()
    alike = leading @ basis[:, 0] / np.linalg.norm(leading) / np.linalg.norm(basis[:, 0])
    assert abs(alike) > 1 - 1e-9


def test_lyapunov_exponents_of_lorenz_96(lorenz):
    _, _, exponents, _ = lorenz
    # the divergence of the flow is −1 per variable; there is one neutral direction, along the trajectory
    assert abs(exponents.sum() + 12) < 0.01, exponents.sum()
    assert np.abs(exponents).min() < 0.02 and (exponents > 0.05).sum() >= 3, exponents
    assert (np.diff(exponents) < 0).all()


def test_bred_vectors_become_the_leading_lyapunov_vector(lorenz):
    model, past, _, vectors = lorenz
    recent = {"q": past["q"][-200:], "time": past["time"][-200:]}
    state = at_time(model, {"q": past["q"][-1]}, 8404)  # where it is does not matter
    made = perturbations.bred(recent, 1e-4)(model, state, jr.split(jr.key(1), 3))
    change = np.asarray(jax.vmap(model.decode)(made)["q"] - model.decode(state)["q"]).reshape(3, 12)
    leading = np.asarray(vectors["q"][0]).ravel()
    alike = np.abs(change @ leading) / np.linalg.norm(change, axis=1) / np.linalg.norm(leading)
    assert alike.min() > 0.999, alike
    np.testing.assert_allclose(np.linalg.norm(change, axis=1) / np.sqrt(12), 1e-4, rtol=1e-6)
    one = perturbations.bred(recent, 1e-4, cycles=1)(model, state, jr.split(jr.key(1), 3))
    first = np.asarray(jax.vmap(model.decode)(one)["q"] - model.decode(state)["q"]).reshape(3, 12)
    assert np.abs(first @ leading / np.linalg.norm(first, axis=1) / np.linalg.norm(leading)).min() < 0.9


@pytest.mark.slow
def test_singular_vectors_grow_more_than_bred_ones_and_those_more_than_noise(turbulence):
    model, analyses = turbulence
    equation = model.equation
    energy = tangent.energy(equation)
    steps, amplitude = 72, 5e-4
    start = {"q": analyses["q"][-1], "time": analyses["time"][-1]}
    weigh, _ = energy(model, {"q": jnp.asarray(start["q"])})
    norm = jax.vmap(lambda q: jnp.linalg.norm(weigh({"q": q})))
    control = hg.forecast(model, start, steps, every=steps)
    methods = {
        "singular": perturbations.singular(steps, amplitude, norm=energy),
        "bred": perturbations.bred(analyses, amplitude, cycles=30, norm=energy),
        "noise": perturbations.noise(1e-8, band=(7e-5, np.inf)),  # errors of single points
    }
    growth = {}
    for name, perturb in methods.items():
        data = hg.forecast(model, start, steps, every=steps, members=3, perturb=perturb, key=jr.key(5))
        change = (data.q - control.q.isel(member=0)).isel(start_time=0)
        begin, end = (np.asarray(norm(jnp.asarray(change.isel(lead_time=i).values))) for i in (0, 1))
        growth[name] = end / begin
        if name != "noise":
            np.testing.assert_allclose(begin, amplitude, rtol=1e-3, err_msg=name)
    state = at_time(model, {"q": start["q"]}, round(start["time"] / model.dt))
    value = tangent.singular_vectors(model, state, steps, norm=energy)[0][0]
    np.testing.assert_allclose(growth["singular"], value, rtol=0.02)
    mean = {name: values.mean() for name, values in growth.items()}
    assert mean["singular"] > 3 * mean["bred"] > 3.3 * mean["noise"], growth


# Noise and lags


@pytest.mark.parametrize("kind", ["torus", "sphere"])
def test_noise_has_the_spectrum_and_the_amplitude_asked_for(kind):
    if kind == "torus":
        model = two_layer(32, dtype=jnp.float64)
    else:
        model = hg.Model(hg.QuasiGeostrophic.qg3(hg.Sphere(15, dtype=jnp.float64)), hg.AB3(), dt=3600.0)
    grid, layers = model.equation.grid, model.equation.layers
    state = model.encode({"q": jnp.zeros((layers, *grid.shape))})
    sizes = 1e-6 * np.arange(1, layers + 1)
    kappa = grid.wavenumber
    band = ((kappa[2] + kappa[3]) / 2, (kappa[8] + kappa[9]) / 2)
    perturb = perturbations.noise({"q": sizes}, band=band, spectrum=lambda kappa: kappa**-2.0)
    states = perturb(model, state, jr.split(jr.key(0), 200))
    variance = np.asarray(jax.vmap(lambda s: grid.mean(model.decode(s)["q"] ** 2))(states)).mean(0)
    np.testing.assert_allclose(np.sqrt(variance), sizes, rtol=0.02)
    density = grid.multiplicity * jnp.mean(jnp.abs(states.y["q"]) ** 2, 0)
    shells = np.asarray(grid.spectrum(density)) / sizes[:, None] ** 2
    inside = np.arange(3, 9)
    assert np.abs(np.delete(shells, inside, axis=1)).max() < 1e-12
    slope = np.polyfit(np.log(kappa[inside]), np.log(shells[:, inside].mean(0)), 1)[0]
    assert abs(slope + 2) < (0.5 if kind == "torus" else 0.1), slope  # a ring of the lattice has some modes too many
    assert np.abs(np.asarray(jax.vmap(lambda s: grid.mean(model.decode(s)["q"]))(states))).max() < 1e-18
    draw = perturbations.drawn(grid, band=band, spectrum=lambda kappa: kappa**-2.0)
    fields = draw(jr.key(1), (200, layers, *grid.shape), jnp.float64)
    own = grid.spectrum(grid.multiplicity * jnp.mean(jnp.abs(grid.to_spectral(fields)) ** 2, (0, 1)))
    np.testing.assert_allclose(own[inside], shells[:, inside].mean(0), rtol=0.2)
    assert abs(float(jnp.mean(grid.mean(fields**2))) - 1) < 0.03 and fields.shape == (200, layers, *grid.shape)


def test_noise_on_the_sphere_is_as_strong_at_the_poles_as_at_the_equator():
    model = hg.Model(hg.QuasiGeostrophic.qg3(hg.Sphere(15, dtype=jnp.float64)), hg.AB3(), dt=3600.0)
    state = model.encode({"q": jnp.zeros((3, *model.equation.grid.shape))})
    states = perturbations.noise(1.0)(model, state, jr.split(jr.key(0), 200))
    spread = np.asarray(jax.vmap(model.decode)(states)["q"]).std((0, 1, 3))
    assert np.abs(spread - 1).max() < 0.06, spread


def test_a_member_is_the_same_whatever_the_others_are(turbulence):
    model, analyses = turbulence
    state = at_time(model, {"q": analyses["q"][-1]}, round(analyses["time"][-1] / model.dt))
    keys = jr.split(jr.key(7), 5)
    for perturb in (
        perturbations.noise(1e-7),
        perturbations.bred(analyses, 1e-7, cycles=2),
        perturbations.lyapunov(analyses, 1e-7, count=2, cycles=3),
    ):
        many, few = perturb(model, state, keys), perturb(model, state, keys[:2])
        assert same_bits(jax.tree.map(lambda a: a[:2], many), few)
        assert many.y["q"].shape[0] == 5 and not np.array_equal(many.y["q"][0], many.y["q"][1])


def test_lagged_members_are_forecasts_from_earlier_analyses(turbulence):
    model, analyses = turbulence
    steps = round(analyses["time"][-1] / model.dt)
    state = at_time(model, {"q": analyses["q"][-1]}, steps)
    states = perturbations.lagged(analyses)(model, state, jr.split(jr.key(0), 3))
    assert states.step.tolist() == [steps] * 3
    old = at_time(model, {"q": analyses["q"][-3]}, steps - 48)
    expected, _ = eqx.filter_jit(hg.rollout)(model, old, 48, every=24)
    np.testing.assert_allclose(states.y["q"][2], expected.y["q"], rtol=0, atol=1e-6 * jnp.abs(expected.y["q"]).max())
    q = jax.vmap(model.decode)(states)["q"]
    away = jnp.sqrt(jnp.mean((q - q[0]) ** 2, (1, 2, 3)) / jnp.mean(q[0] ** 2))
    assert away[0] == 0 and 0 < away[1] < 0.01 and 0 < away[2] < 0.01, (
        away
    )  # the model is perfect, its start is Euler's


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda a: perturbations.noise({"b": 1.0}), "no 'b' to perturb"),
        (lambda a: perturbations.noise((1.0, 2.0, 3.0)), "one for each of 2 layers"),
        (lambda a: perturbations.noise(1.0, band=(1.0, 2.0)), "no mode has its wavenumber"),
        (lambda a: perturbations.noise(1.0, spectrum=lambda k: -k), "not negative"),
        (lambda a: perturbations.lagged({"q": a["q"]}), '"time"'),
        (lambda a: perturbations.lagged({"q": a["q"][:5], "time": a["time"][:5]}), "needs 1 analyses before it"),
        (lambda a: perturbations.bred(a, 1.0, cycles=500), "needs 500 analyses"),
        (lambda a: perturbations.bred({"q": a["q"], "time": a["time"] ** 2}, 1.0), "equally spaced"),
        (lambda a: perturbations.bred({"q": a["q"][0], "time": a["time"]}, 1.0), "expected .100, layer, y, x"),
        (lambda a: perturbations.singular(2, 1.0, count=0), "count is the number of vectors"),
        (lambda a: perturbations.lyapunov(a, 1.0, norm=tangent.l2({"q": -1.0})), "scales are positive"),
    ],
)
def test_what_cannot_be_perturbed_is_refused(turbulence, make, words):
    model, analyses = turbulence
    state = at_time(model, {"q": analyses["q"][-1]}, round(analyses["time"][-1] / model.dt))
    with pytest.raises(ValueError, match=words):
        make(analyses)(model, state, jr.split(jr.key(0), 2))


def test_several_prognostics_need_a_unit_each():
    model = hg.Model(hg.ShallowWater(hg.Torus(16, 1e6), f=1e-4, mean=100.0), hg.SIL3(), dt=60.0)
    state = model.encode({n: jnp.zeros((1, 16, 16)) for n in ("zeta", "delta", "phi")})
    keys = jr.split(jr.key(0), 2)
    with pytest.raises(ValueError, match="an amplitude for each"):
        perturbations.noise(1.0)(model, state, keys)
    with pytest.raises(ValueError, match="with one for each"):
        tangent.singular_vectors(model, state, 2)
    with pytest.raises(ValueError, match="QuasiGeostrophic flow; got ShallowWater"):
        tangent.energy(model.equation)
    states = perturbations.noise({"phi": 1.0})(model, state, keys)
    assert np.abs(states.y["phi"]).max() > 0 and np.abs(states.y["zeta"]).max() == 0
