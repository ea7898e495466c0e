"""The three problems: data, network, objective of which every term can be put over a mesh, batches, error."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

import hybridgcm as hg
from hybridgcm import batches, nn, pairs, train

VISCOSITY = 0.01
HOUR = 3600.0


class Case(NamedTuple):
    """A problem, ready for `fit`."""

    network: eqx.Module
    objective: Callable[[Callable], Any]
    """From put(objective, axes), which is applied to every term."""
    batches: Sequence
    error: Callable[[eqx.Module], float]
    """Mean relative L2 error of test functions."""


def shape(case: str, devices: int) -> tuple[int, int]:
    """Mesh: functions split, queries split, or both, two ways of the queries once there are four devices."""
    trunk = {"burgers": 1, "darcy": devices, "shallow": 2 if devices % 4 == 0 else 1}[case]
    return devices // trunk, trunk


def make(case: str, config, data: dict) -> Case:
    """The case from what `DATA[case](config)` made."""
    return {"burgers": _burgers, "darcy": _darcy, "shallow": _shallow}[case](config, data)


def _burgers(config, data):
    """u_t + u u_x = ν u_xx on the unit circle, from its residual, initial values and periodicity; no solutions.

    Every function has points of its own: with shared ones each device would evaluate the whole trunk.
    """
    sensors = np.arange(config.burgers_sensors, dtype=np.float32) / config.burgers_sensors
    ends = {"t1": np.linspace(0, 1, 25, dtype=np.float32), "left": np.zeros(25, np.float32)}
    ends |= {"right": np.ones(25, np.float32), "t0": 0 * sensors, "x0": sensors}

    def batch(key):
        first, second = jr.split(key)
        u0 = data["u0"][np.asarray(jr.choice(first, config.samples, (config.functions,), replace=False))]
        t, x = np.asarray(jr.uniform(second, (2, config.functions, config.burgers_points)))
        return {"u0": u0, "t": t, "x": x, "start": u0, **ends}

    def objective(put):
        both = ("branch", "trunk")
        over = lambda *names: {"u0": ("branch",), **dict.fromkeys(names, ("trunk",))}
        inside = train.physics(train.burgers(VISCOSITY), ("u0",), ("t", "x"))
        start = train.queries(train.squares, ("u0",), ("t0", "x0"), ("start",))
        round_ = train.physics(train.periodic, ("u0",), ("t1", "left", "right"))
        return train.combined(
            (1.0, put(inside, {"u0": ("branch",), "t": both, "x": both})),
            (20.0, put(start, over("t0", "x0") | {"start": both})),
            (1.0, put(round_, over("t1", "left", "right"))),
        )

    net = nn.point_deeponet(config.burgers_sensors, 2, network=nn.ModifiedMLP, **_sizes(config))
    t, x = (a.ravel() for a in np.meshgrid(data["times"], sensors, indexing="ij"))
    return Case(net, objective, _drawn(batch, config), lambda net: _error(net, data["u0"], data["u"], config, t, x))


def _darcy(config, data):
    """Pressure at the points of the permeability."""
    places = np.arange(config.darcy_n, dtype=np.float32) / config.darcy_n
    y, x = (a.ravel() for a in np.meshgrid(places, places, indexing="ij"))

    def batch(key):
        chosen = np.asarray(jr.choice(key, config.samples, (config.functions,), replace=False))
        return {"a": data["a"][chosen], "y": y, "x": x, "u": data["u"][chosen]}

    loss = train.queries(train.squares, ("a",), ("y", "x"), ("u",))
    axes = {"a": ("branch",), "y": ("trunk",), "x": ("trunk",), "u": ("branch", "trunk")}
    net = nn.point_deeponet((config.darcy_n,) * 2, 2, activation=jax.nn.gelu, **_sizes(config))
    error = lambda net: _error(net, data["a"], data["u"], config, y, x)
    return Case(net, lambda put: put(loss, axes), _drawn(batch, config), error)


def _shallow(config, data):
    """Height of the water in time and space from the height at rest, at points drawn in every step."""
    n, times = config.shallow_n, config.shallow_times
    axes = np.arange(1, times + 1) / times, np.arange(n) / n, np.arange(n) / n
    points = np.stack([a.ravel() for a in np.meshgrid(*axes, indexing="ij")]).astype(np.float32)

    def batch(key):
        first, second = jr.split(key)
        chosen = np.asarray(jr.choice(first, config.samples, (config.functions,), replace=False))
        asked = np.asarray(jr.choice(second, points.shape[1], (config.shallow_queries,), replace=False))
        t, y, x = points[:, asked]
        return {"h0": data["h0"][chosen], "t": t, "y": y, "x": x, "h": data["h"][chosen[:, None], asked]}

    loss = train.queries(train.squares, ("h0",), ("t", "y", "x"), ("h",))
    layout = {"h0": ("branch",), **dict.fromkeys(("t", "y", "x"), ("trunk",)), "h": ("branch", "trunk")}
    net = nn.point_deeponet((n, n), 3, activation=jax.nn.gelu, **_sizes(config))
    error = lambda net: _error(net, data["h0"], data["h"], config, *points)
    return Case(net, lambda put: put(loss, layout), _drawn(batch, config), error)


def burgers_data(config) -> dict[str, np.ndarray]:
    """Initial values of all functions, exact solutions of the tests."""
    count, times = config.samples + config.tests, np.linspace(0, 1, 11)
    made = pairs.burgers(config.burgers_sensors, count, jr.key(20), times=tuple(times), viscosity=VISCOSITY)
    u = made["u"][config.samples :, 0].reshape(config.tests, -1)
    return {"u0": made["u0"][:, 0, 0], "u": u, "times": times}


def darcy_data(config) -> dict[str, np.ndarray]:
    """Pairs of `pairs.darcy`, the pressure over its standard deviation."""
    made = pairs.darcy(config.darcy_n, config.samples + config.tests, jr.key(21), refine=4)
    u = made["u"][:, 0] / made["u"].std()
    return {"a": made["a"][:, 0] - 0.5, "u": u.reshape(len(u), -1)}


def shallow_data(config) -> dict[str, np.ndarray]:
    """Water at rest with a random height, 2 km deep, on 1,000 km by 1,000 km at 45 degrees: its height afterwards."""
    grid = hg.Torus(config.shallow_n, 1e6)
    water = hg.ShallowWater(grid, 1e-4, 9.81 * 2e3, tau=HOUR)
    dt = HOUR / 2 / max(2, round(1800 / (0.3 * 1e6 / config.shallow_n / 140)))
    model = hg.Model(water, hg.RK4(), dt=dt)
    every = round(HOUR / 2 / dt)
    wave = np.fft.fftfreq(config.shallow_n, 1 / config.shallow_n)
    shape = np.exp(-(wave[:, None] ** 2 + wave[: config.shallow_n // 2 + 1] ** 2) / 8.0)

    @jax.jit
    def one(key):
        noise = jnp.fft.rfft2(jr.normal(key, (1, *grid.shape))) * shape
        start = jnp.fft.irfft2(noise, grid.shape)
        phi = 9.81 * 10 * start / jnp.std(start)
        state = model.encode({"zeta": 0 * phi, "delta": 0 * phi, "phi": phi})
        frames = lambda model, state: model.decode(state)["phi"]
        _, out = hg.rollout(model, state, every * config.shallow_times, every=every, save=frames)
        return phi[0] / 98.1, out["save"][:, 0].ravel() / 98.1

    h0, h = jax.lax.map(one, jr.split(jr.key(22), config.samples + config.tests))
    return {"h0": h0, "h": h}


DATA = {"burgers": burgers_data, "darcy": darcy_data, "shallow": shallow_data}


def _sizes(config) -> dict:
    return {"rank": config.width, "width": config.width, "depth": config.depth, "key": jr.key(30)}


def _drawn(batch, config) -> Sequence:
    return batches.drawn(batch, config.steps, jr.key(31))


def _error(net, inputs, outputs, config, *places) -> float:
    """Of the last functions, which are not trained on; a function at a time."""
    made = eqx.filter_jit(lambda net, u, *places: jax.lax.map(lambda one: net(one, *places)[0], u))
    truth = np.asarray(outputs[-config.tests :])
    wrong = np.asarray(made(net, inputs[-config.tests :], *places)) - truth
    return float(np.mean(np.linalg.norm(wrong, axis=1) / np.linalg.norm(truth, axis=1)))
