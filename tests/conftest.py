"""Settings of every test: double precision on, annotations checked while the tests run."""

import gc
import importlib.util
import os

import jax
import pytest
from jaxtyping import install_import_hook

if importlib.util.find_spec("beartype"):  # shapes and types of all annotations, at each call
    install_import_hook("hybridgcm", "beartype.beartype")
jax.config.update("jax_enable_x64", True)  # grids are float32 unless asked: nothing may be promoted
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
jax.config.update("jax_traceback_in_locations_limit", 0)  # lines of Python in compiled programs, which nobody reads
gc.set_threshold(50_000, 20, 50)  # traces are millions of small objects, and no rubbish

QUICKLY_COMPILED = "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false"
"""Without LLVM's optimisations and MLIR: a third of the time where programs run for less than they compile."""


def pytest_configure(config):
    """Programs are compiled quickly, but as users have them for `-m slow` and where XLA_FLAGS is set, say to "".

    They are kept beside pytest's own cache, for all workers and processes and for the next run.
    """
    if config.getoption("-m") == "not slow":
        os.environ.setdefault("XLA_FLAGS", QUICKLY_COMPILED)
    if config.pluginmanager.hasplugin("cacheprovider"):
        folder = os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(config.cache.mkdir("compiled")))
        jax.config.update("jax_compilation_cache_dir", folder)


@pytest.fixture(scope="module", autouse=True)
def forget_compiled_programs():
    """A whole run would otherwise hold some 5 GB of them per worker; hardly any is used by two modules."""
    yield
    jax.clear_caches()
