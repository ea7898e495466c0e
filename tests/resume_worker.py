"""A rollout or a training that may be killed: started by test_resume.py as `resume_worker.py rollout|fit FOLDER`."""

import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import optax

import hybridgcm as hg
from hybridgcm.batches import concatenate, windows
from hybridgcm.checkpoint import Checkpoints
from hybridgcm.fingerprint import digest
from hybridgcm.resume import resumable_rollout
from hybridgcm.train.fit import fit
from hybridgcm.train.objectives import online


class Noisy(hg.AbstractClosure):
    """Viscosity, plus noise that remembers: dq = nu lap q + pattern, with every kind of thing that a restart needs."""

    nu: jax.Array = hg.param()
    net: eqx.nn.Conv2d

    def init(self, fields, grid):
        return 0 * fields["q"]

    def __call__(self, fields, grid, memory, key):
        memory = 0.9 * memory + 1e-12 * jr.normal(key, memory.shape, memory.dtype)
        smooth = grid.to_grid(grid.laplacian(grid.to_spectral(fields["q"])))
        return {"q": self.nu * smooth + memory + 1e-8 * self.net(fields["q"])}, memory


def flow():
    grid = hg.Torus(32, 1e6)
    net = eqx.nn.Conv2d(2, 2, 3, padding="SAME", padding_mode="CIRCULAR", dtype=jnp.float32, key=jr.key(8))
    qg = hg.QuasiGeostrophic.two_layer(grid, tau=6 * 3600.0)
    model = hg.Model(qg, hg.AB3(), Noisy(100.0, net), dt=1800.0)
    return model, model.encode({"q": 5e-6 * jr.normal(jr.key(0), (2, 32, 32), jnp.float32)}, jr.key(1))


def rollout(folder):
    model, state = flow()
    print("ready", flush=True)
    energy = lambda m, s: {"energy": jnp.mean(m.view(s)["u"] ** 2)}
    options = {"every": 5, "chunk": 4, "mean": energy, "attrs": {"title": "kill test"}}
    step = lambda state, frames: print(int(state.step), flush=True)
    return resumable_rollout(model, state, 800, folder, callback=step, **options)


def training(folder):
    model, state = flow()
    _, out = eqx.filter_jit(hg.rollout)(model, state, 30)
    truth = {"q": out["save"]["q"]}
    batches = concatenate(windows(truth, 2, 2, 60, jr.key(2)), windows(truth, 4, 2, 60, jr.key(3)))
    print("ready", flush=True)
    loss = lambda prediction, target: jnp.mean((1e5 * (prediction["q"] - target["q"])) ** 2)
    optimiser = optax.adamw(optax.cosine_decay_schedule(1e-2, 120))
    step = lambda index, model, record: print(index, flush=True)
    checkpoints = Checkpoints(folder, fingerprint={"config": "test"})
    where = {"where": lambda m: m.closure, "key": jr.key(4)}
    start = eqx.tree_at(lambda m: m.closure.nu, model, 0.5 * model.closure.nu)
    return fit(start, batches, online(loss), optimiser, callback=step, checkpoints=checkpoints, every=4, **where)


if __name__ == "__main__":
    jobs = {"rollout": rollout, "fit": training}
    print("done", digest(jobs[sys.argv[1]](sys.argv[2])), flush=True)
