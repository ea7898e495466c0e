"""Incremental modes: closed weights are zero, growth follows the true gradient, shapes and compilations stay."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import error

import hybridgcm as hg
from hybridgcm import nn, train
from hybridgcm.train.incremental import Opened

KEY = jax.random.key(0)
POINTS = np.arange(16) / 16


class Map(eqx.Module):
    """y = convolution of x on one period."""

    spectral: nn.SpectralConvolution

    def __call__(self, x):
        return self.spectral(x, None)


def net():
    return Map(nn.SpectralConvolution(1, 1, (9, 9), key=KEY))


def waves(number, count=8):
    """Fields with waves up to `number` along both axes."""
    rng, field = np.random.default_rng(number), 0
    for l in range(-number, number + 1):
        for k in range(number + 1):
            phase = rng.uniform(0, 2 * np.pi, (count, 1, 1, 1))
            field = field + np.cos(2 * np.pi * (l * POINTS[:, None] + k * POINTS) + phase)
    return jnp.asarray(field, jnp.float32)


def loss(model, batch, key):
    return jnp.mean((jax.vmap(model)(batch["x"]) - batch["y"]) ** 2)


def trained(x, y, steps=60, start=1, every=10, **kwargs):
    optimiser = train.incremental(optax.adam(3e-2), start, every=every, **kwargs)
    params = net()
    state = optimiser.init(params)
    step = jax.jit(lambda p, s: _one(p, s, optimiser, x, y))
    limits = []
    for _ in range(steps):
        params, state = step(params, state)
        limits.append(int(state.limits[0]))
    return params, limits, step._cache_size()


def _one(params, state, optimiser, x, y):
    slope = jax.grad(loss)(params, {"x": x, "y": y}, None)
    updates, state = optimiser.update(slope, state, params)
    return optax.apply_updates(params, updates), state


def test_closed_weights_are_zero_and_shapes_stay():
    x = waves(4)
    model, limits, compiled = trained(x, x, steps=9)
    weights = np.asarray(model.spectral.weights)
    number = np.maximum(np.abs(np.fft.fftfreq(9, 1 / 9))[:, None], np.arange(5)).round()
    assert weights.shape == net().spectral.weights.shape and compiled == 1
    assert np.all(weights[..., number > 1] == 0) and np.all(weights[..., number <= 1] != 0)
    assert limits == [1] * 9


def test_modes_are_opened_where_the_gradient_asks_for_them():
    """The truth has waves up to 3: those are opened one by one, at the decisions; with waves up to 1 none is."""
    low = waves(1)
    assert trained(low, 2 * low)[1][-1] == 1
    high = waves(3)
    model, limits, compiled = trained(high, 2 * high, steps=400, explained=0.99)
    assert limits[9:30:10] == [2, 3, 3] and limits[-1] == 3 and compiled == 1
    assert error(jax.vmap(model)(high), 2 * high) < 0.02


def test_a_network_with_closed_modes_is_the_one_without_them():
    x = waves(4)
    model, _, _ = trained(x, x, steps=3)
    small = nn.SpectralConvolution(1, 1, (3, 3), key=KEY)
    rows = np.r_[0:2, 8]
    weights = model.spectral.weights[:, :, :, rows][..., :2]
    small = eqx.tree_at(lambda s: (s.weights, s.bias), small, (weights, model.spectral.bias))
    assert error(small(x[0], None), model(x[0])) < 1e-5


def test_fit_trains_saves_and_resumes_it(tmp_path):
    """A whole FNO, every convolution with a limit of its own; a resumed run is the uninterrupted one bit for bit."""
    fno = nn.Bounded(nn.FNO(3, 1, modes=(7, 7), hidden=4, layers=2, key=KEY))
    x = np.asarray(waves(3))
    pair = {"x": x, "y": 2 * x}
    optimiser = train.incremental(optax.adam(1e-2), 0, explained=1.0, every=2)
    fit = lambda **more: hg.fit(fno, [pair] * 6, loss, optimiser, where=lambda m: m.net, key=KEY, every=2, **more)

    def killed(step, model, record):
        if step == 4:
            raise KeyboardInterrupt

    whole, _ = fit()
    with pytest.raises(KeyboardInterrupt):
        fit(checkpoints=hg.Checkpoints(tmp_path / "c"), callback=killed)
    again, _ = fit(checkpoints=hg.Checkpoints(tmp_path / "c"), callback=lambda step, model, record: None)
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(again), strict=True):
        assert np.array_equal(a, b) if eqx.is_array(a) else a is b
    assert not np.allclose(whole.net.blocks[0].spectral.weights[..., 2, 2], 0)


def test_bad_input():
    for settings in ({"start": -1}, {"start": 1, "every": 0}, {"start": 1, "explained": 0.0}):
        with pytest.raises(ValueError, match="incremental needs"):
            train.incremental(optax.adam(1e-2), **settings)
    with pytest.raises(ValueError, match="none is trained here"):
        train.incremental(optax.adam(1e-2), 1).init({"w": jnp.ones(3)})
    optimiser = train.incremental(optax.sgd(0.1), 1)
    params = eqx.filter(net(), eqx.is_inexact_array)
    state = optimiser.init(params)
    assert isinstance(state, Opened)
    with pytest.raises(ValueError, match="needs params"):
        optimiser.update(params, state)
