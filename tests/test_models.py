"""Models: what they accept, what they refuse and with which words, and that they never change precision."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from helpers import double, eddies, error, same_bits

import hybridgcm as hg

GRID = hg.Torus(16, 1e6)
FLOW = hg.QuasiGeostrophic.two_layer(GRID, tau=86400.0)
MODEL = hg.Model(FLOW, hg.AB3(), dt=3600.0)
Q = eddies(GRID, 2, 5e-6).astype(np.float32)


class Named(hg.AbstractClosure):
    """A constant forcing under a name of choice."""

    names: tuple[str, ...] = eqx.field(static=True)
    strength: jax.Array = hg.param(default=1e-12)

    def init(self, fields, grid):
        return None

    def __call__(self, fields, grid, memory, key):
        return {name: self.strength * fields["q"] for name in self.names}, memory


class Noise(hg.AbstractClosure):
    """Fresh noise at every step, and a memory that counts the steps."""

    def init(self, fields, grid):
        return jnp.zeros((), jnp.int32)

    def __call__(self, fields, grid, memory, key):
        return {"q": 1e-11 * jr.normal(key, fields["q"].shape, fields["q"].dtype)}, memory + 1


# Encode and view


def test_encode_and_view_are_inverse_on_the_resolved_modes():
    state = MODEL.encode({"q": Q})
    assert error(MODEL.view(state)["q"], Q) < 1e-6
    assert set(MODEL.view(state)) == {"q", "u", "v", "psi"} and set(MODEL.view(state)) <= set(hg.VARIABLES)
    assert int(state.step) == 0


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"Q": Q}, ("unknown 'Q'", "('q',)")),
        ({"qq": Q, "q": Q}, ("unknown 'qq'", "did you mean 'q'")),
        ({}, ("'q' is missing",)),
        ({"q": Q[0]}, ("(16, 16)", "expected (2, 16, 16)", "[layer, y, x]")),
        ({"q": np.stack([Q] * 8)}, ("(8, 2, 16, 16)", "expected (2, 16, 16)", "eqx.filter_vmap")),
        ({"q": Q[:, :8, :8]}, ("(2, 8, 8)", "expected (2, 16, 16)", "resize")),
    ],
)
def test_encode_names_what_was_expected_what_came_and_the_remedy(fields, words):
    with pytest.raises(ValueError) as caught:
        MODEL.encode(fields)
    assert all(word in str(caught.value) for word in words), str(caught.value)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_encode_refuses_values_that_are_not_finite_and_says_where(value):
    bad = Q.copy()
    bad[1, 3, 5] = bad[1, 4, 0] = value
    with pytest.raises(ValueError, match=r"2 values that are not finite, the first at \(1, 3, 5\)"):
        MODEL.encode({"q": bad})


def test_encode_takes_a_batch_by_vmap_as_its_message_says():
    batch = eqx.filter_vmap(MODEL.encode)({"q": jnp.stack([Q, 2 * Q, 3 * Q])})
    assert batch.y["q"].shape == (3, 2, *GRID.spectral_shape)
    assert error(batch.y["q"][1], MODEL.encode({"q": 2 * Q}).y["q"]) < 1e-6


# Forcing


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (("tau",), ("'q'", "('u', 'v')", "'q_hat'", "got ['tau']")),
        (("q_hatt",), ("got ['q_hatt']", "did you mean 'q_hat'")),
        (("u",), ("got ['u']", "u and v come together")),
    ],
)
def test_lift_refuses_names_that_it_does_not_know(names, words):
    model = hg.Model(FLOW, hg.AB3(), Named(names), dt=3600.0)
    with pytest.raises(ValueError) as caught:
        model.step(model.encode({"q": Q}))
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_every_form_of_forcing_adds_the_same_tendency():
    flow = hg.QuasiGeostrophic.two_layer(double(16))
    grid = flow.grid
    u, v = jnp.asarray(eddies(grid, 2, 1e-7, 1)), jnp.asarray(eddies(grid, 2, 1e-7, 2))
    curl = grid.curl(u, v)
    one, other, both = (
        flow.lift(f)["q"]
        for f in ({"u": u, "v": v}, {"q": grid.to_grid(curl)}, {"q_hat": curl / 2, "q": grid.to_grid(curl) / 2})
    )
    assert error(one, curl) < 1e-14 and error(other, curl) < 1e-13 and error(both, curl) < 1e-13


def test_a_closure_without_forcing_changes_nothing():
    state = MODEL.encode({"q": Q})
    silent = hg.Model(FLOW, hg.AB3(), Named(()), dt=3600.0)
    assert error(silent.step(state).y["q"], MODEL.step(state).y["q"]) < 1e-6


def test_a_forcing_is_a_tendency_of_the_prognostic():
    grid = double(16)
    flow = hg.QuasiGeostrophic.barotropic(grid)
    model = hg.Model(flow, hg.AB3(), Named(("q",), 1e-6), dt=100.0)
    q = eddies(grid, 1, 1e-12)  # so slow that advection does nothing
    once = model.step(model.encode({"q": q}))
    assert error(model.view(once)["q"], (1 + 1e-6 * 100.0) * q) < 1e-9


def test_combinators_add_and_scale_forcings_and_keep_memories_apart():
    fields = MODEL.view(MODEL.encode({"q": Q}))
    closure = hg.Sum(Named(("q",), 1e-6), hg.Scaled(Named(("q", "u", "v"), 1e-6), 0.5), Noise())
    memory = closure.init(fields, GRID)
    forcing, after = closure(fields, GRID, memory, jr.key(0))
    assert set(forcing) == {"q", "u", "v"}
    assert error(forcing["u"], 0.5e-6 * fields["q"]) < 1e-6
    assert int(after[2]) == 1 and after[:2] == (None, None)
    noise = forcing["q"] - 1.5e-6 * fields["q"]
    assert 0.8e-11 < float(jnp.std(noise)) < 1.2e-11, float(jnp.std(noise))


# Time, noise and precision


@pytest.mark.parametrize("dt", [0.0, -3600.0, float("nan")])
def test_a_model_needs_a_positive_time_step(dt):
    with pytest.raises(ValueError, match="positive number of seconds"):
        hg.Model(FLOW, hg.AB3(), dt=dt)


def test_noise_is_a_function_of_key_and_step_only():
    model = hg.Model(FLOW, hg.AB3(), Noise(), dt=3600.0)
    step = eqx.filter_jit(lambda s: model.step(s))
    one, same, other = (step(step(model.encode({"q": Q}, jr.key(k)))) for k in (1, 1, 2))
    assert same_bits(one, same) and not same_bits(one.y, other.y)
    assert int(one.memory) == 2 and int(one.step) == 2
    later = step(eqx.tree_at(lambda s: s.step, model.encode({"q": Q}, jr.key(1)), jnp.int32(1)))
    assert not same_bits(later.y, step(model.encode({"q": Q}, jr.key(1))).y), "each step draws its own noise"


def test_single_precision_is_kept_whatever_the_parts_were_built_with():
    closure = Named(("q",), jnp.asarray(1e-12, jnp.float64))
    flow = eqx.tree_at(lambda f: f.beta, FLOW, jnp.asarray(1.5e-11, jnp.float64))
    model = hg.Model(flow, hg.Filtered(hg.AB3(), jnp.ones(GRID.spectral_shape)), closure, dt=3600.0)
    assert model.closure.strength.dtype == model.equation.beta.dtype == jnp.float32
    with jax.numpy_dtype_promotion("strict"):
        state = model.step(model.encode({"q": Q.astype(np.float64)}))
        kinds = {str(a.dtype) for a in jax.tree.leaves((state.y, state.past, model.view(state), model.courant(state)))}
    assert kinds <= {"float32", "complex64", "int32"}, kinds


def test_the_courant_number_counts_the_mean_flow():
    grid = double(16)
    flow = hg.QuasiGeostrophic.two_layer(grid, U=(0.5, 0.0))
    model = hg.Model(flow, hg.AB3(), dt=3600.0)
    found = float(model.courant(model.encode({"q": np.zeros((2, 16, 16))})))
    assert found == pytest.approx(0.5 * 3600 / (1e6 / 16), rel=1e-12)


# Forcing


def test_a_forcing_of_time_adds_to_every_stage_and_is_no_part_of_the_closure():
    """∂q/∂t = cos ωt of an even field: q = sin(ωt)/ω, to the order of the stepper, beside a closure or without."""
    grid = double(16)
    still = hg.QuasiGeostrophic.navier_stokes(grid)
    wave = jnp.asarray(np.cos(2 * np.pi * grid.x / 1e6) * np.ones((1, 16, 1)))
    omega = 2 * np.pi / 86400.0
    drive = lambda t, grid: {"q": 1e-10 * jnp.cos(omega * t) * wave}
    for closure in (None, Named(("q",), 0.0)):
        model = hg.Model(still, hg.RK4(), closure, dt=3600.0, forcing=drive)
        state = model.encode({"q": jnp.zeros((1, 16, 16))})
        for _ in range(4):
            state = model.step(state)
        expected = 1e-10 * np.sin(omega * 4 * 3600.0) / omega * wave
        assert error(model.decode(state)["q"], expected) < 1e-4, error(model.decode(state)["q"], expected)
        assert (state.memory is None) and not np.any(model.equation.explicit(0.0, model.encode({"q": 0 * wave}).y)["q"])
