"""Losses, published scores and the evaluation of models, on cases whose answer is known."""

import dataclasses
import importlib.util
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import double, eddies, error

import hybridgcm as hg
from hybridgcm import coarsen, diagnostics, metrics
from hybridgcm.evaluate import evaluate, survivors


def test_points_of_a_sphere_count_by_their_area():
    """An error of one poleward of 60 degrees: of 1 − sin 60° of the area, but of a third of the rows."""
    grid = hg.Sphere(42, dtype=jnp.float64)
    polar = (np.abs(np.asarray(grid.latitude)) > 60)[:, None] + 0 * np.ones(grid.shape)
    t = jnp.where(np.arange(grid.shape[1]) % 2, 1.0, -1.0)[None] + np.zeros((1, *grid.shape))
    share = float(grid.mean(jnp.asarray(polar, float)))
    assert share == pytest.approx(1 - np.sin(np.pi / 3), abs=0.02) and polar.mean() > 2 * share
    p = {"u": t + polar}
    assert float(metrics.mse("u", grid=grid)(p, {"u": t})) == pytest.approx(share, rel=1e-9)
    assert float(metrics.rmse("u", grid=grid)(p, {"u": t})) == pytest.approx(np.sqrt(share), rel=1e-9)
    both = {"u": jnp.stack([t + polar, t + polar])}
    assert float(metrics.crps("u", grid=grid)(both, {"u": t})) == pytest.approx(share, rel=1e-9)
    assert float(metrics.mse("u")(p, {"u": t})) == pytest.approx(polar.mean(), rel=1e-9)
    plane = hg.Torus(8, 1.0, dtype=jnp.float64)
    a, b = ({"u": jnp.asarray(np.random.default_rng(i).normal(size=(3, 2, 8, 8)))} for i in range(2))
    for kind in (metrics.mse, metrics.rmse):
        assert error(kind("u", grid=plane)(a, b), kind("u")(a, b)) < 1e-12, "on a plane all points have one area"


class Growth(hg.AbstractClosure):
    """∂q/∂t = rate q."""

    rate: jax.Array = hg.param()

    def init(self, fields, grid):
        return None

    def __call__(self, fields, grid, memory, key):
        return {"q": self.rate * fields["q"]}, memory


def eddy(n=16, closure=None, dtype=jnp.float64):
    flow = hg.QuasiGeostrophic.two_layer(hg.Torus(n, 1e6, dtype=dtype), tau=86400.0)
    return hg.Model(flow, hg.SIL3(), closure, dt=3600.0)


def snapshots(model, count=6, rms=(5e-6, 1e-6), seed=0):
    grid = model.equation.grid
    return np.stack([eddies(grid, 2, rms, seed + i) for i in range(count)])


# Losses


def test_losses_are_order_one_for_tiny_si_fields_and_zero_for_a_perfect_match():
    rng = np.random.default_rng(0)
    for size in (1e-6, 1e-13, 1e-20):
        t = {"q": jnp.asarray(size * rng.standard_normal((3, 2, 8, 8)) * [[[1.0]], [[1e-2]]], jnp.float32)}
        assert float(metrics.mse("q")(t, t)) == 0 and np.all(np.asarray(metrics.rmse("q")(t, t)) == 0)
        slope = jax.grad(lambda a: jnp.sum(metrics.rmse("q")({"q": a}, t)))(t["q"])  # noqa: B023
        assert not np.asarray(slope).any()
        nothing = {"q": jnp.zeros_like(t["q"])}
        assert float(metrics.mse("q")(nothing, t)) == pytest.approx(1, rel=1e-5), size
        assert metrics.rmse("q")(nothing, t) == pytest.approx(np.ones(3), rel=1e-5)
        assert metrics.variance("q")({"q": 2 * t["q"]}, t) == pytest.approx(4 * np.ones(3), rel=1e-5)
        assert metrics.mse("q")(t, t).dtype == jnp.float32


def test_every_layer_counts_alike_in_the_loss():
    t = jnp.stack([jnp.ones((8, 8)), 1e-4 * jnp.ones((8, 8))])[None]
    off = lambda layer: {"q": t.at[:, layer].multiply(1.1)}
    upper, lower = (float(metrics.mse("q")(off(i), {"q": t})) for i in (0, 1))
    assert upper == pytest.approx(0.005) and lower == pytest.approx(0.005), (upper, lower)


def test_loss_gradient_agrees_with_differences_and_is_finite_at_a_perfect_match():
    rng = np.random.default_rng(1)
    p, t, d = (jnp.asarray(1e-6 * rng.standard_normal((3, 2, 8, 8))) for _ in range(3))
    loss = lambda x: metrics.mse("q")({"q": x}, {"q": t})
    slope = float(jnp.sum(jax.grad(loss)(p) * d))
    difference = float(loss(p + 1e-3 * d) - loss(p - 1e-3 * d)) / 2e-3
    assert abs(slope / difference - 1) < 1e-8, (slope, difference)
    assert np.all(np.isfinite(jax.grad(loss)(t)))


def test_spectral_loss_is_the_squared_relative_error_of_the_energies_whatever_the_phases():
    model = eddy(n=32, dtype=jnp.float32)
    grid = model.equation.grid
    t = jnp.asarray(snapshots(model), jnp.float32)
    loss = metrics.spectral(model.equation)
    at = lambda q: float(loss({"q": jnp.asarray(q, jnp.float32)}, {"q": t}))
    assert at(t) == 0
    assert at(jnp.roll(t, (5, 3), (-2, -1))) < 1e-9, "energies do not know where an eddy is"
    steady = jnp.stack([t[0]] * 3)
    for factor in (0.0, 1.1, 2.0):  # energy changes by factor², equally in every ring
        found = float(loss({"q": factor * steady}, {"q": steady}))
        assert found == pytest.approx((factor**2 - 1) ** 2, rel=1e-4, abs=1e-9), (factor, found)
    sharp = jnp.where(hg.exponential_filter(grid) == 1, 1.0, 0.0)
    only = metrics.resolved(loss, grid, sharp)
    found = float(only({"q": 1.1 * steady}, {"q": steady}))
    assert found == pytest.approx(0.21**2, rel=1e-4), f"empty rings take part: {found}"


def test_spectral_loss_prefers_the_right_energy_where_least_squares_prefer_a_damped_flow():
    """Two futures, equally likely: the mean of both has half the energy of either."""
    model = eddy(n=32)
    futures = jnp.asarray(snapshots(model, 2))[:, None]
    middle, either = futures.mean(0), futures[0]
    both = lambda loss, q: float(jnp.mean(jnp.stack([loss({"q": q}, {"q": t}) for t in futures])))
    assert both(metrics.energy(model.equation), middle) < 0.6 * both(metrics.energy(model.equation), either)
    assert both(metrics.spectral(model.equation), either) < 0.6 * both(metrics.spectral(model.equation), middle)


def test_loss_of_transfers_sees_work_at_every_scale_and_nothing_else():
    model = eddy(n=32, dtype=jnp.float32)
    grid, loss = model.equation.grid, metrics.transfers(model.equation)
    q, S = (
        jnp.asarray(rms * snapshots(model, 1, (1.0, 0.2), seed)[0], jnp.float32)
        for rms, seed in ((5e-6, 0), (1e-11, 9))
    )
    at = lambda p: float(loss({"S": p}, {"q": q, "S": S}))
    assert at(S) == 0 and at(0 * S) == pytest.approx(1, rel=1e-5) and at(-S) == pytest.approx(4, rel=1e-5)
    q_x = grid.gradient(grid.to_spectral(q))[0]
    idle = S + 2 * jnp.std(S[0]) / jnp.std(q_x[0]) * q_x
    one = metrics.transfers(hg.QuasiGeostrophic.barotropic(grid))
    alone = lambda p: float(one({"S": p[:1]}, {"q": q[:1], "S": S[:1]}))
    assert metrics.mse("S")({"S": idle}, {"S": S}) > 1
    assert alone(idle) < 1e-6, "what carries q along does no work on it"
    large = grid.to_grid(jnp.where(-grid.eigenvalues < (2.5 * 2 * np.pi / 1e6) ** 2, grid.to_spectral(q), 0))
    pushed = S + 1e-2 * jnp.std(S[0]) / jnp.std(large[0]) * large
    assert metrics.mse("S")({"S": pushed}, {"S": S}) < 1e-2 < at(pushed), "least squares hardly see the large scales"


def test_gradient_of_the_loss_of_transfers_agrees_with_differences():
    model = eddy()
    q, S, p, d = (jnp.asarray(snapshots(model, 1, seed=i)[0]) for i in (0, 20, 40, 60))
    loss = lambda p: metrics.transfers(model.equation)({"S": 1e-5 * p}, {"q": q, "S": 1e-5 * S})
    slope = float(jnp.sum(jax.grad(loss)(p) * d))
    difference = float(loss(p + 1e-4 * d) - loss(p - 1e-4 * d)) / 2e-4
    assert abs(slope / difference - 1) < 1e-6, (slope, difference)
    sharp = jnp.where(hg.exponential_filter(model.equation.grid) == 1, 1.0, 0.0)
    only = metrics.resolved(metrics.transfers(model.equation), model.equation.grid, sharp)
    slopes = jax.grad(lambda p: only({"S": p}, {"q": q, "S": S}))(p)
    assert np.all(np.isfinite(slopes)) and np.any(slopes != 0)


def test_spectral_loss_gradient_agrees_with_differences():
    model = eddy()
    t, p, d = (jnp.asarray(snapshots(model, 2, seed=i)) for i in (0, 20, 40))
    loss = lambda q: metrics.spectral(model.equation)({"q": q}, {"q": t})
    slope = float(jnp.sum(jax.grad(loss)(p) * d))
    difference = float(loss(p + 1e-4 * d) - loss(p - 1e-4 * d)) / 2e-4
    assert abs(slope / difference - 1) < 1e-6, (slope, difference)
    assert np.all(np.isfinite(jax.grad(loss)(t)))


def test_a_missing_name_and_unequal_frames_raise():
    field = jnp.ones((3, 2, 8, 8))
    with pytest.raises(ValueError, match="no 'qq'.*did you mean 'q'"):
        metrics.mse("qq")({"q": field}, {"q": field})
    with pytest.raises(ValueError, match="same frames"):
        metrics.rmse("q")({"q": field}, {"q": field[1:]})


# Climates


def test_wasserstein_is_exact_for_shifts_scalings_and_unequal_samples():
    rng = np.random.default_rng(2)
    a = rng.standard_normal(1000)
    assert metrics.wasserstein(a, a[::-1] + 0.3) == pytest.approx(0.3)
    assert metrics.wasserstein(a, 2 * a) == pytest.approx(np.mean(np.abs(a)))
    assert metrics.wasserstein(a, np.repeat(a, 3)) == pytest.approx(0, abs=1e-14)
    assert metrics.wasserstein(np.array([0.0, 1.0]), np.array([0.0, 0.0, 1.0])) == pytest.approx(1 / 6)
    b = rng.standard_normal(700) + 0.5
    brute = np.mean(np.abs(np.repeat(np.sort(a), 7) - np.repeat(np.sort(b), 10)))
    assert metrics.wasserstein(a, b) == pytest.approx(brute, rel=1e-12)


def test_climate_holds_fields_and_mean_spectra_of_the_snapshots():
    model = eddy()
    q = snapshots(model)
    c = metrics.climate(model, q.reshape(2, 3, 2, 16, 16), batch=4)
    states = [model.encode({"q": x}) for x in q]
    assert error(c.q.reshape(q.shape), np.stack([model.view(s)["q"] for s in states])) < 1e-13
    assert error(c.u[1, 2], model.view(states[5])["u"]) < 1e-13
    mean = np.mean([diagnostics.spectral_budget(model, s)["KEflux"] for s in states], 0)
    assert error(c.spectra["KEflux"], mean) < 1e-12
    zeta = model.equation.grid.to_grid(model.equation.grid.laplacian(model.equation.invert(states[5].y["q"])))
    assert error(c.zeta[1, 2], zeta) < 1e-12
    both = metrics.pool(metrics.climate(model, q[:2]), metrics.climate(model, q[2:4]), metrics.climate(model, q[4:]))
    assert both.q.shape == (3, 2, 2, 16, 16) and error(both.spectra["KEspec"], c.spectra["KEspec"]) < 1e-12


def test_climate_of_the_coarse_grained_flow_holds_coarse_fields_and_transferred_spectra():
    model, low = eddy(48), eddy(16)
    q = snapshots(model, 2)
    c = metrics.climate(model, q, coarse=low.equation.grid, operator=coarsen.operator2)
    state = model.encode({"q": q[0]})
    below = {"q": coarsen.operator2(state.y["q"], model.equation.grid, low.equation.grid)}
    fields = low.equation.view(below)
    for name in ("q", "u", "v"):
        assert error(getattr(c, name)[0, 0], fields[name]) < 1e-12, name
    assert c.limit == metrics.climate(low, snapshots(low, 1)).limit, "scores stop where the coarse filter begins"


def test_scores_use_the_published_wavenumbers():
    model = eddy(64, dtype=jnp.float32)
    c = metrics.climate(model, snapshots(model, 1).astype(np.float32))
    assert c.limit == pytest.approx(21 * 2 * np.pi / 1e6) and int(np.sum(c.kr < c.limit)) == 15


def test_eighteen_similarities_are_one_for_the_truth_and_zero_for_the_baseline():
    model = eddy()
    high, low = (metrics.climate(model, snapshots(model, 4, (a, 1e-6), seed)) for a, seed in ((5e-6, 0), (3e-6, 9)))
    perfect, baseline = metrics.ross_similarities(high, low, high), metrics.ross_similarities(low, low, high)
    assert tuple(perfect) == published().NAMES and len(perfect) == 18
    assert set(perfect.values()) == {1.0} and set(baseline.values()) == {0.0}, (perfect, baseline)


def test_errors_of_a_flow_with_all_fields_scaled_are_what_the_definition_says():
    model = eddy()
    target = metrics.climate(model, snapshots(model, 4))
    louder = dataclasses.replace(
        target,
        **{n: 1.1 * getattr(target, n) for n in ("q", "u", "v", "zeta")},
        spectra={n: 1.3 * a for n, a in target.spectra.items()},
    )
    errors = metrics.perezhogin_errors(louder, target)
    ratio = lambda a: float(np.mean(np.abs(a)) / np.sqrt(np.mean(a**2)))
    assert errors["q1"] == pytest.approx(0.1 * ratio(target.q[:, :, 0]))
    kinetic = target.u[:, :, 1] ** 2 + target.v[:, :, 1] ** 2
    assert errors["KE2"] == pytest.approx(0.21 * ratio(kinetic)), "no mean flow, no half"
    assert errors["spectral"] == pytest.approx(0.3)
    assert errors["Eflux"] == pytest.approx(0.3) and len(errors) == 16
    assert errors["distributional"] == pytest.approx(np.mean(list(errors.values())[2:12]))


def test_closure_work_belongs_to_the_fluxes_in_both_scores():
    model = eddy()
    target = metrics.climate(model, snapshots(model, 4))
    moved = {"KEflux": target.spectra["KEflux"] - 1e-3, "paramspec_KEflux": target.spectra["paramspec_KEflux"] + 1e-3}
    moved = dataclasses.replace(target, spectra=target.spectra | moved)
    assert metrics.perezhogin_errors(moved, target)["Eflux"] < 1e-9
    other = metrics.climate(model, snapshots(model, 4, seed=30))
    assert metrics.ross_similarities(moved, other, target)["KEflux"] == pytest.approx(1)


def test_only_the_last_snapshots_of_every_run_count():
    model = eddy()
    q = snapshots(model, 4)
    spun_up = metrics.climate(model, np.stack([q, q[::-1]]))
    garbage = dataclasses.replace(spun_up, q=np.concatenate([100 * spun_up.q[:, :2], spun_up.q], 1))
    assert metrics.ross_similarities(garbage, metrics.climate(model, 2 * q), spun_up, last=4)["q1"] == 1


def test_one_layer_is_scored_by_what_it_has():
    grid = double(16, dealias=None)
    model = hg.Model(hg.QuasiGeostrophic.barotropic(grid, drag=1e-7), hg.AB3(), dt=3600.0)
    field = lambda seed: np.stack([eddies(grid, 1, 5e-6, seed + i) for i in range(3)])
    target, other, low = (metrics.climate(model, field(seed)) for seed in (0, 10, 20))
    errors = metrics.perezhogin_errors(other, target)
    assert set(errors) == {"distributional", "spectral", "q1", "u1", "v1", "KE1", "Ens1", "KEspec1", "Eflux"}
    assert errors["spectral"] == pytest.approx((errors["KEspec1"] + errors["Eflux"]) / 2)
    similarities = metrics.ross_similarities(target, low, target)
    assert set(similarities) == {
        *("q1", "u1", "v1", "KE1", "Ens1", "KEspec1", "Ensspec1", "KEflux", "KEfrictionspec")
    } and set(similarities.values()) == {1.0}


def test_climate_of_shallow_water_holds_its_fields_and_energies():
    grid, low = double(24), double(12)
    water = hg.ShallowWater(grid, 1e-4, 100.0)
    model = hg.Model(water, hg.SIL3(), dt=600.0)
    fields = {n: np.stack([eddies(grid, 1, a, i) for i in range(2)]) for n, a in zip(water.prognostic, (1e-5, 1e-6, 3))}
    c = metrics.climate(model, fields)
    view = model.view(model.encode({n: a[1] for n, a in fields.items()}))
    assert c.q is None and set(c.fields) == {"u", "v", "zeta", "phi"}
    assert all(error(a[0, 1], view[n]) < 1e-12 for n, a in c.fields.items())
    wave = np.asarray(wave_of(grid, 3))
    alone = {"zeta": 1e-5 * wave[None, None], "delta": 0 * wave[None, None], "phi": 2.0 * wave[None, None]}
    spectra, k = metrics.climate(model, alone).spectra, 3 * 2 * np.pi / 1e6
    ratio = spectra["KEspec"].max() / spectra["phispec"].max()
    assert ratio == pytest.approx((1e-5 / k) ** 2 / (2.0**2 / 100.0)), "|u|² = ζ²/k², |φ|²/mean"
    coarse = metrics.climate(model, fields, coarse=low, operator=coarsen.cutoff)
    kept = coarsen.cutoff(grid.to_spectral(jnp.asarray(fields["zeta"][0])), grid, low)
    assert error(coarse.zeta[0, 0], low.to_grid(kept)) < 1e-12
    errors = metrics.perezhogin_errors(c, c)
    assert {"zeta1", "phi1", "KEspec1", "phispec1"} < set(errors) and set(errors.values()) == {0.0}
    with pytest.raises(ValueError, match="ShallowWater has snapshots of"):
        metrics.climate(model, fields["zeta"])


def wave_of(grid, m):
    return np.cos(2 * np.pi * m * grid.x / grid.length[1]) * np.ones((grid.shape[0], 1))


def test_frezats_errors_are_those_of_energy_and_enstrophy():
    grid = double(16, dealias=None)
    model = hg.Model(hg.QuasiGeostrophic.barotropic(grid), hg.AB3(), dt=3600.0)
    q = np.stack([eddies(grid, 1, 5e-6, i) for i in range(3)])
    target, louder = metrics.climate(model, q), metrics.climate(model, 1.1 * q)
    errors = metrics.frezat_errors(louder, target)
    assert [errors[n] for n in ("E(t)", "Z(t)", "E(k)", "Z(k)")] == pytest.approx([0.21] * 4, rel=1e-6)
    last = target.zeta[:, -1]
    assert errors["zeta"] == pytest.approx(0.1 * np.mean(np.abs(last)) / np.sqrt(np.mean(last**2)))
    turned = metrics.frezat_errors(metrics.climate(model, q[[1, 0, 2]]), target)
    assert turned["E(t)"] > 0 and turned["E(k)"] < 1e-6, "the order of snapshots matters in time, not in wavenumber"
    with pytest.raises(ValueError, match="2 and 3 snapshots"):
        metrics.frezat_errors(metrics.climate(model, q[:2]), target)


def published():
    path = Path(__file__).parents[1] / "experiments" / "closure" / "published.py"
    spec = importlib.util.spec_from_file_location("published", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_published_yardstick_is_the_mean_of_its_parts():
    table = published()
    parts = list(table.YARDSTICK.values())
    means = (np.mean(parts[:10]), np.mean(parts[10:]))
    assert means == pytest.approx(table.ERRORS["eddy", "operator1", 3600]["No closure"], abs=5e-5), means
    assert np.mean([v for n, v in table.SIMILARITIES["eddy"]["CNN, offline"].items()][:10]) == pytest.approx(0.7056)


# Evaluation


def trajectories(model, starts, steps, every):
    run = lambda q: hg.rollout(model, model.encode({"q": q}), steps, every=every)[1]["save"]["q"]
    return {"q": eqx.filter_jit(jax.vmap(run))(starts["q"])}


def test_a_perfect_model_scores_zero_error_and_a_growing_one_is_unstable():
    model = eddy()
    starts = {"q": jnp.asarray(snapshots(model, 3))}
    future = trajectories(model, starts, 12, 4)
    scores = {"rmse": metrics.rmse("q"), "variance": metrics.variance("q")}
    models = {"perfect": model, "growing": eddy(closure=Growth(1e-4)), "bursting": eddy(closure=Growth(1.0))}
    table = evaluate(models, starts, future, steps=12, every=4, metrics=scores)
    assert table["perfect"]["stable"] == 1 and np.all(table["perfect"]["rmse"] < 1e-12), table["perfect"]
    assert table["perfect"]["variance"] == pytest.approx(np.ones(3)) and table["perfect"]["rmse"].shape == (3,)
    for name in ("growing", "bursting"):
        assert table[name]["stable"] == 0 and np.all(np.isnan(table[name]["rmse"])), (name, table[name])


def test_scores_are_means_over_the_stable_starts_only():
    model = eddy()
    starts = {"q": jnp.asarray(snapshots(model, 3))}
    future = trajectories(model, starts, 4, 2)
    future = {"q": future["q"].at[1].multiply(1e-3)}
    row = evaluate({"m": model}, starts, future, 4, 2, {"rmse": metrics.rmse("q")})["m"]
    assert row["stable"] == pytest.approx(2 / 3) and np.all(row["rmse"] < 1e-12), row


def test_evaluate_refuses_frames_that_do_not_fit():
    model = eddy()
    starts = {"q": jnp.asarray(snapshots(model, 2))}
    future = trajectories(model, starts, 4, 2)
    with pytest.raises(ValueError, match=r"expected \(2, 4, layer, y, x\)"):
        evaluate({"m": model}, starts, future, 4, 1, {})
    with pytest.raises(ValueError, match="must divide"):
        evaluate({"m": model}, starts, future, 5, 2, {})


def test_survivors_count_bounded_runs_and_name_the_first_bad_step():
    calm, wild = eddy(), eddy(closure=Growth(2e-5))
    starts = {"q": jnp.asarray(snapshots(calm, 2))}
    fine = survivors(calm, starts, 200, every=20)
    assert fine.survivors == fine.attempts == 2 and fine.first_bad_step == (None, None)
    lost = survivors(wild, starts, 200, every=20, courant=np.inf)
    assert lost.survivors == 0 and all(step % 20 == 0 and 0 < step < 200 for step in lost.first_bad_step), lost
    assert "variance of q" in lost.reason[0]
    burst = survivors(eddy(closure=Growth(1.0)), starts, 200, every=20)
    assert burst.survivors == 0 and burst.reason[0], burst
