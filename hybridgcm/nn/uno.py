"""The U-shaped neural operator: Fourier layers on points that get fewer and more again."""

from collections.abc import Callable, Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float

from hybridgcm.grids import AbstractGrid, Torus
from hybridgcm.nn.operators import (
    AbstractOperator,
    Pointwise,
    SpectralConvolution,
    check_channels,
    two_layers,
    zeroed,
)
from hybridgcm.nn.spectral import in_single


@in_single
def fourier_resampled(x: Float[Array, "channel y x"], shape: tuple[int, int]) -> Float[Array, "channel m n"]:
    """The trigonometric polynomial through x, taken as one period, at other points; Nyquist modes are dropped.

    Exact for band-limited fields, and it commutes with shifts by common points, which bicubic interpolation does not.
    """
    if tuple(x.shape[1:]) == tuple(shape):
        return x
    kept = [(min(a, b) + 1) // 2 for a, b in zip(x.shape[1:], shape, strict=True)]  # wave numbers below it are held
    x_hat = jnp.fft.rfft2(x, norm="forward")[..., : kept[1]]
    low = jnp.concatenate([x_hat[:, : kept[0]], x_hat[:, x.shape[1] - kept[0] + 1 :]], 1)
    gap = jnp.zeros((len(x), shape[0] - low.shape[1], kept[1]), low.dtype)
    full = jnp.concatenate([low[:, : kept[0]], gap, low[:, kept[0] :]], 1)
    full = jnp.pad(full, ((0, 0), (0, 0), (0, shape[1] // 2 + 1 - kept[1])))
    return jnp.fft.irfft2(full, tuple(shape), norm="forward")


class UNOBlock(eqx.Module):
    """x ← σ(K x + W x), then x ← σ(MLP(x) + V x₀), x₀ the block's input; on the points of `shape` from K on."""

    spectral: SpectralConvolution
    skip: Pointwise
    mlp: tuple[Pointwise, Pointwise]
    past: Pointwise

    def __init__(self, channels: int, out: int, modes: tuple[int, int], *, key: Array):
        keys, middle = jr.split(key, 5), round(out / 2)
        self.spectral = SpectralConvolution(channels, out, modes, key=keys[0])
        self.skip = Pointwise(channels, out, key=keys[1], bias=False)
        self.mlp = Pointwise(out, middle, key=keys[2]), Pointwise(middle, out, key=keys[3])
        self.past = Pointwise(channels, out, key=keys[4], bias=False)

    def __call__(self, x: Array, shape: tuple[int, int], activation: Callable, last: bool) -> Array:
        bent = (lambda a: a) if last else activation
        finer = shape if shape[0] > x.shape[1] else x.shape[1:]
        x = fourier_resampled(x, finer)  # modes that the coarser points do not have are zero, or are dropped afterwards
        y = fourier_resampled(self.spectral(x, None), shape)
        x = fourier_resampled(x, shape)
        y = bent(y + self.skip(x))
        return bent(two_layers(self.mlp, activation, y) + self.past(x))


class UNO(AbstractOperator):
    """U-shaped neural operator: lifting, blocks on fewer and again on more points with skips across, projection.

    Block i maps to `channels[i]` channels with `modes[i]`, (n_y, n_x) as in `SpectralConvolution`, on `scalings[i]`
    times as many points a side as before; all scalings together are one. The second half of the blocks also reads what
    its mirror in the first half gave: the last block what the first did, and so on. Resampling is by Fourier modes;
    neuraloperator's, whose `UNO` this is weight for weight (1,405,761 in its example, `Bounded`), is bicubic, and its
    blocks of one layer have their activation between the layers of the MLP only. For planes: the points are one
    period, of a `Torus` or, with `grid=None`, of whatever they are. Starts with the last layer at zero.
    Rahman, Ross and Azizzadenesheli (2023), arXiv:2204.11127.

    Raises `ValueError` for lists of different lengths, scalings whose product is not one or that do not divide the
    points, and other than `inputs` channels; `TypeError` for a grid that is not a `Torus`.
    """

    lifting: tuple[Pointwise, Pointwise]
    blocks: tuple[UNOBlock, ...]
    across: tuple[Pointwise, ...]
    projection: tuple[Pointwise, Pointwise]
    scalings: tuple[float, ...] = eqx.field(static=True)
    activation: Callable = eqx.field(static=True)

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        modes: Sequence,
        channels: Sequence[int],
        scalings: Sequence,
        key: Array,
        hidden: int = 64,
        lifting: int = 256,
        projection: int = 64,
        activation: Callable = jax.nn.gelu,
    ):
        count, scaled = len(channels), 1.0
        for factor in scalings:
            scaled *= factor
        if not len(modes) == len(scalings) == count > 0 or abs(scaled - 1) > 1e-9:
            raise ValueError(
                f"modes, channels and scalings have an entry a block, and the product of scalings is one; got "
                f"{len(modes)}, {count} and {tuple(scalings)}"
            )
        keys = iter(jr.split(key, 4 + 2 * count))
        self.lifting = Pointwise(inputs, lifting, key=next(keys)), Pointwise(lifting, hidden, key=next(keys))
        blocks, across, before = [], [], hidden
        for number, (out, block_modes) in enumerate(zip(channels, modes, strict=True)):
            if (mirror := _mirror(number, count)) is not None:
                across.append(Pointwise(channels[mirror], channels[mirror], key=next(keys), bias=False))
                before += channels[mirror]
            blocks.append(UNOBlock(before, out, tuple(block_modes), key=next(keys)))
            before = out
        self.blocks, self.across, self.scalings = tuple(blocks), tuple(across), tuple(map(float, scalings))
        last = zeroed(Pointwise(projection, outputs, key=next(keys)))
        self.projection, self.activation = (Pointwise(before, projection, key=next(keys)), last), activation

    def __call__(self, x: Float[Array, "channel y x"], grid: AbstractGrid | None) -> Float[Array, "out y x"]:
        if grid is not None and not isinstance(grid, Torus):
            raise TypeError(f"a UNO resamples the points of a plane; got a {type(grid).__name__}: see SphericalUNet")
        check_channels(self, x, self.lifting[0].weight.shape[1])
        x, made, across = two_layers(self.lifting, self.activation, x), [], iter(self.across)
        for number, (block, factor) in enumerate(zip(self.blocks, self.scalings, strict=True)):
            if (mirror := _mirror(number, len(self.blocks))) is not None:
                x = jnp.concatenate([x, fourier_resampled(next(across)(made[mirror]), x.shape[1:])])
            shape = tuple(round(n * factor) for n in x.shape[1:])
            if any(abs(m - n * factor) > 1e-6 for m, n in zip(shape, x.shape[1:], strict=True)) or min(shape) < 2:
                raise ValueError(f"block {number} scales {x.shape[1:]} points by {factor:g}: no whole number of them")
            x = block(x, shape, self.activation, number == len(self.blocks) - 1)
            made.append(x)
        return two_layers(self.projection, self.activation, x)


def _mirror(number: int, count: int) -> int | None:
    """The block whose result block `number` also reads, if any."""
    return count - 1 - number if number > (count - 1) / 2 else None
