"""`Region`: one region of a slice."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Region:
    """One region of a slice: the inputs of the plane that share a code.

    Attributes:
        polygon: Array of shape `(k, 2)`: its corners in (u, v), counter-clockwise.
        area: Its area in (u, v).
        born: Name of the layer whose knots cut it last; `""` if none did.
        code: Boolean array of shape `(knots,)`: the sides of all knots of the slice,
            layer after layer.
    """

    polygon: np.ndarray
    area: float
    born: str
    code: np.ndarray
