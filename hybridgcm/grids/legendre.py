"""Gauss-Legendre nodes and associated Legendre functions in extended precision, on the host."""

import numpy as np

EXTENDED = np.longdouble
"""80 bits where the machine has them. The weights of SciPy and NumPy are off by 1e-9 at 512 nodes, these by 1e-16."""


def gauss_legendre(n: int) -> tuple[np.ndarray, np.ndarray]:
    """(μ, w): the n nodes in (−1, 1) and the weights, which sum to 2, exact for polynomials of degree 2n − 1.

    Newton's method on the recurrence of P_n, from Tricomi's guess. Raises `ValueError` for n < 1.
    """
    if n < 1:
        raise ValueError(f"quadrature needs at least one node; got {n}")
    i = np.arange(1, n + 1, dtype=EXTENDED)
    pi = EXTENDED("3.14159265358979323846264338327950288")
    mu = -np.cos(pi * (i - EXTENDED(0.25)) / (n + EXTENDED(0.5)))
    for _ in range(6):
        value, slope = _legendre(n, mu)
        mu = mu - value / slope
    mu = (mu - mu[::-1]) / 2  # symmetric to the last bit, as folding about the equator takes for granted
    _, slope = _legendre(n, mu)
    weights = 2 / ((1 - mu**2) * slope**2)
    return mu, (weights + weights[::-1]) / 2


def _legendre(n: int, mu: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """P_n and its derivative."""
    before, value = np.zeros_like(mu), np.ones_like(mu)
    for l in range(1, n + 1):  # noqa: E741 - the field's name for it
        before, value = value, ((2 * l - 1) * mu * value - (l - 1) * before) / l
    return value, n * (before - mu * value) / (1 - mu**2)


def coupling(degree: np.ndarray, order: np.ndarray) -> np.ndarray:
    """ε = √((l² − m²)/(4l² − 1)), of μ P_lm = ε_(l+1)m P_(l+1)m + ε_lm P_(l−1)m; zero for l <= m."""
    l, m = np.asarray(degree, EXTENDED), np.asarray(order, EXTENDED)  # noqa: E741
    return np.sqrt(np.maximum(l**2 - m**2, 0) / (4 * l**2 - 1))


def associated(truncation: int, mu: np.ndarray) -> np.ndarray:
    """P_lm(μ) as `[parity, m, j, μ]`, l = m + 2j + parity, for m <= truncation and l <= truncation + 1; else zero.

    ½∫P_lm² dμ = 1, positive for μ → 1 (no Condon-Shortley phase): P_00 = 1, P_10 = √3 μ, P_11 = √(3/2) √(1 − μ²).
    Recurrence in l, from P_mm; Holmes and Featherstone (2002), doi:10.1007/s00190-002-0216-2, equations 11 to 13.
    """
    mu, orders = np.asarray(mu, EXTENDED), np.arange(truncation + 1)
    table = np.zeros((2, truncation + 1, (truncation + 3) // 2, len(mu)))
    m = orders.astype(EXTENDED)
    ratios = np.sqrt((2 * m[1:] + 1) / (2 * m[1:]))
    top = np.concatenate([np.ones(1, EXTENDED), np.cumprod(ratios)])[:, None] * np.sqrt(1 - mu**2) ** orders[:, None]
    before, value = np.zeros_like(top), top
    for n in range(truncation + 2):  # n = l - m
        table[n % 2, :, n // 2] = np.where(orders[:, None] + n <= truncation + 1, value, 0)
        l = orders + n  # noqa: E741
        step = mu * value - coupling(l, orders)[:, None] * before
        before, value = value, step / coupling(l + 1, orders)[:, None]
    return table


def latitudes(truncation: int, products: int) -> int:
    """The smallest even number of latitudes that is exact, with twice as many longitudes a product of 2, 3 and 5."""
    rows = 2 * -(-(products * truncation + 1) // 4)
    while np.prod([p ** _power(rows, p) for p in (2, 3, 5)]) != rows:
        rows += 2
    return rows


def _power(n: int, prime: int) -> int:
    return 0 if n % prime else 1 + _power(n // prime, prime)


def by_degree(truncation: int, first: int, last: int) -> tuple[np.ndarray, np.ndarray]:
    """Places in a flat spectral array of a `Sphere` of `[degree, order]`, degrees `first` to `last`, and the inverse.

    The inverse is `[l, k]`, places in the flat array by degree. What is not there has the place behind the end: put a
    zero behind both arrays.
    """
    l, m = np.arange(first, last + 1)[:, None], np.arange(last + 1)  # noqa: E741
    rows, columns = 2 * (truncation + 1), (truncation + 3) // 2
    here = np.where(m <= l, ((l - m) % 2 * (rows // 2) + m) * columns + (l - m) // 2, rows * columns)
    there = np.full(rows * columns + 1, here.size)
    there[here] = np.arange(here.size).reshape(here.shape)
    return here, there[:-1].reshape(rows, columns)
