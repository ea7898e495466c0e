"""Stirring, relaxation and sponges: injected energy, exact solutions, published constants."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from helpers import double, eddies, error, run, same_bits, wave

import hybridgcm as hg
from hybridgcm.closures import AR1, SPPT, Every, GrahamRingler, Kolmogorov, Relaxation, RingForcing, Sponge

GRID = double(24, 2 * np.pi)


def flow_with(closure, dt, grid=GRID, **kwargs):
    return hg.Model(hg.QuasiGeostrophic.navier_stokes(grid, **kwargs), hg.RK4(), closure, dt=dt)


def ring(dt, rate=0.1):
    return RingForcing(rate, wavenumber=5.0, width=1.0, dt=dt)


def forcing_of(closure, grid=GRID, key=None, layers=1):
    fields = {name: jnp.zeros((layers, *grid.shape), grid.dtype) for name in ("q", "u", "v")}
    return closure(fields, grid, closure.init(fields, grid), jr.key(0) if key is None else key)[0]


# Ring forcing


@pytest.mark.parametrize("dt", [0.001, 0.01])
def test_the_first_kick_gives_rate_times_dt_exactly(dt):
    """Ito's term is not random: every phase has modulus one."""
    model = flow_with(ring(dt, 1e-6), dt)
    for seed in range(3):
        state = run(model, model.encode({"q": np.zeros((1, *GRID.shape))}, jr.key(seed)), 1)
        energy = float(hg.diagnostics.energy(model, state))
        assert energy == pytest.approx(1e-6 * dt, rel=1e-10), energy / (1e-6 * dt)


def test_rate_is_that_of_the_whole_stratified_column_in_si_units_and_single_precision():
    grid, dt, rate = hg.Torus(32, 1e6), 3600.0, 1e-9
    closure = RingForcing(rate, wavenumber=5e-5, width=1e-5, dt=dt)
    model = hg.Model(hg.QuasiGeostrophic.two_layer(grid, drag=0.0), hg.RK4(), closure, dt=dt)
    state = run(model, model.encode({"q": np.zeros((2, *grid.shape))}), 1)
    assert float(hg.diagnostics.energy(model, state)) == pytest.approx(rate * dt, rel=1e-4)


@eqx.filter_jit
def budget(model, state, steps):
    """Energy gained, and Ito's work of the forcing on the flow before each step, m² s⁻²."""
    equation = model.equation

    def advance(state, _):
        forcing, _ = model.closure(model.view(state), equation.grid, None, jr.fold_in(state.key, state.step))
        work = -equation.grid.inner(equation.invert(state.y["q"]), forcing["q_hat"])[0] * model.dt
        return model.step(state), (work, hg.diagnostics.energy(model, state))

    end, (work, energy) = jax.lax.scan(advance, state, None, length=steps)
    return hg.diagnostics.energy(model, end) - energy[0], work.sum(), energy.sum() * model.dt


@pytest.mark.parametrize("dt", [0.004, 0.016])
def test_turbulence_gains_the_rate_whatever_the_time_step(dt):
    """Over 32 members: the work on the flow as it was has mean zero, the rest is rate times time, less the drag's."""
    rate, drag, time = 0.1, 0.1, 0.96
    model = flow_with(ring(dt, rate), dt, drag=drag)
    q = eddies(GRID, 1, 3.0)
    states = jax.vmap(lambda key: model.encode({"q": q}, key))(jr.split(jr.key(1), 32))
    gained, work, held = jax.vmap(lambda state: budget(model, state, round(time / dt)))(states)
    noise = float(jnp.std(work)) / np.sqrt(32)
    assert abs(float(jnp.mean(work))) < 3 * noise < 0.25 * rate * time, (float(jnp.mean(work)), noise)
    injected = np.asarray(gained - work + 2 * drag * held) / (rate * time)
    assert abs(injected.mean() - 1) < 0.003 and injected.std() < 0.01, (injected.mean(), injected.std())


def test_forcing_is_a_real_field_in_the_ring_and_new_at_every_step():
    closure, keys = ring(0.01), jr.split(jr.key(3), 200)
    a_hat = jax.vmap(lambda key: forcing_of(closure, key=key)["q_hat"][0])(keys)
    again = GRID.to_spectral(GRID.to_grid(a_hat))
    assert error(again, a_hat) < 1e-13, "the coefficients are not those of a real field"
    a = np.asarray(GRID.to_grid(a_hat)).reshape(200, -1)
    correlation = np.corrcoef(a) - np.eye(200)
    # 100 waves or so: two draws correlate by chance with standard deviation near .1
    assert abs(correlation.mean()) < 0.01 and correlation.std() < 0.15, (correlation.mean(), correlation.std())
    assert abs(a.mean(0)).max() < 5 * a.std() / np.sqrt(200)
    power = np.asarray(GRID.spectrum(GRID.cospectrum(a_hat, a_hat))).mean(0)
    assert power.argmax() == 5 and power[1] < 0.01 * power[5]
    assert same_bits(forcing_of(closure), forcing_of(closure))


# Steady and drifting waves


def test_kolmogorov_flow_settles_exactly_on_forcing_over_damping():
    """A plane wave does not advect itself: q = A cos(4y) (1 - exp(-r t))/r, r = viscosity 16 + drag."""
    r, time = 0.05 * 16 + 0.1, 2.0
    model = flow_with(Kolmogorov(30.0), 0.02, viscosity=0.05, drag=0.1)
    end = run(model, model.encode({"q": np.zeros((1, *GRID.shape))}), 100)
    expected = 30 * wave(GRID, 0, 4)[None] * (1 - np.exp(-r * time)) / r
    assert error(model.view(end)["q"], expected) < 1e-8


def test_momentum_forcing_is_the_wave_that_the_docstring_says():
    B, m = 0.7, 4
    u = jnp.asarray(B * np.sin(m * GRID.y)[:, None] * np.ones(GRID.shape[1]))[None]
    lifted = GRID.to_grid(GRID.curl(u, jnp.zeros_like(u)))
    assert error(forcing_of(Kolmogorov(-m * B))["q"], lifted) < 1e-13


def test_cellular_forcing_of_frezat_2024_is_a_sum_of_two_waves():
    grid = double(64, 2 * np.pi)
    cells = hg.Sum(Kolmogorov(10.0, m_x=15, m_y=0), Kolmogorov(10.0, m_x=0, m_y=15))
    expected = 10 * (np.cos(15 * grid.x)[None, :] + np.cos(15 * grid.y)[:, None])
    assert error(forcing_of(cells, grid)["q"][0], expected) < 1e-13


def test_graham_ringler_is_the_published_formula_at_every_step():
    dt = 0.05
    closure = GrahamRingler(2.459, (1.44, 1.508), dt=dt)
    fields = {"q": jnp.zeros((1, *GRID.shape))}
    memory = closure.init(fields, GRID)
    for step in range(60):
        forcing, memory = closure(fields, GRID, memory, jr.key(0))
        t = step * dt
        y, x = 4 * GRID.y[:, None] + np.pi * np.sin(1.508 * t), 4 * GRID.x[None, :] + np.pi * np.sin(1.44 * t)
        assert error(forcing["q"][0], 2.459 * (np.cos(y) - np.cos(x))) < 1e-12, step
        assert float(jnp.mean(forcing["q"] ** 2) / 2) == pytest.approx(1.75e-18 * 1.2e6**3, rel=1e-3)


def test_graham_ringler_in_si_units_is_the_same_in_units_of_its_time():
    T = 1.2e6
    one, other = GrahamRingler(dt=480.0), GrahamRingler(2.459, (1.44, 1.44 * np.pi / 3), dt=480.0 / T)
    assert float(one.amplitude * T**2) == pytest.approx(float(other.amplitude), rel=1e-3)
    assert np.allclose(one.rates * T, other.rates, rtol=1e-12)


# Relaxation and sponges


def test_zonal_flow_relaxes_exponentially_to_its_target():
    tau = 2.0
    target, start = wave(GRID, 0, 2), 3 * wave(GRID, 0, 3)
    model = flow_with(Relaxation({"q": target[:, :1]}, tau), 0.02)
    stages = hg.Model(model.equation, model.stepper, model.closure, dt=0.02, hold=False)
    # held over a step, the closure sees its start only
    for each, decay in ((model, (1 - 0.02 / tau) ** 100), (stages, np.exp(-2.0 / tau))):
        end = each.view(run(each, each.encode({"q": start[None]}), 100))["q"][0]
        assert error(end, target + (start - target) * decay) < 1e-9


def test_sponge_drags_in_its_band_only_also_across_the_edge():
    tau, length = 5.0, 2 * np.pi
    rng = np.random.default_rng(0)
    fields = {name: jnp.asarray(rng.standard_normal((2, *GRID.shape))) for name in "uv"}
    for centre in (length / 2, 0.0):
        closure = Sponge(tau, centre, length / 4)
        forcing, _ = closure(fields, GRID, closure.init(fields, GRID), jr.key(0))
        rate = np.asarray(-forcing["u"] / fields["u"])[0, :, 0] * tau
        distance = np.abs((GRID.y - centre + length / 2) % length - length / 2)
        inside = distance < length / 4
        assert np.allclose(rate, np.where(inside, np.cos(distance / (length / 4) * np.pi / 2) ** 2, 0), atol=1e-12)
        assert 0 < inside.sum() < len(inside) and rate.max() == pytest.approx(1)


# Wrong use


@pytest.mark.parametrize(
    "make",
    [
        lambda dt: ring(dt),
        lambda dt: GrahamRingler(dt=dt),
        lambda dt: AR1(1.0, scale=1.0, tau=1.0, dt=dt),
        lambda dt: SPPT(hg.Leith(), scale=1.0, tau=1.0, dt=dt),
    ],
)
def test_a_closure_that_needs_the_time_step_asks_for_it(make):
    for dt in (None, 0.0, -1.0, np.nan):
        with pytest.raises(ValueError, match="needs dt, the time step of its model"):
            make(dt)


def test_a_model_refuses_a_closure_made_for_another_time_step():
    closure = hg.Sum(hg.Leith(), hg.Scaled(SPPT(hg.Leith(), scale=1.0, tau=1.0, dt=6.0)))
    with pytest.raises(ValueError, match="AR1 was made for steps of 6.0 s, here it is called every 2.0 s; pass dt=2.0"):
        flow_with(closure, 2.0)
    assert flow_with(Every(closure, 3), 2.0).dt == 2.0


@pytest.mark.parametrize(
    ("closure", "message"),
    [
        (RingForcing(1.0, wavenumber=50.0, width=1.0, dt=1.0), "no resolved wave lies in the ring 50 ± 1 rad/m"),
        (Kolmogorov(1.0, m_y=0), "is no wave"),
        (Relaxation({"qq": 0.0}, 1.0), "did you mean 'q'"),
        (Relaxation({"q": np.zeros(24 + 1)}, 1.0), r"a profile in y is \[y, 1\]"),
        (Relaxation({"q": np.zeros((2, 1, 1, 1))}, 1.0), "must broadcast"),
        (Sponge(1.0, 0.0, 4.0), "half the domain is 3.14"),
        (Sponge(1.0, 0.0, 1.0, names=("U",)), "Sponge reads 'U'"),
    ],
)
def test_forcing_that_does_not_fit_the_model_raises(closure, message):
    with pytest.raises(ValueError, match=message):
        flow_with(closure, 1.0).encode({"q": np.zeros((1, *GRID.shape))})
