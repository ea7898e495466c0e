"""Pairs, networks, baselines and their scores, each made once."""

import functools
import json
import time
from pathlib import Path
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax

import hybridgcm as hg
from experiments.operators import baselines
from hybridgcm import batches, checkpoint, nn, pairs, train
from hybridgcm.blueprint import blueprint
from hybridgcm.files import atomic

NAMES = {"darcy": ("a", "u"), "burgers": ("u0", "u"), "burgers1d": ("u0", "u")}
"""Input and output of each problem."""
PREDICT = eqx.filter_jit(lambda model, x: jax.lax.map(model, x, batch_size=25))


class Recipe(NamedTuple):
    """How a network is trained."""

    problem: str
    epochs: str
    """Setting that says how many."""
    batch: int
    rate: float
    """Of AdamW at the start; it falls as a cosine."""
    decay: float
    """The epochs after which it would be zero, over those that are trained."""
    loss: str
    symmetric: bool = False
    """Whether every sample is turned at random."""
    solved: bool = False
    """Whether the network is also given the finite-volume solution on the points of its input."""


RECIPES = {
    "published": Recipe("darcy", "epochs", 64, 1e-2, 2.0, "h1"),
    "symmetric": Recipe("darcy", "symmetric_epochs", 50, 8e-3, 1.0, "h1", True),
    "hybrid": Recipe("darcy", "symmetric_epochs", 50, 8e-3, 1.0, "h1", True, True),
    "burgers": Recipe("burgers", "burgers_epochs", 20, 6e-3, 1.0, "l2"),
    "burgers1d": Recipe("burgers1d", "burgers1d_epochs", 20, 1e-3, 1.0, "l2"),
}
LOSSES = {
    axes: {"l2": hg.metrics.lp("u", axes=axes), "h1": hg.metrics.h1("u", periodic=True, axes=axes)} for axes in (1, 2)
}
"""Of one channel, by axes of points. H1 with periodic differences, as in the published numbers, though Darcy's domain
has boundaries."""


def everything(run) -> dict:
    """{problem: {method: list over seeds of {part: {score: value}, ...}}}."""
    config = run.config
    asked = {RECIPES[name].problem for name in config.recipes}
    data, found = {}, {problem: {} for problem in NAMES if problem in asked}
    for problem in found:
        file = getattr(config, problem, "")
        sizes = ("burgers1d_points", "burgers1d_finest") if problem == "burgers1d" else ("n",)
        made = {key: getattr(config, key) for key in (*sizes, "samples", "tests")}
        inputs = {"problem": problem} | ({"file": Path(file)} if file else made)
        data[problem] = run.stage(f"pairs-{problem}", inputs, functools.partial(_pairs, config, problem))
        inputs = {"problem": problem, "data": data[problem]}
        folder = run.stage(f"baselines-{problem}", inputs, functools.partial(_baselines, problem, data[problem]))
        for name, scores in json.loads((folder / "scores.json").read_text()).items():
            found[problem][name] = [scores | {"folder": folder.name}]
    for name, recipe in ((name, RECIPES[name]) for name in config.recipes):
        for seed in range(config.seeds):
            inputs = {"recipe": recipe._asdict(), "seed": seed, "data": data[recipe.problem]}
            sizes = ("burgers1d_hidden", "burgers1d_modes") if recipe.problem == "burgers1d" else ("hidden", "modes")
            inputs |= {key: getattr(config, key) for key in (recipe.epochs, "layers", *sizes)}
            build = functools.partial(_train, config, recipe, seed, data[recipe.problem])
            folder = run.stage(f"{name}-{seed}", inputs, build)
            for method, scores in json.loads((folder / "scores.json").read_text()).items():
                label = f"FNO, {name}{method}"
                found[recipe.problem].setdefault(label, []).append(scores | {"folder": folder.name})
    return found


def load(folder: Path) -> dict[str, dict[str, np.ndarray]]:
    """Pairs by part."""
    with np.load(folder / "pairs.npz") as file:
        parts = dict.fromkeys(key.split(".")[0] for key in file)
        return {part: {n.split(".")[1]: file[n] for n in file if n.startswith(f"{part}.")} for part in parts}


def operator(folder: Path):
    """A trained network of this experiment with its normaliser, by its file alone."""
    file = folder / "operator.ckpt"
    found = checkpoint.load(file, blueprint(checkpoint.read_header(file)["tree"]))
    if not isinstance(found, nn.Normalised):
        raise ValueError(f"{file} holds a {type(found).__name__}, expected nn.Normalised: fields in its units")
    return found


def symmetrised(model: nn.Normalised) -> nn.Normalised:
    """The same weights, averaged over the symmetries of the square."""
    return eqx.tree_at(lambda m: m.net, model, nn.Symmetrised(model.net))


def evaluate(prediction, truth) -> dict[str, float]:
    """Mean relative L2 and H1 errors of `[sample, 1, *points]`."""
    return {name: float(value) for name, value in _errors(jnp.asarray(prediction), jnp.asarray(truth)).items()}


@jax.jit
def _errors(prediction, truth):
    losses = LOSSES[truth.ndim - 2].items()
    return {name: jnp.mean(loss({"u": prediction}, {"u": truth})) for name, loss in losses}


def network(config, recipe, shape: tuple[int, ...], key):
    """neuraloperator's FNO with one channel out; Burgers' modes are half the times, three quarters of the points.

    The published Darcy network, 8 modes and 24 channels, one in, has 191,881 weights. On the circle the layout of Li
    et al. (2021) without its position channel: no place is special there.
    """
    if recipe.problem == "burgers1d":
        modes, hidden = (config.burgers1d_modes,), config.burgers1d_hidden
        return nn.ClassicFNO(1, 1, modes=modes, hidden=hidden, layers=config.layers, key=key)
    modes = (config.modes,) * 2 if recipe.problem == "darcy" else (shape[0] // 2, 3 * shape[1] // 4)
    inputs = len(sources(recipe)) + 2
    return nn.Bounded(nn.FNO(inputs, 1, modes=modes, hidden=config.hidden, layers=config.layers, key=key))


def sources(recipe) -> tuple[str, ...]:
    """Names of the network's inputs."""
    return NAMES[recipe.problem][:1] + (("solved",) if recipe.solved else ())


def stacked(recipe, fields) -> jax.Array:
    """The network's inputs `[sample, channel, *points]`."""
    return jnp.concatenate([jnp.asarray(fields[name]) for name in sources(recipe)], 1)


def _pairs(config, problem, folder):
    file, half = getattr(config, problem, ""), round(0.8 * config.samples)
    if file:
        parts = {"darcy": pairs.read_darcy, "burgers": pairs.read_burgers}[problem](file)
    elif problem == "burgers":
        made = pairs.burgers(config.n, half + config.tests, jr.key(11))
        parts = {"train": _take(made, slice(half)), "test": _take(made, slice(half, None))}
    elif problem == "burgers1d":
        first, last, samples = config.burgers1d_points, config.burgers1d_finest, config.samples
        made = pairs.burgers(last, samples + config.tests, jr.key(14), times=(1.0,), smoothed=1,
                             viscosity=baselines.BURGERS1D_VISCOSITY)  # fmt: skip
        at = lambda n, which: {name: a[which, :, 0, :: last // n] for name, a in made.items()}
        parts = {"train": at(first, slice(samples))}
        sizes = [first << i for i in range((last // first).bit_length())]
        parts |= {f"test{n}": at(n, slice(samples, None)) for n in sizes}
    else:
        n, both = config.n, pairs.darcy(2 * config.n, config.samples + config.tests, jr.key(10), refine=4)
        coarse = {name: a[..., ::2, ::2] for name, a in both.items()}
        test, fine = slice(config.samples, None), _take(both, slice(config.samples, None))
        parts = {"train": _take(coarse, slice(config.samples)), f"test{n}": _take(coarse, test), f"test{2 * n}": fine}
    flat = {f"{part}.{name}": np.asarray(a, np.float32) for part, fields in parts.items() for name, a in fields.items()}
    np.savez(folder / "pairs.npz", **flat)


def _take(fields, which):
    return {name: a[which] for name, a in fields.items()}


def _baselines(problem, data, folder):
    parts, (source, target) = load(data), NAMES[problem]
    scores, seconds = {}, {}
    for name, method in baselines.METHODS[problem].items():
        begin = time.perf_counter()
        predict = method(parts["train"][source], parts["train"][target])
        tests = {part: fields for part, fields in parts.items() if part != "train"}
        scores[name] = {part: evaluate(predict(f[source]), f[target]) for part, f in tests.items()}
        seconds[name] = round(time.perf_counter() - begin, 2)
    _write(folder / "scores.json", {name: found | {"seconds": seconds[name]} for name, found in scores.items()})


def _train(config, recipe, seed, data, folder):
    parts = load(data)
    if recipe.solved:
        solve = baselines.darcy_solver(None, None)
        parts = {part: fields | {"solved": solve(fields["a"])} for part, fields in parts.items()}
    pair = parts.pop("train")
    tests = {part: (stacked(recipe, fields), fields["u"]) for part, fields in parts.items()}
    net = network(config, recipe, pair["u"].shape[2:], jr.key(seed))
    model = nn.Normalised.from_data(net, stacked(recipe, pair), pair["u"])
    epoch, epochs = len(pair["u"]) / recipe.batch, getattr(config, recipe.epochs)
    steps = round(epochs * epoch)
    objective, optimiser = _training(recipe, steps)
    followed = dict(list(tests.items())[: 1 if recipe.problem == "burgers1d" else None])  # 8192 points are dear
    curve = _Curve(followed, epochs, epoch)
    model, log = hg.fit(
        model, batches.samples(pair, recipe.batch, steps, jr.fold_in(jr.key(12), seed)), objective, optimiser,
        where=lambda m: m.net, key=jr.fold_in(jr.key(13), seed), callback=curve,
        checkpoints=checkpoint.Checkpoints(folder / "checkpoints"), every=max(1, round(10 * epoch)),
        progress=f"{recipe.problem} {seed}",
    )  # fmt: skip
    models = {"": model} | ({", symmetrised": symmetrised(model)} if recipe.problem == "darcy" else {})
    score = lambda one: {part: evaluate(PREDICT(one, x), u) for part, (x, u) in tests.items()}
    weights = sum(a.size for a in jax.tree.leaves(eqx.filter(model.net, eqx.is_inexact_array)))
    about = {"weights": weights, "seconds per epoch": curve.seconds(), "epochs": epochs}
    checkpoint.save(folder / "operator.ckpt", model)
    losses = [record["loss"] for record in log]
    _write(folder / "curve.json", {"loss": losses, "test": curve.memory.tolist(), "parts": list(followed)})
    _write(folder / "scores.json", {name: score(one) | about for name, one in models.items()})


@functools.cache
def _training(recipe, steps: int):
    """(objective, optimiser), the same for all seeds: they share one compilation."""
    losses = LOSSES[1 if recipe.problem == "burgers1d" else 2]
    objective = train.supervised(losses[recipe.loss], sources(recipe), ("u",))
    objective = train.augmented(objective, nn.turned_at_random) if recipe.symmetric else objective
    rate = optax.cosine_decay_schedule(recipe.rate, round(recipe.decay * steps))
    return objective, optax.adamw(rate, weight_decay=1e-4)


class _Curve:
    """Relative L2 on the test pairs after every epoch, and how long an epoch takes without that."""

    def __init__(self, tests: dict, epochs: int, steps: float):
        self.tests, self.steps = tests, steps
        self.memory = np.full((epochs, len(tests)), np.nan)
        self._times, self._begin = [], None

    def __call__(self, step, model, record):
        done = (step + 1) / self.steps
        if int(done) == int(step / self.steps) and step + 1 != round(len(self.memory) * self.steps):
            return
        if self._begin is not None:
            self._times.append(time.perf_counter() - self._begin)
        row = [evaluate(PREDICT(model, x), u)["l2"] for x, u in self.tests.values()]
        memory = self.memory.copy()
        memory[min(round(done), len(memory)) - 1] = row
        self.memory, self._begin = memory, time.perf_counter()

    def seconds(self) -> float:
        """Median over epochs but the first, which compiles; not a number if there was no other."""
        return float(np.median(self._times)) if self._times else float("nan")


def _write(path, content):
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(content))
