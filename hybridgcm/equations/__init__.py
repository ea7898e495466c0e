"""Right-hand sides that run on any grid."""

from hybridgcm.equations.base import AbstractEquation as AbstractEquation
from hybridgcm.equations.base import SurrogateEquation as SurrogateEquation
from hybridgcm.equations.qg import QuasiGeostrophic as QuasiGeostrophic
from hybridgcm.equations.sqg import SurfaceQuasiGeostrophic as SurfaceQuasiGeostrophic
from hybridgcm.equations.swe import ShallowWater as ShallowWater
from hybridgcm.equations.tracers import Tracers as Tracers
