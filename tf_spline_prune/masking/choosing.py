"""Which weights of a model stay."""

from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np

from tf_spline_prune.errors import BudgetError
from tf_spline_prune.masking.cells import Cells, aim, lowest
from tf_spline_prune.masking.granularity import Granularity, Pooling
from tf_spline_prune.masking.layout import Layout

Scope = Literal["layer", "global"]


def choose(
    scores: Sequence[np.ndarray],
    sparsity: float | Sequence[float],
    granularity: Any = "weight",
    scope: Scope = "layer",
    pooling: Pooling = "mean",
    layouts: Sequence[Layout] | None = None,
    max_sparsity: float | None = None,
) -> list[np.ndarray]:
    """Choose the weights that stay: those of the highest scores.

    Single weights go in exactly the number that is asked for, also among equal
    scores, where the first ones go first: nothing hangs on chance. Whole blocks go
    until what is gone is as near to the target as whole blocks can come; a block at
    a ragged edge counts by the weights that it has. Of an m:n pattern with a
    sparsity below m/n, the groups go that lose least by it, and at or above m/n all
    of them; where n does not divide the inputs, the last group is filled up with
    zeros, which it loses first. Every tensor keeps at least one weight, or one block.

    Args:
        scores: One array a weight tensor, in its shape; higher means keep.
        sparsity: Share of the weights that shall go, in [0, 1), of all of them; or
            one share a tensor, and then the scope is `"layer"`.
        granularity: What `Granularity.of` reads: `"weight"`, `(4, 1)`, `"2:4"`.
        scope: What is ranked together: each tensor alone (`"layer"`), or all of
            them (`"global"`).
        pooling: Whether the score of a block is the `"mean"` or the `"max"` of the
            scores of its weights.
        layouts: One layout a tensor, for blocks and patterns. Defaults to
            `[..., inputs, outputs]` for all.
        max_sparsity: The largest share that one tensor may lose, in [0, 1]; 1 for no
            limit but the last weight. Defaults to 1 in the scope `"layer"`; in
            `"global"` to 0.99, or halfway between `sparsity` and 1 where that is
            more: no layer runs dry because its weights are small.

    Returns:
        One bool array a tensor, in its shape; true means keep.

    Raises:
        ValueError: If an argument is out of range, a score is not finite, or a tensor
            has too few axes for the granularity.
        BudgetError: If `sparsity` is above `max_sparsity`, or so many weights of all
            tensors together cannot go.

    Example:

    ```python
    keep, = choose([np.abs(kernel)], 0.8, granularity=(4, 1))
    ```
    """
    kind = Granularity.of(granularity)
    for name, value, known in (
        ("scope", scope, get_args(Scope)),
        ("pooling", pooling, get_args(Pooling)),
    ):
        if value not in known:
            raise ValueError(f"`{name}` must be one of {known}. Received: {value!r}")
    arrays = [_checked(array, place) for place, array in enumerate(scores)]
    if layouts is None:
        layouts = [Layout()] * len(arrays)
    _check_length("layouts", layouts, arrays)
    if isinstance(sparsity, (Sequence, np.ndarray)) and np.ndim(sparsity):
        scope, shares = "layer", [_share(share) for share in sparsity]
        _check_length("sparsity", shares, arrays)
    else:
        shares = [_share(sparsity)] * len(arrays)
    if max_sparsity is None:
        usual = max(0.99, (1 + max(shares, default=0.0)) / 2)
        max_sparsity = usual if scope == "global" else 1.0
    elif not 0 <= max_sparsity <= 1:
        raise ValueError(
            f"`max_sparsity` must lie in [0, 1]. Received: max_sparsity={max_sparsity}"
        )
    if max(shares, default=0.0) > max_sparsity:
        raise BudgetError(
            "`sparsity` must not be above `max_sparsity`. Received: sparsity="
            f"{max(shares)}, max_sparsity={max_sparsity}"
        )
    cells = [
        kind.cells(a, layout, pooling)
        for a, layout in zip(arrays, layouts, strict=True)
    ]
    if scope == "global" and cells:
        return _together(cells, shares[0], max_sparsity)
    return [
        _together([one], share, max_sparsity)[0]
        for one, share in zip(cells, shares, strict=True)
    ]


def _together(
    tensors: Sequence[Cells], share: float, max_sparsity: float
) -> list[np.ndarray]:
    """Choose among the cells of several tensors by one ranking.

    A tensor alone loses what it can; several must meet their target.
    """
    free = [cells.may_go(max_sparsity) for cells in tensors]
    sizes = np.concatenate([cells.sizes for cells in tensors])
    target = aim(sizes, sum(cells.num_weights for cells in tensors), share)
    most = sizes.sum() - sizes[~np.concatenate(free)].sum()
    if len(tensors) > 1 and target - most > sizes.max(initial=0) / 2:
        raise BudgetError(
            f"So many weights cannot go: {most:,} may, and {target:,} are asked for, "
            "where every tensor keeps one and none loses more than `max_sparsity`. "
            f"Received: sparsity={share}, max_sparsity={max_sparsity}"
        )
    # What must stay is as if it were the best.
    scores = np.concatenate(
        [np.where(m, c.scores, np.inf) for c, m in zip(tensors, free, strict=True)]
    )
    gone = lowest(scores, sizes, min(target, most))
    parts = np.split(gone, np.cumsum([len(may) for may in free])[:-1])
    return [cells.mask(part) for cells, part in zip(tensors, parts, strict=True)]


def _checked(array: Any, place: int) -> np.ndarray:
    array = np.asarray(array)
    if array.dtype not in (np.float32, np.float64):
        array = array.astype("float64")
    if not np.isfinite(array).all():
        raise ValueError(
            "Scores must be finite numbers. Received: NaN or infinite scores of "
            f"tensor {place}, of shape {array.shape}"
        )
    return array


def _share(value: Any) -> float:
    number = np.asarray(value)
    if number.ndim or number.dtype.kind not in "fiu" or not 0 <= number < 1:
        raise ValueError(
            "`sparsity` is the share of weights that go, a number of at least 0 and "
            f"less than 1. Received: sparsity={value!r}"
        )
    return float(number)


def _check_length(name: str, values: Sequence[Any], arrays: Sequence[Any]) -> None:
    if len(values) != len(arrays):
        raise ValueError(
            f"`{name}` must have one item a tensor, {len(arrays)}. Received: "
            f"{len(values)} items"
        )
