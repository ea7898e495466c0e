"""Closures whose formula was found by a search over expressions."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from hybridgcm._typing import param
from hybridgcm.closures.base import AbstractClosure
from hybridgcm.grids.base import scale

ROSS_WEIGHTS = (
    (1.4077349573e7, 5.1964602899e6),
    (1.9300721350e15, 7.0313511508e14),
    (2.3311494533e22, 1.130130769e11),
    (1.182802443e9, 8.65426519625e8),
    (1.1410567621e17, 7.4965565479e16),
    (-6.7029178552e10, -8.3009231561e11),
    (8.9901990193e10, 9.7901394053e11),
)
"""w₁ to w₇ of the (upper, lower) layer in m², m⁴, m⁶, m⁴ s⁻¹, m⁶ s⁻¹, m² s, m² s. The lower w₃ is zero in effect."""


class RossSymbolic(AbstractClosure):
    """dq = (w₁∇² + w₂∇⁴ + w₃∇⁶) A q + (w₄∇⁴ + w₅∇⁶) q + A A (w₆ ∂x ∇²v + w₇ ∂y ∇²u), A a = ∇·((u + U) a).

    The hybrid of genetic programming and linear regression of Ross et al. (2023), doi:10.1029/2022MS003258, for two
    layers, with the weights that they published (`ROSS_WEIGHTS`; m2lines/pyqg_parameterization_benchmarks,
    notebooks/online_metrics.ipynb). *Not* scale aware: they hold for Δ = 15.6 km (64² on 1000 km), data of operator
    1, the *eddy* configuration and, since the first three terms mostly undo that filter near the grid scale, a grid
    without dealiasing. One snapshot of 256² there gives R² of .75 and .65 per layer, but .32 and .54 with A in
    advective form, where only the aliasing differs; .24 and −.3 for operator 2, −46 and −61 at 96².
    Conserves the mean of q.
    Reads q (s⁻¹), u, v (m s⁻¹) `[layer, y, x]`; returns q_hat (s⁻²).

    Trainable: `amplitudes` `[term, layer]`, multiples of the published weights (numbers near 1, which an optimiser
    can step), and `U`, the mean flow per layer (m s⁻¹; pass equation.U), which advects with u.
    Raises `ValueError` for other than two layers. Adds 11 transforms of a field per step.
    """

    U: Float[Array, " layer"] = param(default=(0.025, 0.0))
    amplitudes: Float[Array, "term layer"] = param(default=((1.0, 1.0),) * 7)

    def init(self, fields, grid):
        layers = fields["q"].shape[0]
        if layers != 2 or self.U.shape != (2,) or self.amplitudes.shape != (7, 2):
            raise ValueError(
                f"RossSymbolic has weights of two layers, U (2,) and amplitudes (7, 2); got {layers} layers, "
                f"U {self.U.shape}, amplitudes {self.amplitudes.shape}"
            )
        return None

    def __call__(self, fields, grid, memory, key):
        # Weights times powers of the eigenvalue by Horner's rule: ∇⁶ of a tendency alone is 1e-34, near the smallest
        # number of single precision, and the weights reach 1e22.
        w = (self.amplitudes * jnp.asarray(ROSS_WEIGHTS, self.amplitudes.dtype))[:, :, None, None]
        eigenvalues, v, u = grid.eigenvalues, fields["v"], fields["u"] + self.U[:, None, None]

        def advected(a):
            return grid.divergence(u * a, v * a)

        strain = grid.to_grid(grid.laplacian(grid.divergence(w[5] * v, w[6] * fields["u"])))
        twice = advected(grid.to_grid(advected(strain)))
        mixing = scale(eigenvalues * (w[0] + eigenvalues * (w[1] + eigenvalues * w[2])), advected(fields["q"]))
        damping = scale(eigenvalues**2 * (w[3] + eigenvalues * w[4]), grid.to_spectral(fields["q"]))
        return {"q_hat": mixing + damping + twice}, memory
