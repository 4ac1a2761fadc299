"""Criteria: scores, nothing else. One criterion a file."""

from collections.abc import Callable

from tf_spline_prune.criteria.batchnorm_scale import BatchNormScale
from tf_spline_prune.criteria.criterion import Criterion, PairCriterion, UnitPairs
from tf_spline_prune.criteria.magnitude import Magnitude
from tf_spline_prune.criteria.random import Random
from tf_spline_prune.criteria.reconstruction import Reconstruction
from tf_spline_prune.criteria.spline import Spline

_BY_NAME: dict[str, Callable[[], Criterion]] = {
    c.name: c for c in (BatchNormScale, Magnitude, Random, Reconstruction, Spline)
}


def get(criterion: str | Criterion) -> Criterion:
    """Find a criterion by name, or hand an instance through.

    Args:
        criterion: A name such as `"spline"`, or an instance.

    Returns:
        A criterion.

    Raises:
        ValueError: If no criterion has this name.
        TypeError: If it is neither a name nor an instance.

    Example:

    ```python
    tsp.criteria.get("magnitude")     # Magnitude(p=2)
    ```
    """
    if isinstance(criterion, Criterion):
        return criterion
    if isinstance(criterion, str) and criterion in _BY_NAME:
        return _BY_NAME[criterion]()
    expected = f"one of {tuple(_BY_NAME)} or an instance of `criteria.Criterion`"
    error = ValueError if isinstance(criterion, str) else TypeError
    raise error(f"Expected {expected}. Received: {criterion!r}")


__all__ = [
    "BatchNormScale",
    "Criterion",
    "Magnitude",
    "PairCriterion",
    "Random",
    "Reconstruction",
    "Spline",
    "UnitPairs",
    "get",
]
