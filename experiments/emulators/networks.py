"""The networks that are put in the place of a solver: one row of a table each."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax

import hybridgcm as hg
from experiments.emulators.flows import Flow
from hybridgcm import nn


class OnGrid(eqx.Module):
    """A DeepONet with a basis of fields, asked at all their points."""

    net: nn.DeepONet

    def __call__(self, x):
        points = self.net.trunk.mean.shape[1]
        if points != x.shape[1] * x.shape[2]:
            raise ValueError(f"this basis is of fields of {points} points; got {x.shape[1:]}")
        return self.net(x, jnp.arange(points)).reshape(-1, *x.shape[1:])


def emulator(config, flow: Flow, name: str, seed: int, records: dict) -> hg.Emulator:
    """An untrained emulator of the flow; its scales are those of `records`, {name: [time, layer, y, x]}."""
    grid = flow.grid(1)
    place = jnp.asarray(flow.place(grid), grid.dtype)
    whole = hg.Emulator.from_data(lambda x: x, records, dt=flow.lead, grid=grid)
    channels = sum(a.shape[1] for a in records.values())
    net = _network(config, flow, name, channels + len(place), channels, jr.key(seed), lambda: _changes(whole, records))
    net = nn.Beside(net, place)
    if isinstance(grid, hg.Sphere):  # most of what is there stands still, and weather is small beside it
        scaled = [a / np.asarray(whole.scale[key]).reshape(-1, 1, 1) for key, a in records.items()]
        net = nn.Anomalies.from_data(net, np.concatenate(scaled, 1))
    return _with(whole, net, grid)


def at(flow: Flow, trained: hg.Emulator, factor: int) -> hg.Emulator:
    """The same weights on a grid `factor` times as fine."""
    coarse, grid = flow.grid(1), flow.grid(factor)
    net = nn.Beside(_core(trained.net), jnp.asarray(flow.place(grid), grid.dtype))
    if isinstance(usual := trained.net, nn.Anomalies):
        mean = grid.to_grid(coarse.resize(coarse.to_spectral(usual.mean), grid))
        net = nn.Anomalies(net, mean, usual.spread)
    return _with(trained, net, grid)


def _with(model: hg.Emulator, net, grid) -> hg.Emulator:
    return hg.Emulator(net, model.names, dict(model.scale), dt=model.dt, change=dict(model.change), grid=grid)


def start_noise(config, model: hg.Emulator):
    """Noise on the starts of pairs, as `train.perturbed` takes it: of the fields' size, or of that of their anomalies.

    Hashable. On a sphere .03 of the geopotential, most of which stands still, is more than changes in a lead. An SFNO
    errs there after 2,000 steps by .125, .185 and .099 of the changes of ζ, δ and φ; by .128, .212 and .137 with noise
    in that share of whole fields and without anomalies.
    """
    if not config.blur or not isinstance(model.net, nn.Anomalies):
        return config.blur
    ends = np.cumsum([np.size(model.scale[name]) for name in model.names])[:-1]
    parts = zip(model.names, np.split(np.asarray(model.net.spread, float), ends), strict=True)
    sizes = {name: config.blur * np.asarray(model.scale[name], float) * spread for name, spread in parts}
    return tuple((name, tuple(np.atleast_1d(size).tolist())) for name, size in sizes.items())


def weights(model: hg.Emulator):
    """What is trained of an emulator."""
    net = _core(model.net)
    return net.net.branches if isinstance(net, OnGrid) else net


def _core(net):
    """The network without what it is told."""
    return _core(net.net) if isinstance(net, nn.Beside | nn.Anomalies) else net


def count(model: hg.Emulator) -> int:
    """How many numbers are trained."""
    return sum(a.size for a in jax.tree.leaves(eqx.filter(weights(model), eqx.is_inexact_array)))


@functools.cache
def optimiser(name: str, rate: float, steps: int) -> optax.GradientTransformation:
    """Adam, clipped; its rate falls as a cosine. One linear map per wave takes ten times the rate."""
    schedule = optax.cosine_decay_schedule(rate * (10 if name == "linear" else 1), steps)
    return optax.chain(optax.clip_by_global_norm(1.0), optax.adam(schedule))


def _changes(whole: hg.Emulator, records: dict) -> np.ndarray:
    """Up to 500 changes over one lead in units of their scales, `[sample, channel, point]`."""
    first = np.linspace(0, len(next(iter(records.values()))) - 2, 500).astype(int)
    parts = [
        (records[name][first + 1] - records[name][first]) / np.asarray(whole.change[name]).reshape(-1, 1, 1)
        for name in whole.names
    ]
    return np.concatenate(parts, 1).reshape(len(first), -1, parts[0].shape[2] * parts[0].shape[3])


def _network(config, flow: Flow, name: str, inputs: int, outputs: int, key, changes):
    n, truncation = config.n, 2 * config.n // 3
    wide = lambda channels: max(4, 4 * round(channels * config.size / 4))
    if name == "POD-DeepONet":
        values = changes()
        rank = min(64, *(size // 2 for size in values.shape[::2]))
        shape = inputs, *flow.grid(1).shape
        return OnGrid(nn.pod_deeponet(shape, values, rank=rank, width=wide(128), depth=2, key=key))
    widths = wide(16), wide(32), wide(64)
    on_plane = {
        "FNO": lambda: nn.FNO(inputs, outputs, modes=(n // 2, n // 2), hidden=wide(16), key=key),
        "TFNO": lambda: nn.tensorised_fno(
            inputs, outputs, modes=(n // 2, n // 2), share=0.1, hidden=wide(16), key=key
        ),
        "UNO": lambda: nn.UNO(
            inputs, outputs, modes=[(n // 2,) * 2, (n // 4,) * 2, (n // 4,) * 2, (n // 2,) * 2],
            channels=(wide(16), wide(32), wide(32), wide(16)), scalings=(1, 0.5, 1, 2), hidden=wide(16),
            lifting=wide(32), projection=wide(32), key=key,
        ),
        "U-Net": lambda: nn.UNet(inputs, outputs, widths=widths, key=key),
        "dilated ResNet": lambda: nn.DilatedResNet(inputs, outputs, width=wide(16), blocks=2, key=key),
        "CNN": lambda: nn.CNN((inputs, *(wide(32),) * 3, outputs), (5, 3, 3, 3), key=key),
        "transformer": lambda: nn.Transformer(inputs, outputs, patch=4, width=wide(64), layers=3, key=key),
        "linear": lambda: _linear(inputs, outputs, n),
    }  # fmt: skip
    on_sphere = {
        "SFNO": lambda: nn.FNO(inputs, outputs, modes=truncation, hidden=wide(16), key=key),
        "local SFNO": lambda: nn.local_sfno(
            inputs, outputs, degrees=truncation, cutoff=4e7 / truncation, hidden=wide(16), key=key
        ),
        "spherical U-Net": lambda: nn.SphericalUNet(inputs, outputs, widths=widths, key=key),
        "polar CNN": lambda: nn.PolarCNN((inputs, *(wide(32),) * 3, outputs), (5, 3, 3, 3), key=key),
        "linear": lambda: nn.ScaleNetwork(inputs, outputs, truncation),
    }  # fmt: skip
    kinds = on_plane if isinstance(flow.grid(1), hg.Torus) else on_sphere
    return kinds[name]()


def _linear(inputs: int, outputs: int, n: int):
    """One complex matrix for every wave below the shortest; zero."""
    net = nn.SpectralConvolution(inputs, outputs, (n - 1, n - 1), key=jr.key(0))
    return eqx.tree_at(lambda a: a.weights, net, 0 * net.weights)
