"""Scores of ensembles see what is narrow or biased, whatever their size, and weigh by area."""

import jax.numpy as jnp
import numpy as np
import pytest

import hybridgcm as hg
from hybridgcm import metrics


def draws(members, spread=1.0, bias=0.0, frames=40):
    rng = np.random.default_rng(0)
    mean = rng.normal(size=(frames, 2, 16, 16))
    make = lambda *lead: jnp.asarray(mean + rng.normal(size=(*lead, *mean.shape)))
    truth = {"q": make()}
    return {"q": jnp.asarray(mean + bias) + spread * (make(members) - mean)}, truth


@pytest.mark.parametrize("members", [2, 9])
def test_scores_of_a_perfect_ensemble_do_not_depend_on_its_size(members):
    prediction, truth = draws(members)
    assert abs(float(metrics.spread_skill("q")(prediction, truth)) - 1) < 0.02
    ranks = np.asarray(metrics.rank_histogram("q")(prediction, truth))
    assert ranks.shape == (members + 1,) and abs(ranks.sum() - 1) < 1e-9
    assert np.abs(ranks * (members + 1) - 1).max() < 0.07, ranks
    many, _ = draws(60)
    fair = float(metrics.brier("q", (0.5, 1.0))(prediction, truth))
    assert abs(fair - float(metrics.brier("q", (0.5, 1.0))(many, truth))) < 0.004
    assert abs(float(metrics.brier("q", 0.5)({"q": -prediction["q"]}, {"q": -truth["q"]})) - 0.19) < 0.04


def test_scores_see_ensembles_that_are_narrow_or_biased():
    narrow, truth = draws(9, spread=0.5)
    assert abs(float(metrics.spread_skill("q")(narrow, truth)) - 0.55) < 0.1
    ranks = np.asarray(metrics.rank_histogram("q")(narrow, truth))
    assert ranks[0] > 2 * ranks[4] and ranks[-1] > 2 * ranks[4], ranks
    biased, _ = draws(9, bias=1.0)
    ranks = np.asarray(metrics.rank_histogram("q")(biased, truth))
    assert ranks[0] > 3 * ranks[-1]
    brier = metrics.brier("q", 0.0)
    assert float(brier(biased, truth)) > 1.05 * float(brier(draws(9)[0], truth))
    with pytest.raises(ValueError, match="2 members or more"):
        metrics.spread_skill("q")({"q": narrow["q"][:1]}, truth)
    with pytest.raises(ValueError, match="needs .member"):
        brier(truth, truth)


def test_area_weights_count_on_the_sphere():
    grid = hg.Sphere(10, dtype=jnp.float64)
    truth = jnp.where(np.abs(grid.latitude)[:, None] > 60, 1.0, 0.0) * jnp.ones((1, *grid.shape))
    members = jnp.stack([0.5 * jnp.ones_like(truth)] * 3)
    ranks = metrics.rank_histogram("q", grid=grid)({"q": members}, {"q": truth})
    np.testing.assert_allclose(ranks[0], 1 - grid.mean(truth)[0], atol=1e-12)
    assert abs(float(ranks[3]) - (1 - np.sin(np.pi / 3))) < 0.06
