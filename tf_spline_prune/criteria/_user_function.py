"""`UserFunction`: a function of the user's as a criterion."""

from collections.abc import Callable
from typing import Any

import numpy as np

from tf_spline_prune._checks import Function, checked
from tf_spline_prune.criteria._criterion import Criterion
from tf_spline_prune.graph import ChannelGraph, Group


class UserFunction(Criterion):
    """Score the units of a group by a function.

    Scores are compared across groups as they are. `criteria.get`, and so `plan` and
    `prune`, wrap any function that they are given.

    Args:
        function: Called as `function(graph, group)`; gives an array of shape
            `(units,)`, higher means keep.

    Raises:
        TypeError: If it cannot be called.

    Example:

    ```python
    def largest(graph, group):
        return sum(graph.lengths(member) for member in group.producers)

    tsp.plan(model, largest, sparsity=0.5)
    ```
    """

    @checked(function=Function("a function of the graph and a group"))
    def __init__(self, function: Callable[[ChannelGraph, Group], Any]) -> None:
        self.function = function

    @property
    def name(self) -> str:  # type: ignore[override]
        """The name in plans: `"user:"` and the function's own."""
        function = getattr(self.function, "func", self.function)  # inside a partial
        return f"user:{getattr(function, '__name__', type(function).__name__)}"

    def get_config(self) -> dict[str, Any]:
        """Return the function's name; a plan's file cannot hold the function."""
        function = getattr(self.function, "func", self.function)
        named = function if hasattr(function, "__qualname__") else type(function)
        return {"function": f"{named.__module__}.{named.__qualname__}"}

    def scores(self, group: Group) -> np.ndarray:
        """Score the units by the function."""
        return np.asarray(self.function(self.graph, group))
