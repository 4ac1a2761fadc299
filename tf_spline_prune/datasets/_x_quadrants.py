"""The two-dimensional toy of the spline papers as a TFDS builder."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

_SEED = 0
_NUM_POINTS = 2000
_NUM_TRAIN = 1600
_HALF_WIDTH = 5.0

_DESCRIPTION = """\
2,000 points drawn uniformly from the square [-5, 5] x [-5, 5] from a fixed seed. The
two diagonals cut the square into four quadrants, the shape of an X. The label is 1 in
the upper and lower quadrant, where |y| > |x|, and 0 in the left and right one.
The first 1,600 points are for training, the other 400 for testing.
"""

_CITATION = """\
@article{you2022max,
  author  = {You, Haoran and others},
  title   = {Max-Affine Spline Insights Into Deep Network Pruning},
  journal = {Transactions on Machine Learning Research},
  year    = {2022},
  note    = {arXiv:2101.02338}
}
"""


def _make_points() -> tuple[np.ndarray, np.ndarray]:
    # RandomState, because NumPy keeps its stream the same from version to version.
    points = np.random.RandomState(_SEED).uniform(
        -_HALF_WIDTH, _HALF_WIDTH, (_NUM_POINTS, 2)
    )
    # Labels come from the numbers that are stored, not from those before rounding.
    points = points.astype(np.float32)
    return points, np.abs(points[:, 1]) > np.abs(points[:, 0])


class XQuadrants(tfds.core.GeneratorBasedBuilder):
    """Builder of `x_quadrants`: 2,000 points in a square cut by its two diagonals.

    The points are drawn from a fixed seed, so that preparing the data set takes a
    second and no network. A network that learns the X bends its regions along two
    lines, which makes partitions easy to look at.

    Features: `point` float32 (2,), which is (x, y), each from -5 to 5; and `label`,
    1 where |y| > |x|, else 0. Splits: 1,600 points to train and 400 to test.

    Importing this class registers it with TFDS.

    The arguments are those of every builder of TFDS: `data_dir` is the folder in
    which TFDS keeps its data sets, there is one `config`, and `version` may be
    `"1.0.0"`.

    Example:

    ```python
    builder = tsp.datasets.XQuadrants(data_dir="data")
    builder.download_and_prepare()
    train = builder.as_dataset(split="train", as_supervised=True)
    ```

    Source: the toy example of H. You et al., Max-Affine Spline Insights Into Deep
    Network Pruning, TMLR 2022 (arXiv 2101.02338); drawn anew from our own seed.
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
                    "point": tfds.features.Tensor(shape=(2,), dtype=np.float32),
                    "label": tfds.features.ClassLabel(num_classes=2),
                }
            ),
            supervised_keys=("point", "label"),
            citation=_CITATION,
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        return {
            "train": self._generate_examples(range(_NUM_TRAIN)),
            "test": self._generate_examples(range(_NUM_TRAIN, _NUM_POINTS)),
        }

    def _generate_examples(
        self, indices: range
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        points, labels = _make_points()
        for index in indices:
            yield index, {"point": points[index], "label": int(labels[index])}
