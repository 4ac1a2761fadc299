"""`load` and `describe` on the builders of the package and on small foreign ones."""

import itertools
import sys

import numpy as np
import pytest
import requests
import tensorflow as tf
import tensorflow_datasets as tfds

from tf_spline_prune import datasets
from tf_spline_prune.errors import DatasetError

SIZES = [(4, 6), (5, 3), (8, 8)]


class _Foreign(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    VERSION = tfds.core.Version("1.0.0")
    code_path = None
    FEATURES: dict = {}
    KEYS: tuple | None = ("image", "label")

    def _info(self):
        features = tfds.features.FeaturesDict(self.FEATURES)
        return tfds.core.DatasetInfo(
            builder=self, features=features, supervised_keys=self.KEYS
        )

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        for index, (height, width) in enumerate(SIZES):
            image = np.full((height, width, 3), 51 * (index + 1), np.uint8)
            yield index, {"image": image, "label": index}


class DatasetsTestVarying(_Foreign):
    """Images that differ in size."""

    FEATURES = {
        "image": tfds.features.Image(shape=(None, None, 3)),
        "label": tfds.features.ClassLabel(num_classes=3),
    }


class DatasetsTestRegression(DatasetsTestVarying):
    """Images with a label that is no class."""

    FEATURES = {
        "image": tfds.features.Image(shape=(None, None, 3)),
        "label": tfds.features.Scalar(np.int64),
    }


class DatasetsTestUnlabelled(DatasetsTestVarying):
    """Images without supervised keys."""

    KEYS = None


class DatasetsTestOffline(DatasetsTestVarying):
    """A set whose download breaks after some examples were written."""

    def _generate_examples(self):
        yield from itertools.islice(super()._generate_examples(), 2)
        raise requests.ConnectionError("the network went away")


class DatasetsTestUnreachable(DatasetsTestVarying):
    """A set that comes from a server which does not exist."""

    url_infos = {"http://server.invalid/archive.tar": None}

    def _split_generators(self, dl_manager):
        raise AssertionError("The download must not be tried.")


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("tfds")


def _labels(dataset):
    return np.concatenate([labels.numpy() for _, labels in dataset])


def _inputs(dataset):
    return np.concatenate([inputs.numpy() for inputs, _ in dataset])


def test_batches_of_digits(data_dir):
    test = datasets.load("optical_digits", "test", 100, data_dir=data_dir)
    assert test.element_spec[0].dtype == tf.float32
    assert test.element_spec[1].dtype == tf.int64
    shapes = [(images.shape, labels.shape) for images, labels in test]
    assert shapes == [((100, 8, 8, 1), (100,))] * 3 + [((60, 8, 8, 1), (60,))]
    raw = datasets.OpticalDigits(data_dir=data_dir).as_dataset(
        split="test", as_supervised=True, batch_size=-1
    )
    np.testing.assert_allclose(_inputs(test), raw[0].numpy() / 255, rtol=1e-6)
    np.testing.assert_array_equal(_labels(test), raw[1].numpy())
    assert _inputs(test).max() == 1.0


def test_points_stay_raw(data_dir):
    test = datasets.load("x_quadrants", "test", data_dir=data_dir)
    points = _inputs(test)
    assert points.shape == (400, 2) and points.min() < -4.5 and points.max() > 4.5
    expected = np.abs(points[:, 1]) > np.abs(points[:, 0])
    np.testing.assert_array_equal(_labels(test), expected)


def test_shuffle_is_seeded_and_new_each_iteration(data_dir):
    def points(**options):
        return datasets.load("x_quadrants", "train", data_dir=data_dir, **options)

    first, second = points(), points()
    epochs = [_inputs(first), _inputs(first)]
    assert not np.array_equal(*epochs)
    for epoch in epochs:
        np.testing.assert_array_equal(epoch, _inputs(second))
    assert not np.array_equal(epochs[0], _inputs(points(seed=1)))
    plain = _inputs(points(shuffle=False))
    np.testing.assert_array_equal(plain, _inputs(points(shuffle=False)))
    np.testing.assert_array_equal(
        np.sort(plain.view("f4,f4").ravel()), np.sort(epochs[0].view("f4,f4").ravel())
    )
    # The buffer holds everything: late examples reach the first batch.
    late = {point.tobytes() for point in plain[1200:]}
    assert sum(point.tobytes() in late for point in epochs[0][:128]) > 10


def test_shuffle_default_depends_on_split(data_dir):
    train = datasets.load("x_quadrants", "train[:50%]", data_dir=data_dir)
    assert not np.array_equal(_labels(train), _labels(train))
    test = datasets.load("x_quadrants", "test", data_dir=data_dir)
    np.testing.assert_array_equal(_labels(test), _labels(test))


def test_slices_of_splits(data_dir):
    def points(split):
        return _inputs(
            datasets.load("x_quadrants", split, shuffle=False, data_dir=data_dir)
        )

    train = points("train")
    np.testing.assert_array_equal(points("train[:80%]"), train[:1280])
    np.testing.assert_array_equal(points("train[-100:]"), train[-100:])
    both = np.concatenate([train[:10], points("test")])
    np.testing.assert_array_equal(points("train[:10]+test"), both)


@pytest.mark.parametrize(
    ("split", "message"),
    [
        ("validation", r"'train' \(1600\).*Received: split='validation'"),
        ("train[:2000]", "cannot be read"),
        ("train[abc]", "cannot be read"),
        ("train[7]", "cannot be read"),
        ("", "must be a split"),
        ("train[20:10]", "is empty"),
        ("train[:0]", "is empty"),
    ],
)
def test_wrong_splits(data_dir, split, message):
    with pytest.raises(ValueError, match=message):
        datasets.load("x_quadrants", split, data_dir=data_dir)


def test_split_of_wrong_type(data_dir):
    with pytest.raises(TypeError, match="must be a split.*Received: split=None"):
        datasets.load("x_quadrants", None, data_dir=data_dir)


@pytest.mark.parametrize("batch_size", [0, -1, 1.5, True])
def test_wrong_batch_size(data_dir, batch_size):
    with pytest.raises(ValueError, match="`batch_size` must be an integer"):
        datasets.load("x_quadrants", "train", batch_size, data_dir=data_dir)


def test_describe(data_dir):
    assert datasets.describe("optical_digits", data_dir=data_dir) == (
        datasets.DatasetInfo(
            "optical_digits", (8, 8, 1), 10, {"train": 1437, "test": 360}
        )
    )
    assert datasets.describe("x_quadrants", data_dir=data_dir) == (
        datasets.DatasetInfo("x_quadrants", (2,), 2, {"train": 1600, "test": 400})
    )


def test_unknown_names(data_dir):
    with pytest.raises(ValueError, match="nearest names are 'optical_digits'"):
        datasets.load("optical_digts", "train", data_dir=data_dir)
    with pytest.raises(ValueError, match="knows no data set"):
        datasets.describe("zzzzzzzz", data_dir=data_dir)
    with pytest.raises(ValueError, match="`name` must be the name"):
        datasets.describe(None)
    with pytest.raises(ValueError, match="no such configuration or version"):
        datasets.describe("x_quadrants:9.0.0", data_dir=data_dir)


def test_images_that_differ_in_size(data_dir):
    name = "datasets_test_varying"
    with pytest.raises(ValueError, match=r"image_size=\(height, width\)"):
        datasets.load(name, "train", data_dir=data_dir)
    assert datasets.describe(name, data_dir=data_dir).input_shape == (None, None, 3)
    resized = datasets.load(
        name, "train", shuffle=False, data_dir=data_dir, image_size=(4, 4)
    )
    ((images, labels),) = resized
    assert images.shape == (3, 4, 4, 3) and images.dtype == tf.float32
    for image, label in zip(images.numpy(), labels.numpy(), strict=True):
        np.testing.assert_allclose(image, 0.2 * (label + 1), rtol=1e-5)


def test_resizing_is_bilinear(data_dir):
    raw = _inputs(datasets.load("optical_digits", "test", data_dir=data_dir))
    half = _inputs(
        datasets.load("optical_digits", "test", data_dir=data_dir, image_size=(4, 4))
    )
    # Halving samples midway between pixels: the mean of each 2 x 2 block.
    expected = raw.reshape(360, 4, 2, 4, 2, 1).mean(axis=(2, 4))
    np.testing.assert_allclose(half, expected, atol=1e-6)


@pytest.mark.parametrize("image_size", [8, (8,), (8, 0), (8.0, 8)])
def test_wrong_image_size(data_dir, image_size):
    with pytest.raises(ValueError, match="image_size"):
        datasets.load("optical_digits", "test", image_size=image_size)


def test_points_cannot_be_resized(data_dir):
    with pytest.raises(ValueError, match="are no images"):
        datasets.load("x_quadrants", "test", data_dir=data_dir, image_size=(4, 4))


@pytest.mark.parametrize("kind", ["regression", "unlabelled"])
def test_sets_that_are_no_classification(data_dir, kind):
    with pytest.raises(ValueError, match="not one of images and class labels"):
        datasets.load(f"datasets_test_{kind}", "train", data_dir=data_dir)


def test_network_that_breaks_leaves_nothing_half_written(tmp_path):
    with pytest.raises(DatasetError, match="went away.*optical_digits.*data_dir") as e:
        datasets.load("datasets_test_offline", "train", data_dir=tmp_path)
    assert isinstance(e.value.__cause__, requests.ConnectionError)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    assert list(tmp_path.glob("datasets_test_offline/*")) == []


def test_server_out_of_reach_is_told_before_any_download(tmp_path):
    with pytest.raises(DatasetError, match="no connection to http://server.invalid"):
        datasets.load("datasets_test_unreachable", "train", data_dir=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_downloads_that_lie_ready_need_no_server(tmp_path):
    (tmp_path / "downloads" / "manual").mkdir(parents=True)
    with pytest.raises(DatasetError, match="The download must not be tried"):
        datasets.load("datasets_test_unreachable", "train", data_dir=tmp_path)


def test_missing_tfds(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(
        DatasetError, match=r'pip install "tf-spline-prune\[datasets\]"'
    ):
        datasets.load("optical_digits", "train")
