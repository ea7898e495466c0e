"""One time step of any equation."""

from hybridgcm.steppers.adapter import FromDiffrax as FromDiffrax
from hybridgcm.steppers.base import AbstractStepper as AbstractStepper
from hybridgcm.steppers.explicit import AB3 as AB3
from hybridgcm.steppers.explicit import RK4 as RK4
from hybridgcm.steppers.exponential import ETDRK4 as ETDRK4
from hybridgcm.steppers.filtered import Filtered as Filtered
from hybridgcm.steppers.filtered import exponential_filter as exponential_filter
from hybridgcm.steppers.semi_implicit import BPR353 as BPR353
from hybridgcm.steppers.semi_implicit import SIL3 as SIL3
from hybridgcm.steppers.semi_implicit import SemiImplicitLeapfrog as SemiImplicitLeapfrog
