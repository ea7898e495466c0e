"""Closures on every equation that has what they read: all of them at once, as one sum, and refusals that teach."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from helpers import double, eddies

import hybridgcm as hg
from hybridgcm import closures
from hybridgcm.nn import CNN

DT, DAY = 600.0, 86400.0
GRID = double(16)


def network(names, outputs, layers, scales):
    net = CNN((len(names) * layers, 4, len(outputs) * layers), (3, 3), key=jr.key(3), activation=jnp.tanh)
    net = eqx.tree_at(lambda net: net.weights[-1], net, jr.normal(jr.key(4), net.weights[-1].shape) / 6)
    return hg.NetworkClosure(net, names, outputs, scales, 1e-11)


def of_momentum():
    """What reads and forces u and v."""
    return [
        hg.Smagorinsky(0.2),
        hg.ZannaBolton(-4e8),
        closures.ScaleAwareZannaBolton(0.1),
        closures.Sponge(DAY, 5e5, 2e5),
        closures.ZeroMean(closures.Sponge(DAY, 2e5, 2e5)),
        closures.Relaxation({"u": 0.0, "v": 0.0}, 10 * DAY),
    ]


def of(name, rate, rms):
    """What forces a prognostic by name: `rate` in its unit per second."""
    return [
        closures.Kolmogorov(rate, name=name),
        closures.GrahamRingler(rate, dt=DT, waves=3, name=name),
        closures.RingForcing(1e-9, wavenumber=2.5e-5, width=5e-6, dt=DT, name=name),
        closures.AR1(rate, scale=1e5, tau=DAY, dt=DT, name=name),
        closures.Relaxation({name: rms}, 10 * DAY),
        closures.BiasCorrection({name: rate * eddies(GRID, 1, 1.0)}),
    ]


def of_vorticity():
    """What reads q of one layer."""
    leith = hg.Leith(0.5)
    statistics = {"q": (((1e-5,), (1e-10,)), ((5e-6,), (5e-11,)))}
    return [
        leith,
        closures.QGLeith(1e12, 0.5),
        closures.DynamicLeith(1.5),
        closures.DynamicSmagorinsky(1.5),
        closures.GradientModel(2.0),
        closures.Hyperviscosity(10 * DAY, 2),
        hg.BiharmonicBackscatter((1.0,), 0.2, 0.5),
        closures.EnergyBackscatter(0.3, start=1e-3, dt=DT),
        closures.SPPT(leith, 0.2, scale=2e5, tau=DAY, dt=DT),
        closures.FailSafe(leith, statistics, {"q": (1e-10,)}),
        closures.Every(leith, 3),
        closures.EnergyNeutral(network(("q", "u"), ("q",), 1, (1e-5, 0.1)), (1.0,)),
        closures.FluxForm(network(("q",), ("q_x", "q_y"), 1, 1e-5)),
        closures.Equivariant(network(("q", "u", "v"), ("q",), 1, (1e-5, 0.1, 0.1))),
    ]


def shallow():
    return hg.ShallowWater(GRID, 1e-4, 20.0, drag=1e-6, tau=4 * DAY)


CASES = {  # equation, rms of its prognostics, closures
    "Navier-Stokes": (
        lambda: hg.QuasiGeostrophic.navier_stokes(GRID, viscosity=10.0),
        {"q": 1e-5},
        lambda: of_momentum() + of_vorticity() + of("q", 1e-11, 1e-6),
    ),
    "surface": (
        lambda: hg.SurfaceQuasiGeostrophic(GRID, 5e-3, f=1e-4, tau=DAY),
        {"b": 5e-3},
        lambda: [*of_momentum(), *of("b", 1e-9, 1e-3), network(("b",), ("b",), 1, 5e-3)],
    ),
    "shallow water": (
        shallow,
        {"zeta": 1e-5, "delta": 1e-6, "phi": 1.0},
        lambda: [
            *of_momentum(), *of("zeta", 1e-11, 1e-6), *of("delta", 1e-11, 1e-6)[:2],
            network(("zeta", "phi"), ("u", "v"), 1, (1e-5, 1.0)),
        ],
    ),
    "tracer in shallow water": (
        lambda: hg.Tracers(shallow(), ("c",), tau=4 * DAY),
        {"zeta": 1e-5, "delta": 1e-6, "phi": 1.0, "c": 1.0},
        lambda: [*of_momentum(), *of("zeta", 1e-11, 1e-6), *of("c", 1e-6, 0.5)[:2], network(("c",), ("c",), 1, 1.0)],
    ),
}  # fmt: skip
every_case = pytest.mark.parametrize("name", CASES)


def fields(rms):
    return {p: eddies(GRID, 1, size, seed, 3.0) for seed, (p, size) in enumerate(rms.items())}


@every_case
def test_every_closure_gives_a_finite_forcing_that_is_not_zero(name):
    make, rms, parts = CASES[name]
    equation = make()
    y = {p: GRID.to_spectral(jnp.asarray(a)) for p, a in fields(rms).items()}
    view = equation.view(y)
    for part in parts():
        for _ in range(2):
            forcing, _ = part(view, GRID, part.init(view, GRID), jr.key(1))
        lifted = equation.lift(forcing)
        size = max(float(jnp.max(jnp.abs(a))) for a in lifted.values() if not isinstance(a, float))
        label = type(part).__name__
        assert np.isfinite(size) and (size > 0 or label.startswith("Dynamic")), f"{label} on {name}: {size}"


@every_case
def test_the_sum_of_all_runs_restarts_and_differs_from_none(name):
    make, rms, parts = CASES[name]
    equation = make()
    model = hg.Model(equation, hg.SIL3(), hg.Sum(*parts()), dt=DT)
    run = eqx.filter_jit(lambda model, state, steps: hg.rollout(model, state, steps, every=steps, save=None)[0])
    start = model.encode(fields(rms), jr.key(2))
    ten, five = run(model, start, 10), run(model, run(model, start, 5), 5)
    assert all(np.isfinite(a).all() for a in jax.tree.leaves(ten.y))
    assert all((ten.y[p] == five.y[p]).all() for p in ten.y), "10 steps are not 5 + 5 steps"
    bare = hg.Model(equation, hg.SIL3(), dt=DT)
    none = run(bare, bare.encode(fields(rms)), 10)
    assert any(np.abs(ten.y[p] - none.y[p]).max() > 1e-6 * np.abs(none.y[p]).max() for p in ten.y)


def test_a_closure_without_its_inputs_is_refused_with_what_there_is():
    model = hg.Model(shallow(), hg.SIL3(), hg.Leith(0.5), dt=DT)
    state = model.encode(fields({"zeta": 1e-5, "delta": 1e-6, "phi": 1.0}))
    with pytest.raises(ValueError, match=r"Leith reads 'q'; ShallowWater offers \['delta', 'phi', 'u', 'v', 'zeta'\]"):
        model.step(state)


@pytest.mark.parametrize("made", [closures.Kolmogorov, lambda a: closures.AR1(a, scale=1e5, tau=DAY, dt=DT)])
def test_amplitudes_of_other_layers_are_refused(made):
    model = hg.Model(hg.QuasiGeostrophic.barotropic(GRID), hg.AB3(), made(jnp.array([1e-12, 1e-13])), dt=DT)
    with pytest.raises(ValueError, match="2 amplitudes for 1 layers"):
        model.encode(fields({"q": 1e-5}))
