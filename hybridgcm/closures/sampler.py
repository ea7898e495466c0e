"""A network that draws noise, as a closure."""

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr

from hybridgcm.closures.base import AbstractClosure
from hybridgcm.closures.network import NetworkClosure
from hybridgcm.nn.samplers import sample


class Sampler(AbstractClosure):
    """forcing = s_out · net(fields / s_in, z) − mean, z white noise in space: `inner` with a network that draws.

    `inner`: a `NetworkClosure`, whose names, scales and removal of the area mean hold here, with a network that reads
    `noise` channels z, standard normal at every point, beside its fields (`nn.sample`): an `nn.AbstractSampler`, such
    as `nn.Gaussian` or `nn.FlowMatching`, or any network with that many more input channels, such as a GAN's generator.

    In time z is an AR(1) process, z ← a z + b ξ with a = 1 − 1/n, b = √((1/n)(2 − 1/n)), n = `decorrelation` in steps
    of the model: variance one, and correlation aᵏ over k steps. n = 1 is fresh noise at every step, which Perezhogin
    et al. (2023), doi:10.1029/2023MS003681, found best for eddying flow; `Every(Sampler(...), n)` holds a draw over n
    steps. The first call draws z from its stationary distribution. Memory: `None` for n = 1, else z.

    Noise is white on the grid that the network was trained for; on another its scale in metres is another one. Not for
    use inside `Equivariant`, which averages eight draws. Fit with `where=lambda model: model.closure.inner.net`.
    Raises `ValueError` for less than one noise channel and n below one.
    """

    inner: NetworkClosure
    noise: int = eqx.field(static=True)
    decorrelation: float = eqx.field(static=True, default=1.0)

    def __check_init__(self):
        if self.noise < 1 or not self.decorrelation >= 1:
            raise ValueError(
                "Sampler needs at least one noise channel and a decorrelation of at least one step; "
                f"got noise={self.noise}, decorrelation={self.decorrelation}"
            )

    def init(self, fields, grid):
        self.inner.init(fields, grid)
        if self.decorrelation == 1:
            return None
        dtype = next(iter(fields.values())).dtype
        return {"z": jnp.zeros((self.noise, *grid.shape), dtype), "drawn": jnp.array(False)}

    def __call__(self, fields, grid, memory, key):
        z = jr.normal(key, (self.noise, *grid.shape), next(iter(fields.values())).dtype)
        if memory is not None:
            keep = 1 - 1 / self.decorrelation
            z = jnp.where(memory["drawn"], keep * memory["z"] + (1 - keep**2) ** 0.5 * z, z)
            memory = {"z": z, "drawn": jnp.ones_like(memory["drawn"])}
        net = self.inner.net
        drawn = eqx.tree_at(lambda inner: inner.net, self.inner, lambda x: sample(net, x, z, grid))
        return drawn(fields, grid, None, key)[0], memory
