"""Scores by wavenumber: identities with mean squares, phases, ensembles drawn from the truth's own distribution."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import double, error

import hybridgcm as hg
from hybridgcm import metrics

PLANE, SPHERE = double(16), hg.Sphere(10, dtype=jnp.float64)
GRIDS = pytest.mark.parametrize("grid", (PLANE, SPHERE), ids=("torus", "sphere"))


def fields(grid, *lead, seed=0):
    """Random fields of all resolved modes."""
    noise = np.random.default_rng(seed).normal(size=(*lead, 2, *grid.shape))
    return grid.to_grid(grid.to_spectral(jnp.asarray(noise))) * 1e-5


@GRIDS
def test_mean_squares_are_what_spectra_and_coherence_say(grid):
    """Σ (√P − √T)² + 2√(PT)(1 − Coh) is the mean square error; with the maximum it is no less."""
    p, t = {"q": fields(grid, 3)}, {"q": fields(grid, 3, seed=1)}
    mean = lambda a: np.asarray(grid.mean(a))
    square = mean((p["q"] - t["q"]) ** 2) / mean(t["q"] ** 2)
    adjusted = np.asarray(metrics.adjusted_mse("q", grid=grid)(p, t))
    assert adjusted.shape == (3, 2) and (adjusted >= square * (1 - 1e-12)).all()
    assert np.abs(metrics.adjusted_mse("q", grid=grid)(t, t)).max() < 1e-12
    same = {"q": -t["q"]}  # P = T: the maximum is the root
    assert error(metrics.adjusted_mse("q", grid=grid)(same, t), np.full((3, 2), 4.0)) < 1e-10


@GRIDS
def test_blurring_pays_in_mean_squares_only(grid):
    """A field with the truth's spectrum in another place: half the amplitude has less mean square error, more AMSE."""
    t = {"q": fields(grid, 4)}
    p = jnp.roll(t["q"], 5, -1)
    whole, half = ({"q": factor * p} for factor in (1.0, 0.5))
    score = lambda a: np.asarray(metrics.adjusted_mse("q", grid=grid)(a, t))
    relative = lambda a: np.asarray(metrics.lp("q", grid=grid)(a, t)) ** 2
    assert (relative(half) < 0.8 * relative(whole)).all()
    assert error(score(half) - score(whole), np.full((4, 2), 0.25)) < 1e-9


@GRIDS
def test_coherence_is_a_correlation_by_wavenumber(grid):
    t = fields(grid)
    hat, step = grid.to_spectral(t), 1 / grid.radius if grid is SPHERE else 2 * np.pi / grid.length[0]
    large = -grid.eigenvalues < (3.9 * step) ** 2
    mixed = grid.to_grid(jnp.where(large, hat, -hat))
    found = np.asarray(metrics.coherence("q", grid=grid)({"q": mixed}, {"q": t}))
    assert np.abs(found[:, 1:3] - 1).max() < 1e-9 and np.abs(found[:, 5:7] + 1).max() < 1e-9
    assert np.abs(metrics.coherence("q", grid=grid)({"q": 0 * t}, {"q": t})).max() == 0


@GRIDS
def test_spectral_crps_is_fair(grid):
    """Members from the truth's distribution score the same for 2 and for 8; too little variance scores worse."""
    rng = jax.random.key(0)
    make = lambda count, factor=1.0: factor * jnp.stack([fields(grid, 60, seed=10 + i) for i in range(count)])
    truth = {"q": fields(grid, 60, seed=int(jax.random.randint(rng, (), 100, 1000)))}
    score = lambda members: float(np.mean(np.asarray(metrics.spectral_crps("q", grid=grid)({"q": members}, truth))))
    two, eight = score(make(2)), score(make(8))
    assert abs(two / eight - 1) < 0.02
    assert score(make(8, 0.5)) > 1.02 * eight and score(make(8, 1.6)) > 1.02 * eight
    one = jnp.repeat(make(1), 3, 0)
    size = metrics.spectral_crps("q", grid=grid)({"q": jnp.repeat(truth["q"][None], 3, 0)}, truth)
    assert np.abs(size).max() < 1e-9 and score(one) > eight


def test_they_are_losses():
    t = {"q": fields(PLANE)}
    for metric, p in (
        (metrics.adjusted_mse("q", grid=PLANE), fields(PLANE, seed=1)),
        (metrics.spectral_crps("q", grid=PLANE), fields(PLANE, 3, seed=1)),
    ):
        loss = lambda a, metric=metric: jnp.mean(metric({"q": a}, t))
        slope = jax.grad(loss)(p)
        away = np.random.default_rng(2).normal(size=p.shape) * 1e-5
        change = (float(loss(p + 1e-5 * away)) - float(loss(p - 1e-5 * away))) / 2e-5
        assert abs(float(jnp.sum(slope * away)) / change - 1) < 1e-5
        assert np.isfinite(jax.grad(loss)(jnp.broadcast_to(t["q"], p.shape))).all()


@GRIDS
def test_networks_that_are_zero_at_first_can_be_trained_by_them(grid):
    """At a prediction of zero, and of the right mean alone, the way down is towards the truth."""
    t = fields(grid)
    score = metrics.adjusted_mse("q", grid=grid)
    for start in (0 * t, 0 * t + grid.mean(t)[:, None, None]):
        slope = jax.grad(lambda a: jnp.mean(score({"q": a}, {"q": t})))(start)
        assert np.isfinite(slope).all() and float(jnp.sum(slope * (t - start))) < 0


def test_bad_input():
    t = {"q": fields(PLANE)}
    with pytest.raises(ValueError, match="no 'q'"):
        metrics.coherence("q", grid=PLANE)({"p": t["q"]}, t)
    with pytest.raises(ValueError, match="2 members or more"):
        metrics.spectral_crps("q", grid=PLANE)({"q": t["q"][None]}, t)
    with pytest.raises(ValueError, match="differ in shape"):
        metrics.adjusted_mse("q", grid=PLANE)({"q": t["q"][:1]}, t)
