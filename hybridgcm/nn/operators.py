"""Networks that mix modes between the grid's own transforms, and so know no resolution."""

import abc
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Complex, Float

from hybridgcm._typing import fixed
from hybridgcm.grids import AbstractGrid, Sphere, legendre
from hybridgcm.nn.spectral import check_modes, in_single, mixed_by_degree, per_channel, spectral_convolution, with_zero


class AbstractOperator(eqx.Module):
    """A network that needs the grid: `y = operator(x, grid)`, `[channel, *points]` in and out. See `apply`."""

    @abc.abstractmethod
    def __call__(self, x: Float[Array, "channel *points"], grid: AbstractGrid | None) -> Float[Array, "out *points"]:
        """Fields on the points of `grid` from fields there."""


class AbstractSpectralOperator(AbstractOperator):
    """An operator between one transform and its inverse, y = to_grid(spectral(to_spectral(x))), that makes no mean.

    A `NetworkClosure` of prognostics hands its coefficients to the equation: a transform less each way.
    """

    @abc.abstractmethod
    def spectral(self, x_hat: Complex[Array, "channel l k"], grid: AbstractGrid) -> Complex[Array, "out l k"]:
        """Coefficients from coefficients; that of the mean is zero."""


def apply(net: Callable, x: Float[Array, "channel *points"], grid: AbstractGrid | None) -> Float[Array, "..."]:
    """net(x, grid) for an `AbstractOperator`, net(x) for any other network: how closures and emulators call theirs.

    Raises `ValueError` for an operator without a grid, and for a network that `wraps` around both axes on a sphere.
    """
    if isinstance(grid, Sphere) and getattr(net, "wraps", False):
        raise ValueError(
            f"{type(net).__name__} goes around both axes and would join the poles of a sphere; take nn.PolarCNN, "
            "nn.SphericalUNet, nn.local_sfno, or nn.FNO with one number for modes"
        )
    if not isinstance(net, AbstractOperator):
        return net(x)
    if grid is None:
        raise ValueError(f"{type(net).__name__} works between the transforms of a grid; pass grid=")
    return net(x, grid)


def without_grid(net: Callable, x: Float[Array, "channel *points"]) -> Float[Array, "..."]:
    """net(x): an `AbstractOperator` takes the points for one period."""
    return net(x, None) if isinstance(net, AbstractOperator) else net(x)


class Beside(AbstractOperator):
    """y = net([x, fields], grid): a network that is also told what its place is like, say land and orography.

    x and `fields` are `[channel, *points]` of one grid; `net` takes the channels of both, x first. `fields`, in units
    in which they are about one, are not trained by `fit`. For another grid put
    the same `net` beside that grid's fields.
    """

    net: Callable
    fields: Float[Array, "channel *points"] = fixed()

    def __call__(self, x, grid):
        return apply(self.net, jnp.concatenate([x, self.fields.astype(x.dtype)]), grid)


class Anomalies(AbstractOperator):
    """y = net((x − mean)/spread, grid): a network that sees how far fields are from what is usual at every place.

    Where most of a field stands still, as the jets of a planet do, weather is a small part of it, and what draws it
    back to the usual a smaller one of its changes. `mean` `[channel, *points]` and `spread` `[channel]`, in the units
    of x, are measured (`from_data`) and not trained by `fit`.
    """

    net: Callable
    mean: Float[Array, "channel *points"] = fixed()
    spread: Float[Array, "channel"] = fixed()

    @classmethod
    def from_data(cls, net: Callable, x):
        """Mean over samples, and standard deviation over samples and points, of x `[sample, channel, *points]`.

        Raises `ValueError` for a channel without anomalies.
        """
        x = np.asarray(x, float)
        mean = x.mean(0)
        spread = np.sqrt(np.mean((x - mean) ** 2, axis=(0, *range(2, x.ndim))))
        if not (spread > 0).all():
            raise ValueError(f"channels {np.flatnonzero(~(spread > 0)).tolist()} of {len(spread)} have no anomalies")
        return cls(net, jnp.asarray(mean), jnp.asarray(spread))

    def __call__(self, x, grid):
        each = (slice(None), *(None,) * (x.ndim - 1))
        return apply(self.net, (x - self.mean.astype(x.dtype)) / self.spread.astype(x.dtype)[each], grid)


class SpectralConvolution(AbstractOperator):
    """y_o(k, l) = Σ_c W[o, c, l, k] x_c(k, l) on the lowest modes, zero on all others, plus a bias per channel.

    `modes` (n_y, n_x): rows −⌊n_y/2⌋ to ⌈n_y/2⌉ − 1 and columns 0 to ⌊n_x/2⌋ carry weights, in units of the domain's
    lowest wavenumbers. Odd numbers are symmetric; an even n_y has its outermost row on the negative side only, as
    neuraloperator lays it out, and so does not commute with mirrors. On column 0, which holds both signs, the result
    is made Hermitian, W(l) and W(−l)* averaged: it is real whatever the transform does with an inconsistent input.
    `weights[0]` and `weights[1]` are real and imaginary parts: gradients of complex arrays point the wrong way.
    Coefficients mean the same at every resolution, and so do the weights. With `grid=None` the points are those of any
    rectangle, taken as one period whatever the fields do at its ends: for bounded domains, see `Bounded`.
    `modes` of one number, (n_x,), are of a line `[channel, x]`, of three, (n_z, n_y, n_x), of a box; then `grid=None`.
    Li et al. (2021), arXiv:2010.08895. Raises `TypeError` for a grid that is not a `Torus`, `ValueError` for one that
    does not resolve the modes, for other than one to three modes and for points along other than so many axes.
    """

    weights: Float[Array, "2 out channel *modes"]
    bias: Float[Array, " out"]
    modes: tuple[int, ...] = eqx.field(static=True)

    def __init__(self, channels: int, out: int, modes: tuple[int, ...], *, key: Array):
        self.modes = check_modes(modes)
        shape = (2, out, channels, *self.modes[:-1], self.modes[-1] // 2 + 1)
        self.weights = jr.normal(key, shape) / np.sqrt(channels + out)  # |W|² has mean 2/(channels + out)
        self.bias = jnp.zeros(out)

    def __call__(self, x, grid):
        return spectral_convolution(self.weights, self.bias, self.modes, x, grid)


class ZonalConvolution(AbstractOperator):
    """y_o(l, m) = Σ_c (A[o, c, l] + i m/l B[o, c, l]) x_c(l, m) for degrees l <= `degrees`, zero above, plus a bias.

    On a sphere; `weights` are A and B, `[2, out, channel, degree]`: real, as gradients of complex arrays point the
    wrong way, and the same at every truncation. A is the convolution with round kernels of Driscoll and Healy (1994),
    doi:10.1006/aama.1994.1008: it commutes with every rotation and mirror. B, a derivative along circles of latitude,
    commutes with rotations about the axis: without it an SFNO could carry nothing east, as it would as soon carry it
    west. The complex weights of Bonev et al. (2023), arXiv:2306.03838 (SFNO), are as many and have no factor m/l. An
    emulator of QG3 at T10 that was trained for 2,000 steps erred after six hours by .65 of the change with A alone, by
    .46 with complex weights, by .45 so. Raises `TypeError` for a grid that is not a `Sphere`, `ValueError` for one that
    does not resolve the degrees.
    """

    weights: Float[Array, "2 out channel degree"]
    bias: Float[Array, " out"]

    def __init__(self, channels: int, out: int, degrees: int, *, key: Array):
        if degrees < 0:
            raise ValueError(f"degrees is the largest total degree, zero or more; got {degrees}")
        self.weights = jr.normal(key, (2, out, channels, degrees + 1)) / np.sqrt(channels + out)
        self.bias = jnp.zeros(out)

    @in_single
    def __call__(self, x, grid):
        degrees = self.weights.shape[-1] - 1
        if not isinstance(grid, Sphere):
            raise TypeError(f"a zonal convolution is written for a Sphere; got {type(grid).__name__}")
        if degrees > grid.truncation:
            raise ValueError(f"weights reach degree {degrees}, the grid resolves {grid.truncation}: take fewer degrees")
        here, there = legendre.by_degree(grid.truncation, 0, degrees)
        order = np.arange(degrees + 1)
        share = order / np.maximum(order, 1)[:, None]  # m/l
        y = with_zero(mixed_by_degree(self.weights, grid.to_spectral(x), here, share).reshape(2, len(self.bias), -1))
        y = y[..., there]
        return grid.to_grid(jax.lax.complex(y[0], y[1])) + self.bias[:, None, None]


class Pointwise(eqx.Module):
    """y_o = Σ_c W[o, c] x_c (+ b_o) at every point. Weights start normal with variance 1/channels, biases at zero."""

    weight: Float[Array, "out channel"]
    bias: Float[Array, " out"] | None

    def __init__(self, channels: int, out: int, *, key: Array, bias: bool = True):
        self.weight = jr.normal(key, (out, channels)) / np.sqrt(channels)
        self.bias = jnp.zeros(out) if bias else None

    def __call__(self, x: Float[Array, "channel *points"]) -> Float[Array, "out *points"]:
        y = jnp.matmul(self.weight, x.reshape(len(x), -1), precision="highest").reshape(-1, *x.shape[1:])
        return y if self.bias is None else y + per_channel(self.bias, x)


class PlaceNetwork(AbstractOperator):
    """y_o(x) = Σ_c W[o, c](x) x_c(x): a matrix for every place, `[out, channel, y, x]`. Starts at zero.

    Friction that differs between land and sea, or a Coriolis force, is one of the winds: a `NetworkClosure` of it from
    `("u", "v")` to the same. Linear and local; weights belong to their grid. With `ScaleNetwork`, a matrix for every
    scale, it spans the linear physics of layers on a sphere. Raises `ValueError` for sizes below one and other fields.
    """

    weights: Float[Array, "out channel y x"]

    def __init__(self, inputs: int, outputs: int, shape: tuple[int, int]):
        if min(inputs, outputs, *shape) < 1:
            raise ValueError(f"PlaceNetwork needs positive sizes; got {inputs=}, {outputs=}, {shape=}")
        self.weights = jnp.zeros((outputs, inputs, *shape))

    def __call__(self, x, grid):
        if x.shape != self.weights.shape[1:]:
            raise ValueError(f"this PlaceNetwork maps {self.weights.shape[1:]} [channel, y, x]; got {x.shape}")
        # Written out: a sum over an axis took 15 to 100 times as long on CPUs, its gradient ten times.
        fields, rows = jnp.unstack(x), [jnp.unstack(row) for row in jnp.unstack(self.weights)]
        return jnp.stack([sum(w * field for w, field in zip(row, fields, strict=True)) for row in rows])


def two_layers(pair: tuple[Pointwise, Pointwise], activation: Callable, x: Array) -> Array:
    """V σ(W x): a network of two layers at every point."""
    first, second = pair
    return second(activation(first(x)))


def zeroed(layer: Pointwise) -> Pointwise:
    """The layer with zero weights: a network that ends in it is zero until it is trained."""
    return eqx.tree_at(lambda p: p.weight, layer, 0 * layer.weight)


def check_channels(net: Callable, x: Array, channels: int, axes: int = 2):
    """Raises `ValueError` for other than `[channels, y, x]`, or as many axes of points as told."""
    if x.ndim != 1 + axes or len(x) != channels:
        layout = ", ".join([str(channels), *"zyx"[3 - axes :]])
        raise ValueError(f"this {type(net).__name__} maps [{layout}]; got {x.shape}; for a batch use jax.vmap")


class FNOBlock(AbstractOperator):
    """x ← σ(K x + W x), then x ← σ(MLP(x) + g x): K a convolution by modes, W and MLP pointwise, g per channel."""

    spectral: AbstractOperator
    skip: Pointwise
    mlp: tuple[Pointwise, Pointwise]
    gate: Float[Array, " channel"]
    activation: Callable = eqx.field(static=True)
    last: bool = eqx.field(static=True)

    def __init__(self, channels: int, modes: tuple[int, ...] | int, *, key: Array, activation: Callable, last: bool):
        keys, middle = jr.split(key, 4), round(channels / 2)
        kind = ZonalConvolution if isinstance(modes, int) else SpectralConvolution
        self.spectral = kind(channels, channels, modes, key=keys[0])
        self.skip = Pointwise(channels, channels, key=keys[1], bias=False)
        self.mlp = Pointwise(channels, middle, key=keys[2]), Pointwise(middle, channels, key=keys[3])
        self.gate, self.activation, self.last = jnp.ones(channels), activation, last

    def __call__(self, x, grid):
        bent = (lambda a: a) if self.last else self.activation
        y = bent(self.spectral(x, grid) + self.skip(x))
        return bent(two_layers(self.mlp, self.activation, y) + per_channel(self.gate, x) * x)


class FNO(AbstractOperator):
    """Fourier neural operator: lifting, blocks of spectral convolutions, projection; [inputs, y, x] to [outputs, y, x].

    `hidden` channels, `modes` (n_y, n_x) as in `SpectralConvolution` for a torus, (n_x,) for a line, (n_z, n_y, n_x)
    for a box, both with `grid=None`; or an int, the largest total degree of `ZonalConvolution`, for a sphere: then it
    is a spherical Fourier neural operator (SFNO). The layout is that of neuraloperator's `FNO` with its defaults (block
    order, soft gates, widths of lifting, projection and MLP), without its position channels: on a periodic domain no
    place is special. The same weights serve every resolution of a domain that holds the modes; results differ by what
    the activation aliases. Starts with the *last layer at zero*: an untrained closure does nothing, an untrained
    emulator persists. All of it is trainable. Li et al. (2021), arXiv:2010.08895; Kossaifi et al. (2024),
    arXiv:2412.10354.

    Raises `ValueError` for other than `inputs` channels, and as `SpectralConvolution`.
    """

    lifting: tuple[Pointwise, Pointwise]
    blocks: tuple[FNOBlock, ...]
    projection: tuple[Pointwise, Pointwise]
    activation: Callable = eqx.field(static=True)

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        modes: tuple[int, ...] | int,
        key: Array,
        hidden: int = 32,
        layers: int = 4,
        activation: Callable = jax.nn.gelu,
    ):
        if min(inputs, outputs, hidden, layers) < 1:
            raise ValueError(f"FNO needs positive sizes; got {inputs=}, {outputs=}, {hidden=}, {layers=}")
        keys = jr.split(key, 3 + layers)
        wide = 2 * hidden
        self.lifting = Pointwise(inputs, wide, key=keys[0]), Pointwise(wide, hidden, key=keys[1])
        self.blocks = tuple(
            FNOBlock(hidden, modes, key=key, activation=activation, last=number == layers - 1)
            for number, key in enumerate(keys[3:])
        )
        self.projection = Pointwise(hidden, wide, key=keys[2]), zeroed(Pointwise(wide, outputs, key=keys[2]))
        self.activation = activation

    def __call__(self, x, grid):
        axes = len(getattr(self.blocks[0].spectral, "modes", "yx"))  # operators without `modes` are those of a sphere
        check_channels(self, x, self.lifting[0].weight.shape[1], axes)
        x = two_layers(self.lifting, self.activation, x)
        for block in self.blocks:
            x = block(x, grid)
        return two_layers(self.projection, self.activation, x)
