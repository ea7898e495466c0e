"""Scores of ensembles against one truth: spread over error, rank histogram, Brier score; `crps` is among the losses."""

import jax.numpy as jnp
from jaxtyping import Array

from hybridgcm._typing import Numbers
from hybridgcm.grids import AbstractGrid
from hybridgcm.metrics.losses import Metric, _mean, _named, _rms


def spread_skill(name: str, *, grid: AbstractGrid | None = None) -> Metric:
    """√((M + 1)/M · ⟨s²⟩) / √⟨(p̄ − t)²⟩, s² the unbiased variance of M members, p̄ their mean: 0-d.

    One if members and truth are draws from one distribution, for any M; less where the ensemble is too sure. Means ⟨⟩
    run over layers, each over its own size as in `mse`, all leading axes and the area, of `grid` if given. Frames of
    many starts belong into one call, as a ratio of means is no mean of ratios. Prediction `[member, *lead, layer, y,
    x]`, target `[*lead, layer, y, x]`. Raises `ValueError` for less than two members and unequal shapes.
    Fortin, Abaza, Anctil and Turcotte (2014), doi:10.1175/JHM-D-14-0008.1, equation 15.
    """

    def metric(prediction, target):
        p, t = _ensemble(name, prediction, target, 2)
        size = _rms(t, (*range(t.ndim - 3), -2, -1))
        variance = jnp.var(p / size, 0, ddof=1)
        error = ((jnp.mean(p, 0) - t) / size) ** 2
        return jnp.sqrt((len(p) + 1) / len(p) * _mean(variance, grid) / _mean(error, grid))

    return metric


def rank_histogram(name: str, *, grid: AbstractGrid | None = None) -> Metric:
    """How often the truth has 0, 1, ... M members below it, `[M + 1]`, sum one; a tie counts as above.

    Flat where members and truth are draws from one distribution; a U where they are too close together, a slope where
    they are biased. Counted over all points (weighted by the area of `grid` if given), layers and leading axes; points
    of one frame are not independent. Shapes and errors as `spread_skill`, from one member on.
    Hamill (2001), doi:10.1175/1520-0493(2001)129<0550:IORHFV>2.0.CO;2.
    """

    def metric(prediction, target):
        p, t = _ensemble(name, prediction, target, 1)
        below = jnp.sum(p < t, 0)
        return jnp.stack([_mean((below == rank).astype(t.dtype), grid) for rank in range(len(p) + 1)])

    return metric


def brier(name: str, threshold: Numbers, *, grid: AbstractGrid | None = None) -> Metric:
    """Fair Brier score of the event x > `threshold`: mean of (i/M − o)² − i (M − i)/(M² (M − 1)), 0-d.

    i of M members have the event, o is one where the truth has it, else zero: i/M is the tail probability. Its mean is
    least where members and truth are draws from one distribution, for any M; the score of x <= threshold is the same.
    `threshold` in the unit of the field, a number or one per layer. Not differentiable. Shapes and errors as
    `spread_skill`. Ferro (2014), doi:10.1002/qj.2270, equation 5.
    """

    def metric(prediction, target):
        p, t = _ensemble(name, prediction, target, 2)
        level = jnp.asarray(threshold, t.dtype).reshape(-1, 1, 1)
        count, many = len(p), jnp.sum(p > level, 0).astype(t.dtype)
        happened = (t > level).astype(t.dtype)
        return _mean((many / count - happened) ** 2 - many * (count - many) / (count**2 * (count - 1)), grid)

    return metric


def _ensemble(name: str, prediction, target, least: int) -> tuple[Array, Array]:
    for label, fields in (("prediction", prediction), ("target", target)):
        _named(name, fields, f"the {label}")
    p, t = prediction[name], target[name]
    if p.ndim != t.ndim + 1 or p.shape[1:] != t.shape or len(p) < least:
        raise ValueError(
            f"{name}: the prediction needs [member, ...] with {least} members or more beside the target's {t.shape}; "
            f"got {p.shape}"
        )
    return p, t
