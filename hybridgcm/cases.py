"""Standard cases on the sphere: equations and initial states, with their exact answers where there is one.

Each takes a `Sphere`, which should have `RADIUS`, and returns a `Case`; run it with
`model = hg.Model(case.equation, hg.SIL3(), case.closure, dt=600.0)` and
`hg.rollout(model, model.encode(case.start), ...)`. Heights are h = (φ + mean)/g + bottom: see `height`.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from hybridgcm._typing import Fields, Numbers
from hybridgcm.closures import AbstractClosure, RingForcing
from hybridgcm.equations import AbstractEquation, QuasiGeostrophic, ShallowWater, Tracers
from hybridgcm.grids import Sphere, legendre
from hybridgcm.grids.sphere import ROTATION

RADIUS, GRAVITY = 6.37122e6, 9.80616
"""Those of Williamson et al. (1992), m and m s⁻²; their rotation is `ROTATION`, too."""
DAY = 86400.0


class Case(NamedTuple):
    """An `equation`, its `start` `[layer, y, x]` by name, and `exact`, the same at a time in s; None if unknown.

    `closure` is what drives the flow, if anything does.
    """

    equation: AbstractEquation
    start: Fields
    exact: Callable[[float], Fields] | None
    closure: AbstractClosure | None = None


def height(equation: ShallowWater, fields: Fields) -> Float[Array, "layer y x"]:
    """Height of the surface, m: (φ + mean + topography)/g. For one layer."""
    bottom = 0.0 if equation.topography is None else equation.topography
    return (fields["phi"] + equation.mean[:, None, None] + bottom) / GRAVITY


def norms(grid: Sphere, a: Float[Array, "*batch y x"], reference: Float[Array, "*batch y x"]) -> dict[str, Array]:
    """l1, l2 and l∞ of a − reference relative to the reference, by area. Williamson et al. (1992), eqs. 82 to 84."""
    off, size = jnp.abs(a - reference), jnp.abs(reference)
    mean = lambda x: jnp.sum(grid.weights * x, (-2, -1))
    largest = lambda x: jnp.max(x, (-2, -1))
    return {
        "l1": mean(off) / mean(size),
        "l2": jnp.sqrt(mean(off**2) / mean(size**2)),
        "linf": largest(off) / largest(size),
    }


def williamson1(grid: Sphere, angle: float = 0.0, days: float = 12.0) -> Case:
    """A cosine bell of 1000 m, radius a/3, carried once around the sphere in 12 `days` by solid rotation.

    `angle` (rad) between the axes of flow and grid; the flow is a steady one without rotation of the planet. The
    tracer `c` is in m. Williamson et al. (1992), doi:10.1016/S0021-9991(05)80016-6, case 1.
    """
    lam, phi = _points(grid)
    speed, axis = 2 * np.pi / (days * DAY), _tilted(lam, phi, angle)
    equation = Tracers(QuasiGeostrophic.barotropic(grid))

    def bell(t):
        # turning back about the tilted axis: the bell starts at 270 east on the equator
        x, y, z = np.cos(phi) * np.cos(lam), np.cos(phi) * np.sin(lam), np.sin(phi)
        along, across = x * np.cos(angle) + z * np.sin(angle), z * np.cos(angle) - x * np.sin(angle)
        turned = np.arctan2(y, along) - speed * t
        inside = np.clip(np.sqrt(np.maximum(1 - across**2, 0)) * np.cos(turned - 3 * np.pi / 2), -1, 1)
        distance = grid.radius * np.arccos(inside)
        return np.where(distance < grid.radius / 3, 500 * (1 + np.cos(3 * np.pi * distance / grid.radius)), 0)

    q = 2 * speed * axis
    at = lambda t: _layer(grid, q=q, c=bell(t))
    return Case(equation, at(0.0), at)


def williamson2(grid: Sphere, angle: float = 0.0) -> Case:
    """Steady zonal flow in balance with its height, u = 2πa/12 days, g h₀ = 2.94e4 m² s⁻²; `angle` as in case 1.

    Williamson et al. (1992), doi:10.1016/S0021-9991(05)80016-6, case 2.
    """
    lam, phi = _points(grid)
    u, axis = 2 * np.pi * grid.radius / (12 * DAY), _tilted(lam, phi, angle)
    depth = 2.94e4 - (grid.radius * ROTATION * u + u**2 / 2) * axis**2
    case = _shallow(grid, 2 * u / grid.radius * axis, depth, f=2 * ROTATION * axis)
    return case._replace(exact=lambda t: case.start)


def williamson2_layers(
    grid: Sphere,
    angle: float = 0.0,
    *,
    speeds: Numbers = (20.0, 10.0),
    depths: Numbers = (3000.0, 3000.0),
    density: Numbers = (1000.0, 1500.0),
    ridge: float = 1000.0,
) -> Case:
    """Case 2 in layers over a ridge: each turns as a solid at its own speed, and the whole is steady.

    u = U cos φ', U `speeds` in m/s per layer, top first, φ' the latitude about the axis that leans by `angle`, h_b =
    `ridge` cos²φ' in m. Centrifugal and Coriolis force and pressure balance where the Montgomery potentials are M =
    const − (aΩU + U²/2) sin²φ'; R φ = M − g h_b, R the `coupling`, then gives the thicknesses about the mean `depths`
    (m) for the ratios of `density`. All are polynomials of second degree: exact at any truncation.
    Williamson et al. (1992), case 2, in every layer; M as in Vallis (2017), doi:10.1017/9781107588417, section 3.3.
    Raises `ValueError` if a layer would be without water somewhere.
    """
    lam, phi = _points(grid)
    U, rho = np.asarray(speeds, float)[:, None, None], np.asarray(density, float)
    axis = np.broadcast_to(_tilted(lam, phi, angle), grid.shape)
    coupling = np.minimum(rho[:, None], rho) / rho[:, None]
    slope = np.linalg.solve(coupling, GRAVITY * ridge - (grid.radius * ROTATION * U + U**2 / 2)[:, 0])[:, None]
    bottom = GRAVITY * ridge * (1 - axis**2)
    flow = _layers(grid, 2 * ROTATION * axis, depths, density, bottom, slope * (axis**2 - 1 / 3))
    zeta = jnp.asarray(2 * U / grid.radius * axis, grid.dtype)
    start = flow.start | {"zeta": zeta}
    return flow._replace(start=start, exact=lambda t: start)


def rest_over_mountain(grid: Sphere, depths: Numbers = (1e3, 2e3, 3e3), density: Numbers = (1.0, 1.1, 1.3)) -> Case:
    """Layers at rest over the mountain of case 5, which stay so: flat interfaces, φ = −g h_b in the lowest alone.

    `depths` in m beside the mountain and `density` (its ratios count), top first. Where pressure and slope do not
    cancel, currents begin to run up and down. Raises `ValueError` if the mountain reaches out of the lowest layer.
    """
    bottom, layers = _mountain(grid), len(np.atleast_1d(depths))
    phi = -bottom * (np.arange(layers) == layers - 1)[:, None, None]
    flow = _layers(grid, np.asarray(grid.coriolis(ROTATION)), depths, density, bottom, phi)
    return flow._replace(exact=lambda t: flow.start)


def williamson5(grid: Sphere) -> Case:
    """Zonal flow of 20 m/s over an isolated mountain of 2000 m at 30N, 270E. No exact answer.

    Williamson et al. (1992), doi:10.1016/S0021-9991(05)80016-6, case 5.
    """
    lam, phi = _points(grid)
    u, bottom = 20.0, _mountain(grid)
    surface = 5960 * GRAVITY - (grid.radius * ROTATION * u + u**2 / 2) * np.sin(phi) ** 2
    zeta = 2 * u / grid.radius * np.sin(phi) + 0 * lam
    return _shallow(grid, zeta, surface - bottom, f=np.asarray(grid.coriolis(ROTATION)), topography=bottom)


def williamson6(grid: Sphere) -> Case:
    """Rossby-Haurwitz wave number 4 in balance, ω = K = 7.848e-6 s⁻¹, h₀ = 8000 m. It breaks up in the end.

    Williamson et al. (1992), doi:10.1016/S0021-9991(05)80016-6, case 6.
    """
    lam, phi = _points(grid)
    w = K = 7.848e-6
    R, a, c = 4, grid.radius, np.cos(phi)
    A = w / 2 * (2 * ROTATION + w) * c**2 + K**2 / 4 * c ** (2 * R) * (
        (R + 1) * c**2 + (2 * R**2 - R - 2) - 2 * R**2 / c**2
    )
    B = 2 * (ROTATION + w) * K / ((R + 1) * (R + 2)) * c**R * ((R**2 + 2 * R + 2) - (R + 1) ** 2 * c**2)
    C = K**2 / 4 * c ** (2 * R) * ((R + 1) * c**2 - (R + 2))
    depth = 8000 * GRAVITY + a**2 * (A + B * np.cos(R * lam) + C * np.cos(2 * R * lam))
    return _shallow(grid, _haurwitz(lam, phi, w, K, R), depth, f=np.asarray(grid.coriolis(ROTATION)))


def rossby_haurwitz(grid: Sphere) -> Case:
    """The same wave in barotropic flow: it turns by (R(3 + R)ω − 2Ω)/((1 + R)(2 + R)) rad s⁻¹, R = 4."""
    lam, phi = _points(grid)
    w = K = 7.848e-6
    R = 4
    speed = (R * (3 + R) * w - 2 * ROTATION) / ((1 + R) * (2 + R))
    equation = QuasiGeostrophic.barotropic(grid, beta=grid.beta(ROTATION))
    at = lambda t: _layer(grid, q=_haurwitz(lam - speed * t, phi, w, K, R))
    return Case(equation, at(0.0), at)


def galewsky(grid: Sphere, perturbed: bool = True) -> Case:
    """A mid-latitude jet of 80 m/s, mean depth 10 km, in balance (steady), or with a bump of 120 m that grows on it.

    Galewsky, Scott and Polvani (2004), doi:10.3402/tellusa.v56i5.14436.
    """
    lam, phi = _points(grid)
    south, north = np.pi / 7, np.pi / 2 - np.pi / 7
    nodes, weights = (np.float64(x) for x in legendre.gauss_legendre(128))
    f = lambda y: 2 * ROTATION * np.sin(y)

    def jet(y):
        inside = (y > south) & (y < north)
        room = np.where(inside, (y - south) * (y - north), -1.0)
        return np.where(inside, 80 * np.exp(1 / room + 4 / (north - south) ** 2), 0.0)

    def slope(y):
        return -grid.radius * jet(y) * (f(y) + np.tan(y) * jet(y) / grid.radius)

    def fallen(y):  # from the south pole to y, the jet alone counts
        top = np.clip(y, south, north)
        x = south + (top - south) * (nodes + 1) / 2
        return float((weights * slope(x)).sum() * (top - south) / 2)

    rows = np.radians(grid.latitude)
    depth = np.array([fallen(y) for y in rows])[:, None] + 0 * lam
    u = jnp.asarray(jet(phi) + 0 * lam, grid.dtype)
    zeta = grid.to_grid(grid.curl(u, jnp.zeros_like(u)))
    weight = np.asarray(grid.weights, float)
    depth = depth - (weight * depth).sum() + 1e4 * GRAVITY
    if perturbed:
        around = np.angle(np.exp(1j * lam))
        bump = np.cos(phi) * np.exp(-((3 * around) ** 2)) * np.exp(-((15 * (np.pi / 4 - phi)) ** 2))
        depth = depth + 120 * GRAVITY * bump
    case = _shallow(grid, np.asarray(zeta, float), depth, f=np.asarray(grid.coriolis(ROTATION)))
    return case if perturbed else case._replace(exact=lambda t: case.start)


def gravity_wave(grid: Sphere, degree: int = 2, order: int = 1, depth: float = 1e4) -> Case:
    """A small standing wave of one harmonic without rotation: φ ~ cos(√(l(l + 1) g H) t/a), `depth` H in m."""
    i, j = np.argwhere((grid.degree == degree) & (np.asarray(grid.order) == order))[0]
    a_hat = jnp.zeros((1, *grid.spectral_shape), jnp.result_type(grid.dtype, jnp.complex64)).at[0, i, j].set(1e-4)
    shape = grid.to_grid(a_hat)
    equation = ShallowWater(grid, 0.0, GRAVITY * depth)
    pulse = float(np.sqrt(degree * (degree + 1) * GRAVITY * depth)) / grid.radius

    def at(t):
        rest = jnp.zeros_like(shape)
        delta = shape * (pulse / (GRAVITY * depth)) * np.sin(pulse * t)
        return {"zeta": rest, "delta": delta, "phi": shape * np.cos(pulse * t)}

    return Case(equation, at(0.0), at)


def turbulence(
    grid: Sphere,
    dt: float,
    *,
    rate: float = 1.157e-5,
    degree: int = 16,
    friction: float = 100 * DAY,
    tau: float = DAY / 4,
    rotation: float = ROTATION,
) -> Case:
    """Barotropic flow from rest, stirred at random about one total `degree`, that organises itself into zonal jets.

    ∂ζ/∂t = −u·∇(ζ + f) + F − ζ/`friction` − (λ/λ₀)⁴ζ/`tau`, F a `RingForcing` one degree wide that gives energy at the
    `rate` ε (m² s⁻³) with steps of `dt` (s, the model's); time scales in s, tau that at the truncation; `rotation` Ω in
    rad s⁻¹. On average dE/dt = ε − 2E/friction − hyperdiffusion: E goes to ½ ε friction (1 − exp(−2t/friction)), here
    50 m² s⁻², less what hyperdiffusion takes. Eddies grow until waves stop them at Rhines' degree √(Ωa/U), U = √(2E),
    and jets of that width follow. Draws come from the key that `encode` is given. No exact answer.
    Vallis and Maltrud (1993), doi:10.1175/1520-0485(1993)023<1346:GOMFAJ>2.0.CO;2; on the sphere Nozawa and Yoden
    (1997), Phys. Fluids 9, 2081; jets of Rhines' width: Scott and Polvani (2007), doi:10.1175/JAS4003.1.
    """
    wavenumber = np.sqrt(degree * (degree + 1)) / grid.radius
    stirring = RingForcing(rate, wavenumber=wavenumber, width=1 / grid.radius, dt=dt)
    equation = QuasiGeostrophic.barotropic(grid, beta=grid.beta(rotation), drag=1 / friction, tau=tau)
    return Case(equation, _layer(grid, q=np.zeros(1)), None, stirring)


def _points(grid: Sphere) -> tuple[np.ndarray, np.ndarray]:
    return np.radians(grid.longitude)[None, :], np.radians(grid.latitude)[:, None]


def _tilted(lam, phi, angle) -> np.ndarray:
    """sin of the latitude about an axis that leans towards λ = π by `angle`."""
    return np.sin(phi) * np.cos(angle) - np.cos(lam) * np.cos(phi) * np.sin(angle)


def _mountain(grid: Sphere) -> np.ndarray:
    """g h_b of the cone of case 5 on the resolved modes, m² s⁻²."""
    lam, phi = _points(grid)
    size = np.pi / 9
    far = np.sqrt(np.minimum(size**2, (lam - 1.5 * np.pi) ** 2 + (phi - np.pi / 6) ** 2))
    bottom = 2000 * GRAVITY * (1 - far / size)
    return np.asarray(grid.to_grid(grid.to_spectral(jnp.asarray(bottom, grid.dtype))), float)


def _haurwitz(lam, phi, w, K, R) -> np.ndarray:
    """Vorticity of the Rossby-Haurwitz wave."""
    return 2 * w * np.sin(phi) - K * np.sin(phi) * np.cos(phi) ** R * (R**2 + 3 * R + 2) * np.cos(R * lam)


def _layer(grid: Sphere, **fields) -> Fields:
    return {name: jnp.asarray(np.broadcast_to(a, grid.shape), grid.dtype)[None] for name, a in fields.items()}


def _layers(grid: Sphere, f, depths, density, topography, phi) -> Case:
    """Layers of mean `depths` (m) at rest, with the anomalies `phi` of their thickness."""
    equation = ShallowWater(grid, f, GRAVITY * np.asarray(depths, float), density=density, topography=topography)
    thin = (phi + np.asarray(equation.mean, float)[:, None, None]).min((1, 2))
    if not (thin > 0).all():
        raise ValueError(f"every layer must have water everywhere; the least depths are {(thin / GRAVITY).tolist()} m")
    start = {"zeta": np.zeros_like(phi), "delta": np.zeros_like(phi), "phi": phi}
    return Case(equation, {name: jnp.asarray(a, grid.dtype) for name, a in start.items()}, None)


def _shallow(grid: Sphere, zeta, depth, *, f, topography=None) -> Case:
    """One layer with its φ about the mean depth; `depth` g h of the layer in m² s⁻²."""
    depth = np.broadcast_to(depth, grid.shape)
    mean = float((np.asarray(grid.weights, float) * depth).sum())
    equation = ShallowWater(grid, f, mean, topography=topography)
    return Case(equation, _layer(grid, zeta=zeta, delta=np.zeros(1), phi=depth - mean), None)
