"""Settings of the standard cases. Units in every field's docstring; defaults are the `laptop` preset."""

from dataclasses import dataclass, replace
from typing import Literal, get_args

Name = Literal[
    "williamson1", "williamson1_tilted", "williamson2", "williamson2_tilted", "williamson2_layers", "williamson5",
    "williamson6", "rossby_haurwitz", "galewsky_balanced", "galewsky", "gravity_wave",
]  # fmt: skip


@dataclass(frozen=True)
class Config:
    """Standard cases on the sphere: error norms beside exact answers, finer runs and published numbers."""

    truncations: tuple[int, ...] = (42, 85)
    """Triangular truncations; where a case has no exact answer, the largest is the reference of the others."""
    precisions: tuple[Literal["float64", "float32"], ...] = ("float64", "float32")
    """Of the models; the first is that of the reference. Norms are taken in double precision."""
    cases: tuple[Name, ...] = get_args(Name)
    """What is run."""
    dt: float = 600.0
    """Time step at T42, s; that of truncation T is shorter by 42.5/T, and a twelfth of a day holds a whole number."""
    turbulence: tuple[int, ...] = (42,)
    """Triangular truncations of stirred barotropic turbulence, in single precision."""
    days: int = 360
    """Of that turbulence; its statistics are those of the second half."""

    def problems(self):
        """What does not fit together, one line each; empty if all is well."""
        for name in ("truncations", "precisions", "cases", "turbulence"):
            values = getattr(self, name)
            if not values or len(set(values)) != len(values):
                yield f"{name} must name at least one and each once; got {values}"
        if self.turbulence and min(self.turbulence) < 21:
            yield f"turbulence must be at least 21: it is stirred at total degree 16; got {self.turbulence}"
        if self.days < 60:
            yield f"days={self.days} must be at least 60, two months"
        if self.truncations and min(self.truncations) < 10:
            yield f"truncations must be at least 10, below which the jets are not resolved; got {self.truncations}"
        if not 0 < self.dt <= 1800:
            yield f"dt={self.dt:g} s must be positive and at most 1800 s: jets blow up beyond"


LAPTOP = Config()
SMOKE = replace(
    LAPTOP, truncations=(21, 31), cases=("williamson2", "williamson5", "williamson6", "rossby_haurwitz", "galewsky"),
    turbulence=(31,),
)  # fmt: skip
FULL = replace(LAPTOP, truncations=(42, 85, 170), turbulence=(42, 85))
PRESETS = {"laptop": LAPTOP, "smoke": SMOKE, "full": FULL}
