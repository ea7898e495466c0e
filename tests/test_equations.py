"""The contract that every equation keeps: one row of `ROWS` per equation, or per variant that runs other code."""

import re
from math import prod

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import eddies, error, same_bits, slope

import hybridgcm as hg

N, L, DAY = 16, 1e6, 86400.0
DOUBLE, SINGLE = (hg.Torus(N, L, dtype=dtype) for dtype in (jnp.float64, jnp.float32))
PROFILE = 0.1 * np.sin(2 * np.pi * np.arange(N) / N)
HILL = eddies(DOUBLE, 1, 1.0, 7, 3.0)[0]


def everything(grid):
    U = np.array([[0.05], [0.02], [0.0]]) + PROFILE
    args = dict(beta=1.5e-11, V=(0.02, -0.01, 0.01), topography=50 * HILL, drag=1e-6, tau=4 * DAY)
    return hg.QuasiGeostrophic.layered(grid, [500.0, 900.0, 2600.0], f=1e-4, radii=[6e4, 4e4], U=U, **args)


def two_layer(grid):
    return hg.QuasiGeostrophic.two_layer(grid, U=(0.1, 0.0), tau=4 * DAY, order=2)


def shallow(grid):
    f = 1e-4 * (1 + PROFILE[:, None] + 0 * HILL)
    return hg.ShallowWater(grid, f, [10.0, 30.0], density=[1.0, 1.4], topography=0.3 * HILL, drag=1e-6, tau=4 * DAY)


def one_layer(grid):
    return hg.ShallowWater(grid, 1e-4, 20.0, drag=1e-6, tau=4 * DAY)


ROWS = {  # how it is made, rms of its prognostics, time of the order test (s), transforms per evaluation of `explicit`
    "two layers": (two_layer, {"q": 2e-5}, 4 * DAY, 2 * 5),
    "three layers with profile, V and topography": (everything, {"q": 2e-5}, 2 * DAY, 3 * 6),
    "surface": (
        lambda g: hg.SurfaceQuasiGeostrophic(g, 5e-3, f=1e-4, depth=500.0, U=0.1, gradient=1e-7, drag=1e-6, tau=DAY),
        {"b": 5e-3},
        DAY,
        5,
    ),
    "two shallow layers": (shallow, {"zeta": 1e-5, "delta": 5e-6, "phi": 0.5}, DAY / 2, 2 * 9),
    "tracers in shallow water": (
        lambda g: hg.Tracers(one_layer(g), ("c", "dye"), mean_gradient=(1e-6, 2e-6), tau=4 * DAY),
        {"zeta": 1e-5, "delta": 5e-6, "phi": 2.0, "c": 1.0, "dye": 1.0},
        DAY / 2,
        9 + 1 + 2 * 4,
    ),
}
every = pytest.mark.parametrize("name", ROWS)
explicit = eqx.filter_jit(lambda equation, y: equation.explicit(0.0, y))
step = eqx.filter_jit(lambda model, state: model.step(state))


def fields(name, seed=0):
    equation = ROWS[name][0](DOUBLE)
    return {p: eddies(DOUBLE, equation.layers, rms, seed + i, 3.0) for i, (p, rms) in enumerate(ROWS[name][1].items())}


def setting(name, grid=DOUBLE, stepper=None, steps=200):
    """A model of the row with a state."""
    make, _, time, _ = ROWS[name]
    model = hg.Model(make(grid), stepper or hg.SIL3(), dt=time / steps)
    return model, model.encode(fields(name))


def worst(one, other):
    """Largest relative error over the variables."""
    return max(error(one[name], other[name]) for name in other)


# Shapes, types, names


@every
def test_view_has_the_prognostics_and_the_flow_as_fields_with_units(name):
    model, state = setting(name)
    equation, x = model.equation, model.view(state)
    assert set(equation.prognostic) == set(ROWS[name][1]) and {*equation.prognostic, "u", "v"} <= set(x)
    for variable, a in x.items():
        assert a.shape == (equation.layers, *DOUBLE.shape) and np.isfinite(a).all(), variable
        assert variable in hg.VARIABLES or variable in ("dye",), f"{variable} has no units in VARIABLES"
    u, v = equation.advecting_velocity(state.y)
    assert u.shape == v.shape == x["u"].shape and float(model.courant(state)) > 0


@eqx.filter_jit
def everything_of(model, state):
    new, equation = model.step(state), model.equation
    parts = new.y, model.view(new), equation.explicit(0.0, new.y), equation.solve(new.y, 10.0)
    return new, (*parts, equation.lift(model.decode(new)))


@every
def test_precision_is_that_of_the_grid_and_single_agrees_with_double(name):
    results = {}
    for grid, kinds in ((SINGLE, {"float32", "complex64"}), (DOUBLE, {"float64", "complex128"})):
        model, state = setting(name, grid)
        with jax.numpy_dtype_promotion("strict"):  # nothing is promoted on the way either
            new, parts = everything_of(model, state)
        found = {str(a.dtype) for a in jax.tree.leaves(parts) if eqx.is_array(a)}
        assert found <= kinds, f"{found} on {grid.dtype}"
        leaves = jax.tree.leaves(eqx.filter(model.equation, eqx.is_inexact_array))
        assert {str(a.dtype) for a in leaves} == {str(grid.dtype)}
        results[str(grid.dtype)] = new.y
    assert worst(results["float32"], results["float64"]) < 3e-5


@every
def test_forcing_is_lifted_by_name_and_everything_else_is_refused(name):
    model, state = setting(name)
    equation, prognostic, kind = model.equation, model.equation.prognostic, type(model.equation).__name__
    a = fields(name, seed=40)
    for p in prognostic:
        lifted = equation.lift({p: jnp.asarray(a[p])})
        assert tuple(lifted) == prognostic or set(lifted) == set(prognostic)
        a_hat = DOUBLE.to_spectral(jnp.asarray(a[p]))
        assert error(lifted[p], a_hat) < 1e-14 and error(equation.lift({f"{p}_hat": a_hat})[p], a_hat) < 1e-14
        assert all(not np.any(lifted[other]) for other in prognostic if other != p)
        with pytest.raises(ValueError, match=rf"{p} has shape .*expected \({equation.layers}, {N}, {N}\)"):
            equation.lift({p: jnp.zeros((equation.layers + 1, N, N))})
        with pytest.raises(ValueError, match=f"{kind}.*did you mean {p + '_hat'!r}"):
            equation.lift({f"{p}_hatt": a_hat})
    u = jnp.asarray(a[prognostic[0]])
    assert any(np.any(x) for x in equation.lift({"u": u, "v": u}).values()), "a force must change something"
    with pytest.raises(ValueError, match="u and v come together"):
        equation.lift({"u": u})
    with pytest.raises(ValueError, match=f"{kind} is started from .*missing"):
        model.encode({})


# The split into explicit and implicit


@every
def test_solve_is_the_inverse_of_one_minus_a_times_implicit(name):
    model, state = setting(name)
    for a in (0.0, 100.0, 2e4):
        moved = jax.tree.map(lambda y, f, a=a: y - a * f, state.y, model.equation.implicit(state.y))
        back = model.equation.solve(moved, a)
        assert worst(back, state.y) < 1e-12, f"a={a}: {worst(back, state.y):.1e}"
    double = model.equation.implicit(jax.tree.map(lambda y: 2 * y, state.y))
    assert worst(double, jax.tree.map(lambda y: 2 * y, model.equation.implicit(state.y))) < 1e-13, "implicit is linear"
    assert any(np.any(a) for a in model.equation.implicit(state.y).values()), (
        "a row without implicit part tests nothing"
    )


@eqx.filter_jit
def integrate(stepper, equation, y, past, dt, steps):
    F = lambda offset, y: equation.explicit(offset, y)
    return jax.lax.fori_loop(0, steps, lambda _, carry: stepper(F, equation, *carry, dt), (y, past))[0]


def after(stepper, equation, y, time, steps, past=None):
    past = stepper.init(y) if past is None else past
    return integrate(stepper, equation, y, past, jnp.asarray(time / steps), jnp.asarray(steps))


def ab3(equation, y, time, n):
    """AB3 with the two tendencies before its start from RK4, in the form in which the stepper keeps them."""
    dt, tendency = time / n, lambda y: jax.tree.map(jnp.add, explicit(equation, y), equation.implicit(y))
    y1, y2 = (after(hg.RK4(), equation, y, m * dt, 8 * m) for m in (1, 2))
    before, last = tendency(y), tendency(y1)
    rest = jax.tree.map(lambda b, a: dt * (5 * b - 16 * a) / 12, before, last)
    past = {"next": rest, "second": jax.tree.map(lambda a: dt * 5 * a / 12, last), "count": jnp.int32(2)}
    return after(hg.AB3(), equation, y2, (n - 2) * dt, n - 2, past)


@every
def test_steppers_have_their_order(name):
    model, state = setting(name)
    time, equation = ROWS[name][2], model.equation
    exact = after(hg.RK4(), equation, state.y, time, 800)
    runs = {
        "RK4": ((60, 90, 120), lambda n: after(hg.RK4(), equation, state.y, time, n)),
        "SIL3": ((120, 180, 240), lambda n: after(hg.SIL3(), equation, state.y, time, n)),
        "AB3": ((240, 320, 400), lambda n: ab3(equation, state.y, time, n)),
    }
    for scheme, (counts, advance) in runs.items():
        errors = [worst(advance(n), exact) for n in counts]
        found, nominal = slope(1 / np.array(counts), errors), getattr(hg, scheme).order
        close = found > nominal - 0.2 if scheme == "SIL3" else abs(found - nominal) < 0.2
        assert close and errors[0] < 0.1, f"{scheme}: order {found:.2f}, errors {errors}"


LATER = {  # numbers of steps between which the order is measured
    "ETDRK4": (hg.ETDRK4(), (60, 90, 120)),
    "BPR353": (hg.steppers.BPR353(), (120, 180, 240)),
    "SemiImplicitLeapfrog": (hg.steppers.SemiImplicitLeapfrog(robert=0.0), (240, 360, 480)),
    "Bosh3 of diffrax": (hg.steppers.FromDiffrax(diffrax.Bosh3()), (90, 120, 160)),
}


@every
@pytest.mark.parametrize("scheme", LATER)
def test_the_other_steppers_have_their_order(name, scheme):
    model, state = setting(name)
    (stepper, counts), time, equation = LATER[scheme], ROWS[name][2], model.equation
    if scheme == "ETDRK4" and "zeta" in equation.prognostic:
        with pytest.raises(ValueError, match="needs an implicit part that is one factor"):
            after(stepper, equation, state.y, time, counts[0])
        return
    exact = after(hg.RK4(), equation, state.y, time, 1600)
    errors = [worst(after(stepper, equation, state.y, time, n), exact) for n in counts]
    found, nominal = slope(1 / np.array(counts), errors), 3 if "diffrax" in scheme else stepper.order
    assert abs(found - nominal) < 0.2 and errors[0] < 0.1, f"{scheme}: order {found:.2f}, errors {errors}"


@every
def test_a_tendency_has_no_transform_beyond_those_it_needs(name):
    model, state = setting(name, SINGLE)
    arrays, static = eqx.partition(model.equation, eqx.is_array)
    tendency = jax.jit(lambda arrays, y: eqx.combine(arrays, static).explicit(0.0, y))
    text = tendency.lower(arrays, state.y).compile().as_text()
    shapes = re.findall(r"= \w+\[([\d,]+)\]\S* fft\(", text)
    found = sum(prod(map(int, shape.split(",")[:-2])) for shape in shapes)
    assert found == ROWS[name][3], f"{found} transforms, {ROWS[name][3]} expected"


# Transformations of JAX, restart


@every
def test_jit_changes_nothing_vmap_is_a_loop_and_a_restart_is_bitwise(name):
    model, state = setting(name)
    states = [state]
    for _ in range(4):
        states.append(step(model, states[-1]))
    assert worst(explicit(model.equation, state.y), model.equation.explicit(0.0, state.y)) < 1e-12
    stored = eqx.tree_at(lambda s: s.y, states[2], {k: jnp.asarray(np.array(a)) for k, a in states[2].y.items()})
    assert same_bits(step(model, step(model, stored)), states[4])
    batch = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states[:3])
    stepped = eqx.filter_jit(eqx.filter_vmap(lambda s: model.step(s)))(batch)
    for i in range(3):
        member = {k: a[i] for k, a in stepped.y.items()}
        assert worst(member, states[i + 1].y) < 1e-12, f"member {i}: {worst(member, states[i + 1].y):.1e}"


DERIVED = ("grid", "stretching", "thickness", "inverse", "roughness", "profile")


@every
def test_gradients_reach_every_parameter_and_agree_with_central_differences(name):
    model, state = setting(name, steps=50)

    def parameters(equation):
        own = {k: getattr(equation, k) for k in equation.__dataclass_fields__ if k not in DERIVED}
        inner = own.pop("inner", None)
        own = {k: a for k, a in own.items() if eqx.is_inexact_array(a)}
        return own if inner is None else own | {"inner": parameters(inner)}

    def replaced(equation, values):
        for k, a in values.items():
            a = replaced(equation.inner, a) if k == "inner" else a
            equation = eqx.tree_at(lambda e, k=k: getattr(e, k), equation, a)
        return equation

    @eqx.filter_jit
    @eqx.filter_value_and_grad
    def loss(values):
        changed = eqx.tree_at(lambda m: m.equation, model, replaced(model.equation, values))
        end = hg.rollout(changed, state, 5, every=5, save=None)[0]
        return sum((DOUBLE.inner(a, a) / DOUBLE.inner(state.y[k], state.y[k])).sum() for k, a in end.y.items())

    values = parameters(model.equation)
    gradient = loss(values)[1]
    for path, g in jax.tree_util.tree_leaves_with_path(gradient):
        key = jax.tree_util.keystr(path)
        assert np.isfinite(g).all(), f"{key}: {g}"
        lone = "density" in key and g.shape == (1,)  # only ratios count
        assert np.any(g) or lone, f"no gradient reaches {key}"
    move = lambda h: jax.tree.map(lambda p: p * (1 + h), values)
    numeric = float((loss(move(1e-4))[0] - loss(move(-1e-4))[0]) / 2e-4)
    exact = float(sum(jnp.sum(g * p) for g, p in zip(jax.tree.leaves(gradient), jax.tree.leaves(values))))
    assert abs(numeric / exact - 1) < 1e-5, (numeric, exact)
