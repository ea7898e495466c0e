"""Solvers of diffrax as steppers: the same scheme, adaptive steps, gradients; and the table of all steppers."""

import sys
from pathlib import Path

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import double, eddies, error, integrate

import hybridgcm as hg

sys.path.insert(0, str(Path(__file__).parents[1]))

from experiments.benchmarks import steppers as table  # noqa: E402 - the experiments are no installed package

FromDiffrax = hg.steppers.FromDiffrax
GRID = double(16)
FLOW = hg.QuasiGeostrophic.two_layer(GRID, U=(0.1, 0.0), tau=5 * 86400.0, order=2)
Q = GRID.to_spectral(jnp.asarray(eddies(GRID, 2, (2e-5, 1e-5), peak=3.0)))


def after(stepper, equation, y, time, steps):
    return integrate(stepper, equation, y, jnp.asarray(time / steps), jnp.asarray(steps))


def test_sil3_is_the_scheme_of_the_same_name_in_diffrax():
    grid = double(8)
    flow = hg.QuasiGeostrophic.two_layer(grid, tau=3600.0)
    y = {"q": grid.to_spectral(jnp.asarray(eddies(grid, 2, (2e-5, 1e-5), peak=2.0)))}
    solver = diffrax.Sil3(root_finder=diffrax.VeryChord(rtol=1e-12, atol=1e-18))
    ends = [after(stepper, flow, y, 7200.0, 2)["q"] for stepper in (FromDiffrax(solver), hg.SIL3())]
    assert error(*ends) < 1e-12, error(*ends)


def test_stages_that_an_implicit_solver_does_not_find_raise():
    grid = double(8)
    flow = hg.QuasiGeostrophic.two_layer(grid, tau=3600.0)
    solver = diffrax.ImplicitEuler(root_finder=diffrax.VeryChord(rtol=1e-15, atol=1e-30), root_find_max_steps=2)
    model = hg.Model(flow, FromDiffrax(solver), dt=864e3)
    with pytest.raises(Exception, match="Nonlinear solve diverged"):
        jax.block_until_ready(eqx.filter_jit(model.step)(model.encode({"q": eddies(grid, 2, 1e-4, peak=2.0)})).y)


def test_an_adaptive_solver_keeps_its_tolerance_at_a_step_that_is_too_long_for_the_scheme():
    solver = diffrax.Bosh3()
    exact = after(hg.RK4(), FLOW, {"q": Q}, 2 * 86400.0, 512)["q"]
    adaptive = FromDiffrax(solver, diffrax.PIDController(rtol=1e-8, atol=1e-14))
    errors = [error(after(s, FLOW, {"q": Q}, 2 * 86400.0, 4)["q"], exact) for s in (adaptive, FromDiffrax(solver))]
    assert errors[0] < 1e-6 and errors[1] > 1e-3, f"adaptive and fixed: {errors}"


def test_gradients_pass_through_an_adaptive_solver_with_a_closure_per_stage():
    stepper = FromDiffrax(diffrax.Bosh3(), diffrax.PIDController(rtol=1e-7, atol=1e-13), max_steps=64)
    model = hg.Model(FLOW, stepper, hg.Leith(0.5), dt=6 * 3600.0, hold=False)
    start = np.asarray(GRID.to_grid(Q))

    @jax.jit
    def loss(constant):
        changed = eqx.tree_at(lambda m: m.closure.constant, model, constant)
        end = changed.step(changed.encode({"q": start}))
        return 1e10 * GRID.inner(end.y["q"], end.y["q"]).sum()

    exact, numeric = jax.grad(loss)(jnp.asarray(0.5)), (loss(jnp.asarray(0.505)) - loss(jnp.asarray(0.495))) / 0.01
    assert abs(float(exact / numeric) - 1) < 1e-3, (float(exact), float(numeric))


def test_without_diffrax_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "diffrax", None)
    with pytest.raises(ImportError, match=r"hybridgcm\[diffrax\]"):
        FromDiffrax(diffrax.Bosh3())(FLOW.explicit, FLOW, {"q": Q}, None, 1.0)


# The table


def cells(text):
    """{stepper: numbers of its row} of a Markdown table."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.strip().splitlines()[2:]]
    number = lambda cell: np.inf if cell == "any" else float(cell)
    return {name.strip("`"): np.array([number(cell) for cell in row]) for name, *row in rows}


NOMINAL = {"AB3": 2, "SemiImplicitLeapfrog, Robert–Asselin": 1, "FromDiffrax(Dopri5)": 5}
"""Orders that differ from the attribute, as docstrings say: own start, filter, the solver's."""


@pytest.mark.parametrize("name", ["BPR353", *(pytest.param(n, marks=pytest.mark.slow) for n in table.steppers())])
def test_the_table_in_the_documentation_is_what_is_measured_and_orders_are_nominal(name):
    written = cells(table.written())
    assert written.keys() == table.steppers().keys()
    found, row = cells(table.markdown([name]))[name], written[name]
    assert np.allclose(found, row, rtol=0.02, atol=0.051), f"{found}, written {row}"
    nominal = NOMINAL.get(name, table.steppers()[name][0].order)
    assert abs(found[0] - nominal) < 0.2, f"order {found[0]} for {nominal}"


@pytest.mark.parametrize("name", ["AB3", "SIL3"])
def test_transforms_counted_in_the_compiled_step_are_ten_per_evaluation(name):
    stepper, _ = table.steppers()[name]
    assert table.transforms(stepper) == 10 * table.evaluations(stepper)
