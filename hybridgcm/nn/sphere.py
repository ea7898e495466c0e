"""Networks for fields on a sphere: columns, latitude, harmonics."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float

from hybridgcm.grids import AbstractGrid, Sphere, legendre
from hybridgcm.nn.operators import AbstractOperator, AbstractSpectralOperator, Pointwise, apply, check_channels
from hybridgcm.nn.spectral import in_single, mixed_by_degree, with_zero


def check_sphere(name: str, grid: AbstractGrid):
    """Raise `TypeError` for a grid that is not a `Sphere`."""
    if not isinstance(grid, Sphere):
        raise TypeError(f"{name} is written for a Sphere; got {type(grid).__name__}")


class ColumnNetwork(eqx.Module):
    """x ← E x, then blocks x ← x + MLP(x), then D x: the same network for the column of channels at every point.

    `width` channels, `layers` linear maps in the MLP of each of `blocks` with `activation` between them; maps
    `[inputs, y, x]` to `[outputs, y, x]` of any size, and no point sees another. Weights start normal with variance
    1/channels, the last of every block a `blocks`-th of that size, so that all together add what one would; biases and
    *the last layer, D, which has none, at zero*: an untrained closure does nothing, an untrained emulator persists.
    The encode-process-decode tower of NeuralGCM is width=384, blocks=5, layers=4: Kochkov et al. (2024),
    doi:10.1038/s41586-024-07744-y. It also reads latitude: `WithLatitude(ColumnNetwork(inputs + 1, ...))`. A plain
    MLP per column is a `CNN` with kernels of one.

    Raises `ValueError` for sizes below one and for other than `inputs` channels.
    """

    first: Pointwise
    blocks: tuple[tuple[Pointwise, ...], ...]
    last: Pointwise
    activation: Callable = eqx.field(static=True)

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        key: Array,
        width: int = 64,
        blocks: int = 4,
        layers: int = 2,
        activation: Callable = jax.nn.gelu,
    ):
        if min(inputs, outputs, width, blocks, layers) < 1:
            raise ValueError(
                f"ColumnNetwork needs positive sizes; got {inputs=}, {outputs=}, {width=}, {blocks=}, {layers=}"
            )
        keys = iter(jr.split(key, 2 + blocks * layers))
        resized = lambda point, size: eqx.tree_at(lambda p: p.weight, point, size * point.weight)
        self.first = Pointwise(inputs, width, key=next(keys))
        towers = [[Pointwise(width, width, key=next(keys)) for _ in range(layers)] for _ in range(blocks)]
        self.blocks = tuple((*tower[:-1], resized(tower[-1], 1 / blocks)) for tower in towers)
        self.last = resized(Pointwise(width, outputs, key=next(keys), bias=False), 0.0)
        self.activation = activation

    def __call__(self, x: Float[Array, "channel y x"]) -> Float[Array, "out y x"]:
        channels = self.first.weight.shape[1]
        if x.ndim != 3 or len(x) != channels:
            raise ValueError(
                f"this ColumnNetwork maps [{channels}, y, x]; got {x.shape}; for a batch use jax.vmap(net)"
            )
        x = self.first(x)
        for start, *others in self.blocks:
            y = start(x)
            for layer in others:
                y = layer(self.activation(y))
            x = x + y
        return self.last(x)


class WithLatitude(AbstractOperator):
    """y = net(x, sin φ): one channel more, so that a network can tell the tropics from the poles.

    sin φ = f/2Ω is smooth on the whole sphere, which cos φ is not at a pole, and every smooth function of latitude is
    one of it. What commuted with rotations about the axis still does, with others no longer. `net` takes one channel
    more than x has. Raises `TypeError` for a grid that is not a `Sphere`.
    """

    net: Callable

    def __call__(self, x, grid):
        check_sphere("WithLatitude", grid)
        sine = np.sin(np.radians(grid.latitude))[:, None]
        position = jnp.asarray(np.broadcast_to(sine, (1, *grid.shape)), x.dtype)
        return apply(self.net, jnp.concatenate([x, position]), grid)


class ScaleNetwork(AbstractSpectralOperator):
    """y_o(l, m) = Σ_c (A[o, c, l] + i m B[o, c, l]) x_c(l, m) + S_o(l, m) for 1 <= l <= `degrees`, zero elsewhere.

    A number for every scale, and for its drift along latitude circles: the Laplacian, its powers and inverses are
    cases of A, ∂/∂λ and the planetary term of vorticity cases of B. `weights` are A and B `[2, out, channel, l − 1]`,
    `steady` holds S by degree, in a degree by order, real part before imaginary part, m = 0 without the latter:
    (L + 1)² − 1 real numbers per channel; no complex leaves, whose gradients point the wrong way. No mean comes out.
    All of it starts at zero: an untrained closure does nothing, an untrained emulator persists.

    Linear; A commutes with every rotation, B with those about the axis, S with none but where only its m = 0 is not
    zero. Coefficients mean the same at every truncation, and so do the weights. The part in the space of harmonics of
    Gelbrecht and others' PseudoSpectralNet (github.com/maximilian-gelbrecht/NeuralQG3), whose features are x, ∂x/∂λ,
    ∇²x and steady fields; for its part on the grid add any other network: `OperatorSum((net, ScaleNetwork(...)))`.

    Raises `ValueError` for sizes below one, a grid that does not resolve `degrees`, and other channels; `TypeError`
    for a grid that is not a `Sphere`.
    """

    weights: Float[Array, "2 out channel degree"]
    steady: Float[Array, "out coefficient"]

    def __init__(self, inputs: int, outputs: int, degrees: int):
        if min(inputs, outputs, degrees) < 1:
            raise ValueError(f"ScaleNetwork needs positive sizes; got {inputs=}, {outputs=}, {degrees=}")
        self.weights = jnp.zeros((2, outputs, inputs, degrees))
        self.steady = jnp.zeros((outputs, (degrees + 1) ** 2 - 1))

    @in_single
    def __call__(self, x, grid):
        check_sphere("ScaleNetwork", grid)
        check_channels(self, x, self.weights.shape[2])
        return grid.to_grid(self.spectral(grid.to_spectral(x), grid))

    def spectral(self, x_hat, grid):
        check_sphere("ScaleNetwork", grid)
        _, out, channels, degrees = self.weights.shape
        if len(x_hat) != channels:
            raise ValueError(f"this ScaleNetwork maps {channels} channels; got {len(x_hat)}")
        if degrees > grid.truncation:
            raise ValueError(f"weights reach degree {degrees}, the grid resolves {grid.truncation}: take fewer degrees")
        here, there, real, imaginary = _places(grid, degrees)
        y = mixed_by_degree(self.weights, x_hat, here, np.arange(degrees + 1))
        y = y + with_zero(self.steady)[:, np.stack([real, imaginary])].transpose(1, 0, 2, 3)
        y = with_zero(y.reshape(2, out, -1))[..., there]
        return jax.lax.complex(y[0], y[1])


def _places(grid: Sphere, degrees: int) -> tuple[np.ndarray, ...]:
    """Where a spectral array holds `[degree, order]`, the inverse of that, and where `steady` holds the two parts."""
    l, m = np.arange(1, degrees + 1)[:, None], np.arange(degrees + 1)
    here, there = legendre.by_degree(grid.truncation, 1, degrees)
    nowhere = (degrees + 1) ** 2 - 1
    real = np.where(m <= l, l**2 - 1 + np.maximum(2 * m - 1, 0), nowhere)
    imaginary = np.where((m <= l) & (m > 0), l**2 - 1 + 2 * m, nowhere)
    return here, there, real, imaginary
