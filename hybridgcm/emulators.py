"""A network in the place of the equation."""

from collections.abc import Callable, Mapping, Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from hybridgcm._typing import Fields, Numbers, cast_floats, fixed, nearest, without_time
from hybridgcm.closures.network import deviations
from hybridgcm.data import check_finite
from hybridgcm.grids import AbstractGrid
from hybridgcm.models import AbstractModel, State, step_at
from hybridgcm.nn import apply


class Emulator(AbstractModel):
    """x(t + dt) = x(t) + change·(N − mean N), N = net(x/scale): fields `names` stepped by a network in `dt` seconds.

    Channels are the layers of the first name, then those of the second, and so on, in and out. The area mean of the
    change is removed, as every equation here conserves the mean of its prognostics; an untrained network of `nn`
    changes nothing at all. With a grid N is cut to its modes, without the Nyquist ones. `State.y` holds the fields
    on the grid, `[layer, y, x]`: `rollout`, `stream`, `evaluate` and checkpoints take it as any other.

    - `net`: any map of `[channel, y, x]` to the same number of channels, or an `nn.AbstractOperator`.
    - `scale`: unit of the fields: one number, or {name: number or one per layer}. Fields are not centred.
    - `change`: the same for the change over dt; by default `scale`. `from_data` measures both.
    - `grid`: for operators, quadrature, output files and the precision; without, that of the weights.

    Scales are saved with the network and not trained by `fit`. Nothing makes
    long rollouts stable: see `evaluate` and `survivors`.
    Raises `ValueError` for scales that are not positive, for missing and unknown names, for wrong shapes and (outside
    jit) values that are not finite, and for a network that changes the shape.
    """

    net: Callable
    scale: dict[str, Float[Array, "..."]] = fixed()
    change: dict[str, Float[Array, "..."]] = fixed()
    grid: AbstractGrid | None
    names: tuple[str, ...] = eqx.field(static=True)
    dt: float = eqx.field(static=True)

    def __init__(
        self,
        net: Callable,
        names: Sequence[str],
        scale: Numbers | Mapping[str, Numbers] = 1.0,
        *,
        dt: float,
        change: Numbers | Mapping[str, Numbers] | None = None,
        grid: AbstractGrid | None = None,
    ):
        if isinstance(names, str) or not names:
            raise ValueError(f'names is a tuple of field names, like ("q",); got {names!r}')
        if not dt > 0:
            raise ValueError(f"dt is a positive number of seconds; got {dt}")
        self.names, self.dt, self.grid = tuple(names), float(dt), grid
        change = scale if change is None else change
        parts = net, _scales("scale", scale, self.names), _scales("change", change, self.names)
        dtype = _dtype(net) if grid is None else grid.eigenvalues.dtype
        self.net, self.scale, self.change = cast_floats(parts, dtype)

    @classmethod
    def from_data(cls, net: Callable, truth, *, dt: float, grid: AbstractGrid | None = None):
        """Emulator whose scales are standard deviations per layer, of the fields and of their changes over dt.

        `truth` maps names to `[time, layer, y, x]`, records dt apart; a list of such dicts holds separate
        trajectories. Raises `ValueError` for other than four axes, values that are not finite, and a layer that does
        not vary or does not change.
        """
        parts = [truth] if isinstance(truth, Mapping) else list(truth)
        joined = lambda name, function: np.concatenate([function(np.asarray(part[name])) for part in parts])
        spread = lambda function: {name: deviations({name: joined(name, function)}) for name in parts[0]}
        return cls(
            net, tuple(parts[0]), spread(lambda a: a), dt=dt, change=spread(lambda a: np.diff(a, axis=0)), grid=grid
        )

    def encode(self, fields: dict[str, ArrayLike], key: Array | None = None) -> State:
        time, fields = fields.get("time", 0), without_time(fields)
        self._check(fields)
        dtype = next(iter(self.scale.values())).dtype
        y = {name: jnp.asarray(fields[name], dtype) for name in self.names}
        return State(y, step_at(self, time), None, None, jr.key(0) if key is None else key)

    def step(self, state: State) -> State:
        x = jnp.concatenate([state.y[name] / _column(self.scale[name]) for name in self.names])
        change = apply(self.net, x, self.grid)
        if change.shape != x.shape:
            raise ValueError(f"the network maps {x.shape} to {change.shape}, expected its own shape; change its layers")
        if self.grid is not None:
            # What no mode holds is in no record either, so no training tells what becomes of it.
            change = self.grid.to_grid(self.grid.resize(self.grid.to_spectral(change), self.grid))
        mean = jnp.mean(change, (-2, -1)) if self.grid is None else self.grid.mean(change)
        ends = np.cumsum([len(state.y[name]) for name in self.names])[:-1]
        parts = dict(zip(self.names, jnp.split(change - mean[:, None, None], ends), strict=True))
        y = {name: a + _column(self.change[name]) * parts[name] for name, a in state.y.items()}
        return State(y, state.step + 1, state.past, state.memory, state.key)

    def view(self, state: State) -> Fields:
        return dict(state.y)

    def decode(self, state: State) -> Fields:
        return dict(state.y)

    def courant(self, state: State) -> Array:
        """Zero: a network may carry things as far as it sees."""
        return jnp.zeros((), state.y[self.names[0]].dtype)

    def _check(self, fields: dict[str, ArrayLike]):
        for name in fields:
            if name not in self.names:
                raise ValueError(f"this emulator steps {self.names}; got {name!r}{nearest(name, self.names)}")
        first = fields.get(self.names[0])
        for name in self.names:
            if name not in fields:
                raise ValueError(f"this emulator steps {self.names}; {name!r} is missing, got {sorted(fields)}")
            shape, scale = jnp.shape(fields[name]), self.scale[name]
            points = jnp.shape(first)[-2:] if self.grid is None else tuple(self.grid.shape)
            layers = scale.shape or shape[:1]
            if len(shape) != 3 or shape != (*layers, *points):
                hint = "; for a batch use eqx.filter_vmap(emulator.encode)" if len(shape) > 3 else ""
                expected = ", ".join(map(str, (*(scale.shape or ("layer",)), *points)))
                raise ValueError(f"{name} has shape {shape}, expected ({expected}) [layer, y, x]{hint}")
            if not isinstance(fields[name], jax.core.Tracer):
                check_finite(name, fields[name])


def _column(scale: Array) -> Array:
    return scale.reshape(-1, 1, 1)


def _scales(what: str, given, names: tuple[str, ...]) -> dict[str, Array]:
    """{name: positive number or one per layer} from a number for all or a mapping."""
    table = dict(given) if isinstance(given, Mapping) else dict.fromkeys(names, given)
    if set(table) != set(names):
        raise ValueError(f"{what} needs a value for each of {names}; got {sorted(table)}")
    for name, value in table.items():
        value = np.asarray(value, float)
        if value.ndim > 1 or not np.all(np.isfinite(value) & (value > 0)):
            raise ValueError(f"{what} of {name} is one positive number, or one per layer; got {value.tolist()}")
    return {name: jnp.asarray(table[name], float) for name in names}


def _dtype(net):
    """Precision of the first floating-point weight, or JAX's default."""
    weights = [leaf for leaf in jax.tree.leaves(net) if eqx.is_inexact_array(leaf)]
    return weights[0].dtype if weights else jnp.result_type(float)
