"""What a data set holds, before any of it is read."""

import dataclasses


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
