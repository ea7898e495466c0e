"""AR(1) noise alone, fitted to the subgrid forcing."""

import jax
import jax.numpy as jnp
import numpy as np

from hybridgcm import closures

SEEDS = False


def closure(problem, seed, folder):
    """Noise with the rms of S per layer, and the length and time of S of both layers together: nothing to choose.

    ℓ² = 2⟨S²⟩/⟨|∇S|²⟩, as for a correlation exp(−d²/2ℓ²); τ = −T/ln ρ, ρ the correlation of S over the time T of a
    frame. What closures that know the flow have to be better than.
    """
    grid, T = problem.model().equation.grid, problem.system.flow.frame
    pairs = slice(None, -1, 50), slice(1, None, 50)
    now, later = (np.concatenate([part["S"][which] for part in problem.data.train]) for which in pairs)
    rms = now.std((0, 2, 3), dtype=float)
    now, later = now / rms[:, None, None], later / rms[:, None, None]
    hat = jax.jit(lambda a: grid.to_spectral(a))(jnp.asarray(now, grid.dtype))
    slope = float(np.mean(grid.inner(hat, -grid.laplacian(hat)), dtype=float))
    correlation = np.mean(now * later) / np.mean(now**2)
    return closures.AR1(
        rms, scale=(2 / slope) ** 0.5, tau=-T / np.log(np.clip(correlation, 0.01, 0.99)), dt=problem.system.dt
    )
