"""The example of a language model, run as a newcomer would, and its texts."""

import json
import re
import shutil
import sys

import numpy as np
import pytest
from newcomer import ROOT, run

pytest.importorskip("keras_hub", reason="the extra [hub] is not installed")
sys.path.insert(0, str(ROOT / "examples"))

import language_model  # noqa: E402

with_bible = pytest.mark.skipif(
    not shutil.which("bible"), reason="Debian's bible-kjv is not installed"
)


@with_bible
def test_the_bible_has_all_verses():
    lines = language_model.bible()
    assert len(lines) == 31_102
    assert lines[0].startswith("Ge1:1 In the beginning God created")
    assert lines[-1].startswith("Rev22:21 ")


def test_without_the_program_it_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SystemExit, match="apt install bible-kjv.*--text FILE"):
        language_model.bible()


def test_another_program_of_that_name_is_no_text(monkeypatch, tmp_path):
    program = tmp_path / "bible"
    program.write_text("#!/bin/sh\necho no verses\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SystemExit, match="printed 1 lines where 31,102"):
        language_model.bible()


def test_what_is_held_out_is_not_trained_on():
    letters = "".join(chr(0x4E00 + i) for i in range(5000))  # each of them once
    text = language_model.Text(letters, length=20, seed=0)
    known, following = text.draw(500)
    others, _ = text.draw(500, held_out=True)
    assert not set(known["token_ids"].ravel()) & set(others["token_ids"].ravel())
    assert len(text.held_out) == 500 and len(text.known) == 4500
    np.testing.assert_array_equal(known["token_ids"][:, 1:], following[:, :-1])
    assert text.decode(text.encode(letters[7:30])) == letters[7:30]
    with pytest.raises(SystemExit, match="too short"):
        language_model.Text("a few letters", length=20, seed=0)


@pytest.mark.slow
@with_bible
def test_the_example(tmp_path):
    command = [ROOT / "examples" / "language_model.py", "--quick", "--output", "out"]
    done = run(command, tmp_path)
    made = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert made == ["small.keras", "table.json"]
    rows = json.loads((tmp_path / "out" / "table.json").read_text())
    found = {row["name"].partition(": ")[2] or row["name"]: row for row in rows}
    big = found["big"]["perplexity"][0]
    assert big < 9  # of 63 letters, after 40 seconds
    for name, row in found.items():
        assert name == "big" or row["params"] <= 0.53 * found["big"]["params"]
    ours, chance = (
        found[name]["perplexity"] for name in ("neurons and heads", "as many at random")
    )
    assert big < ours[1] < ours[0] < chance[0]  # solving helps, and so does choosing
    assert ours[2] < found["from scratch"]["perplexity"][2]
    assert done.stdout.count("parameters writes:\nIn the beginning God ") == 2


def test_the_page():
    text = (ROOT / "docs" / "language_models.md").read_text()
    names: dict = {}
    exec("\n".join(re.findall(r"```python\n(.*?)```", text, re.S)), names)
    assert type(names["small"]) is type(names["model"])
    assert names["written"].shape == (1, 16)
