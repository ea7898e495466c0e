"""Elliptic pairs by independent derivatives and by hand, the network of the paper, and the foundation workflow."""

import json
import re

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from helpers import error, same_bits

import hybridgcm as hg
from experiments.foundation import baselines, problems, report, stages
from experiments.foundation.config import Config
from experiments.foundation.run import main
from hybridgcm import nn, pairs

MADE = {"poisson": pairs.poisson, "advection_diffusion": pairs.advection_diffusion, "helmholtz": pairs.helmholtz}


def constants(pair):
    return pair["k"][..., 0, 0], pair["v"][..., 0, 0], pair["w"][:, 0, 0, 0]


# Pairs


@pytest.mark.parametrize("kind", MADE)
@pytest.mark.parametrize("n", [16, 24])
def test_pairs_solve_their_equation_by_the_derivatives_of_the_grid(kind, n):
    """On a grid without dealiasing, which knows nothing of these problems."""
    pair = MADE[kind](n, 8, jr.key(0))
    grid, (k, v, w) = hg.Torus(n, 1.0, dealias=None, dtype=np.float64), constants(pair)
    for i in range(8):
        u_x, u_y = grid.gradient(grid.to_spectral(jnp.asarray(pair["u"][i])))
        flux_x = k[i, 0] * u_x + k[i, 2] * u_y
        flux_y = k[i, 2] * u_x + k[i, 1] * u_y
        left = v[i, 0] * u_x + v[i, 1] * u_y - w[i] * pair["u"][i]
        left = left - grid.to_grid(grid.divergence(flux_x, flux_y))
        low = grid.to_spectral(left - pair["f"][i])
        if n % 2 == 0:  # second derivatives of the Nyquist modes are theirs here, slopes of slopes there
            low = low.at[..., n // 2, :].set(0).at[..., :, -1].set(0)
        assert np.abs(grid.to_grid(low)).max() < 1e-9
    assert np.abs(pair["u"].mean((2, 3))).max() < 1e-12 > np.abs(pair["f"].mean((2, 3))).max()


def test_one_wave_has_the_solution_on_paper():
    """f = cos(2π(2x + y)) is divided by (2π)²(4 k_xx + k_yy + 4 k_xy) − ω + 2πi(2 v_x + v_y)."""
    n, k, v, w = 16, np.array([0.03, 0.02, 0.01]), np.array([0.4, -0.3]), np.array(0.7)
    y, x = np.meshgrid(np.arange(n) / n, np.arange(n) / n, indexing="ij")
    phase = 2 * np.pi * (2 * x + y)
    even, odd = 4 * np.pi**2 * (0.12 + 0.02 + 0.04) - 0.7, 2 * np.pi * 0.5
    expected = (even * np.cos(phase) + odd * np.sin(phase)) / (even**2 + odd**2)
    found = pairs.solve_elliptic(jnp.asarray(np.cos(phase)), *map(jnp.asarray, (k, v, w)))
    assert error(found, expected) < 1e-13


def test_coefficients_are_drawn_as_told():
    pair = pairs.poisson(8, 400, jr.key(1), anisotropy=(2, 6))
    k, v, w = constants(pair)
    tensors = np.stack([np.stack([k[:, 0], k[:, 2]], -1), np.stack([k[:, 2], k[:, 1]], -1)], -1)
    low, high = np.linalg.eigvalsh(tensors).T
    assert error(low, 0.01) < 1e-4 and not v.any() and not w.any()
    assert 2 <= high.min() / 0.01 < 2.1 and 5.9 < high.max() / 0.01 <= 6.0001
    assert abs(np.mean(high) / 0.04 - 1) < 0.05 and abs(np.mean(k[:, 2])) < 0.002
    k, v, w = constants(pairs.helmholtz(8, 200, jr.key(2), frequency=(3, 6)))
    assert set(w) == {3, 4, 5, 6} and not v.any() and error(k, [0.01, 0.01, 0]) < 1e-6
    assert np.abs(pairs.helmholtz(32, 200, jr.key(2))["u"]).max() <= 2


def test_advection_has_the_share_asked_for():
    """In the mean over samples: 1.5 was asked for, and what the table does not tell is where single samples lie."""
    pair = pairs.advection_diffusion(32, 400, jr.key(3), ratio=(1.5, 1.5))
    u, none = jnp.asarray(pair["u"][:, 0]), jnp.zeros((400, 32, 32))
    k, v, w = map(jnp.asarray, constants(pair))
    size = lambda k, v: np.linalg.norm(pairs.elliptic_residual(u, none, k, v, w), axis=(1, 2))
    assert abs(np.mean(size(0 * k, v) / size(k, 0 * v)) / 1.5 - 1) < 0.1
    share = np.linalg.norm(v, axis=1)
    assert error(share, share[0]) < 1e-5  # |λ v|, the same λ for all


def test_sources_are_sparse_and_balanced():
    """Amplitudes are told by the values at the centres, where neighbours count with exp(−2) and exp(−4)."""
    n = 96
    pair = pairs.poisson(n, 64, jr.key(4))
    f = pair["f"][:, 0]
    assert error(f.max((1, 2)) - f[:, 0, 0], 1) < 1e-4  # corners are far from all Gaussians: minus the mean
    nodes = np.round((0.5 + (np.arange(12) - 5.5) / 16) * n).astype(int)
    one = np.exp(-0.5 * ((nodes[:, None] / n - nodes / n) * 32) ** 2)
    values = (f - f[:, :1, :1])[:, nodes][:, :, nodes]
    amplitudes = np.linalg.solve(one, np.swapaxes(np.linalg.solve(one, values), 1, 2))
    share = (np.abs(amplitudes) < 1e-3).mean((1, 2))
    assert error(share.reshape(-1, 4).mean(0), [0.2, 0.4, 0.6, 0.8]) < 0.05


def test_pairs_refuse_what_cannot_be():
    for wrong, expected in (
        (lambda: pairs.poisson(2, 4, jr.key(0)), "n >= 4"),
        (lambda: pairs.poisson(8, 4, jr.key(0), anisotropy=(5, 1)), "anisotropy is a range"),
        (lambda: pairs.advection_diffusion(8, 4, jr.key(0), ratio=(-1, 1)), "ratio is a range"),
        (lambda: pairs.helmholtz(8, 4, jr.key(0), frequency=(1.5, 3)), "whole numbers"),
    ):
        with pytest.raises(ValueError, match=expected):
            wrong()


# Networks


@pytest.mark.parametrize(
    ("hidden", "modes", "published"),
    [(16, 4, 67_281), (16, 16, 1_050_321), (32, 32, 16_783_777), (64, 32, 67_134_273), (128, 32, 268_535_425)],
)
def test_a_classic_fno_has_the_published_number_of_weights(hidden, modes, published):
    make = lambda key: nn.ClassicFNO(4, 1, modes=modes, hidden=hidden, key=key)
    shapes = eqx.filter_eval_shape(make, jr.key(0))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes) if hasattr(leaf, "size")) == published


def busy(inputs=4, modes=3):
    net = nn.ClassicFNO(inputs, 1, modes=modes, hidden=6, layers=2, key=jr.key(0))
    last = jr.normal(jr.key(1), net.projection[1].weight.shape)
    return eqx.tree_at(lambda n: n.projection[1].weight, net, last)


def test_a_classic_fno_knows_no_place_and_no_resolution():
    net, grid = eqx.filter_jit(busy()), hg.Torus(16, 1.0)
    x = jr.normal(jr.key(2), (4, 16, 16))
    moved = jnp.roll(x, (3, 5), (1, 2))
    assert error(net(moved, None), jnp.roll(net(x, None), (3, 5), (1, 2))) < 1e-5
    assert error(net(x, grid), net(x, None)) < 1e-5
    assert not nn.ClassicFNO(4, 1, modes=3, hidden=6, key=jr.key(0))(x, None).any()
    with pytest.raises(ValueError, match="maps"):
        net(x[:3], None)


def test_a_homogeneous_network_is_blind_to_the_size_of_its_inputs():
    net, x = eqx.filter_jit(nn.Homogeneous(busy())), jr.normal(jr.key(3), (4, 16, 16))
    assert same_bits(net(x), net(8 * x))
    assert error(net(3 * x), net(x)) < 1e-5 < error(net(x.at[1].multiply(3)), net(x))
    assert np.isfinite(net(jnp.zeros((4, 16, 16)))).all()


# Workflow


@pytest.mark.parametrize("kind", MADE)
def test_least_squares_find_the_equation_from_eight_pairs(kind):
    pair = MADE[kind](16, 12, jr.key(5))
    few = {name: a[:8] for name, a in pair.items()}
    missed = lambda method: np.linalg.norm(method(few)(pair) - pair["u"]) / np.linalg.norm(pair["u"])
    assert missed(baselines.regression) < 2e-3 < 0.1 < missed(baselines.isotropic)


def test_the_equation_is_zero_for_its_solution_alone():
    pair = {name: jnp.asarray(a) for name, a in pairs.poisson(16, 3, jr.key(6)).items()}
    solve = lambda x: pairs.solve_elliptic(x[0], x[1:, 0, 0], jnp.zeros(2), jnp.zeros(()))[None]
    batch = {name: pair[name] for name in ("f", "k")}
    assert stages.equation(solve, batch, None) < 1e-5
    assert abs(stages.equation(lambda x: 0 * solve(x), batch, None) - 1) < 1e-5
    assert abs(stages.equation(lambda x: 1.5 * solve(x), batch, None) - 0.5) < 1e-5


def test_saved_pairs_are_read_off_the_curve_from_scratch():
    counts, scratch = [10, 100, 1000], np.array([0.1, 0.01, 0.001])
    (first, second, last) = report.saving(counts, np.array([0.01, 0.001, 1e-4]), scratch)
    assert first[0] == 10 and abs(first[1] - 10) < 1e-9 and not first[2]
    assert abs(second[1] - 10) < 1e-9 and last[0] == 1000 and abs(last[1] - 1) < 1e-9 and last[2]


def test_parts_of_a_problem_are_independent():
    part = lambda *names: problems.problem("poisson", *names, 8, 4)["f"]
    parts = [part(shift, name) for shift in ("before", "medium") for name in ("train", "validation", "test")]
    assert len({a.tobytes() for a in parts}) == 6
    assert same_bits(part("before", "train"), parts[0])


@pytest.mark.slow
def test_smoke(tmp_path, capsys):
    written = main(["--preset", "smoke", "--out", str(tmp_path / "run")])
    text = written.read_text()
    assert {path.name for path in written.parent.glob("*.png")} == {"data.png", "shifts.png", "sizes.png", "mixed.png"}
    assert "fine-tuned without solutions" in text and re.search(r"least squares\* \| \de-\d\d", text)
    found = json.loads((written.parent / "report.json").read_text())
    assert len(found["after"]) == 20 and all(0 < run["error"] < 2 for runs in found["after"].values() for run in runs)
    capsys.readouterr()
    main(["--preset", "smoke", "--out", str(tmp_path / "run")])
    assert "starts" not in capsys.readouterr().out
    assert list(Config(modes=(4,)).problems())
