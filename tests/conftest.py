"""Fixtures that all tests share."""

import pathlib
import sys

import pytest

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
    for name in ("keras", "tf_keras"):
        if name in sys.modules:
            sys.modules[name].backend.clear_session()
