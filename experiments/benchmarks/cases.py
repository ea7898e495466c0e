"""What the benchmarks run: a two-layer step of three codes, its transforms alone, gradients, ensembles.

Every builder returns a function without arguments that computes, waits for the result and returns it.
The case is the *eddy* configuration of Ross et al. (2023), doi:10.1029/2022MS003258, in all codes: AB3, pyqg's filter.
"""

import math
import re

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import hybridgcm as hg

LENGTH = 1e6
"""Side of the domain, m."""
CHUNKS = (None, 5, 10)
"""Choices of `chunk` in gradients: none, and blocks of frames that are recomputed."""
WITH_RESPECT_TO = ("initial state", "Leith's constant")


def start(n: int) -> np.ndarray:
    """Smooth random potential vorticity `[layer, y, x]` of 5e-6 s-1 rms, its energy near ten waves per side."""
    rows, columns = np.fft.fftfreq(n, 1 / n)[:, None], np.arange(n // 2 + 1)
    peak = min(10, n / 6)
    noise = np.random.default_rng(0).standard_normal((2, 2, n, n // 2 + 1))
    kappa = np.hypot(rows, columns)
    q_hat = (noise[0] + 1j * noise[1]) * np.exp(-(((kappa - peak) / (peak / 4)) ** 2)) * (kappa > 0)
    q = np.fft.irfft2(q_hat, s=(n, n))
    return 5e-6 * q / np.sqrt((q**2).mean((1, 2), keepdims=True))


def time_step(n: int) -> float:
    """3600 s, as published, and shorter above 256² to keep the Courant number."""
    return 3600.0 * min(1.0, 256 / n)


def model(n: int, precision: str, filtered: bool = True, closure=None) -> hg.Model:
    """AB3 on n² points without dealiasing, with pyqg's filter or without."""
    grid = hg.Torus(n, LENGTH, dealias=None, dtype=jnp.dtype(precision))
    stepper = hg.Filtered(hg.AB3(), hg.exponential_filter(grid)) if filtered else hg.AB3()
    return hg.Model(hg.QuasiGeostrophic.two_layer(grid), stepper, closure, dt=time_step(n))


def step(n: int, precision: str, steps: int, filtered: bool = True):
    """`steps` steps of hybridgcm."""
    run, low, state = step_program(n, precision, steps, filtered)
    return lambda: jax.block_until_ready(run(low, state)).y["q"]


def step_program(n: int, precision: str, steps: int, filtered: bool = True):
    """The same before it is called: a jitted function and its arguments."""
    low = model(n, precision, filtered)
    run = eqx.filter_jit(lambda low, state: hg.rollout(low, state, steps, every=steps, save=None)[0])
    return run, low, low.encode({"q": start(n)})


def floor(n: int, precision: str, steps: int, batched: bool):
    """`steps` times the transforms of a step and nothing else: 6 fields to the grid, 4 back.

    Batched: one call each way. Otherwise one call per field, which XLA's CPU runtime spreads over the cores.
    """
    one = np.fft.rfft2(np.concatenate([start(n)] * 3)).astype(jnp.result_type(precision, jnp.complex64))
    together, apart = jax.jit(_batched, static_argnums=1), jax.jit(_separate, static_argnums=1)
    if batched:
        a_hat = jnp.asarray(one)
        return lambda: jax.block_until_ready(together(a_hat, steps))
    fields = tuple(map(jnp.asarray, one))
    return lambda: jax.block_until_ready(apart(fields, steps))


def _batched(a_hat, steps):
    body = lambda a_hat, _: (a_hat.at[:4].set(jnp.fft.rfft2(jnp.fft.irfft2(a_hat)[:4])), None)
    return jax.lax.scan(body, a_hat, None, length=steps)[0]


def _separate(fields, steps):
    def body(carry, _):
        on_grid = [jnp.fft.irfft2(a_hat) for a_hat in carry[0]]
        forward = [jnp.fft.rfft2(a) for a in on_grid[:4]]
        # Swapped and kept, or XLA would take the transforms of the last two out of the loop.
        return ((*forward, carry[0][5], carry[0][4]), on_grid[4:]), None

    on_grid = [jnp.zeros_like(jnp.fft.irfft2(a_hat)) for a_hat in fields[4:]]
    return jax.lax.scan(body, (fields, on_grid), None, length=steps)[0]


def pyqg_jax(n: int, precision: str, steps: int):
    """`steps` steps of pyqg-jax, jitted as its documentation does; `None` where it is not installed."""
    try:
        from pyqg_jax import qg_model, state, steppers
    except ImportError:
        return None
    kind = {"float32": state.Precision.SINGLE, "float64": state.Precision.DOUBLE}[precision]
    inner = qg_model.QGModel(nx=n, L=LENGTH, precision=kind)
    stepped = steppers.SteppedModel(inner, steppers.AB3Stepper(dt=time_step(n)))
    first = inner.create_initial_state(jax.random.key(0)).update(q=jnp.asarray(start(n), precision))
    first = stepped.initialize_stepper_state(first)
    run = jax.jit(lambda s: jax.lax.scan(lambda s, _: (stepped.step_model(s), None), s, None, length=steps)[0])
    return lambda: jax.block_until_ready(run(first)).state.qh


def pyqg(n: int, steps: int):
    """`steps` steps of pyqg, one thread, double precision, no diagnostics; `None` where it is not installed."""
    try:
        import pyqg as package
    except ImportError:
        return None
    other = package.QGModel(nx=n, L=LENGTH, dt=time_step(n), ntd=1, log_level=0, tmax=1e30, tavestart=1e30)
    first = start(n)

    def run():
        other.q = first
        for _ in range(steps):
            other._step_forward()
        return np.array(other.qh)

    return run


def gradients(n: int, precision: str, steps: int) -> dict:
    """{(with respect to, chunk): (forward, backward, compiled)} of the mean square of q after `steps` steps.

    `forward` computes the loss, `backward` loss and gradient; `compiled` tells the memory of the latter.
    """
    cases = {}
    for name in WITH_RESPECT_TO:
        for chunk in CHUNKS:
            loss, arguments = gradient_program(name, n, precision, steps, chunk)
            forward, backward = eqx.filter_jit(loss), eqx.filter_jit(eqx.filter_value_and_grad(loss))
            compiled = backward.lower(*arguments).compile()
            cases[name, chunk] = (
                lambda f=forward, a=arguments: jax.block_until_ready(f(*a)),
                lambda f=compiled, a=arguments: jax.block_until_ready(f(*a)),
                compiled.compiled,
            )
    return cases


def gradient_program(name: str, n: int, precision: str, steps: int, chunk: int | None):
    """(loss, its arguments), differentiated by the first: q at the start without closure, or Leith's constant."""
    q = jnp.asarray(start(n), precision)
    if name == "initial state":
        return loss_of_start, (q, model(n, precision), q, steps, chunk)
    low = model(n, precision, closure=hg.Leith())
    return loss_of_constant, (low.closure.constant, low, q, steps, chunk)


def loss_of_start(x, low, q, steps, chunk):
    """Mean square of q, 1e-10 s-2, after `steps` steps from x."""
    state, _ = hg.rollout(low, low.encode({"q": x}), steps, save=None, chunk=chunk)
    return 1e10 * jnp.mean(low.equation.grid.to_grid(state.y["q"]) ** 2)


def loss_of_constant(x, low, q, steps, chunk):
    """The same from q with the constant x."""
    return loss_of_start(q, eqx.tree_at(lambda low: low.closure.constant, low, x), q, steps, chunk)


def temporary_megabytes(compiled) -> float:
    """Memory that a compiled program needs beside arguments and results, MB."""
    return compiled.memory_analysis().temp_size_in_bytes / 1e6


def closures() -> dict:
    """{name: (closure, least)}: transforms of a field, per layer, that the formula needs at the least.

    The least counts from spectral u and v or q to a spectral tendency of q, with ∂u/∂x = −∂v/∂y used and what a
    curl or a trace removes left out; a network on grid fields needs its output's transform only. Reading and
    returning grid fields, as closures of any equation do, costs the rest.
    """
    net = hg.nn.CNN((6, 16, 16, 2), (5, 3, 3), key=jax.random.key(0))
    return {
        "none": (None, 0),
        "Leith": (hg.Leith(), 4),
        "Smagorinsky": (hg.Smagorinsky(), 5),
        "Zanna–Bolton": (hg.ZannaBolton(), 5),
        "Backscatter": (hg.BiharmonicBackscatter((0.25, 1.0)), 5),
        "CNN of q, u, v": (hg.NetworkClosure(net, ("q", "u", "v"), ("q",)), 1),
    }


def transforms(n: int, precision: str, closure) -> int:
    """Two-dimensional real transforms of one field in the compiled step."""
    low = model(n, precision, closure=closure)
    program = eqx.filter_jit(lambda low, state: low.step(state)).lower(low, low.encode({"q": start(n)}))
    return count_transforms(program.compile().compiled.as_text())


def count_transforms(text: str) -> int:
    """Fields that pass through the `fft` operations of compiled text, batches counted field by field."""
    shapes = re.findall(r"= \w+\[([\d,]+)\]\S* fft\(", text)
    return sum(math.prod(map(int, shape.split(",")[:-2])) for shape in shapes)


def ensemble(n: int, precision: str, steps: int, members: int):
    """`steps` steps of `members` states that differ, side by side in one program."""
    low = model(n, precision)
    q = jnp.asarray(start(n), precision)
    states = eqx.filter_vmap(lambda angle: low.encode({"q": q * jnp.cos(angle)}))(jnp.linspace(0, 1, members))
    run = lambda low, state: hg.rollout(low, state, steps, every=steps, save=None)[0]
    run = eqx.filter_jit(eqx.filter_vmap(run, in_axes=(None, 0)))
    return lambda: jax.block_until_ready(run(low, states)).y["q"]
