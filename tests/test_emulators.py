"""Emulators: a network in the place of the equation, under the same verbs as every model."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest
from helpers import double, eddies, error, same_bits

import hybridgcm as hg
from hybridgcm import nn
from hybridgcm.closures import Leith


class Slope(eqx.Module):
    """N = a x: exact, linear, with one number to learn."""

    a: jax.Array = hg.param()

    def __call__(self, x):
        return self.a * x


class Names(nn.AbstractOperator):
    """Sees the grid: N = L² ∇²x."""

    def __call__(self, x, grid):
        return 1e10 * grid.to_grid(grid.laplacian(grid.to_spectral(x)))


def start(grid=None, layers=2):
    grid = grid or double(16)
    return {"q": eddies(grid, layers, 5e-6)}


# The step


def test_a_step_is_the_documented_residual_with_the_mean_removed():
    net = lambda x: jnp.stack([x[1] ** 2, 3 + x[0]])
    emulator = hg.Emulator(net, ("q",), {"q": (2e-6, 1e-6)}, change={"q": (1e-7, 3e-7)}, dt=3600.0)
    q = start()["q"]
    after = emulator.view(emulator.step(emulator.encode({"q": q})))["q"]
    square, line = (q[1] / 1e-6) ** 2, q[0] / 2e-6
    expected = q + np.stack([1e-7 * (square - square.mean()), 3e-7 * (line - line.mean())])
    assert error(after, expected) < 1e-14


def test_several_fields_keep_their_layers_and_scales_apart():
    net = lambda x: x * jnp.arange(1.0, 6.0)[:, None, None]
    scale = {"zeta": (1e-5, 2e-5), "delta": 1e-7, "phi": 3.0}
    emulator = hg.Emulator(net, ("zeta", "delta", "phi"), scale, dt=600.0, change=scale | {"phi": 6.0})
    grid = double(16)
    fields = {"phi": eddies(grid, 1, 3.0), "zeta": eddies(grid, 2, 1e-5, 1), "delta": eddies(grid, 2, 1e-7, 2)}
    state = emulator.step(emulator.encode(fields))
    factor = {"zeta": np.array([2, 3]), "delta": np.array([4, 5]), "phi": np.array([1 + 2 * 5])}
    for name, a in emulator.view(state).items():
        assert error(a, fields[name] * factor[name][:, None, None]) < 1e-13, name
    assert int(state.step) == 1 and float(emulator.courant(state)) == 0


def test_the_mean_is_conserved_and_a_constant_network_does_nothing():
    emulator = hg.Emulator(lambda x: 0 * x + 7, ("q",), 1e-6, dt=3600.0)
    q = start()["q"] + 1e-6
    assert error(emulator.view(emulator.step(emulator.encode({"q": q})))["q"], q) < 1e-15


def test_operators_are_given_the_grid():
    grid = double(16)
    emulator = hg.Emulator(Names(), ("q",), 1e-6, dt=3600.0, grid=grid)
    q = start(grid)["q"]
    expected = q + 1e10 * grid.to_grid(grid.laplacian(grid.to_spectral(jnp.asarray(q))))
    assert error(emulator.step(emulator.encode({"q": q})).y["q"], expected) < 1e-12
    with pytest.raises(ValueError, match="pass grid="):
        bare = hg.Emulator(Names(), ("q",), 1e-6, dt=3600.0)
        bare.step(bare.encode({"q": q}))


def test_precision_is_that_of_the_grid_and_else_of_the_weights():
    q = start()["q"]
    single = hg.Emulator(Slope(0.1), ("q",), 1e-6, dt=3600.0, grid=hg.Torus(16, 1e6))
    with jax.numpy_dtype_promotion("strict"):
        state = single.step(single.encode({"q": q}))
    assert state.y["q"].dtype == single.net.a.dtype == jnp.float32
    own = hg.Emulator(Slope(jnp.asarray(0.1, jnp.float64)), ("q",), 1e-6, dt=3600.0)
    assert own.encode({"q": q.astype(np.float32)}).y["q"].dtype == jnp.float64


# The verbs


def test_rollout_stream_and_restart_agree():
    emulator = hg.Emulator(Slope(-0.05), ("q",), 1e-6, dt=3600.0)
    first = emulator.encode(start())
    end, out = eqx.filter_jit(hg.rollout)(emulator, first, 12, every=3)
    assert error(out["save"]["q"][-1], 0.95**12 * start()["q"]) < 1e-12
    chunks = list(hg.stream(emulator, first, 12, every=3, chunk=2))
    assert error(np.concatenate([c["save"]["q"] for _, c in chunks]), out["save"]["q"]) < 1e-14
    half = eqx.filter_jit(hg.rollout)(emulator, first, 6, every=3)[0]
    assert same_bits(eqx.filter_jit(hg.rollout)(emulator, half, 6, every=3)[0], end)


def test_a_stream_that_blows_up_says_so():
    emulator = hg.Emulator(Slope(1e30), ("q",), 1e-6, dt=3600.0, grid=hg.Torus(16, 1e6))
    with pytest.raises(hg.BlewUp, match="q is not finite at step 2"):
        list(hg.stream(emulator, emulator.encode(start()), 6))


def test_it_is_saved_loaded_and_run_resumably(tmp_path):
    grid = hg.Torus(16, 1e6)
    make = lambda key: hg.Emulator(nn.CNN((2, 4, 2), (3, 3), key=jr.key(key)), ("q",), 1e-6, dt=3600.0, grid=grid)
    one = make(1)
    hg.save(tmp_path / "emulator.ckpt", one)
    assert same_bits(hg.load(tmp_path / "emulator.ckpt", make(2)), one)
    state = hg.resumable_rollout(one, one.encode(start()), 8, tmp_path / "run", every=2)
    stored = hg.read_store(tmp_path / "run" / "output.zarr")
    assert stored["q"].dims == ("time", "layer", "y", "x") and stored["q"].attrs["units"] == "s-1"
    assert np.array_equal(stored["q"][-1], state.y["q"]) and stored["time"].values.tolist() == [
        7200.0 * i for i in range(1, 5)
    ]


def test_online_training_finds_a_linear_emulator():
    """Truth decays by 7 % a step; the one number of the network must become -0.07 whatever the scales."""
    truth = {"q": jnp.asarray(np.stack([0.93**i * start()["q"] for i in range(12)]))}
    emulator = hg.Emulator.from_data(Slope(0.0), truth, dt=3600.0)
    batches = hg.windows(truth, length=4, batch=2, steps=150, key=jr.key(1))
    objective = hg.online(hg.metrics.mse("q"))
    emulator, log = hg.fit(emulator, batches, objective, optax.adam(0.05), where=lambda m: m.net, key=jr.key(2))
    rate = float(emulator.net.a * emulator.change["q"][0] / emulator.scale["q"][0])
    assert abs(rate + 0.07) < 1e-3 and log[-1]["loss"] < 1e-4 * log[0]["loss"], (rate, log[-1])


def test_scales_from_data_are_those_of_fields_and_of_their_changes():
    rng = np.random.default_rng(0)
    walk = lambda seed: {"q": np.cumsum(rng.standard_normal((40, 2, 8, 8)) * [[[1e-7]], [[2e-8]]], 0)}
    parts = [walk(0), walk(1)]
    emulator = hg.Emulator.from_data(Slope(0.0), parts, dt=60.0)
    joined = np.concatenate([part["q"] for part in parts])
    assert error(emulator.scale["q"], joined.std((0, 2, 3))) < 1e-12
    assert error(emulator.change["q"], [1e-7, 2e-8]) < 0.03, "no change across the seam of two trajectories"


# What is refused


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"qs": np.zeros((2, 8, 8))}, "steps ('q',); got 'qs'; did you mean 'q'?"),
        ({}, "'q' is missing, got []"),
        ({"q": np.zeros((3, 8, 8))}, "shape (3, 8, 8), expected (2, 8, 8)"),
        ({"q": np.zeros((5, 2, 8, 8))}, "eqx.filter_vmap(emulator.encode)"),
        ({"q": np.full((2, 8, 8), np.nan)}, "not finite, the first at (0, 0, 0)"),
    ],
)
def test_encode_says_what_is_wrong(fields, words):
    emulator = hg.Emulator(Slope(0.0), ("q",), {"q": (1e-6, 1e-7)}, dt=3600.0)
    with pytest.raises(ValueError) as caught:
        emulator.encode(fields)
    assert words in str(caught.value), str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"names": "q"}, "tuple of field names"),
        ({"dt": 0.0}, "positive number of seconds"),
        ({"scale": -1.0}, "one positive number, or one per layer"),
        ({"scale": {"p": 1.0}}, "a value for each of ('q',); got ['p']"),
    ],
)
def test_impossible_emulators_are_refused(arguments, words):
    with pytest.raises(ValueError) as caught:
        hg.Emulator(Slope(0.0), **({"names": ("q",), "scale": 1e-6, "dt": 3600.0} | arguments))
    assert words in str(caught.value), str(caught.value)


def test_a_network_of_the_wrong_shape_is_refused():
    emulator = hg.Emulator(lambda x: x[:1], ("q",), 1e-6, dt=3600.0)
    with pytest.raises(ValueError, match=r"maps \(2, 16, 16\) to \(1, 16, 16\)"):
        emulator.step(emulator.encode(start()))


# Sketch 4 of the design, smaller: 32 modes instead of 64, a tenth of the batches


@pytest.mark.slow
def test_hybrid_and_emulator_go_through_the_same_evaluation_and_stable_is_honest():
    grid = hg.Torus(32, 1e6, dealias=2 / 3)
    flow = hg.QuasiGeostrophic.two_layer(grid, rd=15e3, beta=1.5e-11, U=(0.025, 0.0), drag=5.8e-7, tau=6 * 3600.0)
    bare = hg.Model(flow, hg.SIL3(), dt=3600.0)
    twin, model = (hg.Model(flow, hg.SIL3(), Leith(c), dt=3600.0) for c in (2.0, 1.0))
    state = eqx.filter_jit(hg.rollout)(bare, bare.encode({"q": eddies(grid, 2, 5e-6)}), 100, every=100)[0]
    _, out = eqx.filter_jit(hg.rollout)(twin, twin.encode(bare.decode(state)), 60)
    truth = {"q": out["save"]["q"]}
    objective = hg.online(hg.metrics.mse("q"), chunk=5)

    conv = lambda i, o, k: eqx.nn.Conv2d(i, o, 5, padding="SAME", padding_mode="CIRCULAR", key=jr.key(k))
    net = eqx.nn.Sequential([conv(2, 16, 4), eqx.nn.Lambda(jax.nn.gelu), conv(16, 2, 5)])
    emulator = hg.Emulator(net, names=("q",), scale=1e-6, dt=3600.0)
    batches = hg.windows(truth, length=6, batch=4, steps=6, key=jr.key(6))
    emulator, log = hg.fit(emulator, batches, objective, optax.adam(1e-3), where=lambda m: m.net, key=jr.key(7))
    starts = {"q": truth["q"][jnp.array([0, 10, 20])]}
    future = {"q": jnp.stack([truth["q"][i + 4 : i + 37 : 4] for i in (0, 10, 20)])}
    wild = eqx.tree_at(lambda e: e.change["q"], emulator, 3 * emulator.change["q"])
    table = hg.evaluate(
        {"no closure": bare, "Leith": model, "emulator": emulator, "wild": wild}, starts, future,
        steps=36, every=4, metrics={"rmse": hg.metrics.rmse("q"), "variance": hg.metrics.variance("q")},
    )  # fmt: skip
    assert table["Leith"]["stable"] == 1 and table["Leith"]["rmse"][-1] < table["no closure"]["rmse"][-1]
    assert all(np.isfinite(record["loss"]) for record in log) and log[-1]["loss"] < log[0]["loss"], log
    assert table["wild"]["stable"] == 0 and np.isnan(table["wild"]["rmse"]).all()
    end = eqx.filter_jit(hg.rollout)(wild, wild.encode({"q": starts["q"][0]}), 36, every=36)[1]["save"]["q"]
    assert np.isfinite(end).all() and float(jnp.var(end)) > 1e2 * float(jnp.var(truth["q"])), "finite, yet not stable"


# Every network learns every flow


def quasi_geostrophic(n, frames, every=4):
    """Two-layer turbulence on n² points: {"q": [time, layer, y, x]}, `every` hours apart, and its grid."""
    grid = hg.Torus(n, 1e6 * n / 64)
    flow = hg.QuasiGeostrophic.two_layer(grid, tau=86400.0)
    model = hg.Model(flow, hg.SIL3(), dt=3600.0)
    first = model.encode({"q": eddies(grid, 2, (5e-6, 1e-6))})
    state = eqx.filter_jit(hg.rollout)(model, first, 48, every=48, save=None)[0]
    save = lambda model, state: model.decode(state)
    out = eqx.filter_jit(hg.rollout)(model, state, every * frames, every=every, save=save)[1]
    return out["save"], grid, every * 3600.0


def shallow_water(n, frames, every=2):
    """Gravity waves in two rotating layers, which change every field by its own size within a few frames."""
    grid = hg.Torus(n, 2e6 * n / 16)
    flow = hg.ShallowWater(grid, 1e-4, (4e3, 6e3), density=(1000.0, 1500.0), tau=86400.0)
    model = hg.Model(flow, hg.SIL3(), dt=300.0)
    rest = np.zeros((2, n, n))
    first = model.encode({"phi": eddies(grid, 2, (100.0, 50.0), peak=3.0 * n / 16), "zeta": rest, "delta": rest})
    state = eqx.filter_jit(hg.rollout)(model, first, 48, every=48, save=None)[0]
    save = lambda model, state: model.decode(state)
    out = eqx.filter_jit(hg.rollout)(model, state, every * frames, every=every, save=save)[1]
    return out["save"], grid, every * 300.0


NETWORKS = {
    "CNN": lambda c, n: nn.CNN((c, n, c), (5, 3), key=jr.key(0), activation=jax.nn.silu),
    "UNet": lambda c, n: nn.UNet(c, c, widths=(n, n), key=jr.key(0)),
    "FNO": lambda c, n: nn.FNO(c, c, modes=(9, 9), hidden=n, layers=1, key=jr.key(0)),
}
FLOWS = {"quasi-geostrophic": quasi_geostrophic, "shallow water": shallow_water}


def learn(flow, network, n, width, frames, steps, length):
    """(improvement of the forecast over persistence, row of `evaluate`) after `steps` batches of windows."""
    truth, grid, dt = FLOWS[flow](n, frames)
    learned = {name: a[: 3 * frames // 4] for name, a in truth.items()}
    channels = sum(a.shape[1] for a in truth.values())
    emulator = hg.Emulator.from_data(NETWORKS[network](channels, width), learned, dt=dt, grid=grid)
    loss = lambda p, t: sum(hg.metrics.mse(name)(p, t) for name in truth) / len(truth)
    batches = hg.windows(learned, length=length, batch=4, steps=steps, key=jr.key(1))
    rate = optax.cosine_decay_schedule(1e-2, steps, 0.02)
    trained, _ = hg.fit(emulator, batches, hg.online(loss), optax.adam(rate), where=lambda m: m.net, key=jr.key(2))
    first = 3 * frames // 4 + np.arange(2)
    ahead = frames // 4 - 2
    starts = {name: a[first] for name, a in truth.items()}
    future = {name: np.stack([a[i + 1 : i + 1 + ahead] for i in first]) for name, a in truth.items()}
    rmse = {name: hg.metrics.rmse(name) for name in truth}
    models = {"persistence": emulator, "trained": trained}
    table = hg.evaluate(models, starts, future, steps=ahead, every=1, metrics=rmse)
    return table | {"by hand": within(trained, starts, future, ahead)}, tuple(truth)


def within(emulator, starts, future, steps):
    """Fraction of starts whose rollout stays finite and within ten times the truth's variance, each run by itself."""
    good = []
    for i in range(2):
        frames = eqx.filter_jit(hg.rollout)(emulator, emulator.encode({n: a[i] for n, a in starts.items()}), steps)[1]
        peak = lambda a: np.var(np.asarray(a, np.float64), (-2, -1)).max(0)
        run = {name: peak(a) for name, a in frames["save"].items()}
        good.append(all(np.all(run[name] <= 10 * peak(future[name][i])) for name in run))  # nan is not within
    return sum(good) / 2


QUICK = [("quasi-geostrophic", "FNO"), ("shallow water", "UNet")]
REST = [(flow, network) for flow in FLOWS for network in NETWORKS if (flow, network) not in QUICK]


@pytest.mark.parametrize(("flow", "network"), [*QUICK, *(pytest.param(*pair, marks=pytest.mark.slow) for pair in REST)])
def test_every_network_learns_every_flow(flow, network):
    """Unseen starts: one step ahead better than persistence, in every field; persistence itself is stable."""
    table, names = learn(flow, network, n=16, width=8, frames=48, steps=60, length=2)
    assert table["persistence"]["stable"] == 1 and table["trained"]["stable"] == table["by hand"]
    ratio = {name: float(table["trained"][name][0] / table["persistence"][name][0]) for name in names}
    assert max(ratio.values()) < 0.85, ratio


@pytest.mark.slow
@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("flow", FLOWS)
def test_every_network_learns_every_flow_at_64_points(flow, network):
    """Windows of four frames; what `evaluate` calls stable is what a look at the rollouts finds."""
    table, names = learn(flow, network, n=64, width=16, frames=80, steps=200, length=4)
    ratio = {name: float(table["trained"][name][0] / table["persistence"][name][0]) for name in names}
    print(f"{flow}, {network}: one step against persistence {ratio}, stable {table['trained']['stable']:.0%}")
    assert table["persistence"]["stable"] == 1 and max(ratio.values()) < 0.7, ratio
    assert table["trained"]["stable"] == table["by hand"]
