"""Closures around closures: held, cast, in flux form, energy neutral, symmetric; and the gradient model's expansion."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from helpers import double, eddies, error, same_bits, slope

import hybridgcm as hg
from hybridgcm import closures
from hybridgcm.nn import CNN

RMS = (5e-6, 5e-7)  # of q per layer, s-1
GRID = double(16)
FLOW = hg.QuasiGeostrophic.two_layer(GRID)


def network(outputs=("q",), inputs=("q", "u", "v"), seed=3):
    """A CNN closure with random weights in its last layer."""
    net = CNN((2 * len(inputs), 4, 2 * len(outputs)), (3, 3), key=jr.key(seed), activation=jnp.tanh)
    net = eqx.tree_at(lambda net: net.weights[-1], net, jr.normal(jr.key(4), net.weights[-1].shape) / 6)
    scales = {"q": RMS, "u": (5e-2, 5e-2), "v": (5e-2, 5e-2)}
    return hg.NetworkClosure(net, inputs, outputs, np.concatenate([scales[name] for name in inputs]), 1e-11)


def fields(grid=GRID, seed=0, dtype=None):
    q = jnp.asarray(eddies(grid, 2, RMS, seed), dtype)
    return hg.QuasiGeostrophic.two_layer(grid).view({"q": grid.to_spectral(q)})


def forcing_of(closure, given, grid=GRID):
    return closure(given, grid, closure.init(given, grid), jr.key(0))[0]


def work(forcing):
    """Energy that a forcing gives, and the size of what it exchanges, m² s⁻³."""
    given, lifted = fields(), FLOW.lift(forcing)["q"]
    density = -FLOW.thickness[:, None, None] * given["psi"] * GRID.to_grid(lifted)
    return float(GRID.mean(density.sum(0))), float(GRID.mean(jnp.abs(density).sum(0)))


class Square(hg.AbstractClosure):
    """dq = 1e-3 q², on the grid or spectral: it has a mean."""

    name: str = eqx.field(static=True)

    def init(self, fields, grid):
        return None

    def __call__(self, fields, grid, memory, key):
        square = 1e-3 * fields["q"] ** 2
        return {self.name: grid.to_spectral(square) if self.name == "q_hat" else square}, memory


@pytest.mark.parametrize("name", ["q", "q_hat"])
def test_zero_mean_takes_the_mean_and_nothing_else(name):
    given = fields()
    whole, rest = (FLOW.lift(forcing_of(c, given))["q"] for c in (Square(name), closures.ZeroMean(Square(name))))
    whole, rest = GRID.to_grid(whole), GRID.to_grid(rest)
    mean = GRID.mean(whole)
    assert (mean > 0.01 * jnp.abs(whole).max((1, 2))).all()
    assert jnp.abs(GRID.mean(rest)).max() < 1e-14 * jnp.abs(whole).max()
    assert error(rest, whole - mean[:, None, None]) < 1e-13


# Held and cast


def test_a_held_closure_is_evaluated_at_every_nth_step_only():
    leith = hg.Leith(0.5)
    held, memory, seen = closures.Every(leith, 3), None, []
    memory = held.init(fields(), GRID)
    for seed in range(7):
        forcing, memory = held(fields(seed=seed), GRID, memory, jr.key(0))
        seen.append(forcing)
    for step, forcing in enumerate(seen):
        last = 3 * (step // 3)
        assert error(forcing["q_hat"], forcing_of(leith, fields(seed=last))["q_hat"]) < 1e-14, step
        assert same_bits(forcing, seen[last]), f"step {step} does not hold the forcing of step {last}"
    with pytest.raises(ValueError, match="at least 1; got n=0"):
        closures.Every(leith, 0)


def test_holding_one_step_changes_nothing():
    runs = []
    for closure in (hg.Leith(0.5), closures.Every(hg.Leith(0.5), 1)):
        model = hg.Model(FLOW, hg.AB3(), closure, dt=3600.0)
        runs.append(hg.rollout(model, model.encode({"q": eddies(GRID, 2, RMS)}), 20, every=20)[0].y["q"])
    assert error(runs[1], runs[0]) < 1e-13


def test_a_cast_network_computes_in_half_precision_and_answers_in_the_model_s():
    grid = hg.Torus(16, 1e6)
    given = {name: a.astype(jnp.float32) for name, a in fields().items()}
    exact = forcing_of(network(), given, grid)["q"]
    cast = closures.Cast(network(), jnp.bfloat16)
    assert "bf16" in str(jax.make_jaxpr(lambda given: forcing_of(cast, given, grid))(given))
    found = forcing_of(cast, given, grid)["q"]
    assert found.dtype == jnp.float32 and 1e-4 < error(found, exact) < 3e-2, error(found, exact)


# Flux form and energy


def test_flux_form_is_minus_the_divergence_of_the_flux():
    inner = network(("q_x", "q_y"))
    flux, found = forcing_of(inner, fields()), forcing_of(closures.FluxForm(inner), fields())
    expected = -GRID.divergence(flux["q_x"], flux["q_y"])
    assert set(found) == {"q_hat"} and error(found["q_hat"], expected) < 1e-14
    assert found["q_hat"][:, 0, 0].tolist() == [0, 0], "the mean is not conserved"
    with pytest.raises(ValueError, match=r"returns \('q_x', 'q_y'\); got \['q'\]"):
        forcing_of(closures.FluxForm(network()), fields())


@pytest.mark.parametrize("inner", [network(), network(("u", "v")), hg.Leith(0.5), hg.Smagorinsky(0.3)])
def test_an_energy_neutral_closure_does_no_work(inner):
    before, size = work(forcing_of(inner, fields()))
    after = work(forcing_of(closures.EnergyNeutral(inner, FLOW.thickness), fields()))[0]
    assert abs(before) > 1e-3 * size, "the inner closure does no work either"
    assert abs(after) < 1e-12 * size, f"work {after} of {size} exchanged"


def test_the_correction_of_energy_leaves_a_neutral_forcing_alone():
    neutral = closures.EnergyNeutral(network(), FLOW.thickness)
    twice = closures.EnergyNeutral(neutral, FLOW.thickness)
    assert error(forcing_of(twice, fields())["q"], forcing_of(neutral, fields())["q"]) < 1e-12
    with pytest.raises(ValueError, match="3 thicknesses, the fields 2 layers"):
        closures.EnergyNeutral(network(), (1, 1, 1)).init(fields(), GRID)


class Friction(hg.AbstractClosure):
    """du = −u/day."""

    def init(self, fields, grid):
        return None

    def __call__(self, fields, grid, memory, key):
        return {name: -fields[name] / 86400 for name in ("u", "v")}, memory


def test_means_are_taken_from_winds_on_a_plane_but_not_on_a_sphere():
    """The mean of the westerlies is no momentum; taken away, it leaves a curl u tan(latitude)/radius at the poles."""
    day = 86400.0
    made = {
        "network": hg.NetworkClosure(lambda x: -x, ("u", "v"), ("u", "v"), 1.0, 1 / day),
        "ZeroMean": closures.ZeroMean(Friction()),
        "SPPT": closures.SPPT(Friction(), 0.5, scale=3e6, tau=day, dt=3600.0),
    }
    for grid, kept in ((hg.Sphere(10), {"network", "ZeroMean"}), (hg.Torus(16, 1e6), {"SPPT"})):
        wind = 5 + jnp.broadcast_to(jnp.cos(jnp.linspace(0, 3, grid.shape[0]))[:, None], (1, *grid.shape))
        for name, closure in made.items():
            found = forcing_of(closure, {"u": wind, "v": 0 * wind, "q": wind}, grid)["u"]
            same = abs(float(grid.mean(found)[0] * day / grid.mean(wind)[0]) + 1) < 1e-5
            assert same == (name in kept), (name, grid)


# Symmetry


@pytest.mark.parametrize("inner", [hg.Smagorinsky(0.3), hg.ZannaBolton(-4e8)])
def test_closures_of_physics_are_symmetric_already(inner):
    plain = forcing_of(inner, fields())
    for name, found in forcing_of(closures.Equivariant(inner), fields()).items():
        assert error(found, plain[name]) < 1e-12, f"{name}: the turn has a sign wrong"


@pytest.mark.parametrize("outputs", [("q",), ("u", "v")])
@pytest.mark.parametrize("change", ["turn", "mirror"])
def test_a_symmetric_network_turns_with_the_flow(outputs, change):
    """Fields are turned through their streamfunction here, independently of how the closure turns them."""

    def moved(psi):
        return jnp.rot90(psi, 1, (-2, -1)) if change == "turn" else -jnp.flip(psi, -1)

    def flow(psi):
        psi_hat = GRID.to_spectral(psi)
        u, v = GRID.velocity(psi_hat)
        return {"q": GRID.to_grid(FLOW.potential_vorticity(psi_hat)), "u": u, "v": v, "psi": psi}

    psi = fields()["psi"]
    for closure, symmetric in ((network(outputs), False), (closures.Equivariant(network(outputs)), True)):
        curl = lambda given, c=closure: GRID.to_grid(FLOW.lift(forcing_of(c, given))["q"])
        found = error(curl(flow(moved(psi))), moved(curl(flow(psi))))
        assert (found < 1e-11) if symmetric else (found > 0.1), (type(closure).__name__, found)


def test_symmetry_is_refused_where_it_is_not_known():
    oblong = double((16, 24), (1e6, 1.5e6))
    with pytest.raises(ValueError, match="square torus"):
        closures.Equivariant(network()).init(fields(oblong), oblong)
    with pytest.raises(ValueError, match="memory of Every"):
        closures.Equivariant(closures.Every(network(), 2)).init(fields(), GRID)
    with pytest.raises(ValueError, match="how 'q_hat' behaves in a mirror is not known"):
        forcing_of(closures.Equivariant(hg.Leith(0.5)), fields())


# Gradient model and hyperviscosity


def test_gradient_model_is_the_leading_term_of_the_subgrid_flux_of_a_gaussian_filter():
    """S = ∇·(u̅ q̅ − filter(u q)) for filters of falling width: the relative error falls with its square."""
    grid = double(96)
    given = fields(grid)
    widths, errors = np.array([0.5, 1.0, 2.0]), []
    for width in widths:
        gauss = jnp.exp(grid.eigenvalues * (width * grid.spacing) ** 2 / 24)
        smooth = lambda a, gauss=gauss: grid.to_grid(gauss * grid.to_spectral(a))
        u, v, q = (smooth(given[name]) for name in ("u", "v", "q"))
        product = [u * q - smooth(given["u"] * given["q"]), v * q - smooth(given["v"] * given["q"])]
        exact = grid.to_grid(grid.divergence(*product))
        found = forcing_of(closures.GradientModel(width), {"u": u, "v": v, "q": q}, grid)["q_hat"]
        errors.append(error(grid.to_grid(found), exact))
    assert errors[-1] < 0.1, errors
    assert abs(slope(widths, errors) - 2) < 0.1, errors


@pytest.mark.parametrize("order", [1, 4])
def test_hyperviscosity_damps_the_smallest_wave_at_one_over_tau(order):
    grid = double(32, dealias=None)
    found = forcing_of(closures.Hyperviscosity(5e4, order), fields(grid), grid)["q_hat"]
    q_hat = grid.to_spectral(fields(grid)["q"])
    rate = np.asarray(-(found / jnp.where(q_hat == 0, 1, q_hat)).real[0])
    relative = np.asarray(grid.eigenvalues / jnp.min(jnp.where(grid.multiplicity > 0, grid.eigenvalues, 0)))
    held = np.abs(np.asarray(q_hat[0])) > 1e-12 * np.abs(np.asarray(q_hat[0])).max()
    assert np.allclose(rate[held], (relative**order / 5e4)[held], rtol=1e-10)
