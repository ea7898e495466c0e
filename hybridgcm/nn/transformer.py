"""A small transformer: every patch of a field looks at all others."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float


class Transformer(eqx.Module):
    """Patches of `patch`² points as tokens, `layers` of attention over all of them and an MLP each, patches again.

    x ← x + Attention(norm x), x ← x + MLP(norm x), MLP of twice the width; normalised before each and at the end
    (Vaswani et al. 2017, arXiv:1706.03762; Dosovitskiy et al. 2021, arXiv:2010.11929). Where a patch lies is added as
    sines and cosines of its place with `waves` periods along each axis, which fit doubly periodic domains of any size.
    Maps `[inputs, y, x]` to `[outputs, y, x]`; sides are multiples of `patch`; cost grows with the square of the number
    of patches. Commutes with no shift. The last layer starts at zero.

    Raises `ValueError` for a width that the heads do not divide, sides that are no multiple of the patch, and other
    than `inputs` channels.
    """

    wraps: ClassVar[bool] = True
    first: eqx.nn.Linear
    place: eqx.nn.Linear
    attentions: tuple[eqx.nn.MultiheadAttention, ...]
    mlps: tuple[eqx.nn.MLP, ...]
    norms: tuple[eqx.nn.LayerNorm, ...]
    last: eqx.nn.Linear
    patch: int = eqx.field(static=True)
    waves: int = eqx.field(static=True)

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        key: Array,
        patch: int = 4,
        width: int = 64,
        layers: int = 4,
        heads: int = 4,
        waves: int = 4,
    ):
        if min(inputs, outputs, patch, width, layers, heads, waves) < 1 or width % heads:
            raise ValueError(
                f"sizes are positive and heads divide the width; got {inputs=}, {outputs=}, {patch=}, {width=}, "
                f"{layers=}, {heads=}, {waves=}"
            )
        keys = jr.split(key, 3 + 2 * layers)
        self.first = eqx.nn.Linear(inputs * patch**2, width, key=keys[0])
        self.place = eqx.nn.Linear(4 * waves, width, use_bias=False, key=keys[1])
        self.attentions = tuple(eqx.nn.MultiheadAttention(heads, width, key=k) for k in keys[3 : 3 + layers])
        self.mlps = tuple(eqx.nn.MLP(width, width, 2 * width, 1, jax.nn.gelu, key=k) for k in keys[3 + layers :])
        self.norms = tuple(eqx.nn.LayerNorm(width) for _ in range(2 * layers + 1))
        last = eqx.nn.Linear(width, outputs * patch**2, key=keys[2])
        self.last = eqx.tree_at(lambda n: (n.weight, n.bias), last, replace_fn=lambda a: 0 * a)
        self.patch, self.waves = patch, waves

    def __call__(self, x: Float[Array, "channel y x"]) -> Float[Array, "out y x"]:
        channels = self.first.in_features // self.patch**2
        if x.ndim != 3 or len(x) != channels or x.shape[1] % self.patch or x.shape[2] % self.patch:
            raise ValueError(
                f"this Transformer maps [{channels}, y, x] with sides that are multiples of {self.patch}; got "
                f"{x.shape}; for a batch use jax.vmap"
            )
        ny, nx = (n // self.patch for n in x.shape[1:])
        tokens = x.reshape(channels, ny, self.patch, nx, self.patch).transpose(1, 3, 0, 2, 4).reshape(ny * nx, -1)
        tokens = jax.vmap(self.first)(tokens) + jax.vmap(self.place)(_places(ny, nx, self.waves, x.dtype))
        norms = iter(self.norms)
        for attention, mlp in zip(self.attentions, self.mlps, strict=True):
            seen = jax.vmap(next(norms))(tokens)
            tokens = tokens + attention(seen, seen, seen)
            tokens = tokens + jax.vmap(mlp)(jax.vmap(next(norms))(tokens))
        made = jax.vmap(self.last)(jax.vmap(next(norms))(tokens))
        made = made.reshape(ny, nx, -1, self.patch, self.patch).transpose(2, 0, 3, 1, 4)
        return made.reshape(-1, *x.shape[1:])


def _places(ny: int, nx: int, waves: int, dtype) -> Array:
    """`[token, 4·waves]`: sines and cosines of 2πk(place), k = 1 ... waves, along each axis."""
    angle = lambda n: 2 * np.pi * np.outer((np.arange(n) + 0.5) / n, np.arange(1, waves + 1))
    y, x = np.broadcast_arrays(angle(ny)[:, None], angle(nx)[None])
    return jnp.asarray(np.concatenate([f(a) for a in (y, x) for f in (np.sin, np.cos)], -1).reshape(ny * nx, -1), dtype)
