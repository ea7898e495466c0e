"""CNN online, loss of time-mean statistics over 32 days."""

import jax.numpy as jnp
import numpy as np

from experiments.closure_benchmark.training import offline_then_online
from hybridgcm import metrics


def closure(problem, seed, folder):
    """The offline network, trained on until 32-day means of energy spectra and energy flux are those of the truth.

    Half the time in which forecasts lose the flow: frames need not agree, only their means. Gradients go back two days:
    over longer ones they grow with the flow's sensitivity. Spectra count ring by ring, relative to the mean spectrum of
    the training frames; the flux as a whole.
    """
    each = round(16 * 3600 / problem.system.flow.frame)
    two_days = round(48 * 3600 / problem.system.dt)

    def loss(equation):
        spectrum, flux = metrics.energy_spectrum(equation), metrics.energy_flux(equation)
        some = np.concatenate([part["q"][::50] for part in problem.data.train])
        mean = jnp.mean(jnp.stack([spectrum({"q": jnp.asarray(q)}) for q in some]), 0)
        floor = jnp.finfo(mean.dtype).eps * jnp.sum(mean, -1, keepdims=True)
        spectra = metrics.statistics(spectrum, jnp.maximum(mean, floor))
        fluxes = metrics.statistics(flux)
        return lambda prediction, target: spectra(prediction, target) + fluxes(prediction, target)

    return offline_then_online(
        problem, seed, folder, frames=(48,), apart=each, steps=(60,), batch=4, rate=(5e-4,), loss=loss, cut=two_days
    )
