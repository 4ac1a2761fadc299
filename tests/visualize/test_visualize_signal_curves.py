"""The picture of a diagnosis shows its numbers."""

import numpy as np
import pytest

import tf_spline_prune as tsp


def diagnosis(**kwargs):
    return tsp.initialization.SignalPropagation(
        density={"a": 0.5, "b": 0.0, "c": 1.0},
        dead_units={"a": 0.1, "b": 1.0, "c": 0.0},
        variance={"a": 1.0, "b": 0.0, "c": 0.01},
        **kwargs,
    )


def test_the_picture_shows_the_numbers(tmp_path):
    found = diagnosis(
        gradients={"a": 1e-9, "b": 1e-3, "c": 1.0},
        singular_values=np.array([2.0, 1.0]),
    )
    axes = tsp.visualize.plot_signal_propagation(found, tmp_path / "signal.png")
    signal, gradients = (line.get_ydata() for line in axes.lines)
    np.testing.assert_array_equal(signal, [1.0, np.nan, 0.01])
    np.testing.assert_array_equal(gradients, [1e-9, 1e-3, 1.0])
    bars = [bar.get_height() for bar in axes.figure.axes[1].patches]
    assert bars == [0.5, 0.0, 1.0, 0.1, 1.0, 0.0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["a", "b", "c"]
    assert "1.5 ± 0.5" in axes.get_title() and axes.get_yscale() == "log"
    assert (tmp_path / "signal.png").read_bytes().startswith(b"\x89PNG")


def test_without_labels_and_with_other_things():
    assert len(tsp.visualize.plot_signal_propagation(diagnosis()).lines) == 1
    with pytest.raises(TypeError, match="a `SignalPropagation`"):
        tsp.visualize.plot_signal_propagation({"a": 1.0})
