"""Slices through training: each panel shows its slice, each mark its moment."""

import sys

import keras
import numpy as np
import pytest
from matplotlib.collections import LineCollection
from PIL import Image

import tf_spline_prune as tsp

ANCHORS = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])


@pytest.fixture(scope="module")
def recorder():
    keras.utils.set_random_seed(0)
    hidden = [keras.layers.Dense(6, activation="relu") for _ in range(2)]
    model = keras.Sequential([keras.Input((2,)), *hidden, keras.layers.Dense(1)])
    model.compile(keras.optimizers.Adam(0.05), "mse")
    x = np.random.default_rng(0).uniform(-1, 1, (40, 2)).astype("float32")
    taken = tsp.SliceRecorder(ANCHORS, (-1.0, 1.0))
    model.fit(x, x[:, :1] * x[:, 1:], 10, epochs=4, verbose=0, callbacks=[taken])
    return taken


def draws(panel, segments):
    drawn = [c.get_segments() for c in panel.collections if type(c) is LineCollection]
    return any(
        len(one) == len(segments) and np.allclose(one, segments) for one in drawn
    )


def test_the_strip_shows_slices_over_the_losses(recorder, tmp_path):
    axes = tsp.visualize.plot_training_slices(recorder, tmp_path / "strip.png")
    curve, marks = axes.lines[:2]
    steps = [0, 4, 8, 12, 16]
    assert list(recorder.slices) == steps
    np.testing.assert_array_equal(curve.get_xdata(), steps[1:])
    losses = list(recorder.losses.values())
    np.testing.assert_array_equal(curve.get_ydata(), losses)
    np.testing.assert_array_equal(marks.get_xdata(), steps)
    # Nothing is known before the first step, so its mark is as high as the next.
    np.testing.assert_array_equal(marks.get_ydata(), [losses[0], *losses])
    panels = axes.child_axes
    assert len(panels) == 5
    for panel, s in zip(panels, recorder.slices.values(), strict=True):
        for segments in s.lines.values():
            assert draws(panel, segments)
        if len(s.boundary):
            assert draws(panel, s.boundary)
        np.testing.assert_allclose([*panel.get_xlim(), *panel.get_ylim()], [-1, 1] * 2)
    assert not draws(panels[0], recorder.slices[16].lines["dense"])
    assert panels[2].get_title().startswith("step 8, epoch 2")
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("optimizer steps", "loss")
    names = [text.get_text() for text in axes.get_legend().get_texts()]
    assert names == ["training loss", "slice"]
    assert (tmp_path / "strip.png").read_bytes().startswith(b"\x89PNG")


def test_the_whole_strip_is_on_the_page(recorder):
    axes = tsp.visualize.plot_training_slices(recorder)
    figure = axes.figure
    figure.draw_without_rendering()
    page = figure.bbox
    for panel in axes.child_axes:
        box = panel.get_window_extent()
        assert page.x0 <= box.x0 and box.x1 <= page.x1 and box.y1 <= page.y1
        assert box.y0 > axes.get_window_extent().y1
        assert box.width == pytest.approx(box.height, rel=0.01)


@pytest.mark.parametrize(
    ("most", "expected"), [(1, [0]), (2, [0, 16]), (3, [0, 8, 16])], ids=str
)
def test_some_of_many_slices(recorder, most, expected):
    axes = tsp.visualize.plot_training_slices(recorder, most=most)
    np.testing.assert_array_equal(axes.lines[1].get_xdata(), expected)
    assert len(axes.child_axes) == len(expected)


def test_the_animation_has_a_frame_a_slice(recorder, tmp_path):
    tsp.visualize.animate_slices(
        recorder, tmp_path / "t.gif", frames_per_second=5, dots_per_inch=50
    )
    assert [path.name for path in tmp_path.iterdir()] == ["t.gif"]
    with Image.open(tmp_path / "t.gif") as film:
        assert film.n_frames == 5 and film.size == (250, 240)
        pauses, frames = [], []
        for place in range(5):
            film.seek(place)
            pauses.append(film.info["duration"])
            frames.append(np.asarray(film.convert("RGB"), float))
    assert pauses == [200] * 4 + [1200]
    for one, two in zip(frames, frames[1:], strict=False):
        assert np.abs(one - two).max() > 100


def test_an_animation_that_fails_leaves_nothing(recorder, tmp_path, monkeypatch):
    (tmp_path / "t.gif").write_bytes(b"old")
    broken = tsp.SliceRecorder(ANCHORS)
    broken.slices = {**recorder.slices, 20: None}
    broken.epochs_done = {**recorder.epochs_done, 20: 5}
    with pytest.raises((AttributeError, TypeError)):
        tsp.visualize.animate_slices(broken, tmp_path / "t.gif", dots_per_inch=30)
    assert [path.name for path in tmp_path.iterdir()] == ["t.gif"]
    assert (tmp_path / "t.gif").read_bytes() == b"old"


def test_wrong_input(recorder, tmp_path, monkeypatch):
    strip, animation = tsp.visualize.plot_training_slices, tsp.visualize.animate_slices
    path = tmp_path / "t.gif"
    for draw in (strip, animation):
        with pytest.raises(TypeError, match="`SliceRecorder`.*Received"):
            draw([recorder], path)
        with pytest.raises(ValueError, match="no slices yet"):
            draw(tsp.SliceRecorder(ANCHORS), path)
    with pytest.raises(ValueError, match="most=0"):
        strip(recorder, path, most=0)
    with pytest.raises(ValueError, match="must end in `.gif`"):
        animation(recorder, tmp_path / "t.mp4")
    for wrong in ({"frames_per_second": 0}, {"dots_per_inch": 0}):
        with pytest.raises(ValueError, match="must be an integer from 1"):
            animation(recorder, path, **wrong)
    assert not list(tmp_path.iterdir())
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    for draw in (strip, animation):
        with pytest.raises(ImportError, match=r"tf-spline-prune\[viz\]"):
            draw(recorder, path)
