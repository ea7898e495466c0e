"""Discretisations: one vector-calculus vocabulary for every domain."""

from hybridgcm.grids.base import AbstractGrid as AbstractGrid
from hybridgcm.grids.torus import Torus as Torus
