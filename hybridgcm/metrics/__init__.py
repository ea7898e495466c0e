"""Losses of trajectories, and the published scores of climates."""

from hybridgcm.metrics.climates import Climate as Climate
from hybridgcm.metrics.climates import climate as climate
from hybridgcm.metrics.climates import frezat_errors as frezat_errors
from hybridgcm.metrics.climates import perezhogin_errors as perezhogin_errors
from hybridgcm.metrics.climates import pool as pool
from hybridgcm.metrics.climates import ross_similarities as ross_similarities
from hybridgcm.metrics.climates import wasserstein as wasserstein
from hybridgcm.metrics.ensembles import brier as brier
from hybridgcm.metrics.ensembles import rank_histogram as rank_histogram
from hybridgcm.metrics.ensembles import spread_skill as spread_skill
from hybridgcm.metrics.losses import Metric as Metric
from hybridgcm.metrics.losses import crps as crps
from hybridgcm.metrics.losses import discounted as discounted
from hybridgcm.metrics.losses import energy as energy
from hybridgcm.metrics.losses import energy_flux as energy_flux
from hybridgcm.metrics.losses import energy_spectrum as energy_spectrum
from hybridgcm.metrics.losses import mse as mse
from hybridgcm.metrics.losses import resolved as resolved
from hybridgcm.metrics.losses import rmse as rmse
from hybridgcm.metrics.losses import spectral as spectral
from hybridgcm.metrics.losses import statistics as statistics
from hybridgcm.metrics.losses import transfers as transfers
from hybridgcm.metrics.losses import variance as variance
from hybridgcm.metrics.losses import weighted as weighted
from hybridgcm.metrics.norms import h1 as h1
from hybridgcm.metrics.norms import lp as lp
