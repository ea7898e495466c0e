"""The one training loop."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import Array

from hybridgcm.data import check_finite
from hybridgcm.fingerprint import acts, describe, digest
from hybridgcm.grids import AbstractGrid
from hybridgcm.preemption import Preempted, asked


class TrainingFailed(RuntimeError):
    """Training stopped because steps kept being non-finite.

    `model`: the last good model; `step`: the last batch that gave a finite step (-1 if none); `log`: all records.
    """

    def __init__(self, model: eqx.Module, step: int, log: list[dict], patience: int):
        self.model, self.step, self.log = model, step, log
        super().__init__(
            f"more than {patience} batches in a row gave a loss or a gradient that is not finite; the last good step "
            f"is {step}, its model error.model. Try a smaller learning rate, shorter windows or a weaker closure; "
            "losses relative to a target that is zero all over a sample are not finite."
        )


def fit(
    model: eqx.Module,
    batches,
    objective: Callable[[Any, Any, Array], Array],
    optimiser,
    *,
    where: Callable[[Any], Any],
    key: Array,
    patience: int = 20,
    callback: Callable[[int, Any, dict], None] | None = None,
    checkpoints=None,
    every: int = 100,
    progress: str | None = None,
) -> tuple[Any, list[dict]]:
    """Minimise objective(model, batch, key) over the leaves that `where(model)` selects, one step per batch.

    `model`: a model, an emulator, or any network that the objective takes (`supervised`).
    Returns the trained model and one record {"step", "loss", "gradient_norm", "skipped"} of Python numbers per
    batch, ready for JSON lines. Step i uses batches[i] and fold_in(key, i) and nothing else, so a repeated run
    and a resumed one are exact. `where` reads like `equinox.tree_at`: `lambda m: m.closure.net`, or a tuple of
    parts. Everything else is passed to the compiled step as it is and returned bitwise, whatever the optimiser
    does (decay would move an array that is only frozen by stop_gradient).

    A step whose loss or gradient is not finite anywhere, judged before the optimiser and so before any clipping,
    changes neither weights nor optimiser state and counts as skipped; over `patience` in a row raise `TrainingFailed`.

    - `batches`: dicts of arrays by position, cut lazily if they like. Each new shape (a longer horizon) compiles again.
    - `optimiser`: any `optax.GradientTransformation`; learning-rate schedules are optax's.
    - `callback(step, model, record)` runs on the host after every step, also after those that a resumed run repeats.
      If it returns True training ends there. What it keeps under `callback.memory`, a tree of arrays and numbers, is
      saved with the checkpoints and given back on resume. See `train.callbacks`.
    - `checkpoints`: a `Checkpoints`; weights, optimiser state and log are saved every `every` steps and at the end.
      The newest is continued from: after a kill the result is that of an uninterrupted run, bit for bit. One of another
      model, objective, optimiser or first batch raises `FingerprintMismatch`, or warns if it is to `allow` that. Inside
      `preemption.preemptible()`, SIGTERM saves after the step that it is at and ends the process with code 75.
    - `progress` labels a bar with the loss.

    Raises `ValueError` if `where` selects nothing that can be trained, for complex weights, and for a batch with
    a value that is not finite, before its step; `TypeError` if `batches` cannot be indexed.
    """
    _check_batches(batches)
    trainable, frozen = eqx.partition(model, selection(model, where))
    about = None if checkpoints is None else _identity(trainable, frozen, batches[0], objective, optimiser)
    saved = _Saved(checkpoints and checkpoints.beside(about), every, callback, key, len(batches))
    (trainable, state), log, ended = saved.resume((trainable, optimiser.init(trainable)))
    with _bar(progress, len(batches), len(log)) as bar:
        for index in range(len(log), len(log) if ended else len(batches)):
            _check_batch(batch := batches[index], index)
            own = jr.fold_in(key, index)
            trainable, state, numbers = _step(trainable, state, frozen, batch, own, objective, optimiser)
            loss, norm, finite = (number.item() for number in numbers)
            log.append({"step": index, "loss": loss, "gradient_norm": norm, "skipped": not finite})
            ended = callback is not None and callback(index, eqx.combine(trainable, frozen), log[-1]) is True
            _check_progress(log, patience, eqx.combine(trainable, frozen))
            saved.save((trainable, state), log, ended)
            bar.update(1)
            bar.set_postfix_str(f"loss {loss:.3g}", refresh=False)
            if ended:
                break
    return eqx.combine(trainable, frozen), log


def gradient(objective, trainable, frozen, batch, key):
    """(mean of the objective, its gradient with respect to `trainable`), as `fit` takes them."""
    total = lambda trainable: jnp.mean(objective(eqx.combine(trainable, frozen), batch, key))
    return eqx.filter_value_and_grad(total)(trainable)


@eqx.filter_jit
def _step(trainable, state, frozen, batch, key, objective, optimiser):
    import optax

    loss, slope = gradient(objective, trainable, frozen, batch, key)
    leaves = jax.tree.leaves(slope)
    finite = jnp.isfinite(loss) & jnp.stack([jnp.isfinite(leaf).all() for leaf in leaves]).all()
    updates, new_state = optimiser.update(slope, state, trainable)
    new = optax.apply_updates(trainable, updates)
    keep = lambda new, old: jax.tree.map(lambda a, b: jnp.where(finite, a, b), new, old)
    return keep(new, trainable), keep(new_state, state), (loss, optax.tree.norm(slope), finite)


def selection(model, where):
    """A tree of booleans: True at the real floating-point leaves that `where` selects.

    Never at those of grids, and of fields that their classes declare as `fixed`: scales, places, tables.
    """
    part = where(model)
    if not any(map(eqx.is_inexact_array, jax.tree.leaves(part))):
        raise ValueError(
            f"where selects {part!r:.80}, which holds no floating-point JAX array to train; "
            "where=lambda m: m.closure trains a closure, lambda m: m.closure.net the network in it"
        )
    nothing = jax.tree.map(lambda _: False, model)
    picked = eqx.tree_at(where, nothing, replace=jax.tree.map(eqx.is_inexact_array, part))
    found = jax.tree_util.tree_map_with_path(lambda path, pick: pick and not _is_fixed(model, path), picked)
    if not any(jax.tree.leaves(found)):
        raise ValueError(
            f"where selects {part!r:.80}, of which nothing is a parameter: grids, scales from data, places and tables "
            "stay as they are; select numbers such as m.equation.beta, or a network"
        )
    if any(map(jnp.iscomplexobj, jax.tree.leaves(eqx.filter(model, found)))):
        raise ValueError(
            "where selects complex weights; jax.grad gives the conjugate of their ascent direction and optimisers do "
            "not correct it: store them as pairs of real arrays"
        )
    return found


def _is_fixed(node, path) -> bool:
    """Whether the way to a leaf leads through a grid or a field that is declared as `_typing.fixed`."""
    for key in path:
        if isinstance(node, AbstractGrid):
            return True
        if isinstance(key, jax.tree_util.GetAttrKey):
            field = getattr(type(node), "__dataclass_fields__", {}).get(key.name)
            if field is not None and field.metadata.get("fixed"):
                return True
            node = getattr(node, key.name)
        elif isinstance(key, jax.tree_util.SequenceKey | jax.tree_util.DictKey):
            node = node[key.idx if isinstance(key, jax.tree_util.SequenceKey) else key.key]
        else:  # inside a container that JAX alone can read
            return False
    return False


def _identity(trainable, frozen, batch, objective, optimiser) -> dict:
    """What a training depends on besides its state, key and number of batches, of which the first speaks for all."""
    parts = {"weights at the start": trainable, "rest of the model": frozen, "first batch": batch}
    here = lambda leaf: not _is_shared(leaf)  # no process has all of an array that is on several
    found = {name: digest(eqx.filter(part, here))[:16] for name, part in parts.items()}
    return found | {"objective": describe(objective, acts), "optimiser": describe(optimiser, acts)}


def _check_progress(log: list[dict], patience: int, model: eqx.Module):
    if len(log) > patience and all(record["skipped"] for record in log[-patience - 1 :]):
        good = max((record["step"] for record in log if not record["skipped"]), default=-1)
        raise TrainingFailed(model, good, log, patience)


def _check_batches(batches):
    if not (hasattr(batches, "__len__") and hasattr(batches, "__getitem__")) or isinstance(batches, dict):
        raise TypeError(
            "batches needs len() and an index, so that a resumed run sees the same order; "
            f"got {type(batches).__name__}: pass a list of batches"
        )
    if len(batches) == 0:
        raise ValueError("batches is empty: there is nothing to train on")


def _check_batch(batch, index: int):
    for path, leaf in jax.tree_util.tree_leaves_with_path(batch):
        if eqx.is_inexact_array_like(leaf):
            for part in [leaf] if not _is_shared(leaf) else [shard.data for shard in leaf.addressable_shards]:
                check_finite(f"batch {index}: {jax.tree_util.keystr(path, simple=True, separator='.')}", part)


def _is_shared(leaf) -> bool:
    """Whether an array lies on devices of several processes."""
    return isinstance(leaf, jax.Array) and not leaf.is_fully_addressable


class _Saved:
    """The checkpoints of one training, if there are any, with the memory of its callback."""

    def __init__(self, checkpoints, every: int, callback, key: Array, batches: int):
        self.checkpoints, self.every, self.callback, self.batches = checkpoints, every, callback, batches
        self.identity = {"key": np.asarray(jr.key_data(key)).tolist(), "batches": batches}

    def resume(self, like) -> tuple[Any, list[dict], bool]:
        """Tree, log and whether training has ended, of the newest checkpoint, or `like` and an empty log."""
        found = None if self.checkpoints is None else self.checkpoints.latest((like, self._memory()))
        if found is None:
            return like, [], False
        _, (tree, memory), meta = found
        for name, value in self.identity.items():
            if meta[name] != value:
                raise ValueError(
                    f"this checkpoint was written with {name} = {meta[name]}, the run asks for {value}; "
                    "continue with the same, or start in an empty folder"
                )
        if memory is not None:
            self.callback.memory = memory
        return tree, list(meta["log"]), meta["ended"]

    def save(self, tree, log: list[dict], ended: bool):
        """Save the tree if it is time, or if this process is to stop; then it does."""
        if self.checkpoints is None:
            return
        last, stop = ended or len(log) == self.batches, asked()
        shared = any(map(_is_shared, jax.tree.leaves(tree)))
        if shared:  # all processes are at this step: they stop together, and one writes what all of them have
            stop = bool(multihost_utils.process_allgather(np.array(stop)).any())
        if last or len(log) % self.every == 0 or stop:
            if not shared or jax.process_index() == 0:
                meta = {"log": log, "ended": ended, **self.identity}
                self.checkpoints.save(len(log), (tree, self._memory()), meta)
            if shared:
                multihost_utils.sync_global_devices(f"saved {len(log)}")
            if stop and not last:
                raise Preempted(f"at batch {len(log)}, in {self.checkpoints.folder}")

    def _memory(self):
        return getattr(self.callback, "memory", None)


def _bar(label: str | None, total: int, done: int):
    from tqdm.auto import tqdm

    return tqdm(total=total, initial=done, desc=label, unit="batch", mininterval=1.0, disable=label is None)
