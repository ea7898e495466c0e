"""The convolutional network of Ross et al. (2023), as it was published."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from hybridgcm.nn.conv import periodic_convolution


class FullyCNN(eqx.Module):
    """x ← relu(W ∗ x + b) layer after layer, then z = a x + c per channel and y = W_last ∗ z: `[in, y, x]` to
    `[out, y, x]`.

    Ross et al. (2023), doi:10.1029/2022MS003258, normalise the batch after every relu. In use that is an affine map,
    which is part of the next layer's weights here, exactly where that layer is periodic. Their last one is not: beyond
    the domain z is zero, which is seen in two rows and columns at its edges and kept here, as the weights have learnt
    it. For a network of your own take `CNN`, which knows no edge. The last layer has no bias: closures remove the mean.
    The benchmark's `published_network.py` reads the published weights. Raises `ValueError` for other channels.
    """

    wraps: ClassVar[bool] = True
    weights: tuple[Float[Array, "_ _ _ _"], ...]  # `[out, channel, k, k]`
    biases: tuple[Float[Array, "_"], ...]  # `[out]` of all layers but the last
    scale: Float[Array, " channel"]
    shift: Float[Array, " channel"]

    def __call__(self, x: Float[Array, "channel y x"]) -> Float[Array, "out y x"]:
        if x.ndim != 3 or len(x) != self.weights[0].shape[1]:
            raise ValueError(f"this FullyCNN maps [{self.weights[0].shape[1]}, y, x]; got {x.shape}; use jax.vmap")
        for weight, bias in zip(self.weights[:-1], self.biases, strict=True):
            x = jax.nn.relu(periodic_convolution(x, weight) + bias[:, None, None])
        z = x * self.scale[:, None, None] + self.shift[:, None, None]
        edge = self.weights[-1].shape[-1] // 2
        z = jnp.pad(z, ((0, 0), (edge, edge), (edge, edge)))
        return periodic_convolution(z, self.weights[-1])[:, edge:-edge, edge:-edge]


class Concatenated(eqx.Module):
    """y = [net(x) for every net]: networks beside each other that all see x, say one for each layer of the output."""

    wraps: ClassVar[bool] = True
    nets: tuple

    def __call__(self, x: Float[Array, "channel y x"]) -> Float[Array, "out y x"]:
        return jnp.concatenate([net(x) for net in self.nets])
