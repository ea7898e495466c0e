"""The antiderivative learned by a DeepONet of published size, beside linear regression and the trapezoidal rule.

    python experiments/antiderivative/run.py [--preset NAME] [--out FOLDER] [--FIELD VALUE]

Presets: `laptop` (default: some three minutes a network on one core), `smoke` (seconds). The same command goes on
after a kill. Results: report.json: mean relative L2 errors of test functions, seconds a step.
"""

import functools
import json
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from experiments._run import Run, configure  # noqa: E402
from experiments.antiderivative.config import PRESETS  # noqa: E402


def main(argv=None) -> Path:
    """Run what is missing and return the path of the report."""
    config, folder = configure(PRESETS, argv, out="runs/antiderivative")
    from hybridgcm.files import atomic
    from hybridgcm.preemption import preemptible

    with preemptible(), Run(folder, config) as run:
        found = simple(config) | {"networks": []}
        for seed in range(config.seeds):
            build = functools.partial(train, config, seed)
            stage = run.stage(f"network-{seed}", {"config": run.settings, "seed": seed}, build)
            found["networks"].append(json.loads((stage / "scores.json").read_text()))
        with atomic(run.folder / "report.json") as temporary:
            temporary.write_text(json.dumps(found, indent=1))
        return run.folder / "report.json"


def functions(config, count: int, seed: int):
    """(u, s) `[function, sensor]`: Gaussian with a squared exponential kernel, integrated on ten times the points."""
    import numpy as np

    fine = np.linspace(0, 1, 10 * (config.sensors - 1) + 1)
    kernel = np.exp(-((fine[:, None] - fine) ** 2) / (2 * config.width**2))
    values, vectors = np.linalg.eigh(kernel)
    noise = np.random.default_rng(seed).normal(size=(count, len(fine)))
    u = (noise * np.sqrt(np.maximum(values, 0))) @ vectors.T
    inner = (u[:, 1:] + u[:, :-1]) / 2 * fine[1]
    s = np.concatenate([np.zeros((count, 1)), np.cumsum(inner, 1)], 1)
    return u[:, ::10].astype(np.float32), s[:, ::10].astype(np.float32)


def error(made, truth) -> float:
    """Mean over functions of the relative L2 error."""
    import numpy as np

    return float(np.mean(np.linalg.norm(made - truth, axis=1) / np.linalg.norm(truth, axis=1)))


def pairs(config):
    """Training: functions, one place each and the value there; test functions and their antiderivatives."""
    import numpy as np

    u, s = functions(config, config.functions, 0)
    place = np.random.default_rng(2).integers(0, config.sensors, config.functions)
    x = np.linspace(0, 1, config.sensors, dtype=np.float32)
    rows = np.arange(config.functions)
    return {"u": u, "x": x[place][:, None], "s": s[rows, place][:, None]}, functions(config, config.tests, 1)


def sorted_rows(data) -> tuple:
    """Rows of the functions sorted by their places; for each place the first of its rows and how many there are."""
    import numpy as np

    order = np.argsort(data["x"][:, 0], kind="stable")
    return order, *np.unique(data["x"][order, 0], return_index=True, return_counts=True)[1:]


def batch(config, data, rows_of_places, key) -> dict:
    """Combinations of functions that are known at the same place: u `[function, sensor]`, x and s `[function, 1]`."""
    import jax.random as jr
    import numpy as np

    rng = np.random.default_rng(np.asarray(jr.key_data(key)))
    order, first, count = rows_of_places
    places = rng.integers(len(first), size=config.batch)[:, None]
    rows = order[first[places] + (rng.random((config.batch, config.mixed)) * count[places]).astype(int)]
    weights = rng.normal(size=rows.shape).astype(np.float32)
    weights /= np.linalg.norm(weights, axis=1, keepdims=True)
    mix = lambda a: np.einsum("bk,bks->bs", weights, a[rows])
    return {"u": mix(data["u"]), "x": data["x"][rows[:, 0]], "s": mix(data["s"])}


def simple(config) -> dict:
    """Errors without a network: of a linear map, fitted place by place to the same pairs, and of the rule."""
    import numpy as np

    data, (u, s) = pairs(config)
    x = np.linspace(0, 1, config.sensors, dtype=np.float32)
    made = np.zeros_like(s)
    for i in range(config.sensors):
        here = np.isclose(data["x"][:, 0], x[i])
        a, b = data["u"][here].astype(float), data["s"][here].astype(float)
        made[:, i] = (u @ np.linalg.lstsq(a, b, rcond=1e-4)[0])[:, 0] if here.any() else 0
    rule = np.concatenate([np.zeros((len(u), 1)), np.cumsum((u[:, 1:] + u[:, :-1]) / 2 * x[1], 1)], 1)
    return {"linear regression": error(made, s), "trapezoidal rule": error(rule, s)}


def train(config, seed, folder):
    """One network; scores.json holds its error and the seconds of a step."""
    import equinox as eqx
    import jax
    import jax.numpy as jnp
    import jax.random as jr
    import numpy as np
    import optax

    import hybridgcm as hg
    from hybridgcm import batches, checkpoint, nn
    from hybridgcm import train as training
    from hybridgcm.files import atomic

    data, (u, s) = pairs(config)
    rows = sorted_rows(data)
    net = nn.point_deeponet(
        config.sensors, 1, rank=config.hidden, width=config.hidden, depth=config.depth, key=jr.key(seed)
    )
    times = []
    rate = optax.warmup_cosine_decay_schedule(0.0, config.rate, config.steps // 20, config.steps, config.rate / 1000)
    optimiser = optax.contrib.muon(rate, adam_learning_rate=rate)
    net, log = hg.fit(
        net, batches.drawn(lambda key: batch(config, data, rows, key), config.steps, jr.key(10 + seed)),
        training.queries(training.squares, ("u",), ("x",), ("s",)), optimiser, where=lambda m: m, key=jr.key(3),
        callback=lambda *_: times.append(time.perf_counter()), every=config.steps,
        checkpoints=checkpoint.Checkpoints(folder / "checkpoints"), progress="antiderivative",
    )  # fmt: skip
    x = jnp.linspace(0, 1, config.sensors)
    made = eqx.filter_jit(lambda net, u: jax.lax.map(lambda u: net(u, x)[0], u))(net, jnp.asarray(u))
    weights = sum(a.size for a in jax.tree.leaves(eqx.filter(net, eqx.is_inexact_array)))
    seconds = float(np.median(np.diff(times)))
    found = {"error": error(np.asarray(made), s), "weights": weights, "seconds a step": seconds}
    with atomic(folder / "scores.json") as temporary:
        temporary.write_text(json.dumps(found))


if __name__ == "__main__":
    print(f"report: {main()}")
