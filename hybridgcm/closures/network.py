"""A network as a closure, with its normalisation."""

from collections.abc import Callable, Mapping, Sequence

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from hybridgcm._typing import nearest
from hybridgcm.closures.base import AbstractClosure, per_layer
from hybridgcm.nn import apply


class NetworkClosure(AbstractClosure):
    """forcing = s_out · net(fields / s_in) − mean: any map of `[channel, y, x]` to `[channel, y, x]` as a closure.

    `inputs` name fields of the equation's view, `outputs` forcings that its `lift` knows (`("q",)`, s⁻², or
    `("u", "v")`, m s⁻²). Channels are the layers of the first name, then those of the second, and so on, in and
    out. Fields are only divided by their scale, never centred: anomalies have no mean. The area mean of every
    output is removed, so the closure neither creates potential vorticity nor momentum.
    An `nn.AbstractOperator`, such as `nn.FNO`, is given the grid.

    `input_scale`, `output_scale`: one number per channel, or one for all, in the units of the field or forcing
    (`from_data` takes them from data). They are saved with the network but are not meant to be trained: fit with
    `where=lambda model: model.closure.net`, not `model.closure`.

    Raises `ValueError` for a name that the equation does not have (at `init`), for scales that are not positive or
    do not match the channels, and for a network that returns another number of channels or points.
    """

    net: Callable
    inputs: tuple[str, ...] = eqx.field(static=True)
    outputs: tuple[str, ...] = eqx.field(static=True)
    input_scale: Float[Array, "..."]
    output_scale: Float[Array, "..."]

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
        y = apply(self.net, x, grid)
        expected = (len(self.outputs) * fields[self.inputs[0]].shape[0], *x.shape[1:])
        if y.shape != expected:
            raise ValueError(
                f"the network maps {x.shape} to {y.shape}; for forcings {self.outputs} expected {expected} "
                "[layers × names, y, x]; change its last layer"
            )
        if self.output_scale.ndim and len(self.output_scale) != len(y):
            raise ValueError(f"output_scale has {len(self.output_scale)} entries for {len(y)} channels {self.outputs}")
        y = y * per_layer(self.output_scale)
        y = y - grid.mean(y)[:, None, None]
        return dict(zip(self.outputs, jnp.split(y, len(self.outputs)), strict=True)), memory


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
