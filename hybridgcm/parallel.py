"""Many devices: members of an ensemble each on its own, and training with samples and queries split over them."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jax.flatten_util import ravel_pytree
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array

AXES = ("branch", "trunk")
"""Names of the axes of `mesh`, as a DeepONet has them: input functions (samples) and queries."""
FLAG = "--xla_force_host_platform_device_count"


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


def mesh(branch: int | None = None, trunk: int = 1, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A mesh for `sharded`: `branch` devices for samples (input functions) by `trunk` for queries.

    Over all devices of all processes unless given, `branch` being what is left by `trunk`. Raises `ValueError` if the
    product is not the number of devices, or, with several processes, leaves one of them without.
    """
    devices = jax.devices() if devices is None else list(devices)
    branch = len(devices) // trunk if branch is None else branch
    if branch * trunk != len(devices):
        raise ValueError(
            f"a mesh of {branch} x {trunk} needs {branch * trunk} devices, there are {len(devices)}; pass "
            f"devices=jax.devices()[:n] to use fewer, and set XLA_FLAGS={FLAG}=n for more on a CPU"
        )
    if idle := set(range(jax.process_count())) - {device.process_index for device in devices}:
        raise ValueError(f"every process needs a device in the mesh; processes {sorted(idle)} have none")
    return Mesh(np.array(devices).reshape(branch, trunk), AXES, axis_types=(AxisType.Auto,) * 2)


def sharded(
    objective: Callable[[Any, dict, Array], Array],
    mesh: Mesh,
    axes: Mapping[str, Sequence[str | None]] | None = None,
    weights: Mapping[str, str] | None = None,
) -> Callable[[Any, dict, Array], Array]:
    """`objective` over all devices: the same loss and, by `fit` as it is, the same gradient, L = Σ w l / Σ w.

    Every device has the whole model and evaluates `objective` on its part of the batch; numerator and denominator of
    the loss are summed over devices, and the gradient's sum is what JAX makes of that. Nothing is gathered.

    `axes`: for each name of the batch that is split, the mesh axis that its dimensions lie on, None for one that stays
    whole, as {"u0": ("branch",), "t": ("trunk",), "u": ("branch", "trunk")}; other names are on every device. Without
    `axes` all names are split along their first dimension over "branch": data parallelism, for every objective.
    `objective` gives a number, the mean over its samples, or losses of which dimension 0 are samples and 1 queries.
    With more than one device on "trunk" it must: a mean over queries cannot be told from a quotient of sums.

    Lengths need not be multiples of the devices: what is missing is filled up by copies of weight zero, out of names
    that are then whole on every device. That needs losses apart, `[batch]`, as `accumulated` makes them of any
    objective. `weights`: {mesh axis: name of the batch}, a number w >= 0 for each sample or query, as for processes
    with fewer samples than others; `objective` does not see them.

    Samples on different devices draw with different keys, queries of the same samples with the same. Gradients
    must be taken outside, as `fit` does; inside `shard_map` the obvious orders are wrong by the number of devices.
    Raises `ValueError` for names that are missing, lengths that differ and losses that do not fit.
    """

    def total(model, batch, key):
        weighed = dict(weights or {})
        given = {name: (axis,) for axis, name in weighed.items()}
        layout = _layout(batch, mesh, axes) | {name: _layout(batch, mesh, given)[name] for name in given}
        lengths = _lengths(batch, layout)
        uneven = {axis for axis, n in lengths.items() if n % mesh.shape[axis]}
        apart = {axis for axis in mesh.axis_names[1:] if mesh.shape[axis] > 1 and axis in lengths} | uneven | {*weighed}
        arrays, fixed = eqx.partition(model, eqx.is_array)
        arrays, rebuilt = _joined(arrays)

        def share(arrays, batch, key):
            numbers = {axis: _numbers(n, mesh.shape[axis], axis) for axis, n in lengths.items()}
            for name, places in layout.items():
                for dimension, axis in enumerate(places):
                    if axis in uneven:
                        own = jnp.minimum(numbers[axis], lengths[axis] - 1)
                        batch = batch | {name: jnp.take(batch[name], own, dimension)}
            keep = {axis: (numbers[axis] < lengths[axis]) * batch.get(weighed.get(axis), 1.0) for axis in apart}
            key = jr.fold_in(key, jax.lax.axis_index(mesh.axis_names[0]))
            batch = {name: a for name, a in batch.items() if name not in given}
            losses = jnp.asarray(objective(eqx.combine(rebuilt(arrays), fixed), batch, key))
            above, below = _quotient(losses, [keep.get(axis) for axis in mesh.axis_names])
            return jax.lax.psum(above, mesh.axis_names) / jax.lax.psum(below, mesh.axis_names)

        # What is uneven is whole on every device, which takes its part: padding it outside would cost collectives.
        whole = {name: [None if axis in uneven else axis for axis in places] for name, places in layout.items()}
        specs = PartitionSpec(), {name: PartitionSpec(*places) for name, places in whole.items()}, PartitionSpec()
        # check_vma=True would refuse scans whose carry starts from constants, as those of rollouts.
        run = jax.shard_map(share, mesh=mesh, in_specs=specs, out_specs=PartitionSpec(), check_vma=False)
        return run(arrays, {name: jnp.asarray(a) for name, a in batch.items()}, key)

    return total


def accumulated(
    objective: Callable[[Any, dict, Array], Array], parts: int | None = None, names: Sequence[str] | None = None
) -> Callable[[Any, dict, Array], Array]:
    """`objective` part by part of the batch: losses of the parts, their gradients summed in the memory of one part.

    `parts` equal parts, each sample its own without; `names` are those of the batch that have a sample axis first, all
    of it unless given. A part is computed again in the backward pass. Numbers become `[parts]`, losses of samples
    `[batch, ...]` as they were. Inside `sharded` parts are those of a device. Each part has its own key.
    Raises `ValueError` if the samples are no multiple of the parts.
    """

    def total(model, batch, key):
        own = {name: jnp.asarray(batch[name]) for name in (batch if names is None else names)}
        counts = {name: len(a) for name, a in own.items()}
        count = next(iter(counts.values()))
        number = count if parts is None else parts
        if len(set(counts.values())) != 1 or number < 1 or count % number:
            raise ValueError(
                f"{number} equal parts of a batch with samples {counts} cannot be made; name those to split"
            )
        pieces = {name: a.reshape(number, -1, *a.shape[1:]) for name, a in own.items()}
        one = jax.checkpoint(lambda piece, key: jnp.asarray(objective(model, {**batch, **piece}, key)))
        losses = jax.lax.map(lambda both: one(*both), (pieces, jr.split(key, number)))
        return losses if losses.ndim == 1 else losses.reshape(-1, *losses.shape[2:])

    return total


def collected(batches: Sequence, mesh: Mesh, axes: Mapping[str, Sequence[str | None]] | None = None) -> Sequence:
    """Batches as arrays that lie over the mesh, each process giving its own part: for `sharded` with the same `axes`.

    A process's part is that of its own devices: with "branch" across processes its own samples (as many as the others
    have), and all queries. One process gives all. Without it every process must hold, and draw, the whole batch.
    """
    return _Collected(batches, mesh, axes)


def everywhere(tree, mesh: Mesh):
    """The tree (a model) with its arrays on every device of the mesh, from the same values in every process.

    `fit` does as well without; but its first step then has other inputs than the second, and is compiled twice.
    """
    place = NamedSharding(mesh, PartitionSpec())
    put = lambda a: jax.make_array_from_process_local_data(place, np.asarray(a)) if eqx.is_array(a) else a
    return jax.tree.map(put, tree)


class _Collected(Sequence):
    def __init__(self, batches, mesh, axes):
        self.batches, self.mesh, self.axes = batches, mesh, axes

    def __len__(self):
        return len(self.batches)

    def __getitem__(self, index: int):
        batch = self.batches[index]
        place = {name: NamedSharding(self.mesh, PartitionSpec(*axes))
                 for name, axes in _layout(batch, self.mesh, self.axes).items()}  # fmt: skip
        put = jax.make_array_from_process_local_data
        return {name: put(place[name], np.asarray(a)) for name, a in batch.items()}


def _joined(arrays):
    """(arrays, rebuild): floating-point arrays of one precision as one vector, whose gradient is one all-reduce.

    One for each array costs as many waits: between two processes a few ms each, more than the sums themselves.
    """
    floats, others = eqx.partition(arrays, eqx.is_inexact_array)
    if len({a.dtype for a in jax.tree.leaves(floats)}) != 1:
        return arrays, lambda arrays: arrays
    vector, unravel = ravel_pytree(floats)
    return (vector, others), lambda parts: eqx.combine(unravel(parts[0]), parts[1])


def _layout(batch: dict, mesh: Mesh, axes) -> dict[str, tuple]:
    """Mesh axes of every name of the batch."""
    if axes is None:
        return {name: (mesh.axis_names[0],) for name in batch}
    if missing := [name for name in axes if name not in batch]:
        raise ValueError(f"axes names {missing}, which the batch does not hold; it holds {[*batch]}")
    for name, places in axes.items():
        if unknown := [axis for axis in places if axis not in (None, *mesh.axis_names)]:
            raise ValueError(f"axes of {name}: {unknown} are not axes of the mesh; it has {[*mesh.axis_names]}")
        if len(places) > np.ndim(batch[name]):
            raise ValueError(f"{name} has shape {np.shape(batch[name])}, too few dimensions for axes {tuple(places)}")
    return {name: tuple(axes.get(name, ())) for name in batch}


def _lengths(batch: dict, layout: dict) -> dict[str, int]:
    """How many samples and queries there are."""
    found = {}
    for name, places in layout.items():
        for axis, length in zip(places, np.shape(batch[name])):
            found.setdefault(axis, {})[name] = length
    found.pop(None, None)
    for axis, lengths in found.items():
        if len(set(lengths.values())) != 1:
            raise ValueError(f"what lies on one axis of the mesh has one length; on {axis!r} there are {lengths}")
    return {axis: next(iter(lengths.values())) for axis, lengths in found.items()}


def _numbers(length: int, devices: int, axis: str) -> Array:
    """Numbers of this device's samples or queries, beyond the last where they do not come out even."""
    own = -(-length // devices)
    return jax.lax.axis_index(axis) * own + jnp.arange(own)


def _quotient(losses: Array, keep: list) -> tuple[Array, Array]:
    """Numerator and denominator of this device's weighted mean; a dimension without weights counts as ones."""
    below = jnp.asarray(1.0, losses.dtype)
    for number, weight in enumerate(keep):
        if weight is None:
            continue
        if losses.ndim <= number or losses.shape[number] != len(weight):
            what = ("sample", "query")[number]
            raise ValueError(
                f"the objective gives losses of shape {losses.shape} for {len(weight)} on a device, expected one per "
                f"{what} on axis {number}: uneven parts, weights and split queries need them apart. `accumulated` "
                "makes losses of samples, and `train.squares` leaves queries apart"
            )
        weight = weight.astype(losses.dtype)
        losses = losses * weight.reshape(-1, *[1] * (losses.ndim - number - 1))
        below = below * jnp.sum(weight) / len(weight)
    return jnp.mean(losses), below


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
