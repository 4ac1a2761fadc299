"""The two builders that need no network, against the bytes that they are made of."""

import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds

import tf_spline_prune.datasets as datasets

PACKAGE = pathlib.Path(datasets.__file__).parent
# sklearn.datasets.load_digits().target, counted by digit.
DIGITS_PER_CLASS = [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("tfds")


def _arrays(name, split, data_dir):
    dataset = tfds.load(
        name, split=split, data_dir=data_dir, as_supervised=True, batch_size=-1
    )
    return [tensor.numpy() for tensor in dataset]


@pytest.fixture(scope="module")
def digits(data_dir):
    assert datasets.OpticalDigits.name == "optical_digits"
    return {
        split: _arrays("optical_digits", split, data_dir) for split in ("train", "test")
    }


@pytest.fixture(scope="module")
def quadrants(data_dir):
    assert datasets.XQuadrants.name == "x_quadrants"
    return {
        split: _arrays("x_quadrants", split, data_dir) for split in ("train", "test")
    }


def test_shipped_digits_are_those_of_scikit_learn():
    with np.load(PACKAGE / "data" / "optical_digits.npz") as arrays:
        images, labels = arrays["images"], arrays["labels"]
    assert images.shape == (1797, 8, 8) and images.dtype == np.uint8
    assert images.sum() == 561718 and images.min() == 0 and images.max() == 16
    assert np.bincount(labels).tolist() == DIGITS_PER_CLASS
    # The first row of load_digits().images[0].
    assert images[0, 0].tolist() == [0, 0, 5, 13, 9, 1, 0, 0] and labels[0] == 0


def test_digits_hold_every_shipped_image_once(digits):
    with np.load(PACKAGE / "data" / "optical_digits.npz") as arrays:
        shipped = np.c_[arrays["images"].reshape(1797, 64), arrays["labels"]]
    images = np.concatenate([digits["train"][0], digits["test"][0]])
    labels = np.concatenate([digits["train"][1], digits["test"][1]])
    counts = np.rint(images.reshape(1797, 64).astype(float) * 16 / 255)
    prepared = np.c_[counts, labels]
    assert sorted(map(tuple, prepared)) == sorted(map(tuple, shipped))


def test_digits_shape_and_scale(digits):
    images, labels = digits["train"]
    assert images.shape == (1437, 8, 8, 1) and images.dtype == np.uint8
    assert labels.dtype == np.int64
    assert digits["test"][0].shape == (360, 8, 8, 1)
    levels = np.unique(np.concatenate([images.ravel(), digits["test"][0].ravel()]))
    assert len(levels) == 17 and levels[0] == 0 and levels[-1] == 255


def test_digits_splits_are_stratified_and_apart(digits):
    train = np.bincount(digits["train"][1])
    test = np.bincount(digits["test"][1])
    assert (train + test).tolist() == DIGITS_PER_CLASS
    assert np.abs(test - np.array(DIGITS_PER_CLASS) / 5).max() < 1
    keys = {split: {image.tobytes() for image in digits[split][0]} for split in digits}
    assert not keys["train"] & keys["test"]


def test_digits_splits_are_the_same_each_time(digits, tmp_path):
    again = _arrays("optical_digits", "test", tmp_path)
    for first, second in zip(digits["test"], again, strict=True):
        np.testing.assert_array_equal(first, second)


def test_quadrants_labels_by_brute_force(quadrants):
    points = np.concatenate([quadrants["train"][0], quadrants["test"][0]])
    labels = np.concatenate([quadrants["train"][1], quadrants["test"][1]])
    assert points.shape == (2000, 2) and points.dtype == np.float32
    for (x, y), label in zip(points.tolist(), labels, strict=True):
        upper_or_lower = (y > x and y > -x) or (y < x and y < -x)
        assert label == int(upper_or_lower)


def test_quadrants_are_uniform_and_split(quadrants):
    train, test = quadrants["train"][0], quadrants["test"][0]
    assert len(train) == 1600 and len(test) == 400
    assert not {p.tobytes() for p in train} & {p.tobytes() for p in test}
    points = np.concatenate([train, test])
    assert np.abs(points).max() <= 5
    # A mean of 2,000 uniform numbers has deviation 10 / sqrt(12 * 2000) = 0.065.
    assert np.abs(points.mean(axis=0)).max() < 0.26
    np.testing.assert_allclose(points.std(axis=0), 10 / np.sqrt(12), rtol=0.04)
    cells, *_ = np.histogram2d(*points.T, bins=4, range=[[-5, 5], [-5, 5]])
    assert np.abs(cells - 125).max() < 4 * np.sqrt(125)


def test_citation_and_licence_are_told(data_dir):
    info = datasets.OpticalDigits(data_dir=data_dir).info
    assert "10.24432/C50P49" in info.citation and "CC BY 4.0" in info.description
    assert "2101.02338" in datasets.XQuadrants(data_dir=data_dir).info.citation


def test_import_is_lazy_and_first_use_registers():
    code = (
        "import sys, tf_spline_prune.datasets as datasets\n"
        "heavy = {'tensorflow', 'tensorflow_datasets'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "datasets.OpticalDigits, datasets.XQuadrants\n"
        "import tensorflow_datasets as tfds\n"
        "assert {'optical_digits', 'x_quadrants'} <= set(tfds.list_builders())\n"
        "assert tfds.builder_cls('x_quadrants') is datasets.XQuadrants\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_public_names_twice_and_unknown_name():
    for name in [*datasets.__all__, *datasets.__all__]:
        assert getattr(datasets, name).__name__ == name
    assert sorted(dir(datasets)) == sorted(datasets.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Mnist'"):
        datasets.Mnist  # noqa: B018
