"""The examples that draw slices, run as a newcomer runs them."""

import re

import pytest
from newcomer import ROOT, run


def pictures(folder):
    names = []
    for path in sorted((folder / "out").iterdir()):
        assert path.read_bytes().startswith(b"\x89PNG")
        names.append(path.name)
    return names


def most_regions(lines):
    """Count the regions of so many lines of which each crosses all others."""
    return 1 + lines + lines * (lines - 1) // 2


@pytest.mark.slow
def test_the_toy_partition(tmp_path):
    command = [ROOT / "examples" / "toy_partition.py", "--quick", "--output", "out"]
    text = run(command, tmp_path).stdout
    assert pictures(tmp_path) == ["units.png", "weights.png"]
    of_units, of_weights = text.split("of the weights  units")
    row = r"(?:whole|without \d+%) +(\d+) +(\d+) +(\d+) +([\d.]+)%"
    units = [list(map(float, row)) for row in re.findall(row, of_units)]
    weights = [list(map(float, row)) for row in re.findall(row, of_weights)]
    assert [left for left, *_ in units] == [20, 16, 12, 8, 4]
    assert [left for left, *_ in weights] == [20] * 5
    regions = [count for _, _, count, _ in units]
    assert regions == sorted(regions, reverse=True)
    for left, parallel, count, accuracy in units:
        assert count <= most_regions(left) and parallel == 0 and accuracy > 60
    # Of 40 weights as many are zero; units that lost both have no line.
    for share, (_, parallel, count, _) in zip((0, 8, 16, 24, 32), weights, strict=True):
        dead = (share - parallel) // 2
        assert share == parallel + 2 * dead
        assert count <= most_regions(20 - dead)
    assert weights[-1][1] > 0


@pytest.mark.slow
def test_the_image_slice(tmp_path):
    command = [ROOT / "examples" / "image_slice.py", "--epochs", "2"]
    text = run([*command, "--output", "out"], tmp_path).stdout
    assert pictures(tmp_path) == ["image_slice.png"]
    rows = re.findall(r"(whole|half|trained on) +([\d,]+), ([\d,]+), ([\d,]+)  ", text)
    whole, half, trained = (
        [int(cell.replace(",", "")) for cell in cells] for _, *cells in rows
    )
    for counts in (whole, half, trained):
        assert counts == sorted(counts)
    assert half[0] < whole[0] and trained[0] < whole[0]
