"""Pairs of flows: statistics of random states, exact waves and decay, the same truth at every resolution."""

import json

import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from helpers import double, error

import hybridgcm as hg
from hybridgcm import pairs

MEAN = 9.80616e4


def sphere(truncation=14):
    return hg.Sphere(truncation, dtype=jnp.float64)


def model(grid, rotation=1.0, dt=300.0):
    f = grid.coriolis() if isinstance(grid, hg.Sphere) else 1e-4
    return hg.Model(hg.ShallowWater(grid, rotation * f, MEAN), hg.RK4(), dt=dt)


def water(grid=None, key=0, **settings):
    """Forty pairs, as all tests take them: one compilation serves most."""
    own = {name: settings.pop(name) for name in ("rotation", "dt") if name in settings}
    return pairs.shallow_water(model(grid or sphere(), **own), 40, jr.key(key), **{"largest": 6} | settings)


def spectra(grid, fields):
    """Mean power per mode of ∇², by shell."""
    a_hat = grid.to_spectral(jnp.asarray(fields))
    power = np.asarray(grid.spectrum(grid.cospectrum(a_hat, a_hat))).reshape(-1, len(grid.spectrum(grid.multiplicity)))
    return power.mean(0) / np.maximum(np.asarray(grid.spectrum(grid.multiplicity)), 1)


# Random states


@pytest.mark.parametrize(
    ("coarse", "fine", "largest"),
    [(sphere, lambda: sphere(21), 6), (lambda: double(20, 2e6), lambda: double(32, 2e6), 6)],
)
def test_random_fields_are_the_same_on_every_grid(coarse, fine, largest):
    draw = lambda grid: pairs.gaussian(grid, 3, jr.key(0), largest=largest, variance=lambda e: np.exp(-e * 1e12))
    coarse, fine = coarse(), fine()
    one, other = (grid.to_spectral(draw(grid)) for grid in (coarse, fine))
    assert error(coarse.resize(one, fine), other) < 1e-12
    assert error(draw(coarse), coarse.to_grid(fine.resize(other, coarse))) < 1e-12
    assert float(jnp.abs(coarse.mean(draw(coarse))).max()) < 1e-12


@pytest.mark.parametrize("grid", [sphere, lambda: double(20, 2e6)])
def test_random_fields_have_the_variance_that_is_asked_of_every_mode(grid):
    """2,000 fields: power by shell to a few percent, nothing beyond the largest, equal variance at every point."""
    grid, asked = grid(), lambda e: 1 / (e + 3e-12)
    fields = np.asarray(pairs.gaussian(grid, 2000, jr.key(1), largest=6, variance=asked))
    power = spectra(grid, fields)
    shells = np.arange(1, 7)
    eigenvalue = shells * (shells + 1) / grid.radius**2 if isinstance(grid, hg.Sphere) else None
    if eigenvalue is not None:
        assert error(power[1:7], asked(eigenvalue)) < 0.05, power[1:7] / asked(eigenvalue)
        assert power[7:].max() < 1e-20 * power[1]
    else:  # shells mix eigenvalues: mode by mode
        a_hat = np.asarray(grid.to_spectral(jnp.asarray(fields)))[:, 0]
        ratio = (np.abs(a_hat) ** 2).mean(0) / asked(-np.asarray(grid.eigenvalues))
        inside = (np.asarray(grid.eigenvalues) < 0) & (-np.asarray(grid.eigenvalues) < (6.01 * np.pi / 1e6) ** 2)
        assert np.abs(ratio[inside] - 1).max() < 0.15 and abs(ratio[inside].mean() - 1) < 0.02, ratio[inside]
        assert ratio[~inside].max() < 1e-20
    assert error(fields.var(0), np.full(grid.shape, fields.var())) < 0.2


# Shallow water


def test_starts_have_the_amplitudes_of_the_published_data():
    grid = sphere()
    made = water(grid)
    rms = {name: np.sqrt(float(grid.mean(jnp.asarray(a) ** 2).mean())) for name, a in made.items()}
    speed = 0.2 * np.sqrt(MEAN) / grid.radius
    for name, expected in (("phi0", 0.012 * MEAN), ("zeta0", speed), ("delta0", speed)):
        assert rms[name] == pytest.approx(expected, rel=0.06), (name, rms[name] / expected)
    assert made["phi"].shape == (40, 1, *grid.shape) and made["phi"].dtype == np.float64


@pytest.mark.parametrize("grid", [sphere, lambda: double(20, 4e7)])
def test_small_states_are_exact_gravity_waves(grid):
    """Without rotation every mode has φ'' = −mean κ² φ, φ' = −mean δ, and its vorticity stays."""
    grid, lead = grid(), 3600.0
    made = water(grid, rotation=0.0, mach=1e-9, thickness=1e-9)
    hat = {name: grid.to_spectral(jnp.asarray(a)) for name, a in made.items()}
    omega = np.sqrt(-MEAN * np.asarray(grid.eigenvalues))
    slowness = np.where(omega > 0, np.sin(omega * lead) / np.where(omega > 0, omega, 1), lead)
    phi = hat["phi0"] * np.cos(omega * lead) - MEAN * slowness * hat["delta0"]
    delta = hat["delta0"] * np.cos(omega * lead) - np.asarray(grid.eigenvalues) * slowness * hat["phi0"]
    assert error(made["phi"], grid.to_grid(phi)) < 1e-5
    assert error(made["delta"], grid.to_grid(delta)) < 1e-5
    assert error(made["zeta"], made["zeta0"]) < 1e-6


@pytest.mark.slow
def test_pairs_at_two_resolutions_are_of_one_operator():
    """The same starts by key; ends that differ by what the coarse grid cannot hold; converged; mass exact."""
    coarse, fine = sphere(), sphere(21)
    low, high, again, finer = water(), water(fine), water(), water(dt=150.0)
    onto = lambda a: coarse.to_grid(fine.resize(fine.to_spectral(jnp.asarray(a)), coarse))
    for name in low:
        assert np.array_equal(low[name], again[name]), "the same key, the same pairs"
        assert error(low[name], onto(high[name])) < (1e-12 if name.endswith("0") else 3e-3), name
        assert error(low[name], finer[name]) < 1e-5, "converged in time"
    assert np.abs(np.asarray(coarse.mean(jnp.asarray(low["phi"])))).max() < 1e-12 * MEAN
    assert not np.allclose(low["phi"], water(key=1)["phi"]) and not np.allclose(low["phi"][0], low["phi"][1])


# Navier-Stokes


def stirred(n=32, samples=1, viscosity=1e-3, dt=0.1, **settings):
    settings = {"times": (0.5, 2.0), "largest": 5, "variance": 7.0**3} | settings
    return pairs.navier_stokes(n, samples, jr.key(1), viscosity=viscosity, dt=dt, **settings)


def test_stirred_from_rest_the_flow_is_that_of_one_wave():
    """ζ = f (1 − exp(−8π²ν t))/(8π²ν) exactly: one wave does not advect itself."""
    made = stirred(viscosity=0.02, variance=0.0)
    x = np.arange(32) / 32
    phase = 2 * np.pi * (x[None, :] + x[:, None])
    f, rate = 0.1 * (np.sin(phase) + np.cos(phase)), 0.02 * 8 * np.pi**2
    for i, time in enumerate((0.5, 2.0)):
        assert error(made["zeta"][0, i], f * (1 - np.exp(-rate * time)) / rate) < 1e-12
    assert made["zeta0"].shape == (1, 1, 32, 32) and not made["zeta0"].any()


def test_navier_stokes_converges_in_time_and_keeps_the_points_asked_for():
    ends = [stirred(dt=dt)["zeta"][0, 1] for dt in (0.25, 0.1, 0.05)]
    errors = [float(np.abs(end - ends[-1]).max()) for end in ends[:-1]]
    order = (2.5**4 - 0.5**4) / (1 - 0.5**4)  # ratio of the errors of a scheme of fourth order
    assert order / 1.3 < errors[0] / errors[1] < 1.3 * order, errors
    some, all_ = stirred(16, refine=2), stirred()
    for name in all_:
        assert np.array_equal(some[name], all_[name][..., ::2, ::2])


def test_initial_vorticity_has_the_published_covariance():
    grid = double(20, 1.0)
    made = stirred(20, 500, times=(0.1,), variance=pairs.flows.VARIANCE)["zeta0"]
    power = (np.abs(np.asarray(grid.to_spectral(jnp.asarray(made)))[:, 0]) ** 2).mean(0)
    squares = -np.asarray(grid.eigenvalues)
    for place in ((0, 1), (1, 0), (-1, 2), (3, 3)):
        expected = 7**1.5 * (squares[place] + 49) ** -2.5
        assert power[place] == pytest.approx(expected, rel=0.2), place
    assert power[squares > (2 * np.pi * 5.01) ** 2].max() < 1e-20 and power[0, 0] < 1e-20


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: water(largest=15), "the grid (24, 48) resolves 224"),
        (lambda: water(lead=1000.0), "no multiple of the model's time step"),
        (lambda: water(largest=0), "at least 1; got 0"),
        (lambda: stirred(largest=11), "of which the grid (32, 32) resolves"),
        (lambda: stirred(times=(2, 1)), "times are positive and grow"),
    ],
)
def test_what_cannot_be_drawn_or_solved_is_refused(make, words):
    with pytest.raises(ValueError) as caught:
        make()
    assert words in str(caught.value), caught.value


# The experiment


def test_a_regression_for_every_degree_recovers_a_linear_map_on_every_grid():
    """φ ← 3 ζ + ∂φ/∂λ, ζ ← sin φ ζ, δ ← ∇²δ/10, in units of their own; the third needs no latitude."""
    from experiments.spherical_operators import baselines

    def applied(grid, fields):
        hat = {name: grid.to_spectral(jnp.asarray(a)) for name, a in fields.items()}
        sine = np.sin(np.radians(grid.latitude))[:, None]
        phi = grid.to_grid(3e8 * hat["zeta"] + grid.radius * grid.zonal_derivative(hat["phi"]))
        zeta = sine * fields["zeta"]
        zeta = zeta - (np.asarray(grid.weights) * zeta).sum((-2, -1), keepdims=True)
        return {"phi": phi, "zeta": zeta, "delta": grid.to_grid(grid.laplacian(hat["delta"])) * 1e12}

    coarse, fine, units = hg.Sphere(10), hg.Sphere(21), (1e3, 1e-5, 1e-5)
    draw = lambda grid, key: dict(zip(baselines.NAMES, (
        unit * np.asarray(pairs.gaussian(grid, 8, jr.key(key + i), largest=6, variance=np.ones_like))
        for i, unit in enumerate(units)
    )))  # fmt: skip
    starts, test = draw(coarse, 0), draw(fine, 5)
    for latitude, errors in ((True, (0, 0, 0)), (False, (0, 1, 0))):
        made = baselines.per_degree(starts, applied(coarse, starts), coarse, latitude)(test, fine)
        for name, wrong in zip(baselines.NAMES, errors):
            found = error(made[name], applied(fine, test)[name])
            assert found > 0.3 if wrong else found < 1e-3, (name, latitude, found)


@pytest.mark.slow
def test_the_smoke_run_reports(tmp_path):
    pytest.importorskip("matplotlib")
    pytest.importorskip("tyro")
    from experiments.spherical_operators import run

    report = run.main(["--preset", "smoke", "--seeds", "1", "--recipes", "sfno", "--out", str(tmp_path / "run")])
    table = json.loads((report.parent / "report.json").read_text())
    scores = {label: rows[0]["16 × 32"]["zeta"] for label, rows in table["scores"].items()}
    assert scores["solver, RK4 with 900 s"] < scores["linear map, with sin φ"] < scores["linear map, degree by degree"]
    assert scores["linear map, degree by degree"] < scores["persistence"], scores
    after = {label: rows[0]["errors"] for label, rows in table["runs"].items()}
    assert max(after["solver"]["24"].values()) < 0.1 < after["SFNO"]["1"]["phi"]
    assert "| SFNO |" in report.read_text() and (report.parent / "sample.png").stat().st_size > 5_000


def test_settings_that_do_not_fit_are_told():
    from experiments.spherical_operators.config import SMOKE, Config

    assert not list(Config().problems()) and not list(SMOKE.problems())
    for change, message in (({"largest": 30}, "largest <= truncation"), ({"samples": 201}, "multiple of batch")):
        assert any(message in line for line in Config(**change).problems()), change
