"""One process of a training: started by stages.py as `worker.py CASE CONFIG DATA OUT PARTS`, or by a launcher."""

import json
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from experiments._config import configure  # noqa: E402
from experiments.deeponet_parallel.config import PRESETS  # noqa: E402


def main(case, toml, data, out, parts):
    """Train, and have process 0 write times, losses, error and weights."""
    from hybridgcm.processes import join

    join()
    import equinox as eqx
    import jax
    import numpy as np
    import optax

    import hybridgcm as hg
    from experiments.deeponet_parallel import cases
    from hybridgcm.parallel import accumulated, everywhere, mesh, sharded

    config, _ = configure(PRESETS, ["--config", toml])
    with np.load(data) as file:
        problem = cases.make(case, config, {name: file[name].astype(np.float32) for name in file})
    over, split = mesh(*cases.shape(case, jax.device_count())), int(parts)

    def put(objective, axes):
        own = [name for name, places in axes.items() if places[0] == "branch"]
        return sharded(objective if split == 1 else accumulated(objective, split, own), over, axes)

    times = []
    model, log = hg.fit(
        everywhere(problem.network, over), problem.batches, problem.objective(put),
        optax.adam(optax.cosine_decay_schedule(config.rate, config.steps)), where=lambda m: m, key=jax.random.key(32),
        callback=lambda *_: times.append(time.perf_counter()),
    )  # fmt: skip
    if jax.process_index():
        return
    model = jax.tree.map(lambda a: np.asarray(a) if eqx.is_array(a) else a, model)
    weights = np.concatenate([np.ravel(a) for a in jax.tree.leaves(model) if isinstance(a, np.ndarray)])
    losses = [record["loss"] for record in log]
    np.savez(Path(out) / "trained.npz", weights=weights, losses=losses, times=np.diff(times)[1:])
    model = jax.tree.map(lambda a: jax.device_put(a) if isinstance(a, np.ndarray) else a, model)
    about = {"mesh": list(over.devices.shape), "error": problem.error(model), "weights": len(weights)}
    about |= {
        "seconds": float(np.median(np.diff(times)[1:])),
        "fastest": float(np.diff(times)[1:].min()),
        "loss": losses[-1],
        "skipped": log[-1]["skipped"],
    }
    (Path(out) / "worker.json").write_text(json.dumps(about))


if __name__ == "__main__":
    main(*sys.argv[1:])
