"""Write the golden reference files (*.npz) that the tests compare against.

The numbers come from two independent codes, pyqg (Cython + FFTW) and pyqg-jax.
Neither is needed to run the tests: only the .npz files are read there. To make
the files again, run this script in an environment that has both packages:

    python make_golden.py              # all files, next to this script
    python make_golden.py -o DIR NAME  # some of them, elsewhere

Two points matter when comparing with pyqg:

* After ``_step_forward`` pyqg's ``q``/``qh`` are those of the new time, but
  ``ph``, ``u`` and ``v`` are still those of the step before. Unless a name ends
  in ``_stale``, what is stored here was computed after a fresh inversion of the
  current ``q``.
* pyqg starts with forward Euler, then AB2, then AB3 (its ``useAB2`` option has
  no effect in the kernel), and multiplies the whole new state by the spectral
  filter at each step. pyqg-jax's ``AB3Stepper`` does the same.

FFTW may choose its plans by timing them, so files made anew can differ from the
committed ones by rounding, which a chaotic flow then amplifies.

Arrays are ordered (layer, y, x), with cell-centred x = (i + 1/2) L / nx.
Every file holds the versions of the packages (``version_*``) and the
parameters of its run (``param_*``).
"""

import argparse
from importlib.metadata import version
from pathlib import Path

import numpy as np

# The parameters that are pyqg's (and pyqg-jax's) defaults for QGModel, known
# as the "eddy" configuration; written out so that no default can change them.
EDDY = dict(
    L=1e6,
    beta=1.5e-11,
    rek=5.787e-7,
    rd=15000.0,
    delta=0.25,
    H1=500.0,
    U1=0.025,
    U2=0.0,
    filterfac=23.6,
)


def save(path, params, **arrays):
    """Save float64 arrays with the parameters and the package versions."""
    packages = ("pyqg", "pyqg-jax", "numpy", "pyfftw", "jax")
    content = {f"version_{p.replace('-', '_')}": np.array(version(p)) for p in packages}
    content |= {f"param_{k}": np.asarray(v) for k, v in params.items()}
    content |= {k: np.asarray(v) for k, v in arrays.items()}
    np.savez_compressed(path, **content)
    print(f"{path.name}: {path.stat().st_size} bytes")


def pyqg_model(kind, **params):
    """A quiet single-threaded pyqg model that accumulates no averages."""
    import pyqg

    return getattr(pyqg, kind)(ntd=1, log_level=0, taveint=1e30, tavestart=1e30, **params)


def advance(model, steps):
    for _ in range(steps):
        model._step_forward()


def random_eddies(nx, rms, seed, peak=8.0, exact=True):
    """Smooth random PV of some layers (as many as rms values) with zero mean and the given rms values.

    If `exact`, the values are exact in single precision, so that the stored
    initial state takes less room.
    """
    noise = np.random.default_rng(seed).standard_normal((len(rms), nx, nx))
    n = np.fft.fftfreq(nx, 1.0 / nx)
    m = np.fft.rfftfreq(nx, 1.0 / nx)
    kappa = np.hypot(n[:, None], m[None, :])
    shape = np.exp(-(((kappa - peak) / (peak / 2)) ** 2))
    shape[0, 0] = 0.0
    q = np.fft.irfftn(shape * np.fft.rfftn(noise, axes=(-2, -1)), s=(nx, nx), axes=(-2, -1))
    q *= np.asarray(rms)[:, None, None] / np.sqrt((q**2).mean(axis=(-2, -1), keepdims=True))
    return q.astype(np.float32).astype(np.float64) if exact else q


def pyqg_two_layer_32(path):
    """pyqg's two-layer reference solution (its tests expect 9.5614e-08, 1 %)."""
    params = dict(
        nx=32,
        L=1e6,
        beta=1.5e-11,
        rek=5.787e-7,
        rd=30000.0,
        delta=0.25,
        H1=500.0,
        U1=0.05,
        U2=0.0,
        filterfac=18.4,
        dt=12800.0,
    )
    m = pyqg_model("QGModel", **params)
    q1 = 1e-6 * np.cos(10 * np.pi * m.x / m.L) + 1e-7 * np.cos(10 * np.pi * m.y / m.W)
    q_initial = np.stack([q1, np.zeros_like(q1)])
    m.q = q_initial
    q_after = {}
    for steps in (10, 100, 1000):
        advance(m, steps - m.tc)
        q_after[f"q_step_{steps}"] = m.q.copy()
    advance(m, 7290 - m.tc)
    q1sq_end = (m.q[0] ** 2).sum()
    np.testing.assert_allclose(q1sq_end, 9.561430503712755e-08, rtol=0.01)
    save(path, params, q_initial=q_initial, **q_after, steps_end=m.tc, q1_sq_sum_end=q1sq_end)


def pyqgjax_two_layer_64(path):
    """A nonlinear two-layer flow in pyqg-jax, 1000 steps in double precision."""
    import jax

    jax.config.update("jax_enable_x64", True)
    from pyqg_jax.qg_model import QGModel
    from pyqg_jax.state import Precision
    from pyqg_jax.steppers import AB3Stepper, SteppedModel

    nx, dt, steps = 64, 3600.0, 1000
    model = SteppedModel(QGModel(nx=nx, precision=Precision.DOUBLE, **EDDY), AB3Stepper(dt=dt))
    q_initial = random_eddies(nx, rms=(5e-6, 1e-6), seed=20240501)
    state = model.model.create_initial_state(jax.random.key(0)).update(q=q_initial)

    @jax.jit
    def run(stepper_state):
        def body(carry, _):
            return model.step_model(carry), None

        return jax.lax.scan(body, stepper_state, None, length=steps)[0]

    end = run(model.initialize_stepper_state(state))
    q_end = np.asarray(end.state.q)
    assert q_end.dtype == np.float64 and int(end.tc) == steps
    params = dict(nx=nx, dt=dt, **EDDY)
    # Every second point of x and y: an error anywhere shows everywhere after so many steps, and the file is small.
    save(path, params, q_initial=q_initial, **{f"q_step_{steps}_thinned": q_end[:, ::2, ::2]})


def layered(path, H, rho, U, V, seed):
    """1000 steps of pyqg's LayeredModel with distinct depths, densities and mean flows in both directions.

    pyqg 0.7.2 accepts ``V`` and computes ``Qx`` but steps without them (its kernel has neither), so the terms
    -(V dq/dy + Qx u) are added here through its own hook for parameterizations.
    """
    params = dict(nx=32, dt=3600.0, L=1e6, beta=1.5e-11, rek=5.787e-7, f=1.2e-4, g=9.81, filterfac=23.6)
    H, rho, U, V = (np.array(a) for a in (H, rho, U, V))
    wide = lambda a: a[:, None, None]

    def meridional(m):
        return -(wide(V) * m.ifft(1j * m.l * m.qh) + wide(m.Qx) * m.u)

    arrays = dict(H=H, rho=rho, U=U, V=V)
    m = pyqg_model("LayeredModel", nz=len(H), q_parameterization=meridional, **params, **arrays)
    # Nothing at the Nyquist modes, whose derivatives are zero in one code and not in the other.
    q_initial = random_eddies(params["nx"], np.geomspace(8e-6, 2e-6, len(H)), seed, peak=4.0, exact=False)
    m.q = q_initial
    advance(m, 1000)
    save(path, params, **arrays, S=m.S, Qx=m.Qx, Qy=m.Qy, q_initial=q_initial, q_step_1000_thinned=m.q[:, ::2, ::2])


def pyqg_three_layer_32(path):
    layered(path, (500.0, 900.0, 2600.0), (1025.0, 1025.6, 1026.1), (0.05, 0.02, -0.01), (0.01, -0.02, 0.005), 1)


def pyqg_four_layer_32(path):
    depths, densities = (300.0, 500.0, 1200.0, 2000.0), (1025.0, 1025.5, 1026.1, 1026.4)
    layered(path, depths, densities, (0.06, 0.03, 0.0, -0.01), (-0.01, 0.015, 0.004, 0.0), 2)


def pyqg_barotropic_64(path):
    """pyqg's barotropic reference solution: two like-signed Gaussian vortices."""
    params = dict(nx=64, L=2 * np.pi, beta=0.0, rek=0.0, rd=0.0, H=1.0, U=0.0, filterfac=23.6, dt=0.0025)
    m = pyqg_model("BTModel", **params)
    psi = sum(np.exp(-((2 * (m.x - c * np.pi / 2)) ** 2) - (2 * (m.y - np.pi)) ** 2) for c in (1.75, 2.25))
    ph = m.fft(psi[np.newaxis])
    ph /= np.sqrt(m.spec_var(m.filtr * m.wv * ph) / 2)  # to unit kinetic energy
    q_initial = m.ifft(-m.wv2 * ph)
    m.q = q_initial
    advance(m, 2000)
    psi_stale, ke_stale = m.ifft(m.ph), m._calc_ke()
    m._invert()
    psi, ke = m.ifft(m.ph), m._calc_ke()
    q_sq_sum = (m.q**2).sum()
    # What pyqg's own test expects, the last two from one step before the end.
    np.testing.assert_allclose(q_sq_sum, 89101.741238768518, rtol=1e-5)
    np.testing.assert_allclose((psi_stale**2).sum(), 1493.217664248918, rtol=1e-5)
    np.testing.assert_allclose(ke_stale, 0.9950360837282386, rtol=1e-5)
    save(
        path,
        params,
        q_initial=q_initial,
        steps_end=m.tc,
        time_end=m.t,
        q_sq_sum_end=q_sq_sum,
        psi_sum_end=psi.sum(),
        psi_sq_sum_end=(psi**2).sum(),
        ke_end=ke,
        psi_sq_sum_stale=(psi_stale**2).sum(),
        ke_stale=ke_stale,
    )


def ispec_bins(model, kr):
    """For each (l, k), the bin of ``calc_ispec``, -1 if none.

    The edges of the bins are the multiples of sqrt(2) dk, on which the points
    with k = l lie up to rounding: which bin these fall in is chance.
    """
    width = np.sqrt(model.dk**2 + model.dl**2)
    left = np.arange(0, min(np.abs(model.ll).max(), np.abs(model.kk).max()), width)
    np.testing.assert_array_equal(left + width / 2, kr)
    bins = np.full(model.wv.shape, -1, np.int8)
    for i, lo in enumerate(left):
        last = i == left.size - 1
        below = model.wv <= lo + width if last else model.wv < left[i + 1]
        bins[(model.wv >= lo) & below] = i
    return bins


def pyqg_spectra(path):
    """One developed snapshot and pyqg's diagnostics of that very snapshot.

    ``NAME_ispec`` is ``calc_ispec`` with its default averaging over rings,
    ``NAME_ispec_sum`` the same with ``averaging=False``, and ``NAME_total`` the
    sum over the full spectral plane (``spec_sum``); of the layered ones (KEspec,
    Ensspec) each has a leading layer axis. ``spectral_bin`` tells which bin of
    ``kr`` each point (l, k) of the half plane is in.
    """
    from pyqg.diagnostic_tools import calc_ispec, spec_sum

    params = dict(nx=64, dt=3600.0, **EDDY)
    m = pyqg_model("QGModel", **params)
    m.q = random_eddies(params["nx"], rms=(5e-6, 1e-6), seed=20240502)
    advance(m, 10 * 8760)
    # Round to single precision (for the size of the file) and take everything
    # from the rounded snapshot: its spectrum, its inversion, its Jacobians.
    q = m.q.astype(np.float32).astype(np.float64)
    m.q = q
    m._invert()
    m._calc_derived_fields()
    assert np.array_equal(m.q, q)

    out = dict(q=q)
    names = ["KEspec", "Ensspec", "entspec", "APEflux", "KEflux", "APEgenspec", "KEfrictionspec"]
    names += ["ENSflux", "ENSgenspec", "ENSfrictionspec"]
    for name in names:
        spectrum = m.diagnostics[name]["function"](m)
        layers = spectrum if spectrum.ndim == 3 else spectrum[np.newaxis]
        for suffix, averaging in (("ispec", True), ("ispec_sum", False)):
            pairs = [calc_ispec(m, layer, averaging=averaging) for layer in layers]
            kr = pairs[0][0]
            iso = np.array([phr for _, phr in pairs])
            out[f"{name}_{suffix}"] = iso if spectrum.ndim == 3 else iso[0]
        out[f"{name}_total"] = spec_sum(spectrum)
    for name in ("EKE", "EKEdiss", "APEgen"):
        out[name] = m.diagnostics[name]["function"](m)
    save(path, params, kr=kr, spectral_bin=ispec_bins(m, kr), **out)


MAKERS = (
    pyqg_two_layer_32,
    pyqgjax_two_layer_64,
    pyqg_barotropic_64,
    pyqg_spectra,
    pyqg_three_layer_32,
    pyqg_four_layer_32,
)


def main():
    parser = argparse.ArgumentParser(description="Write the golden reference files.")
    parser.add_argument("-o", "--out", type=Path, default=Path(__file__).resolve().parent)
    parser.add_argument("names", nargs="*", help="which files (default: all)")
    args = parser.parse_args()
    makers = {f.__name__: f for f in MAKERS}
    unknown = set(args.names) - set(makers)
    if unknown:
        parser.error(f"unknown: {sorted(unknown)}; choose from {sorted(makers)}")
    args.out.mkdir(parents=True, exist_ok=True)
    for name in args.names or makers:
        makers[name](args.out / f"{name}.npz")


if __name__ == "__main__":
    main()
