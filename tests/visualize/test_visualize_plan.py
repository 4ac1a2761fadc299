"""The map of a plan shows each unit's fate."""

import dataclasses

import keras
import numpy as np
import pytest
import zoo
from matplotlib.figure import Figure

import tf_spline_prune as tsp

KEPT, REMOVED, BARRED = range(3)


def rows(axes):
    return [np.asarray(image.get_array())[0] for image in axes.images]


def test_a_row_a_layer(K, tmp_path):
    plan = tsp.plan(zoo.mlp(K), "magnitude", sparsity=0.5)
    axes = tsp.visualize.plot_plan(plan, tmp_path / "plan.png")
    first, second, head = rows(axes)
    for row, name, count in ((first, "first", 32), (second, "second", 24)):
        assert len(row) == count
        np.testing.assert_array_equal(
            np.flatnonzero(row == REMOVED), plan.removed[name]
        )
        assert not (row == BARRED).any()
    assert head.tolist() == [BARRED] * 5
    names = [text.get_text() for text in axes.get_yticklabels()]
    assert names == ["first", "second", "head"]
    left = 32 - len(plan.removed["first"])
    counts = [text.get_text() for text in axes.child_axes[0].get_yticklabels()]
    assert counts[0] == f"32 → {left}  ({left / 32:.0%})" and counts[2].startswith("5")
    assert "33 of 61 units kept" in axes.get_title()
    meanings = [text.get_text() for text in axes.get_legend().get_texts()]
    assert meanings == ["kept", "pruned", "unprunable"]
    colours = {patch.get_facecolor() for patch in axes.get_legend().get_patches()}
    assert len(colours) == 3
    assert (tmp_path / "plan.png").read_bytes().startswith(b"\x89PNG")


def test_many_wide_layers(tmp_path):
    plan = tsp.plan(zoo.mlp(keras), sparsity=0.5)
    units = {f"block_{i}/conv": (512, 512 - i) for i in range(60)}
    removed = {f"block_{i}/conv": list(range(i)) for i in range(1, 60)}
    barriers = (tsp.graph.Barrier("block_0/conv", 512, "a reason"),)
    # Of these it is not known which must stay.
    barriers += (tsp.graph.Barrier("block_1/conv", 511, "a reason"),)
    wide = dataclasses.replace(plan, units=units, removed=removed, barriers=barriers)
    axes = tsp.visualize.plot_plan(wide, tmp_path / "plan.png")
    drawn = rows(axes)
    assert [np.count_nonzero(row == REMOVED) for row in drawn] == list(range(60))
    assert (drawn[0] == BARRED).all() and not (drawn[1] == BARRED).any()
    # Every row has its place, and none is hidden.
    figure = axes.figure
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in axes.get_yticklabels()]
    heights = np.array([(box.y0, box.y1) for box in boxes])
    assert (heights[1:, 1] <= heights[:-1, 0] + 1).all()


def test_the_callers_axes_and_wrong_input(tmp_path):
    plan = tsp.plan(zoo.mlp(keras), sparsity=0.5)
    given = Figure().add_subplot()
    assert tsp.visualize.plot_plan(plan, axes=given) is given
    for wrong in (None, {"first": [1]}):
        with pytest.raises(TypeError, match="`PruningPlan`. Received"):
            tsp.visualize.plot_plan(wrong, tmp_path / "plan.png")
    with pytest.raises(ValueError, match="nothing to draw"):
        tsp.visualize.plot_plan(dataclasses.replace(plan, units={}))
    assert not list(tmp_path.iterdir())
