"""An ensemble forecast that may be killed: started by test_forecast.py as `forecast_worker.py FOLDER`."""

import sys

import jax.numpy as jnp
import jax.random as jr

import hybridgcm as hg
from hybridgcm import closures, perturbations


def flow():
    """A two-layer model with a stochastic closure, and two starts of it."""
    grid = hg.Torus(16, 5e5)
    closure = closures.AR1((1e-12, 1e-13), scale=1e5, tau=7200.0, dt=1800.0)
    qg = hg.QuasiGeostrophic.two_layer(grid, tau=6 * 3600.0)
    q = 5e-6 * jr.normal(jr.key(0), (2, 2, 16, 16), jnp.float32)
    return hg.Model(qg, hg.AB3(), closure, dt=1800.0), {"q": q, "time": [3600.0, 86400.0]}


def energy(model, state):
    return hg.diagnostics.energy(model, state)


def run(store, members=3, steps=240, **options):
    model, starts = flow()
    options = {"perturb": perturbations.noise(1e-7), "diagnostics": {"energy": energy}} | options
    return hg.forecast(model, starts, steps, every=10, members=members, key=jr.key(1), store=store, **options)


if __name__ == "__main__":
    print("ready", flush=True)
    run(sys.argv[1])
    print("done", flush=True)
