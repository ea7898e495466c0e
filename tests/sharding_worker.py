"""Trains small DeepONets over a mesh: started by test_parallel_training.py as `sharding_worker.py FILE CASES`.

CASES is JSON: lists [branch, trunk, kind, even]. FILE gets losses, gradients and weights of each, from process 0.
"""

import json
import os
import re
import signal
import sys
import time

from hybridgcm.processes import join

if __name__ == "__main__":
    join()

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax

import hybridgcm as hg
from hybridgcm import nn, train
from hybridgcm.parallel import accumulated, collected, everywhere, mesh, sharded
from hybridgcm.preemption import Preempted, asked, preemptible
from hybridgcm.train.fit import _step, selection

COLLECTIVES = "all-gather|all-reduce|all-to-all|collective-permute|reduce-scatter"
KINDS = ("data", "physics", "accumulated")
RATE = 0.002
LAYOUTS = {
    "inside": {"u0": ("branch",), "t": ("trunk",), "x": ("trunk",)},
    "start": {"u0": ("branch",), "t0": ("trunk",), "x0": ("trunk",), "start": ("branch", "trunk")},
    "data": {"u0": ("branch",), "t": ("trunk",), "x": ("trunk",), "u": ("branch", "trunk")},
}
EVERYWHERE = LAYOUTS["inside"] | LAYOUTS["start"] | LAYOUTS["data"]


def everything(even):
    """8 functions at 12 points, or 7 at 10; as many initial points less two."""
    rng = np.random.default_rng(0)
    functions, points = (8, 12) if even else (7, 10)
    batch = {"u0": rng.normal(size=(functions, 6)), "u": rng.normal(size=(functions, points))}
    batch |= {name: rng.uniform(size=points) for name in ("t", "x")}
    starts = points if even else points - 3
    return batch | {
        "t0": np.zeros(starts),
        "x0": rng.uniform(size=starts),
        "start": rng.normal(size=(functions, starts)),
    }


def part(batch, functions):
    """What this process has: its own functions, or its own points of all functions."""
    axis = "branch" if functions else "trunk"
    cut = lambda a, place: np.split(a, jax.process_count(), place.index(axis))[jax.process_index()]
    return {name: cut(a, EVERYWHERE[name]) if axis in EVERYWHERE[name] else a for name, a in batch.items()}


def network():
    return nn.point_deeponet(6, 2, rank=3, width=6, depth=1, key=jr.key(1))


def objective(kind, put):
    """`put(objective, axes)` of every term."""
    data = train.queries(train.squares, ("u0",), ("t", "x"), ("u",))
    if kind == "data":
        return put(data, LAYOUTS["data"])
    if kind == "accumulated":
        return put(accumulated(data, names=("u0", "u")), LAYOUTS["data"])
    inside = train.physics(train.burgers(0.1), ("u0",), ("t", "x"))
    start = train.queries(train.squares, ("u0",), ("t0", "x0"), ("start",))
    return train.combined((1.0, put(inside, LAYOUTS["inside"])), (20.0, put(start, LAYOUTS["start"])))


def trained(made, batches, over=None):
    """{"losses", "gradient", "weights"} of ten steps of `fit`; the gradient from the first step of plain descent."""
    first, net = [], network() if over is None else everywhere(network(), over)
    note = lambda step, model, record: first.append(flat(model)) if step == 0 else None
    optimiser = optax.sgd(RATE, momentum=0.9)
    net, log = hg.fit(net, batches, made, optimiser, where=lambda m: m, key=jr.key(2), callback=note)
    losses = np.array([record["loss"] for record in log])
    return {"losses": losses, "gradient": (flat(network()) - first[0]) / RATE, "weights": flat(net)}


def flat(model):
    return np.concatenate([np.ravel(np.asarray(a)) for a in jax.tree.leaves(eqx.filter(model, eqx.is_array))])


def collectives(made, batch):
    """Number of each collective in the compiled step of `fit`."""
    net, optimiser = network(), optax.sgd(RATE)
    weights, frozen = eqx.partition(net, selection(net, lambda m: m))
    state = optimiser.init(weights)
    jax.config.update("jax_disable_most_optimizations", False)
    lowered = _step.lower(weights, state, frozen, batch, jr.key(0), made, optimiser)
    found = re.findall(rf" ({COLLECTIVES})(?:-start)?\(", lowered.compile().compiled.as_text())
    return {name: found.count(name) for name in COLLECTIVES.split("|")}


def solver(over):
    """Training through the solver, an uneven batch of three windows; collectives of its step if over a mesh."""
    truth = {"q": 1e-5 * np.random.default_rng(1).normal(size=(5, 2, 8, 8)).astype(np.float32)}
    grid = hg.Torus(8, 1e6)
    start = hg.Model(hg.QuasiGeostrophic.two_layer(grid), hg.AB3(), hg.Leith(1.0), dt=3600.0)
    batches = hg.windows(truth, length=2, batch=3, steps=2, key=jr.key(0))
    made = accumulated(hg.online(hg.metrics.mse("q")))
    made, start = (made, start) if over is None else (sharded(made, over), everywhere(start, over))
    model, log = hg.fit(start, batches, made, optax.adam(0.1), where=lambda m: m.closure, key=jr.key(2))
    found = {"losses": np.array([r["loss"] for r in log]), "weights": np.asarray(model.closure.constant)}
    return found | {"gradient": np.array([r["gradient_norm"] for r in log])}


def trap(over):
    """Gradients of a mean over devices, over the true one: taken inside `shard_map`, and of `sharded` outside."""
    from jax.sharding import PartitionSpec as P

    data, loss = jnp.arange(8.0), lambda w, batch, key: jnp.mean((w * batch["a"] - 1) ** 2)
    true = jax.grad(loss)(2.0, {"a": data}, None)
    inside = lambda w, a: jax.lax.pmean(jax.grad(loss)(w, {"a": a}, None), "branch")
    inside = jax.jit(jax.shard_map(inside, mesh=over, in_specs=(P(), P("branch")), out_specs=P()))(
        jnp.asarray(2.0), data
    )
    outside = jax.jit(jax.grad(lambda w: sharded(loss, over)(w, {"a": data}, jr.key(0))))(jnp.asarray(2.0))
    return {"inside": float(inside / true), "outside": float(outside / true)}


def resumed(over, folder):
    """Weights after a training whose last process alone is asked to stop, and one that goes on; saves by each."""
    saves, steps = [], []
    made = objective("data", lambda term, axes: sharded(term, over, axes))

    class Counted(hg.Checkpoints):
        def save(self, *arguments):
            saves.append(arguments[0])
            return super().save(*arguments)

    def ask(step, model, record):
        steps.append(step)
        if step == 4 and len(steps) == 5 and jax.process_index() == jax.process_count() - 1:
            os.kill(os.getpid(), signal.SIGTERM)
            while not asked():
                time.sleep(0.01)

    arguments = dict(where=lambda m: m, key=jr.key(2), callback=ask, every=3)
    fitted = lambda: hg.fit(network(), [everything(False)] * 10, made, optax.sgd(RATE, momentum=0.9),
                            checkpoints=Counted(folder), **arguments)[0]  # fmt: skip
    try:
        with preemptible():
            fitted()
        raise AssertionError("it was not stopped")
    except Preempted:
        pass
    return {"weights": flat(fitted()), "saves": saves, "steps": steps}


def main(file, cases):
    assert jax.config.jax_enable_x64
    found, counts, several = {}, {}, jax.process_count() > 1
    for branch, trunk, kind, even in cases:
        each = branch * trunk // jax.process_count()
        own = [[device for device in jax.devices() if device.process_index == process][:each]
               for process in range(jax.process_count())]  # fmt: skip
        over = mesh(branch, trunk, [device for devices in own for device in devices])
        made = objective(kind, lambda term, axes, over=over: sharded(term, over, axes))
        batch, label = everything(even), f"{branch}x{trunk} {kind} {'even' if even else 'uneven'}"
        batches = [batch] * 10
        if even:  # laid over the mesh, each process giving its own part
            batches = collected([part(batch, branch >= jax.process_count())] * 10, over, EVERYWHERE)
        for name, value in trained(made, batches, over).items():
            found[f"{label}/{name}"] = value
        if not several and over.size == 4 and branch == 2:
            counts[label] = collectives(made, batches[0])
    about = {"collectives": counts}
    if several:
        about["resumed"] = resumed(mesh(jax.device_count()), f"{file}.checkpoints")
        about["resumed"]["weights"] = about["resumed"]["weights"].tolist()
    elif jax.device_count() == 4:
        found |= {f"4x1 solver uneven/{name}": value for name, value in solver(mesh(4)).items()}
        about["trap"] = trap(mesh(4))
    print("REPORT", json.dumps(about))
    if jax.process_index() == 0:
        np.savez(file, **found)


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    main(sys.argv[1], json.loads(sys.argv[2]))
