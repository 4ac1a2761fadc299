"""Fixtures of the command line's tests."""

import functools

import pytest
import zoo
from command_line import CommandLine

import tf_spline_prune as tsp


@pytest.fixture
def tool(capsys):
    """Give the command line, run in this process."""
    return CommandLine(capsys)


@pytest.fixture
def model(K):
    """Give a small model of each flavour."""
    return zoo.mlp(K)


@pytest.fixture
def saved(model, tmp_path):
    """Give the path of that model, saved."""
    path = tmp_path / "model.keras"
    model.save(path)
    return path


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory):
    """Give a folder that TFDS may fill."""
    return tmp_path_factory.mktemp("tfds")


@pytest.fixture
def quadrants(monkeypatch, data_dir):
    """Let data sets be kept in a folder of the tests; give `load`."""
    load = functools.partial(tsp.datasets.load, data_dir=data_dir)
    monkeypatch.setattr(tsp.datasets, "load", load)
    return load
