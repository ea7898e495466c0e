"""Passive tracers in every flow: solid-body checks, the variance budget, exact means."""

import jax.numpy as jnp
import numpy as np
import pytest
from helpers import double, eddies, error, run, wave

import hybridgcm as hg

GRID = double(32)


def two_layer(**kwargs):
    return hg.QuasiGeostrophic.two_layer(GRID, U=(0.1, 0.02), **kwargs)


def shallow():
    return hg.ShallowWater(GRID, 1e-4, 1e3)


def flow_fields(flow):
    fields = {"q": eddies(GRID, flow.layers, 5e-6)} if flow.prognostic == ("q",) else None
    if fields is None:
        fields = {"zeta": eddies(GRID, 1, 5e-6), "delta": eddies(GRID, 1, 2e-6, 1), "phi": eddies(GRID, 1, 10.0, 2)}
    return fields


def spectral(fields):
    return {name: GRID.to_spectral(jnp.asarray(a)) for name, a in fields.items()}


@pytest.mark.parametrize("make", [two_layer, shallow])
def test_the_flow_does_not_feel_its_tracers(make):
    bare, c = make(), eddies(GRID, make().layers, 1.0, 5)
    one, other = hg.Model(bare, hg.SIL3(), dt=300.0), hg.Model(hg.Tracers(bare, "c"), hg.SIL3(), dt=300.0)
    fields = flow_fields(bare)
    alone, carrying = run(one, one.encode(fields), 20), run(other, other.encode(fields | {"c": c}), 20)
    for name in bare.prognostic:
        assert error(carrying.y[name], alone.y[name]) < 1e-13
    assert error(carrying.y["c"], other.encode(fields | {"c": c}).y["c"]) > 0.01, "the tracer must have moved"


def test_potential_vorticity_is_a_tracer_with_the_mean_gradient_beta():
    flow = hg.QuasiGeostrophic.barotropic(GRID, beta=1.5e-11, U=0.05, tau=5e4)
    m = hg.Model(hg.Tracers(flow, "c", mean_gradient=(0.0, 1.5e-11), tau=5e4), hg.RK4(), dt=1800.0)
    q = eddies(GRID, 1, 5e-6)
    end = m.view(run(m, m.encode({"q": q, "c": q}), 200))
    assert error(end["c"], end["q"]) < 1e-11, error(end["c"], end["q"])
    assert error(end["q"], q) > 0.3, "the flow must have changed"


@pytest.mark.parametrize("direction", [0, 1])
def test_a_tracer_goes_with_the_mean_flow(direction):
    U, V = ((0.3, None), (0.0, 0.3))[direction]
    flow = hg.QuasiGeostrophic.barotropic(GRID, U=U, V=V)
    m = hg.Model(hg.Tracers(flow, ("c", "dye")), hg.RK4(), dt=3600.0)
    shifted = 2 * np.pi * (3, 2)[direction] * 0.3 * 50 * 3600.0 / 1e6
    start, zero = wave(GRID, 3, 2)[None], np.zeros((1, *GRID.shape))
    end = m.view(run(m, m.encode({"q": zero, "c": start, "dye": 2 * start}), 50))
    assert error(end["c"], wave(GRID, 3, 2, -shifted)[None]) < 1e-7
    assert error(end["dye"], 2 * wave(GRID, 3, 2, -shifted)[None]) < 1e-7


def test_the_variance_budget_closes():
    """d<c2>/2dt = -<u c>.G - <c D c>: stirring alone makes no variance."""
    G, flow = np.array([2e-6, -3e-6]), hg.Tracers(two_layer(), "c", mean_gradient=(2e-6, -3e-6), tau=1e5)
    y = spectral({"q": eddies(GRID, 2, 5e-6), "c": eddies(GRID, 2, 1.0, 3)})
    x = flow.view(y)
    inner = lambda a: np.asarray(GRID.inner(y["c"], a))
    rate = inner(flow.explicit(0.0, y)["c"])
    source = -np.asarray(GRID.mean(x["u"] * x["c"]) * G[0] + GRID.mean(x["v"] * x["c"]) * G[1])
    assert error(rate, source) < 1e-10, (rate, source)
    loss = inner(flow.implicit(y)["c"])
    exact = -np.asarray(GRID.inner(y["c"] * flow.dissipation, y["c"]))
    assert (loss < 0).all() and error(loss, exact) < 1e-13
    m = hg.Model(hg.Tracers(two_layer(), "c"), hg.RK4(), dt=900.0)
    start = m.encode({"q": eddies(GRID, 2, 5e-6), "c": eddies(GRID, 2, 1.0, 3)})
    end = run(m, start, 300)
    drift = np.asarray(GRID.inner(end.y["c"], end.y["c"]) / GRID.inner(start.y["c"], start.y["c"])) - 1
    assert np.abs(drift).max() < 1e-9, f"variance drifts by {drift} without gradient and dissipation"
    assert error(end.y["c"], start.y["c"]) > 0.3, "the tracer must have moved"


def test_in_a_diverging_flow_a_uniform_tracer_stays_and_mass_times_tracer_is_kept():
    m = hg.Model(hg.Tracers(shallow(), "c"), hg.RK4(), dt=300.0)
    fields = flow_fields(shallow())
    uniform = m.view(run(m, m.encode(fields | {"c": 3 + np.zeros((1, *GRID.shape))}), 50))
    assert error(uniform["c"], 3 + np.zeros((1, *GRID.shape))) < 1e-13
    total = lambda x: float(GRID.mean((1e3 + x["phi"]) * x["c"])[0])
    state = m.encode(fields | {"c": 1 + 0.2 * eddies(GRID, 1, 1.0, 5)})
    before, after = m.view(state), m.view(run(m, state, 100))
    assert total(after) == pytest.approx(total(before), rel=1e-9), f"{total(after) / total(before) - 1:.1e}"
    assert error(after["c"], before["c"]) > 0.01


def test_names_and_shapes_are_checked():
    with pytest.raises(ValueError, match=r"names of their own.*taken: \['q'\]"):
        hg.Tracers(two_layer(), ("c", "q"))
    with pytest.raises(ValueError, match="names of their own"):
        hg.Tracers(two_layer(), ("c", "c"))
    with pytest.raises(ValueError, match=r"mean_gradient is \(2,\) or \(2, 2\).*got \(3,\)"):
        hg.Tracers(two_layer(), ("c", "dye"), mean_gradient=np.zeros(3))
    with pytest.raises(ValueError, match="positive tau"):
        hg.Tracers(two_layer(), tau=-1.0)
