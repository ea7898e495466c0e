"""Settings of the training of DeepONets by several processes. Units in every field's docstring."""

from dataclasses import dataclass, replace
from typing import Literal, get_args

Name = Literal["burgers", "darcy", "shallow"]


@dataclass(frozen=True)
class Config:
    """DeepONets trained by 1, 2 ... processes: the same weights, and how much sooner."""

    cases: tuple[Name, ...] = get_args(Name)
    """Burgers' equation without data, functions split; Darcy flow, queries split; shallow water, both split."""
    processes: tuple[int, ...] = (1, 2, 4)
    """Numbers of processes, the first of them 1, each with a core of its own as long as there are some."""
    parts: int = 4
    """Parts of the batch in the run of one process that accumulates gradients; 1 for no such run."""
    steps: int = 100
    """Training steps of each run; all but the first two are timed."""
    width: int = 100
    """Of hidden layers, and the rank."""
    depth: int = 4
    """Hidden layers of every branch and trunk."""
    rate: float = 1e-3
    """Of Adam at the start; it falls as a cosine."""
    functions: int = 64
    """Input functions in a batch."""
    samples: int = 400
    """Input functions that are trained on."""
    tests: int = 20
    """Input functions that are tested."""
    burgers_sensors: int = 128
    """Points of the initial values of Burgers' equation, a divisor of 256."""
    burgers_points: int = 32
    """Points (t, x) of each function, drawn anew in every step, where its residual is asked for."""
    darcy_n: int = 32
    """Points a side of the permeability, which are the queries too."""
    shallow_n: int = 32
    """Points a side of the initial height."""
    shallow_times: int = 12
    """Times, half an hour apart, at which the height is asked for, at every point."""
    shallow_queries: int = 8192
    """Of these points in time and space, drawn anew in every step."""

    def problems(self):
        """What does not fit together, one line each; empty if all is well."""
        counts = {name: value for name, value in vars(self).items() if isinstance(value, int)}
        for name, value in counts.items():
            if value < 1:
                yield f"{name} must be at least 1; got {value}"
        if not self.cases or len(set(self.cases)) != len(self.cases):
            yield f"cases must name at least one and each once; got {self.cases}"
        if self.processes[:1] != (1,) or sorted(set(self.processes)) != list(self.processes):
            yield f"processes must begin with 1, which all others are compared with, and grow; got {self.processes}"
        if self.steps < 4:
            yield f"steps={self.steps} must be at least 4: the first two are not timed"
        if self.functions > self.samples or self.functions % max(self.parts, 1):
            yield f"functions={self.functions} must be a multiple of parts={self.parts}, at most {self.samples}"
        if self.burgers_sensors < 4 or 256 % self.burgers_sensors:
            yield f"burgers_sensors={self.burgers_sensors} must be a power of two from 4 to 256"
        if self.shallow_queries > self.shallow_times * self.shallow_n**2:
            yield f"shallow_queries={self.shallow_queries} are more than there are points in time and space"


LAPTOP = Config()
SMOKE = replace(
    LAPTOP, processes=(1, 2), parts=2, steps=5, width=8, depth=1, functions=6, samples=8, tests=2, burgers_sensors=16,
    burgers_points=5, darcy_n=4, shallow_n=8, shallow_times=3, shallow_queries=25,
)  # fmt: skip
FULL = replace(
    LAPTOP, processes=(1, 2, 4, 8), parts=8, steps=2000, depth=7, functions=1000, samples=2000, burgers_sensors=128,
    burgers_points=10_000, darcy_n=100, shallow_n=256, shallow_times=72, shallow_queries=72 * 256**2,
)  # fmt: skip
"""Sizes of the talk: 2,000 initial values by 101 by 101 points, 100² permeabilities, heights at 72 times of 256²."""
PRESETS = {"laptop": LAPTOP, "smoke": SMOKE, "full": FULL}
