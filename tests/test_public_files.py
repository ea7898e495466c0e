"""Flows of PDEBench and of The Well, from files as their own writer makes them."""

import jax.random as jr
import numpy as np
import pytest

import hybridgcm as hg
from hybridgcm import pairs

h5py = pytest.importorskip("h5py", reason="these files are HDF5 as h5py writes it")

T, X, Y = np.linspace(0, 1, 4), np.linspace(0, 1, 5), np.linspace(0, 2, 6)


def values(*shape):
    return np.random.default_rng(len(shape)).normal(size=shape).astype(np.float32)


def pdebench(path, fields, coordinates):
    with h5py.File(path, "w") as file:
        for name, a in fields.items():
            file.create_dataset(name, data=a)
        for name, a in coordinates.items():
            file.create_dataset(f"{name}-coordinate", data=a)
    return path


def well(path, **changes):
    """Two runs of three times on x, y: a scalar, a bottom that stands still, a vector and a tensor."""
    fields = {
        "t0_fields": {"height": (values(2, 3, 5, 6), True), "bottom": (values(5, 6), False)},
        "t1_fields": {"velocity": (values(2, 3, 5, 6, 2), True)},
        "t2_fields": {"stress": (values(2, 3, 5, 6, 2, 2), True)},
    } | changes
    with h5py.File(path, "w") as file:
        file.attrs["n_trajectories"] = 2
        axes = file.create_group("dimensions")
        axes.attrs["spatial_dims"] = ["x", "y"]
        for name, a in (("time", T[:3]), ("x", X), ("y", Y)):
            axes.create_dataset(name, data=a).attrs["sample_varying"] = False
        mask = file.create_group("boundary_conditions").create_group("x_periodic")
        mask.create_dataset("mask", data=np.array([True, False, False, False, True]))
        file.create_group("scalars").create_dataset("Re", data=np.float32(50.0))
        for group, known in fields.items():
            made = file.create_group(group)
            made.attrs["field_names"] = list(known)
            for name, (a, varies) in known.items():
                about = made.create_dataset(name, data=a).attrs
                about["sample_varying"] = about["time_varying"] = varies
                about["dim_varying"] = np.array([True, True])
    return path


def test_a_tensor_of_pdebench(tmp_path):
    """x is the last axis, a coefficient has no time, and a time too many is left out."""
    a, nu = values(7, 4, 5, 6), values(7, 5, 6)
    path = pdebench(tmp_path / "a.hdf5", {"tensor": a, "nu": nu}, {"t": np.arange(5.0), "x": X, "y": Y})
    data = pairs.read_pdebench(path, slice(2, 5))
    assert data["tensor"].dims == ("sample", "time", "y", "x") and data["nu"].dims == ("sample", "y", "x")
    assert np.array_equal(data["tensor"], a[2:5].swapaxes(2, 3)) and np.array_equal(data["nu"], nu[2:5].swapaxes(1, 2))
    assert np.allclose(data["x"], X) and np.array_equal(data["time"], np.arange(4))
    path = pdebench(tmp_path / "b.hdf5", {"tensor": values(3, 4, 5)}, {"t": T, "x": X})
    assert pairs.read_pdebench(path)["tensor"].dims == ("sample", "time", "x")
    path = pdebench(tmp_path / "c.hdf5", {"tensor": a[:, :1], "nu": nu}, {"x": X, "y": Y})  # Darcy: no time is told
    assert pairs.read_pdebench(path)["tensor"].shape == (7, 1, 6, 5)


def test_fields_of_pdebench_train_a_network(tmp_path):
    names = "density", "pressure", "Vx", "Vy"
    path = pdebench(tmp_path / "a.hdf5", {n: values(3, 4, 5, 6) for n in names}, {"t": T, "x": X, "y": Y})
    data = pairs.read_pdebench(path)
    assert set(data) == set(names)
    runs = [{name: run[name].values[:, None] for name in names} for run in (data.isel(sample=i) for i in range(3))]
    batch = hg.windows(runs, length=2, batch=2, steps=1, key=jr.key(0))[0]
    assert batch["Vx"].shape == (2, 2, 1, 6, 5)


def test_groups_of_pdebench(tmp_path):
    stored = values(3, 4, 5, 6, 2)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for run in range(3):
            group = file.create_group(f"{run:04d}")
            group.create_dataset("data", data=stored[run])
            for name, a in (("t", T), ("x", X), ("y", Y)):
                group.create_dataset(f"grid/{name}", data=a)
    data = pairs.read_pdebench(tmp_path / "a.h5", slice(1, 3))
    assert np.array_equal(data["data_1"], stored[1:, ..., 1].swapaxes(2, 3)) and np.allclose(data["time"], T)


def test_a_file_of_the_well(tmp_path):
    data = pairs.read_well(well(tmp_path / "a.hdf5"), slice(1, 2))
    vector, tensor = values(2, 3, 5, 6, 2), values(2, 3, 5, 6, 2, 2)
    assert data["height"].dims == ("sample", "time", "y", "x") and data["height"].shape == (1, 3, 6, 5)
    assert data["bottom"].dims == ("y", "x") and data.attrs["Re"] == 50
    assert np.array_equal(data["velocity_y"], vector[1:, ..., 1].swapaxes(2, 3))
    assert np.array_equal(data["stress_xy"], tensor[1:, ..., 0, 1].swapaxes(2, 3))
    assert np.allclose(data["y"], Y) and np.allclose(data["time"], T[:3])


def test_what_is_no_such_file_is_refused(tmp_path):
    (tmp_path / "text.h5").write_text("no HDF5")
    other = pdebench(tmp_path / "other.h5", {"a": values(3, 3)}, {})
    bad = np.full((2, 4, 5), np.nan, np.float32)
    hole = pdebench(tmp_path / "hole.h5", {"tensor": bad}, {"t": T, "x": X})
    shape = well(tmp_path / "shape.h5", t1_fields={"velocity": (values(2, 3, 5, 6, 3), True)})
    silent = well(tmp_path / "silent.h5")
    with h5py.File(silent, "a") as file:
        del file["t0_fields/height"].attrs["time_varying"]
    for make, kind, words in (
        (lambda: pairs.read_well(silent), ValueError, r"height has no attributes \['time_varying'\]"),
        (lambda: pairs.read_well(tmp_path / "none.h5"), FileNotFoundError, "is not there"),
        (lambda: pairs.read_pdebench(tmp_path / "text.h5"), ValueError, "not an HDF5 file"),
        (lambda: pairs.read_pdebench(other), ValueError, r"no layout of PDEBench.*'a': \(3, 3\)"),
        (lambda: pairs.read_well(other), ValueError, "no layout of The Well"),
        (lambda: pairs.read_pdebench(hole), ValueError, "not finite"),
        (lambda: pairs.read_well(shape), ValueError, "velocity has shape .* and 2 parts"),
        (lambda: pairs.read_well(well(tmp_path / "few.h5"), slice(9, 12)), ValueError, "has 2 samples"),
    ):
        with pytest.raises(kind, match=words):
            make()
