"""Initial values and exact solutions, the network and its objective, errors, the figure."""

import json
import time

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax

import hybridgcm as hg
from hybridgcm import batches, checkpoint, nn, pairs
from hybridgcm import train as training
from hybridgcm.files import atomic

TIMES = np.linspace(0, 1, 11)
"""Of the exact solutions."""


class OnCircle(eqx.Module):
    """net(cos 2πx, sin 2πx): what it gives is periodic, with all derivatives."""

    net: nn.ModifiedMLP

    def __call__(self, x):
        return self.net(jnp.concatenate([jnp.cos(2 * jnp.pi * x), jnp.sin(2 * jnp.pi * x)]))


def network(config, seed: int) -> nn.DeepONet:
    """u(t, x) = Σ_k b_k(u0) τ_k(t) ξ_k(x), periodic in x."""
    first, second = jr.split(jr.key(seed))
    sizes = {"width": config.width, "depth": config.depth}
    net = nn.separable_deeponet(config.sensors, 2, rank=config.rank, network=nn.ModifiedMLP, key=first, **sizes)
    around = OnCircle(nn.ModifiedMLP(2, config.rank, config.width, config.depth, jnp.tanh, key=second))
    return eqx.tree_at(lambda net: net.trunk.nets[1], net, around)


def objective(config):
    """Mean squares of the equation's residual and, `start_weight` times, of what is wrong with the initial values."""
    inside = training.physics(training.burgers(config.viscosity), ("u0",), ("t", "x"))
    start = training.queries(training.squares, ("u0",), ("t0", "x0"), ("start",))
    return training.combined((1.0, inside), (config.start_weight, start))


def batch(config, u0, key):
    """Functions of the training, shifted by some sensors and every second one mirrored: −u(−x) is a solution as well.

    Their equation is asked for on a grid of times and places, new in every step.
    """
    rng = np.random.default_rng(np.asarray(jr.key_data(key)))
    sensors, rows = np.arange(config.sensors), np.arange(config.batch)[:, None]
    chosen = u0[rng.integers(len(u0), size=config.batch)]
    chosen = chosen[rows, (sensors + rng.integers(config.sensors, size=rows.shape)) % config.sensors]
    chosen = np.where(rng.random(rows.shape) < 0.5, chosen, -chosen[:, ::-1])
    x = (np.arange(config.places) + rng.random()) / config.places
    return {
        "u0": chosen, "t": np.sort(rng.random(config.times)).astype(np.float32), "x": x.astype(np.float32),
        "t0": np.zeros(1, np.float32), "x0": (sensors / config.sensors).astype(np.float32), "start": chosen[:, None],
    }  # fmt: skip


def data(config, folder):
    """u0 of the training `[function, sensor]` and of the tests, their exact solutions u `[function, time, sensor]`."""
    count = config.functions + config.tests
    made = pairs.burgers(config.sensors, count, jr.key(20), times=tuple(TIMES), viscosity=config.viscosity)
    u0 = np.asarray(made["u0"][:, 0, 0], np.float32)
    np.savez(folder / "data.npz", u0=u0[: config.functions], start=u0[config.functions :],
             u=np.asarray(made["u"][config.functions :, 0], np.float32))  # fmt: skip


def error(made, truth) -> float:
    """Mean over functions of the relative L2 error over all times and places."""
    norm = lambda a: np.linalg.norm(a.reshape(len(a), -1), axis=1)
    return float(np.mean(norm(made - truth) / norm(truth)))


def simple(config, folder) -> dict:
    """Errors without a network: of no change, and of the heat equation."""
    with np.load(folder / "data.npz") as known:
        start, u = known["start"], known["u"]
    wave = 2 * np.pi * np.arange(config.sensors // 2 + 1)
    decay = np.exp(-config.viscosity * wave**2 * TIMES[:, None])
    heat = np.fft.irfft(np.fft.rfft(start)[:, None] * decay, config.sensors)
    return {"no change": error(start[:, None] + 0 * u, u), "heat equation": error(heat, u)}


def answers(config, net, start) -> np.ndarray:
    """u `[function, time, sensor]` of the network."""
    t, x = jnp.asarray(TIMES, jnp.float32), jnp.arange(config.sensors, dtype=jnp.float32) / config.sensors
    return np.asarray(_answers(net, jnp.asarray(start), t, x))


@eqx.filter_jit
def _answers(net, start, t, x):
    return jax.vmap(lambda u0: net(u0, t, x)[0])(start)


def train(config, data, seed, folder):
    """One network; scores.json holds its error, seconds of a step and of a thousand answers."""
    with np.load(data / "data.npz") as known:
        u0, start, u = known["u0"], known["start"], known["u"]
    schedule = optax.warmup_cosine_decay_schedule(
        0.0, config.rate, min(200, config.steps // 20), config.steps, config.rate / 100
    )
    times = []
    net, log = hg.fit(
        network(config, seed), batches.drawn(lambda key: batch(config, u0, key), config.steps, jr.key(10 + seed)),
        objective(config), optax.contrib.muon(schedule, adam_learning_rate=schedule), where=lambda m: m, key=jr.key(3),
        callback=lambda *_: times.append(time.perf_counter()), every=1000,
        checkpoints=checkpoint.Checkpoints(folder / "checkpoints"), progress=f"Burgers' equation, {seed}",
    )  # fmt: skip
    checkpoint.save(folder / "network.ckpt", net)
    many = np.resize(start, (1000, config.sensors))
    answers(config, net, many)
    begin = time.perf_counter()
    answers(config, net, many)
    found = {
        "error": error(answers(config, net, start), u),
        "weights": sum(a.size for a in jax.tree.leaves(eqx.filter(net, eqx.is_inexact_array))),
        "loss": log[-1]["loss"],
        "seconds a step": float(np.median(np.diff(times))),
        "seconds for a thousand": time.perf_counter() - begin,
    }
    with atomic(folder / "scores.json") as temporary:
        temporary.write_text(json.dumps(found))


def draw(config, data, stage, path):
    """Exact solutions and the network's, of the test functions that it does best, middling and worst."""
    from matplotlib.figure import Figure

    with np.load(data / "data.npz") as known:
        start, u = known["start"], known["u"]
    made = answers(config, checkpoint.load(stage / "network.ckpt", network(config, 0)), start)
    wrong = [error(made[i : i + 1], u[i : i + 1]) for i in range(len(u))]
    order, x = np.argsort(wrong), np.arange(config.sensors) / config.sensors
    figure = Figure((9, 3), layout="constrained")
    for axes, (label, i) in zip(
        figure.subplots(1, 3), (("best", order[0]), ("median", order[len(u) // 2]), ("worst", order[-1])), strict=True
    ):
        for shade, time_index in ((0.75, 0), (0.5, 5), (0.0, 10)):
            axes.plot(x, u[i, time_index], color=str(shade), label=f"exact, t = {TIMES[time_index]:g}")
            axes.plot(x, made[i, time_index], "--", color="C1", label="network" if not shade else None)
        axes.set(title=f"{label}: relative L2 error {wrong[i]:.3f}", xlabel="x")
    figure.axes[0].set_ylabel("u")
    figure.axes[0].legend(frameon=False, fontsize="small")
    with atomic(path) as temporary:
        figure.savefig(temporary, dpi=150, format="png")
