"""Densities of layers that follow from shapes alone: random tickets."""

from collections.abc import Sequence

import numpy as np

from tf_spline_prune.errors import BudgetError


def erk(shapes: Sequence[tuple[int, ...]], count: int) -> np.ndarray:
    """Give each layer a density in proportion to `sum(shape) / prod(shape)`.

    Args:
        shapes: Shapes of the weight tensors.
        count: How many weights stay in all.

    Returns:
        Whole numbers of weights that stay, one a tensor, that add up to `count`.

    Source: Evci et al., "Rigging the Lottery", ICML 2020 (Erdős–Rényi kernel).
    """
    sizes = np.array([int(np.prod(shape)) for shape in shapes])
    return _filled(np.array([sum(shape) for shape in shapes], float), sizes, count)


def smart_ratio(shapes: Sequence[tuple[int, ...]], count: int) -> np.ndarray:
    """Keep more in early layers, by a rule of the layer's number alone.

    Layer l of L keeps a share in proportion to `k^2 + k`, `k = L - l + 1`; the last
    one keeps 0.3 of its weights, unless so many must not stay in all.

    Args:
        shapes: Shapes of the weight tensors, in the order of computation.
        count: How many weights stay in all.

    Returns:
        Whole numbers of weights that stay, one a tensor, that add up to `count`.

    Source: Su et al., "Sanity-Checking Pruning Methods: Random Tickets can Win the
    Jackpot", NeurIPS 2020.
    """
    sizes = np.array([int(np.prod(shape)) for shape in shapes])
    k = np.arange(len(sizes), 0, -1.0)
    wanted = (k**2 + k) * sizes
    if len(sizes) < 2:
        return _filled(wanted, sizes, count)
    last = min(round(0.3 * sizes[-1]), count)
    first = sizes[:-1]
    rest = min(count - last, int(first.sum()))
    return np.append(_filled(wanted[:-1], first, rest), count - rest)


def _filled(wanted: np.ndarray, sizes: np.ndarray, count: int) -> np.ndarray:
    """Share a number out in proportion, where nobody gets more than there is."""
    if not 0 <= count <= sizes.sum():
        raise BudgetError(
            f"Of {sizes.sum():,} weights {count:,} cannot stay. Received: a sparsity "
            "out of reach"
        )
    given, full = np.zeros(len(sizes)), np.zeros(len(sizes), bool)
    while not full.all():
        left = count - sizes[full].sum()
        given = np.where(full, sizes, wanted * left / wanted[~full].sum())
        over = (given > sizes) & ~full
        if not over.any():
            break
        full |= over
    whole = np.floor(given + 1e-9).astype(int)
    # The largest remainders get what rounding has left over.
    order = np.argsort(whole - given, kind="stable")
    order = order[whole[order] < sizes[order]]
    whole[order[: count - whole.sum()]] += 1
    return whole
