"""Fashion-MNIST from the IDX files of Debian's package dataset-fashion-mnist."""

import dataclasses
import pathlib

import numpy as np

from tf_spline_prune.datasets.idx import read_idx
from tf_spline_prune.errors import DatasetError

DEBIAN_FOLDER = pathlib.Path("/usr/share/datasets/fashion-mnist")
_PREFIXES = {"train": "train", "test": "t10k"}


def find_idx_files(folder: pathlib.Path) -> "FashionMnistFiles | None":
    """Look for the four IDX files, each packed with gzip or not.

    Args:
        folder: Folder to look into.

    Returns:
        The files, or None if any of the four is missing.
    """
    images: dict[str, pathlib.Path] = {}
    labels: dict[str, pathlib.Path] = {}
    for split, prefix in _PREFIXES.items():
        for found, kind in ((images, "images-idx3"), (labels, "labels-idx1")):
            plain = folder / f"{prefix}-{kind}-ubyte"
            packed = plain.with_name(plain.name + ".gz")
            file = next((path for path in (plain, packed) if path.is_file()), None)
            if file is None:
                return None
            found[split] = file
    return FashionMnistFiles(images, labels)


@dataclasses.dataclass(frozen=True)
class FashionMnistFiles:
    """Files of 28 x 28 grey images and of their labels, by split.

    Args:
        images: File of images of every split.
        labels: File of labels of every split.
    """

    images: dict[str, pathlib.Path]
    labels: dict[str, pathlib.Path]

    input_shape = (28, 28, 1)
    num_classes = 10

    def read_labels(self, split: str) -> np.ndarray:
        """Read the labels of a split.

        Args:
            split: `"train"` or `"test"`.

        Returns:
            int64 array of shape (examples,), values 0 to 9.

        Raises:
            DatasetError: If the file is broken or holds other labels.
        """
        labels = read_idx(self.labels[split], num_axes=1)
        if labels.size and labels.max() >= self.num_classes:
            raise DatasetError(
                f"A label of Fashion-MNIST is {labels.max()}, and there are "
                f"{self.num_classes} classes. Install the files again. "
                f"Received: {str(self.labels[split])!r}"
            )
        return labels.astype(np.int64)

    def read(self, split: str) -> tuple[np.ndarray, np.ndarray]:
        """Read the images and labels of a split.

        Args:
            split: `"train"` or `"test"`.

        Returns:
            uint8 images of shape (examples, 28, 28, 1), and int64 labels of shape
            (examples,).

        Raises:
            DatasetError: If a file is broken or the two do not belong together.
        """
        images = read_idx(self.images[split], num_axes=3)[..., np.newaxis]
        labels = self.read_labels(split)
        expected = (len(labels), *self.input_shape)
        if images.shape != expected:
            raise DatasetError(
                f"The images of Fashion-MNIST have shape {images.shape}, and their "
                f"labels ask for {expected}. Install the files again. "
                f"Received: {str(self.images[split])!r}"
            )
        return images, labels
