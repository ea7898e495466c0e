"""Networks that turn white noise into draws from a distribution: mean and variance, generators, flow matching."""

import abc
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from hybridgcm.grids import AbstractGrid
from hybridgcm.nn.operators import apply


class AbstractSampler(eqx.Module):
    """A network that is told its noise from its fields: `y = sampler(x, z, grid)`. See `sample`."""

    @abc.abstractmethod
    def __call__(
        self, x: Float[Array, "channel y x"], z: Float[Array, "noise y x"], grid: AbstractGrid | None
    ) -> Float[Array, "out y x"]:
        """A draw given the fields x, from z: independent standard normal numbers."""


def sample(net: Callable, x: Float[Array, "channel y x"], z: Float[Array, "noise y x"], grid: AbstractGrid | None):
    """net(x, z, grid) for an `AbstractSampler`; for any other network the noise channels follow those of the fields.

    The latter is the generator of a GAN and the decoder of a VAE: a `CNN` with as many more input channels as there
    is noise.
    """
    if isinstance(net, AbstractSampler):
        return net(x, z, grid)
    return apply(net, jnp.concatenate([x, z]), grid)


class Gaussian(AbstractSampler):
    """y = m(x) + σ(x) z, σ = softplus(d(x)): mean and standard deviation of every channel and point, noise white.

    `mean`, `deviation`: networks of the same channels, m and d. As many noise channels as outputs. Dimensionless.
    Guillaumin and Zanna (2021), doi:10.1029/2021MS002534, with σ² = softplus there. Raises `ValueError` for another
    number of noise channels.
    """

    mean: Callable
    deviation: Callable

    def __call__(self, x, z, grid=None):
        m, sigma = self.moments(x, grid)
        if not m.shape == sigma.shape == z.shape:
            raise ValueError(
                f"mean {m.shape}, deviation {sigma.shape} and noise {z.shape} of a Gaussian need one shape; "
                "give the noise as many channels as the networks have outputs"
            )
        return m + sigma * z

    def moments(self, x: Float[Array, "channel y x"], grid: AbstractGrid | None = None) -> tuple[Array, Array]:
        """(m, σ), `[out, y, x]` each: what a likelihood is made of."""
        return apply(self.mean, x, grid), jax.nn.softplus(apply(self.deviation, x, grid))


class FlowMatching(AbstractSampler):
    """y = s(1) of ds/dt = v(s, t, x), s(0) = z, by `steps` steps of Heun: noise carried to the data by a velocity.

    `net`: v, any network; its input channels are x, then s, then t ∈ [0, 1] as a constant field, its outputs those of
    s. As many noise channels as outputs. Where data y are independent of z given x, least squares of v against y − z
    at s = (1 − t) z + t y gives draws of the distribution of y given x as the step goes to zero (second order). Twice
    `steps` evaluations. Lipman et al. (2023), arXiv:2210.02747, optimal transport path with σ_min = 0.
    Raises `ValueError` for less than one step and a network whose outputs are not as many as the noise.
    """

    net: Callable
    steps: int = eqx.field(static=True)

    def __check_init__(self):
        if self.steps < 1:
            raise ValueError(f"FlowMatching needs a whole number of steps, at least 1; got steps={self.steps}")

    def __call__(self, x, z, grid=None):
        def heun(s, t):
            first = self.velocity(x, s, t, grid)
            return s + (first + self.velocity(x, s + first / self.steps, t + 1 / self.steps, grid)) / (2 * self.steps)

        times = jnp.arange(self.steps, dtype=z.dtype) / self.steps
        return jax.lax.scan(lambda s, t: (heun(s, t), None), z, times)[0]

    def velocity(self, x, s, t, grid: AbstractGrid | None = None) -> Float[Array, "noise y x"]:
        """v(s, t, x), `[noise, y, x]`."""
        v = apply(self.net, jnp.concatenate([x, s, jnp.full_like(s[:1], t)]), grid)
        if v.shape != s.shape:
            raise ValueError(f"the velocity of noise {s.shape} has shape {v.shape}; give both as many channels")
        return v
