"""The page of a report: whole, on its own, and with the report's numbers."""

from html.parser import HTMLParser

import pytest

import tf_spline_prune as tsp
from tf_spline_prune.graph import Barrier, Cost

NASTY = "<script>alert('a&b')</script>\"x"
VOID = {"meta", "link"}


def a_report(**changes):
    values = {
        "names": ("net", NASTY),
        "before": Cost(1000, 130, 520),
        "after": Cost(500, 70, 280, (f"odd/{NASTY}",)),
        "units": {"first": (32, 20), NASTY: (24, None), "new": (None, 9)},
        "barriers": (Barrier(NASTY, 5, f"they are {NASTY}"),),
        "tflite_bytes": (4004, 2002),
        "gzip_bytes": (3003, 1501),
        "latency_us": (81.25, 61.5),
        "num_threads": 4,
        "unmeasured": {},
        "scores": {"accuracy": (0.98765, 0.9812), NASTY: (0.5, float("nan"))},
        "bird": {
            "distance": "spline_distance",
            "records": {1: [0.31], 2: [0.12, 0.22]},
            "bound": 0.2,
            "ticket_epoch": 2,
        },
    }
    return tsp.Report(**{**values, **changes})


class Page(HTMLParser):
    """Reads a page as strictly as its nesting allows."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.attributes, self.words = [], [], [], []
        self.numbers, self.rows = [], {}
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes.append((tag, dict(attrs)))
        assert len(dict(attrs)) == len(attrs), "an attribute given twice"
        if tag == "data":
            self.numbers.append(float(dict(attrs)["value"]))
        if tag == "tr":
            self.rows[len(self.rows)] = []
        if tag in ("td", "th"):
            self.rows[len(self.rows) - 1].append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        assert "svg" in self.open, f"<{tag}/> outside a picture"
        self.tags.append(tag)
        self.attributes.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)
        if "td" in self.open or "th" in self.open:
            self.rows[len(self.rows) - 1][-1] += data


def numbers_of(value):
    """List the numbers in a dictionary of plain values."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return [n for entry in value for n in numbers_of(entry)]
    return [value] if isinstance(value, (int, float)) else []


def test_the_page_needs_nothing_else():
    text = a_report().to_html()
    page = Page(text)
    assert text.startswith("<!DOCTYPE html>") and page.tags[0] == "html"
    assert not {"script", "img", "iframe", "object", "base", "form"} & set(page.tags)
    links = [
        value
        for _, attributes in page.attributes
        for name, value in attributes.items()
        if name in ("src", "href", "xlink:href", "srcset", "action")
    ]
    assert links == ["data:,"]  # no icon, so that none is asked for
    assert "url(" not in text and "@import" not in text and "http:" not in text
    named = {a.get("name"): a.get("content") for t, a in page.attributes if t == "meta"}
    assert "width=device-width" in named["viewport"]
    assert "prefers-color-scheme: dark" in text
    pictures = [a for t, a in page.attributes if t == "svg" and "role" in a]
    assert len(pictures) == 3 and all(a["aria-label"] for a in pictures)
    boxes = [a for t, a in page.attributes if a.get("class") == "scroll"]
    assert len(boxes) == page.tags.count("table") == 4
    assert all(box["tabindex"] == "0" and box["aria-label"] for box in boxes)


def test_the_numbers_are_those_of_the_dictionary():
    report = a_report(scores={"accuracy": (0.98765, 0.9812)})
    page = Page(report.to_html())
    values = report.to_dict()
    kept = values["bird"].pop("ticket_epoch"), values["bird"].pop("bound")
    threads = values.pop("num_threads")
    expected = numbers_of(values) + [20 / 32]  # the only layer that both have
    assert set(page.numbers) == set(expected)
    words = "".join(page.words)
    assert f"found after epoch {kept[0] + 1}" in words
    assert f"threshold {kept[1]}" in words and f"{threads} threads" in words


def test_the_rows_say_before_after_and_kept():
    rows = {row[0]: row[1:] for row in Page(a_report().to_html()).rows.values()}
    assert rows["MACs"] == ["1,000", "500", "50.0%"]
    assert rows["latency (us)"] == ["81.2", "61.5", "75.7%"]
    assert rows["accuracy"] == ["0.9877", "0.9812", "-0.0065"]
    assert rows["first"] == ["32", "20", "62.5%"]
    assert rows["new"] == ["none", "9", "-"]
    assert rows["2"] == ["0.31", ""] and rows["3"] == ["0.12", "0.22"]
    page = Page(a_report().to_html())
    assert [row for row in page.rows.values() if row[0] == NASTY] == [
        [NASTY, "0.5", "nan", "+nan"],
        [NASTY, "24", "none", "-"],
        [NASTY, "5", f"they are {NASTY}"],
    ]


def test_names_are_text_and_nothing_else():
    text = a_report().to_html()
    assert "<script" not in text and NASTY in "".join(Page(text).words)
    assert f"odd/{NASTY}" in "".join(Page(text).words)


def test_layers_whose_macs_nobody_counted_have_a_sentence():
    report = a_report(
        before=Cost(None, 130, 520, ("odd", NASTY)),
        after=Cost(None, 70, 280, ("odd",)),
        unmeasured={"macs": "those of odd cannot be counted"},
    )
    words = "".join(Page(report.to_html()).words)
    assert f"MACs not known, in the original model: odd, {NASTY}." in words
    assert "MACs not known, in the pruned model: odd." in words
    assert words.count("cannot be counted") == 1  # in the table
    assert "not known" not in "".join(
        Page(a_report(after=Cost(5, 7, 8)).to_html()).words
    )


def test_what_is_not_there_is_left_out():
    report = a_report(
        bird=None,
        units={},
        barriers=(),
        scores={},
        tflite_bytes=None,
        latency_us=None,
        unmeasured={"tflite_bytes": "Not <this>. Sorry.", "latency_us": "Nor that."},
    )
    page = Page(report.to_html())
    words = "".join(page.words)
    assert "Early bird" not in words and "Unprunable" not in words
    rows = {row[0]: row[1:] for row in page.rows.values()}
    assert rows[".tflite bytes"] == ["not measured: Not <this>"]
    assert words.count("Sorry.") == 1 and "LiteRT, float32" not in words
    assert report.to_dict()["bird"] is None


def test_a_page_in_a_file_appears_whole(tmp_path, monkeypatch):
    report = a_report()
    path = tmp_path / "new" / "report.html"
    assert report.to_html(path) == path.read_text(encoding="utf-8")
    other = a_report(names=("other", "other"))
    assert other.to_html(path) == path.read_text(encoding="utf-8")  # in its place
    with pytest.raises(ValueError, match=r"end in `\.html`.*report\.txt"):
        report.to_html(tmp_path / "report.txt")
    with monkeypatch.context() as patch:
        patch.setattr(
            "os.replace", lambda *paths: (_ for _ in ()).throw(OSError("full"))
        )
        with pytest.raises(OSError, match="full"):
            report.to_html(path)
    assert other.to_html() == path.read_text(encoding="utf-8")
    assert [p.name for p in tmp_path.rglob("*")] == ["new", "report.html"]
