"""The example for users of TFMOT, run as a newcomer runs it."""

import re

import numpy as np
import pytest
from newcomer import ROOT, run

import tf_spline_prune as tsp


@pytest.mark.parametrize("flavour", ["keras", "tf_keras"])
def test_the_migration(flavour, tmp_path):
    command = [ROOT / "examples" / "tfmot_migration.py", "--flavour", flavour]
    command += ["--epochs", "2", "--images", "600", "--output", "out"]
    text = run(command, tmp_path).stdout
    row = r"^(dense|sparse|sparse 8 bits) +([\d.]+)% +([\d,]+) +([\d,]+) +([\d.]+)x"
    rows = re.findall(row + r" +([\d.]+)%$", text, re.M)
    numbers = [[float(n.replace(",", "")) for n in numbers] for _, *numbers in rows]
    dense, sparse, bits = numbers
    assert [row[0] for row in numbers] == [0, 80, 80]
    files = [tmp_path / "out" / f"{n.replace(' ', '_')}.tflite" for n, *_ in rows]
    assert [row[1] for row in numbers] == [file.stat().st_size for file in files]
    # Zeros and eight bits: about as TFMOT's guide has it, three times and ten.
    assert sparse[2] < dense[2] / 3 and bits[2] < dense[2] / 6
    assert all(row[3] == round(dense[2] / row[2], 1) for row in numbers)
    images, labels = next(iter(tsp.datasets.load("optical_digits", "test", 2000)))
    for (*_, accuracy), file in zip(numbers, files, strict=True):
        (scores,) = tsp.litert.Runner(file).predict(images.numpy()).values()
        assert accuracy == round(100 * np.mean(scores.argmax(1) == labels.numpy()), 1)
    assert dense[-1] > 40 and sparse[-1] > 30  # of ten classes
