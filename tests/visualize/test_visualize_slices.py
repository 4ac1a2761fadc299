"""Pictures of slices show their lines, their boundary, who wins, and the data."""

import sys

import numpy as np
import pytest
import zoo
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure

import tf_spline_prune as tsp
from tf_spline_prune.compat import with_dtype
from tf_spline_prune.visualize import _plot_slice as slice_contents

PLANE = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])


def net(K, widths=(8, 6), outputs=3, shape=(2,)):
    L = K.layers
    model = K.Sequential([K.Input(shape), L.Flatten()])
    for i, width in enumerate(widths):
        model.add(L.Dense(width, activation="relu", name=f"layer_{i}"))
    model.add(L.Dense(outputs, name="head"))
    return zoo.settle(model)


def segments(collection):
    return np.array(collection.get_segments()).reshape(-1, 2, 2)


def named(axes):
    """Give what the legend says."""
    return [text.get_text() for text in axes.get_legend().get_texts()]


def kind(axes, name):
    return [c for c in axes.collections if type(c).__name__ == name]


def test_the_lines_and_the_boundary_are_those_of_the_slice(K, tmp_path):
    s = tsp.slice2d(net(K), PLANE, (-3, 2))
    axes = tsp.visualize.plot_slice(s, tmp_path / "slice.png")
    *lines, rim, boundary = kind(axes, "LineCollection")
    for drawn, given in zip(lines, s.lines.values(), strict=True):
        assert len(given)
        np.testing.assert_array_equal(segments(drawn), given)
    np.testing.assert_array_equal(segments(boundary), s.boundary)
    assert len(s.boundary) and boundary.get_zorder() > lines[0].get_zorder()
    widths = [drawn.get_linewidth()[0] for drawn in lines]
    assert widths == sorted(widths, reverse=True)
    # Early layers are darker, for those who see no colours too.
    light = [drawn.get_color()[0][:3] @ [0.299, 0.587, 0.114] for drawn in lines]
    assert light[1] > light[0] + 0.2
    assert named(axes) == ["layer_0", "layer_1", "decision boundary"]
    assert axes.get_xlim() == axes.get_ylim() == (-3, 2)
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("u", "v")
    assert axes.get_aspect() == 1 and f"{s.num_regions:,}" in axes.get_title()
    assert [p.name for p in tmp_path.iterdir()] == ["slice.png"]


def test_the_colours_are_those_of_the_classes_that_win(K):
    model = net(K)
    s = tsp.slice2d(model, PLANE, (-3, 3))
    axes = tsp.visualize.plot_slice(s, fill="class")
    (fill,) = kind(axes, "PolyCollection")
    corners = [path.vertices[:-1] for path in fill.get_paths()]
    means = np.array([each.mean(axis=0) for each in corners])
    won = np.asarray(with_dtype(model, "float64")(means)).argmax(axis=1)
    shown = {k: to_rgba(slice_contents._CLASSES[k], 0.4) for k in range(3)}
    np.testing.assert_allclose(fill.get_facecolor(), [shown[k] for k in won])
    assert len(set(won)) > 1
    assert named(axes)[3:] == [f"class {k}" for k in sorted(set(won))]


def test_the_greys_are_areas_and_slopes(K):
    model = net(K)
    s = tsp.slice2d(model, PLANE, (-3, 3))
    for what in ("area", "slope"):
        axes = tsp.visualize.plot_slice(s, fill=what)
        (fill,) = kind(axes, "PolyCollection")
        drawn = np.asarray(fill.get_array())
        scale = axes.figure.axes[1]
        assert what in scale.get_xlabel()
        corners = [path.vertices[:-1] for path in fill.get_paths()]
        if what == "area":
            x, y = zip(*(each.T for each in corners), strict=True)
            turns = [
                a @ np.roll(b, -1) - np.roll(a, -1) @ b
                for a, b in zip(x, y, strict=True)
            ]
            np.testing.assert_allclose(drawn, np.array(turns) / 2, atol=1e-12)
        else:
            exact = with_dtype(model, "float64")
            means = np.array([each.mean(axis=0) for each in corners])
            step = 1e-7
            rise = [
                np.asarray(exact(means + move)) - np.asarray(exact(means - move))
                for move in (np.array([step, 0]), np.array([0, step]))
            ]
            slope = np.sqrt(sum((r / (2 * step)) ** 2 for r in rise).sum(axis=1))
            large = s.areas > 1e-4
            np.testing.assert_allclose(drawn[large], slope[large], rtol=1e-5)
            assert large.mean() > 0.8 and np.ptp(slope[large]) > 0.1
        # The scale covers what fills nearly all of the plane.
        low, high = fill.get_clim()
        within = (drawn >= low) & (drawn <= high)
        assert s.areas[within].sum() >= 0.99 * 36


def test_slices_side_by_side_share_their_colours(K, tmp_path):
    model = net(K)
    small = tsp.remove_units(model, {"layer_0": [1, 4, 5]})
    slices = {
        "whole": tsp.slice2d(model, PLANE, (-3, 3)),
        "half": tsp.slice2d(small, PLANE, (-3, 3)),
        "first": tsp.slice2d(model, PLANE, (-3, 3), layers="layer_0"),
    }
    grid = tsp.visualize.plot_slices(slices, tmp_path / "three.png", fill="area")
    assert grid.shape == (3,) and (tmp_path / "three.png").exists()
    colours, scales = [], []
    for axes, (name, s) in zip(grid, slices.items(), strict=True):
        lines = kind(axes, "LineCollection")
        np.testing.assert_array_equal(segments(lines[0]), s.lines["layer_0"])
        assert axes.get_title().startswith(f"{name}\n{s.num_regions:,} regions")
        colours.append(tuple(lines[0].get_color()[0]))
        scales.append(kind(axes, "PolyCollection")[0].get_clim())
    assert len(set(colours)) == len(set(scales)) == 1
    assert "through layer_0" in grid[2].get_title()
    assert [axes.get_legend() is None for axes in grid] == [True, True, False]
    assert named(grid[2]) == ["layer_0", "layer_1", "decision boundary"]
    given = Figure().subplots(1, 3)
    assert tsp.visualize.plot_slices(slices, axes=given).tolist() == given.tolist()


def test_data_lie_where_they_are(K):
    s = tsp.slice2d(net(K), PLANE * 2 + 1, (-3, 3))
    x = np.random.default_rng(0).uniform(-2, 2, (30, 2))
    labels = np.arange(30) % 3
    axes = tsp.visualize.plot_slice(s, points=s.coordinates(x), labels=labels)
    drawn = kind(axes, "PathCollection")
    assert named(axes)[-3:] == ["class 0", "class 1", "class 2"]
    for k, one in enumerate(drawn):
        np.testing.assert_allclose(one.get_offsets(), (x[labels == k] - 1) / 2)
    axes = tsp.visualize.plot_slice(s, points=(x - 1) / 2)
    assert named(axes)[-1] == "data" and axes.get_xlim() == (-3, 3)


@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 1), (4, 5, 3)])
def test_anchors_that_are_images_are_shown(shape, tmp_path):
    import keras

    anchors = np.random.default_rng(0).uniform(size=(3, *shape))
    s = tsp.slice2d(net(keras, shape=shape), anchors)
    axes = tsp.visualize.plot_slice(s, tmp_path / "images.png", images=True)
    boxes = [a for a in axes.artists if type(a).__name__ == "AnnotationBbox"]
    assert [box.xy for box in boxes] == [(0, 0), (1, 0), (0, 1)]
    scaled = (anchors - anchors.min()) / np.ptp(anchors)
    for box, image in zip(boxes, scaled, strict=True):
        pixels = np.asarray(box.offsetbox.get_data())
        np.testing.assert_array_equal(pixels.ravel(), image.ravel())


def test_slices_that_are_not_whole_are_drawn(K, tmp_path):
    model = net(K)
    none = tsp.slice2d(model, PLANE, (-3, 3), max_regions=1, partial=True)
    axes = tsp.visualize.plot_slice(none, tmp_path / "none.png", fill="area")
    assert "1 region, cut through no layer" in axes.get_title()
    assert not kind(axes, "LineCollection") and axes.get_legend() is None
    flat = tsp.slice2d(net(K, widths=()), PLANE, (-3, 3))
    for what in ("area", "slope", "class", None):
        axes = tsp.visualize.plot_slice(flat, tmp_path / "flat.png", fill=what)
        assert axes.get_title() == "1 region" and "decision boundary" in named(axes)
    dead = net(K)
    dead.set_weights([0 * w for w in dead.get_weights()])
    s = tsp.slice2d(dead, PLANE)
    tsp.visualize.plot_slice(s, tmp_path / "dead.png", fill="slope")
    for what in ("slope", "class"):
        with pytest.raises(ValueError, match="exact through None"):
            tsp.visualize.plot_slice(none, tmp_path / "new.png", fill=what)
    assert not (tmp_path / "new.png").exists()


def test_many_layers_and_many_regions(monkeypatch, tmp_path):
    import keras

    s = tsp.slice2d(net(keras, widths=(5,) * 14), PLANE, (-1, 1))
    axes = tsp.visualize.plot_slice(s)
    names = named(axes)
    assert names[0] == "layer_0" and names[-2:] == ["layer_13", "decision boundary"]
    assert len(names) == 9
    *lines, _, _ = kind(axes, "LineCollection")
    assert len({tuple(one.get_color()[0]) for one in lines}) == 14
    monkeypatch.setattr(slice_contents, "_MOST_SHAPES", 3)
    tsp.visualize.plot_slice(s, tmp_path / "a.svg", fill="class")
    assert "<image" in (tmp_path / "a.svg").read_text()


def test_wrong_input(tmp_path, monkeypatch):
    import keras

    s = tsp.slice2d(net(keras), PLANE)
    points, wrong = np.zeros((4, 2)), {"path": tmp_path / "new.png"}
    for arguments, message in (
        ({"fill": "red"}, "fill='red'"),
        ({"images": True}, "anchors that are images"),
        ({"points": np.zeros((4, 3))}, r"`s.coordinates\(inputs\)`"),
        ({"labels": [1]}, "no points"),
        ({"points": points, "labels": [0, 1]}, "one class per point"),
        ({"points": points, "labels": [0.5, 1, 1, 1]}, "whole numbers"),
        ({"points": points, "labels": [-1, 1, 1, 1]}, "whole numbers"),
    ):
        with pytest.raises(ValueError, match=message):
            tsp.visualize.plot_slice(s, **arguments, **wrong)
    with pytest.raises(TypeError, match="`Slice`.*an array"):
        tsp.visualize.plot_slice(points, **wrong)
    with pytest.raises(ValueError, match="It is empty"):
        tsp.visualize.plot_slices({}, **wrong)
    with pytest.raises(ValueError, match="2 axes and 1 slices"):
        tsp.visualize.plot_slices({"a": s}, axes=Figure().subplots(1, 2), **wrong)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"tf-spline-prune\[viz\]"):
        tsp.visualize.plot_slice(s, **wrong)
    assert not list(tmp_path.iterdir())


def test_on_the_axes_of_the_caller(K, tmp_path):
    s = tsp.slice2d(net(K), PLANE)
    given = Figure().add_subplot(1, 2, 2)
    assert tsp.visualize.plot_slice(s, tmp_path / "s.png", axes=given) is given
    assert len(given.figure.axes) == 1 and (tmp_path / "s.png").exists()
