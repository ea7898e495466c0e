"""Ensemble Kalman inversion: calibration from forward runs alone, without gradients."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, ArrayLike

from hybridgcm.models import AbstractModel
from hybridgcm.train.fit import selection
from hybridgcm.train.objectives import each


def eki(
    model: AbstractModel,
    statistics: Callable[[AbstractModel], Array],
    target: ArrayLike,
    noise: ArrayLike,
    *,
    where: Callable[[Any], Any],
    spread: float = 0.5,
    members: int = 16,
    iterations: int = 10,
    key: Array,
    callback: Callable[[int, AbstractModel, dict], None] | None = None,
) -> tuple[AbstractModel, list[dict]]:
    """The model whose `statistics(model)` come closest to `target`, its error being Gaussian with covariance `noise`.

    `statistics` gives one array of n numbers, such as time means of a rollout, `target` has its shape, `noise` is
    `[n, n]`. Nothing is differentiated, so it may depend on long and chaotic runs. Members start around the leaves that
    `where(model)` selects, with a standard deviation of `spread` times the root mean square of each leaf. With θ the
    parameters, G the statistics, X and A the members' deviations of both over √(members − 1), one row each, R the noise
    and h a step: θ̄ ← θ̄ + Xᵀ(1 + hAR⁻¹Aᵀ)⁻¹hAR⁻¹(target − Ḡ), X ← (1 + hAR⁻¹Aᵀ)^(−1/2) X, an ensemble transform, which
    draws no numbers. Steps add up to one, where for linear statistics mean and spread are those of Bayes' rule. They
    are as large as the misfits allow: Iglesias and Yang (2021), doi:10.1088/1361-6420/abd29b, section 3.
    Members whose statistics are not finite take no part in an update; new ones are drawn from its result.

    Returns the mean and one record of Python numbers per evaluation of the ensemble, the last after the last update:
    `time`, the sum of steps so far (*below one in the last record means: not converged, take more `iterations`);
    `misfit`, mean over members of (target − G)ᵀR⁻¹(target − G)/n, near 1 when done; `failed`, members replaced; `mean`
    and `std` per leaf (mean and root mean square over its elements; few members underestimate the uncertainty).
    At most members × (iterations + 1) runs, vmapped, on CPU one after the other. The mean stays in the span of the
    first members: for more than a few dozen parameters use gradients. `callback(iteration, mean, record)` as in `fit`.

    Raises `ValueError` for what `where` may not select in `fit`, a leaf that is zero (its spread would be), shapes that
    do not agree and a covariance that is not positive definite; `RuntimeError` if fewer than half the members are left.
    """
    trainable, frozen = eqx.partition(model, selection(model, where))
    scale = _scale(trainable)
    target, whiten = _observation(target, noise)
    if members < 2:
        raise ValueError(f"an ensemble has at least 2 members; got {members}")
    draws = np.asarray(jr.normal(key, (members, scale.size)), np.float64)
    z = _vector(trainable) / scale + spread * (draws - draws.mean(0))
    log, time = [], 0.0
    for index in range(iterations + 1):
        found = np.asarray(_forward(_stack(z * scale, trainable), frozen, statistics), np.float64)
        if found.shape[1:] != target.shape:
            raise ValueError(f"statistics(model) has {found.shape[1]} numbers, target {target.size}: they must agree")
        good = np.isfinite(found).all(1)
        if good.sum() < max(2, members / 2):
            raise RuntimeError(
                f"{members - good.sum()} of {members} members gave statistics that are not finite, iteration {index}; "
                "start closer to a stable model, take a smaller spread, or shorter runs"
            )
        residual = whiten(target - found[good])
        misfit = np.mean(residual**2, 1)
        fitted = eqx.combine(_unravel(z[good].mean(0) * scale, trainable), frozen)
        log.append(_record(index, time, misfit, members - int(good.sum()), z[good] * scale, trainable))
        if callback is not None:
            callback(index, fitted, log[-1])
        if index == iterations or time >= 1:
            break
        step = _step(misfit, target.size, 1 - time)
        z, time = _update(z, good, residual, step, jr.fold_in(key, index)), time + step
    return fitted, log


def _step(misfit: np.ndarray, n: int, left: float) -> float:
    """min(max(n/2⟨Φ⟩, √(n/2 Var Φ)), what is left to one), Φ = n·misfit/2 per member: the data-misfit controller."""
    with np.errstate(divide="ignore"):
        return float(min(max(1 / misfit.mean(), np.sqrt(2 / (n * misfit.var()))), left))


def _update(z: np.ndarray, good: np.ndarray, residual: np.ndarray, step: float, key: Array) -> np.ndarray:
    """Members after one step; the algebra is that of the ensemble's space, members × members, in float64."""
    count = int(good.sum())
    mean = z[good].mean(0)
    X = (z[good] - mean) / np.sqrt(count - 1)
    A = -(residual - residual.mean(0)) / np.sqrt(count - 1)
    s, V = np.linalg.eigh(step * A @ A.T)
    s = np.maximum(s, 0)
    mean = mean + X.T @ (V / (1 + s)) @ V.T @ (step * A @ residual.mean(0))
    X = (V / np.sqrt(1 + s)) @ V.T @ X
    new = np.empty_like(z)
    new[good] = mean + np.sqrt(count - 1) * X
    new[~good] = mean + np.asarray(jr.normal(key, (len(z) - count, count)), np.float64) @ X
    return new


@eqx.filter_jit
def _forward(stacked, frozen, statistics):
    return each(lambda part: jnp.ravel(statistics(eqx.combine(part, frozen))), stacked)


def _observation(target, noise):
    """The target as a float64 vector, and the map that makes its errors independent and of unit variance."""
    target = np.asarray(target, np.float64).ravel()
    noise = np.asarray(noise, np.float64)
    if noise.shape != (target.size, target.size):
        raise ValueError(f"noise has shape {noise.shape}, expected {(target.size,) * 2}, a covariance of the target")
    try:
        root = np.linalg.cholesky(noise)
    except np.linalg.LinAlgError:
        root = np.full_like(noise, np.nan)
    if not (np.isfinite(root).all() and np.isfinite(target).all() and np.allclose(noise, noise.T, rtol=1e-5, atol=0)):
        raise ValueError(
            "target must be finite and noise a symmetric, positive definite covariance; squares of small numbers "
            "underflow in float32: scale the statistics to the order of one"
        )
    return target, lambda errors: np.linalg.solve(root, errors.T).T


def _scale(trainable) -> np.ndarray:
    """Root mean square of the leaf that each parameter is in."""
    sizes = []
    for path, leaf in jax.tree_util.tree_leaves_with_path(trainable):
        size = float(np.sqrt(np.mean(np.asarray(leaf, np.float64) ** 2)))
        if size == 0:
            where = jax.tree_util.keystr(path, simple=True, separator=".")
            raise ValueError(f"{where} is zero, so its members would not differ; start it at its likely size")
        sizes.append(np.full(leaf.size, size))
    return np.concatenate(sizes)


def _vector(trainable) -> np.ndarray:
    return np.concatenate([np.asarray(leaf, np.float64).ravel() for leaf in jax.tree.leaves(trainable)])


def _stack(members: np.ndarray, like):
    """Trees from the rows of `[member, parameter]`, stacked along the leading axis of every leaf."""
    leaves, structure = jax.tree.flatten(like)
    parts = np.split(members, np.cumsum([leaf.size for leaf in leaves])[:-1], axis=1)
    shaped = [jnp.asarray(p.reshape(-1, *leaf.shape), leaf.dtype) for p, leaf in zip(parts, leaves, strict=True)]
    return jax.tree.unflatten(structure, shaped)


def _unravel(vector: np.ndarray, like):
    return jax.tree.map(lambda a: a[0], _stack(vector[None], like))


def _record(index: int, time: float, misfit: np.ndarray, failed: int, members: np.ndarray, like) -> dict:
    mean, std = members.mean(0), members.std(0, ddof=1)
    record = {"step": index, "time": time, "misfit": float(misfit.mean()), "failed": failed, "mean": {}, "std": {}}
    first = 0
    for path, leaf in jax.tree_util.tree_leaves_with_path(like):
        name, part = jax.tree_util.keystr(path, simple=True, separator="."), slice(first, first + leaf.size)
        record["mean"][name] = float(mean[part].mean())
        record["std"][name] = float(np.sqrt(np.mean(std[part] ** 2)))
        first += leaf.size
    return record
