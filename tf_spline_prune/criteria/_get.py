"""`get`: a criterion by what a user calls it."""

from typing import Any, get_args

from tf_spline_prune import criteria
from tf_spline_prune._checks import Flag, Function, Instance, OneOf, Options, checked
from tf_spline_prune.criteria._criterion import AnyCriterion, Criterion
from tf_spline_prune.criteria._spline import Mode
from tf_spline_prune.criteria._user_function import UserFunction

# A class with a name is a criterion: its line in the stub of this room is enough.
_CLASSES = [getattr(criteria, name) for name in dir(criteria) if name[0].isupper()]
BY_NAME: dict[str, type[Any]] = {
    c.name: c for c in _CLASSES if isinstance(getattr(c, "name", None), str)
}
"""The classes of criteria by name."""
NAMES = ("auto", *BY_NAME)
"""What users may write for a criterion."""

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
        return BY_NAME[criterion]()
    return UserFunction(criterion)
