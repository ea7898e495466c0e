"""A network as a closure, with its normalisation."""

from collections.abc import Callable, Mapping, Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from hybridgcm._typing import fixed, nearest
from hybridgcm.closures.base import AbstractClosure, per_layer, without_mean
from hybridgcm.grids import Torus
from hybridgcm.nn import AbstractSpectralOperator, apply


class NetworkClosure(AbstractClosure):
    """forcing = s_out · net(fields / s_in) − mean: any map of `[channel, y, x]` to `[channel, y, x]` as a closure.

    `inputs` name fields of the equation's view, `outputs` forcings that its `lift` knows (`("q",)`, s⁻², or
    `("u", "v")`, m s⁻²). Channels are the layers of the first name, then those of the second, and so on, in and
    out. Fields are only divided by their scale, never centred: anomalies have no mean. The area mean of every
    output is removed, so the closure neither creates potential vorticity nor momentum; on a sphere not that of u and
    v, where a uniform component is no smooth field.
    An `nn.AbstractOperator`, such as `nn.FNO`, is given the grid; a linear one of scales (`nn.ScaleNetwork`), which is
    an `nn.AbstractSpectralOperator`, gives forcings of prognostics as `name_hat`, spectral.

    `input_scale`, `output_scale`: one number per channel, or one for all, in the units of the field or forcing
    (`from_data` takes them from data). They are saved with the network and not trained by `fit`.

    Raises `ValueError` for a name that the equation does not have (at `init`), for scales that are not positive or
    do not match the channels, and for a network that returns another number of channels or points.
    """

    net: Callable
    inputs: tuple[str, ...] = eqx.field(static=True)
    outputs: tuple[str, ...] = eqx.field(static=True)
    input_scale: Float[Array, "..."] = fixed()
    output_scale: Float[Array, "..."] = fixed()

    def __init__(self, net, inputs: Sequence[str], outputs: Sequence[str], input_scale=1.0, output_scale=1.0):
        if isinstance(inputs, str) or isinstance(outputs, str):
            raise ValueError(f'inputs and outputs are tuples of names, like ("q",); got {inputs!r} and {outputs!r}')
        self.net, self.inputs, self.outputs = net, tuple(inputs), tuple(outputs)
        self.input_scale, self.output_scale = _scale("input_scale", input_scale), _scale("output_scale", output_scale)

    @classmethod
    def from_data(cls, net, inputs: Mapping, outputs: Mapping):
        """Closure whose scales are standard deviations per layer over samples and space.

        `inputs` by field name and `outputs` by forcing name, each `[sample, layer, y, x]`: for instance
        `from_data(net, {"q": data["q"]}, {"q": data["S"]})`. Computed on the host in double precision.

        Raises `ValueError` for other than four axes, values that are not finite, and a layer without variance.
        """
        return cls(net, tuple(inputs), tuple(outputs), deviations(inputs), deviations(outputs))

    def init(self, fields, grid):
        channels = 0
        for name in self.inputs:
            if name not in fields:
                raise ValueError(
                    f"NetworkClosure reads {self.inputs}, the equation offers {sorted(fields)}; "
                    f"{name!r} is missing{nearest(name, fields)}"
                )
            channels += fields[name].shape[0]
        if self.input_scale.ndim and len(self.input_scale) != channels:
            raise ValueError(
                f"input_scale has {len(self.input_scale)} entries, {self.inputs} have {channels} channels "
                "(layers × names); use NetworkClosure.from_data on fields of this model"
            )
        return None

    def __call__(self, fields, grid, memory, key):
        x = jnp.concatenate([fields[name] for name in self.inputs]) / per_layer(self.input_scale)
        spectral = isinstance(self.net, AbstractSpectralOperator) and not {"u", "v"} & set(self.outputs)
        y = self.net.spectral(grid.to_spectral(x), grid) if spectral else apply(self.net, x, grid)
        shape = grid.spectral_shape if spectral else x.shape[1:]
        expected = (len(self.outputs) * fields[self.inputs[0]].shape[0], *shape)
        if y.shape != expected:
            raise ValueError(
                f"the network maps {x.shape} to {y.shape}; for forcings {self.outputs} expected {expected} "
                "[layers × names, y, x]; change its last layer"
            )
        if self.output_scale.ndim and len(self.output_scale) != len(y):
            raise ValueError(f"output_scale has {len(self.output_scale)} entries for {len(y)} channels {self.outputs}")
        made = zip(self.outputs, jnp.split(y * per_layer(self.output_scale), len(self.outputs)), strict=True)
        if spectral:
            return {f"{name}_hat": f for name, f in made}, memory
        return {name: without_mean(name, f, grid) for name, f in made}, memory


class DimensionlessNetwork(AbstractClosure):
    """S_i = U_i Q_i/10Δ (N(δu_i/U_i, δv_i/U_i, δq_i/Q_i) − mean): one network for all flows, sizes, units and layers.

    δ are differences to the next point in x and in y, Q_i = √⟨|δq_i|²⟩ and U_i = √⟨|δu_i|² + |δv_i|²⟩ their root mean
    squares now, Δ = `grid.spacing`. N = `net` maps δx u, δx v, δx q, δy u, δy v, δy q of one layer, `[6, y, x]`, to
    `[1, y, x]`; all layers share it. S, s⁻², is the forcing of q: hence for quasi-geostrophic flow.

    The subgrid forcing of q has these symmetries: advection of q_i by (u_i, v_i) is quadratic and knows no other layer,
    and a filter commutes with uniform flows and gradients of q, so that β and the mean flow are not in it. A network
    with scales of its own (`NetworkClosure`) is tied to the flow and the grid that these come from. That a global
    size, not a local one, makes it dimensionless keeps it smooth where the flow is at rest; nothing but the net is
    there to be trained, and no transform beside that of S to be paid.

    Raises `ValueError` on other than a torus, for fields without u, v and q, and for a net that returns another shape.
    """

    net: Callable

    def init(self, fields, grid):
        if missing := [name for name in ("u", "v", "q") if name not in fields]:
            raise ValueError(f"DimensionlessNetwork reads u, v and q; {missing} missing, there are {sorted(fields)}")
        if not isinstance(grid, Torus):
            raise ValueError("DimensionlessNetwork takes differences around both axes: of a Torus, not of a sphere")
        return None

    def __call__(self, fields, grid, memory, key):
        u, v, q = (_differences(fields[name]) for name in ("u", "v", "q"))
        U, Q = _size(u, v), _size(q)
        x = jnp.stack([a[part] for part in (0, 1) for a in (u / U, v / U, q / Q)], 1)
        layers = [apply(self.net, layer, grid) for layer in x]  # a batched product of small matrices takes CPUs longer
        if layers[0].shape != (1, *x.shape[2:]):
            raise ValueError(f"the network maps {x.shape[1:]} to {layers[0].shape}; expected {(1, *x.shape[2:])}")
        y = jnp.concatenate(layers)
        return {"q": (y - grid.mean(y)[:, None, None]) * (U * Q / (10 * grid.spacing))}, memory


def _differences(a):
    """Differences to the next point in x and in y, `[2, layer, y, x]`."""
    return jnp.stack([jnp.roll(a, -1, axis) - a for axis in (-1, -2)])


def _size(*differences):
    """Root mean square of the differences' length per layer, `[layer, 1, 1]`, with a derivative where all are zero.

    In units of the largest: squares of q, 1e-12, would come near the end of float32.
    """
    largest = jnp.max(jnp.stack([jnp.max(jnp.abs(d)) for d in differences]))
    limits = jnp.finfo(largest.dtype)
    unit = jnp.maximum(jax.lax.stop_gradient(largest), limits.tiny**0.25)
    square = sum(jnp.mean(jnp.sum((d / unit) ** 2, 0), (-2, -1), keepdims=True) for d in differences)
    return unit * jnp.sqrt(square + limits.eps**2)


def _scale(name: str, value) -> Array:
    value = np.asarray(value, float)
    if value.ndim > 1 or not np.all(np.isfinite(value) & (value > 0)):
        raise ValueError(f"{name} is one positive number, or one per channel; got {value.tolist()}")
    return jnp.asarray(value, float)


def deviations(data: Mapping) -> np.ndarray:
    """Standard deviations per name and layer of `[sample, layer, y, x]`, in double precision; raises as `from_data`."""
    scales = []
    for name, array in data.items():
        if np.ndim(array) != 4:
            raise ValueError(
                f"{name} has shape {np.shape(array)}, expected [sample, layer, y, x]; add the missing axes"
            )
        for layer in range(np.shape(array)[1]):
            deviation = float(np.std(np.asarray(array[:, layer]), dtype=float))
            if not (np.isfinite(deviation) and deviation > 0):
                raise ValueError(
                    f"{name} layer {layer} has standard deviation {deviation}; remove samples that are not finite, "
                    "and outputs that are always zero"
                )
            scales.append(deviation)
    return np.array(scales)
