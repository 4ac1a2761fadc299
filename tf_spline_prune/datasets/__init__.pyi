from tf_spline_prune.datasets._load import (
    DatasetInfo as DatasetInfo,
    describe as describe,
    load as load,
)
from tf_spline_prune.datasets._optical_digits import OpticalDigits as OpticalDigits
from tf_spline_prune.datasets._x_quadrants import XQuadrants as XQuadrants
