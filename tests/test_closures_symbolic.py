"""Ross' symbolic closure against its formula, written out, and in single precision."""

import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from helpers import double, eddies, error

import hybridgcm as hg
from hybridgcm.closures import RossSymbolic
from hybridgcm.closures.symbolic import ROSS_WEIGHTS


def fields(grid, flow):
    return flow.view({"q": grid.to_spectral(jnp.asarray(eddies(grid, flow.layers, (5e-6, 5e-7)[: flow.layers])))})


def forcing(closure, given, grid):
    return closure(given, grid, closure.init(given, grid), jr.key(0))[0]


def test_symbolic_closure_is_its_formula():
    grid, U = double(64, dealias=None), np.array([0.025, -0.01])[:, None, None]
    given = {name: np.asarray(a) for name, a in fields(grid, hg.QuasiGeostrophic.two_layer(grid)).items()}
    k, l = np.asarray(grid.k), np.asarray(grid.l)  # noqa: E741
    fft, ifft = np.fft.rfft2, np.fft.irfft2
    lap = lambda a, times=1: ifft(np.asarray(grid.eigenvalues) ** times * fft(a))
    d_x, d_y = (lambda a: ifft(1j * k * fft(a))), (lambda a: ifft(1j * l * fft(a)))
    advected = lambda a: d_x((given["u"] + U) * a) + d_y(given["v"] * a)
    w = np.array(ROSS_WEIGHTS)[:, :, None, None]
    mixed = advected(given["q"])
    expected = w[0] * lap(mixed) + w[1] * lap(mixed, 2) + w[2] * lap(mixed, 3)
    expected = expected + w[3] * lap(given["q"], 2) + w[4] * lap(given["q"], 3)
    strain = w[5] * d_x(lap(given["v"])) + w[6] * d_y(lap(given["u"]))
    expected = expected + advected(advected(strain))
    found = grid.to_grid(
        forcing(RossSymbolic(U.ravel()), {name: jnp.asarray(a) for name, a in given.items()}, grid)["q_hat"]
    )
    for layer in range(2):
        assert error(found[layer], expected[layer]) < 1e-10
    single = hg.Torus(64, 1e6, dealias=None)
    low = {name: jnp.asarray(a, jnp.float32) for name, a in given.items()}
    rough = hg.Model(hg.QuasiGeostrophic.two_layer(single), hg.AB3(), RossSymbolic(U.ravel()), dt=3600.0).closure
    rough = single.to_grid(forcing(rough, low, single)["q_hat"])
    assert error(rough, expected) < 1e-4, "the weights reach 1e22: single precision must hold"


def test_symbolic_closure_is_for_two_layers():
    grid = double(16)
    one = fields(grid, hg.QuasiGeostrophic.barotropic(grid))
    with pytest.raises(ValueError, match="weights of two layers"):
        forcing(RossSymbolic(), one, grid)
