"""Spectral weights that are opened to training from the lowest modes up."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from hybridgcm.nn import SpectralConvolution, ZonalConvolution


class Opened(NamedTuple):
    """State of `incremental`: that of the optimiser inside, and per convolution what is open and what pulls."""

    inner: Any
    step: Array
    limits: tuple[Array, ...]
    """Largest mode number that is trained."""
    strengths: tuple[Array, ...]
    """Σ |gradient|² by mode number since the last decision."""


def incremental(optimiser, start: int, *, explained: float = 0.9, every: int = 50):
    """`optax.GradientTransformation` that trains only the lowest modes and opens the next one when they are called for.

    The number of a mode is max(|l|, k) in a `SpectralConvolution`, its degree in a `ZonalConvolution`. Weights of
    modes above the open ones are held at zero (the first step sets them so): the network is the one that has only the
    others. At first numbers up to `start` are open. After every `every` steps a convolution opens one more if the
    open ones hold less than `explained` of Σ |∂loss/∂W|², summed over these steps and *all* modes: the gradient of a
    closed mode is known though its weight is zero. Every convolution decides for itself. Shapes never change, so
    nothing compiles again; what is open is a part of the optimiser's state, saved and resumed with it.

    George, Zhao, Kossaifi, Li and Anandkumar (2022), arXiv:2211.15188, whose released code takes the strength of
    weights for that of gradients and grows the first layer alone. All other parts go to `optimiser` as they are.
    Raises `ValueError` for numbers out of range and, at `init`, if there is no spectral weight to train.
    """
    import optax

    if start < 0 or every < 1 or not 0 < explained <= 1:
        raise ValueError(f"incremental needs start >= 0, every >= 1, 0 < explained <= 1; got {start=}, {every=}, "
                         f"{explained=}")  # fmt: skip

    def init(params):
        layers = _layers(params)
        if not layers:
            raise ValueError("incremental opens modes of SpectralConvolution or ZonalConvolution; none is trained here")
        limits = tuple(jnp.asarray(min(start, int(_numbers(layer).max())), jnp.int32) for layer in layers)
        strengths = tuple(jnp.zeros(int(_numbers(layer).max()) + 1, layer.weights.dtype) for layer in layers)
        return Opened(optimiser.init(params), jnp.zeros((), jnp.int32), limits, strengths)

    def update(updates, state, params=None, **extra):
        if params is None:
            raise ValueError("incremental holds closed weights at zero and so needs params; train.fit passes them")
        layers, step = _layers(updates), state.step + 1
        pulls = [strength + _strength(layer) for strength, layer in zip(state.strengths, layers, strict=True)]
        gradients = _with(updates, [_cut(layer, limit) for layer, limit in zip(layers, state.limits, strict=True)])
        made, inner = optimiser.update(gradients, state.inner, params, **extra)
        closed = [
            jnp.where(_numbers(layer) <= limit, layer.weights, -before.weights)
            for layer, before, limit in zip(_layers(made), _layers(params), state.limits, strict=True)
        ]
        due = step % every == 0
        grow = [
            due & (jnp.sum(jnp.where(jnp.arange(len(pull)) <= limit, pull, 0)) < explained * jnp.sum(pull))
            for pull, limit in zip(pulls, state.limits, strict=True)
        ]
        limits = tuple(limit + more.astype(limit.dtype) for limit, more in zip(state.limits, grow, strict=True))
        return _with(made, closed), Opened(inner, step, limits, tuple(jnp.where(due, 0, pull) for pull in pulls))

    return optax.GradientTransformationExtraArgs(init, update)


def _is_layer(node) -> bool:
    return isinstance(node, SpectralConvolution | ZonalConvolution) and node.weights is not None


def _layers(tree) -> list:
    return [node for node in jax.tree.leaves(tree, is_leaf=_is_layer) if _is_layer(node)]


def _with(tree, weights: list):
    """The tree with other spectral weights."""
    return eqx.tree_at(lambda t: [layer.weights for layer in _layers(t)], tree, weights)


def _numbers(layer) -> np.ndarray:
    """Mode number of every weight, over the last axes."""
    if isinstance(layer, ZonalConvolution):
        return np.arange(layer.weights.shape[-1])
    *full, half = layer.modes
    sides = [np.abs(np.fft.fftfreq(n, 1 / n)) for n in full] + [np.arange(half // 2 + 1)]
    return np.stack(np.meshgrid(*sides, indexing="ij")).max(0).round().astype(int)


def _strength(layer) -> Array:
    """Σ |gradient|² by mode number."""
    numbers = _numbers(layer)
    square = jnp.sum(layer.weights**2, tuple(range(layer.weights.ndim - numbers.ndim)))
    return jnp.zeros(int(numbers.max()) + 1, square.dtype).at[numbers].add(square)


def _cut(layer, limit) -> Array:
    return jnp.where(_numbers(layer) <= limit, layer.weights, 0)
