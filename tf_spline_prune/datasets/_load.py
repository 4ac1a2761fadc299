"""Data sets as batched pipelines of inputs, scaled, and integer labels."""

import dataclasses
import difflib
import os
import pathlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tf_spline_prune._checks import (
    COUNT,
    SEED,
    Flag,
    Interval,
    ListOf,
    Path,
    Real,
    Text,
    checked,
)
from tf_spline_prune.datasets import _fashion_mnist
from tf_spline_prune.errors import DatasetError


@dataclasses.dataclass(frozen=True)
class DatasetInfo:
    """The facts about a data set that a model and a training loop need.

    Args:
        name: Name of the data set, as given to `load`.
        input_shape: Shape of one input without the batch axis, in pixels and
            channels for images: (height, width, channels). An entry is None where
            it differs from image to image.
        num_classes: Number of classes; labels are 0 to `num_classes - 1`.
        num_examples: Number of examples of every split, by the split's name.

    Example:

    ```python
    info = tsp.datasets.describe("optical_digits")
    info.input_shape, info.num_classes     # ((8, 8, 1), 10)
    info.num_examples                      # {"train": 1437, "test": 360}
    ```
    """

    name: str
    input_shape: tuple[int | None, ...]
    num_classes: int
    num_examples: dict[str, int]


if TYPE_CHECKING:
    import tensorflow as tf

    PathLike = str | os.PathLike[str]

# A range, its upper end, or as stored.
Scale = tuple[float, float] | float | None
_UNIT = (0.0, 1.0)


@dataclasses.dataclass(frozen=True)
class _Source:
    info: DatasetInfo
    splits: dict[str, Any]  # tfds.core.SplitInfo by name
    read: Callable[[str], "tf.data.Dataset"]  # single examples of a split or slice


@checked(
    name=Text("the name of a data set, such as 'optical_digits'"),
    split=Text("a split, such as 'train[:80%]'"),
    batch_size=COUNT,
    shuffle=[Flag(), None],
    seed=SEED,
    data_dir=[Path(), None],
    image_size=[ListOf(COUNT, "pixels: (height, width)", 2, 2), None],
    scale=[Interval("a range (low, high)"), Real(0, closed="neither"), None],
)
def load(
    name: str,
    split: str,
    batch_size: int = 128,
    *,
    shuffle: bool | None = None,
    seed: int = 0,
    data_dir: "PathLike | None" = None,
    image_size: tuple[int, int] | None = None,
    scale: Scale = _UNIT,
) -> "tf.data.Dataset":
    """Load a split of an image-classification data set as batches.

    `optical_digits` and `x_quadrants` come with this package and need no network.
    `fashion_mnist` is read from Debian's package dataset-fashion-mnist where that is
    installed. Every other name is one of TFDS, which downloads the data set at the
    first call and keeps it in `data_dir`.

    Args:
        name: Name of the data set as TFDS writes it, such as `"optical_digits"` or
            `"mnist_corrupted/identity"`.
        split: Split in TFDS's notation: `"train"`, `"train[:80%]"`, `"test[100:200]"`.
        batch_size: Examples per batch; the last batch may be smaller. Defaults to
            `128`.
        shuffle: Whether to shuffle all examples, in another order at each iteration.
            They are then held in memory together. Defaults to `None`: only if `split`
            starts with `"train"`.
        seed: Seed of the shuffling. Two datasets of one seed give the same order,
            iteration by iteration. Defaults to `0`.
        data_dir: Folder in which TFDS keeps its data sets. Not used for Debian's files.
            Defaults to `None`, TFDS's own `~/tensorflow_datasets`.
        image_size: (height, width) in pixels to which images are resized, bilinearly.
            Needed if the images of the data set differ in size. Defaults to `None`.
        scale: Range of the images' values, `(low, high)`, or one number for `(0,
            number)`. A model that begins with `Rescaling(1 / 255)` wants 255. `None`
            leaves the values as they are stored. Defaults to `(0.0, 1.0)`.

    Returns:
        A prefetched `tf.data.Dataset` of `(inputs, labels)`. Inputs are float32 of
        shape (batch, height, width, channels) in the range of `scale`, [0, 1] if it
        is left out, or for `x_quadrants` the
        points themselves, (batch, 2) in [-5, 5]. Labels are int64 of shape (batch,).

    Raises:
        ValueError: If the name or split is unknown, the split is empty, the data set
            is none of images and class labels, its images differ in size and
            `image_size` is missing, or a number is out of range.
        DatasetError: If the data set cannot be had here, for want of a network or of
            the package tensorflow-datasets, or because its files are broken.

    Example:

    ```python
    train = tsp.datasets.load("optical_digits", "train", batch_size=64)
    images, labels = next(iter(train))
    images.numpy().shape     # (64, 8, 8, 1)
    ```

    Source: TensorFlow Datasets, https://www.tensorflow.org/datasets.
    """
    low_high = (0.0, float(scale)) if isinstance(scale, (int, float)) else scale
    source = _find_source(name, data_dir)
    num_examples = sum(stop - start for _, start, stop in _resolve(source, split))
    shape = source.info.input_shape
    if image_size is None and None in shape:
        raise ValueError(
            f"The inputs of {name!r} differ in size, so they do not fit into one "
            "batch. Give image_size=(height, width), to which to resize them. "
            f"Received: input shape {shape}"
        )
    if image_size is not None and len(shape) != 3:
        raise ValueError(
            f"The inputs of {name!r} are no images, so they cannot be resized. Leave "
            f"image_size away. Received: image_size={image_size!r}"
        )
    if low_high not in (None, _UNIT) and len(shape) != 3:
        raise ValueError(
            f"The inputs of {name!r} are no images, so they have no scale but their "
            f"own. Leave scale away. Received: scale={scale!r}"
        )
    return _pipeline(
        source.read(split),
        num_examples if _wants_shuffle(shuffle, split) else 0,
        seed,
        batch_size,
        image_size,
        low_high,
    )


@checked(
    name=Text("the name of a data set, such as 'optical_digits'"),
    data_dir=[Path(), None],
)
def describe(name: str, *, data_dir: "PathLike | None" = None) -> DatasetInfo:
    """Return the input shape, classes and split sizes of a data set.

    The data set is prepared if it is not yet, which may download it: TFDS knows the
    sizes of splits only then.

    Args:
        name: Name of the data set, as for `load`.
        data_dir: Folder in which TFDS keeps its data sets. Defaults to `None`, TFDS's
            own `~/tensorflow_datasets`.

    Returns:
        A `DatasetInfo`.

    Raises:
        ValueError: If the name is unknown or the data set is none of images and class
            labels.
        DatasetError: If the data set cannot be had here.

    Example:

    ```python
    tsp.datasets.describe("x_quadrants").num_examples  # {"train": 1600, "test": 400}
    ```

    Source: TensorFlow Datasets, https://www.tensorflow.org/datasets.
    """
    return _find_source(name, data_dir).info


def _pipeline(
    examples: "tf.data.Dataset",
    shuffle_buffer: int,
    seed: int,
    batch_size: int,
    image_size: tuple[int, int] | None,
    scale: tuple[float, float] | None,
) -> "tf.data.Dataset":
    import tensorflow as tf

    def as_float(inputs: Any, labels: Any) -> tuple[Any, Any]:
        dtype = inputs.dtype
        inputs = tf.cast(inputs, tf.float32)
        if scale is not None and dtype.is_integer:
            low, high = scale
            inputs = inputs * ((high - low) / dtype.max) + low
        return inputs, labels

    def resize(image: Any, label: Any) -> tuple[Any, Any]:
        return tf.image.resize(as_float(image, label)[0], image_size), label

    if image_size is not None:
        examples = examples.map(resize, num_parallel_calls=tf.data.AUTOTUNE)
    if shuffle_buffer:
        examples = examples.shuffle(shuffle_buffer, seed=seed)
    batches = examples.batch(batch_size)
    return batches.map(as_float, num_parallel_calls=tf.data.AUTOTUNE).prefetch(
        tf.data.AUTOTUNE
    )


def _find_source(name: str, data_dir: "PathLike | None") -> _Source:
    if name == "fashion_mnist":
        files = _fashion_mnist.find_idx_files(_fashion_mnist.DEBIAN_FOLDER)
        if files is not None:
            return _idx_source(name, files)
    return _tfds_source(name, data_dir)


def _idx_source(name: str, files: _fashion_mnist.FashionMnistFiles) -> _Source:
    split_info = import_tfds().core.SplitInfo
    sizes = {split: len(files.read_labels(split)) for split in files.labels}

    def read(split: str) -> "tf.data.Dataset":
        import numpy as np
        import tensorflow as tf

        arrays = {}
        parts = []
        for key, start, stop in _resolve(source, split):
            if key not in arrays:
                arrays[key] = files.read(key)
            parts.append([array[start:stop] for array in arrays[key]])
        inputs, labels = (np.concatenate(column) for column in zip(*parts, strict=True))
        return tf.data.Dataset.from_tensor_slices((inputs, labels))

    source = _Source(
        info=DatasetInfo(name, files.input_shape, files.num_classes, sizes),
        splits={
            split: split_info(name=split, shard_lengths=[size], num_bytes=0)
            for split, size in sizes.items()
        },
        read=read,
    )
    return source


def _tfds_source(name: str, data_dir: "PathLike | None") -> _Source:
    features_of = import_tfds().features
    builder = prepared_builder(name, data_dir)
    keys = builder.info.supervised_keys
    features = [builder.info.features[key] for key in _flat_pair(keys)]
    if not (
        len(features) == 2
        and (
            isinstance(features[0], features_of.Image) or builder.name == "x_quadrants"
        )
        and isinstance(features[1], features_of.ClassLabel)
    ):
        raise ValueError(
            "The data set is not one of images and class labels. Choose one whose "
            "supervised keys in TFDS's catalogue are ('image', 'label'). "
            f"Received: name={name!r} with supervised keys {keys}"
        )
    splits = dict(builder.info.splits)
    return _Source(
        info=DatasetInfo(
            name=name,
            input_shape=tuple(features[0].shape),
            num_classes=features[1].num_classes,
            num_examples={key: info.num_examples for key, info in splits.items()},
        ),
        splits=splits,
        read=lambda split: builder.as_dataset(
            split=split, as_supervised=True, shuffle_files=False
        ),
    )


def _flat_pair(keys: Any) -> tuple[str, ...]:
    if isinstance(keys, tuple) and len(keys) == 2 and set(map(type, keys)) == {str}:
        return keys
    return ()


def _resolve(source: _Source, split: str) -> list[tuple[str, int, int]]:
    """Turn a split such as `"train[:80%]"` into (name, start, stop) parts."""
    splits = source.splits
    sizes = ", ".join(f"{key!r} ({info.num_examples})" for key, info in splits.items())
    advice = (
        f"{source.info.name!r} has the splits {sizes}; parts are written as "
        "'train[:80%]', 'train[100:200]' or 'train+test'. "
        f"Received: split={split!r}"
    )
    try:
        wanted = import_tfds().core.ReadInstruction.from_spec(split).to_absolute(splits)
    except (ValueError, NotImplementedError, RuntimeError) as error:
        raise ValueError(f"The split cannot be read. {advice}") from error
    parts = []
    for part in wanted:
        size = splits[part.splitname].num_examples
        stop = size if part.to is None else part.to
        parts.append((part.splitname, part.from_ or 0, stop))
    if any(start >= stop for _, start, stop in parts):
        raise ValueError(f"The split is empty. {advice}")
    return parts


def _wants_shuffle(shuffle: bool | None, split: str) -> bool:
    return split.startswith("train") if shuffle is None else shuffle


_OUR_BUILDERS = ("optical_digits", "x_quadrants")
_CONNECT_SECONDS = 10.0


def import_tfds() -> Any:
    """Import tensorflow_datasets and register the builders of this package.

    Returns:
        The module tensorflow_datasets.

    Raises:
        DatasetError: If it is not installed.
    """
    try:
        import tensorflow_datasets as tfds

        from tf_spline_prune.datasets import _optical_digits, _x_quadrants  # noqa: F401
    except ImportError as error:
        raise _not_installed(error) from error
    return tfds


def prepared_builder(name: str, data_dir: str | os.PathLike[str] | None) -> Any:
    """Find a builder by name and make sure that its data set lies ready.

    Args:
        name: TFDS name, which may hold a configuration and a version.
        data_dir: Folder in which TFDS keeps its data sets; None is TFDS's own.

    Returns:
        A `tfds.core.DatasetBuilder` whose data can be read.

    Raises:
        ValueError: If no data set has this name, configuration or version.
        DatasetError: If the data set cannot be downloaded and prepared.
    """
    tfds = import_tfds()
    builder = _find_builder(tfds, name, data_dir)
    if pathlib.Path(builder.data_dir).exists():
        return builder
    try:
        _check_network(builder)
        builder.download_and_prepare(
            download_config=tfds.download.DownloadConfig(try_download_gcs=False)
        )
    except ImportError as error:
        raise _not_installed(error) from error
    except Exception as error:  # Builders run any code, so they raise anything.
        raise DatasetError(
            f"The data set could not be downloaded and prepared in "
            f"{str(builder.data_dir_root)!r}: {error}. These need no network: "
            "'optical_digits', 'x_quadrants', and 'fashion_mnist' with Debian's "
            "package dataset-fashion-mnist. For another one, prepare it with TFDS on a "
            "machine with a network, copy the folder, and pass it as `data_dir`. "
            f"Received: name={name!r}"
        ) from error
    return builder


def _find_builder(tfds: Any, name: str, data_dir: str | os.PathLike[str] | None) -> Any:
    try:
        return tfds.builder(name, data_dir=data_dir)
    except ImportError as error:
        raise _not_installed(error) from error
    except tfds.core.DatasetNotFoundError as error:
        known = {*tfds.list_builders(with_community_datasets=False), *_OUR_BUILDERS}
        near = difflib.get_close_matches(name, sorted(known), n=3) or _OUR_BUILDERS
        raise ValueError(
            "TFDS knows no data set of this name. The nearest names are "
            f"{', '.join(map(repr, near))}. Received: name={name!r}"
        ) from error
    except (ValueError, AssertionError, RuntimeError) as error:
        raise ValueError(
            "TFDS has no such configuration or version of the data set. Give a name "
            "such as 'mnist', 'mnist_corrupted/identity' or 'mnist:3.*.*'. "
            f"TFDS says: {error}. Received: name={name!r}"
        ) from error


def _check_network(builder: Any) -> None:
    """Ask the first server once, because TFDS tries for minutes when it is offline."""
    url = next((url for url in builder.url_infos or () if url.startswith("http")), None)
    if url is None or _has_downloads(builder):
        return
    import requests

    try:
        requests.head(url, timeout=_CONNECT_SECONDS).close()
    except requests.ConnectionError as error:
        raise DatasetError(f"no connection to {url}") from error
    except requests.RequestException:
        pass  # The server is there; what it has to say, TFDS will hear.


def _has_downloads(builder: Any) -> bool:
    # TFDS puts a file *.INFO beside every finished download, in a folder a data set
    # or, in earlier releases, in one for all; files got by hand lie in "manual".
    downloads = pathlib.Path(builder.data_dir_root) / "downloads"
    return (
        (downloads / "manual").exists()
        or any(downloads.glob("*.INFO"))
        or any((downloads / builder.name).rglob("*.INFO"))
    )


def _not_installed(error: ImportError) -> DatasetError:
    return DatasetError(
        f"Reading data sets needs a module that is not installed: {error}. Run: "
        'pip install "tf-spline-prune[datasets]", and install that module if it is '
        "still missing."
    )
