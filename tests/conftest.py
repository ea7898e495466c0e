"""Settings of every test: double precision on, annotations checked while the tests run."""

import importlib.util
import os

import jax
import pytest
from jaxtyping import install_import_hook

if importlib.util.find_spec("beartype"):  # shapes and types of all annotations, at each call
    install_import_hook("hybridgcm", "beartype.beartype")
jax.config.update("jax_enable_x64", True)  # grids are float32 unless asked: nothing may be promoted
if os.environ.get("JAX_COMPILATION_CACHE_DIR"):  # opt-in: repeated local runs skip the compilations
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


@pytest.fixture(scope="module", autouse=True)
def forget_compiled_programs():
    """A whole run would otherwise hold some 5 GB of them per worker; hardly any is used by two modules."""
    yield
    jax.clear_caches()
