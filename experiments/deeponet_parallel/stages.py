"""Data of each case and one training for each number of processes, each made once."""

import dataclasses
import functools
import json
import os
import sys
from pathlib import Path

import numpy as np

from experiments._run import to_toml
from experiments.deeponet_parallel import cases
from hybridgcm.processes import start

WORKER = Path(__file__).with_name("worker.py")


def everything(run) -> dict:
    """{case: {"1", "1, accumulated", "2" ...: {"seconds", "error", "difference", ...}}}."""
    config, found = run.config, {}
    settings = dataclasses.asdict(config)
    shared = {name: value for name, value in settings.items() if name not in ("cases", "processes", "parts")}
    for case in config.cases:
        mine = {name: value for name, value in shared.items() if name.split("_")[0] in (case, name)}
        data = run.stage(f"data-{case}", {"case": case, **mine}, functools.partial(_data, config, case))
        runs = [("1", 1, 1), *((str(n), n, 1) for n in config.processes[1:])]
        runs[1:1] = [("1, accumulated", 1, config.parts)] if config.parts > 1 else []
        trained = {}
        for label, processes, parts in runs:
            inputs = {
                "case": case,
                "data": data,
                "processes": processes,
                "parts": parts,
                **mine,
                "cores": _cores(processes),
            }
            build = functools.partial(_train, config, case, data, processes, parts)
            folder = run.stage(f"{case}-{label.replace(', ', '-')}", inputs, build)
            trained[label] = json.loads((folder / "worker.json").read_text()) | {"folder": folder.name}
        one = _weights(run.folder / "stages" / trained["1"]["folder"])
        for about in trained.values():
            other = _weights(run.folder / "stages" / about["folder"])
            about["difference"] = float(np.abs(other - one).max() / np.abs(one).max())
        found[case] = trained
    return found


def _data(config, case, folder):
    np.savez(folder / "data.npz", **{name: np.asarray(a) for name, a in cases.DATA[case](config).items()})


def _train(config, case, data, processes, parts, folder):
    settings = folder / "config.toml"
    settings.write_text(to_toml(config))
    command = [sys.executable, str(WORKER), case, str(settings), str(data / "data.npz"), str(folder), str(parts)]
    start(command, processes, cores=_cores(processes), timeout=24 * 3600)


def _cores(processes: int) -> list[list[int]]:
    """A core for each process, in turn if there are not enough."""
    there = sorted(os.sched_getaffinity(0))
    return [[there[number % len(there)]] for number in range(processes)]


def _weights(folder):
    with np.load(folder / "trained.npz") as file:
        return file["weights"]
