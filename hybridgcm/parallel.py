"""Members of an ensemble on all devices of a host, each on its own: nothing is sent between them."""

from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec


def members(
    function: Callable[[Any, Any], Any], *, devices: Sequence[jax.Device] | None = None, together: int = 1
) -> Callable[[Any, Any], Any]:
    """`run(model, states)`: `function(model, state)` of every member, `states` and result with a leading member axis.

    Jitted; the members are split evenly over `devices` (all of this host unless given), the model is on each of
    them. A device takes `together` members at a time by `vmap` and those groups one after the other: with the default
    of one, a member's result is, bit for bit, that of the member alone, whatever the number of devices. On a CPU more
    gains nothing; on a GPU take all that fit. To have more than one CPU device, set
    XLA_FLAGS=--xla_force_host_platform_device_count=2 before Python starts.

    Plain `jax.jit` of a batch that is sharded over devices gathers it for every FFT (JAX 0.10.2 and 0.11.2), so that
    every device does all the work; `shard_map` does not. Gradients with respect to the model are taken outside:
    `jax.grad(lambda model: loss(run(model, states)))`.

    Raises `ValueError` if the number of members is no multiple of the devices, `together` none of a device's share.
    """
    devices = jax.local_devices() if devices is None else list(devices)
    mesh = Mesh(np.array(devices), ("member",), axis_types=(AxisType.Auto,))
    one, each = PartitionSpec(), PartitionSpec("member")

    @eqx.filter_jit
    def run(model, states):
        _check(states, len(devices), together)
        model, fixed = eqx.partition(model, eqx.is_array)
        states, common = eqx.partition(states, eqx.is_array)
        rest = []  # what a result holds besides arrays

        def share(model, states):
            def member(state):
                out = function(eqx.combine(model, fixed), eqx.combine(state, common))
                out, other = eqx.partition(out, eqx.is_array)
                rest[:] = [other]
                return out

            return jax.lax.map(member, states, batch_size=None if together == 1 else together)

        # check_vma=True would refuse scans whose carry starts from constants, as that of `rollout`'s mean
        out = jax.shard_map(share, mesh=mesh, in_specs=(one, each), out_specs=each, check_vma=False)(model, states)
        return eqx.combine(out, rest[0])

    return run


def fill(states, multiple: int):
    """The batch of states with its last member repeated until `multiple` divides their number; cut the result."""
    put = lambda a: jnp.concatenate([a, jnp.repeat(a[-1:], -len(a) % multiple, 0)]) if eqx.is_array(a) else a
    return jax.tree.map(put, states)


def split(states, devices: Sequence[jax.Device] | None = None):
    """The batch of states with its member axis laid over the devices, as `members` leaves its results."""
    devices = jax.local_devices() if devices is None else list(devices)
    mesh = Mesh(np.array(devices), ("member",), axis_types=(AxisType.Auto,))
    put = lambda a: jax.device_put(a, NamedSharding(mesh, PartitionSpec("member"))) if eqx.is_array(a) else a
    return jax.tree.map(put, states)


def _check(states, devices: int, together: int):
    counts = {leaf.shape[:1] for leaf in jax.tree.leaves(states) if eqx.is_array(leaf)}
    if len(counts) != 1 or counts == {()}:
        raise ValueError(f"all arrays of the states need one leading member axis of equal length; got {sorted(counts)}")
    ((count,),) = counts
    if count % devices:
        raise ValueError(
            f"{count} members cannot be split evenly over {devices} devices; "
            f"pass devices=jax.local_devices()[:n] with n a divisor of {count}"
        )
    if together < 1 or count // devices % together:
        raise ValueError(f"together={together} must divide the {count // devices} members of a device")
