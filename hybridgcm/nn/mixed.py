"""Networks that compute in another precision than they learn in."""

from collections.abc import Callable

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from hybridgcm._typing import cast_floats
from hybridgcm.grids import AbstractGrid
from hybridgcm.nn.operators import AbstractOperator, apply


class MixedPrecision(AbstractOperator):
    """y = net(x, grid) with weights and fields rounded to `dtype`, jnp.bfloat16 say.

    The weights themselves keep their precision and so do their gradients: what `fit` adds to them is not lost. What
    lies between a transform and its inverse (`SpectralConvolution`, `ZonalConvolution` and their kin) is in single
    precision at least: sums over whole fields. The result has the precision of x. bfloat16 has 8 significant bits and
    the range of single precision, so that losses need no scaling.

    `net` is any network of O(1) fields: closures, emulators and `Normalised` scale theirs outside, so wrap what they
    hold, `Normalised(MixedPrecision(net, dtype), ...)`, and so with `Anomalies`, where the difference of large numbers
    would have two digits left. Meant for GPUs and TPUs; most CPUs emulate bfloat16. `closures.Cast` is the same for a
    whole closure, its scales included. Raises as `net`; an `AbstractOperator`, so that emulators need their grid.
    """

    net: Callable
    dtype: np.dtype = eqx.field(static=True, converter=jnp.dtype)

    def __call__(self, x: Float[Array, "channel *points"], grid: AbstractGrid | None) -> Float[Array, "out *points"]:
        net, low = cast_floats(self.net, self.dtype), x.astype(self.dtype)
        y = net(low, None) if grid is None and isinstance(net, AbstractOperator) else apply(net, low, grid)
        return y.astype(x.dtype)
