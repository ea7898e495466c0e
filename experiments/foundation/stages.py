"""Pre-training, and what becomes of it downstream: networks and their errors, each made once."""

import functools
import json
import time

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax

import hybridgcm as hg
from experiments.foundation import baselines
from experiments.foundation.problems import DRAWN, MIXED, NAMES, mixed, problem, stacked
from hybridgcm import batches, checkpoint, nn, pairs, train
from hybridgcm.files import atomic

RATES = {"pretrain": 6e-3, "fine": 1e-3, "scratch": 6e-3, "equation": 1e-3}
"""Of Adam at the start of a cosine to zero."""
ERROR = hg.metrics.lp("u")
"""Relative L2 error of every sample: the loss as well."""
PREDICT = eqx.filter_jit(lambda model, x: jax.lax.map(model, x, batch_size=32))


def everything(run) -> dict:
    """{"before": {...}, "after": {...}, "simple": {...}}: errors by problem, network, start and number of pairs."""
    config = run.config
    found = {"before": {}, "after": {}, "simple": {}}
    main, first = len(config.channels) - 1, config.systems[0]
    sizes = {system: [main] for system in config.systems} | {first: range(main, -1, -1)}

    def before(systems, size, seed):
        label = f"{'+'.join(systems)}-{_weights(config, systems, size)}"
        inputs = _settings(config, "pretrain") | {"systems": list(systems), "size": _size(config, size), "seed": seed}
        folder = run.stage(f"before-{label}-{seed}", inputs, functools.partial(_pretrain, config, systems, size, seed))
        found["before"].setdefault(label, []).append(_read(folder) | {"folder": folder.name})
        return folder

    def after(folder, systems, size, system, shift, count, start, seed):
        label = f"{system} {shift} {'+'.join(systems)}-{_weights(config, systems, size)} {start} {count}"
        inputs = _settings(config, start) | {"before": folder, "size": _size(config, size), "systems": list(systems)}
        inputs |= {"system": system, "shift": shift, "count": count, "start": start, "seed": seed}
        build = functools.partial(_downstream, config, folder, systems, size, system, shift, count, start, seed)
        made_in = run.stage(f"after-{label.replace(' ', '-')}-{seed}", inputs, build)
        found["after"].setdefault(label, []).append(_read(made_in))

    middle = config.examples[len(config.examples) // 2]
    for seed in range(config.seeds):
        known = {(system, size): before((system,), size, seed) for system in config.systems for size in sizes[system]}
        for system, size, shift, count, start in plan(config, middle):
            after(known[system, size], (system,), size, system, shift, count, start, seed)
    if len(config.systems) > 1:
        for seed in range(config.seeds):
            folder = before(config.systems, main, seed)
            for system in config.systems:
                after(folder, config.systems, main, system, "medium", middle, "fine", seed)
    for system in config.systems:
        inputs = _settings(config) | {"system": system, "examples": list(config.examples)}
        folder = run.stage(f"simple-{system}", inputs, functools.partial(_simple, config, system))
        found["simple"][system] = _read(folder)
    return found


def plan(config, middle: int):
    """(system, size, shift, number of pairs, start) of what networks of one operator are trained for downstream."""
    main = len(config.channels) - 1
    for number, system in enumerate(config.systems):
        counts = config.examples[1:-1] if number else config.examples
        for count in counts:
            yield from ((system, main, "medium", count, start) for start in ("fine", "scratch"))
    first = config.systems[0]
    for count in config.examples[: len(config.examples) // 2 + 1]:
        yield first, main, "medium", count, "equation"
    for shift in DRAWN[first][1]:
        if shift not in ("before", "medium"):
            yield from ((first, main, shift, middle, start) for start in ("fine", "scratch"))
    for size in range(main):
        yield from ((first, size, "medium", middle, start) for start in ("fine", "scratch"))


def network(config, names, size, pair, key):
    """A `ClassicFNO` in the units of a pair of fields: medians of coefficients, deviations of f and u; zero means."""
    x = stacked(pair, names)
    inputs = x.shape[1]
    spread = np.array([np.median(np.abs(x[:, i])[x[:, i] != 0]) if (x[:, i] != 0).any() else 1 for i in range(inputs)])
    spread[0] = x[:, 0].std()
    fno = _classic(config, inputs, size, key)
    return nn.Normalised(nn.Homogeneous(fno), (np.zeros(inputs), 0.0), (spread, pair["u"].std()))


def evaluate(model, names, fields) -> float:
    """Mean relative L2 error."""
    made = PREDICT(model, jnp.asarray(stacked(fields, names)))
    return float(jnp.mean(ERROR({"u": made}, {"u": jnp.asarray(fields["u"])})))


def equation(model, batch, key):
    """Objective without solutions: relative error of the equation, each mode divided by what Poisson's operator is.

    −∇·(k ∇u) + v·∇u − ω u − f for u of the network. Divided by −.01 ∇² so that all scales count as they do for u: plain
    residuals weigh the smallest scales alone.
    """
    del key
    names = [name for name in MIXED if name in batch]
    made = jax.vmap(model)(jnp.concatenate([batch[name] for name in names], 1))
    constant = [
        batch.get(name, jnp.zeros((len(made), count, 1, 1)))[..., 0, 0] for name, count in zip("kvw", (3, 2, 1))
    ]
    k, v, w = constant[0], constant[1], constant[2][:, 0]
    residual = pairs.elliptic_residual(made[:, 0], batch["f"][:, 0], k, v, w)
    smooth = jax.vmap(lambda a: pairs.solve_elliptic(a, jnp.array([0.01, 0.01, 0.0]), jnp.zeros(2), jnp.zeros(())))
    size = lambda a: jnp.sqrt(jnp.mean(smooth(a) ** 2, (-2, -1)) + 1e-20)
    return jnp.mean(size(residual) / size(batch["f"][:, 0]))


def _pretrain(config, systems, size, seed, folder):
    names = NAMES[systems[0]] if len(systems) == 1 else MIXED
    parts = {system: problem(system, "before", "train", config.n, config.train) for system in systems}
    pair = parts[systems[0]] if len(systems) == 1 else mixed(list(parts.values()))
    steps = config.pretrain_steps * (1 if len(systems) == 1 else 2)
    model = network(config, names, size, pair, jr.key(seed))
    objective, optimiser = _training(names, steps, RATES["pretrain"])
    begin = time.perf_counter()
    model, log = hg.fit(
        model, batches.samples({name: pair[name] for name in (*names, "u")}, config.batch, steps, jr.key(100 + seed)),
        objective, optimiser, where=lambda m: m.net, key=jr.key(seed),
        checkpoints=checkpoint.Checkpoints(folder / "checkpoints"), every=500, progress=f"{'+'.join(systems)}, {seed}",
    )  # fmt: skip
    seconds = time.perf_counter() - begin
    checkpoint.save(folder / "operator.ckpt", model)
    errors = {
        system: {shift: evaluate(model, names, _part(config, system, shift, "test")) for shift in DRAWN[system][1]}
        for system in systems
    }
    weights = _weights(config, systems, size)
    loss = np.array([record["loss"] for record in log])
    thin = loss[: len(loss) // 20 * 20].reshape(-1, 20).mean(1) if len(loss) >= 20 else loss
    _write(folder, {"errors": errors, "weights": weights, "seconds": seconds, "loss": thin.tolist()})


def _downstream(config, before, systems, size, system, shift, count, start, seed, folder):
    names = NAMES[system] if len(systems) == 1 else MIXED
    pair = {name: a[:count] for name, a in _part(config, system, shift, "train", count, seed).items()}
    valid, test = (_part(config, system, shift, part) for part in ("validation", "test"))
    if start == "scratch":
        model = network(config, names, size, pair, jr.key(1000 + seed))
    else:
        like = network(config, names, size, pair, jr.key(0))
        model = checkpoint.load(before / "operator.ckpt", like)
    steps = config.scratch_steps if start == "scratch" else config.fine_steps
    objective, optimiser = _training(names, steps, RATES[start], start == "equation")
    drawn = names if start == "equation" else (*names, "u")
    best = train.EarlyStopping(
        model, lambda m: m.net, lambda model: evaluate(model, names, valid), every=max(1, steps // 30), patience=steps
    )
    first = evaluate(model, names, valid)
    order = batches.samples({n: pair[n] for n in drawn}, min(config.batch, count), steps, jr.key(200 + seed))
    trained, _ = hg.fit(
        model, order, objective, optimiser, where=lambda m: m.net, key=jr.key(seed), callback=best,
    )  # fmt: skip
    chosen = best.best if best.memory["score"] < first else model
    scores = {"error": evaluate(chosen, names, test), "last": evaluate(trained, names, test)}
    _write(folder, scores | {"step": best.memory["step"] + 1, "steps": steps})


def _simple(config, system, folder):
    test, out = _part(config, system, "medium", "test"), {}
    for name, method in baselines.METHODS.items():
        for count in config.examples:
            errors = []
            for seed in range(config.seeds):
                pair = {name: a[:count] for name, a in _part(config, system, "medium", "train", count, seed).items()}
                made = jnp.asarray(method(pair)(test), jnp.float32)
                errors.append(float(jnp.mean(ERROR({"u": made}, {"u": jnp.asarray(test["u"])}))))
            out.setdefault(name, {})[str(count)] = errors
    _write(folder, out)


def _part(config, system, shift, part, count=None, seed=0):
    samples = {"train": count, "validation": config.validation, "test": config.tests}[part]
    return problem(system, shift, part, config.n, samples, 1 + seed if part == "train" else 0)


@functools.cache
def _training(names, steps: int, rate: float, alone: bool = False):
    """(objective, optimiser), the same for all seeds and numbers of pairs: they share one compilation."""
    objective = equation if alone else train.supervised(ERROR, names, ("u",))
    return objective, optax.adam(optax.cosine_decay_schedule(rate, steps))


def _classic(config, inputs, size, key):
    sizes = {"modes": config.modes[size], "hidden": config.channels[size], "layers": config.layers}
    return nn.ClassicFNO(inputs, 1, **sizes, key=key)


def _settings(config, start=None) -> dict:
    keys = {"pretrain": ("train", "pretrain_steps"), "scratch": ("scratch_steps",), None: ("seeds",)}
    names = ("n", "tests", "validation", "layers", "batch", *keys.get(start, ("fine_steps",)))
    return {name: getattr(config, name) for name in names}


def _size(config, size) -> list[int]:
    return [config.channels[size], config.modes[size]]


def _weights(config, systems, size) -> int:
    names = NAMES[systems[0]] if len(systems) == 1 else MIXED
    inputs = sum({"f": 1, "k": 3, "v": 2, "w": 1}[name] for name in names)
    shapes = eqx.filter_eval_shape(lambda key: _classic(config, inputs, size, key), jr.key(0))
    return sum(a.size for a in jax.tree.leaves(shapes) if hasattr(a, "size"))


def _read(folder):
    return json.loads((folder / "scores.json").read_text())


def _write(folder, content):
    with atomic(folder / "scores.json") as temporary:
        temporary.write_text(json.dumps(content))
