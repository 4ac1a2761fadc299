"""IDX files written by hand, read on their own and through `load`."""

import gzip
import pathlib
import struct

import numpy as np
import pytest

from tf_spline_prune import datasets
from tf_spline_prune.datasets import _fashion_mnist as fashion_mnist
from tf_spline_prune.datasets._fashion_mnist import read_idx
from tf_spline_prune.errors import DatasetError


def _idx(array):
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    return header + array.astype(np.uint8).tobytes()


@pytest.fixture
def arrays():
    random = np.random.default_rng(3)
    return {
        prefix: (random.integers(0, 256, (size, 28, 28)), random.integers(0, 10, size))
        for prefix, size in (("train", 50), ("t10k", 20))
    }


@pytest.fixture
def folder(tmp_path, monkeypatch, arrays):
    for prefix, (images, labels) in arrays.items():
        file = tmp_path / f"{prefix}-images-idx3-ubyte.gz"
        file.write_bytes(gzip.compress(_idx(images)))
        (tmp_path / f"{prefix}-labels-idx1-ubyte").write_bytes(_idx(labels))
    monkeypatch.setattr(fashion_mnist, "DEBIAN_FOLDER", tmp_path)
    return tmp_path


def test_reads_plain_and_packed(tmp_path):
    array = np.arange(24).reshape(2, 3, 4)
    for name, content in (("a", _idx(array)), ("a.gz", gzip.compress(_idx(array)))):
        (tmp_path / name).write_bytes(content)
        found = read_idx(tmp_path / name, num_axes=3)
        assert found.dtype == np.uint8
        np.testing.assert_array_equal(found, array)


LABELS = _idx(np.arange(10))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("short", LABELS[:-1], "makes 18 bytes, and it has 17"),
        ("long", LABELS + b"\0", "and it has 19"),
        ("huge", LABELS[:4] + b"\xff\xff\xff\xff", r"shape \(4294967295,\)"),
        ("header", LABELS[:6], "header has 6 of 8 bytes"),
        ("empty", b"", "starts with b''"),
        ("axes", _idx(np.zeros((2, 2))), "starts with"),
        ("floats", b"\0\0\x0d" + LABELS[3:], "starts with"),
        ("page", b"<html></html>", "starts with b'<htm'"),
        ("cut.gz", gzip.compress(LABELS, mtime=0)[:-9], "cannot be read"),
        ("plain.gz", LABELS, "cannot be read"),
        ("damaged.gz", b"\x1f\x8b\x08" + bytes(7) + b"\xff" * 9, "cannot be read"),
    ],
)
def test_broken_files_are_named(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DatasetError, match=message) as error:
        read_idx(tmp_path / name, num_axes=1)
    assert f"Received: {str(tmp_path / name)!r}" in str(error.value)


def test_missing_file(tmp_path):
    with pytest.raises(DatasetError, match="cannot be read"):
        read_idx(tmp_path / "nowhere", num_axes=1)


def test_load_splits(folder, arrays):
    images, labels = arrays["train"]

    def load(split):
        ((inputs, targets),) = datasets.load("fashion_mnist", split, shuffle=False)
        return inputs.numpy(), targets.numpy()

    for split, wanted in (
        ("train", slice(None)),
        ("train[:7]", slice(0, 7)),
        ("train[10%:20%]", slice(5, 10)),
        ("train[-3:]", slice(47, 50)),
    ):
        inputs, targets = load(split)
        assert inputs.dtype == np.float32 and targets.dtype == np.int64
        np.testing.assert_allclose(
            inputs, images[wanted][..., np.newaxis] / 255, rtol=1e-6
        )
        np.testing.assert_array_equal(targets, labels[wanted])
    inputs, targets = load("train[:2]+test+train[4:5]")
    np.testing.assert_array_equal(
        targets, np.r_[labels[:2], arrays["t10k"][1], labels[4:5]]
    )


def test_shuffle_and_describe(folder, arrays):
    train = datasets.load("fashion_mnist", "train", 50)
    ((_, labels),) = train
    assert sorted(labels.numpy()) == sorted(arrays["train"][1])
    assert labels.numpy().tolist() != arrays["train"][1].tolist()
    assert datasets.describe("fashion_mnist") == datasets.DatasetInfo(
        "fashion_mnist", (28, 28, 1), 10, {"train": 50, "test": 20}
    )


def test_unknown_split(folder):
    with pytest.raises(ValueError, match=r"'train' \(50\), 'test' \(20\)"):
        datasets.load("fashion_mnist", "validation")


def test_files_that_do_not_belong_together(folder):
    labels = folder / "train-labels-idx1-ubyte"
    labels.write_bytes(_idx(np.zeros(49)))
    with pytest.raises(DatasetError, match=r"\(50, 28, 28, 1\).*\(49, 28, 28, 1\)"):
        datasets.load("fashion_mnist", "train")
    labels.write_bytes(_idx(np.full(50, 10)))
    with pytest.raises(DatasetError, match="label of Fashion-MNIST is 10"):
        datasets.describe("fashion_mnist")


def test_one_file_missing_means_none(folder):
    assert fashion_mnist.find_idx_files(folder) is not None
    (folder / "t10k-images-idx3-ubyte.gz").unlink()
    assert fashion_mnist.find_idx_files(folder) is None


@pytest.mark.skipif(
    fashion_mnist.find_idx_files(pathlib.Path("/usr/share/datasets/fashion-mnist"))
    is None,
    reason="needs Debian's package dataset-fashion-mnist",
)
def test_debian_files():
    info = datasets.describe("fashion_mnist")
    assert info.num_examples == {"train": 60000, "test": 10000}
    test = datasets.load("fashion_mnist", "test", 1000)
    labels = np.concatenate([labels.numpy() for _, labels in test])
    # Fashion-MNIST is balanced: 1,000 test images a class; the first is a boot.
    assert np.bincount(labels).tolist() == [1000] * 10 and labels[0] == 9
