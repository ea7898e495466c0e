"""What several test files share: smooth random fields, norms, measured orders, a jitted rollout."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import hybridgcm as hg


def double(n=32, length=1e6, dealias=2 / 3):
    """A float64 torus."""
    return hg.Torus(n, length, dealias=dealias, dtype=jnp.float64)


def eddies(grid, layers, rms, seed=0, peak=4.0):
    """Smooth random field `[layer, y, x]` with zero mean and given rms, its energy near wave number `peak`."""
    shape = grid.spectral_shape
    noise = np.random.default_rng(seed).standard_normal((2, layers, *shape))
    rows = np.fft.fftfreq(shape[0], 1 / shape[0])[:, None]
    kappa = np.hypot(rows, np.arange(shape[1]))
    a_hat = (noise[0] + 1j * noise[1]) * np.exp(-(((kappa - peak) / (peak / 2)) ** 2)) * (kappa > 0)
    a = np.asarray(grid.to_grid(jnp.asarray(a_hat * np.asarray(grid.mask))), np.float64)
    a = a / np.sqrt((a**2).mean((-2, -1), keepdims=True))
    return a * np.broadcast_to(np.asarray(rms, float), (layers,))[:, None, None]


def wave(grid, m_x, m_y, phase=0.0):
    """cos(kx + ly + phase) on the points of a torus, `[y, x]`."""
    ly, lx = grid.length
    return np.cos(2 * np.pi * (m_x * grid.x[None, :] / lx + m_y * grid.y[:, None] / ly) + phase)


def error(a, b):
    """Largest difference relative to the largest value of the reference `b`."""
    a, b = np.asarray(a), np.asarray(b)
    return float(np.max(np.abs(a - b)) / np.max(np.abs(b)))


def slope(sizes, errors):
    """Log-log slope of errors against step sizes by least squares: the measured order."""
    return float(np.polyfit(np.log(sizes), np.log(errors), 1)[0])


def cnn(inputs, outputs, seed, activation=jnp.tanh):
    """A CNN of two 3 × 3 layers, smooth, its last layer not zero as that of an untrained one is."""
    keys = jax.random.key(seed), jax.random.key(seed + 1)
    net = hg.nn.CNN((inputs, 4, outputs), (3, 3), key=keys[0], activation=activation)
    last = jax.random.normal(keys[1], net.weights[-1].shape) / 6
    return eqx.tree_at(lambda net: net.weights[-1], net, last)


@eqx.filter_jit
def _advance(model, state, steps):
    return jax.lax.fori_loop(0, steps, lambda _, s: model.step(s), state)


def run(model, state, steps):
    """The state after `steps` steps; one compilation serves every number of them."""
    return _advance(model, state, jnp.asarray(steps))


def same_bits(a, b):
    """Whether two pytrees have the same structure, dtypes and bits, PRNG keys included."""
    plain = lambda x: jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x
    if jax.tree.structure(a) != jax.tree.structure(b):
        return False
    pairs = [(np.asarray(plain(x)), np.asarray(plain(y))) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b))]
    return all(x.dtype == y.dtype and x.tobytes() == y.tobytes() for x, y in pairs)


@eqx.filter_jit
def integrate(stepper, equation, y, dt, steps):
    """`steps` steps of dt seconds without a model; one compilation per stepper serves every dt."""
    F = lambda offset, y: equation.explicit(offset, y)
    advance = lambda _, carry: stepper(F, equation, *carry, dt)
    return jax.lax.fori_loop(0, steps, advance, (y, stepper.init(y)))[0]
