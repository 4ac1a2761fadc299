"""`get`: a criterion by what a user calls it."""

from collections.abc import Callable
from typing import Any, get_args

from tf_spline_prune._checks import Flag, Function, Instance, OneOf, Options, checked
from tf_spline_prune.criteria._activation import Activation
from tf_spline_prune.criteria._batchnorm_scale import BatchNormScale
from tf_spline_prune.criteria._criterion import Criterion
from tf_spline_prune.criteria._fisher import Fisher
from tf_spline_prune.criteria._force import FORCE
from tf_spline_prune.criteria._fpgm import FPGM
from tf_spline_prune.criteria._grasp import GraSP
from tf_spline_prune.criteria._lamp import LAMP
from tf_spline_prune.criteria._magnitude import Magnitude
from tf_spline_prune.criteria._random import Random
from tf_spline_prune.criteria._reconstruction import Reconstruction
from tf_spline_prune.criteria._snip import SNIP
from tf_spline_prune.criteria._spline import Mode, Spline
from tf_spline_prune.criteria._synflow import SynFlow
from tf_spline_prune.criteria._taylor import Taylor
from tf_spline_prune.criteria._user_function import UserFunction

_KNOWN: tuple[type[Any], ...] = (
    *(Activation, BatchNormScale, Fisher, FPGM, LAMP),
    *(Magnitude, Random, Reconstruction, Spline, Taylor),
    *(FORCE, GraSP, SNIP, SynFlow),
)
AnyCriterion = str | Criterion | Callable[..., Any]
"""What users may give for a criterion: a name, an instance, a function."""
_BY_NAME: dict[str, Callable[[], Criterion]] = {c.name: c for c in _KNOWN}
NAMES = ("auto", *_BY_NAME)
"""The names of criteria."""

CRITERION: Options = [
    OneOf(
        *NAMES,
        instead={
            mode: f'`tsp.criteria.Spline("{mode}")`, whose mode that is'
            for mode in get_args(Mode)
        },
    ),
    Instance(
        Criterion,
        what="an instance of `criteria.Criterion`",
        hint="Criteria are named in lower case; `tsp.criteria.Spline` needs brackets.",
    ),
    Function("a function of the graph and a group"),
]
"""What that is to the checks of arguments."""


@checked(criterion=CRITERION, has_data=Flag())
def get(criterion: AnyCriterion, has_data: bool = False) -> Criterion:
    """Return a criterion from a name, an instance or a function.

    Args:
        criterion: A name such as `"spline"`, an instance, or a function
            `(graph, group) -> array of shape (units,)`, higher means keep; `"auto"`
            for `"reconstruction"` where there are data, and `"spline"` elsewhere.
        has_data: Whether there are inputs to look at. Defaults to `False`.

    Returns:
        A criterion.

    Raises:
        ValueError: If no criterion has this name.
        TypeError: If it is none of these.

    Example:

    ```python
    tsp.criteria.get("magnitude").p     # 2
    ```
    """
    if isinstance(criterion, Criterion):
        return criterion
    if isinstance(criterion, str):
        if criterion == "auto":
            criterion = "reconstruction" if has_data else "spline"
        return _BY_NAME[criterion]()
    return UserFunction(criterion)
