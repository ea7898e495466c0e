"""Objectives and losses beyond least squares: closed forms of cut gradients, fair scores, fluxes that add up."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from helpers import double, eddies, error, same_bits

import hybridgcm as hg
from hybridgcm import metrics
from hybridgcm.metrics import crps, discounted, energy_flux, mse, statistics, weighted
from hybridgcm.train import Detached, online, perturbed


class Growth(hg.AbstractModel):
    """x after a step = rate·x + noise·N(0, 1): everything about it can be written down."""

    rate: jax.Array = hg.param()
    noise: jax.Array = hg.param(default=0.0)
    dt: float = eqx.field(static=True, default=1.0)

    def encode(self, fields, key=None):
        y = {"x": jnp.asarray(fields["x"], float)}
        return hg.State(y, jnp.zeros((), jnp.int32), None, None, jr.key(0) if key is None else key)

    def step(self, state):
        x = state.y["x"]
        x = self.rate * x + self.noise * jr.normal(jr.fold_in(state.key, state.step), x.shape)
        return hg.State({"x": x}, state.step + 1, None, None, state.key)

    def view(self, state):
        return state.y

    def decode(self, state):
        return state.y

    def courant(self, state):
        return jnp.zeros(())


FRAME = lambda i: lambda prediction, target: jnp.mean(prediction["x"][i])
ONES = {"x": jnp.ones((1, 5, 1, 2, 2))}


def slope(objective, rate=1.1, batch=ONES):
    return float(jax.grad(lambda r: objective(Growth(r), batch, jr.key(0)))(jnp.asarray(rate)))


# Cut gradients


@pytest.mark.parametrize(("cut", "steps"), [(None, 4), (1, 1), (2, 2), (3, 1), (4, 4), (100, 4)])
def test_a_cut_gradient_is_that_of_the_steps_since_the_cut(cut, steps):
    """x_4 = r^4; with the cut before step n only the last 4 - n factors are differentiated."""
    found = slope(online(FRAME(-1), cut=cut))
    assert found == pytest.approx(steps * 1.1**3, rel=1e-12), f"gradient {found}, {steps} steps"


def test_frames_before_and_after_a_cut_have_their_own_gradients():
    found = [slope(online(FRAME(i), cut=2)) for i in range(4)]
    assert found == pytest.approx([1, 2 * 1.1, 1.1**2, 2 * 1.1**3], rel=1e-12), found


def test_a_cut_counts_steps_not_frames():
    batch = {"x": jnp.ones((1, 3, 1, 2, 2))}
    assert slope(online(FRAME(-1), every=2, cut=3), batch=batch) == pytest.approx(1.1**3, rel=1e-12)


def test_cutting_changes_no_value_and_needs_a_positive_count():
    m = Growth(1.1)
    state = m.step(m.step(m.encode({"x": jnp.ones((1, 2, 2))})))
    assert all(same_bits(Detached(m, n).step(state), m.step(state)) for n in (1, 2, 3))
    with pytest.raises(ValueError, match="at least 1; got n=0"):
        Detached(m, 0)


# Noise on the start


def test_perturbed_starts_carry_the_asked_noise_and_nothing_else_changes():
    seen = []
    keep = lambda model, batch, key: seen.append(batch) or jnp.zeros(())
    layers = np.stack([3e-6 * np.ones((8, 8)), 1e-7 * np.ones((8, 8))]) * np.random.default_rng(0).normal(
        size=(2, 8, 8)
    )
    batch = {"q": jnp.broadcast_to(jnp.asarray(layers, jnp.float32), (200, 3, 2, 8, 8))}
    for key in (1, 1, 2):
        perturbed(keep, 0.05)(None, batch, jr.key(key))
    noise = np.asarray(seen[0]["q"] - batch["q"], np.float64)
    assert not noise[:, 1:].any(), "targets carry noise"
    found = noise[:, 0].std((0, 2, 3)) / layers.std((1, 2))
    assert np.allclose(found, 0.05, rtol=0.03), found
    assert abs(noise[:, 0].mean((0, 2, 3)) / layers.std((1, 2))).max() < 2e-3
    assert same_bits(seen[0], seen[1]) and not same_bits(seen[0], seen[2])
    assert seen[0]["q"].dtype == jnp.float32
    perturbed(keep, {"q": np.array([2e-7, 3e-9])})(None, batch, jr.key(1))
    found = np.asarray(seen[3]["q"] - batch["q"], np.float64)[:, 0].std((0, 2, 3))
    assert np.allclose(found, [2e-7, 3e-9], rtol=0.03) and seen[3]["q"].dtype == jnp.float32
    ones = lambda key, shape, dtype: jnp.ones(shape, dtype)
    perturbed(keep, {"q": 2e-7}, draw=ones)(None, batch, jr.key(1))
    assert np.allclose(seen[4]["q"][:, 0] - batch["q"][:, 0], 2e-7, rtol=1e-5)
    with pytest.raises(ValueError, match=r"amplitudes of \['psi'\]; 'q' is missing"):
        perturbed(keep, {"psi": 1.0})(None, batch, jr.key(1))


def test_without_amplitude_nothing_is_perturbed_and_single_records_are_refused():
    objective = online(mse("x"))
    assert perturbed(objective, 0.0)(Growth(1.1), ONES, jr.key(0)) == objective(Growth(1.1), ONES, jr.key(0))
    with pytest.raises(ValueError, match=r"needs windows \[batch, time, layer, y, x\]; S is \(4, 1, 2, 2\)"):
        perturbed(objective, 0.1)(Growth(1.1), {"S": jnp.zeros((4, 1, 2, 2))}, jr.key(0))


# Ensembles


def test_crps_is_the_fair_score_and_its_gradient_that_of_all_pairs():
    x, t = jr.normal(jr.key(0), (5, 3, 2, 4, 4)), jr.normal(jr.key(1), (3, 2, 4, 4))

    def pairwise(x):
        p = jnp.abs(x[:, None] - x[None]).sum((0, 1)) / (2 * 5 * 4)
        return jnp.mean((jnp.abs(x - t).mean(0) - p) / jnp.sqrt(jnp.mean(t**2, (0, 2, 3), keepdims=True)))

    score = lambda x: crps("x")({"x": x}, {"x": t})
    (found, slope), (expected, exact) = (jax.jit(jax.value_and_grad(f))(x) for f in (score, pairwise))
    assert error(found, expected) < 1e-14 and error(slope, exact) < 1e-13


@pytest.mark.parametrize("members", [2, 3, 8])
def test_crps_of_a_perfect_ensemble_does_not_depend_on_its_size(members):
    """Members and truth from N(0, 1): the mean score is 1/sqrt(pi), with every number of members if it is fair."""
    x = jr.normal(jr.key(members), (members + 1, 1, 1, 400, 400))
    found = float(crps("x")({"x": x[1:]}, {"x": x[0]}))
    assert abs(found * np.sqrt(np.pi) - 1) < 0.01, found


def test_online_crps_finds_the_noise_that_least_squares_denies():
    """Truth is a draw of the model with noise 0.5. Least squares want none of it, the ensemble score all of it."""
    m = Growth(0.9, 0.5)
    start = jnp.zeros((1, 32, 32))
    run = lambda key: hg.rollout(m, m.encode({"x": start}, key), 3)[1]["save"]["x"]
    x = jax.vmap(run)(jr.split(jr.key(0), 8))
    batch = {"x": jnp.concatenate([jnp.zeros((8, 1, 1, 32, 32)), x], 1)}
    amplitudes = (0.0, 0.25, 0.4, 0.5, 0.6, 0.75)

    def scores(objective):
        total = eqx.filter_jit(lambda a: objective(Growth(0.9, a), batch, jr.key(1)))
        return [float(total(jnp.asarray(a))) for a in amplitudes]

    ensemble, squares = scores(online(crps("x"), members=8)), scores(online(mse("x")))
    assert amplitudes[int(np.argmin(ensemble))] == 0.5, ensemble
    assert amplitudes[int(np.argmin(squares))] == 0.0, squares


def test_members_differ_by_their_keys_only():
    seen = []
    keep = lambda prediction, target: seen.append(prediction["x"]) or jnp.zeros(())
    with jax.disable_jit():
        online(keep, members=3)(Growth(1.1, 0.1), ONES, jr.key(0))
        online(keep, members=3)(Growth(1.1), ONES, jr.key(0))
    assert seen[0].shape == (3, 4, 1, 2, 2)
    assert not same_bits(seen[0][0], seen[0][1]) and same_bits(seen[1][0], seen[1][1])


@pytest.mark.parametrize("shape", [(1, 3, 1, 2, 2), (4, 2, 1, 2, 2), (3, 1, 2, 2)])
def test_crps_names_what_is_no_ensemble(shape):
    with pytest.raises(ValueError, match="crps needs"):
        crps("x")({"x": jnp.zeros(shape)}, {"x": jnp.zeros((3, 1, 2, 2))})


# Losses made of losses


def frames(seed, count=4, n=8):
    return jnp.asarray(np.random.default_rng(seed).normal(size=(count, 2, n, n)))


def test_discounted_weights_the_frames():
    p, t = frames(0), frames(1)
    each = np.array([mse("x")({"x": p[i]}, {"x": t[i]}) for i in range(4)])
    for factor in (1.0, 0.5):
        weights = factor ** np.arange(4)
        found = float(discounted(mse("x"), factor)({"x": p}, {"x": t}))
        assert found == pytest.approx((weights * each).sum() / weights.sum(), rel=1e-12)
    members = jnp.stack([p, 2 * p])
    each = [crps("x")({"x": members[:, i]}, {"x": t[i]}) for i in range(4)]
    assert float(discounted(crps("x"), 1.0)({"x": members}, {"x": t})) == pytest.approx(float(np.mean(each)), rel=1e-12)


def test_weighted_sees_what_its_mask_leaves():
    p, t = frames(0), frames(1)
    mask = jnp.zeros((8, 8)).at[:, :4].set(1.0)
    half = weighted(mse("x"), {"x": mask})
    changed = p.at[..., 4:].add(100.0)
    found = half({"x": p, "y": p}, {"x": t, "y": t})
    assert error(found, mse("x")({"x": p[..., :4]}, {"x": t[..., :4]})) < 1e-14
    assert half({"x": changed}, {"x": t}) == found
    with pytest.raises(ValueError, match="has no 'xx'.*did you mean 'x'"):
        weighted(mse("x"), {"xx": mask})({"x": p}, {"x": t})


def test_statistics_compare_means_over_the_window_and_not_frames():
    t = frames(1)
    power = lambda fields: jnp.mean(fields["x"] ** 2, (-2, -1))
    loss = statistics(power)
    assert float(loss({"x": t[::-1]}, {"x": t})) < 1e-30, "the order of frames counts"
    assert float(loss({"x": jnp.stack([t, t[::-1]])}, {"x": t})) < 1e-30, "members count as frames"
    assert float(loss({"x": 0 * t}, {"x": t})) == pytest.approx(1, rel=1e-12)
    found = float(statistics(power, scale=jnp.array([0.1, 0.2]))({"x": 2 * t}, {"x": t}))
    mean = np.mean(np.asarray(t) ** 2, (0, 2, 3))
    assert found == pytest.approx(np.mean((3 * mean / [0.1, 0.2]) ** 2), rel=1e-12)


# Fluxes

GRID = double(32)
FLOW = hg.QuasiGeostrophic.two_layer(GRID)
Q = jnp.asarray(eddies(GRID, 2, (5e-6, 1e-6)))


def test_the_energy_flux_is_that_of_the_budget_and_ends_at_zero():
    flux = np.asarray(energy_flux(FLOW)({"q": Q}))
    model = hg.Model(FLOW, hg.AB3(), dt=3600.0)
    terms = hg.diagnostics.budget(model, model.encode({"q": Q}))
    gained = np.asarray(GRID.spectrum(GRID.multiplicity * (terms["KEflux"] + terms["APEflux"])))
    assert np.abs(flux + np.cumsum(gained)).max() < 1e-2 * np.abs(flux).max(), "aliasing of the two forms alone"
    assert abs(flux[-1]) < 1e-12 * np.abs(flux).max(), "advection makes energy"
    assert np.abs(flux).max() > 1e-12


def test_losses_of_fluxes_are_differentiable_in_single_precision():
    low = hg.QuasiGeostrophic.two_layer(hg.Torus(32, 1e6))
    single, target = jnp.asarray(Q, jnp.float32), 0.9 * Q[::-1]
    value = lambda flow, q: discounted(statistics(energy_flux(flow)), 1.0)(
        {"q": q[None]}, {"q": target[None].astype(q.dtype)}
    )
    derivative = lambda flow, q: jax.jit(jax.value_and_grad(lambda q: value(flow, q)))(q)
    (one, slope), (two, exact) = derivative(low, single), derivative(FLOW, Q)
    assert slope.dtype == jnp.float32 and abs(float(one / two) - 1) < 1e-4, (one, two)
    assert error(slope, exact) < 1e-3
    assert metrics.statistics is statistics


# Offline, several prognostics


class Pull(hg.AbstractClosure):
    """Forces zeta alone, at a rate."""

    rate: jax.Array = hg.param()

    def init(self, fields, grid):
        return None

    def __call__(self, fields, grid, memory, key):
        return {"zeta": -self.rate * fields["zeta"]}, memory


def test_offline_judges_every_prognostic_of_shallow_water():
    """With S_zeta = −a zeta the loss of a pull r is (1 − r/a)², and 1 for each target that the closure leaves alone."""
    grid = double(16)
    water = hg.ShallowWater(grid, 1e-4, 100.0)
    fields = {n: np.stack([eddies(grid, 1, 1e-5, seed) for seed in (i, i + 9)]) for i, n in enumerate(water.prognostic)}
    batch = fields | {"S_zeta": -2e-6 * fields["zeta"], "S_delta": 0.1 * fields["phi"], "S_phi": fields["delta"]}
    loss = lambda p, t: jnp.stack([mse(n)(p, t) for n in ("S_zeta", "S_delta", "S_phi")]).mean()
    found = lambda rate: float(hg.offline(loss)(hg.Model(water, hg.SIL3(), Pull(rate), dt=60.0), batch, jr.key(0)))
    assert found(2e-6) == pytest.approx(2 / 3, rel=1e-6)
    assert found(1e-6) == pytest.approx((0.25 + 2) / 3, rel=1e-6)
    with pytest.raises(ValueError, match=r"\['S_phi'\] missing"):
        hg.offline(loss)(
            hg.Model(water, hg.SIL3(), Pull(1.0), dt=60.0), {n: a for n, a in batch.items() if n != "S_phi"}, jr.key(0)
        )
