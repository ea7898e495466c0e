"""What each stage of the bias-correction experiment computes, into a folder of its own."""

import json
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax

import hybridgcm as hg
from experiments._run import divisor
from experiments.bias_correction.config import Config
from hybridgcm import checkpoint, closures, data, metrics, nn, train
from hybridgcm.batches import samples, windows

INPUTS = ("q", "u", "v")
"""What regression and network read."""


def hills(config: Config, seed: int) -> np.ndarray:
    """Topographic vorticity of the lower layer `[y, x]`, s-1: a ring of random waves, the same in truth and model."""
    grid = hg.Torus(config.n, config.length)
    noise = jr.normal(jr.fold_in(jr.key(10), seed), grid.shape)
    wave = jnp.sqrt(-grid.eigenvalues) * config.length / (2 * np.pi)
    field = np.asarray(grid.to_grid(grid.to_spectral(noise) * jnp.exp(-((wave - 3) ** 2) / 2)))
    return config.hills * (field - field.mean()) / field.std()


def true_model(config: Config, seed: int) -> hg.Model:
    """The truth."""
    return _model(config, seed, config.true_delta, config.true_drag, config.true_dt)


def model(config: Config, seed: int, closure=None) -> hg.Model:
    """The imperfect model."""
    return _model(config, seed, config.model_delta, config.model_drag, config.model_dt, closure)


def _model(config: Config, seed: int, delta: float, drag: float, dt: float, closure=None) -> hg.Model:
    flow = hg.QuasiGeostrophic.two_layer(
        hg.Torus(config.n, config.length), rd=config.rd, delta=delta, beta=config.beta, U=(config.shear, 0.0),
        drag=drag, tau=config.tau, topography=hills(config, seed),
    )  # fmt: skip
    return hg.Model(flow, hg.AB3(), closure, dt=dt)


def reference(imperfect: hg.Model, true: hg.Model, state) -> dict:
    """The truth as the model would hold it: the same streamfunction, the model's potential vorticity (s-1)."""
    flow = imperfect.equation
    return {"q": flow.grid.to_grid(flow.potential_vorticity(true.equation.invert(state.y["q"])))}


def truth(config: Config, seed: int, folder: Path):
    """Reference frames, one per window of the training years, of the first tested year, then snapshots."""
    true, imperfect = true_model(config, seed), model(config, seed)
    each = int(config.window / config.true_dt)
    noise = jr.normal(jr.fold_in(jr.key(11), seed), (2, *true.equation.grid.shape))
    q = true.equation.grid.to_grid(true.equation.grid.to_spectral(noise * jnp.array([1e-6, 1e-7])[:, None, None]))
    state = true.encode({"q": q}, jr.key(seed))
    state = eqx.filter_jit(hg.rollout)(true, state, config.spin_up * each, every=config.spin_up * each, save=None)[0]
    tested = min(config.climate, config.starts * _spacing(config) + config.lead)
    parts = {
        "learn": (config.learn, 1),
        "gap": (config.gap, config.gap),
        "forecasts": (tested, 1),
        "climate": (config.climate, config.snapshot),
    }
    for part, (count, every) in parts.items():
        start = state
        state = hg.resumable_rollout(
            true, start, count * each, folder / part, every=every * each, chunk=divisor(count // every, 360),
            save=eqx.Partial(reference, imperfect), attrs={"title": "Truth in the model's variables", "seed": seed},
            progress=f"truth {seed}, {part}",
        )  # fmt: skip
        if part == "forecasts":
            state = start  # the climate has the same first year


def frames(folder: Path, part: str) -> np.ndarray:
    """q of a part of the truth, `[time, layer, y, x]`."""
    return data.read_store(folder / part / "output.zarr")["q"].values


def increments(config: Config, seed: int, truth_folder: Path, folder: Path):
    """The model nudged through the training years: its states x and what the nudging adds, g = (x_ref − x)/τ.

    The reference is linear in time between frames; x and g are kept at the frames. Watt-Meyer et al. (2021),
    doi:10.1029/2021GL092555.
    """
    q = frames(truth_folder, "learn")
    each = int(config.window / config.model_dt)
    nudged = model(config, seed, closures.Relaxation({"q": q[0]}, config.nudging))
    toward = lambda target: eqx.tree_at(lambda m: m.closure.target["q"], nudged, target)

    def window(state, ends):
        x = nudged.decode(state)["q"]
        for j in range(each):
            state = toward(ends[0] + (ends[1] - ends[0]) * j / each).step(state)
        return state, (x, (ends[0] - x) / config.nudging)

    run = jax.jit(lambda state, ends: jax.lax.scan(window, state, ends))
    _, (x, g) = run(nudged.encode({"q": q[0]}), np.stack([q[:-1], q[1:]], 1))
    first = min(40, len(x) // 4)  # ten days until the model follows
    grid = nudged.equation.grid
    attrs = {"title": "States and nudging tendencies", "nudging_s": config.nudging, "seed": seed}
    time = config.window * np.arange(first, len(x))
    dataset = data.to_dataset({"q": x[first:], "S": g[first:]}, grid, time, attrs=attrs)
    data.save_netcdf(dataset, folder / "increments.nc")


def learning_data(folder: Path) -> dict[str, np.ndarray]:
    """States q (s-1) and tendencies S (s-2) of the nudged run, `[time, layer, y, x]`."""
    import xarray as xr

    with xr.open_dataset(folder / "increments.nc", decode_times=False) as dataset:
        return {name: dataset[name].values for name in ("q", "S")}


def climatology(learn) -> hg.AbstractClosure:
    """The mean increment at every point."""
    return closures.BiasCorrection.from_increments({"q": learn["S"]})


def regression(config: Config, seed: int, learn) -> hg.AbstractClosure:
    """Least squares on a 5 × 5 stencil of q, u and v, the same everywhere, plus an intercept at every point."""
    low, low_net = model(config, seed), nn.CNN((2 * len(INPUTS), 2), (5,), key=jr.key(0))
    some = {name: a[:: max(1, len(a) // 400)] for name, a in learn.items()}
    fields = jax.vmap(lambda q: low.view(low.encode({"q": q})))(some["q"])
    scaled = hg.NetworkClosure.from_data(low_net, {n: np.asarray(fields[n]) for n in INPUTS}, {"q": some["S"]})
    x = np.concatenate([np.asarray(fields[n]) for n in INPUTS], 1) / np.asarray(scaled.input_scale)[:, None, None]
    y = some["S"] / np.asarray(scaled.output_scale)[:, None, None]
    mean = x.mean(0), y.mean(0)
    square, product = np.zeros((25 * x.shape[1],) * 2), np.zeros((25 * x.shape[1], 2))
    for a, b in zip(x - mean[0], y - mean[1], strict=True):
        taps = np.stack([np.roll(a, (2 - i, 2 - j), (1, 2)) for i in range(5) for j in range(5)], 1)
        taps = taps.reshape(square.shape[0], -1).astype(float)
        square, product = square + taps @ taps.T, product + taps @ b.reshape(2, -1).T
    ridge = 1e-6 * np.trace(square) / len(square) * np.eye(len(square))
    weights = np.linalg.solve(square + ridge, product).T.reshape(2, x.shape[1], 5, 5)
    net = eqx.tree_at(lambda net: net.weights, low_net, (jnp.asarray(weights, jnp.result_type(float)),))
    scaled = eqx.tree_at(lambda c: c.net, scaled, net)
    mean_of_network = np.asarray(net(jnp.asarray(mean[0]))) * np.asarray(scaled.output_scale)[:, None, None]
    intercept = mean[1] * np.asarray(scaled.output_scale)[:, None, None] - mean_of_network
    return hg.Sum(closures.BiasCorrection({"q": intercept}), scaled)


def untrained(config: Config, seed: int, learn) -> hg.AbstractClosure:
    """The mean increment plus the network at its random start, which adds nothing."""
    low = model(config, seed)
    some = learn["q"][:: max(1, len(learn["q"]) // 64)]
    fields = jax.vmap(lambda q: low.view(low.encode({"q": q})))(some)
    channels = (2 * len(INPUTS), config.channels, config.channels, 2)
    net = nn.CNN(channels, (5, 3, 3), key=jr.key(seed), activation=jax.nn.silu)
    inputs = {name: np.asarray(fields[name]) for name in INPUTS}
    return hg.Sum(climatology(learn), hg.NetworkClosure.from_data(net, inputs, {"q": learn["S"]}))


def train_offline(config: Config, seed: int, increments_folder: Path, folder: Path):
    """Least squares against the increments."""
    learn = learning_data(increments_folder)
    low = model(config, seed, untrained(config, seed, learn))
    batches = samples(learn, config.batch, config.offline_steps, jr.key(100 + seed))
    rate = optax.cosine_decay_schedule(config.offline_rate, config.offline_steps, 0.02)
    _fit(low, batches, train.offline(metrics.mse("S")), rate, seed, folder, f"offline, seed {seed}")


def train_online(config: Config, seed: int, truth_folder: Path, increments_folder: Path, offline: Path, folder: Path):
    """Through the solver: forecasts against the reference, by the energy of the error and the error of the spectra."""
    low = model(config, seed, load_closure(config, seed, increments_folder, offline))
    each = int(config.window / config.model_dt)
    q = {"q": frames(truth_folder, "learn")}
    batches = windows(q, config.horizon + 1, config.batch, config.online_steps, jr.key(200 + seed))
    rate = optax.cosine_decay_schedule(config.online_rate, config.online_steps, 0.02)
    fields, spectra = metrics.energy(low.equation), metrics.spectral(low.equation)
    loss = lambda prediction, target: fields(prediction, target) + config.spectra * spectra(prediction, target)
    objective = train.online(loss, every=each, chunk=1)
    _fit(low, batches, objective, rate, seed, folder, f"online, seed {seed}")


def load_closure(config: Config, seed: int, increments_folder: Path, folder: Path) -> hg.AbstractClosure:
    """The trained correction of a stage, verified."""
    like = model(config, seed, untrained(config, seed, learning_data(increments_folder))).closure
    return checkpoint.load(folder / "closure.ckpt", like)


def forecasts(config: Config, seed: int, truth_folder: Path, models: dict) -> dict[str, np.ndarray]:
    """Root mean square error of velocity, m s-1, at every window of the forecasts, per model: `[window]`."""
    q, each, spacing = frames(truth_folder, "forecasts"), int(config.window / config.model_dt), _spacing(config)
    first = spacing * np.arange(config.starts)
    future = np.stack([q[i + 1 : i + 1 + config.lead] for i in first])
    flow = model(config, seed).equation
    error = lambda p, t: _velocity_error(flow, p["q"], t["q"])
    table = hg.evaluate(
        models, {"q": q[first]}, {"q": future}, steps=each * config.lead, every=each, metrics={"error": error}
    )
    return {label: row["error"] for label, row in table.items()}


def _velocity_error(flow, p, t):
    """√⟨|u_p − u_t|²⟩ over area and depth, per frame."""

    def one(q):
        u, v = flow.grid.velocity(flow.invert(flow.grid.to_spectral(q)))
        return jnp.sqrt(jnp.sum(flow.thickness * flow.grid.mean(u**2 + v**2)))

    return jax.vmap(one)(p - t)


def free_run(config: Config, seed: int, closure, start, folder: Path):
    """A free run through the tested years; `blew_up.json` if it does not get there."""
    low, each = model(config, seed, closure), int(config.window / config.model_dt)
    snapshots = config.climate // config.snapshot
    decode = lambda model, state: model.decode(state)
    try:
        hg.resumable_rollout(
            low, low.encode(start, jr.key(seed)), config.climate * each, folder / "run", every=config.snapshot * each,
            chunk=divisor(snapshots, 12), save=decode, attrs={"title": "Free run", "seed": seed},
        )  # fmt: skip
    except hg.BlewUp as error:
        (folder / "blew_up.json").write_text(json.dumps({"field": error.field, "step": error.step}))


def _fit(low, batches, objective, rate, seed: int, folder: Path, label: str):
    optimiser = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate))
    trained, log = train.fit(
        low, batches, objective, optimiser, where=lambda m: m.closure.parts[1].net, key=jr.key(300 + seed),
        checkpoints=checkpoint.Checkpoints(folder / "checkpoints"), every=50, progress=label,
    )  # fmt: skip
    checkpoint.save(folder / "closure.ckpt", trained.closure, {"training": label, "sign": "tendency"})
    (folder / "log.json").write_text(json.dumps(log))


def _spacing(config: Config) -> int:
    """Windows between first-guess forecasts, spread over a year or over what there is."""
    return max(1, min(1440, config.climate - config.lead) // config.starts)
