"""What `where` of `fit` and `eki` selects: parameters, never grids, scales, places and tables."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest
from helpers import eddies, same_bits

import hybridgcm as hg
from hybridgcm import nn
from hybridgcm.metrics import mse
from hybridgcm.train import fit, online
from hybridgcm.train.fit import selection


def test_a_grid_and_tables_in_what_is_selected_stay():
    """All of an equation: its numbers are trained, the tables that were made of others are not."""
    grid = hg.Torus(16, 1e6)
    flow = hg.QuasiGeostrophic.two_layer(grid, tau=6 * 3600.0)
    before = hg.Model(flow, hg.AB3(), hg.Smagorinsky(), dt=3600.0)
    batches = [{"q": jnp.stack([eddies(grid, 2, (1e-6, 5e-7), seed) for seed in (0, 1)])[None].astype(grid.dtype)}] * 2
    whole = lambda m: m.equation
    after, _ = fit(before, batches, online(mse("q")), optax.adamw(0.1, weight_decay=0.1), where=whole, key=jr.key(0))
    old, new = before.equation, after.equation
    assert new.beta != old.beta and new.tau != old.tau and not np.array_equal(new.U, old.U)
    assert same_bits(new.grid, old.grid) and same_bits(after.closure, before.closure)
    assert all(same_bits(getattr(new, n), getattr(old, n)) for n in ("stretching", "inverse", "thickness", "roughness"))
    for where in (lambda m: m.equation.grid, lambda m: (m.equation.grid.mask, m.equation.inverse)):
        with pytest.raises(ValueError, match="nothing is a parameter.*m.equation.beta"):
            fit(before, batches, online(mse("q")), optax.adam(0.1), where=where, key=jr.key(0))


def test_scales_places_and_bases_of_networks_stay():
    """Whatever is selected: all of an emulator that is told its place and its mean, all of a POD-DeepONet."""
    grid = hg.Torus(8, 1.0)
    net = nn.Beside(nn.CNN((2, 1), (3,), key=jr.key(0)), jnp.ones((1, 8, 8)))
    net = nn.Anomalies(net, jnp.zeros((1, 8, 8)), jnp.ones(1))
    emulator = hg.Emulator(net, ("c",), 2.0, dt=1.0, change=3.0, grid=grid)
    chosen = selection(emulator, lambda m: m)
    assert jax.tree.leaves(eqx.filter(emulator, chosen)) and jax.tree.leaves(chosen.net.net.net)
    assert not any(jax.tree.leaves((chosen.scale, chosen.change, chosen.grid, chosen.net.mean, chosen.net.spread)))
    assert not any(jax.tree.leaves(chosen.net.net.fields))
    values = np.random.default_rng(0).normal(size=(6, 1, 5))
    operator = nn.pod_deeponet((1, 4), values, rank=2, width=4, depth=1, key=jr.key(0))
    chosen = selection(operator, lambda m: m)
    assert not any(jax.tree.leaves(chosen.trunk)) and any(jax.tree.leaves(chosen.branches))
    closure = hg.NetworkClosure(nn.CNN((1, 1), (3,), key=jr.key(0)), ("q",), ("q",), 2.0, 3.0)
    chosen = selection(closure, lambda m: m)
    assert any(jax.tree.leaves(chosen.net)) and not chosen.input_scale and not chosen.output_scale
