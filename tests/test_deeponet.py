"""DeepONets: published sizes, bases, separable trunks, residuals of equations with known solutions, learning."""

import json

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest
from helpers import error

import hybridgcm as hg
from hybridgcm import batches, nn, train

SENSORS = np.linspace(0, 1, 50)


def count(make):
    return sum(leaf.size for leaf in jax.tree.leaves(eqx.filter_eval_shape(make, jr.key(0))) if hasattr(leaf, "size"))


@pytest.mark.parametrize(
    ("sensors", "coordinates", "size", "depth", "published"),
    [(100, 1, 40, 1, 7_401), (50, 2, 128, 2, 72_961), (101, 2, 100, 6, 131_701)],
)
def test_sizes_are_the_published_ones(sensors, coordinates, size, depth, published):
    make = lambda key: nn.point_deeponet(sensors, coordinates, rank=size, width=size, depth=depth, key=key)
    assert count(make) == published


def test_an_answer_is_the_sum_over_features_by_hand():
    net = nn.point_deeponet([4, (2, 3)], 2, 3, rank=5, width=6, depth=1, key=jr.key(0))
    net = eqx.tree_at(lambda n: n.bias, net, jnp.array([1.0, -2.0, 0.5]))
    u, t, x = (jr.normal(jr.key(1), (4,)), jr.normal(jr.key(2), (2, 3))), jnp.arange(7.0), jnp.linspace(0, 1, 7)
    first, second = net.branches
    b = (first(u[0]) * second.net(u[1].ravel())).reshape(3, 5)
    for query in (0, 6):
        trunk = net.trunk.net(jnp.stack([t[query], x[query]])).reshape(3, 5)
        assert error(net(u, t, x)[:, query], (b * trunk).sum(1) + net.bias) < 1e-14


def test_a_separable_answer_is_the_one_at_the_points_of_the_grid():
    """The tensor grid of axes, against the product of the same networks point by point, of values and derivatives."""
    net = nn.separable_deeponet(4, 3, 2, rank=5, width=6, depth=2, key=jr.key(0))
    product = lambda y: jnp.prod(jnp.stack([one(y[i : i + 1]) for i, one in enumerate(net.trunk.nets)]), 0)
    points = nn.DeepONet(net.branches, nn.PointTrunk(product, 3), net.sensors, 2)
    u, axes = jr.normal(jr.key(1), (4,)), [jnp.linspace(-1, 1, n) for n in (3, 4, 5)]
    flat = [a.ravel() for a in jnp.meshgrid(*axes, indexing="ij")]
    for solution in (
        lambda f: f,
        lambda f: train.derivative(f, 1),
        lambda f: train.derivative(train.derivative(f, 2), 2),
    ):
        grid, listed = (jax.jit(solution(lambda *y, one=one: one(u, *y))) for one in (net, points))
        assert grid(*axes).shape == (2, 3, 4, 5)
        assert error(grid(*axes), listed(*flat).reshape(2, 3, 4, 5)) < 1e-12


def test_a_separable_trunk_costs_the_sum_of_its_axes():
    make = {kind: getattr(nn, f"{kind}_deeponet")(8, 2, rank=8, width=64, depth=3, key=jr.key(0))
            for kind in ("point", "separable")}  # fmt: skip
    axis = jnp.linspace(0, 1, 64)
    both = [a.ravel() for a in jnp.meshgrid(axis, axis)]
    flops = lambda net, *y: jax.jit(lambda u, *y: net(u, *y)).lower(jnp.ones(8), *y).compile().cost_analysis()["flops"]
    whole, parts = flops(make["point"], *both), flops(make["separable"], axis, axis)
    assert parts < whole / 15, (parts, whole)


def test_a_pod_trunk_holds_its_span_exactly():
    rng = np.random.default_rng(0)
    values = 5 + 1e-6 * np.einsum("sk,okp->sop", rng.normal(size=(30, 4)), rng.normal(size=(2, 4, 40)))
    trunk = nn.PODTrunk.from_data(values, 4)
    coefficients = np.linalg.lstsq
    for sample in values[:3]:
        c = jnp.stack(
            [coefficients(m.T, s, rcond=None)[0] for m, s in zip(np.asarray(trunk.modes), sample - trunk.mean)]
        )
        assert np.abs(trunk(c, jnp.arange(40)) - sample).max() < 1e-14
        assert 0.05 < float(jnp.abs(c).mean()) < 5, "coefficients are of one size whatever the unit"
    chosen = np.array([7, 3, 7])
    assert np.array_equal(trunk(c, jnp.asarray(chosen)), trunk(c, jnp.arange(40))[:, chosen])
    net = nn.pod_deeponet(6, values, rank=4, width=8, depth=1, key=jr.key(0))
    assert net(jnp.ones(6), jnp.arange(40)).shape == (2, 40)


def test_a_modified_mlp_is_gated_by_its_input():
    net = nn.ModifiedMLP(3, 2, 5, 2, jnp.tanh, key=jr.key(0))
    x = jr.normal(jr.key(1), (3,))
    apply = lambda layer, h: layer.weight @ h + layer.bias
    u, v = (jnp.tanh(apply(gate, x)) for gate in net.gates)
    h = x
    for layer in net.layers[:-1]:
        z = jnp.tanh(apply(layer, h))
        h = z * u + (1 - z) * v
    assert error(net(x), apply(net.layers[-1], h)) < 1e-14
    assert count(lambda key: nn.ModifiedMLP(3, 2, 5, 2, jnp.tanh, key=key)) == 3 * 20 + 30 + 12


@pytest.mark.parametrize(
    ("u", "places", "words"),
    [
        (jnp.ones(5), (jnp.ones(3), jnp.ones(3)), r"takes functions at sensors \(\(4,\),\); got \(\(5,\),\)"),
        ((jnp.ones(4), jnp.ones(4)), (jnp.ones(3), jnp.ones(3)), "several functions of one evaluation are a tuple"),
        (jnp.ones(4), (jnp.ones(3),), r"takes 2 arrays \[query\] of one length"),
        (jnp.ones(4), (jnp.ones(3), jnp.ones(2)), r"takes 2 arrays \[query\] of one length"),
    ],
)
def test_wrong_functions_and_places_are_refused(u, places, words):
    net = nn.point_deeponet(4, 2, rank=3, width=4, depth=1, key=jr.key(0))
    with pytest.raises(ValueError, match=words):
        net(u, *places)


def test_other_trunks_refuse_too():
    separable = nn.separable_deeponet(4, 2, rank=3, width=4, depth=1, key=jr.key(0))
    with pytest.raises(ValueError, match="takes 2 axes"):
        separable(jnp.ones(4), jnp.ones(3))
    pod = nn.pod_deeponet(4, np.random.default_rng(0).normal(size=(5, 1, 9)), rank=2, width=4, depth=1, key=jr.key(0))
    with pytest.raises(ValueError, match="knows 9 points by number"):
        pod(jnp.ones(4), jnp.ones(3))
    with pytest.raises(ValueError, match="a basis of rank 6"):
        nn.PODTrunk.from_data(np.ones((5, 1, 9)), 6)
    with pytest.raises(ValueError, match="a branch for every set of sensors"):
        nn.DeepONet([jnp.tanh], separable.trunk, [4, 5])
    with pytest.raises(ValueError, match="at least one; got depth=0"):
        nn.ModifiedMLP(3, 2, 5, 0, jnp.tanh, key=jr.key(0))


# Residuals


def test_derivatives_are_those_of_differences():
    net = nn.point_deeponet(4, 2, rank=5, width=8, depth=2, key=jr.key(0), network=nn.ModifiedMLP)
    u = lambda t, x: net(jnp.arange(4.0), t, x)
    t, x, h = jnp.linspace(0, 1, 5), jnp.linspace(-1, 1, 5), 1e-4
    for made, expected in (
        (train.derivative(u, 0)(t, x), (u(t + h, x) - u(t - h, x)) / (2 * h)),
        (train.derivative(train.derivative(u, 1), 1)(t, x), (u(t, x + h) - 2 * u(t, x) + u(t, x - h)) / h**2),
        (train.derivative(train.derivative(u, 1), 0)(t, x),
         (u(t + h, x + h) - u(t + h, x - h) - u(t - h, x + h) + u(t - h, x - h)) / (4 * h**2)),
    ):  # fmt: skip
        assert error(made, expected) < 1e-6


def test_residuals_vanish_for_solutions_and_for_nothing_else():
    """A travelling wave of Burgers' equation, manufactured sources; each with a neighbour that is no solution."""
    nu, t, x = 0.1, jnp.linspace(0, 1, 7), jnp.linspace(0, 1, 7)
    wave = lambda speed: lambda t, x: (1 - jnp.tanh((x - speed * t) / (4 * nu)))[None] / 2
    right, wrong = (train.burgers(nu)(wave(speed), None, t, x) for speed in (0.5, 0.6))
    assert np.abs(right).max() < 1e-14 < 1e-2 < np.abs(wrong).max()
    s, source = lambda x: jnp.sin(3 * x)[None], 3 * np.cos(3 * SENSORS)
    right, wrong = (train.antiderivative(SENSORS)(s, u, SENSORS[::7]) for u in (source, source + 1))
    assert np.abs(right).max() < 1e-12 and np.abs(wrong + 1).max() < 1e-12
    s, source = lambda t, x: t * 0 + jnp.sin(x)[None], 0.3 * np.sin(SENSORS) - 0.2 * np.sin(SENSORS) ** 2
    places = jnp.asarray(SENSORS[::10])
    right, wrong = (train.diffusion_reaction(0.3, k, SENSORS)(s, source, places, places) for k in (0.2, 0.3))
    assert np.abs(right).max() < 1e-12 < 1e-3 < np.abs(wrong).max()
    round_ = lambda t, x: jnp.cos(2 * np.pi * x + t)[None]
    ends = train.periodic(round_, None, t, 0 * t, 0 * t + 1), train.periodic(round_, None, t, 0 * t, 0 * t + 0.9)
    assert np.abs(ends[0]).max() < 1e-12 < 0.1 < np.abs(ends[1]).max()


def test_physics_asks_point_by_point_on_lists_and_on_grids():
    """Two functions with their own points, and shared axes of a tensor grid."""
    net = points = nn.point_deeponet(4, 2, rank=5, width=8, depth=1, key=jr.key(0))
    batch = {"u0": jr.normal(jr.key(1), (2, 4)), "t": jr.uniform(jr.key(2), (2, 3)), "x": jr.uniform(jr.key(3), (2, 3))}
    made = train.physics(train.burgers(0.1), ("u0",), ("t", "x"))(net, batch, None)
    own = {name: a[1] for name, a in batch.items() if name != "u0"}
    alone = train.burgers(0.1)(lambda t, x: net(batch["u0"][1], t, x), None, own["t"], own["x"])
    assert made.shape == (2, 3) and error(made[1], alone[0] ** 2) < 1e-12
    net = nn.separable_deeponet(4, 2, rank=5, width=8, depth=1, key=jr.key(0))
    grid = train.physics(train.burgers(0.1), ("u0",), ("t", "x"))(
        net, batch | {"t": SENSORS[:5], "x": SENSORS[:7]}, None
    )
    assert grid.shape == (2, 5, 7)
    flat = lambda u, start, t, x: train.burgers(0.1)(u, start, t, x)[0]  # its squares would be added over the points
    with pytest.raises(ValueError, match=r"a residual is \[equation, \*points\], for one equation too; got \(3,\)"):
        train.physics(flat, ("u0",), ("t", "x"))(points, batch, None)
    with pytest.raises(ValueError, match="ascending order"):
        train.antiderivative(np.array([1.0, 0.5, 0.0]))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"t": None}, r"\['t'\] missing"),
        ({"t": np.ones((2, 3, 1))}, r"coordinates are \[query\]"),
        ({"u": np.ones((2, 4))}, r"the targets of a function are \{'u': \(4,\)\}"),
    ],
)
def test_batches_that_do_not_fit_are_refused(change, words):
    net = nn.point_deeponet(4, 2, rank=5, width=8, depth=1, key=jr.key(0))
    batch = {"u0": np.ones((2, 4)), "t": np.ones(3), "x": np.ones(3), "u": np.ones((2, 3))} | change
    batch = {name: a for name, a in batch.items() if a is not None}
    with pytest.raises(ValueError, match=words):
        train.queries(train.squares, ("u0",), ("t", "x"), ("u",))(net, batch, None)


# Learning


def functions(count, seed, width=0.2):
    """Gaussian functions at the sensors and their antiderivatives."""
    distance = SENSORS[:, None] - SENSORS
    root = np.linalg.cholesky(np.exp(-(distance**2) / (2 * width**2)) + 1e-8 * np.eye(len(SENSORS)))
    u = np.random.default_rng(seed).normal(size=(count, len(SENSORS))) @ root.T
    steps = (u[:, 1:] + u[:, :-1]) / 2 * SENSORS[1]
    return {"u": u, "s": np.concatenate([np.zeros((count, 1)), np.cumsum(steps, 1)], 1), "x": SENSORS}


def wrong(net, data, *places):
    made = eqx.filter_jit(lambda net: jax.vmap(lambda u: net(u, *places)[0])(jnp.asarray(data["u"])))(net)
    return float(np.mean(np.linalg.norm(made - data["s"], axis=1) / np.linalg.norm(data["s"], axis=1)))


def fitted(net, data, objective, where=lambda m: m, steps=1200, rate=1e-2):
    def make(key):
        chosen = np.asarray(jr.randint(key, (200,), 0, len(data["u"])))
        own = {name: data[name][chosen] for name in ("u", "s")}
        return own | {name: a for name, a in data.items() if name not in own}

    optimiser = optax.adam(optax.cosine_decay_schedule(rate, steps))
    return hg.fit(net, batches.drawn(make, steps, jr.key(1)), objective, optimiser, where=where, key=jr.key(2))[0]


@pytest.mark.slow
def test_the_antiderivative_is_learned_from_its_equation_alone():
    train_on, test = functions(1000, 0), functions(200, 1)
    start = {"x0": np.zeros(1), "s0": 0 * train_on["s"][:200, :1]}
    inside = train.physics(train.antiderivative(SENSORS), ("u",), ("x",))
    both = train.combined((1.0, inside), (1.0, train.queries(train.squares, ("u",), ("x0",), ("s0",))))
    net = nn.point_deeponet(50, 1, rank=40, width=40, depth=2, key=jr.key(0), activation=jax.nn.gelu)
    found = wrong(fitted(net, train_on | start, both), test, SENSORS)
    assert found < 0.06 < 0.5 < wrong(net, test, SENSORS), found


def test_the_antiderivative_is_learned_from_pairs_in_a_basis():
    train_on, test = functions(1000, 0), functions(200, 1)
    net = nn.pod_deeponet(50, train_on["s"][:, None], rank=8, width=40, depth=1, key=jr.key(0))
    data = train_on | {"x": np.arange(50)}
    trained = fitted(net, data, train.queries(train.squares, ("u",), ("x",), ("s",)), lambda m: m.branches)
    found = wrong(trained, test, np.arange(50))
    assert found < 0.03, found
    assert np.array_equal(trained.trunk.modes, net.trunk.modes)


def test_mixed_functions_of_the_antiderivative_are_known_where_their_parts_are():
    """s(x) of a mixture is its integral up to x: by the trapezoidal rule, and of the variance that functions have."""
    pytest.importorskip("tyro")
    from experiments.antiderivative import run
    from experiments.antiderivative.config import SMOKE

    data, _ = run.pairs(SMOKE)
    drawn = run.batch(SMOKE, data, run.sorted_rows(data), jr.key(0))
    x = np.linspace(0, 1, SMOKE.sensors)
    for u, place, s in zip(drawn["u"], drawn["x"][:, 0], drawn["s"][:, 0], strict=True):
        up_to = x <= place + 1e-6
        assert abs(np.trapezoid(u[up_to], x[up_to]) - s) < 1e-3
    assert drawn["u"].shape == (SMOKE.batch, SMOKE.sensors) and 0.7 < drawn["u"].std() < 1.3


@pytest.mark.slow
def test_the_smoke_run_of_the_antiderivative_reports(tmp_path):
    pytest.importorskip("tyro")
    from experiments.antiderivative import run

    found = json.loads(run.main(["--preset", "smoke", "--out", str(tmp_path / "run")]).read_text())
    assert found["trapezoidal rule"] < 1e-3 and found["networks"][0]["weights"] == 2_901
    assert found["networks"][0]["error"] < 0.3, found
