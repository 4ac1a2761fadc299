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


def test_the_rates_stand_above_the_map(tmp_path):
    matrix = np.ones((4, 4)) - np.eye(4)
    rates = [0.1, 0.1, 0.01, 0.001]
    axes = tsp.visualize.plot_distance_matrix(
        matrix, 1, tmp_path / "map.png", learning_rates=rates
    )
    strip = axes.child_axes[-1]
    values, edges, _ = strip.patches[0].get_data()
    np.testing.assert_array_equal(values, rates)
    np.testing.assert_array_equal(edges, [0.5, 1.5, 2.5, 3.5, 4.5])
    assert strip.get_xlim() == axes.get_xlim() and strip.get_yscale() == "log"
    assert "after epoch 2" in strip.get_title() and not axes.get_title()
    assert "rate" in strip.get_ylabel()
    flat = tsp.visualize.plot_distance_matrix(matrix, learning_rates=[0.1, 0, 0, 0])
    assert flat.child_axes[-1].get_yscale() == "linear"


@pytest.mark.parametrize(
    "rates",
    [[0.1], [0.1, -0.1], [0.1, np.nan], ["a", "b"]],
    ids=["one", "negative", "NaN", "words"],
)
def test_wrong_rates(rates, tmp_path):
    path = tmp_path / "map.png"
    with pytest.raises(ValueError, match="`learning_rates` must be 2 numbers"):
        tsp.visualize.plot_distance_matrix(
            np.zeros((2, 2)), path=path, learning_rates=rates
        )
    assert not path.exists()


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
    with pytest.raises(ValueError, match="Train with the callback"):
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
