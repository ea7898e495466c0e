"""Training: known constants are recovered, gradients are right, bad steps change nothing, resuming is exact."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest
from helpers import double, eddies, error, same_bits

import hybridgcm as hg
from hybridgcm.checkpoint import Checkpoints, FingerprintMismatch
from hybridgcm.metrics import mse
from hybridgcm.train import Detached, TrainingFailed, fit, offline, online


class Leith(hg.AbstractClosure):
    """dq = div(nu grad q), nu = (C dx)^3 |grad q|."""

    constant: jax.Array = hg.param()

    def init(self, fields, grid):
        return None

    def __call__(self, fields, grid, memory, key):
        qx, qy = grid.gradient(grid.to_spectral(fields["q"]))
        nu = (self.constant * grid.spacing) ** 3 * jnp.sqrt(qx**2 + qy**2 + 1e-30)
        return {"q": grid.to_grid(grid.divergence(nu * qx, nu * qy))}, memory


class Friction(hg.AbstractClosure):
    """d(u, v) = -r (u, v), r in s-1."""

    rate: jax.Array = hg.param()

    def init(self, fields, grid):
        return None

    def __call__(self, fields, grid, memory, key):
        return {name: -self.rate * fields[name] for name in ("u", "v")}, memory


LOSS = mse("q")
ONLINE = online(LOSS)
"""One objective and one optimiser for many tests: their compiled steps are shared."""
ADAM = optax.adam(0.1)
CLOSURE = lambda m: m.closure


def model(constant, grid=None, stepper=None):
    grid = hg.Torus(32, 1e6) if grid is None else grid
    flow = hg.QuasiGeostrophic.two_layer(grid, tau=6 * 3600.0)
    closure = None if constant is None else Leith(constant)
    return hg.Model(flow, hg.AB3() if stepper is None else stepper, closure, dt=3600.0)


def start(grid, seed=0):
    return jnp.asarray(eddies(grid, 2, (1e-6, 5e-7), seed), grid.dtype)


def trajectory(m, frames):
    """`[time, layer, y, x]` of q, the start included."""
    q = start(m.equation.grid)
    _, out = eqx.filter_jit(hg.rollout)(m, m.encode({"q": q}), frames - 1)
    return jnp.concatenate([q[None], out["save"]["q"]])


def windows(q, length, starts):
    return {"q": jnp.stack([q[i : i + length] for i in starts])}


def window(m, length):
    """One batch of one window in which the flow fades: a larger constant comes closer to it."""
    return {"q": jnp.stack([0.9**frame * start(m.equation.grid) for frame in range(length)])[None]}


def gradient(objective, m, batch):
    """Loss and gradient with respect to the closure's constant."""

    def total(constant):
        return objective(eqx.tree_at(lambda m: m.closure.constant, m, constant), batch, jr.key(0))

    return eqx.filter_jit(eqx.filter_value_and_grad(total))(m.closure.constant)


@pytest.fixture(scope="module")
def twin():
    m = model(2.0)
    return m, trajectory(m, 41)


def test_online_training_recovers_a_known_constant(twin):
    batches = [windows(twin[1], 4, (i % 37, (7 * i + 20) % 37)) for i in range(80)]
    schedule = optax.adam(optax.cosine_decay_schedule(0.2, 80))
    trained, log = fit(model(1.0), batches, ONLINE, schedule, where=CLOSURE, key=jr.key(0))
    found = float(trained.closure.constant)
    assert abs(found / 2 - 1) < 0.03, f"constant {found}, expected 2.0"
    assert log[-1]["loss"] < 1e-2 * log[0]["loss"], (log[0], log[-1])


def test_offline_training_recovers_a_known_constant(twin):
    m, q = twin
    tendency = lambda q: m.closure(m.equation.view(m.encode({"q": q}).y), m.equation.grid, None, None)[0]["q"]
    S = jax.jit(jax.vmap(tendency))(q)
    batches = [{"q": q[i % 37 :][:4], "S": S[i % 37 :][:4]} for i in range(60)]
    schedule = optax.adam(optax.cosine_decay_schedule(0.2, 60))
    trained, log = fit(model(1.0), batches, offline(mse("S")), schedule, where=CLOSURE, key=jr.key(0))
    found = float(trained.closure.constant)
    assert abs(found / 2 - 1) < 0.03, f"constant {found}, expected 2.0"
    assert all(set(record) == {"step", "loss", "gradient_norm", "skipped"} for record in log)
    assert all(type(value) in (int, float, bool) for value in log[-1].values())


def test_offline_judges_a_momentum_closure_by_its_curl():
    grid = double(16)
    m = hg.Model(hg.QuasiGeostrophic.two_layer(grid), hg.AB3(), Friction(1e-6), dt=3600.0)
    batch = {"q": jnp.stack([start(grid, seed) for seed in range(3)])}
    vorticity = lambda q: grid.to_grid(grid.laplacian(m.equation.invert(grid.to_spectral(q))))
    batch["S"] = -1e-6 * jax.vmap(vorticity)(batch["q"])
    loss = float(eqx.filter_jit(offline(mse("S")))(m, batch, jr.key(0)))
    assert loss < 1e-24, f"linear friction is -r times the relative vorticity; loss {loss}"


def test_only_the_selected_leaves_change_even_under_weight_decay(twin):
    m, batches = model(1.0), [windows(twin[1], 3, (0, 5))] * 3
    trained, _ = fit(m, batches, ONLINE, optax.adamw(0.1, weight_decay=0.1), where=CLOSURE, key=jr.key(0))
    assert same_bits(eqx.tree_at(CLOSURE, trained, None), eqx.tree_at(CLOSURE, m, None)), "a physics leaf has moved"
    assert trained.closure.constant != m.closure.constant
    assert trained.closure.constant.dtype == jnp.float32


def test_several_parts_can_be_selected(twin, capsys):
    m, where = model(1.0), lambda m: (m.closure, m.equation.drag)
    trained, _ = fit(m, [windows(twin[1], 3, (0,))], ONLINE, optax.sgd(1e-3), where=where, key=jr.key(0), progress="x")
    assert "loss" in capsys.readouterr().err, "no progress bar"
    assert trained.equation.drag != m.equation.drag and trained.closure.constant != m.closure.constant
    assert same_bits(trained.equation.beta, m.equation.beta)


@pytest.mark.parametrize("where", [lambda m: m.closure, lambda m: m.dt, lambda m: m.equation.grid.shell])
def test_selecting_nothing_trainable_raises(where):
    with pytest.raises(ValueError, match="holds no floating-point JAX array.*m.closure trains a closure"):
        fit(model(None), [{}], ONLINE, ADAM, where=where, key=jr.key(0))


def test_complex_weights_are_refused():
    m = eqx.tree_at(lambda m: m.closure.constant, model(1.0), jnp.ones((), jnp.complex64))
    with pytest.raises(ValueError, match="pairs of real arrays"):
        fit(m, [{}], ONLINE, ADAM, where=CLOSURE, key=jr.key(0))


def test_a_batch_with_a_hole_raises_before_its_step(twin):
    good = windows(twin[1], 4, (0, 5))
    bad = {"q": np.array(good["q"])}
    bad["q"][1, 2, 0, 3, 4] = np.nan
    seen = []
    with pytest.raises(ValueError, match=r"batch 2: q has 1 values .* \(1, 2, 0, 3, 4\)"):
        run = lambda step, m, record: seen.append(step)
        batches = [good, good, bad]
        fit(model(1.0), batches, ONLINE, ADAM, where=CLOSURE, key=jr.key(0), callback=run)
    assert seen == [0, 1]


@pytest.mark.parametrize(
    "batch, message",
    [
        ({"q": np.zeros((2, 3, 2, 16, 16))}, r"q has shape \(2, 16, 16\), expected \(2, 32, 32\)"),
        ({"Q": np.zeros((2, 3, 2, 32, 32))}, "got unknown 'Q'"),
        ({"q": np.zeros((2, 1, 2, 32, 32))}, "windows of one length of at least 2"),
    ],
)
def test_misfitting_batches_are_named(batch, message):
    with pytest.raises(ValueError, match=message):
        fit(model(1.0), [batch], ONLINE, ADAM, where=CLOSURE, key=jr.key(0))


def test_offline_names_what_is_missing():
    q = jnp.zeros((2, 2, 32, 32))
    with pytest.raises(ValueError, match=r"\['S'\] missing"):
        offline(mse("S"))(model(1.0), {"q": q}, jr.key(0))
    with pytest.raises(ValueError, match=r"S has shape \(1, 32, 32\), expected \(2, 32, 32\)"):
        offline(mse("S"))(model(1.0), {"q": q, "S": q[:, :1]}, jr.key(0))
    with pytest.raises(ValueError, match="has none; pass one to Model"):
        offline(mse("S"))(model(None), {"q": q, "S": q}, jr.key(0))


def test_batches_must_be_indexed(twin):
    with pytest.raises(TypeError, match="pass a list"):
        fit(model(1.0), (b for b in [{}]), ONLINE, ADAM, where=CLOSURE, key=jr.key(0))
    with pytest.raises(ValueError, match="nothing to train on"):
        fit(model(1.0), [], ONLINE, ADAM, where=CLOSURE, key=jr.key(0))


CLIPPED = optax.chain(optax.clip_by_global_norm(1.0), ADAM)
ROOT = lambda m, batch, key: jnp.sqrt(m.closure.constant * batch["a"])
"""At a = 0 the loss is 0 and its gradient nan; at a = inf the loss is not finite."""


def test_clipping_alone_does_not_keep_a_bad_gradient_out():
    weights = jnp.ones(3)
    updates, _ = CLIPPED.update(jnp.array([1.0, jnp.inf, 1.0]), CLIPPED.init(weights), weights)
    assert not jnp.isfinite(updates).all(), updates


def test_a_bad_gradient_changes_neither_weights_nor_optimiser():
    a = [1.0, 0.0, 1.0]
    batches, m = [{"a": jnp.asarray(value, jnp.float32)} for value in a], model(1.0)
    trained, log = fit(m, batches, ROOT, CLIPPED, where=CLOSURE, key=jr.key(0))
    without, _ = fit(m, [batches[0], batches[2]], ROOT, CLIPPED, where=CLOSURE, key=jr.key(0))
    assert [record["skipped"] for record in log] == [False, True, False]
    assert log[1]["loss"] == 0 and np.isnan(log[1]["gradient_norm"]), log[1]
    assert same_bits(trained, without), (trained.closure.constant, without.closure.constant)


def test_a_rollout_that_explodes_is_skipped(twin):
    wild = {"q": 1e25 * windows(twin[1], 4, (0, 5))["q"]}
    m, seen = model(1.0), []
    keep = lambda step, m, record: seen.append(m.closure.constant)
    batches = [windows(twin[1], 4, (0, 5)), wild, wild]
    trained, log = fit(m, batches, ONLINE, CLIPPED, where=CLOSURE, key=jr.key(0), callback=keep)
    assert [record["skipped"] for record in log] == [False, True, True], log
    assert seen[0] == seen[1] == seen[2] != 1.0
    assert jnp.isfinite(trained.closure.constant)


def test_training_that_keeps_failing_stops_with_the_last_good_model():
    batches = [{"a": jnp.asarray(value, jnp.float32)} for value in (1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0)]
    with pytest.raises(TrainingFailed, match="more than 3 batches in a row.*last good step is 2") as caught:
        fit(model(1.0), batches, ROOT, CLIPPED, where=CLOSURE, key=jr.key(0), patience=3)
    good, _ = fit(model(1.0), batches[:3], ROOT, CLIPPED, where=CLOSURE, key=jr.key(0))
    assert caught.value.step == 2 and len(caught.value.log) == 7
    assert same_bits(caught.value.model, good)


def test_horizons_may_grow_and_each_compiles_once(twin):
    traced = []

    def objective(m, batch, key):
        traced.append(batch["q"].shape[1])
        return ONLINE(m, batch, key)

    batches = [windows(twin[1], length, (0, 9)) for length in (2, 2, 3, 3, 2)]
    _, log = fit(model(1.0), batches, objective, ADAM, where=CLOSURE, key=jr.key(0))
    assert traced == [2, 3], f"compiled for horizons {traced}"
    assert len(log) == 5 and not any(record["skipped"] for record in log)


def test_cutting_the_temporal_gradient_keeps_the_loss_and_changes_the_gradient():
    m = model(1.0, double(16), hg.AB3())
    batch = window(m, 9)
    loss, full = gradient(ONLINE, m, batch)
    same, cut = gradient(online(LOSS, cut=1), m, batch)
    assert error(same, loss) < 1e-14, (loss, same)
    assert abs(cut / full - 1) > 0.1, f"full {full}, cut {cut}"
    assert cut * full > 0


def test_one_step_training_needs_no_temporal_gradient():
    m = model(1.0, double(16))
    batch = window(m, 2)
    full = gradient(ONLINE, m, batch)[1]
    cut = gradient(online(LOSS, cut=1), m, batch)[1]
    assert abs(cut / full - 1) < 1e-14, f"{full} and {cut}"


def test_a_detached_model_is_the_model_but_for_its_gradient():
    m = model(1.0, double(16))
    detached, q = Detached(m), start(m.equation.grid)
    state = m.encode({"q": q})
    assert same_bits(detached.step(detached.encode({"q": q})), m.step(state)) and detached.dt == m.dt
    assert same_bits(detached.view(state), m.view(state)) and detached.courant(state) == m.courant(state)
    through = jax.grad(lambda q: jnp.sum(detached.view(detached.step(m.encode({"q": q})))["q"]))(q)
    assert not through.any()


@pytest.mark.parametrize("stepper", [hg.AB3(), hg.SIL3()], ids=lambda s: type(s).__name__)
def test_gradient_of_the_online_loss_is_its_derivative(stepper):
    m = model(1.0, double(16), stepper)
    batch, objective = window(m, 6), online(LOSS, every=10)
    exact = float(gradient(objective, m, batch)[1])
    loss = eqx.filter_jit(lambda c: objective(eqx.tree_at(lambda m: m.closure.constant, m, c), batch, jr.key(0)))
    difference = lambda h: float(loss(jnp.asarray(1 + h)) - loss(jnp.asarray(1 - h))) / (2 * h)
    estimate = (4 * difference(1e-3) - difference(2e-3)) / 3
    assert abs(exact / estimate - 1) < 1e-6, f"gradient {exact}, differences {estimate}"


def test_gradients_stay_finite_where_no_mode_is_resolved():
    """Explicit dissipation of unresolved modes would be unstable: no state feels it, but the adjoint blows up."""
    grid = hg.Torus(32, 1e6)
    m = model(None, grid, hg.AB3())
    final = lambda q: m.view(hg.rollout(m, m.encode({"q": q}), 200, save=None, chunk=20)[0])["q"]
    sensitivity = jax.jit(jax.grad(lambda q: jnp.mean(final(q) ** 2) * 1e10))(start(grid))
    assert jnp.isfinite(sensitivity).all()


def test_rematerialisation_changes_nothing():
    m = model(1.0, double(16))
    batch = window(m, 10)
    loss, plain = gradient(ONLINE, m, batch)
    same, remat = gradient(online(LOSS, chunk=3), m, batch)
    assert error(same, loss) < 1e-14, (loss, same)
    assert abs(remat / plain - 1) < 1e-12, f"relative difference {remat / plain - 1}"


def test_samples_of_a_batch_are_averaged():
    m = model(1.0, double(16))
    q = jnp.stack([start(m.equation.grid, seed) for seed in range(8)])
    loss = eqx.filter_jit(ONLINE)
    together = loss(m, windows(q, 3, (0, 2, 5)), jr.key(0))
    apart = np.mean([loss(m, windows(q, 3, (i,)), jr.key(0)) for i in (0, 2, 5)])
    assert error(together, apart) < 1e-12


@pytest.mark.parametrize("stop", [1, 5, 6, 7])
def test_resumed_training_is_bitwise_that_of_an_uninterrupted_run(twin, tmp_path, stop):
    wild = {"q": 1e25 * windows(twin[1], 3, (0, 5))["q"]}
    batches = [windows(twin[1], 3 if i < 4 else 4, (i, 2 * i)) for i in range(8)]
    batches[2] = wild
    options = {"where": CLOSURE, "key": jr.key(3)}
    whole, log = fit(model(1.0), batches, ONLINE, CLIPPED, **options)

    class Killed(Exception):
        pass

    def kill(step, m, record):
        if step == stop:
            raise Killed

    with pytest.raises(Killed):
        kept = Checkpoints(tmp_path)
        fit(model(1.0), batches, ONLINE, CLIPPED, checkpoints=kept, every=3, callback=kill, **options)
    seen = []
    run = lambda step, m, record: seen.append(step)
    kept = Checkpoints(tmp_path)
    resumed, again = fit(model(1.0), batches, ONLINE, CLIPPED, checkpoints=kept, every=3, callback=run, **options)
    assert same_bits(resumed, whole)
    assert repr(again) == repr(log), "the log differs"
    assert seen[0] == stop // 3 * 3 and seen[-1] == 7, seen
    idle, _ = fit(model(1.0), batches, ONLINE, CLIPPED, checkpoints=Checkpoints(tmp_path), **options)
    assert same_bits(idle, whole), "a finished run, called again, returns its result"


def test_a_checkpoint_of_another_run_is_refused(twin, tmp_path):
    batches = [windows(twin[1], 2, (0,))] * 2
    options = {"where": CLOSURE, "checkpoints": Checkpoints(tmp_path)}
    fit(model(1.0), batches, ONLINE, optax.sgd(0.1), key=jr.key(0), **options)
    with pytest.raises(ValueError, match="written with key"):
        fit(model(1.0), batches, ONLINE, optax.sgd(0.1), key=jr.key(1), **options)
    steep = eqx.tree_at(lambda m: m.equation.beta, model(1.0), jnp.float32(2e-11))
    others = {
        "weights at the start": (model(2.0), batches, ONLINE, optax.sgd(0.1)),
        "rest of the model": (steep, batches, ONLINE, optax.sgd(0.1)),
        "first batch": (model(1.0), [windows(twin[1], 2, (1,))] * 2, ONLINE, optax.sgd(0.1)),
        "objective": (model(1.0), batches, online(LOSS, every=2), optax.sgd(0.1)),
        "optimiser": (model(1.0), batches, ONLINE, optax.sgd(0.2)),
    }
    for what, changed in others.items():
        with pytest.raises(FingerprintMismatch, match=f"\n  {what}: .* -> .*\nRestore"):
            fit(*changed, key=jr.key(0), **options)


def test_backward_of_a_thousand_steps_fits_in_100_megabytes():
    m = model(1.0, hg.Torus(64, 1e6))
    batch = {"q": np.zeros((1, 101, 2, 64, 64), np.float32)}
    objective = online(LOSS, every=10, chunk=5)
    total = lambda part, m, batch: objective(eqx.tree_at(CLOSURE, m, part), batch, jr.key(0))
    step = eqx.filter_jit(eqx.filter_value_and_grad(total)).lower(m.closure, m, batch).compile()
    size = step.compiled.memory_analysis().temp_size_in_bytes / 1e6
    assert size < 100, f"{size:.1f} MB"
