"""Local filters, columns, harmonics and U-Nets on the sphere: what they commute with, and that weights keep meaning."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from helpers import error
from scipy.special import eval_legendre
from test_sphere import RADIUS, sphere, white
from test_sphere_networks import tilted

import hybridgcm as hg
from hybridgcm import checkpoint, nn, qg3
from hybridgcm.blueprint import blueprint
from hybridgcm.fingerprint import digest
from hybridgcm.nn.unet import _halve_by_area

NEAR = 4e6  # m: three rings of T10
KEY = jr.key(0)


def local(inputs, outputs):
    return nn.neural_operator(inputs, outputs, [nn.LocalConvolution(4, 4, NEAR, key=KEY)], hidden=4, key=KEY)


NETWORKS = {
    "local": local,
    "local SFNO": lambda i, o: nn.local_sfno(i, o, degrees=8, cutoff=NEAR, hidden=4, layers=1, key=KEY),
    "U-Net": lambda i, o: nn.SphericalUNet(i, o, widths=(3, 4), key=KEY),
    "column": lambda i, o: nn.WithLatitude(nn.ColumnNetwork(i + 1, o, width=6, blocks=1, key=KEY)),
    "scale": lambda i, o: nn.ScaleNetwork(i, o, 8),
    "place": lambda i, o: nn.PlaceNetwork(i, o, sphere(10).shape),
}
call = eqx.filter_jit(lambda net, x, grid: nn.apply(net, x, grid))


def awake(net):
    """Numbers wherever there are only zeros."""
    fill = lambda a: jr.normal(jr.key(a.size), a.shape, a.dtype) / 6
    return jax.tree.map(lambda a: fill(a) if eqx.is_array(a) and not np.any(a) else a, net)


def turning(net):
    """The scale network without the part of its steady field that depends on longitude, places alike along circles."""
    if isinstance(net, nn.PlaceNetwork):
        return eqx.tree_at(lambda n: n.weights, net, jnp.broadcast_to(net.weights[..., :1], net.weights.shape))
    if not isinstance(net, nn.ScaleNetwork):
        return net
    degree = np.arange(1, net.weights.shape[-1] + 1)
    mean = jnp.zeros_like(net.steady).at[:, degree**2 - 1].set(net.steady[:, degree**2 - 1])
    return eqx.tree_at(lambda n: n.steady, net, mean)


def smooth(grid, degree, channels=2):
    """Noise of total degree up to `degree`, the same at every truncation."""
    low = sphere(degree)
    return grid.to_grid(low.resize(white(low, layers=channels), grid))


# All of them


@pytest.mark.parametrize("name", NETWORKS)
def test_they_turn_with_the_sphere_about_its_axis(name):
    grid = sphere(10)
    net = turning(awake(NETWORKS[name](2, 3)))
    x = grid.to_grid(white(grid))
    y = call(net, x, grid)
    assert y.shape == (3, *grid.shape) and bool(jnp.isfinite(y).all())
    assert error(call(net, jnp.roll(x, 6, -1), grid), jnp.roll(y, 6, -1)) < 1e-12


@pytest.mark.parametrize("name", NETWORKS)
def test_untrained_they_do_nothing_and_keep_single_precision(name):
    grid, exact = hg.Sphere(10), sphere(10)
    single = lambda net: jax.tree.map(lambda a: a.astype(jnp.float32) if eqx.is_inexact_array(a) else a, net)
    net, x = NETWORKS[name](2, 2), exact.to_grid(white(exact))
    with jax.numpy_dtype_promotion("strict"):
        still = call(single(net), x.astype(jnp.float32), grid)
        loud = call(single(awake(net)), x.astype(jnp.float32), grid)
    assert still.dtype == loud.dtype == jnp.float32 and not np.any(still)
    assert error(loud, call(awake(net), x, exact)) < 3e-5


@pytest.mark.parametrize("name", NETWORKS)
def test_gradients_equal_central_differences_and_reach_every_weight(name):
    grid = sphere(10)
    net, x = awake(NETWORKS[name](2, 2)), grid.to_grid(white(grid))
    weights, fixed = eqx.partition(net, eqx.is_inexact_array)
    noise = jax.tree.map(lambda a: jr.normal(jr.key(a.size + 1), a.shape), weights)
    loss = lambda weights: jnp.sum(jnp.sin(nn.apply(eqx.combine(weights, fixed), x, grid)))
    along = jax.jit(lambda h: loss(jax.tree.map(lambda a, b: a + h * b, weights, noise)))
    gradient = jax.jit(jax.grad(loss))(weights)
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradient):
        assert np.isfinite(leaf).all() and np.abs(leaf).max() > 0, jax.tree_util.keystr(path)
    expected = sum(jnp.sum(a * b) for a, b in zip(jax.tree.leaves(gradient), jax.tree.leaves(noise), strict=True))
    found = (8 * (along(1e-4) - along(-1e-4)) - (along(2e-4) - along(-2e-4))) / 12e-4
    assert error(found, expected) < 1e-5, error(found, expected)


@functools.cache
def atmosphere():
    """(flow, its forcing, a start, the start after one step)."""
    made = qg3.winter(hg.Sphere(10))
    flow = hg.QuasiGeostrophic.qg3(hg.Sphere(10), orography=made.orography, land=made.land)
    return flow, made.forcing, made.start, step(hg.Model(flow, hg.AB3(), dt=7200.0, forcing=made.forcing), made.start)


step = eqx.filter_jit(lambda model, q: model.view(model.step(model.encode({"q": q})))["q"])


@pytest.mark.parametrize("name", NETWORKS)
def test_they_step_models_as_closures_and_as_emulators_and_come_back_from_files(name, tmp_path):
    flow, forcing, start, bare = atmosphere()
    nets = NETWORKS[name](3, 3), awake(NETWORKS[name](3, 3))
    closures = [hg.NetworkClosure(net, ("q",), ("q",), 8e-5, 1e-10) for net in nets]
    emulators = [hg.Emulator(net, ("q",), 8e-5, dt=7200.0, grid=flow.grid) for net in nets]
    models = [hg.Model(flow, hg.AB3(), closure, dt=7200.0, forcing=forcing) for closure in closures]
    for (untrained, other), still in ((models, bare), (emulators, start)):
        assert error(step(untrained, start), still) < 1e-6
        change = step(other, start) - still
        assert bool(jnp.isfinite(change).all()) and float(jnp.abs(change).max()) > 1e-8
        assert float(jnp.abs(flow.grid.mean(change)).max()) < 1e-4 * float(jnp.abs(change).max())
    hg.save(tmp_path / "closure", closures[1])
    like = blueprint(checkpoint.read_header(tmp_path / "closure")["tree"])
    assert digest(hg.load(tmp_path / "closure", like)) == digest(closures[1])


# Local filters


def one(grid, x, cutoff, number, **kwargs):
    """`x` through filter `number` alone."""
    layer = nn.LocalConvolution(1, 1, cutoff, key=KEY, **kwargs)
    weights = jnp.zeros_like(layer.weights).at[0, 0, number].set(1)
    return call(eqx.tree_at(lambda n: n.weights, layer, weights), x[None], grid)[0]


@pytest.mark.parametrize(("truncation", "tolerance"), [(21, 1.5e-2), (42, 8e-4)])
def test_filters_multiply_harmonics_by_their_own_transform(truncation, tolerance):
    """Hecke and Funk: a mean over a ring multiplies degree l by that of P_l; a first wave takes gradients."""
    grid, degree, cutoff = sphere(truncation), 6, 2.4e6
    low = sphere(degree)
    x_hat = low.resize(white(low, layers=1)[0] * (low.degree == degree), grid)
    x = grid.to_grid(x_hat)
    east, north = (RADIUS * a for a in grid.gradient(x_hat))
    theta = np.linspace(0, cutoff / RADIUS, 20001)
    legendre = eval_legendre(degree, np.cos(theta))
    slope = -np.gradient(legendre, theta) / (degree * (degree + 1))  # of the azimuthal wave one, averaged with cos² α
    for ring in range(3):
        away = np.abs(theta * RADIUS / cutoff * 3 - ring)
        weight = np.where(away < 1, np.cos(np.pi / 2 * away) ** 2, 0) * np.sin(theta)
        mean = lambda a, weight=weight: (weight * a).sum() / weight.sum()
        distance = np.max(np.abs(one(grid, x, cutoff, ring) - mean(legendre) * x)) / np.max(np.abs(x))
        assert distance < tolerance, (ring, distance)
        if ring:
            for number, component in ((2 + ring, north), (4 + ring, east)):
                found, size = one(grid, x, cutoff, number), np.max(np.abs(mean(slope) * component))
                assert np.max(np.abs(found - mean(slope) * component)) / size < 8 * tolerance, (ring, number)


def test_weights_mean_the_same_at_every_truncation():
    layer = nn.LocalConvolution(2, 2, 2.4e6, key=KEY, waves=2)
    coefficients = {}
    for truncation in (21, 31, 42):
        grid = sphere(truncation)
        y = call(layer, smooth(grid, 6), grid)
        coefficients[truncation] = grid.resize(grid.to_spectral(y), sphere(10))
    first, second = (error(coefficients[T], coefficients[42]) for T in (21, 31))
    assert first < 2e-2 and second < 3e-3, (first, second)


def test_means_keep_constants_and_differences_remove_them():
    grid = sphere(21)
    layer = nn.LocalConvolution(1, 1, 2e6, key=KEY, waves=2)
    y = call(layer, 3 + jnp.zeros((1, *grid.shape)), grid)
    assert layer.weights.shape == (1, 1, 3 + 2 * 2 * 2)
    assert float(jnp.abs(y - 3 * jnp.sum(layer.weights[0, 0, :3])).max()) < 1e-12


def test_a_filter_sees_its_disk_and_nothing_else():
    """Also across the pole: a point of the last row reaches every longitude there."""
    grid, cutoff = sphere(21), 2e6
    layer = nn.LocalConvolution(1, 1, cutoff, key=KEY)
    lam, phi = np.radians(grid.longitude), np.radians(grid.latitude)[:, None]
    one = lambda row, column: jnp.zeros((1, *grid.shape)).at[0, row, column].set(1)
    transposed = jax.jit(lambda y: jax.vjp(lambda x: layer(x, grid), y)[1](y)[0][0])
    for row, column in ((0, 5), (3, 60), (17, 0)):
        there = np.asarray(transposed(one(row, column)))
        cosine = np.sin(phi) * np.sin(phi[row]) + np.cos(phi) * np.cos(phi[row]) * np.cos(lam - lam[column])
        inside = np.arccos(np.clip(cosine, -1, 1)) < cutoff / grid.radius
        assert np.abs(there[~inside]).max() < 1e-15 and (np.abs(there[inside]) > 1e-7).mean() > 0.9
        assert row or inside[0].all()


def test_round_filters_commute_with_every_rotation_and_continue_over_the_pole():
    grid = sphere(21)
    x = smooth(grid, 5, 1)
    distance, rough = {}, {}
    for waves in (0, 1):
        layer = nn.LocalConvolution(1, 1, 2.4e6, key=KEY, rings=2, waves=waves)
        y = call(layer, x, grid)
        turned = call(layer, tilted(grid, x[0], 0.9)[None], grid)
        distance[waves] = error(turned, tilted(grid, y[0], 0.9)[None])
        rough[waves] = float(jnp.abs(y - grid.to_grid(grid.to_spectral(y)))[:, [0, -1]].max() / jnp.abs(y).max())
    assert distance[0] < 1e-2 < 0.1 < distance[1], distance
    assert rough[0] < 2e-3 < 1e-2 < rough[1], rough


# The others


def test_coarse_rows_of_a_unet_hold_the_area_means_of_fine_ones():
    grid = sphere(10)
    x = grid.to_grid(white(grid))
    half = _halve_by_area(x, grid.weights)
    quarter = _halve_by_area(half, grid.weights)
    areas = jnp.sum(grid.weights.reshape(4, 4), 1, keepdims=True) * 4
    assert half.shape == (2, 8, 16) and error(jnp.sum(areas * quarter, (1, 2)), grid.mean(x)) < 1e-12


def test_a_spherical_unet_has_the_weights_of_the_planar_one_and_sees_across_the_pole():
    net = awake(nn.SphericalUNet(1, 1, widths=(4, 6), key=KEY))
    shapes = lambda net: [a.shape for a in jax.tree.leaves(net) if eqx.is_array(a)]
    assert shapes(net) == shapes(nn.UNet(1, 1, widths=(4, 6), key=KEY))
    grid = sphere(10)
    there = jax.jit(jax.grad(lambda x: net(x, grid)[0, -1, 0]))(jnp.ones((1, *grid.shape)))[0]
    assert float(jnp.abs(there[-1, 16])) > 0 and float(jnp.abs(there[0]).max()) == 0


def test_a_column_sees_itself_alone_and_neuralgcm_has_its_number_of_weights():
    net = awake(nn.ColumnNetwork(3, 2, width=8, blocks=2, key=KEY))
    x = jr.normal(jr.key(1), (3, 4, 6))
    change = call(net, x.at[:, 2, 3].add(1.0), None) - call(net, x, None)
    assert np.argwhere(np.abs(change).max(0) > 1e-12).tolist() == [[2, 3]]
    tower = eqx.filter_eval_shape(lambda: nn.ColumnNetwork(50, 20, width=384, blocks=5, layers=4, key=KEY))
    count = sum(leaf.size for leaf in jax.tree.leaves(tower) if hasattr(leaf, "size"))
    assert count == 51 * 384 + 5 * 4 * 385 * 384 + 384 * 20


def test_latitude_comes_as_its_sine():
    grid = sphere(10)
    y = nn.WithLatitude(lambda x: x)(jnp.zeros((2, *grid.shape)), grid)
    assert y.shape == (3, *grid.shape) and error(2 * hg.grids.sphere.ROTATION * y[2], grid.coriolis()) < 1e-12


def test_a_scale_network_holds_the_operators_of_the_vorticity_equation():
    """β ∂ψ/∂x and a Laplacian exactly, and the same coefficients at every truncation."""
    degree = np.arange(1, 9)
    net = nn.ScaleNetwork(1, 1, 8)
    weights = jnp.stack([1e-2 * degree * (degree + 1.0), -1.0 / (degree * (degree + 1.0))])[:, None, None]
    net = eqx.tree_at(lambda n: n.weights, net, weights)
    low = sphere(8)
    x_hat = white(low, layers=1).at[0, 0, 0].set(0)
    for truncation in (8, 21):
        grid = sphere(truncation)
        a_hat = low.resize(x_hat, grid)
        planetary = grid.zonal_derivative(grid.inverse_laplacian(a_hat)) / RADIUS
        expected = grid.to_grid(planetary - 1e-2 * RADIUS**2 * grid.laplacian(a_hat))
        assert error(call(net, grid.to_grid(a_hat), grid), expected) < 1e-11


def test_a_closure_hands_on_what_a_scale_network_makes_of_coefficients():
    """Forcings of q as q_hat, without a transform more; those of u and v, which `lift` takes on the grid, there."""
    grid = sphere(10)
    flow, net = hg.QuasiGeostrophic.qg3(grid), awake(nn.ScaleNetwork(6, 3, 8))
    fields = flow.view({"q": 1e-5 * white(grid, layers=3)})
    closure = hg.NetworkClosure(net, ("q", "psi"), ("q",), [1e-5] * 3 + [1e7] * 3, [1e-10, 2e-10, 3e-10])
    forcing, _ = closure(fields, grid, closure.init(fields, grid), KEY)
    x = jnp.concatenate([fields["q"] / 1e-5, fields["psi"] / 1e7])
    expected = call(net, x, grid) * 1e-10 * np.arange(1, 4)[:, None, None]
    assert list(forcing) == ["q_hat"] and error(grid.to_grid(flow.lift(forcing)["q"]), expected) < 1e-13
    winds = hg.NetworkClosure(awake(nn.ScaleNetwork(6, 6, 8)), ("u", "v"), ("u", "v"))
    assert {f.shape for f in winds(fields, grid, None, KEY)[0].values()} == {(3, *grid.shape)}


def test_every_number_of_a_steady_field_is_one_of_its_coefficients():
    grid, net = sphere(10), nn.ScaleNetwork(1, 1, 4)
    basis = jax.vmap(lambda s: net.steady + s)(jnp.eye(24))
    field = lambda steady: call(eqx.tree_at(lambda n: n.steady, net, steady), jnp.zeros((1, *grid.shape)), grid)[0]
    fields = jax.vmap(field)(basis)
    norms = jnp.einsum("ayx,byx,yx->ab", fields, fields, jnp.broadcast_to(grid.weights, grid.shape))
    orders = np.concatenate([[0] + [m for m in range(1, l + 1) for _ in "ri"] for l in range(1, 5)])
    assert error(norms, np.diag(np.where(orders == 0, 1, 2))) < 1e-12, "an orthogonal basis of fields without mean"
    assert float(jnp.abs(grid.mean(fields)).max()) < 1e-14


def test_operators_add_up():
    grid = sphere(10)
    x = grid.to_grid(white(grid))
    zonal, near = nn.ZonalConvolution(2, 2, 8, key=KEY), nn.LocalConvolution(2, 2, NEAR, key=KEY)
    both = nn.OperatorSum((zonal, near, jnp.sin))
    assert error(call(both, x, grid), call(zonal, x, grid) + call(near, x, grid) + jnp.sin(x)) < 1e-14
    net = NETWORKS["local SFNO"](2, 2)
    assert [type(n) for n in net.blocks[0].spectral.nets] == [nn.ZonalConvolution, nn.LocalConvolution]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: nn.LocalConvolution(1, 1, 0.0, key=KEY), "a cutoff in metres"),
        (lambda: nn.LocalConvolution(1, 1, 1e6, key=KEY, waves=-1), "zero or more waves"),
        (lambda: nn.ColumnNetwork(1, 1, width=0, key=KEY), "positive sizes"),
        (lambda: nn.ScaleNetwork(1, 1, 0), "positive sizes"),
        (lambda: nn.PlaceNetwork(1, 1, (4, 0)), "positive sizes"),
        (lambda: nn.SphericalUNet(1, 1, kernel=2, key=KEY), "odd kernel and positive"),
    ],
)
def test_impossible_sizes_are_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()


@pytest.mark.parametrize(
    ("net", "channels", "words"),
    [
        (nn.LocalConvolution(1, 1, NEAR, key=KEY), 2, "for a batch use jax.vmap"),
        (nn.LocalConvolution(1, 1, 2e6, key=KEY), 1, "take fewer rings, another cutoff or a finer grid"),
        (nn.LocalConvolution(1, 1, 3e7, key=KEY), 1, "a cutoff on the sphere"),
        (nn.ColumnNetwork(2, 1, key=KEY), 1, r"maps \[2, y, x\]"),
        (nn.ScaleNetwork(2, 1, 4), 1, r"maps \[2, y, x\]"),
        (nn.PlaceNetwork(1, 1, (4, 8)), 1, r"maps \(1, 4, 8\) \[channel, y, x\]; got \(1, 16, 32\)"),
        (nn.ScaleNetwork(1, 1, 40), 1, "weights reach degree 40, the grid resolves 10"),
        (nn.SphericalUNet(1, 1, widths=(2,) * 6, key=KEY), 1, "a SphericalUNet of 6 levels needs sides"),
    ],
)
def test_what_does_not_fit_says_what_would(net, channels, words):
    grid = sphere(10)
    with pytest.raises(ValueError, match=words):
        nn.apply(net, jnp.zeros((channels, *grid.shape)), grid)


def test_a_torus_is_refused():
    grid = hg.Torus(16, 1e6)
    for net in (
        nn.LocalConvolution(1, 1, 1e5, key=KEY),
        nn.SphericalUNet(1, 1, widths=(2,), key=KEY),
        nn.WithLatitude(jnp.sin),
        nn.ScaleNetwork(1, 1, 4),
    ):
        with pytest.raises(TypeError, match=f"{type(net).__name__} is written for a Sphere; got Torus"):
            net(jnp.zeros((1, 16, 16)), grid)
