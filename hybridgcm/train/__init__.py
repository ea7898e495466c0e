"""Training: what is minimised, and the loop that minimises it."""

from hybridgcm.train.fit import TrainingFailed as TrainingFailed
from hybridgcm.train.fit import fit as fit
from hybridgcm.train.objectives import Detached as Detached
from hybridgcm.train.objectives import offline as offline
from hybridgcm.train.objectives import online as online
from hybridgcm.train.objectives import perturbed as perturbed
