"""Ensemble Kalman inversion: exact where Bayes' rule is known, robust to members that fail, as good as gradients."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest
from helpers import eddies, same_bits

import hybridgcm as hg
from hybridgcm.metrics import mse

GRID = hg.Torus(32, 1e6)
FLOW = hg.QuasiGeostrophic.two_layer(GRID, tau=6 * 3600.0)
CLOSURE = lambda m: m.closure
CONSTANT = lambda m: m.closure.constant


def model(closure):
    return hg.Model(FLOW, hg.AB3(), closure, dt=3600.0)


@pytest.mark.parametrize(
    ("kind", "constant"), [pytest.param(hg.Leith, 2.0, marks=pytest.mark.slow), (hg.Smagorinsky, 1.0)]
)
def test_online_offline_and_inversion_recover_a_known_constant(kind, constant):
    """Truth is a run with the constant; each training starts from half of it and must come within 3 %."""
    twin, first = model(kind(constant)), model(kind(constant / 2))
    start = jnp.asarray(eddies(GRID, 2, (2e-6, 1e-6)), GRID.eigenvalues.dtype)
    _, out = eqx.filter_jit(hg.rollout)(twin, twin.encode({"q": start}), 40)
    q = jnp.concatenate([start[None], out["save"]["q"]])
    rate = optax.adam(optax.cosine_decay_schedule(0.1 * constant, 50))
    fit = lambda batches, objective: hg.fit(first, batches, objective, rate, where=CLOSURE, key=jr.key(0))[0]
    found = {"online": fit(hg.windows({"q": q}, 4, 2, 50, jr.key(1)), hg.online(mse("q")))}

    def forcing(q):
        fields = FLOW.view(twin.encode({"q": q}).y)
        return GRID.to_grid(FLOW.lift(twin.closure(fields, GRID, None, jr.key(0))[0])["q"])

    data = {"q": q, "S": jax.jit(jax.vmap(forcing))(q)}
    found["offline"] = fit(hg.batches.samples(data, 4, 50, jr.key(2)), hg.offline(mse("S")))

    def enstrophy(m):
        mean = lambda m, s: 1e12 * jnp.mean(m.view(s)["q"] ** 2, (-1, -2))
        return hg.rollout(m, m.encode({"q": start}), 40, every=20, save=None, mean=mean)[1]["mean"].ravel()

    target = enstrophy(twin)
    noise = jnp.diag((0.01 * target) ** 2)
    found["inversion"], log = hg.eki(first, enstrophy, target, noise, where=CLOSURE, key=jr.key(3))
    errors = {name: float(CONSTANT(m)) / constant - 1 for name, m in found.items()}
    assert all(abs(error) < 0.03 for error in errors.values()), errors
    assert log[-1]["time"] == 1 and log[-1]["misfit"] < 2 and log[0]["misfit"] > 20, (log[0], log[-1])
    assert abs(errors["inversion"]) * constant < 2 * log[-1]["std"]["closure.constant"], log[-1]


SLOPES = jnp.array([3.0, -1.0])
LINEAR = lambda m: m.closure.constant * SLOPES
NOISE = np.array([[0.04, 0.01], [0.01, 0.09]])
TARGET = np.array([4.5, -1.0])


def test_linear_statistics_give_the_posterior_of_bayes_rule():
    first = model(hg.Leith(1.0))
    fitted, log = hg.eki(first, LINEAR, TARGET, NOISE, where=CLOSURE, key=jr.key(0))
    prior = log[0]["std"]["closure.constant"]
    assert log[0]["mean"]["closure.constant"] == pytest.approx(1, abs=1e-12) and 0.3 < prior < 0.7, log[0]
    precision = np.linalg.inv(NOISE)
    information = 1 / prior**2 + SLOPES @ precision @ SLOPES
    mean = (1 / prior**2 + SLOPES @ precision @ TARGET) / information
    assert len(log) > 2 and log[-1]["time"] == 1, "more than one step, one in all"
    assert log[-1]["mean"]["closure.constant"] == pytest.approx(float(mean), rel=1e-5)  # members run in float32
    assert log[-1]["std"]["closure.constant"] == pytest.approx(float(information**-0.5), rel=1e-5)
    assert float(CONSTANT(fitted)) == pytest.approx(float(mean), rel=1e-5)
    assert same_bits(eqx.tree_at(CLOSURE, fitted, None), eqx.tree_at(CLOSURE, first, None)), "a physics leaf moved"


def test_members_that_fail_are_replaced_and_counted():
    fragile = lambda m: jnp.where(CONSTANT(m) < 1.4, LINEAR(m), jnp.inf)
    target = 1.2 * SLOPES
    seen = []
    keep = lambda step, m, record: seen.append((step, float(CONSTANT(m))))
    fitted, log = hg.eki(
        model(hg.Leith(1.0)), fragile, target, 1e-4 * np.eye(2), where=CLOSURE, members=20, key=jr.key(0), callback=keep
    )
    failed = [record["failed"] for record in log]
    assert 0 < failed[0] < 10 and failed[-1] == 0, failed
    assert float(CONSTANT(fitted)) == pytest.approx(1.2, rel=5e-3)
    assert [step for step, _ in seen] == list(range(len(log))) and seen[-1][1] == float(CONSTANT(fitted))


def test_too_few_survivors_stop_the_inversion():
    broken = lambda m: LINEAR(m) / jnp.where(CONSTANT(m) < 0.8, 1.0, 0.0)
    with pytest.raises(RuntimeError, match="of 16 members gave statistics that are not finite, iteration 0"):
        hg.eki(model(hg.Leith(1.0)), broken, TARGET, NOISE, where=CLOSURE, key=jr.key(0))


def test_several_leaves_keep_their_scales_and_a_repeat_its_bits():
    closure = hg.Sum(hg.Leith(0.5), hg.ZannaBolton())
    where = lambda m: (m.closure.parts[0].constant, m.closure.parts[1].kappa)
    both = lambda m: jnp.stack([m.closure.parts[0].constant, m.closure.parts[1].kappa / 1e7])
    target = np.array([0.7, -3.0])
    run = lambda: hg.eki(model(closure), both, target, 1e-4 * np.eye(2), where=where, key=jr.key(1))
    fitted, log = run()
    assert np.allclose(both(fitted), target, rtol=0.01), both(fitted)
    assert fitted.closure.parts[1].kappa.dtype == jnp.float32
    assert set(log[-1]["mean"]) == {"closure.parts.0.constant", "closure.parts.1.kappa"}
    again, same = run()
    assert same_bits(fitted, again) and repr(log) == repr(same)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": np.ones(3), "noise": np.eye(3)}, r"statistics\(model\) has 2 numbers, target 3"),
        ({"noise": np.ones(2)}, r"noise has shape \(2,\), expected \(2, 2\)"),
        ({"noise": np.zeros((2, 2))}, "scale the statistics to the order of one"),
        ({"noise": np.array([[1.0, 0.5], [0.0, 1.0]])}, "symmetric, positive definite"),
        ({"target": np.array([np.nan, 1.0])}, "target must be finite"),
        ({"constant": 0.0}, "closure.constant is zero, so its members would not differ"),
        ({"members": 1}, "at least 2 members; got 1"),
        ({"where": lambda m: m.dt}, "holds no floating-point JAX array"),
    ],
)
def test_what_cannot_be_inverted_is_named(options, message):
    given = {"target": TARGET, "noise": NOISE, "where": CLOSURE} | options
    first = model(hg.Leith(given.pop("constant", 1.0)))
    with pytest.raises(ValueError, match=message):
        hg.eki(first, LINEAR, given.pop("target"), given.pop("noise"), key=jr.key(0), **given)
