"""The picture of a sensitivity analysis shows the numbers that it was given."""

import sys

import numpy as np
import pytest

import tf_spline_prune as tsp


def result(count):
    shares = (0.1, 0.5, 0.9)
    return tsp.Sensitivity(
        shares=shares,
        metrics={
            f"conv2d_{i}": tuple(0.9 - s**2 * (0.3 + 0.05 * i) for s in shares)
            for i in range(count)
        },
        dense=0.92,
        units={f"conv2d_{i}": 16 * (i + 1) for i in range(count)},
        criterion="spline",
    )


def test_few_layers_are_curves(tmp_path):
    given = result(3)
    axes = tsp.visualize.plot_sensitivity(given, tmp_path / "few.png", label="accuracy")
    lines = axes.lines
    for line, values in zip(lines[:3], given.metrics.values(), strict=True):
        np.testing.assert_allclose(line.get_xdata(), [0, 10, 50, 90])
        np.testing.assert_array_equal(line.get_ydata(), [0.92, *values])
    assert lines[1].get_label() == "conv2d_1 (32)"
    assert axes.get_ylabel() == "accuracy"
    assert (tmp_path / "few.png").read_bytes().startswith(b"\x89PNG")


def test_many_layers_are_a_map(tmp_path):
    given = result(25)
    axes = tsp.visualize.plot_sensitivity(given, tmp_path / "many.svg")
    drawn = np.asarray(axes.images[0].get_array())
    expected = [[0.92, *values] for values in given.metrics.values()]
    np.testing.assert_array_equal(drawn, expected)
    labels = [text.get_text() for text in axes.get_yticklabels()]
    assert labels[:2] == ["conv2d_0 (16)", "conv2d_1 (32)"]
    assert "<svg" in (tmp_path / "many.svg").read_text()


def test_wrong_input_and_no_matplotlib(monkeypatch):
    with pytest.raises(TypeError, match="`Sensitivity`"):
        tsp.visualize.plot_sensitivity({"conv2d": [0.5]})
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"tf-spline-prune\[viz\]"):
        tsp.visualize.plot_sensitivity(result(2))
