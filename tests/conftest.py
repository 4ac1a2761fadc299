"""Fixtures that all tests share, and which tests a day runs."""

import contextlib
import datetime
import gc
import importlib
import os
import pathlib
import random
import sys
import tempfile
from unittest import mock

# Hypothesis keeps what it has seen; not in the project.
_SEEN = pathlib.Path(tempfile.gettempdir(), "hypothesis")
os.environ.setdefault("HYPOTHESIS_STORAGE_DIRECTORY", str(_SEEN))

import pytest  # noqa: E402

# `zoo` is imported by name.
sys.path.insert(0, str(pathlib.Path(__file__).parent))


# So many of the slow tests are drawn, unless all are asked for.
_DRAWN = 0.1
# The day draws; the processes of one run share it, also around midnight.
_DAY = os.environ.setdefault("SLOW_TESTS_OF", datetime.date.today().isoformat())


def pytest_addoption(parser):
    parser.addoption("--all", action="store_true", help="run all slow tests")


def pytest_configure(config):
    for marker in (
        "slow: a tenth of these is drawn; see --all",
        "both_flavours: tests in tf_keras are not slow here, as they are elsewhere",
        "new_kernels: draws with tf.random also in Keras 3; see the fixture K",
    ):
        config.addinivalue_line("markers", marker)


def pytest_report_header(config):
    if config.option.all:
        return "slow tests: all"
    return f"slow tests: those drawn by SLOW_TESTS_OF={_DAY}; all with --all"


def pytest_collection_modifyitems(config, items):
    """Draw the slow tests."""
    if config.option.all:
        return
    left = [item for item in items if _is_slow(item) and not _is_drawn(item)]
    if left:
        dropped = set(left)
        config.hook.pytest_deselected(items=left)
        items[:] = [item for item in items if item not in dropped]


def _is_slow(item):
    """Tell slow tests: those marked, and what is repeated in tf_keras."""
    if item.get_closest_marker("slow"):
        return True
    repeated = hasattr(item, "callspec") and "tf_keras" in item.callspec.id.split("-")
    return repeated and not item.get_closest_marker("both_flavours")


def _is_drawn(item):
    return random.Random(f"{_DAY} {item.nodeid}").random() < _DRAWN


def pytest_collection_finish():
    """Let collections of garbage pass over all that is imported, and be rarer."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


@contextlib.contextmanager
def _kernels_kept():
    """Let TensorFlow keep its kernels: making them anew takes a third of the time.

    A session that is cleared and a seed that is set throw them away, for those that
    draw random numbers hold a state. Keras 3 has none of these, tf_keras has.
    """
    if "tensorflow" not in sys.modules:
        yield
        return
    with mock.patch(
        "tensorflow.python.eager.context.pywrap_tfe.TFE_ContextClearCaches",
        lambda context: None,
    ):
        yield


@pytest.fixture(params=["keras", "tf_keras"])
def K(request):
    """Give the Keras package of each flavour, with a fresh session and a seed."""
    module = importlib.import_module(request.param)
    stateful = request.param == "tf_keras" or request.node.get_closest_marker(
        "new_kernels"
    )
    with contextlib.nullcontext() if stateful else _kernels_kept():
        module.utils.set_random_seed(0)
        yield module


@pytest.fixture
def unconverted(monkeypatch):
    """Let reports and comparisons convert nothing for LiteRT: most of their time."""

    def refuse(*arguments):
        raise importlib.import_module("tf_spline_prune").errors.ExportError("Not here.")

    monkeypatch.setattr("tf_spline_prune.litert._convert._traced", refuse)


@pytest.fixture(autouse=True)
def _clear_sessions():
    """Forget the layer names and graphs of the test before, in both flavours."""
    yield
    with _kernels_kept():
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
