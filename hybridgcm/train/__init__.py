"""Training: what is minimised, and the loop that minimises it."""

from hybridgcm.train.callbacks import Averaged as Averaged
from hybridgcm.train.callbacks import EarlyStopping as EarlyStopping
from hybridgcm.train.callbacks import Log as Log
from hybridgcm.train.callbacks import Together as Together
from hybridgcm.train.callbacks import read_log as read_log
from hybridgcm.train.eki import eki as eki
from hybridgcm.train.fit import TrainingFailed as TrainingFailed
from hybridgcm.train.fit import fit as fit
from hybridgcm.train.objectives import Detached as Detached
from hybridgcm.train.objectives import StraightThrough as StraightThrough
from hybridgcm.train.objectives import augmented as augmented
from hybridgcm.train.objectives import offline as offline
from hybridgcm.train.objectives import online as online
from hybridgcm.train.objectives import perturbed as perturbed
from hybridgcm.train.objectives import supervised as supervised
from hybridgcm.train.preflight import choose_chunk as choose_chunk
from hybridgcm.train.preflight import gradient_norms as gradient_norms
from hybridgcm.train.preflight import memory as memory
