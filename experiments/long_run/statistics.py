"""Climate statistics that are made while the model runs, and what a century of them says."""

import jax
import jax.numpy as jnp
import numpy as np

import hybridgcm as hg
from hybridgcm import data, diagnostics
from hybridgcm.rollout import YEAR

for _name, _about in {
    "q2": ("s-2", "square of the quasi-geostrophic potential vorticity anomaly"),
    "ke_spectrum": ("m3 s-2", "isotropic spectrum of the kinetic energy of the anomaly"),
    "q_pdf": ("1", "share of the points in a bin of potential vorticity"),
}.items():
    hg.VARIABLES.setdefault(_name, hg.Variable(*_about))

DIMENSIONS = {"ke_spectrum_mean": ("layer", "wavenumber"), "q_pdf_mean": ("layer", "bin")}


def moments(largest, bins: int, model, state) -> dict:
    """First and second moment of q on the grid, spectrum of the kinetic energy, histogram of q, energy, enstrophy."""
    grid, q = model.equation.grid, model.decode(state)["q"]
    psi = model.equation.invert(state.y["q"])
    density = -grid.eigenvalues * (psi.real**2 + psi.imag**2) / 2
    ends = jnp.asarray(largest, q.dtype)[:, None, None]
    number = jnp.clip(jnp.floor((q / ends + 1) / 2 * bins), 0, bins - 1).astype(int).reshape(len(q), -1)
    count = jax.vmap(lambda row: jnp.zeros(bins, q.dtype).at[row].add(1.0))(number)
    return {
        "q": q,
        "q2": q**2,
        "ke_spectrum": diagnostics.isotropic(grid, density),
        "q_pdf": count / number.shape[1],
        "energy": diagnostics.energy(model, state),
        "enstrophy": diagnostics.enstrophy(model, state),
    }


def climate(folder, spin_up: int):
    """(data set of means over the years after `spin_up`, {name: trend of a yearly number with its interval})."""
    years = data.read_store(folder / "output.zarr").load()
    kept = years.isel(time=slice(spin_up, None))
    mean = kept.mean("time", keep_attrs=True)
    mean["variance"] = mean["q2_mean"] - mean["q_mean"] ** 2
    mean["variance"].attrs = {"units": "s-2", "long_name": "variance in time of q on the grid"}
    time = kept["time"].values / YEAR
    return mean, {name: trend(time, kept[f"{name}_mean"].values) for name in ("energy", "enstrophy")}


def trend(time, values) -> dict:
    """Mean, and least-squares slope per ten years relative to it with the half width of its 95 % interval.

    The residuals count as as many independent ones as their correlation from year to year leaves.
    """
    values, mean = np.asarray(values, np.float64), float(np.mean(values))
    if len(values) < 4:
        return {"mean": mean, "per decade": None, "interval": None}
    t = np.asarray(time, np.float64) - np.mean(time)
    slope = (t * values).sum() / (t**2).sum()
    rest = values - mean - slope * t
    r = float(np.clip(np.corrcoef(rest[:-1], rest[1:])[0, 1], 0, 0.99)) if rest.std() > 0 else 0.0
    free = max(len(values) * (1 - r) / (1 + r) - 2, 1)
    error = np.sqrt((rest**2).sum() / free / (t**2).sum())
    return {"mean": mean, "per decade": 10 * slope / mean, "interval": 10 * 1.96 * error / abs(mean)}
