"""Writes closures_32.npz: forcings of pyqg's closures on one snapshot. Run once, with pyqg installed.

Nyquist modes are removed from the forcings: pyqg differentiates them, the torus sets their derivative to zero.
"""

import platform
from pathlib import Path

import numpy as np
import pyqg

n, length = 32, 1e6
model = pyqg.QGModel(nx=n, L=length, log_level=0)
rng = np.random.default_rng(0)
shell = np.hypot(*np.meshgrid(np.arange(n // 2 + 1), np.fft.fftfreq(n, 1 / n)))
spectrum = np.where((shell > 0) & (shell < 12), 1 / (1 + (shell / 4) ** 2), 0)
noise = rng.standard_normal((2, n, n)) * np.array([8e-6, 1e-6])[:, None, None]
q = np.fft.irfft2(np.fft.rfft2(noise) * spectrum)
model.set_q1q2(*q)
model._invert()

keep = (np.arange(n // 2 + 1) < n // 2) & (np.arange(n)[:, None] != n // 2)
clean = lambda forcing: np.fft.irfft2(np.fft.rfft2(np.asarray(forcing)) * keep)
closures = pyqg.parameterizations
np.savez_compressed(
    Path(__file__).parent / "closures_32.npz",
    q=q,
    smagorinsky=clean(closures.Smagorinsky(0.1)(model)),
    zanna_bolton=clean(closures.ZannaBolton2020()(model)),
    backscatter=clean(closures.BackscatterBiharmonic(0.08, 0.99)(model)),
    versions=f"pyqg {pyqg.__version__}, numpy {np.__version__}, python {platform.python_version()}",
)
