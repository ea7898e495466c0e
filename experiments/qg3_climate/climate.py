"""What a long run of the three-level model says about its climate."""

from pathlib import Path

import numpy as np

import hybridgcm as hg
from hybridgcm import data, qg3, reanalysis

hg.VARIABLES.setdefault("z500", hg.Variable("m", "height of 500 hPa in linear balance, mean removed"))
SIDES = {"north": 1, "south": -1}


def height(model, state) -> dict:
    """Height of 500 hPa, m."""
    psi = model.equation.invert(state.y["q"])
    return {"z500": qg3.height(model.equation.grid, psi[1])}


def flow(model, state) -> dict:
    """u and ψ of all levels."""
    fields = model.view(state)
    return {"u": fields["u"], "psi": fields["psi"]}


def climate(folder: Path, config) -> dict:
    """Means of u and ψ `[level, y, x]`, fields and numbers made of the heights; see the keys."""
    store = data.read_store(folder / "output.zarr").isel(time=slice(2 * config.spin_up, None))
    latitude, longitude = store.latitude.values, store.longitude.values
    z = store.z500.values
    slow = band(z, 0.5, 1 / 10, 0)
    found = {
        "latitude": latitude,
        "longitude": longitude,
        "u": store.u_mean.values.mean(0, dtype=float),
        "psi": store.psi_mean.values.mean(0, dtype=float),
        "z500": z.mean(0, dtype=float),
        "storms": band(z, 0.5, 1 / 2.5, 1 / 6).std(0),
        "blocking": blocking(z, latitude, config.blocked),
        "days": len(z) / 2,
    }
    found["regimes"], found["shares"] = regimes(slow[::10], latitude, config.regimes, config.seed)
    found["jets"] = {side: [jet(u, latitude, sign) for u in found["u"]] for side, sign in SIDES.items()}
    found["storms_at"] = {
        side: (float(latitude[i]), float(longitude[j]), float(found["storms"][i, j]))
        for side, (i, j) in {
            side: np.unravel_index(np.argmax(found["storms"] * (sign * latitude[:, None] > 20)), found["storms"].shape)
            for side, sign in SIDES.items()
        }.items()
    }
    return found


def reference(path) -> dict | None:
    """Reanalysis means of u and ψ from the file of inputs; None if it has none."""
    import xarray as xr

    with xr.open_dataset(path) as file:
        if "psi_clim_djf" not in file:
            return None
        means = file.sortby("lat").load()
    found = {"latitude": means.lat.values, "longitude": means.lon.values}
    found |= {"u": means.u_clim_djf.values.astype(float), "psi": means.psi_clim_djf.values.astype(float)}
    found["jets"] = {side: [jet(u, found["latitude"], sign) for u in found["u"]] for side, sign in SIDES.items()}
    return found


def against(model: dict, truth: dict) -> dict:
    """Per level, northern hemisphere: correlation and ratio of amplitudes of standing waves, error of zonal-mean u."""
    latitude = truth["latitude"]
    weight = np.cos(np.radians(latitude))[:, None] * (latitude[:, None] > 0)
    eddy = lambda a: a - a.mean(-1, keepdims=True)
    out = {"correlation": [], "amplitude": [], "zonal": []}
    for level in range(3):
        a, b = eddy(_to(model, model["psi"][level], truth)), eddy(truth["psi"][level])
        inner = lambda x, y: float((weight * x * y).sum())
        out["correlation"].append(inner(a, b) / np.sqrt(inner(a, a) * inner(b, b)))
        out["amplitude"].append(float(np.sqrt(inner(a, a) / inner(b, b))))
        difference = _to(model, model["u"][level], truth).mean(-1) - truth["u"][level].mean(-1)
        out["zonal"].append(float(np.sqrt(np.average(difference**2, weights=np.cos(np.radians(latitude))))))
    return out


def jet(u: np.ndarray, latitude: np.ndarray, sign: int) -> tuple[float, float]:
    """(speed, latitude) of the strongest zonal-mean westerly of a hemisphere."""
    zonal = np.where(sign * latitude > 0, u.mean(-1), -np.inf)
    return float(zonal.max()), float(latitude[zonal.argmax()])


def band(a: np.ndarray, interval: float, high: float, low: float) -> np.ndarray:
    """Frequencies from `low` to `high` (per day) of a series `[time, ...]` at the interval (days), tapered at its ends.

    Written anew in blocks of rows: a transform of everything at once would hold it several times.
    """
    frequency = np.fft.rfftfreq(len(a), interval)
    keep = (frequency >= low) & (frequency <= high)
    edge = min(len(a) // 4, 40)
    taper = np.ones(len(a), np.float32)
    taper[:edge] = 0.5 - 0.5 * np.cos(np.pi * np.arange(edge) / edge)
    taper[-edge:] = taper[:edge][::-1]
    out = np.empty_like(a)
    for row in range(a.shape[1]):
        part = a[:, row] - a[:, row].mean(0)
        spectrum = np.fft.rfft(part * taper[:, None], axis=0) * keep[:, None]
        out[:, row] = np.fft.irfft(spectrum, len(a), axis=0)
    return out


def blocking(z: np.ndarray, latitude: np.ndarray, days: float) -> np.ndarray:
    """Share of time with a reversed meridional gradient of Z500 that lasts, `[longitude]`.

    Tibaldi and Molteni (1990), doi:10.1034/j.1600-0870.1990.t01-2-00003.x: some central latitude near 60N (± 5) has
    (Z₀ − Z_S)/20 > 0 and (Z_N − Z₀)/20 < −10 m per degree, heights at 20 degrees to either side, for `days` days.
    """
    at = lambda place: _rows(z, latitude, place)
    reversed_ = np.zeros((len(z), z.shape[-1]), bool)
    for shift in (-5.0, 0.0, 5.0):
        north, centre, south = (at(place + shift) for place in (80.0, 60.0, 40.0))
        reversed_ |= ((centre - south) / 20 > 0) & ((north - centre) / 20 < -10)
    need, run, kept = round(2 * days), np.zeros(z.shape[-1], int), np.zeros_like(reversed_)
    for t, now in enumerate(reversed_):
        run = np.where(now, run + 1, 0)
        for column in np.flatnonzero(run >= need):
            kept[t - run[column] + 1 : t + 1, column] = True
    return kept.mean(0)


def regimes(z: np.ndarray, latitude: np.ndarray, number: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(centroids `[regime, y, x]` in m, shares): k-means of the ten leading modes of low-pass anomalies, 20 to 90N."""
    from scipy.cluster.vq import kmeans2

    anomaly = (z - z.mean(0)).astype(float)
    weight = np.sqrt(np.maximum(np.cos(np.radians(latitude)), 0) * (latitude > 20))[:, None]
    flat = (anomaly * weight).reshape(len(z), -1)
    modes = np.linalg.svd(flat, full_matrices=False)
    scores = (modes[0] * modes[1])[:, : min(10, len(z))]
    tries = [kmeans2(scores, number, minit="++", rng=seed + i) for i in range(10)]
    best = min(tries, key=lambda found: ((scores - found[0][found[1]]) ** 2).sum())
    shares = np.bincount(best[1], minlength=number) / len(z)
    order = np.argsort(-shares)
    members = [best[1] == i for i in order]
    centroids = [anomaly[m].mean(0) if m.any() else np.zeros(z.shape[1:]) for m in members]
    return np.stack(centroids), shares[order]


def dataset(found: dict):
    """The fields of a climate as a CF data set."""
    import xarray as xr

    place = {
        "latitude": ("latitude", found["latitude"], {"units": "degrees_north", "standard_name": "latitude"}),
        "longitude": ("longitude", found["longitude"], {"units": "degrees_east", "standard_name": "longitude"}),
        "level": ("level", list(qg3.LEVELS), {"units": "hPa", "standard_name": "air_pressure", "positive": "down"}),
    }
    on = ("latitude", "longitude")
    return xr.Dataset(
        {
            "u": (("level", *on), found["u"], {"units": "m s-1", "standard_name": "eastward_wind"}),
            "psi": (("level", *on), found["psi"], {"units": "m2 s-1", "long_name": "streamfunction"}),
            "z500": (on, found["z500"], {"units": "m", "long_name": "height of 500 hPa, mean removed"}),
            "storms": (on, found["storms"], {"units": "m", "long_name": "deviation of Z500 between 2.5 and 6 days"}),
            "blocking": (on[1:], found["blocking"], {"units": "1", "long_name": "share of time blocked"}),
            "regimes": (("regime", *on), found["regimes"], {"units": "m", "long_name": "Z500 anomaly of a regime"}),
            "shares": (("regime",), found["shares"], {"units": "1", "long_name": "share of time in a regime"}),
        },
        place,
        {"Conventions": "CF-1.10", "title": f"climate of {found['days']:.0f} days"},
    )


def _rows(z: np.ndarray, latitude: np.ndarray, place: float) -> np.ndarray:
    """Heights at a latitude, `[time, longitude]`, linear between rows."""
    i = int(np.clip(np.searchsorted(latitude, place) - 1, 0, len(latitude) - 2))
    share = (place - latitude[i]) / (latitude[i + 1] - latitude[i])
    return (1 - share) * z[:, i] + share * z[:, i + 1]


def _to(model: dict, a: np.ndarray, other: dict) -> np.ndarray:
    """A field of the model on the Gaussian points of another data set."""
    grid = hg.Sphere((2 * len(other["latitude"]) - 1) // 3)
    return reanalysis.to_points(a, model["latitude"], model["longitude"], grid)
