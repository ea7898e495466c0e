"""Names, units and array aliases that every other module shares."""

from collections.abc import Sequence
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Complex, Float

Fields = dict[str, Array]
"""Grid-space data by name, each `[layer, y, x]`."""
Spectral = dict[str, Array]
"""Spectral data by prognostic name, each `[layer, l, k]`."""
Hat = Complex[Array, "*batch l k"]
OtherHat = Complex[Array, "*batch other_l other_k"]
"""Coefficients on the modes of another grid, where one function takes or returns both."""
OnGrid = Float[Array, "*batch y x"]
Numbers = ArrayLike | Sequence
"""What a constructor takes for one parameter or one per layer: a number, list, tuple or array."""


class Variable(NamedTuple):
    """What a name means: CF units, a long name and, where the CF table has one, a standard name."""

    units: str
    long_name: str
    standard_name: str | None = None


VARIABLES: dict[str, Variable] = {
    "q": Variable("s-1", "quasi-geostrophic potential vorticity anomaly"),
    "psi": Variable("m2 s-1", "geostrophic streamfunction"),
    "u": Variable("m s-1", "zonal velocity anomaly", "sea_water_x_velocity"),
    "v": Variable("m s-1", "meridional velocity anomaly", "sea_water_y_velocity"),
    "zeta": Variable("s-1", "relative vorticity", "ocean_relative_vorticity"),
    "b": Variable("m s-2", "buoyancy anomaly at the surface"),
    "delta": Variable("s-1", "divergence of the horizontal velocity", "divergence_of_wind"),
    "phi": Variable("m2 s-2", "anomaly of gravity times layer thickness"),
    "c": Variable("1", "passive tracer anomaly"),
    "S": Variable("s-2", "subgrid forcing of potential vorticity, to be added to the tendency"),
    "S_zeta": Variable("s-2", "subgrid tendency of relative vorticity"),
    "S_delta": Variable("s-2", "subgrid tendency of divergence"),
    "S_phi": Variable("m2 s-3", "subgrid tendency of the thickness anomaly times gravity"),
    "energy": Variable("m2 s-2", "total energy per unit mass and depth"),
    "ke": Variable("m2 s-2", "kinetic energy of the anomaly per unit mass"),
    "enstrophy": Variable("s-2", "potential enstrophy"),
    "time": Variable("s", "time since start", "time"),
}
"""One table for shape checks, file attributes and plot labels. Extend it for your own variables."""


def param(**kwargs):
    """A scalar or array field of an Equinox module that may be trained: converted to an inexact array.

    `Model` casts such leaves to the precision of its grid, so they never promote a field.
    """

    def convert(value):
        if isinstance(value, np.ndarray | int | float | tuple | list):
            return jnp.asarray(value, float)
        return value

    return eqx.field(converter=convert, **kwargs)


def fixed(**kwargs):
    """A field of an Equinox module that is no parameter, whatever `where` of `fit` and `eki` selects around it.

    Scales and means that were measured, places, bases, tables that were made of other fields.
    """
    return eqx.field(metadata={"fixed": True}, **kwargs)


def without_time(fields) -> dict:
    """The fields without the `time`, s, that they may carry for the clock of a model."""
    return {name: fields[name] for name in fields if name != "time"}


def cast_floats(tree, dtype):
    """Cast the real floating-point array leaves of `tree` to `dtype`; everything else stays."""

    def cast(leaf):
        real = eqx.is_array(leaf) and jnp.issubdtype(leaf.dtype, jnp.floating)
        return leaf.astype(dtype) if real else leaf

    return jax.tree.map(cast, tree)


def nearest(name: str, valid) -> str:
    """`"; did you mean 'x'?"` for a misspelt name, or nothing when no valid name is close."""
    import difflib

    close = difflib.get_close_matches(name, list(valid), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
