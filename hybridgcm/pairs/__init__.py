"""Pairs that operator learning is tried on: Darcy flow, Burgers' equation, elliptic problems and flows, made or read.

Pairs are {name: [sample, layer, y, x]}, as `batches.samples` draws from and `train.supervised` takes.
"""

from hybridgcm.pairs.burgers import TIMES as TIMES
from hybridgcm.pairs.burgers import burgers as burgers
from hybridgcm.pairs.burgers import solve_burgers as solve_burgers
from hybridgcm.pairs.darcy import PERMEABILITY as PERMEABILITY
from hybridgcm.pairs.darcy import darcy as darcy
from hybridgcm.pairs.darcy import solve_darcy as solve_darcy
from hybridgcm.pairs.elliptic import advection_diffusion as advection_diffusion
from hybridgcm.pairs.elliptic import elliptic_residual as elliptic_residual
from hybridgcm.pairs.elliptic import helmholtz as helmholtz
from hybridgcm.pairs.elliptic import poisson as poisson
from hybridgcm.pairs.elliptic import solve_elliptic as solve_elliptic
from hybridgcm.pairs.files import read_burgers as read_burgers
from hybridgcm.pairs.files import read_darcy as read_darcy
from hybridgcm.pairs.files import read_pdebench as read_pdebench
from hybridgcm.pairs.files import read_well as read_well
from hybridgcm.pairs.flows import gaussian as gaussian
from hybridgcm.pairs.flows import navier_stokes as navier_stokes
from hybridgcm.pairs.flows import shallow_water as shallow_water
