"""Data sets for examples, tests and benchmarks, two of them without a network.

`load` gives any TFDS image-classification set as a batched `tf.data.Dataset`.
`optical_digits` and `x_quadrants` live in this package and need no network.
Importing this module imports neither tensorflow nor tensorflow_datasets; the two
builder classes are imported, and so registered with TFDS, at their first use.
"""

import importlib
from typing import TYPE_CHECKING, Any

from tf_spline_prune.datasets._load import DatasetInfo, describe, load

if TYPE_CHECKING:
    from tf_spline_prune.datasets._optical_digits import OpticalDigits
    from tf_spline_prune.datasets._x_quadrants import XQuadrants

__all__ = ["DatasetInfo", "OpticalDigits", "XQuadrants", "describe", "load"]

_BUILDERS = {"OpticalDigits": "_optical_digits", "XQuadrants": "_x_quadrants"}


def __getattr__(name: str) -> Any:
    if name not in _BUILDERS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_BUILDERS[name]}"), name)


def __dir__() -> list[str]:
    return __all__
