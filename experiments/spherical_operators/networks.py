"""The networks: fields and latitude in, the change of the fields out."""

import jax.numpy as jnp
import jax.random as jr

import hybridgcm as hg
from hybridgcm import nn

TITLES = {
    "sfno": "SFNO",
    "local": "SFNO with local convolutions",
    "slopes": "SFNO, given winds and slopes",
}


class WithSlopes(nn.AbstractOperator):
    """y = net(φ, ζ, δ, u, v and the gradients of the three, sin φ): the factors of Jacobians such as u·∇ζ, ready made.

    Convolutions by degree make but the eastward derivative. Winds and slopes are vectors: not continuous at a pole.
    """

    net: nn.WithLatitude

    def __call__(self, x, grid):
        x_hat = grid.to_spectral(x)
        psi, chi = grid.inverse_laplacian(x_hat[1]), grid.inverse_laplacian(x_hat[2])
        winds = jnp.stack(grid.synthesise(psi, potential=chi)) * (5 / grid.radius)  # of O(1), as x is
        slopes = jnp.concatenate(grid.gradient(x_hat)) * (grid.radius / 7)
        return self.net(jnp.concatenate([x, winds, slopes]), grid)


def hidden(config, recipe: str) -> int:
    """Channels of a recipe."""
    return config.local_hidden if recipe == "local" else config.hidden


def network(config, recipe: str, key):
    """Three fields and sin φ in, three out: without latitude the network would commute with every rotation."""
    sizes = {"hidden": hidden(config, recipe), "layers": config.layers, "key": key}
    if recipe == "local":
        return nn.WithLatitude(nn.local_sfno(4, 3, degrees=config.truncation, cutoff=config.cutoff, **sizes))
    if recipe == "slopes":
        return WithSlopes(nn.WithLatitude(nn.FNO(12, 3, modes=config.truncation, **sizes)))
    return nn.WithLatitude(nn.FNO(4, 3, modes=config.truncation, **sizes))


def emulator(config, recipe: str, scales, key=None) -> hg.Emulator:
    """The network in the place of the solver: a step is one lead. `scales`: of the fields, and of their changes."""
    net = network(config, recipe, jr.key(0) if key is None else key)
    fields, change = scales
    return hg.Emulator(net, tuple(fields), fields, change=change, dt=config.lead, grid=hg.Sphere(config.truncation))
