"""The 8 x 8 handwritten digits as a TFDS builder that needs no network."""

import importlib.resources
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

_SEED = 1998
_TEST_EVERY = 5

_DESCRIPTION = """\
1,797 grey 8 x 8 images of handwritten digits by 13 writers: the test part of the UCI
data set, which scikit-learn ships as load_digits. A pixel was made by counting the
black points in a 4 x 4 block of a scan, 0 to 16; here it is round(count * 255 / 16).
The split into 1,437 train and 360 test images is stratified by digit and seeded.
Licence: CC BY 4.0.
"""

_CITATION = """\
@misc{alpaydin1998optical,
  author = {Alpaydin, E. and Kaynak, C.},
  title  = {Optical Recognition of Handwritten Digits},
  year   = {1998},
  publisher = {UCI Machine Learning Repository},
  doi    = {10.24432/C50P49}
}
"""


def _read_arrays() -> tuple[np.ndarray, np.ndarray]:
    file = importlib.resources.files(__package__) / "data" / "optical_digits.npz"
    with file.open("rb") as stream, np.load(stream) as arrays:
        return arrays["images"], arrays["labels"]


def _split_indices(labels: np.ndarray) -> dict[str, np.ndarray]:
    # RandomState, because NumPy keeps its stream the same from version to version.
    order = np.random.RandomState(_SEED).permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]
    test = np.zeros(len(labels), bool)
    test[order[::_TEST_EVERY]] = True
    return {"train": np.flatnonzero(~test), "test": np.flatnonzero(test)}


class OpticalDigits(tfds.core.GeneratorBasedBuilder):
    """Builder of `optical_digits`: 1,797 grey 8 x 8 images of the digits 0 to 9.

    The images lie in this package, so that preparing the data set takes seconds and
    no network. They are counts of black points from 0 to 16, scaled here to
    `round(count * 255 / 16)` so that they are what every uint8 image is: 0 to 255.
    The counts are got back by `round(pixel * 16 / 255)`.

    Splits are stratified by digit and always the same: 1,437 images to train and 360
    to test. Features: `image` uint8 (8, 8, 1) and `label` (10 classes).

    Importing this class registers it with TFDS.

    The arguments are those of every builder of TFDS: `data_dir` is the folder in
    which TFDS keeps its data sets, there is one `config`, and `version` may be
    `"1.0.0"`.

    Example:

    ```python
    builder = tsp.datasets.OpticalDigits(data_dir="data")
    builder.download_and_prepare()
    train = builder.as_dataset(split="train", as_supervised=True)
    ```

    Source: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI
    Machine Learning Repository, 1998, CC BY 4.0. See `data/OPTICAL_DIGITS.md`.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First release."}
    # TFDS looks for files of checksums beside the code. There are none to find.
    code_path = None

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=_DESCRIPTION,
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(8, 8, 1), dtype=np.uint8),
                    "label": tfds.features.ClassLabel(num_classes=10),
                }
            ),
            supervised_keys=("image", "label"),
            homepage="https://doi.org/10.24432/C50P49",
            citation=_CITATION,
            license="CC BY 4.0",
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        images, labels = _read_arrays()
        pixels = np.rint(images * (255 / 16)).astype(np.uint8)[..., np.newaxis]
        return {
            split: self._generate_examples(pixels, labels, indices)
            for split, indices in _split_indices(labels).items()
        }

    def _generate_examples(
        self, images: np.ndarray, labels: np.ndarray, indices: np.ndarray
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        for index in indices:
            yield int(index), {"image": images[index], "label": int(labels[index])}
