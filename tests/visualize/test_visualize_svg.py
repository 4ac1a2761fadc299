"""Pictures in SVG: lengths and places are the numbers that were given."""

from xml.etree import ElementTree

import pytest

from tf_spline_prune.visualize._svg import STYLE, distance_curve, pair_bars


def share(text):
    assert text.endswith("%")
    return float(text[:-1]) / 100


def test_bars_are_as_long_as_their_numbers():
    bars = [("a <b>", 40, 10, "40 & 10"), ("c" * 50 + "end", 20, 80, "x")]
    picture = ElementTree.fromstring(pair_bars(bars, 'all "of" them'))
    assert picture.get("aria-label") == 'all "of" them' and picture.get("role") == "img"
    rows = picture.findall("g")
    for row, (_, old, new, _) in zip(rows, bars, strict=True):
        full, now = row.findall("rect")
        assert (full.get("class"), now.get("class")) == ("full", "now")
        assert share(full.get("width")) == old / 80  # the longest fills the picture
        assert share(now.get("width")) == new / 80
    assert [text.text for text in rows[0].findall("text")] == ["a <b>", "40 & 10"]
    assert rows[0].find("title").text == "a <b>: 40 & 10"
    # The end of a long name is shown, all of it is told.
    shown = rows[1].find("text").text
    assert len(shown) == 30 and shown.startswith("…") and shown.endswith("end")
    assert rows[1].find("title").text.startswith("c" * 50)
    places = [float(row.find("rect").get("y")) for row in rows]
    assert places[1] - places[0] > 30 and float(picture.get("height")) > places[1] + 14


def test_nothing_is_drawn_of_nothing():
    assert not ElementTree.fromstring(pair_bars([], "none")).findall("g")
    (row,) = ElementTree.fromstring(pair_bars([("a", 0, 0, "0")], "none"))
    assert {share(bar.get("width")) for bar in row.findall("rect")} == {0}


def test_the_curve_goes_through_the_records():
    records = {1: [0.4], 2: [0.3, 0.5], 3: [0.2, 0.25]}
    picture = ElementTree.fromstring(distance_curve(records, 0.16, 3, "distances"))
    plot = picture.find("svg")
    lines = [
        [tuple(map(float, point.split(","))) for point in line.get("points").split()]
        for line in plot.findall("polyline")
    ]
    # Up to 0.6, the next round number; the floor of the plot is at 1000.
    height = lambda d: pytest.approx(1000 * (1 - d / 0.6), abs=0.05)  # noqa: E731
    assert lines[0] == [(0, height(0.4)), (500, height(0.3)), (1000, height(0.2))]
    assert lines[1] == [(500, height(0.5)), (1000, height(0.25))]
    bound, ticket = (
        p.get("d") for p in plot.findall("path") if p.get("class") == "mark"
    )
    assert float(bound.removeprefix("M0 ").removesuffix("H1000")) == height(0.16)
    assert ticket == "M1000.0 0V1000"
    assert len({line.get("stroke-dasharray") for line in plot.findall("polyline")}) == 2
    words = [text.text for text in picture.findall("text")]
    assert {"2", "3", "4", "to the epoch before", "to 2 epochs before"} < set(words)
    assert {"threshold 0.16", "early bird, after epoch 4"} < set(words)


@pytest.mark.parametrize("largest", [1e-5, 0.16, 0.5, 0.97, 1.0, 3.2e4])
def test_the_scale_holds_every_distance(largest):
    records = {epoch: [largest * (epoch + 1) / 160] for epoch in range(160)}
    picture = ElementTree.fromstring(distance_curve(records, None, None, "distances"))
    (line,) = picture.find("svg").findall("polyline")
    heights = [float(point.split(",")[1]) for point in line.get("points").split()]
    assert len(heights) == 160 and min(heights) >= 0 and heights[-1] < 300
    ticks = [t for t in picture.findall("text") if t.get("class") == "soft"]
    levels = [float(t.text) for t in ticks if t.get("text-anchor") == "end"]
    epochs = [int(t.text) for t in ticks if t.get("text-anchor") == "middle"]
    assert levels[0] == 0 and levels[-1] >= largest * 0.999 and 4 <= len(levels) <= 6
    assert 3 <= len(epochs) <= 6 and 1 <= min(epochs) and max(epochs) <= 160


def test_one_epoch_is_a_dot_and_zero_distances_lie_on_the_floor():
    picture = ElementTree.fromstring(distance_curve({4: [0.0]}, None, None, "one"))
    (line,) = picture.find("svg").findall("polyline")
    assert line.get("points") == "500.0,1000.0 500.0,1000.0"


def test_colours_can_be_told_apart_from_the_paper():
    """Contrast as the accessibility guidelines of the web count it."""

    def light(colour):
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        parts = [
            p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts
        ]
        return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]

    def contrast(one, other):
        dark, bright = sorted((light(one), light(other)))
        return (bright + 0.05) / (dark + 0.05)

    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    schemes = STYLE.split("@media")
    assert len(schemes) == 2
    for scheme in schemes:
        colours = dict(
            entry.strip().split(": ")
            for entry in scheme.replace("{", ";").replace("}", ";").split(";")
            if entry.strip().startswith("--")
        )
        for name, least in {
            "ink": 7,
            "soft": 4.5,
            "full": 3,
            "now": 3,
            "mark": 3,
        }.items():
            assert contrast(colours[f"--{name}"], colours["--paper"]) >= least, name
