"""Curves of local complexity: what is drawn is what was given."""

import sys

import numpy as np
import pytest

import tf_spline_prune as tsp

CURVES = {"train": [3.0, 2.0, 2.5], "random": [1.0, np.nan, 1.5]}
# What was not measured is left out, so that the line goes on.
DRAWN = {"train": ([1, 2, 3], [3.0, 2.0, 2.5]), "random": ([1, 3], [1.0, 1.5])}


def check(axes):
    for line, (name, (epochs, values)) in zip(axes.lines, DRAWN.items(), strict=False):
        np.testing.assert_array_equal(line.get_xdata(), epochs)
        np.testing.assert_array_equal(line.get_ydata(), values)
        assert line.get_label() == name
    names = [text.get_text() for text in axes.get_legend().get_texts()]
    assert names == list(CURVES)


def test_curves_are_drawn_epoch_by_epoch(tmp_path):
    axes = tsp.visualize.plot_local_complexity(
        CURVES, 1, tmp_path / "c.png", label="knots"
    )
    check(axes)
    assert len({line.get_color() for line in axes.lines}) == 3
    assert axes.lines[2].get_xdata()[0] == 2  # epochs count from 1
    assert "after epoch 2" in axes.get_title()
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("epoch", "knots")
    assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")


def test_what_fit_keeps_is_understood():
    logged = {f"local_complexity/{name}": values for name, values in CURVES.items()}
    axes = tsp.visualize.plot_local_complexity({"loss": [3, 2, 1], **logged})
    check(axes)
    assert len(axes.lines) == 2


WRONG = {
    "nothing": ({}, ValueError, "Received: 0"),
    "a list": ([1.0, 2.0], TypeError, "mapping"),
    "a number": ({"train": 1.0}, ValueError, "'train'"),
    "no value": ({"train": []}, ValueError, "'train'"),
    "only NaN": ({"train": [np.nan]}, ValueError, "'train'"),
    "words": ({"train": ["low"]}, ValueError, "'train'"),
    "too many": ({str(i): [1.0] for i in range(8)}, ValueError, "Received: 8"),
}


@pytest.mark.parametrize(("curves", "error", "message"), WRONG.values(), ids=WRONG)
def test_wrong_curves(curves, error, message, tmp_path):
    with pytest.raises(error, match=message):
        tsp.visualize.plot_local_complexity(curves, path=tmp_path / "c.png")
    assert not list(tmp_path.iterdir())


def test_without_matplotlib(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"tf-spline-prune\[viz\]"):
        tsp.visualize.plot_local_complexity(CURVES)
