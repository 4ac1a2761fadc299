"""`CodeLayout`: what the bits of codes mean."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class CodeLayout:
    """What the bits of codes mean; the same for all codes of one coder.

    Attributes:
        num_knots: For each layer, the number of knots that are coded.
        num_units: For each layer, the number of its units, coded or not.
        units: For each layer, an array of shape `(knots,)`: the unit (neuron or
            channel) that a knot belongs to.
        key: Names the layers and the subsets of their knots.
    """

    num_knots: Mapping[str, int]
    num_units: Mapping[str, int]
    units: Mapping[str, np.ndarray]
    key: str
