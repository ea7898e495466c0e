"""Ensembles over devices: the same bits on one device and on two, nothing gathered, right gradients."""

import os
import subprocess
import sys
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import hybridgcm as hg
from hybridgcm.fingerprint import digest
from hybridgcm.parallel import members

ROOT = Path(__file__).parents[1]

TWO = """
import sys
sys.path[:0] = ["tests"]
import re
import equinox as eqx, jax, jax.numpy as jnp, numpy as np
import hybridgcm as hg
from test_parallel import advance, ensemble
from hybridgcm.fingerprint import digest
from hybridgcm.parallel import members, split
devices = jax.devices()
assert len(devices) == 2, devices
model, states = ensemble(4)
one, two = members(advance, devices=devices[:1]), members(advance)
out = two(model, states)
assert {shard.device for shard in out[0].y["q"].addressable_shards} == set(devices)
assert digest(one(model, states)) == digest(out), "two devices give other bits than one"
again = two(model, split(states))
assert digest(again) == digest(out)
text = two.lower(model, split(states)).compile().compiled.as_text()
words = "all-gather|all-reduce|all-to-all|collective-permute|reduce-scatter"
found = re.findall(rf"= \\S+ ({words})", text)
assert not found, found
plain = jax.jit(jax.vmap(lambda a: jnp.fft.irfft2(2 * jnp.fft.rfft2(a))))
gathered = plain.lower(split(jnp.ones((4, 8, 8)))).compile().as_text()
print("plain jit gathers:", len(re.findall(rf"= \\S+ ({words})", gathered)))
def loss(run):
    return lambda nu: jnp.mean(1e10 * run(eqx.tree_at(lambda m: m.closure.amplitude, model, nu), states)[1] ** 2)
nu = model.closure.amplitude
a, b = (jax.grad(loss(run))(nu) for run in (one, two))
np.testing.assert_allclose(a, b, rtol=1e-5)
assert float(a) != 0.0
print("done")
"""


def ensemble(count):
    """A model with noise and the encoded states of `count` members."""
    grid = hg.Torus(16, 1e6)
    closure = hg.Scaled(hg.Smagorinsky(0.1), 1.0)
    model = hg.Model(hg.QuasiGeostrophic.two_layer(grid, tau=1e5), hg.AB3(), closure, dt=3600.0)
    q = 1e-6 * jr.normal(jr.key(0), (count, 2, 16, 16), jnp.float32)
    return model, eqx.filter_vmap(model.encode)({"q": q}, jr.split(jr.key(1), count))


def advance(model, state):
    """(state, mean q) of ten steps."""
    state, out = hg.rollout(model, state, 10, every=5, save=None, mean=lambda m, s: m.decode(s)["q"])
    return state, out["mean"]


def member(tree, number):
    return jax.tree.map(lambda a: a[number], tree)


@pytest.mark.slow
def test_two_devices_give_the_bits_of_one_without_a_collective():
    environment = os.environ | {
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": str(ROOT),
    }
    done = subprocess.run([sys.executable, "-c", TWO], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.stdout.endswith("done\n"), done.stdout + done.stderr[-3000:]


def test_a_member_of_many_is_the_member_alone_to_the_bit():
    model, states = ensemble(3)
    out = members(advance, devices=jax.devices()[:1])(model, states)
    alone = eqx.filter_jit(advance)
    for number in range(3):
        assert digest(member(out, number)) == digest(alone(model, member(states, number))), f"member {number}"


def test_members_taken_together_agree_with_those_one_after_the_other():
    model, states = ensemble(4)
    devices = jax.devices()[:1]
    one = members(advance, devices=devices)(model, states)
    two = members(advance, devices=devices, together=2)(model, states)
    np.testing.assert_allclose(two[1], one[1], rtol=0, atol=1e-5 * float(jnp.abs(one[1]).max()))


@pytest.mark.parametrize(
    ("count", "together", "words"),
    [(3, 2, "together=2 must divide the 3 members of a device"), (3, 0, "together=0 must divide")],
)
def test_shares_that_are_uneven_are_refused(count, together, words):
    model, states = ensemble(count)
    with pytest.raises(ValueError, match=words):
        members(advance, devices=jax.devices()[:1], together=together)(model, states)


def test_states_without_a_common_member_axis_are_refused():
    model, states = ensemble(2)
    states = eqx.tree_at(lambda s: s.step, states, jnp.zeros(3, jnp.int32))
    with pytest.raises(ValueError, match="one leading member axis of equal length"):
        members(advance, devices=jax.devices()[:1])(model, states)
