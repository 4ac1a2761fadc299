"""`slice`: the numbers are those of the library, and pictures appear whole."""

import sys

import numpy as np
import pytest
from command_line import listing

import tf_spline_prune as tsp


@pytest.fixture
def anchors(tmp_path):
    array = np.random.default_rng(0).normal(size=(3, 12))
    np.save(tmp_path / "three.npy", array)
    return array


def test_the_numbers_are_those_of_the_library(model, saved, anchors, tool, tmp_path):
    command = ("slice", saved, "--anchors", tmp_path / "three.npy")
    extent = ("--extent", "-2", "1.5")
    picture = ("--picture", tmp_path / "slice.png", "--fill", "class")
    _, _, winners = tsp.slice2d(model, anchors, (-2, 1.5)).decisions
    classes = tuple(np.unique(winners)[:2])
    code, found = tool.json(*command, *extent, *picture, "--classes", *classes)
    assert code == 0 and found["complete"]
    s = tsp.slice2d(model, anchors, (-2, 1.5), classes=classes)
    first = tsp.slice2d(model, anchors, (-2, 1.5), layers="first")
    assert found["regions"] == s.num_regions > first.num_regions
    rows = {row.pop("layer"): row for row in found["layers"]}
    assert rows["first"]["regions"] == first.num_regions
    assert rows["second"]["regions"] == s.num_regions
    for name, segments in s.lines.items():
        assert rows[name]["segments"] == len(segments)
        length = sum(np.hypot(*(end - start)) for start, end in segments)
        assert rows[name]["length"] == pytest.approx(length)
    assert found["boundary"]["segments"] == len(s.boundary) > 0
    assert (tmp_path / "slice.png").read_bytes().startswith(b"\x89PNG")
    assert tool(*command, *picture)[0] == 2  # the picture is there already
    assert tool(*command, *picture, "--overwrite")[0] == 0


def test_parts_of_a_slice(saved, anchors, tool, tmp_path):
    command = ("slice", saved, "--anchors", tmp_path / "three.npy", "--extent", -2, 2)
    code, found = tool.json(*command, "--layers", "first")
    assert code == 0 and not found["complete"] and found["boundary"] is None
    count = found["regions"]
    code, found = tool.json(*command, "--max-regions", count)
    assert code == 2 and found["kind"] == "RegionLimitError"
    code, text = tool(*command, "--max-regions", count, "--partial")
    assert code == 0 and f": {count:,} regions, u and v from -2 to 2" in text
    assert "the decision boundary is not known" in text


def test_wrong_anchors_and_pictures(saved, anchors, tool, tmp_path, monkeypatch):
    np.savez(tmp_path / "two.npz", a=anchors, b=anchors)
    np.save(tmp_path / "few.npy", anchors[:2])
    (tmp_path / "text.npy").write_text("1 2 3")
    picture = ("--picture", tmp_path / "slice.png")
    before = listing(tmp_path)
    for arguments, message in (
        (("two.npz",), "with 2 arrays"),
        (("text.npy",), "text.npy', which is none"),
        (("few.npy", *picture), "three anchors"),
        (("three.npy", *picture, "--images"), "anchors that are images"),
        (("three.npy", *picture, "--classes", 0, 9), "5 outputs"),
    ):
        file, *others = arguments
        code, found = tool.json("slice", saved, "--anchors", tmp_path / file, *others)
        assert code == 2 and message in found["error"], found
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    command = ("slice", saved, "--anchors", tmp_path / "three.npy")
    code, found = tool.json(*command, *picture)
    assert code == 2 and "tf-spline-prune[viz]" in found["error"]
    assert tool(*command)[0] == 0
    assert listing(tmp_path) == before
