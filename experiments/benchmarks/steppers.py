"""One table of all steppers: measured order, limits of stability, transforms per step.

    python experiments/benchmarks/steppers.py [--write]

prints it; with `--write` it replaces the one in docs/steppers.md. Everything is measured, in double precision:

- order: slope of the error of the nonlinear two-layer flow after four days against the time step, each stepper with
  its own start;
- limits: dy/dt = z y with z in F or in the equation's implicit part, for thousands of z dt side by side; the first
  that grows by more than a millionth per step;
- transforms: of a field of one layer in a step of two-layer flow, in the compiled step or, where that has loops,
  evaluations of the tendency as they happen, of ten transforms each.
"""

import sys
from pathlib import Path
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import hybridgcm as hg  # noqa: E402
from experiments.benchmarks import cases  # noqa: E402

PAGE = Path(__file__).resolve().parents[2] / "docs/steppers.md"
MARKS = "<!-- measured -->\n", "<!-- end -->"
DAYS = 4
STEPS = 2000
"""Steps over which the power of linear modes is averaged, twice."""


def steppers() -> dict:
    """{name: (stepper, numbers of steps between which the order is measured)}."""
    import diffrax

    adapted = hg.steppers.FromDiffrax
    return {
        "AB3": (hg.AB3(), (256, 512, 1024)),
        "RK4": (hg.RK4(), (16, 32, 64)),
        "SIL3": (hg.SIL3(), (64, 128, 256)),
        "BPR353": (hg.steppers.BPR353(), (32, 64, 128)),
        "ETDRK4": (hg.ETDRK4(), (16, 32, 64)),
        "SemiImplicitLeapfrog, no filter": (hg.SemiImplicitLeapfrog(robert=0.0), (64, 128, 256)),
        "SemiImplicitLeapfrog, RAW": (hg.SemiImplicitLeapfrog(), (64, 128, 256)),
        "SemiImplicitLeapfrog, Robert–Asselin": (hg.SemiImplicitLeapfrog(williams=1.0), (64, 128, 256)),
        "FromDiffrax(Dopri5)": (adapted(diffrax.Dopri5()), (24, 36, 48)),
    }


class Linear(hg.AbstractEquation):
    """dy/dt = slow y + stiff y, one rate (s-1, complex) per mode; `stiff` is the implicit part."""

    prognostic: ClassVar[tuple[str, ...]] = ("a",)
    grid: hg.AbstractGrid
    slow: jax.Array
    stiff: jax.Array
    layers: int = eqx.field(default=1, static=True)

    def view(self, y):
        return {"a": self.grid.to_grid(y["a"])}

    def explicit(self, t, y):
        return {"a": self.slow * y["a"]}

    def implicit(self, y):
        return {"a": self.stiff * y["a"]}

    def solve(self, y, a):
        return {"a": y["a"] / (1 - a * self.stiff)}

    def lift(self, forcing):
        raise ValueError(f"Linear takes no forcing; got {sorted(forcing)}")


@eqx.filter_jit
def integrate(stepper, equation, carry, dt, steps):
    """(y, past) after `steps` steps of dt seconds."""
    F = lambda offset, y: equation.explicit(offset, y)
    return jax.lax.fori_loop(0, steps, lambda _, carry: stepper(F, equation, *carry, dt), carry)


@eqx.filter_jit
def power(stepper, equation, carry):
    """(y, past) after `STEPS` steps of one second, and the mean of |y|² over them."""

    def advance(_, carry):
        *carry, total = carry
        y, past = stepper(equation.explicit, equation, *carry, 1.0)
        return y, past, total + jnp.abs(y["a"]) ** 2

    *carry, total = jax.lax.fori_loop(0, STEPS, advance, (*carry, jnp.zeros(carry[0]["a"].shape)))
    return carry, total.ravel() / STEPS


def flow() -> tuple:
    """Two-layer flow with dissipation on 16², and a smooth start of 1.5e-5 s-1."""
    grid = hg.Torus(16, cases.LENGTH, dtype=jnp.float64)
    equation = hg.QuasiGeostrophic.two_layer(grid, U=(0.1, 0.0), tau=5 * 86400.0, order=2)
    return equation, {"q": grid.to_spectral(3 * jnp.asarray(cases.start(16)))}


def order(stepper, counts) -> float:
    """Slope of the largest error of q against the time step."""
    equation, y = flow()

    def end(stepper, steps):
        dt = jnp.asarray(DAYS * 86400.0 / steps)
        return integrate(stepper, equation, (y, stepper.init(y)), dt, jnp.asarray(steps))[0]["q"]

    exact = end(hg.RK4(), 2048)
    errors = [float(jnp.max(jnp.abs(end(stepper, n) - exact))) for n in counts]
    return -float(np.polyfit(np.log(counts), np.log(errors), 1)[0])


def limits(stepper) -> list[float]:
    """Largest stable |z| dt: waves and damping in F, waves and damping in the implicit part; at most a million."""
    grid = hg.Torus(64, 1.0, dtype=jnp.float64)
    shape = grid.spectral_shape
    rates = {"slow": np.linspace(0.01, 4, np.prod(shape)), "stiff": np.logspace(-2, 6, np.prod(shape))}
    out = []
    for place in rates:
        for direction in (1j, -1):
            zero = jnp.zeros(shape, complex)
            rate = jnp.asarray(direction * rates[place].reshape(shape))
            equation = Linear(grid, **{"slow": zero, "stiff": zero, place: rate})
            y = {"a": jnp.ones((1, *shape), complex)}
            carry, before = power(stepper, equation, (y, stepper.init(y)))
            stable = np.asarray(power(stepper, equation, carry)[1] <= before * (1 + 1e-6) ** (2 * STEPS) + 1e-300)
            first = len(stable) if stable.all() else int(np.argmin(stable))
            out.append(float(rates[place][first - 1]) if first else 0.0)
    return out


def evaluations(stepper) -> int:
    """How often a step calls the tendency."""
    equation, y = flow()
    calls = []

    def F(offset, y):
        jax.debug.callback(lambda: calls.append(None))
        return equation.explicit(offset, y)

    end = eqx.filter_jit(lambda stepper, y: stepper(F, equation, y, stepper.init(y), 3600.0)[0])(stepper, y)
    jax.block_until_ready(end)
    jax.effects_barrier()
    return len(calls)


def transforms(stepper) -> int:
    """Two-dimensional real transforms of one field of one layer in a step of the two-layer flow."""
    equation, y = flow()
    call = lambda stepper, equation, y: stepper(equation.explicit, equation, y, stepper.init(y), 3600.0)
    text = eqx.filter_jit(call).lower(stepper, equation, y).compile().compiled.as_text()
    return 10 * evaluations(stepper) if " while(" in text else cases.count_transforms(text)


def markdown(names=None) -> str:
    """The table, of all steppers or of some."""
    heads = "stepper", "order", "waves", "damping", "implicit waves", "implicit damping", "transforms"
    rows = [heads, ["---"] + ["---:"] * (len(heads) - 1)]
    limit = lambda x: "any" if x > 9e5 else f"{x:.2g}" if x < 0.1 else f"{x:.2f}"
    for name, (stepper, counts) in steppers().items():
        if names is None or name in names:
            found = [f"{order(stepper, counts):.1f}", *map(limit, limits(stepper)), str(transforms(stepper))]
            rows.append([f"`{name}`" if name.isalnum() else name, *found])
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def written() -> str:
    """The table in the documentation."""
    return PAGE.read_text().split(MARKS[0])[1].split(MARKS[1])[0]


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    measured = markdown()
    print(measured)
    if "--write" in sys.argv:
        before, after = PAGE.read_text().split(MARKS[0])[0], PAGE.read_text().split(MARKS[1])[1]
        PAGE.write_text(before + MARKS[0] + measured + MARKS[1] + after)
