"""Shallow water in one and several layers: exact waves, balance, adjustment, invariants, the equations by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import double, eddies, error, run, slope, wave
from test_sphere import white

import hybridgcm as hg
from hybridgcm.grids.sphere import ROTATION

F, PHI = 1e-4, 1e3  # s-1, m2 s-2: gravity waves at 32 m/s, deformation radius 316 km
LENGTH = 4e6


def model(grid, stepper, dt, **kwargs):
    return hg.Model(hg.ShallowWater(grid, F, PHI, **kwargs), stepper, dt=dt)


def balanced_start(flow, rms=2e-5, peak=3.0, seed=0):
    """A geostrophic flow with vorticity `rms`, s-1."""
    grid = flow.grid
    zeta_hat = grid.to_spectral(jnp.asarray(eddies(grid, flow.layers, rms, seed, peak)))
    return flow.balanced(grid.inverse_laplacian(zeta_hat))


def inertia_gravity_wave(grid, time, amplitude=1e-4):
    """Exact linear solution: phi = A cos(kx + ly - omega t), omega2 = f2 + Phi (k2 + l2)."""
    kappa2 = (2 * np.pi / LENGTH) ** 2 * 13
    omega = np.sqrt(F**2 + PHI * kappa2)
    cos = wave(grid, 3, 2, -omega * time)[None]
    sin = wave(grid, 3, 2, -omega * time - np.pi / 2)[None]
    return {
        "phi": amplitude * cos,
        "delta": -amplitude * omega / PHI * sin,
        "zeta": amplitude * F / PHI * cos,
    }


@pytest.mark.parametrize(
    ("stepper", "order"), [(hg.RK4(), 4), (hg.SIL3(), 2), (hg.AB3(), 2)], ids=("RK4", "SIL3", "AB3")
)
def test_inertia_gravity_waves_have_their_dispersion_relation(stepper, order):
    grid, time, errors = double(16, LENGTH), 86400.0 / 4, []
    counts = (200, 400, 800) if order == 2 else (25, 50, 100)
    for steps in counts:
        m = model(grid, stepper, time / steps)
        end = m.view(run(m, m.encode(inertia_gravity_wave(grid, 0.0)), steps))
        errors.append(max(error(end[name], a) for name, a in inertia_gravity_wave(grid, time).items()))
    found = slope(1 / np.array(counts), errors)
    assert errors[-1] < 1e-3 and found > order - 0.2, f"order {found:.2f}, errors {errors}"


def test_implicit_gravity_waves_are_stable_at_ten_times_the_explicit_step():
    grid = double(32, LENGTH)
    start = inertia_gravity_wave(grid, 0.0)
    sizes = {}
    for name, stepper in (("SIL3", hg.SIL3()), ("RK4", hg.RK4())):
        m = model(grid, stepper, 12000.0)  # omega dt = 9 for the shortest wave; f dt = 1.2
        noisy = start | {"phi": start["phi"] + 1e-6 * eddies(grid, 1, 1.0, peak=9.0)}
        with np.errstate(all="ignore"):
            sizes[name] = float(jnp.max(jnp.abs(m.view(run(m, m.encode(noisy), 300))["phi"])))
    assert sizes["SIL3"] < 2e-4 and not sizes["RK4"] < 1.0, sizes


def test_adjustment_ends_in_the_exact_geostrophic_state():
    """Waves of one |k| share one period: the mean over it is the balanced state of the same potential vorticity."""
    grid, n = double(32, LENGTH), 400
    kappa2 = (2 * np.pi / LENGTH) ** 2 * 25
    period = 2 * np.pi / np.sqrt(F**2 + PHI * kappa2)
    m = model(grid, hg.RK4(), period / n)
    phi = 1e-4 * (wave(grid, 3, 4) + 0.5 * wave(grid, 5, 0, 1.0) - wave(grid, 4, -3))[None]
    rest = {"phi": phi, "zeta": 0 * phi, "delta": 0 * phi}
    _, out = jax.jit(lambda s: hg.rollout(m, s, n, every=n, save=None, mean=lambda m, s: m.view(s)))(m.encode(rest))
    mean = {name: np.asarray(a[0]) for name, a in out["mean"].items()}
    steady = phi / (1 + kappa2 * PHI / F**2)  # (lap - f2/Phi) phi = -(f2/Phi) phi0
    assert error(mean["phi"], steady) < 1e-5, error(mean["phi"], steady)
    assert error(mean["zeta"], -kappa2 / F * steady) < 1e-5, "f zeta = lap phi"
    assert np.abs(mean["delta"]).max() < 1e-5 * np.abs(mean["zeta"]).max()


def primitive(flow, u, v, phi):
    """Tendencies of zeta, delta, phi from the momentum equations, on periodic points by NumPy alone."""
    k = 2 * np.pi / LENGTH * np.fft.rfftfreq(u.shape[-1], 1 / u.shape[-1])
    l = 2 * np.pi / LENGTH * np.fft.fftfreq(u.shape[-2], 1 / u.shape[-2])[:, None]
    d = lambda a, axis: np.fft.irfft2(1j * (k, l)[axis] * np.fft.rfft2(a), s=a.shape[-2:])
    rho, mean, f = np.asarray(flow.density), np.asarray(flow.mean)[:, None, None], np.asarray(flow.f)
    M = np.zeros_like(phi)
    for i in range(len(rho)):
        for j in range(len(rho)):
            M[i] += (rho[j] / rho[i] if j < i else 1.0) * phi[j]
        M[i] += np.asarray(flow.topography)
    friction = np.zeros((len(rho), 1, 1))
    friction[-1] = float(flow.drag)
    u_t = -u * d(u, 0) - v * d(u, 1) + f * v - d(M, 0) - friction * u
    v_t = -u * d(v, 0) - v * d(v, 1) - f * u - d(M, 1) - friction * v
    thick = mean + phi
    return {
        "zeta": d(v_t, 0) - d(u_t, 1),
        "delta": d(u_t, 0) + d(v_t, 1),
        "phi": -d(thick * u, 0) - d(thick * v, 1),
    }


def test_three_layers_are_the_momentum_equations_by_hand():
    grid = double(48, LENGTH)
    f = F * (1 + 0.3 * wave(grid, 0, 1))
    bottom = 50 * eddies(grid, 1, 1.0, 7, 2.0)[0]
    density, mean = [1000.0, 1010.0, 1030.0], [500.0, 800.0, 2000.0]
    flow = hg.ShallowWater(grid, f, mean, density=density, topography=bottom, drag=1e-5)
    fields = {"zeta": eddies(grid, 3, 1e-5, 1, 2.0), "delta": eddies(grid, 3, 3e-6, 2, 2.0)}
    y = {
        name: grid.to_spectral(jnp.asarray(a))
        for name, a in (fields | {"phi": 30 * eddies(grid, 3, 1.0, 3, 2.0)}).items()
    }
    x = {name: np.asarray(a) for name, a in flow.view(y).items()}
    explicit, implicit, by_hand = flow.explicit(0.0, y), flow.implicit(y), primitive(flow, x["u"], x["v"], x["phi"])
    for name, expected in by_hand.items():
        projected = grid.to_spectral(jnp.asarray(expected))
        found = error(explicit[name] + implicit[name], projected)
        assert found < 1e-9, f"{name}: {found:.1e}"


@pytest.mark.parametrize("layers", [1, 3])
def test_a_geostrophic_zonal_jet_over_a_ridge_stays_steady(layers):
    grid, rho, mean = double(32, LENGTH), [1000.0, 1300.0, 1800.0][:layers], [500.0, 800.0, 2000.0][:layers]
    ridge = 30 * np.broadcast_to(wave(grid, 0, 2, 0.4), grid.shape)
    flow = hg.ShallowWater(grid, F, mean, density=rho, topography=ridge)
    jets = np.stack([(1e6 / (i + 1)) * wave(grid, 0, i + 1, 0.3 * i) for i in range(layers)])
    start = flow.balanced(grid.to_spectral(jnp.asarray(jets)))
    m = hg.Model(flow, hg.RK4(), dt=300.0)
    end = m.view(run(m, m.encode(start), 300))
    assert float(jnp.max(jnp.abs(end["u"]))) > 1, "a jet worth the name"
    for name in ("zeta", "phi"):
        assert error(end[name], start[name]) < 1e-10, f"{name}: {error(end[name], start[name]):.1e}"
    rest = {name: jnp.zeros_like(start["zeta"]) for name in ("zeta", "delta")}
    rest["phi"] = rest["zeta"].at[-1].add(-flow.topography)
    still = m.view(run(m, m.encode(rest), 100))
    assert float(jnp.max(jnp.abs(still["u"]) + jnp.abs(still["v"]))) < 1e-11, "water at rest stays at rest"


def test_modes_of_two_layers_have_the_speeds_of_their_matrix():
    grid = double(16, LENGTH)
    H, rho = np.array([500.0, 1500.0]), np.array([1000.0, 1005.0])
    flow = hg.ShallowWater(grid, 0.0, H, density=rho)
    speeds2, modes = np.linalg.eig(np.array([[1.0, 1.0], [rho[0] / rho[1], 1.0]]) @ np.diag(H))
    reduced = (1 - rho[0] / rho[1]) * H.prod() / H.sum()
    assert speeds2.min() == pytest.approx(reduced, rel=1e-2), "c2 = g' H1 H2 / (H1 + H2)"
    for c2, mode in zip(speeds2, modes.T):
        omega = np.sqrt(c2 * 13) * 2 * np.pi / LENGTH
        start, after = (gravity_mode(grid, H, mode, omega, t) for t in (0.0, np.pi / omega))
        m = hg.Model(flow, hg.RK4(), dt=np.pi / omega / 100)
        end = m.view(run(m, m.encode(start), 100))
        for name in ("phi", "delta"):
            assert error(end[name], after[name]) < 1e-5, f"{name}: {error(end[name], after[name]):.1e}"


def gravity_mode(grid, H, mode, omega, time):
    """delta is in the mode of R Phi, phi in Phi times it."""
    cos, sin = (wave(grid, 3, 2, -omega * time - phase) for phase in (0.0, np.pi / 2))
    delta = -1e-6 * omega * mode[:, None, None] * sin
    return {"phi": 1e-6 * (H * mode)[:, None, None] * cos, "delta": delta, "zeta": 0 * delta}


# On the sphere

RHO, DEPTHS = [1000.0, 1100.0, 1300.0], [3e4, 2e4, 4e4]  # g H, m2 s-2


def tidal_modes(grid, order, c2):
    """ω (s-1, of exp(i(mλ + ωt)): positive goes west), rising, and (ζ, δ, M) by degree, of Laplace's tidal equations.

    One layer of g H = c2 about rest, on harmonics l = m .. T: sin φ P = ε(l+1) P(l+1) + ε(l) P(l-1) and
    cos φ dP/dφ = (l+1) ε(l) P(l-1) - l ε(l+1) P(l+1). Longuet-Higgins (1968), doi:10.1098/rsta.1968.0003.
    In order: as many gravity waves to the east, Rossby waves and gravity waves to the west as there are degrees.
    """
    degree = np.arange(order, grid.truncation + 1)
    eps = np.sqrt((degree**2 - order**2) / (4 * degree**2 - 1))[1:]
    sine = np.diag(eps, 1) + np.diag(eps, -1)
    slope = np.diag((degree[1:] + 1) * eps, 1) - np.diag(degree[:-1] * eps, -1)
    power = degree * (degree + 1)
    coriolis, planetary = sine - slope / power, 1j * order * np.diag(1 / power)
    speed = np.sqrt(c2) / grid.radius / (2 * ROTATION)  # M in units of c a, time of 1/2Ω: matrices of order one
    one, none = np.eye(len(degree)), np.zeros((len(degree), len(degree)))
    rows = [planetary, -coriolis, none], [coriolis, planetary, speed * np.diag(power)], [none, -speed * one, none]
    rates, waves = np.linalg.eig(np.block([list(row) for row in rows]))
    rising = np.argsort(rates.imag)
    waves = waves.reshape(3, len(degree), -1) * np.array([1, 1, np.sqrt(c2) * grid.radius])[:, None, None]
    return 2 * ROTATION * rates.imag[rising], degree, waves[:, :, rising]


def vertical_modes(flow):
    """c2 and the profile of M and of the flow in each: of R diag(mean), fastest first."""
    c2, modes = np.linalg.eig(np.asarray(flow.coupling) * np.asarray(flow.mean))
    return sorted(zip(c2.real, modes.T.real), key=lambda pair: -pair[0])


@pytest.mark.parametrize("mode", [0, 1, 2])
@pytest.mark.parametrize("order", [1, 3])
def test_waves_of_three_layers_on_the_sphere_have_the_frequencies_of_the_tidal_equations(mode, order):
    """Per vertical mode, of equivalent depth c2/g: Kelvin, Rossby and inertia-gravity waves."""
    grid = hg.Sphere(21, dtype=jnp.float64)
    flow = hg.ShallowWater(grid, np.asarray(grid.coriolis()), DEPTHS, density=RHO)
    m, steps = hg.Model(flow, hg.RK4(), dt=300.0), 96
    c2, profile = vertical_modes(flow)[mode]
    frequencies, degree, waves = tidal_modes(grid, order, c2)
    vertical = {"zeta": profile, "delta": profile, "phi": np.asarray(flow.mean) * profile / c2}
    n = len(degree)
    for number in (n - 1, n - 2, 2 * n - 1, 2 * n - 2, 2 * n):
        start = {}
        for a, (name, per_layer) in zip(waves[:, :, number], vertical.items()):
            a_hat = np.zeros((flow.layers, *grid.spectral_shape), complex)
            for l, value in zip(degree, a):
                a_hat[:, (grid.degree == l) & (np.asarray(grid.order) == order)] = 1e-13 * per_layer[:, None] * value
            start[name] = a_hat
        end = run(m, m.encode({name: grid.to_grid(jnp.asarray(a)) for name, a in start.items()}), steps)
        turn = frequencies[number] * m.dt * steps
        assert abs(turn) > 0.02, "it must have moved"
        for name, a in start.items():
            found = error(end.y[name], np.exp(1j * turn) * a)
            assert found < 2e-6, f"{name} of the wave of {frequencies[number]:.3g} s-1: {found:.1e}"


def test_tidal_frequencies_tend_to_those_of_rossby_haurwitz_and_of_gravity_waves():
    grid = hg.Sphere(10, dtype=jnp.float64)
    frequencies, degree, _ = tidal_modes(grid, 2, 1e9)
    n = len(degree)
    assert np.allclose(frequencies[n : 2 * n][::-1], 2 * ROTATION * 2 / (degree * (degree + 1)), rtol=1e-2)
    assert np.allclose(frequencies[2 * n :], np.sqrt(degree * (degree + 1) * 1e9) / grid.radius, rtol=2e-2)


@pytest.mark.slow
def test_layers_over_mountains_on_the_sphere_keep_their_energy_and_mass():
    """Fields of degree five: all products are resolved, so the tendency of energy is rounding. Then half a day."""
    grid = hg.Sphere(31, dtype=jnp.float64)

    def smooth(seed, layers, size):
        a = grid.to_grid(white(grid, seed, layers) * ((grid.degree > 0) & (grid.degree < 6)))
        return size * a / jnp.abs(a).max()

    bottom = np.asarray(smooth(1, 1, 3e3)[0])
    flow = hg.ShallowWater(grid, np.asarray(grid.coriolis()), DEPTHS, density=RHO, topography=bottom)
    m = hg.Model(flow, hg.RK4(), dt=300.0)
    state = m.encode({"zeta": smooth(2, 3, 2e-5), "delta": smooth(3, 3, 5e-6), "phi": smooth(4, 3, 5e2)})
    of = lambda y: energy(flow, flow.view(y))
    parts = [jax.jvp(of, (state.y,), (part(state.y),))[1] for part in (lambda y: flow.explicit(0.0, y), flow.implicit)]
    assert abs(float(sum(parts))) < 1e-12 * abs(float(parts[0])), parts
    end = run(m, state, 144)
    assert error(end.y["zeta"], state.y["zeta"]) > 0.3, "the flow must have changed"
    assert abs(float(of(end.y) / of(state.y)) - 1) < 1e-7, float(of(end.y) / of(state.y)) - 1
    mass = np.abs(np.asarray(end.y["phi"] - state.y["phi"])[:, 0, 0]) / np.asarray(flow.mean)
    assert mass.max() < 1e-15, mass


# Invariants


def energy(flow, fields):
    """Per layer of unit density: thickness |u|2/2 + phi M/2 + phi topography, m4 s-4."""
    rho = np.asarray(flow.density / flow.density[0])[:, None, None]
    thick = flow.mean[:, None, None] + fields["phi"]
    total = rho * thick * (fields["u"] ** 2 + fields["v"] ** 2) / 2
    for i in range(flow.layers):
        M = sum(flow.coupling[i, j] * fields["phi"][j] for j in range(flow.layers)) / 2
        M = M if flow.topography is None else M + flow.topography
        total = total.at[i].add(rho[i] * fields["phi"][i] * M)
    return jnp.sum(flow.grid.mean(total))


def potential_enstrophy(flow, fields):
    thick = flow.mean[:, None, None] + fields["phi"]
    return float(jnp.sum(flow.grid.mean((fields["zeta"] + flow.f) ** 2 / thick)))


def even(a):
    """The part of a that is symmetric about the origin: no mean transport, so no force that holds it at zero."""
    return (a + np.roll(a[..., ::-1, ::-1], 1, (-2, -1))) / 2


def test_energy_and_potential_enstrophy_drift_at_more_than_third_order_of_the_step_and_mass_not_at_all():
    grid = double(48, LENGTH)
    bottom = even(20 * eddies(grid, 1, 1.0, 7, 2.0)[0])
    flow = hg.ShallowWater(grid, F, [2000.0, 4000.0], density=[1000.0, 1400.0], topography=bottom)
    start = balanced_start(flow, (6e-6, 3e-6), 2.0) | {"delta": 5e-6 * eddies(grid, 2, 1.0, 9, 2.0)}
    start = {name: even(np.asarray(a)) for name, a in start.items()}
    drifts, time = [], 43200.0
    for steps in (60, 90, 135):
        m = hg.Model(flow, hg.RK4(), dt=time / steps)
        state = m.encode(start)
        before, end = m.view(state), run(m, state, steps)
        after = m.view(end)
        drifts.append([float(f(flow, after) / f(flow, before)) - 1 for f in (energy, potential_enstrophy)])
        mass = np.abs(np.asarray(end.y["phi"][:, 0, 0] - state.y["phi"][:, 0, 0])) / np.asarray(flow.mean)
        assert mass.max() < 1e-15, f"mass changed by {mass}"
    assert error(after["zeta"], before["zeta"]) > 0.3, "the flow must have changed"
    slopes = [slope([9 / 4, 3 / 2, 1], np.abs(d)) for d in np.transpose(drifts)]
    assert min(slopes) > 3 and np.abs(drifts[-1]).max() < 1e-6, f"slopes {slopes}, drifts {drifts}"


@pytest.mark.parametrize("stepper", [hg.AB3(), hg.SIL3()], ids=("AB3", "SIL3"))
def test_mass_is_exact_in_single_precision_with_dissipation(stepper):
    grid = hg.Torus(32, LENGTH)
    m = model(grid, stepper, 300.0, tau=3600.0, drag=1e-6)
    start = {name: np.asarray(a) for name, a in balanced_start(m.equation).items()}
    state = m.encode(start | {"phi": start["phi"] + 12.5})
    end = run(m, state, 200)
    assert float(end.y["phi"][0, 0, 0].real) == float(state.y["phi"][0, 0, 0].real)
    assert float(jnp.max(jnp.abs(m.view(end)["phi"]))) > 13


def test_energy_falls_with_drag_at_twice_its_rate_times_kinetic_energy_of_the_lowest_layer():
    grid, drag = double(32, LENGTH), 1e-5
    args = dict(density=[1000.0, 1020.0])
    y = None
    tendency = []
    for r in (drag, 0.0):
        flow = hg.ShallowWater(grid, F, [600.0, 1400.0], drag=r, **args)
        if y is None:
            start = balanced_start(flow)
            y = {name: grid.to_spectral(jnp.asarray(a)) for name, a in start.items()}
        tendency.append(flow.explicit(0.0, y))
    x = flow.view(y)
    against = flow.lift({name: jnp.stack([0 * x[name][0], -drag * x[name][1]]) for name in "uv"})
    for name in ("zeta", "delta", "phi"):
        found = tendency[0][name] - tendency[1][name] - against[name]
        assert float(jnp.max(jnp.abs(found))) < 1e-9 * float(jnp.max(jnp.abs(against["zeta"]))), name


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(f=F, mean=[1.0, 2.0]), "as many densities, growing downward"),
        (dict(f=F, mean=[1.0, 2.0], density=[2.0, 1.0]), "growing downward"),
        (dict(f=F, mean=-1.0), "mean > 0"),
        (dict(f=np.zeros(16), mean=1.0), r"f is a number or a field \(16, 16\)"),
        (dict(f=F, mean=1.0, topography=np.zeros(3)), r"got \(\) and \(3,\)"),
        (dict(f=F, mean=1.0, drag=-1.0), "positive numbers damp"),
    ],
)
def test_constructor_says_what_it_expects(arguments, message):
    with pytest.raises(ValueError, match=message):
        hg.ShallowWater(double(16), **arguments)
