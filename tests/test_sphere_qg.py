"""Quasi-geostrophic flow on the sphere: waves with exact speeds, invariants, friction, pyshqg's reference vectors."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import error, run
from test_sphere import RADIUS, places, sphere, white

import hybridgcm as hg
from hybridgcm import qg3
from hybridgcm.grids.sphere import ROTATION

DAY = 86400.0


def rotation_rate(flow, degree, order, mode=None):
    """Angle per day by which a small wave of a vertical mode turns, from the tendency; west is positive."""
    grid = flow.grid
    i, j = next((i, j) for i, j, l, m in places(grid) if (l, m) == (degree, order))
    vector = jnp.ones(1) if mode is None else jnp.asarray(mode)
    psi = jnp.zeros((flow.layers, *grid.spectral_shape), complex).at[:, i, j].set(1e-3 * vector)
    q = flow.potential_vorticity(psi)
    tendency = flow.explicit(0.0, {"q": q})["q"]
    rate = tendency[:, i, j] / q[:, i, j]
    assert error(rate, rate[:1] + 0 * rate) < 1e-9 and abs(float(rate[0].real / rate[0].imag)) < 1e-9
    return float(np.degrees(rate[0].imag) / order * DAY)


@pytest.mark.parametrize(("degree", "order"), [(2, 1), (3, 2), (5, 5), (10, 4), (20, 7)])
def test_linear_rossby_waves_go_west_at_their_speed(degree, order):
    """2Ω/(l(l + 1)): 120.33, 60.16, 24.07, 6.563, 1.719 degrees a day."""
    grid = sphere(21)
    flow = hg.QuasiGeostrophic.barotropic(grid, beta=grid.beta())
    exact = np.degrees(2 * ROTATION / (degree * (degree + 1))) * DAY
    assert abs(rotation_rate(flow, degree, order) / exact - 1) < 1e-9


def test_vertical_modes_of_qg3_and_their_rossby_waves():
    """Deformation radii 611 and 298 km; degrees a day to the west at l = 5 and 10: published to four digits."""
    flow = hg.QuasiGeostrophic.qg3(sphere(21), relaxation=None, drag=0.0)
    values, modes = np.linalg.eig(np.asarray(flow.stretching, float))
    by_depth = np.argsort(-values)
    assert np.allclose(1e-3 / np.sqrt(-values[by_depth[1:]]), [610.7, 297.8], atol=0.05)
    published = {5: (24.07, 5.201, 1.480), 10: (6.563, 3.299, 1.272)}
    for degree, speeds in published.items():
        found = [rotation_rate(flow, degree, 3, modes[:, i]) for i in by_depth]
        assert np.allclose(found, speeds, rtol=5e-4), (degree, found)


def test_a_rossby_haurwitz_wave_keeps_its_shape():
    """Wave number 4, ω = K = 7.848e-6 s⁻¹: turns by (R(3 + R)ω − 2Ω)/((1 + R)(2 + R)) = 12.195 degrees a day."""
    grid = sphere(21)
    turn, R = 7.848e-6, 4
    phi, lam = np.radians(grid.latitude)[:, None], np.radians(grid.longitude)[None, :]
    wave = lambda lam: RADIUS**2 * turn * (np.cos(phi) ** R * np.cos(R * lam) - 1) * np.sin(phi)
    model = hg.Model(hg.QuasiGeostrophic.barotropic(grid, beta=grid.beta()), hg.RK4(), dt=600.0)
    q = grid.to_grid(grid.laplacian(grid.to_spectral(jnp.asarray(wave(lam))[None])))
    speed = (R * (3 + R) * turn - 2 * ROTATION) / ((1 + R) * (2 + R))
    assert abs(np.degrees(speed) * DAY - 12.195) < 1e-3
    state = run(model, model.encode({"q": q}), 5 * 144)
    assert error(model.view(state)["psi"][0], wave(lam - speed * 5 * DAY)) < 2e-11


def test_solid_rotation_as_mean_flow_or_as_part_of_the_flow_is_the_same():
    """Two layers: q of a uniform U, advected and advecting, against `U`; and U as a profile."""
    grid = sphere(21)
    two = lambda **kwargs: hg.QuasiGeostrophic.two_layer(grid, rd=1e6, beta=grid.beta(), drag=0.0, **kwargs)
    U = np.array([20.0, 5.0])
    psi = 1e6 * white(grid).at[:, 0, 0].set(0) * jnp.where(grid.degree < 7, 1, 0)
    rest, moving = two(U=0.0), two(U=U)
    profile = two(U=U[:, None] * np.cos(np.radians(grid.latitude)) * np.ones((2, 1)))
    solid = -jnp.asarray(U)[:, None, None] * RADIUS * np.sin(np.radians(grid.latitude))[:, None] + jnp.zeros(grid.shape)
    solid = grid.to_spectral(solid)
    q = rest.potential_vorticity(psi)
    whole = rest.explicit(0.0, {"q": rest.potential_vorticity(psi + solid)})["q"]
    # Solid rotation alone is steady only where layers do not shear; its own tendency is zero here all the same.
    assert error(moving.explicit(0.0, {"q": q})["q"], whole) < 1e-12
    assert error(profile.explicit(0.0, {"q": q})["q"], whole) < 1e-12
    for flow in (moving, profile):
        u, _ = flow.mean_flow
        expected = U[:, None, None] * np.cos(np.radians(grid.latitude))[:, None] + np.zeros(grid.shape)
        assert error(u + jnp.zeros_like(expected), expected) < 1e-12


def test_energy_and_enstrophy_are_kept_without_friction():
    grid = sphere(21)
    orography = 500 * np.asarray(grid.to_grid(white(grid, 5, 1)[0] * (grid.degree < 6)))
    flow = hg.QuasiGeostrophic.qg3(grid, orography=orography, relaxation=None, drag=0.0, tau=np.inf)
    psi = 3e6 * white(grid, 1, 3).at[:, 0, 0].set(0) / (1 + jnp.asarray(grid.degree))
    model = hg.Model(flow, hg.RK4(), dt=600.0)
    energy = lambda state: float(-jnp.sum(grid.inner(flow.invert(state.y["q"]), state.y["q"])))
    planetary = grid.to_spectral(grid.coriolis())
    bottom = jnp.asarray([0, 0, 1.0])[:, None, None] * grid.to_spectral(flow.topography)
    absolute = lambda state: state.y["q"] + planetary + bottom
    enstrophy = lambda state: np.asarray(grid.inner(absolute(state), absolute(state)))
    start = model.encode({"q": grid.to_grid(flow.potential_vorticity(psi))})
    end = run(model, start, 500)
    assert abs(energy(end) / energy(start) - 1) < 1e-8
    assert error(enstrophy(end), enstrophy(start)) < 1e-8
    assert error(end.y["q"], start.y["q"]) > 0.1


def test_a_field_of_drag_is_a_uniform_one_where_it_is_uniform():
    grid = sphere(21)
    psi = white(grid, 0, 3).at[:, 0, 0].set(0)
    tendency = lambda drag: hg.QuasiGeostrophic.qg3(grid, drag=drag).explicit(0.0, {"q": psi})["q"]
    assert error(tendency(np.full(grid.shape, 1e-6)), tendency(1e-6)) < 1e-13
    k = 1e-6 * (1 + np.asarray(grid.to_grid(white(grid, 3, 1)[0])) ** 2)
    field = hg.QuasiGeostrophic.qg3(grid, drag=k)
    bare = hg.QuasiGeostrophic.qg3(grid, drag=0.0)
    stream = field.invert(psi)
    p_x, p_y = grid.gradient(stream[2])
    expected = -grid.divergence(k * p_x, k * p_y)
    change = field.explicit(0.0, {"q": psi})["q"] - bare.explicit(0.0, {"q": psi})["q"]
    assert error(change[2], expected) < 1e-10 and float(jnp.abs(change[:2]).max()) == 0
    assert float(grid.inner(stream[2], change[2])) > 0  # takes energy, -<psi dq>


def test_relaxation_damps_temperature_only():
    grid = sphere(21)
    flow = hg.QuasiGeostrophic.qg3(grid, drag=0.0, tau=np.inf)
    bare = hg.QuasiGeostrophic.qg3(grid, drag=0.0, tau=np.inf, relaxation=None)
    psi = white(grid, 0, 3).at[:, 0, 0].set(0)
    change = lambda psi: [f.explicit(0.0, {"q": flow.potential_vorticity(psi)})["q"] for f in (flow, bare)]
    with_, without = change(psi)
    expected = flow.grid.laplacian(psi) - flow.potential_vorticity(psi)
    assert error(with_ - without, expected / (25 * DAY)) < 1e-8
    with_, without = change(jnp.broadcast_to(psi[:1], psi.shape))  # no shear: no temperature
    assert error(with_, without) < 1e-12


def test_what_a_sphere_does_not_have_is_refused():
    grid = sphere(5)
    with pytest.raises(ValueError, match="neither a uniform meridional flow V nor a plane slope"):
        hg.QuasiGeostrophic.barotropic(grid, V=1.0)
    with pytest.raises(ValueError, match="neither a uniform meridional flow V nor a plane slope"):
        hg.QuasiGeostrophic.barotropic(grid, topography=(1e-9, 0.0))
    with pytest.raises(ValueError, match=r"drag is a number or a field \(10, 20\)|drag is a number or a field"):
        hg.QuasiGeostrophic.barotropic(grid, drag=np.ones((3, 3)))
    with pytest.raises(ValueError, match="positive numbers damp"):
        hg.QuasiGeostrophic.barotropic(grid, relaxation=-1.0)


class _Remainder(hg.AbstractClosure):
    """What pyshqg's tendency has besides ours: forcing, unresolved friction, damping with float32 coefficients."""

    forcing: jax.Array
    friction: jax.Array
    damping: jax.Array
    relaxation: jax.Array

    def init(self, fields, grid):
        return None

    def __call__(self, fields, grid, memory, key):
        zeta = grid.to_grid(grid.curl(fields["u"], fields["v"]))
        psi = grid.to_spectral(fields["psi"])
        linear = self.damping * grid.to_spectral(fields["q"]) + jnp.einsum("ij,j...->i...", self.relaxation, psi)
        return {"q": self.forcing - self.friction * zeta, "q_hat": -linear}, memory


def _friction(grid, vectors, psi):
    """pyshqg's k at every point, from its dissipation k ζ + ∇k·∇ψ in sixteen states."""
    p_x, p_y = grid.gradient(psi[:, 2])
    parts = np.stack([1e5 * vectors.zeta.values, 0.1 * np.asarray(p_x), 0.1 * np.asarray(p_y)], -1)
    seen = vectors.dissip_ekman.values[:, 2]
    solve = lambda y, x: np.linalg.lstsq(parts[:, y, x], seen[:, y, x], rcond=None)[0][0]
    return 1e5 * np.array([[solve(y, x) for x in range(grid.shape[1])] for y in range(grid.shape[0])])


def test_tendency_and_step_are_those_of_pyshqg():
    """T21, sixteen states. The coefficients of its linear damping are rounded to float32: they are taken from it."""
    xarray = pytest.importorskip("xarray")
    try:
        folder = qg3.pyshqg_folder()
    except FileNotFoundError as missing:
        pytest.skip(str(missing))
    vectors = xarray.open_zarr(folder / "test_t21_t31.zarr").load()
    grid = sphere(21)
    spectral = lambda name: qg3.from_pyshqg(vectors[name].values, grid)
    total, psi = spectral("spec_total_q"), spectral("spec_psi")
    planetary = (spectral("spec_q") - total)[0]
    i, j = next((i, j) for i, j, l, m in places(grid) if (l, m) == (1, 0))
    assert abs(float(planetary[0, i, j].real) / (2 * ROTATION / np.sqrt(3)) - 1) < 1e-7
    k = _friction(grid, vectors, psi)
    assert 1.49 < 1 / k.max() / DAY < 1.6 and 2.9 < 1 / k.min() / DAY < 3.2
    resolved = np.asarray(grid.to_grid(grid.to_spectral(jnp.asarray(k))))
    bottom = np.array([0, 0, 1.0])[:, None, None]
    flow = hg.QuasiGeostrophic.qg3(
        grid,
        tau=np.inf,
        relaxation=None,
        drag=resolved,
        topography=np.asarray(grid.to_grid(planetary[2] - planetary[0])),
    )
    quotient = np.asarray(spectral("spec_dissip_sel")[0] / jnp.where(total[0] == 0, 1, total[0])).real
    damping = np.zeros(grid.spectral_shape)
    for degree in range(1, 22):
        values = quotient[:, (grid.degree == degree) & (np.asarray(grid.order) <= 1)]
        exact = (degree * (degree + 1) / (21 * 22)) ** 4 / 8640
        assert error(values, exact) < 2.0**-23
        damping[grid.degree == degree] = np.float32(np.median(values))
    rest = _Remainder(
        jnp.asarray((vectors.grid_dq_dt - vectors.jacobian + vectors.dissip_ekman).values[0]),
        jnp.asarray(bottom * (k - resolved)),
        jnp.asarray(damping, float),
        jnp.asarray(np.float32(np.asarray(flow.stretching) / (25 * DAY)), float),
    )
    model = hg.Model(flow, hg.RK4(), rest, dt=1800.0, hold=False)
    waves = np.where(grid.degree == 0, 0, 1)  # it relaxes the mean temperature, which has no dynamics, too
    assert error(waves * jnp.stack([flow.invert(q) for q in total]), psi * waves) < 1e-14
    tendency = jax.vmap(
        lambda q: flow.explicit(0.0, {"q": q})["q"] + flow.lift(rest(flow.view({"q": q}), grid, 0, 0)[0])["q"]
    )
    assert error(waves * tendency(total), waves * spectral("spec_tendencies")) < 1e-10
    step = lambda q: model.step(model.encode({"q": grid.to_grid(q)})).y["q"]
    after = jnp.stack([eqx.filter_jit(step)(q) for q in total[:4]])
    assert error(waves * (after + planetary), waves * spectral("spec_rk4")[:4]) < 1e-10
