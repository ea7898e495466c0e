"""What Marshall and Molteni's three-level model needs to be an atmosphere: forcing, orography and land.

inputs = qg3.read("qg3_t21.nc", grid)        # or qg3.pyshqg(grid), or without any file qg3.winter(grid)
flow = hg.QuasiGeostrophic.qg3(grid, orography=inputs.orography, land=inputs.land)
model = hg.Model(flow, hg.AB3(), dt=3600.0, forcing=inputs.forcing)
"""

import importlib.util
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float

from hybridgcm._typing import Hat, OnGrid
from hybridgcm.equations import QuasiGeostrophic
from hybridgcm.files import NETCDF
from hybridgcm.grids import Sphere
from hybridgcm.grids.sphere import ROTATION
from hybridgcm.models import Steady
from hybridgcm.reanalysis import to_points
from hybridgcm.units import conversion

LEVELS = (200.0, 500.0, 800.0)
"""hPa, top first."""
GRAVITY = 9.80665
"""m s⁻²."""


class Atmosphere(NamedTuple):
    """`forcing`, `orography` (m) and `land` (fraction) `[y, x]`, a `start` of q `[level, y, x]` in s⁻¹ without f."""

    forcing: Steady
    orography: Float[np.ndarray, "y x"]
    land: Float[np.ndarray, "y x"]
    start: Float[Array, "level y x"]
    source: str


def roads(flow: QuasiGeostrophic, psi_hat: Complex[Array, "sample level l k"]) -> Steady:
    """S = J(ψc, qc) + ⟨J(ψ', q')⟩ + D(ψc): what keeps the mean of the samples in balance with their own eddies.

    That is minus the mean of the tendencies of the samples, since J is quadratic and all else linear. `psi_hat` as of
    `reanalysis.streamfunction`. Roads (1987), doi:10.1175/1520-0469(1987)044<3495:PITMOT>2.0.CO;2.
    """

    def tendency(psi):
        q = flow.potential_vorticity(psi)
        return flow.explicit(0.0, {"q": q})["q"] + flow.implicit({"q": q})["q"]

    return Steady({"q_hat": -jnp.mean(jax.lax.map(tendency, psi_hat), 0)})


def height(grid: Sphere, psi_hat: Hat, rotation: float = ROTATION) -> OnGrid:
    """Height Z of a pressure level without its mean, m, in linear balance: g ∇²Z = ∇·(f ∇ψ)."""
    psi_x, psi_y = grid.gradient(psi_hat)
    f = grid.coriolis(rotation)
    return grid.to_grid(grid.inverse_laplacian(grid.divergence(f * psi_x, f * psi_y))) / GRAVITY


def read(path, grid: Sphere) -> Atmosphere:
    """Inputs from a netCDF file on the Gaussian grid of some truncation, truncated or padded to that of `grid`.

    Variables `orography`, `land_mask` or `land_sea_mask`, `forcing_corrected` or `forcing` (s⁻²) and a start,
    `psi0` (m² s⁻¹) or `initial_q` (s⁻¹, with f). Files of QG3.jl hold also a forcing for a planet that turns the wrong
    way, `forcing_repo`, which is left alone. Raises `ValueError` for a variable or unit that is missing, levels other
    than 200, 500 and 800 hPa, and points that are those of no Gaussian grid.
    """
    import xarray as xr

    path = Path(path)
    if not path.is_file():
        raise ValueError(f"there is no file {path}; qg3.winter(grid) needs none")
    with NETCDF, xr.open_dataset(path) as file:
        data = file.load()
    return _inputs(data, grid, str(data.attrs.get("source", path.name)))


def pyshqg(grid: Sphere) -> Atmosphere:
    """Forcing, start, orography and land mask at 64 x 128 points of the package pyshqg 1.0.1 (MIT licence).

    Read in place, not imported: `pip install --no-deps pyshqg`. Its authors do not say where the forcing is from.
    Raises `FileNotFoundError` if it is not installed.
    """
    import xarray as xr

    data = xr.open_zarr(pyshqg_folder() / "data_t63.zarr").load()
    return _inputs(data.assign_coords(level=("level", list(LEVELS))), grid, "pyshqg 1.0.1, data_t63")


def pyshqg_folder() -> Path:
    """Where pyshqg keeps its data. Raises `FileNotFoundError` if it is not installed."""
    found = importlib.util.find_spec("pyshqg")
    if found is None:
        raise FileNotFoundError("pyshqg is not installed: pip install --no-deps pyshqg")
    return Path(found.submodule_search_locations[0]) / "data"


def from_pyshqg(a: np.ndarray, grid: Sphere) -> Complex[Array, "*batch l k"]:
    """Coefficients `[..., 2, l, m]` of pyshqg on the places of `grid`, as far as both have them.

    Its harmonics have our norm and phase. Its transform is the Hermitian FFT, which turns with exp(−imλ), and its rows
    are labelled from the other pole: its planet is ours turned by 180 degrees about an axis through the equator,
    ψ(λ, φ) → ψ(−λ, −φ), so a coefficient becomes (−1)^(l + m) times its conjugate. Grid arrays need no change: rows
    run from south to north and columns to the east, from a meridian that it calls 180 degrees.
    """
    a, order = np.asarray(a, float), np.asarray(grid.order).astype(int)
    out = np.zeros((*a.shape[:-3], *grid.spectral_shape), complex)
    truncation = min(grid.truncation, a.shape[-1] - 1)
    for i, j in np.argwhere(grid.degree <= truncation):
        l, m = grid.degree[i, j], order[i, j]
        out[..., i, j] = (-1.0) ** (l + m) * (a[..., 0, l, m] - 1j * a[..., 1, l, m] * (m > 0))
    return jnp.asarray(out, jnp.result_type(grid.dtype, jnp.complex64))


def winter(grid: Sphere, strength: float = 1.0) -> Atmosphere:
    """Synthetic inputs, from no data: jets and standing waves like those of a northern winter, and four mountains.

    S is what would keep a smooth flow in balance: zonal jets near 29N and 40S, stronger where Asia and North America
    end, times `strength`. From a ripple in the start eddies grow on it and weaken it, to 50 and 36 m s⁻¹ at 200 hPa,
    42N and 40S, at T21. For trials; it is no climatology.
    """
    flow_at = (1.0, 0.45, 0.12)
    phi, lam = np.radians(grid.latitude)[:, None], np.radians(grid.longitude)[None, :]
    bell = lambda x, width: np.exp(-((np.degrees(x) / width) ** 2))
    around = lambda centre: np.angle(np.exp(1j * (lam - np.radians(centre))))
    h = sum(
        height * bell(phi - np.radians(north), size) * bell(around(east), 1.4 * size)
        for height, north, east, size in (
            (4500, 35, 90, 11),
            (2200, 43, 250, 13),
            (3000, -20, 292, 9),
            (2500, 73, 318, 8),
        )
    )
    land = np.clip(h / 500, 0, 1)
    jets = 75 * bell(phi - np.radians(29), 11) + 55 * bell(phi + np.radians(40), 12)
    exits = 1 + 0.9 * bell(around(140), 40) + 0.5 * bell(around(285), 35)
    u = jets * (1 + (exits - exits.mean()) * (phi > 0)) * np.cos(phi)
    curl = grid.curl(jnp.asarray(u, grid.dtype), jnp.zeros(grid.shape, grid.dtype))
    psi_hat = strength * jnp.asarray(flow_at, grid.dtype)[:, None, None] * grid.inverse_laplacian(curl)
    flow = QuasiGeostrophic.qg3(grid, orography=h, land=land)
    smooth = psi_hat * jnp.exp(-((jnp.asarray(grid.degree, grid.dtype) / 16) ** 4))
    # Without a ripple the start would stay in balance until rounding errors have grown.
    ripple = 0.5 * grid.radius * np.cos(6 * lam) * np.cos(phi) ** 4 * np.sin(phi)
    start = grid.to_grid(flow.potential_vorticity(smooth + grid.to_spectral(jnp.asarray(ripple, grid.dtype))))
    return Atmosphere(roads(flow, smooth[None]), h, land, start, "synthetic, hybridgcm.qg3.winter")


def _inputs(data, grid: Sphere, source: str) -> Atmosphere:
    find = lambda *names: next((data[name] for name in names if name in data), None)
    forcing, land = find("forcing_corrected", "forcing"), find("land_mask", "land_sea_mask")
    orography, psi, q = find("orography"), find("psi0"), find("initial_q")
    if forcing is None or land is None or orography is None or (psi is None and q is None):
        raise ValueError(
            "expected forcing_corrected or forcing, land_mask or land_sea_mask, orography, and psi0 or initial_q; "
            f"found {sorted(map(str, data.data_vars))}"
        )
    level, latitude, longitude = (data[dimension] for dimension in forcing.dims)
    if level.shape != (3,) or not np.allclose(sorted(_in("hPa", level, "hPa")), LEVELS, atol=1):
        raise ValueError(f"expected levels {LEVELS} hPa, found {level.values.tolist()} {level.attrs.get('units')}")
    down = np.argsort(level.values)
    rows, east = np.argsort(latitude.values), np.argsort(np.mod(longitude.values, 360))
    source_grid = Sphere((2 * len(rows) - 1) // 3, grid.radius, dtype=grid.dtype)
    if source_grid.shape != (len(rows), len(east)) or not np.allclose(
        latitude.values[rows], source_grid.latitude, atol=0.1
    ):
        raise ValueError(
            f"expected a Gaussian grid with twice as many longitudes, found latitudes {latitude.values[rows][:3]} ... "
            f"and {len(east)} longitudes"
        )
    put = lambda a, units: jnp.asarray(_in(units, a, units)[..., rows, :][..., east], grid.dtype)
    spectral = lambda a, units: source_grid.resize(source_grid.to_spectral(put(a, units)[down]), grid)
    points = lambda a, units: to_points(put(a, units), source_grid.latitude, source_grid.longitude, grid)
    h, mask = points(orography, "m"), points(land, "1")
    if psi is not None:
        start = QuasiGeostrophic.qg3(grid).potential_vorticity(spectral(psi, "m2 s-1"))
    else:
        f = source_grid.resize(source_grid.to_spectral(source_grid.coriolis()), grid)
        start = spectral(q, "s-1") - f
        bottom = grid.to_spectral(grid.coriolis() * jnp.asarray(h / 9e3, grid.dtype))
        start = start.at[2].add(-bottom)
    return Atmosphere(Steady({"q_hat": spectral(forcing, "s-2")}), h, mask, grid.to_grid(start), source)


def _in(default: str, a, units: str) -> np.ndarray:
    """Values in `units`; an attribute that is missing means the default."""
    factor, _ = conversion(str(a.attrs.get("units", default)), units)
    return np.asarray(a.values, float) * factor
