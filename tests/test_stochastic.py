"""Red noise and perturbed tendencies: stationary statistics, independent of the time step, keys and members."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from helpers import double, eddies, error, run, same_bits

import hybridgcm as hg
from hybridgcm.closures import AR1, SPPT, Leith, Scaled, Sum

GRID = double(16)
RMS = (5e-6, 5e-7)  # of q per layer, s-1
FLOW = hg.QuasiGeostrophic.two_layer(GRID)
FIELDS = FLOW.view({"q": GRID.to_spectral(jnp.asarray(eddies(GRID, 2, RMS)))})


@eqx.filter_jit
def series(closure, key, steps, grid=GRID):
    """Forcing by name at each of `steps` calls on fields that stay, and the last memory."""

    def call(memory, step):
        forcing, memory = closure(FIELDS, grid, memory, jr.fold_in(key, step))
        return memory, {
            n.removesuffix("_hat"): grid.to_grid(f) if n.endswith("_hat") else f for n, f in forcing.items()
        }

    return jax.lax.scan(call, closure.init(FIELDS, grid), jnp.arange(steps))[::-1]


def members(closure, count, steps):
    """Forcing of q `[member, step, layer, y, x]`, one key per member."""
    keys = jr.split(jr.key(0), count)
    return np.asarray(jax.vmap(lambda key: series(closure, key, steps)[0]["q"])(keys))


def test_red_noise_is_stationary_from_the_first_call():
    closure = AR1((2.0, 0.5), scale=1e5, tau=10.0, dt=1.0)
    q = members(closure, 300, 30)
    variance = (q**2).mean((0, 3, 4)) / np.array([4.0, 0.25])
    # each of 300 members has some 20 independent values: standard deviation 2 %
    assert np.all(np.abs(variance - 1) < 0.08), variance
    assert np.abs(q.mean((-2, -1))).max() < 1e-12, "it has an area mean"


@pytest.mark.parametrize("dt", [1.0, 4.0])
def test_correlation_in_time_is_exponential_whatever_the_time_step(dt):
    steps = round(20 / dt)
    q = members(AR1(1.0, scale=1e5, tau=10.0, dt=dt), 300, steps + 1)
    correlation = (q[:, :1] * q).mean((0, 2, 3, 4)) / (q**2).mean()
    expected = np.exp(-dt * np.arange(steps + 1) / 10)
    assert np.abs(correlation - expected).max() < 0.05, np.abs(correlation - expected).max()


def test_correlation_in_space_is_gaussian_with_the_given_scale():
    grid, scale = double(32, dealias=None), 8e4
    fields = {"q": jnp.zeros((1, *grid.shape))}
    closure = AR1(1.0, scale=scale, tau=1.0, dt=1.0)
    memory = closure.init(fields, grid)
    draw = lambda key: grid.to_grid(closure(fields, grid, memory, key)[0]["q_hat"])[0]
    q = np.asarray(jax.vmap(draw)(jr.split(jr.key(2), 2000)))
    distance = np.minimum(grid.x, 1e6 - grid.x)
    correlation = (q[:, :, :1] * q).mean((0, 1)) / (q**2).mean()
    expected = np.exp(-(distance**2) / (2 * scale**2))
    expected = (expected - (floor := 2 * np.pi * scale**2 / 1e12)) / (1 - floor)  # no area mean
    assert np.abs(correlation - expected).max() < 0.03, np.abs(correlation - expected).max()
    assert (q**2).mean() == pytest.approx(1, abs=0.03)


def test_layers_are_independent_unless_coherent():
    independent, coherent = (members(AR1(1.0, scale=1e5, tau=1.0, dt=1.0, coherent=c), 200, 1) for c in (False, True))
    correlation = lambda q: (q[:, 0, 0] * q[:, 0, 1]).mean() / (q**2).mean()
    assert abs(correlation(independent)) < 0.1 and correlation(coherent) == pytest.approx(1, rel=1e-12)


def test_members_of_a_batch_are_independent_and_the_same_key_gives_the_same_bits():
    noise = AR1((2e-11, 2e-12), scale=1e5, tau=86400.0, dt=3600.0)
    model = hg.Model(FLOW, hg.AB3(), Sum(Leith(0.2), noise), dt=3600.0)
    q = eddies(GRID, 2, RMS)
    keys = jr.split(jr.key(5), 3)
    keys = jnp.stack([*keys, keys[0]])
    states = eqx.filter_vmap(lambda key: model.encode({"q": q}, key))(keys)
    ends = eqx.filter_vmap(lambda state: run(model, state, 40))(states)
    a = np.asarray(jax.vmap(model.view)(ends)["q"])
    assert a[0].tobytes() == a[3].tobytes()
    deviation = (a[:3] - a[:3].mean(0)).reshape(3, -1)
    correlation = np.corrcoef(deviation)[np.triu_indices(3, 1)]
    assert np.abs(correlation + 0.5).max() < 0.25, correlation  # three independent ones about their mean: −1/2
    alone = run(model, model.encode({"q": q}, keys[1]), 40)
    assert error(a[1], model.view(alone)["q"]) < 1e-10


def test_single_precision_holds_forcings_in_si_units():
    grid = hg.Torus(16, 1e6)
    fields = {name: a.astype(grid.dtype) for name, a in FIELDS.items()}
    for seed in range(20):
        closure = AR1(jnp.float32(1e-14), scale=jnp.float32(1e5), tau=jnp.float32(1e5), dt=3600.0)
        forcing = closure(fields, grid, closure.init(fields, grid), jr.key(seed))[0]["q_hat"]
        rms = float(jnp.sqrt(jnp.mean(grid.to_grid(forcing * 1e14) ** 2)))
        assert 0.3 < rms < 3, rms


# Perturbed tendencies


def test_perturbed_tendencies_without_spread_are_those_of_the_closure_itself():
    inner = Leith(0.5)
    forcing = series(SPPT(inner, 0.0, scale=2e5, tau=10.0, dt=1.0), jr.key(0), 3)[0]["q"]
    expected = GRID.to_grid(inner(FIELDS, GRID, None, jr.key(0))[0]["q_hat"])
    assert error(forcing, jnp.broadcast_to(expected, forcing.shape)) < 1e-13


def test_factor_is_clipped_shared_by_the_layers_and_keeps_the_mean():
    closure = SPPT(Leith(0.5), 2.0, scale=2e5, tau=10.0, dt=1.0, limit=0.8)
    memory, key = closure.init(FIELDS, GRID), jr.key(1)
    own = GRID.to_grid(Leith(0.5)(FIELDS, GRID, None, key)[0]["q_hat"])
    forcing = closure(FIELDS, GRID, memory, key)[0]["q"]
    pattern = closure.pattern(FIELDS, GRID, memory["pattern"], jr.split(key)[0])[0]["r_hat"]
    r = np.asarray(GRID.to_grid(pattern))
    assert r[0].tobytes() == r[1].tobytes() and np.abs(r).max() > 1.0, "the test needs a pattern that is clipped"
    change = np.clip(r, -0.8, 0.8) * np.asarray(own)
    assert error(forcing, own + change - change.mean((-2, -1), keepdims=True)) < 1e-13
    assert np.abs(np.asarray(forcing).mean((-2, -1))).max() < 1e-13 * np.abs(forcing).max()


def test_mean_of_perturbed_tendencies_is_the_tendency():
    closure = SPPT(Leith(0.5), 0.5, scale=2e5, tau=1.0, dt=1.0)
    mean = members(closure, 1000, 1).mean((0, 1))
    expected = GRID.to_grid(Leith(0.5)(FIELDS, GRID, None, jr.key(0))[0]["q_hat"])
    assert error(mean, expected) < 0.1


def test_inner_closures_keep_their_own_noise_and_wrong_limits_raise():
    inner = Scaled(AR1(1.0, scale=1e5, tau=1.0, dt=1.0), 1.0)
    closure = SPPT(inner, 0.3, scale=3e5, tau=5.0, dt=1.0)
    one, two = series(closure, jr.key(0), 4), series(closure, jr.key(0), 4)
    assert same_bits(one, two)
    assert np.abs(np.corrcoef(np.asarray(one[0]["q"])[:, 0].reshape(4, -1)) - np.eye(4)).max() < 0.8
    with pytest.raises(ValueError, match="limit bounds"):
        SPPT(inner, scale=1.0, tau=1.0, dt=1.0, limit=0.0)
    with pytest.raises(ValueError, match="3 amplitudes for 2 layers"):
        AR1((1.0, 1.0, 1.0), scale=1.0, tau=1.0, dt=1.0).init(FIELDS, GRID)
