"""Fixtures that all tests share."""

import gc
import os
import pathlib
import sys
import tempfile

# Hypothesis keeps what it has seen; not in the project.
_SEEN = pathlib.Path(tempfile.gettempdir(), "hypothesis")
os.environ.setdefault("HYPOTHESIS_STORAGE_DIRECTORY", str(_SEEN))

import pytest  # noqa: E402

# `zoo` is imported by name.
sys.path.insert(0, str(pathlib.Path(__file__).parent))


@pytest.fixture(params=["keras", "tf_keras"])
def K(request):
    """Give the Keras package of each flavour, with a fresh session and a seed."""
    import importlib

    module = importlib.import_module(request.param)
    module.utils.set_random_seed(0)
    return module


@pytest.fixture(autouse=True)
def _clear_sessions():
    """Forget the layer names and graphs of the test before, in both flavours."""
    yield
    if "keras" in sys.modules:
        # Looking for garbage after every test would take half of the time.
        sys.modules["keras"].utils.clear_session(free_memory=False)
    if "tf_keras" in sys.modules:
        sys.modules["tf_keras"].backend.clear_session()


@pytest.fixture(autouse=True, scope="module")
def _free_memory():
    """Give back what the models of a file held."""
    yield
    gc.collect()
