"""Forcings from resolved fields."""

from hybridgcm.closures.base import AbstractClosure as AbstractClosure
from hybridgcm.closures.base import Cast as Cast
from hybridgcm.closures.base import Every as Every
from hybridgcm.closures.base import Scaled as Scaled
from hybridgcm.closures.base import Sum as Sum
from hybridgcm.closures.bias import BiasCorrection as BiasCorrection
from hybridgcm.closures.classical import BiharmonicBackscatter as BiharmonicBackscatter
from hybridgcm.closures.classical import GradientModel as GradientModel
from hybridgcm.closures.classical import Hyperviscosity as Hyperviscosity
from hybridgcm.closures.classical import Leith as Leith
from hybridgcm.closures.classical import Smagorinsky as Smagorinsky
from hybridgcm.closures.classical import ZannaBolton as ZannaBolton
from hybridgcm.closures.constraints import EnergyNeutral as EnergyNeutral
from hybridgcm.closures.constraints import Equivariant as Equivariant
from hybridgcm.closures.constraints import FluxForm as FluxForm
from hybridgcm.closures.failsafe import FailSafe as FailSafe
from hybridgcm.closures.forcings import GrahamRingler as GrahamRingler
from hybridgcm.closures.forcings import Kolmogorov as Kolmogorov
from hybridgcm.closures.forcings import Relaxation as Relaxation
from hybridgcm.closures.forcings import RingForcing as RingForcing
from hybridgcm.closures.forcings import Sponge as Sponge
from hybridgcm.closures.network import NetworkClosure as NetworkClosure
from hybridgcm.closures.stochastic import AR1 as AR1
from hybridgcm.closures.stochastic import SPPT as SPPT
