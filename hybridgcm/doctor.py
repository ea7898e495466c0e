"""`python -m hybridgcm.doctor`: what this machine is, and whether it computes and keeps what it is given."""

import argparse
import importlib.metadata
import json
import os
import platform
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

LIBRARIES = ("jax", "jaxlib", "equinox", "optax", "numpy", "xarray", "zarr", "netCDF4", "tyro", "matplotlib", "diffrax")


class Broken(RuntimeError):
    """A check did not pass."""


def main(argv: Sequence[str] | None = None) -> int:
    """Print what was found; 0 if every check passed, else 1."""
    parser = argparse.ArgumentParser("python -m hybridgcm.doctor", description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("."), help="where runs will be written (here)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    asked = parser.parse_args(argv)
    found = {"about": about()} | check(asked.folder)
    failed = [name for name, result in found.items() if name != "about" and not result["passed"]]
    if asked.json:
        print(json.dumps(found, indent=1))
    else:
        for name, value in found["about"].items():
            print(f"{name:>18}: {value}")
        for name, result in found.items():
            if name != "about":
                print(f"{'ok' if result['passed'] else 'FAILED':>8}  {name}: {result['found']}")
        print(f"{len(failed)} of {len(found) - 1} checks failed" + (f": {', '.join(failed)}" if failed else ""))
    return 1 if failed else 0


def about() -> dict:
    """Versions, devices, precision and flags, as plain values."""
    import jax

    versions = {}
    for name in LIBRARIES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "absent"
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        **versions,
        "devices": ", ".join(f"{d.platform} {d.device_kind} ({d.id})" for d in jax.devices()),
        "cores": cores,
        "double precision": bool(jax.config.jax_enable_x64),
        "matmul precision": str(jax.config.jax_default_matmul_precision or "default"),
        "XLA_FLAGS": os.environ.get("XLA_FLAGS", ""),
        "compilation cache": jax.config.jax_compilation_cache_dir or "off",
    }


def check(folder) -> dict[str, dict]:
    """{name: {"passed", "found"}} of all checks; `folder` is where runs will be written."""
    checks: dict[str, Callable[[], str]] = {
        "disk": lambda: _disk(Path(folder)),
        "transforms": _transforms,
        "products": _products,
        "same bits twice": _repeats,
        "same bits after a save": lambda: _resumes(Path(folder)),
        "all devices agree": _devices,
    }
    results = {}
    for name, work in checks.items():
        try:
            results[name] = {"passed": True, "found": work()}
        except Exception as error:
            results[name] = {"passed": False, "found": f"{type(error).__name__}: {error}"}
    return results


def _disk(folder: Path) -> str:
    """A file of 1 MB appears whole in the folder, and a lock holds there."""
    from hybridgcm.files import FolderInUse, atomic, claim

    folder.mkdir(parents=True, exist_ok=True)
    probe, content = folder / f".doctor-{os.getpid()}", os.urandom(1 << 20)
    try:
        start = time.perf_counter()
        probe.mkdir()
        with atomic(probe / "file") as temporary:
            temporary.write_bytes(content)
        seconds = time.perf_counter() - start
        if (probe / "file").read_bytes() != content:
            raise Broken(f"a file in {folder} reads back with other bytes than were written")
        with claim(probe):
            try:
                with claim(probe):
                    raise Broken(f"{folder} keeps no locks: two runs could write to one folder")
            except FolderInUse:
                pass
    finally:
        shutil.rmtree(probe, ignore_errors=True)
    free = shutil.disk_usage(folder).free
    if free < 1 << 28:
        raise Broken(f"{free >> 20} MB are free in {folder}; clear some, runs need room for two checkpoints")
    return f"1 MB written and synced in {1e3 * seconds:.0f} ms, {free / 2**30:.1f} GB free"


def _transforms() -> str:
    """A two-dimensional FFT of the device against NumPy in double precision."""
    import jax.numpy as jnp
    import numpy as np

    a = np.random.default_rng(0).standard_normal((2, 96, 128))
    error = _error(jnp.fft.rfft2(jnp.asarray(a, jnp.float32)), np.fft.rfft2(a))
    back = _error(jnp.fft.irfft2(jnp.fft.rfft2(jnp.asarray(a, jnp.float32)), s=a.shape[1:]), a)
    if max(error, back) > 2e-6:
        raise Broken(f"relative error {error:.1e}, there and back {back:.1e}; single precision gives 3e-7")
    return f"relative error {error:.1e}, there and back {back:.1e}"


def _products() -> str:
    """A matrix product at the precision of single numbers: no TF32 where hybridgcm asks for the highest."""
    import jax.numpy as jnp
    import numpy as np

    a = np.random.default_rng(0).standard_normal((2, 128, 128))
    b, c = (jnp.asarray(x, jnp.float32) for x in a)
    exact = a[0] @ a[1]
    error, default = _error(jnp.matmul(b, c, precision="highest"), exact), _error(b @ c, exact)
    if error > 2e-6:
        raise Broken(f"relative error {error:.1e} at the highest precision; single precision gives 3e-7")
    return f"relative error {error:.1e}, by default {default:.1e}"


def _repeats() -> str:
    """A short run, twice; the hash is for comparison by eye: other processors and versions may have another."""
    from hybridgcm.fingerprint import digest

    model, state, run = _case()
    first, second = (digest(run(model, state)) for _ in range(2))
    if first != second:
        raise Broken("the same steps gave other bits the second time: nothing on this device repeats exactly")
    return f"SHA-256 {first[:16]} of 50 steps at 32²"


def _resumes(folder: Path) -> str:
    """50 steps and 50 after a checkpoint are 100 steps."""
    from hybridgcm.checkpoint import load, save
    from hybridgcm.fingerprint import digest

    model, state, run = _case()
    middle, path = run(model, state), folder / f".doctor-{os.getpid()}.ckpt"
    try:
        save(path, middle)
        resumed = run(model, load(path, state))
    finally:
        path.unlink(missing_ok=True)
    if digest(resumed) != digest(run(model, middle)):
        raise Broken("a state that was saved and loaded goes on to other bits")
    return "bit for bit"


def _devices() -> str:
    """Every device of this host gives the member that the first one gives."""
    import jax

    from hybridgcm.fingerprint import digest
    from hybridgcm.parallel import members

    devices = jax.local_devices()
    model, state, run = _case()
    states = jax.tree.map(lambda a: jax.numpy.stack([a] * len(devices)), state)
    out = members(run, devices=devices)(model, states)
    found = {digest(jax.tree.map(lambda a, i=i: a[i], out)) for i in range(len(devices))}
    if found != {digest(run(model, state))}:
        raise Broken(
            f"{len(devices)} devices gave {len(found)} results for one member, or not that of the member alone"
        )
    return f"{len(devices)} of {len(devices)}"


def _case():
    """(model, state, function of both): 50 steps of a two-layer flow at 32²."""
    import equinox as eqx
    import jax
    import jax.numpy as jnp

    from hybridgcm.equations import QuasiGeostrophic
    from hybridgcm.grids import Torus
    from hybridgcm.models import Model
    from hybridgcm.rollout import rollout
    from hybridgcm.steppers import AB3

    model = Model(QuasiGeostrophic.two_layer(Torus(32, 1e6), tau=1e5), AB3(), dt=3600.0)
    q = 1e-6 * jax.random.normal(jax.random.key(0), (2, 32, 32), jnp.float32)
    return model, model.encode({"q": q}), eqx.filter_jit(lambda model, state: rollout(model, state, 50, save=None)[0])


def _error(found, exact) -> float:
    import numpy as np

    return float(np.abs(np.asarray(found) - exact).max() / np.abs(exact).max())


if __name__ == "__main__":
    sys.exit(main())
