"""The problems: an operator, what its coefficients are drawn from before and after the shift, and their pairs."""

import functools

import jax.random as jr
import numpy as np

from hybridgcm import pairs

NAMES = {"poisson": ("f", "k"), "advection_diffusion": ("f", "k", "v"), "helmholtz": ("f", "k", "w")}
"""Fields that a network of one operator reads. Helmholtz's `k` is always the same, and yet it is needed: inputs come
over the size of the source, and this channel tells which size that was."""
MIXED = ("f", "k", "v", "w")
"""Fields that a network of all operators reads."""
DRAWN = {
    "poisson": ("anisotropy", {"before": (1, 5), "none": (1, 2.5), "mild": (2.5, 7.5), "medium": (5, 10),
                               "large": (10, 20)}),
    "advection_diffusion": ("ratio", {"before": (0.2, 1), "none": (0.2, 0.4), "medium": (1, 2), "large": (2, 5)}),
    "helmholtz": ("frequency", {"before": (1, 10), "none": (1, 5), "medium": (10, 15)}),
}  # fmt: skip
"""Argument of the generator and its range in pre-training and after each shift: table 1 of Subramanian et al. (2023),
but for Helmholtz's medium one, which they do not print. Their mild one of advection-diffusion is that of none."""
TITLES = {"poisson": "Poisson", "advection_diffusion": "advection–diffusion", "helmholtz": "Helmholtz"}


@functools.lru_cache(maxsize=12)
def problem(system: str, shift: str, part: str, n: int, samples: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Pairs of one part ("train", "validation" or "test") of a problem; those of any two parts are independent."""
    name, ranges = DRAWN[system]
    number = [list(DRAWN).index(system), list(ranges).index(shift), ["train", "validation", "test"].index(part), seed]
    key = functools.reduce(jr.fold_in, number, jr.key(23))
    return getattr(pairs, system)(n, samples, key, **{name: ranges[shift]})


def stacked(fields: dict[str, np.ndarray], names: tuple[str, ...]) -> np.ndarray:
    """A network's inputs, `[sample, channel, y, x]`."""
    return np.concatenate([fields[name] for name in names], 1)


def mixed(parts: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Pairs of several operators in one."""
    return {name: np.concatenate([part[name] for part in parts]) for name in (*MIXED, "u")}
