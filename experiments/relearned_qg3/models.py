"""The truth, its Jacobian alone, and what is learned beside the Jacobian or instead of everything."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax

import hybridgcm as hg
from experiments.relearned_qg3.config import DAY
from hybridgcm import closures, nn, qg3
from hybridgcm.closures.network import deviations

FEATURES = ("q", "psi", "u", "v")
"""What networks beside the Jacobian read."""


@functools.cache
def atmosphere(truncation: int, inputs: str):
    """(grid, forcing with orography, land and start)."""
    grid = hg.Sphere(truncation)
    return grid, qg3.read(inputs, grid) if inputs else qg3.winter(grid)


def truth(config, free=False) -> hg.Model:
    """Marshall and Molteni's model, in steps of `schedule`."""
    grid, air = atmosphere(config.truncation, config.inputs)
    flow = hg.QuasiGeostrophic.qg3(grid, orography=air.orography, land=air.land)
    return hg.Model(flow, **schedule(config, free), forcing=air.forcing)


def schedule(config, free) -> dict:
    """Records, training and forecasts take RK4; free runs AB3, which costs a quarter of its evaluations a step."""
    return {"stepper": hg.AB3(), "dt": config.free_dt} if free else {"stepper": hg.RK4(), "dt": config.dt}


def jacobian(config, closure=None, free=False, hold=True) -> hg.Model:
    """dq/dt = −J(ψ, q + f + f h/H₃ δ₃) + closure, evaluated once a step if held: no forcing, no damping of any kind."""
    grid, air = atmosphere(config.truncation, config.inputs)
    flow = hg.QuasiGeostrophic.qg3(grid, orography=air.orography, drag=0.0, relaxation=None, tau=np.inf)
    return hg.Model(flow, closure=closure, **schedule(config, free), hold=hold)


def held(name: str) -> bool:
    """Networks are dear and held over a step; the linear closure is not.

    Held, it lags by half a step: four times the mean squared error of a step at T21.
    """
    return name != "linear"


def network(config, name: str, seed: int):
    """An untrained network, of `LEARNED` all but the linear closure, from `FEATURES` to dq/dt at the three levels."""
    grid, air = atmosphere(config.truncation, config.inputs)
    planet = np.stack([np.sin(np.radians(grid.latitude))[:, None] + 0 * air.land, air.land, air.orography / 1e3])
    unet = nn.SphericalUNet(12 + len(planet), 3, widths=config.widths, key=jr.key(seed))
    beside = nn.Beside(unet, jnp.asarray(planet, grid.dtype))
    return beside if name.startswith("U-Net") else nn.OperatorSum((beside, nn.ScaleNetwork(12, 3, grid.truncation)))


def weights(part) -> tuple:
    """The parts of a closure, or of a network, that are for training."""
    if isinstance(part, closures.Sum | nn.OperatorSum):
        return tuple(w for one in (part.parts if isinstance(part, closures.Sum) else part.nets) for w in weights(one))
    return weights(part.net) if isinstance(part, hg.NetworkClosure | nn.Beside) else (part,)


def rates(linear, network) -> optax.GradientTransformation:
    """Adam with learning rates of their own for linear maps, whose problem is convex but ill-conditioned, and the rest.

    At T21 the one-step error of a linear map of all fields by point was .042 with 3e-3, .0010 with 3e-2 (1,500 steps).
    """
    kinds = nn.PlaceNetwork, nn.ScaleNetwork
    one = lambda part: jax.tree.map(lambda _: "linear" if isinstance(part, kinds) else "network", part)
    labels = lambda tree: jax.tree.map(one, tree, is_leaf=lambda part: isinstance(part, kinds))
    return optax.multi_transform({"linear": optax.adam(linear), "network": optax.adam(network)}, labels)


def closure(config, name: str, seed: int, fields: dict, missing) -> closures.AbstractClosure:
    """What is learned, with scales of its inputs and of the tendency that the Jacobian lacks: see `linear_closure`."""
    if name == "linear":
        return linear_closure(config.truncation, fields, missing)
    inputs = {key: fields[key] for key in FEATURES}
    return hg.NetworkClosure.from_data(network(config, name, seed), inputs, {"q": missing})


def linear_closure(truncation: int, fields: dict, missing) -> closures.Sum:
    """A force on the winds with a matrix for every point and, for every degree, a map of q and ψ to dq/dt; zero.

    `fields` q (s⁻¹), psi (m² s⁻¹), u and v (m s⁻¹), and the tendency `missing` (s⁻²) that it is to learn, all
    `[time, level, y, x]`, give the scales; that of the force is a friction of a day. Friction −∇·(k∇ψ) of any k is the
    curl of −k u, and so is the vorticity that wrong mountains make, a Coriolis force; as a map of q, ψ and winds by
    point they take derivatives of k and differences of large terms. Relaxation, hyperdiffusion and steady forcing go
    by degree. ψ is itself q times a matrix for every degree, but of q alone the same is learned slower: e(4 days) was
    .0080, not .0017 (T21, 3,000 steps). See `folded`.
    """
    size = lambda *names: deviations({key: fields[key] for key in names})
    winds, force = ("u", "v"), nn.PlaceNetwork(6, 6, fields["u"].shape[-2:])
    rest, state = nn.ScaleNetwork(6, 3, truncation), ("q", "psi")
    return closures.Sum(
        hg.NetworkClosure(force, winds, winds, size(*winds), size(*winds) / DAY),
        hg.NetworkClosure(rest, state, ("q",), size(*state), deviations({"q": missing})),
    )


def folded(closure: closures.Sum, equation) -> closures.Sum:
    """A trained `linear_closure` with its map of ψ put into that of q, ψ = M q: the same with fewer transforms."""
    force, rest = closure.parts
    scale, weights = np.asarray(rest.input_scale, float), np.asarray(rest.net.weights, float)
    degree = np.where(np.asarray(equation.grid.order) == 0, equation.grid.degree, -1).ravel()
    place = [int(np.argmax(degree == l)) for l in range(1, weights.shape[-1] + 1)]
    M = np.asarray(equation.inverse, float).reshape(3, 3, -1)[:, :, place] * scale[:3, None] / scale[3:, None, None]
    both = weights[:, :, :3] + np.einsum("aokl,kcl->aocl", weights[:, :, 3:], M)
    net = eqx.tree_at(lambda net: net.weights, rest.net, jnp.asarray(both, rest.net.weights.dtype))
    return closures.Sum(force, hg.NetworkClosure(net, ("q",), ("q",), scale[:3], rest.output_scale))


def emulator(config, name: str, seed: int, q) -> hg.Emulator:
    """An untrained emulator of q, `[time, level, y, x]` every `lead` hours."""
    grid, _ = atmosphere(config.truncation, config.inputs)
    if name.startswith("SFNO"):
        net = nn.FNO(4, 3, modes=grid.truncation, hidden=config.widths[0], layers=3, key=jr.key(seed))
    else:
        net = nn.SphericalUNet(4, 3, widths=config.widths, key=jr.key(seed))
    return hg.Emulator.from_data(nn.WithLatitude(net), {"q": q}, dt=3600 * config.lead, grid=grid)


def fields_of(flow: hg.Model, q) -> dict:
    """q, ψ, u and v of records `[time, level, y, x]`."""
    look = eqx.filter_jit(lambda flow, q: jax.lax.map(lambda x: flow.view(flow.encode({"q": x})), q))
    return {key: np.asarray(a) for key, a in look(flow, jnp.asarray(q)).items()}
