"""Fixtures that all tests share."""

import datetime
import gc
import itertools
import math
import os
import pathlib
import sys
import tempfile
import zlib

# Hypothesis keeps what it has seen; not in the project.
_SEEN = pathlib.Path(tempfile.gettempdir(), "hypothesis")
os.environ.setdefault("HYPOTHESIS_STORAGE_DIRECTORY", str(_SEEN))

import pytest  # noqa: E402

# `zoo` is imported by name.
sys.path.insert(0, str(pathlib.Path(__file__).parent))


# Of the slow tests of each file so many are drawn, unless all are asked for.
_DRAWN = 0.1
# The day draws; the processes of one run share it, also around midnight.
_DAY = os.environ.setdefault("SLOW_TESTS_OF", datetime.date.today().isoformat())


def pytest_addoption(parser):
    parser.addoption("--all", action="store_true", help="run all slow tests")


def pytest_configure(config):
    config.addinivalue_line("markers", "slow: a tenth of these is drawn; see --all")


def pytest_report_header(config):
    if config.option.all:
        return "slow tests: all"
    return f"slow tests: those drawn by SLOW_TESTS_OF={_DAY}; all with --all"


def pytest_collection_modifyitems(config, items):
    """Draw the slow tests, at least one of each file."""
    if config.option.all:
        return
    left = []
    for _, group in itertools.groupby(items, key=lambda item: item.path):
        slow = [item for item in group if item.get_closest_marker("slow")]
        slow.sort(key=lambda item: zlib.crc32(f"{_DAY} {item.nodeid}".encode()))
        left += slow[math.ceil(_DRAWN * len(slow)) :]
    dropped = set(left)
    if dropped:
        config.hook.pytest_deselected(items=left)
        items[:] = [item for item in items if item not in dropped]


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
