"""What each stage of the closure experiment computes, into a folder of its own."""

import json
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax

import hybridgcm as hg
from experiments._run import divisor
from experiments.closure import losses
from experiments.closure.config import Config
from hybridgcm import checkpoint, coarsen, data, diagnostics, metrics, nn, train
from hybridgcm.batches import concatenate, samples, windows


def model(config: Config, n: int, closure=None) -> hg.Model:
    """The two-layer model on n² points with pyqg's filter and AB3, as in Ross et al. (2023)."""
    grid = hg.Torus(n, config.length, dealias=None)
    flow = hg.QuasiGeostrophic.two_layer(
        grid, rd=config.rd, delta=config.delta, beta=config.beta, U=(config.shear, 0.0), drag=config.drag
    )
    return hg.Model(flow, hg.Filtered(hg.AB3(), hg.exponential_filter(grid)), closure, dt=config.dt)


def classical(config: Config) -> dict[str, hg.AbstractClosure]:
    """Closures with a formula at the amplitude published for *eddy* at 64²; Leith's is that of ocean models."""
    depths = (config.delta, 1.0)
    every = {
        "Smagorinsky": hg.Smagorinsky(0.15),
        "Leith": hg.Leith(0.3),
        "Zanna-Bolton": hg.ZannaBolton(-46_761_284.0),
        "Backscatter": hg.BiharmonicBackscatter(depths, 0.007**0.5, 1.2),
    }
    return {name: every[name] for name in config.closures}


def network(config: Config, key) -> eqx.Module:
    """The untrained network: q, u, v of both layers in, the subgrid forcing of q of both layers out."""
    if config.network == "guillaumin-zanna":
        return nn.guillaumin_zanna(6, 2, key=key)
    # silu has a quadratic part, as products of gradients have; relu leaves a third more of S unexplained
    return nn.CNN((6, config.channels, config.channels, 2), (5, 3, 3), key=key, activation=jax.nn.silu)


def first_state(config: Config, member: int) -> dict:
    """Coarse white noise of 1e-6 s-1 in the upper layer and a tenth of it below, on the fine grid; no mean."""
    rough = hg.Torus(config.coarse // 2, config.length, dealias=None)
    q = 1e-6 * jr.normal(jr.fold_in(jr.key(1), member), (2, *rough.shape)) * jnp.array([1.0, 0.1])[:, None, None]
    fine = hg.Torus(config.fine, config.length, dealias=None)
    return {"q": fine.to_grid(rough.resize(rough.to_spectral(q - q.mean((1, 2), keepdims=True)), fine))}


def coarse_state(config: Config, member: int) -> dict:
    """The same start on the coarse grid, by the operator."""
    fine, coarse = (hg.Torus(n, config.length, dealias=None) for n in (config.fine, config.coarse))
    q_hat = operator(config)(fine.to_spectral(first_state(config, member)["q"]), fine, coarse)
    return {"q": coarse.to_grid(q_hat)}


def operator(config: Config):
    """The coarse-graining function that the configuration names."""
    return {"operator1": coarsen.operator1, "operator2": coarsen.operator2, "cutoff": coarsen.cutoff}[config.operator]


def snapshot(model, state) -> dict:
    """What every run keeps: q (s-1) and the kinetic energy (m2 s-2)."""
    return {**model.decode(state), "ke": diagnostics.kinetic_energy(model, state)}


def fine_snapshot(coarse, operator, fine, state) -> dict:
    """The same for the truth; its kinetic energy is that of the coarse-grained flow, to compare with the models'."""
    return {**fine.decode(state), "ke": _coarse_energy(coarse, operator, fine, state)}


def training_frame(coarse, operator, fine, state) -> dict:
    """Coarse-grained q, its subgrid forcing S (s-2, to be added to the tendency) and the kinetic energy."""
    frame = coarsen.sample(fine, coarse, state.y, operator)
    return frame | {"ke": _coarse_energy(coarse, operator, fine, state)}


def _coarse_energy(coarse, operator, fine, state):
    low = eqx.tree_at(lambda s: s.y, state, coarsen.state(fine.equation.grid, coarse.equation.grid, state.y, operator))
    return diagnostics.kinetic_energy(coarse, low)


def truth(config: Config, member: int, folder: Path):
    """The fine run up to the scored years: spin-up, then training frames on the coarse grid; its end in `end.ckpt`."""
    fine, coarse = model(config, config.fine), model(config, config.coarse)
    state = fine.encode(first_state(config, member), jr.key(member))
    state = _fine_run(config, member, "spin-up", config.spin_up, state, folder)
    grid = coarse.equation.grid
    frames = {
        "every": config.frame,
        "save": eqx.Partial(training_frame, coarse, operator(config)),
        "dimensions": {name: ("layer", "y", "x") for name in ("q", "S")},
        "coordinates": {"x": grid.x, "y": grid.y},
    }
    # The data of other members train nothing.
    state = _fine_run(
        config, member, "learn", config.learn, state, folder, **(frames if member == config.first else {})
    )
    checkpoint.save(folder / "end.ckpt", state)


def truth_climate(config: Config, member: int, start: Path, folder: Path):
    """The scored years of the fine run, from the end of the stage `truth` in the folder `start`."""
    like = model(config, config.fine).encode(first_state(config, member), jr.key(member))
    _fine_run(config, member, "climate", config.climate, checkpoint.load(start / "end.ckpt", like), folder)


def _fine_run(config: Config, member: int, part: str, steps: int, state, folder: Path, **output):
    """One part of the truth into folder/part, fine snapshots unless `output` says otherwise; returns its last state."""
    fine, coarse = model(config, config.fine), model(config, config.coarse)
    attrs = coarsen.metadata(fine, coarse, operator(config)) | {"title": "Two-layer quasi-geostrophic truth"}
    output = {"every": config.snapshot, "save": eqx.Partial(fine_snapshot, coarse, operator(config))} | output
    return hg.resumable_rollout(
        fine, state, steps, folder / part, chunk=divisor(steps // output["every"], max(1, 720 // output["every"])),
        attrs=attrs | {"part": part, "member": member}, progress=f"truth {config.fine}², {part}", **output,
    )  # fmt: skip


def free_run(
    config: Config, closure, member: int, steps: int, start: Mapping, folder: Path, progress: str | None = None
):
    """A free run of the coarse model, with its end if it blows up (`blew_up.json`)."""
    low = model(config, config.coarse, closure)
    state = low.encode(start, jr.key(member))
    try:
        hg.resumable_rollout(
            low, state, steps, folder / "run", every=config.snapshot, chunk=divisor(steps // config.snapshot, 12),
            save=snapshot, attrs={"title": "Coarse model", "member": member}, progress=progress,
        )  # fmt: skip
    except hg.BlewUp as error:
        (folder / "blew_up.json").write_text(json.dumps({"field": error.field, "step": error.step}))


def learning_data(folder: Path) -> dict[str, np.ndarray]:
    """q and S of the training frames `[time, layer, y, x]`."""
    frames = data.read_store(folder / "learn" / "output.zarr")
    return {name: frames[name].values for name in ("q", "S")}


def tune(config: Config, closure, amplitudes: Sequence[float], truth_folder: Path, folder: Path):
    """Free runs at several amplitudes against the training period: one number fitted to climate.

    Error: distributional and spectral Perezhogin errors against the coarse-grained truth, without the fluxes, whose
    subgrid part the coarse data do not hold. The best amplitude has the smallest product of the two; 0 is tried too.
    """
    q = learning_data(truth_folder)["q"]
    low = model(config, config.coarse)
    target = metrics.climate(low, q[:: config.snapshot // config.frame])
    rows = []
    for amplitude in (0.0, *amplitudes):
        part = folder / f"amplitude-{amplitude:g}"
        scaled = None if amplitude == 0 else hg.Scaled(closure, amplitude)
        free_run(config, scaled, config.first, config.tuning, {"q": q[0]}, part)
        row = {"amplitude": amplitude, "distributional": np.nan, "spectral": np.nan}
        if not (part / "blew_up.json").exists():
            run = data.read_store(part / "run" / "output.zarr")["q"].values
            errors = metrics.perezhogin_errors(metrics.climate(low, run[len(run) // 4 :]), target, last=len(run))
            row["distributional"] = errors["distributional"]
            row["spectral"] = float(np.mean([errors[n] for n in ("KEspec1", "KEspec2", "APEgenspec")]))
        rows.append(row)
        shutil.rmtree(part)
    products = [row["distributional"] * row["spectral"] for row in rows]
    finite = [p if np.isfinite(p) else np.inf for p in products]
    (folder / "tuning.json").write_text(
        json.dumps({"rows": rows, "best": rows[int(np.argmin(finite))]["amplitude"]}, indent=1)
    )


def best_amplitude(folder: Path) -> float:
    """What `tune` found."""
    return json.loads((folder / "tuning.json").read_text())["best"]


def scaled(closure, amplitude: float):
    """The closure at an amplitude; none at zero, itself at one."""
    return closure if amplitude == 1 else hg.Scaled(closure, amplitude) if amplitude else None


def train_offline(config: Config, seed: int, truth_folder: Path, folder: Path):
    """Least squares against the subgrid forcing, the common way; saves `closure` and `log.json`."""
    learn = learning_data(truth_folder)
    low = model(config, config.coarse, untrained(config, seed, learn))
    batches = samples(learn, config.offline_batch, config.offline_steps, jr.key(100 + seed))
    rate = optax.cosine_decay_schedule(config.offline_rate, config.offline_steps, 0.02)
    objective = train.offline(_resolved(metrics.mse("S"), low))
    trained, log = _fit(low, batches, objective, rate, seed, folder, f"offline, seed {seed}")
    _save(config, trained.closure, log, "offline", folder)


def train_online(config: Config, seed: int, truth_folder: Path, offline: Path, folder: Path):
    """Through the solver, from the offline network; saves `closure` and `log.json`.

    For the kinetic energies of the next frames, ring by ring, and for the energy of the error, each beside what it is
    without closure. The energies alone leave it open which flow they go to and come from, the error alone would teach
    the network to drain the flow (see `metrics.spectral`). What other losses did stands in docs/training.md.
    """
    learn = learning_data(truth_folder)
    closure = load_closure(config, seed, offline, learn)
    low, q = model(config, config.coarse, closure), learn["q"]
    stages = [
        windows({"q": q}, horizon + 1, config.online_batch, steps, jr.fold_in(jr.key(200 + seed), number))
        for number, (horizon, steps) in enumerate(zip(config.horizons, config.online_steps, strict=True))
    ]
    rate = optax.cosine_decay_schedule(config.online_rate, sum(config.online_steps), 0.02)
    length, bare = max(config.horizons) + 1, model(config, config.coarse)
    some = np.stack([q[first : first + length] for first in np.linspace(0, len(q) - length, 40).astype(int)])
    rings = slice(1, int(np.sum(hg.exponential_filter(low.equation.grid)[0] == 1)))  # the first has no energy
    budget = losses.energies(bare, some, config.frame, rings)
    fields = losses.relative(_resolved(metrics.energy(low.equation), low), bare, some, config.frame)
    loss = lambda prediction, target: budget(prediction, target) + fields(prediction, target)
    objective = train.online(_resolved(loss, low), every=config.frame, chunk=1)
    trained, log = _fit(low, concatenate(*stages), objective, rate, seed, folder, f"online, seed {seed}")
    _save(config, trained.closure, log, "online", folder)


def untrained(config: Config, seed: int, learn: Mapping) -> hg.NetworkClosure:
    """The network at its random start, with the scales of the training data."""
    low = model(config, config.coarse)
    some = learn["q"][:: max(1, len(learn["q"]) // 64)]
    fields = jax.vmap(lambda q: low.view(low.encode({"q": q})))(some)
    inputs = {name: np.asarray(fields[name]) for name in ("q", "u", "v")}
    outputs = {"q": learn["S"][:: max(1, len(learn["S"]) // 64)]}
    return hg.NetworkClosure.from_data(network(config, jr.key(seed)), inputs, outputs)


def load_closure(config: Config, seed: int, folder: Path, learn: Mapping) -> hg.NetworkClosure:
    """The trained closure of a training stage, verified."""
    like = model(config, config.coarse, untrained(config, seed, learn)).closure
    return checkpoint.load(folder / "closure.ckpt", like)


def cost(config: Config, closure, start: Mapping, steps: int = 400) -> float:
    """Milliseconds per step of the coarse model, the median of five runs of `steps` steps."""
    low = model(config, config.coarse, closure)
    run = eqx.filter_jit(lambda model, state: hg.rollout(model, state, steps, every=steps, save=None)[0])
    state = run(low, low.encode(start))
    times = []
    for _ in range(5):
        begin = time.perf_counter()
        state = jax.block_until_ready(run(low, state))
        times.append(time.perf_counter() - begin)
    return 1e3 * float(np.median(times)) / steps


def _resolved(metric, low):
    """The metric on the scales that pyqg's filter leaves alone; beyond them no closure can be judged."""
    grid = low.equation.grid
    return metrics.resolved(metric, grid, hg.exponential_filter(grid) == 1)


def _fit(low, batches, objective, rate, seed: int, folder: Path, label: str):
    optimiser = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate))
    points = checkpoint.Checkpoints(folder / "checkpoints")
    return train.fit(
        low, batches, objective, optimiser, where=lambda m: m.closure.net, key=jr.key(300 + seed),
        checkpoints=points, every=50, progress=label,
    )  # fmt: skip


def _save(config: Config, closure, log, kind: str, folder: Path):
    """The closure with what it was made for, and the training record."""
    about = {"training": kind, "operator": config.operator, "grid": config.coarse, "dt": config.dt, "sign": "tendency"}
    checkpoint.save(folder / "closure.ckpt", closure, about | {"stepper": "AB3 with pyqg's exponential filter"})
    (folder / "log.json").write_text(json.dumps(log))
