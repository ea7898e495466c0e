"""Against pyqg and pyqg-jax: trajectories that those codes computed, stored by `golden/make_golden.py`."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import double, error, run

import hybridgcm as hg

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(scope="module")
def load():
    return lambda name: dict(np.load(GOLDEN / f"{name}.npz", allow_pickle=False))


def parameters(stored):
    return {name.removeprefix("param_"): float(value) for name, value in stored.items() if name.startswith("param_")}


def two_layer(stored):
    """pyqg's model in ours: no dealiasing, AB3, exponential filter on the state after every step."""
    p = parameters(stored)
    grid = double(int(p["nx"]), p["L"], None)
    flow = hg.QuasiGeostrophic.two_layer(
        grid, rd=p["rd"], delta=p["delta"], beta=p["beta"], U=(p["U1"], p["U2"]), drag=p["rek"]
    )
    return hg.Model(flow, hg.Filtered(hg.AB3(), hg.exponential_filter(grid, p["filterfac"])), dt=p["dt"])


def thinned(q, stored):
    """Relative error on the points that are stored, every second one of x and y."""
    return error(q[:, ::2, ::2], stored["q_step_1000_thinned"])


def test_two_layer_trajectory_of_pyqg(load):
    stored = load("pyqg_two_layer_32")
    model = two_layer(stored)
    state, found = model.encode({"q": stored["q_initial"]}), {}
    for steps in (10, 100, 1000):
        state = run(model, state, steps - int(state.step))
        found[steps] = error(model.view(state)["q"], stored[f"q_step_{steps}"])
    assert max(found.values()) < 1e-12, found


def test_two_layer_reference_solution_of_pyqg_after_three_years(load):
    """pyqg's own test: 1 %. The flow is chaotic: rounding of the start alone spreads the end by some 1e-3."""
    model = two_layer(load("pyqg_two_layer_32"))
    end = run(model, model.encode({"q": load("pyqg_two_layer_32")["q_initial"]}), 7290)
    found = float(jnp.sum(model.view(end)["q"][0] ** 2))
    assert found == pytest.approx(9.561430503712755e-08, rel=1e-2), f"{found!r}"
    assert found == pytest.approx(float(load("pyqg_two_layer_32")["q1_sq_sum_end"]), rel=3e-3), f"{found!r}"


@pytest.mark.parametrize("name", ["pyqg_three_layer_32", "pyqg_four_layer_32"])
def test_a_thousand_steps_of_many_layers_of_pyqg(load, name):
    """Distinct depths, densities and flows, U and V: a wrong sign of an interior gradient shows at once."""
    stored = load(name)
    p = parameters(stored)
    grid = double(int(p["nx"]), p["L"], None)
    flow = hg.QuasiGeostrophic.layered(
        grid,
        stored["H"],
        f=p["f"],
        density=stored["rho"],
        gravity=p["g"],
        beta=p["beta"],
        U=stored["U"],
        V=stored["V"],
        drag=p["rek"],
    )
    for ours, theirs in ((flow.stretching, stored["S"]), (flow.Qx, stored["Qx"]), (flow.Qy, stored["Qy"])):
        assert error(ours, theirs) < 1e-14
    model = hg.Model(flow, hg.Filtered(hg.AB3(), hg.exponential_filter(grid, p["filterfac"])), dt=p["dt"])
    end = model.view(run(model, model.encode({"q": stored["q_initial"]}), 1000))["q"]
    assert thinned(end, stored) < 1e-9, thinned(end, stored)
    assert error(end, stored["q_initial"]) > 0.5, "the flow must have changed"


def test_barotropic_reference_solution_of_pyqg(load):
    stored = load("pyqg_barotropic_64")
    p = parameters(stored)
    grid = double(int(p["nx"]), p["L"], None)
    stepper = hg.Filtered(hg.AB3(), hg.exponential_filter(grid, p["filterfac"]))
    model = hg.Model(hg.QuasiGeostrophic.barotropic(grid), stepper, dt=p["dt"])
    before = run(model, model.encode({"q": stored["q_initial"]}), int(stored["steps_end"]) - 1)
    end = run(model, before, 1)
    fields = model.view(end)
    enstrophy = float(jnp.sum(fields["q"] ** 2))
    assert enstrophy == pytest.approx(89101.741238768518, rel=1e-12), f"{enstrophy!r}"
    assert float(jnp.sum(fields["psi"] ** 2)) == pytest.approx(float(stored["psi_sq_sum_end"]), rel=1e-11)
    # pyqg's own reference values of psi and energy are those of one step before the end.
    assert float(jnp.sum(model.view(before)["psi"] ** 2)) == pytest.approx(1493.217664248918, rel=1e-11)
    kinetic = lambda state: sum(float(grid.mean(model.view(state)[name][0] ** 2)) for name in "uv") / 2
    assert kinetic(before) == pytest.approx(0.9950360837282386, rel=1e-12)
    assert kinetic(end) == pytest.approx(float(stored["ke_end"]), rel=1e-12)


def test_a_thousand_steps_of_pyqg_jax(load):
    stored = load("pyqgjax_two_layer_64")
    model = two_layer(stored)
    start = model.encode({"q": stored["q_initial"]})
    end = model.view(run(model, start, 1000))["q"]
    assert thinned(end, stored) < 2e-10, thinned(end, stored)
    assert error(end, stored["q_initial"]) > 0.5, "the flow must have changed"


def test_single_precision_follows_pyqg_jax_as_far_as_that_follows_pyqg(load):
    stored = load("pyqgjax_two_layer_64")
    grid = hg.Torus(64, 1e6, dealias=None)
    model = hg.Model(hg.QuasiGeostrophic.two_layer(grid, drag=5.787e-7), two_layer(stored).stepper, dt=3600.0)
    end = model.view(run(model, model.encode({"q": stored["q_initial"]}), 1000))["q"]
    assert end.dtype == jnp.float32
    assert thinned(end, stored) < 2e-2, thinned(end, stored)


def test_golden_files_are_small_and_say_what_made_them(load):
    sizes = [path.stat().st_size for path in GOLDEN.iterdir()]
    assert max(sizes) < 200_000 and sum(sizes) < 400_000, sizes
    for name in ("pyqg_two_layer_32", "pyqg_three_layer_32", "pyqg_four_layer_32", "pyqgjax_two_layer_64"):
        assert {"version_pyqg", "version_pyqg_jax", "param_nx", "q_initial"} <= set(load(name))


# Live, where the other codes are installed


@pytest.mark.filterwarnings("ignore")
def test_live_against_pyqg(load):
    pyqg = pytest.importorskip("pyqg")
    stored = load("pyqgjax_two_layer_64")
    theirs = pyqg.QGModel(nx=64, dt=3600.0, ntd=1, log_level=0, taveint=1e30, tavestart=1e30)
    theirs.q = stored["q_initial"]
    for _ in range(1000):
        theirs._step_forward()
    model = two_layer(stored)
    ours = model.view(run(model, model.encode({"q": stored["q_initial"]}), 1000))["q"]
    assert error(ours, theirs.q) < 2e-10, error(ours, theirs.q)


@pytest.mark.filterwarnings("ignore")
def test_live_against_pyqg_jax(load):
    qg_model = pytest.importorskip("pyqg_jax.qg_model")
    from pyqg_jax.state import Precision
    from pyqg_jax.steppers import AB3Stepper, SteppedModel

    stored = load("pyqgjax_two_layer_64")
    theirs = SteppedModel(qg_model.QGModel(nx=64, precision=Precision.DOUBLE), AB3Stepper(dt=3600.0))
    start = theirs.model.create_initial_state(jax.random.key(0)).update(q=jnp.asarray(stored["q_initial"]))
    advance = jax.jit(lambda s: jax.lax.fori_loop(0, 1000, lambda _, s: theirs.step_model(s), s))
    end = advance(theirs.initialize_stepper_state(start)).state.q
    model = two_layer(stored)
    ours = model.view(run(model, model.encode({"q": stored["q_initial"]}), 1000))["q"]
    assert error(ours, end) < 2e-10, error(ours, end)
