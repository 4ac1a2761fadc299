"""What stands here for the arguments of TFMOT's `prune_low_magnitude`."""

import functools
from collections.abc import Callable
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])

_SUCCESSORS = {
    "to_prune": "`model`, of `tsp.wrap_with_masks`",
    "pruning_schedule": "`schedule`, the first argument of `tsp.MaskPruning`",
    "block_size": "`granularity`, of `tsp.MaskPruning`",
    "block_pooling_type": '`pooling`, of `tsp.MaskPruning`: "mean" or "max"',
    "sparsity_m_by_n": '`granularity`, of `tsp.MaskPruning`, such as "2:4"',
    "pruning_policy": "`layers`, of `tsp.wrap_with_masks`",
}


def names_successors(function: F) -> F:
    """Let a function answer arguments of TFMOT with the names that they have here."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        for name in kwargs:
            if name in _SUCCESSORS:
                raise TypeError(
                    f"TFMOT's `{name}` is {_SUCCESSORS[name]} here. Received: "
                    f"{name}={kwargs[name]!r}"
                )
        return function(*args, **kwargs)

    return call  # type: ignore[return-value]
