"""Networks on the sphere: convolution across the poles, round kernels, one function at every truncation."""

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest
from helpers import error
from test_sphere import sphere, white

import hybridgcm as hg
from hybridgcm import nn, qg3


def awake(net, seed=5):
    """A last layer that is not zero."""
    last = net.weights[-1] if isinstance(net, nn.PolarCNN) else net.projection[1].weight
    where = (lambda n: n.weights[-1]) if isinstance(net, nn.PolarCNN) else (lambda n: n.projection[1].weight)
    return eqx.tree_at(where, net, jr.normal(jr.key(seed), last.shape) / 6)


def test_a_kernel_sees_across_the_pole():
    """One row beyond the pole is the same row on the other side: taps of a 3 x 3 kernel one by one."""
    x = jnp.asarray(np.random.default_rng(0).standard_normal((1, 6, 8)))
    for a in range(3):
        for b in range(3):
            weight = jnp.zeros((1, 1, 3, 3)).at[0, 0, a, b].set(1.0)
            found = np.asarray(nn.polar_convolution(x, weight))[0]
            for j in range(6):
                for i in range(8):
                    row, column = j + a - 1, i + b - 1
                    if not 0 <= row < 6:
                        row, column = (-1 - row if row < 0 else 11 - row), column + 4
                    assert found[j, i] == x[0, row, column % 8]


def test_a_network_turns_with_the_sphere_about_its_axis():
    grid = sphere(10)
    x = grid.to_grid(white(grid))
    for net, call in (
        (awake(nn.PolarCNN((2, 6, 1), (5, 3), key=jr.key(0))), lambda n, x: n(x)),
        (awake(nn.FNO(2, 1, modes=8, hidden=6, layers=2, key=jr.key(1))), lambda n, x: n(x, grid)),
    ):
        turned = call(net, jnp.roll(x, 3, -1))
        assert error(turned, jnp.roll(call(net, x), 3, -1)) < 1e-12


def tilted(grid, a, angle):
    """A field of `grid` after the sphere has been turned about the axis through longitude 90, by spectral synthesis."""
    lam, phi = np.meshgrid(np.radians(grid.longitude), np.radians(grid.latitude))
    x, y, z = np.cos(phi) * np.cos(lam), np.cos(phi) * np.sin(lam), np.sin(phi)
    x, z = np.cos(angle) * x - np.sin(angle) * z, np.sin(angle) * x + np.cos(angle) * z
    from scipy.special import sph_harm_y

    out, a_hat = np.zeros(grid.shape), np.asarray(grid.to_spectral(a))
    theta, east = np.arccos(np.clip(z, -1, 1)), np.arctan2(y, x)
    order = np.asarray(grid.order).astype(int)
    for i, j in np.argwhere(np.asarray(grid.multiplicity) > 0):
        l, m = int(grid.degree[i, j]), order[i, j]
        harmonic = (-1.0) ** m * np.sqrt(4 * np.pi) * sph_harm_y(l, m, theta, east)
        out += (a_hat[i, j] * harmonic).real * (1 if m == 0 else 2)
    return jnp.asarray(out)


def test_a_zonal_convolution_commutes_with_rotations():
    """Its round part with every one, all of it with those about the axis, which B tells from their mirror images."""
    grid = sphere(8)
    x = grid.to_grid(white(grid, layers=1))
    net = nn.ZonalConvolution(1, 1, 6, key=jr.key(0))
    round_part = eqx.tree_at(lambda n: n.weights, net, net.weights.at[1].set(0))
    inclined = lambda a: tilted(grid, a[0], 0.9)[None]
    assert error(round_part(inclined(x), grid), inclined(round_part(x, grid))) < 1e-10
    turned = lambda a: jnp.roll(a, 3, -1)
    mirrored = lambda a: jnp.roll(a[..., ::-1], 1, -1)
    assert error(net(turned(x), grid), turned(net(x, grid))) < 1e-13
    assert error(round_part(mirrored(x), grid), mirrored(round_part(x, grid))) < 1e-13
    assert error(net(mirrored(x), grid), mirrored(net(x, grid))) > 0.1


def test_a_zonal_convolution_drifts_as_planetary_waves_do():
    """A = 0 and B = b/(l + 1) are b ∂/∂λ of the inverse Laplacian: the tendency of vorticity by the planet's."""
    grid = sphere(8)
    zeta_hat = white(grid, layers=1)
    net = nn.ZonalConvolution(1, 1, 8, key=jr.key(0))
    weights = jnp.stack([jnp.zeros(9), 1 / (1 + jnp.arange(9.0))])[:, None, None]
    net = eqx.tree_at(lambda n: n.weights, net, weights)
    east = -1j * grid.order * grid.inverse_laplacian(zeta_hat) / grid.radius**2
    assert error(net(grid.to_grid(zeta_hat), grid), grid.to_grid(east)) < 1e-13


def test_an_sfno_is_one_function_at_every_truncation():
    low, high = sphere(10), sphere(21)
    x_hat = white(low)
    linear = awake(nn.FNO(2, 2, modes=8, hidden=6, layers=2, key=jr.key(0), activation=jnp.positive))
    at = lambda grid: linear(grid.to_grid(low.resize(x_hat, grid)), grid)
    assert error(high.resize(high.to_spectral(at(high)), low), low.to_spectral(at(low))) < 1e-12


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["CNN", "SFNO"])
def test_a_network_trains_through_the_three_level_model(kind):
    """Online, four steps of T10: the loss of a model without its friction falls."""
    grid = hg.Sphere(10)
    atmosphere = qg3.winter(grid)
    flow = hg.QuasiGeostrophic.qg3(grid, orography=atmosphere.orography, land=atmosphere.land)
    truth = hg.Model(flow, hg.AB3(), dt=7200.0, forcing=atmosphere.forcing)
    _, out = eqx.filter_jit(hg.rollout)(truth, truth.encode({"q": atmosphere.start}), 60)
    frames = {"q": out["save"]["q"]}
    wrong = eqx.tree_at(lambda f: f.drag, flow, 0 * flow.drag)
    if kind == "CNN":
        net = nn.PolarCNN((3, 8, 3), (3, 3), key=jr.key(0))
    else:
        net = nn.FNO(3, 3, modes=8, hidden=6, layers=2, key=jr.key(0))
    closure = hg.NetworkClosure(net, ("q",), ("q",), (8e-5,) * 3, (3e-11,) * 3)
    model = hg.Model(wrong, hg.AB3(), closure, dt=7200.0, forcing=atmosphere.forcing)
    batches = hg.windows(frames, length=5, batch=4, steps=30, key=jr.key(1))
    _, log = hg.fit(
        model, batches, hg.online(hg.metrics.mse("q")), optax.adam(1e-2), where=lambda m: m.closure.net, key=jr.key(2)
    )
    losses = [record["loss"] for record in log]
    assert np.isfinite(losses).all() and np.mean(losses[-5:]) < 0.7 * np.mean(losses[:3]), losses


def test_a_network_sees_anomalies_of_records():
    """Mean zero at every point and standard deviation one in every channel, whatever stands still."""
    grid = sphere(10)
    rng = np.random.default_rng(0)
    still, size = 30 * rng.normal(size=(2, *grid.shape)), np.array([0.1, 3.0])[:, None, None]
    records = still + size * rng.normal(size=(40, 2, *grid.shape))
    seen = nn.Anomalies.from_data(lambda x: x, records)
    x = np.stack([np.asarray(seen(jnp.asarray(record), grid)) for record in records])
    assert np.abs(x.mean(0)).max() < 1e-12 and np.abs(x.std((0, 2, 3)) - 1).max() < 1e-12
    with pytest.raises(ValueError, match=r"channels \[1\] of 2 have no anomalies"):
        nn.Anomalies.from_data(lambda x: x, records * [[[[1.0]], [[0.0]]]])


def test_what_does_not_fit_is_refused():
    grid = sphere(5)
    with pytest.raises(ValueError, match="weights reach degree 9, the grid resolves 5"):
        nn.ZonalConvolution(1, 1, 9, key=jr.key(0))(jnp.zeros((1, *grid.shape)), grid)
    with pytest.raises(TypeError, match="written for a Sphere"):
        nn.ZonalConvolution(1, 1, 3, key=jr.key(0))(jnp.zeros((1, 8, 8)), hg.Torus(8, 1e6))
    with pytest.raises(TypeError, match="modes of a Torus"):
        nn.FNO(1, 1, modes=(3, 3), key=jr.key(0))(jnp.zeros((1, *grid.shape)), grid)
    with pytest.raises(ValueError, match="even number of longitudes"):
        nn.polar_convolution(jnp.zeros((1, 4, 7)), jnp.zeros((1, 1, 3, 3)))
