"""Settings of the foundation workflow: pre-train, shift, fine-tune. Units in every field's docstring."""

from dataclasses import dataclass, replace
from typing import Literal, get_args

System = Literal["poisson", "advection_diffusion", "helmholtz"]


@dataclass(frozen=True)
class Config:
    """Fourier neural operators pre-trained on one operator or a mix, and what that is worth on problems that differ."""

    n: int = 32
    """Points a side."""
    train: int = 4096
    """Pairs of each operator for pre-training."""
    tests: int = 256
    """Pairs of each problem for testing."""
    validation: int = 64
    """Pairs of each problem that say when training downstream was best."""
    channels: tuple[int, ...] = (8, 16, 20)
    """Of the networks, from the smallest to the main one, which is used wherever size is not the question."""
    modes: tuple[int, ...] = (4, 4, 8)
    """Of the networks, each sign."""
    layers: int = 4
    """Fourier layers of the networks."""
    batch: int = 32
    """Pairs a step; all of them where there are fewer."""
    pretrain_steps: int = 2500
    """Steps of pre-training on one operator; on the mix of them twice as many."""
    fine_steps: int = 300
    """Steps of fine-tuning."""
    scratch_steps: int = 1000
    """Steps of training from scratch downstream, at least as many as it takes: see the curves."""
    examples: tuple[int, ...] = (8, 32, 128, 512, 2048)
    """Downstream pairs at the medium shift of the first system; of the others all but the first and the last; other
    shifts and sizes: the middle one."""
    seeds: int = 3
    """Networks of each kind: other weights and order; pre-training pairs are the same, downstream pairs others."""
    systems: tuple[System, ...] = get_args(System)
    """The operators; the first has all curves."""

    def problems(self):
        """What does not fit together, one line each; empty if all is well."""
        for name in (
            "tests",
            "validation",
            "layers",
            "batch",
            "pretrain_steps",
            "fine_steps",
            "scratch_steps",
            "seeds",
        ):
            if getattr(self, name) < 1:
                yield f"{name} must be at least 1; got {getattr(self, name)}"
        if len(self.channels) != len(self.modes) or not self.channels:
            yield f"channels and modes pair up, a network each; got {self.channels} and {self.modes}"
        if self.train < self.batch:
            yield f"train={self.train} must be at least a batch, {self.batch}"
        if self.modes and 2 * max(self.modes) >= self.n:
            yield f"modes={self.modes} must be below Nyquist, {self.n // 2} at n={self.n}"
        if len(self.examples) < 3 or list(self.examples) != sorted(set(self.examples)) or self.examples[0] < 1:
            yield f"examples are at least three growing numbers of pairs; got {self.examples}"
        if not self.systems or len(set(self.systems)) != len(self.systems):
            yield f"systems must name at least one and each once; got {self.systems}"


LAPTOP = Config()
SMOKE = replace(
    LAPTOP, n=8, train=16, tests=4, validation=4, channels=(2, 4), modes=(1, 2), layers=1, batch=8, pretrain_steps=6,
    fine_steps=3, scratch_steps=4, examples=(4, 8, 16), seeds=1, systems=("poisson", "helmholtz"),
)  # fmt: skip
FULL = replace(
    LAPTOP, n=128, train=32768, tests=4096, validation=1024, channels=(16, 16, 32), modes=(4, 16, 32), batch=128,
    pretrain_steps=40_000, fine_steps=10_000, scratch_steps=40_000, examples=(8, 32, 128, 512, 2048, 8192), seeds=5,
)  # fmt: skip
PRESETS = {"laptop": LAPTOP, "smoke": SMOKE, "full": FULL}
