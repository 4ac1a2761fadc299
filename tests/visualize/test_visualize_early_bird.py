"""Pictures: what is drawn is what was given, and files appear whole."""

import sys

import numpy as np
import pytest
from matplotlib.figure import Figure

import tf_spline_prune as tsp


def test_the_map_shows_the_matrix(tmp_path):
    matrix = np.abs(np.subtract.outer(np.arange(6), np.arange(6))) / 10
    axes = tsp.visualize.plot_distance_matrix(matrix, 3, tmp_path / "map.png")
    drawn = np.asarray(axes.collections[0].get_array()).reshape(6, 6)
    np.testing.assert_array_equal(drawn, matrix)
    assert [line.get_xdata()[0] for line in axes.lines][0] == 4  # epochs count from 1
    assert (tmp_path / "map.png").read_bytes().startswith(b"\x89PNG")
    assert [p.name for p in tmp_path.iterdir()] == ["map.png"]


def test_the_curve_shows_the_records(tmp_path):
    records = {1: [0.4], 2: [0.3, 0.5], 3: [0.2, 0.25]}
    axes = tsp.visualize.plot_distance_curve(records, 0.16, 3, tmp_path / "curve.svg")
    lines = axes.lines
    np.testing.assert_array_equal(lines[0].get_xdata(), [2, 3, 4])
    np.testing.assert_array_equal(lines[0].get_ydata(), [0.4, 0.3, 0.2])
    np.testing.assert_array_equal(lines[1].get_ydata(), [np.nan, 0.5, 0.25])
    assert "<svg" in (tmp_path / "curve.svg").read_text()


def test_wrong_input(tmp_path):
    with pytest.raises(ValueError, match="square"):
        tsp.visualize.plot_distance_matrix(np.zeros((2, 3)), path=tmp_path / "map.png")
    with pytest.raises(ValueError, match="no records"):
        tsp.visualize.plot_distance_curve({})
    assert not list(tmp_path.iterdir())


def test_without_matplotlib(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"tf-spline-prune\[viz\]"):
        tsp.visualize.plot_distance_matrix(np.zeros((2, 2)))


def test_on_the_axes_of_the_caller(tmp_path):
    given = Figure().add_subplot(1, 2, 2)
    axes = tsp.visualize.plot_distance_curve(
        {1: [0.4]}, path=tmp_path / "c.png", axes=given
    )
    assert axes is given and len(given.figure.axes) == 1
    assert (tmp_path / "c.png").exists()
