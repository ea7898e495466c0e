"""Readers of public files of pairs."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from hybridgcm._typing import nearest
from hybridgcm.data import check_finite
from hybridgcm.pairs.burgers import spread


def read_darcy(path) -> dict[str, dict[str, np.ndarray]]:
    """{"train", "test16", "test32"}: pairs of the coefficient `a`, 0 or 1, and the pressure `u`, points i/n.

    Reads variables a_train, u_train, a_test16... `[sample, y, x]` of a netCDF file. Raises `ValueError` for a variable
    that is missing, shapes that do not pair, values that are missing or not finite, and coefficients besides 0 and 1.
    """
    out = {}
    for part in ("train", "test16", "test32"):
        fields = _read(path, {"a": f"a_{part}", "u": f"u_{part}"})
        a, u = fields["a"], fields["u"]
        if a.ndim != 3 or a.shape != u.shape or a.shape[1] != a.shape[2]:
            raise ValueError(f"{path}: a_{part} and u_{part} are [sample, n, n] alike; got {a.shape} and {u.shape}")
        if not np.isin(a, (0, 1)).all():
            raise ValueError(f"{path}: a_{part} is 0 or 1; got values such as {a[~np.isin(a, (0, 1))][0]}")
        out[part] = {name: field[:, None] for name, field in fields.items()}
    return out


def read_burgers(path) -> dict[str, dict[str, np.ndarray]]:
    """{"train", "test"}: pairs of the initial `u0`, the same at all times, and the solution `u`, both
    `[sample, 1, time, x]`.

    Reads u0_train `[sample, x]`, u_train `[sample, time, x]` and the same of test. Raises `ValueError` as `read_darcy`,
    and if a solution does not begin with its initial values.
    """
    out = {}
    for part in ("train", "test"):
        fields = _read(path, {"u0": f"u0_{part}", "u": f"u_{part}"})
        u0, u = fields["u0"], fields["u"]
        if u.ndim != 3 or u0.shape != (len(u), u.shape[2]):
            expected = "[sample, x] and [sample, time, x]"
            raise ValueError(f"{path}: u0_{part} and u_{part} are {expected}; got {u0.shape} and {u.shape}")
        if np.abs(u[:, 0] - u0).max() > 1e-5 * np.abs(u0).max():
            raise ValueError(f"{path}: u_{part} does not begin with u0_{part}; its first time is another")
        out[part] = spread(u0, u)
    return out


def _read(path, names: Mapping[str, str]) -> dict[str, np.ndarray]:
    import xarray as xr

    if not Path(path).is_file():
        raise FileNotFoundError(f"{path} is not there; without files, `pairs.darcy` and `pairs.burgers` make pairs")
    out = {}
    with xr.open_dataset(path) as data:
        for name, stored in names.items():
            if stored not in data:
                there = [str(variable) for variable in data.data_vars]
                raise ValueError(f"{path} has no {stored}, only {there}{nearest(stored, there)}")
            out[name] = np.asarray(data[stored].values, np.float32)
            check_finite(f"{path}: {stored}", out[name])
            if len(out[name]) != len(out[next(iter(out))]):
                raise ValueError(f"{path}: {list(names.values())} differ in length; pairs go sample by sample")
    return out
