"""Equation discovery: a closure that is a sum of few terms, found by regression over a library of operators."""

import json
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

import hybridgcm as hg
from hybridgcm.files import atomic
from hybridgcm.grids.base import scale

GAIN = 0.01
"""Share of the variance of S that a longer formula must explain more on the validation frames."""
LEGEND = (
    "dq is the tendency of one layer, s⁻². d = Δ∂, L = Δ²∇², div = d·, A(a) = ∇·(u a), Δ the grid spacing, u the "
    "velocity without the mean flow, zeta = ∂v/∂x − ∂u/∂y, |S| the rate of strain, r = √⟨zeta²⟩ of the layer, ZB the "
    "stress [[−zeta D, zeta G], [zeta G, zeta D]] of shear D and stretch G. Scales κΔ > .65 π are left out. "
    "Coefficients have no unit."
)


class Discovered(hg.AbstractClosure):
    """dq = Σ c T(q, u, v), T of the `library`, on the scales that pyqg's filter leaves alone, κΔ ≤ .65 π.

    The terms carry their powers of the grid spacing Δ and, where they need a rate, of r = √⟨ζ²⟩ of their layer, which
    is the rms of the rate of strain: `coefficients` `[term, layer]` have no unit and mean the same on every grid. No
    term holds the mean flow: the closure does not depend on the frame from which a flow is seen. Beyond the scales
    that it was fitted on it is zero, since powers of the Laplacian would be largest there.
    Reads q (s⁻¹), u, v (m s⁻¹) `[layer, y, x]`; returns q_hat (s⁻²). Conserves the mean of q.
    Raises `ValueError` for names that are no terms and coefficients that match neither terms nor layers.
    """

    terms: tuple[str, ...] = eqx.field(static=True)
    coefficients: Float[Array, "term layer"] = hg.param()

    def init(self, fields, grid):
        expected, known = (len(self.terms), len(fields["q"])), jax.eval_shape(lambda: library(fields, grid))
        if self.coefficients.shape != expected:
            raise ValueError(f"coefficients have shape {self.coefficients.shape}, expected [term, layer] {expected}")
        if unknown := [name for name in self.terms if name not in known]:
            raise ValueError(f"{unknown} are no terms; there are {list(known)}")
        return None

    def __call__(self, fields, grid, memory, key):
        terms = library(fields, grid)
        total = sum(scale(c[:, None, None], terms[name]) for c, name in zip(self.coefficients, self.terms, strict=True))
        return {"q_hat": scale(judged(grid), total)}, memory


def judged(grid) -> Float[Array, "l k"]:
    """1 for the modes that pyqg's filter leaves alone, but for the mean, else 0."""
    keep = (hg.exponential_filter(grid) == 1) & (grid.eigenvalues < 0) & (grid.multiplicity > 0)
    return keep.astype(grid.eigenvalues.dtype)


def library(fields, grid) -> dict[str, Array]:
    """The terms by their formulas (`LEGEND`), spectral `[layer, l, k]`, s⁻².

    Derivatives in grid spacings keep all numbers near those of u·∇q, which single precision holds. The terms are those
    of Ross et al. (2023), doi:10.1029/2022MS003258, here with a rate where their weights have units of time; of the
    gradient model and of Zanna and Bolton (2020), doi:10.1029/2020GL088376; and of eddy viscosities.
    What a formula does not use is not computed once it is compiled.
    """
    q, u, v, spacing = fields["q"], fields["u"], fields["v"], grid.spacing
    L = lambda a_hat, n=1: scale((grid.eigenvalues * spacing**2) ** n, a_hat)
    A = lambda a_hat: grid.divergence(u * grid.to_grid(a_hat), v * grid.to_grid(a_hat))
    d = lambda a_hat: spacing * jnp.stack(grid.gradient(a_hat))
    div = lambda flux: scale(spacing, grid.divergence(flux[0], flux[1]))
    q_hat, zeta_hat = grid.to_spectral(q), grid.curl(u, v)
    (u_x, v_x), (u_y, v_y) = grid.gradient(grid.to_spectral(jnp.stack([u, v])))
    zeta, shear, stretch = v_x - u_y, v_x + u_y, u_x - v_y
    strain, rate = _root(stretch**2 + shear**2), _root(jnp.mean(zeta**2, (-2, -1), keepdims=True))
    dq, dLq = d(q_hat), d(L(q_hat))
    along = lambda a_hat: scale(1 / rate, A(A(a_hat)))
    force = [grid.to_grid(div(row)) for row in ((-zeta * shear, zeta * stretch), (zeta * stretch, zeta * shear))]
    families = {
        "A(q)": (A(q_hat), (1, 2, 3)),
        "A(zeta)": (A(zeta_hat), (1, 2)),
        "r q": (scale(rate, q_hat), (1, 2, 3)),
        "r zeta": (scale(rate, zeta_hat), (1, 2, 3)),
        "div(∂u·dq)": (div((u_x * dq[0] + u_y * dq[1], v_x * dq[0] + v_y * dq[1])), (0, 1, 2)),
        "curl div(ZB)": (div((force[1], -force[0])), (0, 1)),
        "div(|S| dq)": (div(strain * dq), (0, 1)),
        "div(|dq| dq)": (div(_root(jnp.sum(dq**2, 0)) * dq), (0, 1)),
        "A(Lq)": (A(L(q_hat)), (0, 1)),
        "div(|S| dLq)": (div(strain * dLq), (0,)),
        "AA(q)/r": (along(q_hat), (1,)),
        "AA(L∂v/∂x)/r": (along(L(grid.to_spectral(v_x))), (0,)),
        "AA(L∂u/∂y)/r": (along(L(grid.to_spectral(u_y))), (0,)),
    }
    return {f"{'L' * n} {name}".strip(): L(a, n) for name, (a, powers) in families.items() for n in powers}


def discover(model: hg.Model, train: list[dict], validation: list[dict], folder: Path, every: int = 50) -> Discovered:
    """The closure of every `every`-th frame of `train`, as long as `validation` asks for; written to `folder`.

    Least squares over the judged modes, layer by layer, in double precision. From all terms the one that explains
    least beside the others is dropped, again and again; of all lengths the shortest is taken that explains of the
    validation frames what the best one does but for `GAIN`. `train` and `validation`: dicts {q (s⁻¹), S (s⁻²)}
    `[time, layer, y, x]`. Writes `formula.md`, to be read, and `formula.json`, which a second call gives back.
    """
    file = folder / "formula.json"
    if not file.exists():
        names, learned = _moments(model, train, every)
        _, checked = _moments(model, validation, every)
        found = [_select(*pair) for pair in zip(learned, checked, strict=True)]
        (folder / "formula.md").write_text(_described(names, found))
        used = [i for i in range(len(names)) if any(i in formula for formula, _ in found)]
        table = [[formula.get(i, 0.0) for formula, _ in found] for i in used]
        with atomic(file) as temporary:
            temporary.write_text(json.dumps({"terms": [names[i] for i in used], "coefficients": table}))
    known = json.loads(file.read_text())
    return Discovered(tuple(known["terms"]), known["coefficients"])


def _moments(model: hg.Model, data: list[dict], every: int) -> tuple[list[str], Float[np.ndarray, "layer all all"]]:
    """Names of the terms, and mean products of all terms and, last, S, per layer, over the judged modes."""
    grid = model.equation.grid
    names = list(
        jax.eval_shape(lambda y: library(model.equation.view(y), grid), model.encode({"q": data[0]["q"][0]}).y)
    )

    @jax.jit
    def columns(q, S):
        terms = library(model.equation.view({"q": grid.to_spectral(q)}), grid)
        weight = judged(grid) * jnp.sqrt(grid.multiplicity)
        return scale(weight, jnp.stack([*(terms[name] for name in names), grid.to_spectral(S)], 1))

    total, frames = 0.0, [pair for part in data for pair in zip(part["q"][::every], part["S"][::every], strict=True)]
    for q, S in frames:
        a = np.asarray(columns(q, S), complex)
        a = a.reshape(*a.shape[:2], -1)
        total = total + np.einsum("lim,ljm->lij", a, a.conj()).real
    return names, total / len(frames)


def _select(learned: np.ndarray, checked: np.ndarray) -> tuple[dict[int, float], list[tuple[int, float, float]]]:
    """{term: coefficient} of one layer, and of every length the shares of variance that it explains in both sets."""
    unit = 1 / np.sqrt(np.diag(learned))
    a, b = (m * unit * unit[:, None] for m in (learned, checked))
    explained = lambda m, terms, c: float(2 * c @ m[terms, -1] - c @ m[np.ix_(terms, terms)] @ c) / m[-1, -1]
    solve = lambda terms: np.linalg.lstsq(a[np.ix_(terms, terms)], a[terms, -1], rcond=1e-12)[0]
    terms, lengths = list(range(len(a) - 1)), []
    while terms:
        c = solve(terms)
        lengths.append((explained(b, terms, c), explained(a, terms, c), terms, c))
        # Solved again for each, since terms may be equal, as of q and zeta in one layer: then either may go.
        shorter = [[kept for kept in terms if kept != term] for term in terms] if len(terms) > 1 else [[]]
        terms = max(shorter, key=lambda kept: explained(a, kept, solve(kept)) if kept else 0.0)
    best = max(share for share, *_ in lengths)
    _, _, terms, c = next(length for length in reversed(lengths) if length[0] >= best - GAIN)
    formula = dict(zip(terms, (c * unit[terms] / unit[-1]).tolist(), strict=True))
    return formula, [(len(terms), on_train, on_validation) for on_validation, on_train, terms, _ in reversed(lengths)]


def _described(names: list[str], found: list) -> str:
    """The formulas of all layers, and what every length explains."""
    lines = ["# The closure that was found", "", LEGEND]
    for layer, (formula, lengths) in enumerate(found, 1):
        terms = [f"- {c:+.4g} · {names[i]}" for i, c in sorted(formula.items(), key=lambda item: item[0])]
        rows = [f"| {n} | {train:.4f} | {validation:.4f} |" for n, train, validation in lengths]
        head = ["", "| terms | R², training | R², validation |", "|---|---|---|"]
        lines += ["", f"## Layer {layer}: dq =", "", *terms, *head, *rows]
    return "\n".join(lines) + "\n"


def _root(square: Array) -> Array:
    """√square with a zero, not infinite, derivative where the flow is at rest."""
    return jnp.sqrt(jnp.maximum(square, jnp.finfo(square.dtype).tiny))
