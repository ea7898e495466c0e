"""What closures that draw noise are trained with: a likelihood, a bound, a critic, a velocity to match."""

from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
from jaxtyping import Array, Float

import hybridgcm as hg
from experiments.closure_benchmark.training import network
from hybridgcm import checkpoint, closures, metrics, nn, train
from hybridgcm.batches import samples
from hybridgcm.closures.base import per_layer
from hybridgcm.nn.conv import periodic_convolution
from hybridgcm.train.objectives import each

KERNELS = (5, 3, 3)
LAGS = (0, 1, 2, 4, 8, 16, 32, 64)
"""Frames over which residuals are correlated."""


class Accompanied(hg.AbstractClosure):
    """`closure` with the network that only its training needs: an encoder or a critic."""

    closure: hg.AbstractClosure
    companion: eqx.Module

    def init(self, fields, grid):
        return self.closure.init(fields, grid)

    def __call__(self, fields, grid, memory, key):
        return self.closure(fields, grid, memory, key)


class Critic(eqx.Module):
    """A score of fields `[channel, y, x]`, 0-d: three convolutions, halved in between, summed over space.

    In place of the DCGAN of Perezhogin et al. (2023), which has 2.8 million weights and one size of domain. Raises
    `ValueError` for numbers of points that are no multiples of 4.
    """

    weights: tuple[Float[Array, "out channel k k"], ...]
    biases: tuple[Float[Array, " out"], ...]

    def __init__(self, channels: int, widths: tuple[int, int, int], *, key: Array):
        sizes = (channels, *widths, 1)
        shapes = [(o, i, k, k) for i, o, k in zip(sizes, sizes[1:], (*KERNELS, 1), strict=False)]
        keys = jr.split(key, len(shapes))
        self.weights = tuple(jr.normal(key, s) * np.sqrt(2 / np.prod(s[1:])) for key, s in zip(keys, shapes))
        self.biases = tuple(jnp.zeros(s[0]) for s in shapes)

    def __call__(self, x: Float[Array, "channel y x"]) -> Float[Array, ""]:
        if x.shape[-2] % 4 or x.shape[-1] % 4:
            raise ValueError(f"the critic halves its fields twice; {x.shape} needs multiples of 4 points")
        # Softplus, not leaky ReLU: the penalty differentiates twice, and a kinked critic has no curvature.
        for layer, (weight, bias) in enumerate(zip(self.weights[:-1], self.biases[:-1], strict=True)):
            x = jax.nn.softplus(periodic_convolution(x, weight) + bias[:, None, None]) - np.log(2)
            x = _halved(x) if layer < 2 else x
        x = periodic_convolution(x, self.weights[-1]) + self.biases[-1][:, None, None]
        return jnp.sum(x) / np.sqrt(x.size)  # a slope of one over all points is then one of order one at each


def _halved(x):
    c, ny, nx = x.shape
    return jnp.mean(x.reshape(c, ny // 2, 2, nx // 2, 2), (2, 4))


def trunk(inputs: int, outputs: int, widths: tuple[int, int], key: Array) -> nn.CNN:
    """Three convolutions with silu, as the deterministic networks of the benchmark have them."""
    return nn.CNN((inputs, *widths, outputs), KERNELS, key=key, activation=jax.nn.silu)


def learn(
    problem, closure, objective, seed: int, folder: Path, *, where, steps: int, rate: float, batch: int = 8,
    optimiser=None,
):  # fmt: skip
    """`closure` after `problem.steps(steps)` steps on single frames; by default Adam, a cosine from `rate` to .02."""
    steps = problem.steps(steps)
    if optimiser is None:
        schedule = optax.cosine_decay_schedule(rate, steps, 0.02)
        optimiser = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(schedule))
    batches = samples(problem.data.train, batch, steps, jr.fold_in(jr.key(400), seed))
    trained, _ = train.fit(
        problem.model(closure), batches, objective, optimiser, where=where, key=jr.fold_in(jr.key(500), seed),
        callback=train.Log(folder / "log.jsonl"), every=100, progress=folder.name,
        checkpoints=checkpoint.Checkpoints(folder / "checkpoints", allow=True),
    )  # fmt: skip
    return trained.closure


def mean_closure(problem, widths: tuple[int, int], seed: int, folder: Path, steps: int = 3000) -> hg.NetworkClosure:
    """E(S | fields) by least squares, on all scales: what is left is the residual that others draw."""
    closure = network(problem, trunk(6, 2, widths, jr.key(seed)))
    objective = train.offline(metrics.mse("S"))
    return learn(problem, closure, objective, seed, folder, where=lambda m: m.closure.net, steps=steps, rate=1e-2)


def residuals(problem, mean: hg.NetworkClosure, lags: tuple[int, ...] = (0,)) -> np.ndarray:
    """S − mean, `[lag, record, layer, y, x]`, so many frames after every 50th of the training data."""
    parts, low = problem.data.train, problem.model(mean)
    first = [np.arange(0, max(1, len(part["q"]) - lags[-1]), 50) for part in parts]
    some = lambda name: [np.stack([part[name][i + lag] for lag in lags]) for part, i in zip(parts, first, strict=True)]
    q, S = (np.concatenate(some(name), 1) for name in ("q", "S"))
    one = lambda q: low.closure(low.view(low.encode({"q": q})), low.equation.grid, None, jr.key(0))[0]["q"]
    return S - np.asarray(jax.jit(lambda q: jax.lax.map(one, q))(q.reshape(-1, *q.shape[2:]))).reshape(S.shape)


def of_residual(problem, mean: hg.NetworkClosure, net) -> hg.NetworkClosure:
    """`net` as a closure with the inputs of `mean` and the scale of its residual."""
    scale = np.std(residuals(problem, mean)[0], (0, 2, 3), dtype=float)
    return hg.NetworkClosure(net, mean.inputs, mean.outputs, np.asarray(mean.input_scale), scale)


def frames(model, batch, key, function):
    """function(fields, S, key) of every frame of a batch, stacked."""
    grid = model.equation.grid
    view = lambda q: model.equation.view({"q": grid.to_spectral(q)})
    keys = jr.split(key, len(batch["S"]))
    return each(lambda q, S, key: function(view(q), S, key), jnp.asarray(batch["q"]), jnp.asarray(batch["S"]), keys)


def likelihood(model, batch, key):
    """−log p(S | fields) per number, up to a constant, of a `Sampler` with an `nn.Gaussian`; S in units of its scale.

    Guillaumin and Zanna (2021), doi:10.1029/2021MS002534.
    """
    inner, grid = model.closure.inner, model.equation.grid

    def one(fields, S, key):
        m, sigma = inner.net.moments(inputs_of(inner, fields), grid)
        m = m - grid.mean(m)[:, None, None]
        return jnp.mean(((S / per_layer(inner.output_scale) - m) / sigma) ** 2 / 2 + jnp.log(sigma))

    return jnp.mean(frames(model, batch, key, one))


def evidence(model, batch, key):
    """−ELBO per point of an `Accompanied` `Sampler` (decoder) with encoder: Σ over layers ½ log MSE + KL(z | N(0, 1)).

    The variance of the decoder is that of its error over the batch, layer by layer, the value that maximises the
    bound: Rybkin, Daniilidis and Levine (2021), arXiv:2006.13202. Encoder: fields and S to mean and log deviation of z.
    """
    sampler, encoder, grid = model.closure.closure, model.closure.companion, model.equation.grid
    inner = sampler.inner

    def one(fields, S, key):
        x, s = inputs_of(inner, fields), S / per_layer(inner.output_scale)
        mu, log_sigma = jnp.split(encoder(jnp.concatenate([x, s])), 2)
        z = mu + jnp.exp(log_sigma) * jr.normal(key, mu.shape, mu.dtype)
        y = nn.sample(inner.net, x, z, grid)
        y = y - grid.mean(y)[:, None, None]
        divergence = (mu**2 + jnp.exp(2 * log_sigma) - 1) / 2 - log_sigma
        return jnp.mean((y - s) ** 2, (1, 2)), jnp.mean(jnp.sum(divergence, 0))

    errors, divergences = frames(model, batch, key, one)
    return jnp.sum(jnp.log(jnp.mean(errors, 0))) / 2 + jnp.mean(divergences)


def adversarial(scale: Array, penalty: float = 10.0, drift: float = 1e-3):
    """Wasserstein GAN with gradient penalty of an `Accompanied` closure with critic; `scale` of S per layer.

    The critic is given q with a pair, (S, draw) as opposed to (draw, draw), in either order: with single fields a
    generator that ignores its noise would go unpunished. It maximises, and the closure minimises, the difference of its
    scores; one gradient holds both. The value is the critic's. Gulrajani et al. (2017), arXiv:1704.00028; pairs: Adler
    and Öktem (2018), arXiv:1811.05910, as in Perezhogin et al. (2023), doi:10.1029/2023MS003681.
    """
    stop = jax.lax.stop_gradient

    def objective(model, batch, key):
        closure, critic, grid = model.closure.closure, model.closure.companion, model.equation.grid
        frozen = jax.tree.map(lambda a: stop(a) if eqx.is_array(a) else a, critic)

        def one(fields, S, key):
            first, second, order, mix = jr.split(key, 4)
            memory = closure.init(fields, grid)
            draw = lambda key: closure(fields, grid, memory, key)[0]["q"] / per_layer(scale)
            q = fields["q"] / jnp.std(fields["q"], (1, 2), keepdims=True)
            a, b, s = draw(first), draw(second), S / per_layer(scale)
            pair = lambda s: jnp.where(jr.bernoulli(order), jnp.concatenate([s, a]), jnp.concatenate([a, s]))
            real, fake = pair(s), pair(b)
            score = lambda critic, pair: critic(jnp.concatenate([q, pair]))
            gain = score(frozen, real) - score(frozen, fake)
            real, fake = stop(real), stop(fake)
            between = fake + jr.uniform(mix, (), fake.dtype) * (real - fake)
            slope = jax.grad(lambda pair: score(critic, pair))(between)
            size = jnp.sqrt(jnp.sum(slope**2) + 1e-12)
            true, made = score(critic, real), score(critic, fake)
            loss = made - true + penalty * (size - 1) ** 2 + drift * true**2
            return loss + gain - stop(gain)

        return jnp.mean(frames(model, batch, key, one))

    return objective


def alternating(closure_rate: float, critic_rate: float, critic_steps: int = 5):
    """Adam for the critic at every step and for the closure at every `critic_steps`-th, β as in Gulrajani et al."""
    adam = lambda rate: optax.adam(rate, b1=0.5, b2=0.999)
    seldom = optax.transforms.conditionally_mask(
        adam(closure_rate), lambda step, **_: step % critic_steps == critic_steps - 1
    )
    part = lambda path, _: "critic" if "companion" in jax.tree_util.keystr(path) else "closure"
    labels = lambda weights: jax.tree_util.tree_map_with_path(part, weights)
    return optax.partition({"critic": adam(critic_rate), "closure": seldom}, labels)


def matching(model, batch, key):
    """⟨(v(s, t, x) − (y − z))²⟩, s = (1 − t) z + t y, t uniform, z noise, y the residual of S in units of its scale.

    For a `Sum` of the mean and a `Sampler` with an `nn.FlowMatching`. Lipman et al. (2023), arXiv:2210.02747.
    """
    mean, sampler = model.closure.parts
    inner, grid = sampler.inner, model.equation.grid

    def one(fields, S, key):
        residual = S - mean(fields, grid, None, key)[0]["q"]
        y, (noise, time) = residual / per_layer(inner.output_scale), jr.split(key)
        z, t = jr.normal(noise, y.shape, y.dtype), jr.uniform(time, (), y.dtype)
        v = inner.net.velocity(inputs_of(inner, fields), (1 - t) * z + t * y, t, grid)
        return jnp.mean((v - (y - z)) ** 2)

    return jnp.mean(frames(model, batch, key, one))


def inputs_of(inner: hg.NetworkClosure, fields) -> Array:
    """The field channels that the network of `inner` is given."""
    return jnp.concatenate([fields[name] for name in inner.inputs]) / per_layer(inner.input_scale)


def red_noise(problem, mean: hg.NetworkClosure) -> closures.AR1:
    """`AR1` with amplitude per layer, scale and decorrelation time of the residual r of `mean` on training frames.

    ℓ: of exp(−d²/2ℓ²) with the power spectrum nearest to that of r, a tenth to four grid spacings; τ: when the
    correlation of r at a point falls below 1/e, at most `LAGS[-1]` frames. Both for all layers together.
    """
    grid = problem.model().equation.grid
    r = residuals(problem, mean, LAGS).astype(float)
    power = lambda a, b: np.mean(a * b, (0, 2, 3))
    variance = power(r[0], r[0])
    correlation = [np.mean(power(r[0], later) / np.sqrt(variance * power(later, later))) for later in r]
    tau = problem.system.flow.frame * np.interp(-np.exp(-1), -np.minimum.accumulate(correlation), LAGS)
    hat = grid.to_spectral(jnp.asarray(r[0] / np.sqrt(variance)[:, None, None], grid.eigenvalues.dtype))
    P = np.mean(grid.spectrum(grid.cospectrum(hat, hat)), (0, 1))
    scales = np.linspace(0.1, 4, 40) * float(grid.spacing)
    density = [grid.multiplicity * jnp.exp(grid.eigenvalues * scale**2 / 2) for scale in scales]
    misfit = [np.sum((np.asarray(grid.spectrum(d / jnp.sum(d))) - P) ** 2) for d in density]
    return closures.AR1(np.sqrt(variance), scale=scales[np.argmin(misfit)], tau=tau, dt=problem.system.dt)
