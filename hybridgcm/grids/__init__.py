"""Discretisations: one vector-calculus vocabulary for every domain."""

from hybridgcm.grids.base import AbstractGrid as AbstractGrid
from hybridgcm.grids.sphere import Sphere as Sphere
from hybridgcm.grids.torus import Torus as Torus
