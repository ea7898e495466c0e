"""Lp and H1 errors of fields: by hand, by exact integrals, on a sphere, and what they refuse."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from helpers import error

import hybridgcm as hg
from hybridgcm.metrics import h1, lp

NOTHING = jnp.zeros((1, 8, 8))


def test_lp_by_hand():
    t = np.array([[[3.0, -4.0], [0.0, 0.0]], [[1.0, 1.0], [1.0, 1.0]]])
    p = t + np.array([[[0.0, 0.0], [0.0, 5.0]], [[2.0, 0.0], [0.0, 0.0]]])
    pair = {"u": jnp.asarray(p)}, {"u": jnp.asarray(t)}
    expected = {"each": [1.0, 1.0], "mean": 1.0, "sum": 2.0, "together": np.sqrt(29 / 29)}
    for channels, value in expected.items():
        assert error(lp("u", channels=channels)(*pair), value) < 1e-14, channels
    assert error(lp("u", 1, channels="each")(*pair), [5 / 7, 2 / 4]) < 1e-14
    assert error(lp("u", 3, channels="each")(*pair), [5 / np.cbrt(27 + 64), 2 / np.cbrt(4)]) < 1e-14
    many = lp("u")({"u": jnp.asarray(np.stack([p, t]))}, {"u": jnp.asarray(np.stack([t, t]))})
    assert error(many, [1.0, 0.0]) < 1e-14, "frames stay apart"
    assert error(lp("u")({"u": 1e-9 * p.astype("f4")}, {"u": 1e-9 * t.astype("f4")}), 1.0) < 1e-6


def test_h1_by_exact_integrals():
    """e = sin kx over t = cos lx: its square is (1 + k²)/(1 + l²) where derivatives are exact."""
    grid = hg.Torus(32, 2 * np.pi, dealias=None, dtype=jnp.float64)
    x = grid.x[None, None] + 0 * grid.y[None, :, None]
    pair = {"u": jnp.asarray(np.cos(2 * x) + np.sin(5 * x))}, {"u": jnp.asarray(np.cos(2 * x))}
    assert error(h1("u", grid=grid)(*pair), np.sqrt(26 / 5)) < 1e-13
    by_differences = h1("u", length=2 * np.pi, periodic=True)(*pair)
    wave = lambda k: np.sin(k * 2 * np.pi / 32) / (2 * np.pi / 32)  # what central differences make of k
    assert error(by_differences, np.sqrt((1 + wave(5) ** 2) / (1 + wave(2) ** 2))) < 1e-13
    n, box = 10, np.arange(10) / 10  # parabolas: differences exact, also at the ends
    y, x = np.meshgrid(box, 2 * box, indexing="ij")
    t, e = (3 * x**2 - y)[None], (x * y)[None]
    whole = lambda a, a_x, a_y: np.mean(a**2 + a_x**2 + a_y**2)
    expected = np.sqrt(whole(e[0], y, x) / whole(t[0], 6 * x, -1 + 0 * y))
    found = h1("u", length=(1.0, 2.0))({"u": jnp.asarray(t + e)}, {"u": jnp.asarray(t)})
    assert error(found, expected) < 1e-13 and n == len(box)
    around = h1("u", length=(1.0, 2.0), periodic=(False, True))({"u": jnp.asarray(t + e)}, {"u": jnp.asarray(t)})
    assert abs(float(around / expected) - 1) > 0.1, "the axes are told apart"


def test_norms_use_the_quadrature_of_a_sphere():
    grid = hg.Sphere(10, dtype=jnp.float64)
    up = np.sin(np.radians(np.asarray(grid.latitude)))[:, None] + np.zeros(grid.shape)
    pair = {"u": jnp.asarray(1 + up)[None]}, {"u": jnp.ones((1, *grid.shape))}
    assert error(lp("u", grid=grid)(*pair), np.sqrt(1 / 3)) < 1e-13
    assert error(h1("u", grid=grid)(*pair), np.sqrt(2 / 3)) < 1e-12, "slopes per unit of the longest wave, degree 1"
    assert error(h1("u", grid=grid, length=grid.radius)(*pair), 1) < 1e-12, "per radius l (l + 1) = 2"
    assert error(h1("u", grid=grid, length=1.0)(*pair), np.sqrt(1 / 3)) < 1e-12, "per metre they are nothing"


def test_h1_on_a_plane_in_metres_is_that_of_its_angles_and_sees_what_the_grid_cuts():
    x = 2 * np.pi * np.arange(32) / 32
    a, e = np.cos(x) + 0 * x[:, None], 0.1 * np.cos(5 * x) + 0 * x[:, None]
    pair = {"u": jnp.asarray(a + e)[None]}, {"u": jnp.asarray(a)[None]}
    expected = 0.1 * np.sqrt(26 / 2)
    for length in (2 * np.pi, 1e6):
        assert error(h1("u", grid=hg.Torus(32, length, dtype=jnp.float64))(*pair), expected) < 1e-12
    coarse = hg.Torus(32, 1e6, dealias=2 / 3, dtype=jnp.float64)
    beyond = {"u": jnp.asarray(a + np.cos(13 * x))[None]}, pair[1]
    assert error(h1("u", grid=coarse)(*beyond), np.sqrt(1 / 2)) < 1e-12, "a wave that it cuts counts by its value"
    with pytest.raises(ValueError, match="leave periodic out"):
        h1("u", grid=coarse, periodic=True)
    with pytest.raises(ValueError, match="finite p"):
        lp("u", np.inf)


@pytest.mark.parametrize("metric", [lp("u"), lp("u", 1), h1("u"), h1("u", periodic=True)])
def test_a_perfect_prediction_has_a_gradient_of_zero(metric):
    t = jr.normal(jr.key(0), (1, 6, 6))
    slope = jax.grad(lambda p: metric({"u": p}, {"u": t}))(t)
    assert np.isfinite(slope).all() and float(metric({"u": t}, {"u": t})) < 1e-100


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: lp("u", 0.5), "p >= 1; got p=0.5"),
        (lambda: lp("u", channels="all"), "'together'); got 'all'"),
        (lambda: h1("u", length=0.0), "positive number"),
        (lambda: h1("u")({"u": jnp.zeros((1, 2, 9))}, {"u": jnp.zeros((1, 2, 9))}), "3 points along an axis"),
        (lambda: lp("u")({"u": jnp.zeros((1, 2, 9))}, {"u": jnp.zeros((1, 2, 8))}), "differ in shape"),
        (lambda: lp("u")({"v": NOTHING}, {"u": NOTHING}), "no 'u'"),
    ],
)
def test_norms_refuse_what_they_cannot_compare(make, words):
    with pytest.raises(ValueError) as caught:
        make()
    assert words in str(caught.value), caught.value
