"""Forcings from resolved fields."""

from hybridgcm.closures.base import AbstractClosure as AbstractClosure
from hybridgcm.closures.base import Scaled as Scaled
from hybridgcm.closures.base import Sum as Sum
from hybridgcm.closures.classical import BiharmonicBackscatter as BiharmonicBackscatter
from hybridgcm.closures.classical import Leith as Leith
from hybridgcm.closures.classical import Smagorinsky as Smagorinsky
from hybridgcm.closures.classical import ZannaBolton as ZannaBolton
from hybridgcm.closures.network import NetworkClosure as NetworkClosure
