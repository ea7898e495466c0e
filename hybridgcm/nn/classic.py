"""The Fourier neural operator in the layout of the paper that introduced it."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.random as jr
from jaxtyping import Array, Float

from hybridgcm.grids import AbstractGrid
from hybridgcm.nn.operators import (
    AbstractOperator,
    Pointwise,
    SpectralConvolution,
    check_channels,
    two_layers,
    zeroed,
)


class ClassicFNO(AbstractOperator):
    """x ← σ(K x + W x) `layers` times, the last without σ, between a linear lifting and a projection of two layers.

    K is a `SpectralConvolution` with its bias, W pointwise. No MLP, no gates, no position channels: the operator of Li
    et al. (2021), arXiv:2010.08895, as their code has it. `modes` m counts *each sign*, as there: rows −m ... m − 1 and
    columns 0 ... m − 1, so that `hidden` d and m have 8 d² m² (+ pointwise) real weights: 67,281 for 4 inputs, d = 16
    and m = 4. A tuple has a number for each axis: (16,) is of a line, columns 0 ... 15, 549,569 weights with 2 inputs
    and d = 64; three numbers are of a box. With neuraloperator's layout, which has fewer weights for the same modes and
    channels, see `FNO`. Starts with the last layer at zero. `[inputs, y, x]` to `[outputs, y, x]`; with `grid=None` the
    points are one period. Raises `ValueError` for sizes that are not positive and other than `inputs` channels.
    """

    lifting: Pointwise
    spectral: tuple[SpectralConvolution, ...]
    skips: tuple[Pointwise, ...]
    projection: tuple[Pointwise, Pointwise]
    activation: Callable = eqx.field(static=True)

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        modes: int | tuple[int, ...],
        key: Array,
        hidden: int = 32,
        layers: int = 4,
        activation: Callable = jax.nn.gelu,
    ):
        *rows, columns = (modes, modes) if isinstance(modes, int) else modes
        if min(inputs, outputs, *rows, columns, hidden, layers) < 1:
            raise ValueError(
                f"ClassicFNO needs positive sizes; got {inputs=}, {outputs=}, {modes=}, {hidden=}, {layers=}"
            )
        keys = jr.split(key, 2 * layers + 3)
        both = (*(2 * m for m in rows), max(1, 2 * columns - 2))
        self.lifting = Pointwise(inputs, hidden, key=keys[0])
        self.spectral = tuple(SpectralConvolution(hidden, hidden, both, key=key) for key in keys[3::2])
        self.skips = tuple(Pointwise(hidden, hidden, key=key, bias=False) for key in keys[4::2])
        last = zeroed(Pointwise(2 * hidden, outputs, key=keys[2]))
        self.projection = Pointwise(hidden, 2 * hidden, key=keys[1]), last
        self.activation = activation

    def __call__(self, x: Float[Array, "channel *points"], grid: AbstractGrid | None) -> Float[Array, "out *points"]:
        check_channels(self, x, self.lifting.weight.shape[1], len(self.spectral[0].modes))
        x = self.lifting(x)
        for number, (spectral, skip) in enumerate(zip(self.spectral, self.skips, strict=True), 1):
            x = spectral(x, grid) + skip(x)
            x = x if number == len(self.spectral) else self.activation(x)
        return two_layers(self.projection, self.activation, x)
