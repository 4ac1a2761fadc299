"""The example of deep sparse networks, run as a newcomer runs it."""

import re

import pytest
from newcomer import ROOT, run

EXAMPLE = ROOT / "examples" / "deep_sparse.py"


@pytest.mark.slow
def test_the_example(tmp_path):
    command = [EXAMPLE, "--depth", "6", "--width", "16", "--sparsity", "0.5"]
    command += ["--steps", "80", "--rate", "0.03", "--output", "out"]
    text = run(command, tmp_path).stdout
    assert (tmp_path / "out" / "curves.png").read_bytes().startswith(b"\x89PNG")
    row = r"^(\w+, [\w ]+?) +([\d.]+)% +(\d+) +([\d.e+-]+) +([\d.]+)%$"
    rows = {name: list(map(float, row)) for name, *row in re.findall(row, text, re.M)}
    assert [(zeros, empty) for zeros, empty, *_ in rows.values()] == [
        (0, 0),
        (50, 0),
        (50, 0),
        (50, 0),
    ]
    edge, rescaled = rows["dense, edge of chaos"], rows["sparse, rescaled"]
    ordered = rows["sparse, ordered phase"]
    # On the edge, gradients reach the first layers; off it they fade on the way.
    assert 0.5 < edge[2] < 2 and 0.5 < rescaled[2] < 2 and ordered[2] < edge[2]
    assert edge[3] > 40 and rescaled[3] > 40 and min(r[3] for r in rows.values()) > 5


def test_too_few_layers_are_refused(tmp_path):
    done = run([EXAMPLE, "--depth", "3"], tmp_path, check=False)
    assert done.returncode == 2 and "at least 4" in done.stderr
    assert not any(tmp_path.iterdir())
