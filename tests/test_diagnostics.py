"""Energy, spectra and budgets against pyqg's own diagnostics, Parseval and the model's energy change."""

from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import double, eddies, error

import hybridgcm as hg
from hybridgcm import coarsen, diagnostics

GOLDEN = dict(np.load(Path(__file__).parent / "golden" / "pyqg_spectra.npz"))
# The fluxes differ from pyqg's by its derivative of Nyquist modes, which is zero here (rounding of the snapshot to
# float32 leaves 1e-13 of its amplitude there): with that derivative, the formulas agree to 6e-16.
SPECTRA = {
    "KEspec": 1e-10,
    "Ensspec": 1e-10,
    "APEgenspec": 1e-10,
    "KEfrictionspec": 1e-10,
    "APEflux": 1e-10,
    "KEflux": 5e-10,
}
STRETCHING = np.array([[-3, 3, 0], [2, -5, 3], [0, 1.5, -1.5]]) * 1e-9  # m-2, depths 2 : 3 : 6


class Damping(hg.AbstractClosure):
    """∂q/∂t = ν∇²q and ∂u/∂t = −r u, on spectral and momentum forcing at once."""

    def init(self, fields, grid):
        return None

    def __call__(self, fields, grid, memory, key):
        viscous = 20.0 * grid.laplacian(grid.to_spectral(fields["q"]))
        return {"q_hat": viscous, "u": -1e-7 * fields["u"], "v": -1e-7 * fields["v"]}, memory


def three_layer(grid, **kwargs):
    return hg.QuasiGeostrophic(
        grid, STRETCHING, [2.0, 3.0, 6.0], beta=1.5e-11, U=[0.05, 0.02, 0.0], drag=5e-7, **kwargs
    )


def pyqg_snapshot():
    grid = double(64, dealias=None)
    stepper = hg.Filtered(hg.AB3(), hg.exponential_filter(grid))
    model = hg.Model(hg.QuasiGeostrophic.two_layer(grid), stepper, dt=3600.0)
    return model, model.encode({"q": jnp.asarray(GOLDEN["q"])})


def ring_means(density, bins):
    """`calc_ispec` written out: mean over a ring, columns k = 0 and Nyquist halved, times 2π kr/dk²."""
    density, kr = np.array(density), GOLDEN["kr"]
    density[..., [0, -1]] /= 2
    means = np.stack([density[..., bins == i].mean(-1) for i in range(kr.size)], -1)
    return 2 * np.pi * kr * means / (2 * np.pi / 1e6) ** 2


@pytest.mark.parametrize("name", SPECTRA)
def test_spectra_equal_those_of_pyqg(name):
    model, state = pyqg_snapshot()
    density, reference = diagnostics.budget(model, state)[name], GOLDEN[f"{name}_ispec"]
    found = error(ring_means(density, GOLDEN["spectral_bin"]), reference)
    assert found < SPECTRA[name], found
    total = np.abs(diagnostics.total(model.equation.grid, density) - GOLDEN[f"{name}_total"])
    size = np.max(diagnostics.total(model.equation.grid, jnp.abs(density)))
    assert np.max(total) < 1e-10 * size, (np.max(total), size)


@pytest.mark.parametrize("name", SPECTRA)
def test_isotropic_spectra_are_ring_means_over_exact_rings(name):
    model, state = pyqg_snapshot()
    rings = diagnostics.ring_index(model.equation.grid)
    expected = ring_means(diagnostics.budget(model, state)[name], rings)
    found = error(eqx.filter_jit(diagnostics.spectral_budget)(model, state)[name], expected)
    assert found < 1e-13, found
    same = [i for i in range(len(GOLDEN["kr"])) if np.array_equal(rings == i, GOLDEN["spectral_bin"] == i)]
    assert len(same) == 15, "rings without a mode that pyqg's rounding moves"
    reference = GOLDEN[f"{name}_ispec"]
    difference = np.max(np.abs((expected - reference)[..., same])) / np.max(np.abs(reference))
    assert difference < SPECTRA[name], difference


def test_rings_are_those_of_pyqg_but_for_modes_exactly_on_an_edge():
    grid = double(64, dealias=None)
    assert error(diagnostics.wavenumbers(grid), GOLDEN["kr"]) < 1e-14
    rings, m_y = diagnostics.ring_index(grid), np.fft.fftfreq(64, 1 / 64)[:, None]
    m_x, squares = np.arange(33), m_y**2 + np.arange(33) ** 2
    for i, j in np.argwhere(rings != GOLDEN["spectral_bin"]):
        assert abs(m_y[i, 0]) == m_x[j], f"mode {(m_y[i, 0], m_x[j])} is not on an edge"
    for i in range(22):
        assert np.array_equal(rings == i, (squares >= 2 * i**2) & (squares < 2 * (i + 1) ** 2)), i
    assert np.array_equal(rings == 22, (squares >= 2 * 22**2) & (squares <= 2 * 23**2))


def test_rings_of_a_rectangle_hold_each_mode_once():
    grid = double((32, 64), (1e6, 2e6), dealias=None)
    rings = diagnostics.ring_index(grid)
    kappa = np.sqrt(-np.asarray(grid.eigenvalues))
    kr = diagnostics.wavenumbers(grid)
    width = kr[1] - kr[0]
    assert width == pytest.approx(np.hypot(2 * np.pi / 1e6, 2 * np.pi / 2e6))
    inside = rings >= 0
    assert np.all(np.abs(kappa[inside] - kr[rings[inside]]) <= width / 2 * (1 + 1e-9))


def test_layer_energies_and_drag_equal_pyqg_totals():
    model, state = pyqg_snapshot()
    kinetic = float(diagnostics.kinetic_energy(model, state))
    assert abs(kinetic / (0.2 * GOLDEN["EKE"][0] + 0.8 * GOLDEN["EKE"][1]) - 1) < 1e-12, kinetic
    terms = diagnostics.budget(model, state)
    friction = -float(diagnostics.total(model.equation.grid, terms["KEfrictionspec"]))
    release = float(diagnostics.total(model.equation.grid, terms["APEgenspec"]))
    assert abs(friction / GOLDEN["EKEdiss"] - 1) < 1e-12, friction
    assert abs(release / GOLDEN["APEgen"] - 1) < 1e-12, release


@pytest.mark.parametrize("function", [diagnostics.energy, diagnostics.kinetic_energy, diagnostics.enstrophy])
def test_energies_of_another_equation_are_refused(function):
    model = hg.Model(hg.ShallowWater(double(16), f=1e-4, mean=1e3), hg.RK4(), dt=60.0)
    state = model.encode({name: jnp.zeros((1, 16, 16)) for name in model.equation.prognostic})
    with pytest.raises(TypeError, match="QuasiGeostrophic flow; got ShallowWater"):
        function(model, state)


@pytest.mark.parametrize("dealias", [None, 2 / 3, 3 / 2])
@pytest.mark.parametrize("make", [hg.QuasiGeostrophic.two_layer, three_layer, hg.QuasiGeostrophic.barotropic])
def test_energies_equal_area_means_of_velocities_and_vorticity(make, dealias):
    flow = make(double(32, dealias=dealias))
    model = hg.Model(flow, hg.RK4(), dt=600.0)
    state = model.encode({"q": eddies(flow.grid, flow.layers, 5e-6)})
    fields, h = model.view(state), flow.thickness
    kinetic = jnp.sum(h * flow.grid.mean(fields["u"] ** 2 + fields["v"] ** 2)) / 2
    whole = -jnp.sum(h * flow.grid.mean(fields["psi"] * fields["q"])) / 2
    squares = jnp.sum(h * flow.grid.mean(fields["q"] ** 2)) / 2
    for function, expected in ((diagnostics.kinetic_energy, kinetic), (diagnostics.energy, whole)):
        assert error(function(model, state), expected) < 1e-12, function.__name__
    assert error(diagnostics.enstrophy(model, state), squares) < 1e-12
    carrying = hg.Model(hg.Tracers(flow), hg.RK4(), dt=600.0)
    with_tracer = carrying.encode({"q": eddies(flow.grid, flow.layers, 5e-6), "c": eddies(flow.grid, flow.layers, 1.0)})
    assert diagnostics.energy(carrying, with_tracer) == diagnostics.energy(model, state)
    terms = diagnostics.budget(model, state)
    assert error(jnp.sum(h * diagnostics.total(flow.grid, terms["KEspec"])) / 2, kinetic) < 1e-12
    assert error(jnp.sum(h * diagnostics.total(flow.grid, terms["Ensspec"])) / 2, squares) < 1e-12


def step_and_budget(flow, stepper, closure):
    """(E(t + dt) − E(t))/dt of one step, and the budget's terms, averaged over the step's ends."""
    model = hg.Model(flow, stepper, closure, dt=60.0)
    state = model.encode({"q": eddies(flow.grid, flow.layers, 5e-6)})
    state = hg.rollout(model, state, 3, save=None)[0]
    after = model.step(state)
    change = (diagnostics.energy(model, after) - diagnostics.energy(model, state)) / model.dt
    now, then = (diagnostics.budget(model, s) for s in (state, after))
    total = {n: float(diagnostics.total(flow.grid, (now[n] + then[n]) / 2)) for n in diagnostics.BUDGET}
    total["Filterspec"] = float(diagnostics.total(flow.grid, now["Filterspec"]))
    return float(change), total


@pytest.mark.parametrize("dealias", [2 / 3, 3 / 2])
@pytest.mark.parametrize("make", [hg.QuasiGeostrophic.two_layer, three_layer])
@pytest.mark.parametrize("kind", ["conservative", "full", "filtered"])
def test_energy_budget_closes(make, dealias, kind):
    grid = double(32, dealias=dealias)
    flow = make(grid) if kind == "conservative" else make(grid, tau=5 * 86400.0)
    stepper = hg.Filtered(hg.AB3(), hg.exponential_filter(grid)) if kind == "filtered" else hg.RK4()
    change, terms = step_and_budget(flow, stepper, None if kind == "conservative" else Damping())
    assert abs(sum(terms.values()) / change - 1) < 1e-3, (sum(terms.values()), change)
    for name in ("KEflux", "APEflux"):
        assert abs(terms[name]) < 1e-9 * abs(change), f"{name} only moves energy between scales: {terms[name]}"
    if kind != "conservative":
        for name in ("Dissspec", "KEfrictionspec", "paramspec_KEflux", "paramspec_APEflux"):
            assert terms[name] < 0, f"{name} dissipates: {terms[name]}"
    assert (terms["Filterspec"] < 0) == (kind == "filtered")


def test_advection_terms_are_the_work_of_the_model_tendency_mode_by_mode():
    flow = three_layer(double(32))
    model = hg.Model(flow, hg.RK4(), dt=600.0)
    state = model.encode({"q": eddies(flow.grid, 3, 5e-6)})
    psi, dq = flow.invert(state.y["q"]), flow.explicit(0.0, state.y)["q"]
    work = -jnp.sum(flow.thickness[:, None, None] * (jnp.conj(psi) * dq).real, 0)
    terms = diagnostics.budget(model, state)
    named = sum(terms[n] for n in ("KEflux", "APEflux", "APEgenspec", "KEfrictionspec"))
    assert error(named, work) < 1e-10, error(named, work)


def test_closure_work_splits_into_kinetic_and_potential_parts():
    flow = hg.QuasiGeostrophic.two_layer(double(32))
    model = hg.Model(flow, hg.AB3(), Damping(), dt=600.0)
    state = model.encode({"q": eddies(flow.grid, 2, 5e-6)})
    terms = diagnostics.budget(model, state)
    forcing, _ = model.closure(model.view(state), flow.grid, None, state.key)
    psi, dq = flow.invert(state.y["q"]), flow.lift(forcing)["q"]
    work = -jnp.sum(flow.thickness[:, None, None] * (jnp.conj(psi) * dq).real, 0)
    assert error(terms["paramspec"], work) < 1e-12, error(terms["paramspec"], work)
    assert error(terms["paramspec_KEflux"] + terms["paramspec_APEflux"], work) < 1e-12


def test_transfer_gives_the_budget_of_the_coarse_grained_flow():
    fine, low = double(48), double(24)
    model = hg.Model(hg.QuasiGeostrophic.two_layer(fine), hg.RK4(), dt=600.0)
    coarse = hg.Model(hg.QuasiGeostrophic.two_layer(low), hg.RK4(), dt=600.0)
    state = model.encode({"q": eddies(fine, 2, 5e-6)})
    below = coarse.encode({"q": low.to_grid(coarsen.operator2(state.y["q"], fine, low))})
    seen = diagnostics.spectral_budget(model, state, coarsen.transfer(fine, low, coarsen.operator2))
    own, rings = diagnostics.spectral_budget(coarse, below), diagnostics.ring_index(low).max() // 2
    for name in ("KEspec", "Ensspec", "APEgenspec", "KEfrictionspec"):
        assert error(seen[name][..., :rings], own[name][..., :rings]) < 1e-10, name


def test_budget_runs_inside_a_rollout_and_keeps_float32():
    grid = hg.Torus(32, 1e6)
    model = hg.Model(hg.QuasiGeostrophic.two_layer(grid), hg.Filtered(hg.AB3(), hg.exponential_filter(grid)), dt=3600.0)
    state = model.encode({"q": jnp.asarray(eddies(grid, 2, 5e-6), jnp.float32)})
    out = eqx.filter_jit(hg.rollout)(model, state, 4, every=2, save=None, mean=diagnostics.spectral_budget)[1]["mean"]
    assert out["KEspec"].shape == (2, 2, len(diagnostics.wavenumbers(grid))) and out["KEflux"].ndim == 2
    assert {a.dtype for a in out.values()} == {jnp.dtype("float32")}
    assert all(np.all(np.isfinite(a)) for a in jax.tree.leaves(out))


def test_budget_needs_a_quasigeostrophic_equation_and_rings_a_torus():
    with pytest.raises(TypeError, match="Torus"):
        diagnostics.wavenumbers(object())
    model = hg.Model(hg.QuasiGeostrophic.two_layer(double(16)), hg.AB3(), dt=1.0)
    state = model.encode({"q": np.zeros((2, 16, 16))})
    with pytest.raises(TypeError, match="QuasiGeostrophic"):
        diagnostics.budget(eqx.tree_at(lambda m: m.equation, model, Damping()), state)


def test_decorrelation_time_of_trajectories_with_known_correlation():
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, 1, 2, 8, 8))
    a, b = a - a.mean(), b - b.mean()
    b -= a * (a * b).sum() / (a**2).sum()
    b *= np.sqrt((a**2).sum() / (b**2).sum())
    angles = np.arccos([1, 0.9, 0.7, 0.3, 0.0])
    twin = np.concatenate([np.cos(x) * a + np.sin(x) * b for x in angles])
    time = np.arange(5) * 10.0
    found = diagnostics.decorrelation_time(np.repeat(a, 5, 0), twin, time)
    assert found == pytest.approx(25.0), "half-way between .7 and .3"
    assert diagnostics.decorrelation_time(twin, twin, time) == np.inf
    with pytest.raises(ValueError, match="one shape"):
        diagnostics.decorrelation_time(a, b, time)


def test_twins_of_a_developed_flow_decorrelate_in_months_and_sooner_from_farther_apart():
    grid = double(32, dealias=None)
    flow = hg.QuasiGeostrophic.two_layer(grid, rd=30e3, U=(0.1, 0.0))
    model = hg.Model(flow, hg.Filtered(hg.AB3(), hg.exponential_filter(grid)), dt=7200.0)
    state = model.encode({"q": eddies(grid, 2, (5e-6, 1e-6))})
    state = eqx.filter_jit(lambda m, s: hg.rollout(m, s, 6000, every=6000, save=None)[0])(model, state)
    near, far = (
        diagnostics.twin_decorrelation_time(model, state, 4800, every=12, perturbation=p) / 86400 for p in (1e-10, 1e-7)
    )
    assert 5 < far < near < 400, (far, near)
    single = hg.Model(hg.QuasiGeostrophic.two_layer(hg.Torus(16, 1e6)), hg.AB3(), dt=3600.0)
    start = single.encode({"q": eddies(single.equation.grid, 2, 1e-5).astype(np.float32)})
    with pytest.raises(ValueError, match="float64"):
        diagnostics.twin_decorrelation_time(single, start, 24, perturbation=1e-14)
