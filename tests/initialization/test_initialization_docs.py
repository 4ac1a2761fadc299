"""The guide runs from its first snippet to its last, and its table is complete."""

import pathlib
import re

import tf_spline_prune as tsp
from tf_spline_prune.initialization._prune_at_init import _NAMES


def test_the_guide(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where its picture goes
    root = pathlib.Path(__file__).parents[2]
    text = (root / "docs" / "at_initialization.md").read_text()
    names = {}
    for snippet in re.findall(r"```python\n(.*?)```", text, re.S):
        exec(snippet, names)
    assert names["small"].count_params() <= 1000
    assert set(names["rivals"]) == {"shuffled", "reinitialized", "random"}
    assert abs(tsp.weight_sparsity(names["plain"])["total"] - 0.9) < 1e-3
    printed = capsys.readouterr().out
    assert "['first/kernel', 'second/kernel', 'scores/kernel']" in printed
    listed = re.findall(r'^\| ((?:`"\w+"`,? ?)+) \|', text, re.M)
    assert set(re.findall(r'"(\w+)"', " ".join(listed))) == set(_NAMES)
