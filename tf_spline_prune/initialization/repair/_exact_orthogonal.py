"""`exact_orthogonal`: masks and weights made together, to be exactly orthogonal."""

from typing import Any

import numpy as np

from tf_spline_prune._checks import POSITIVE, SEED, checked
from tf_spline_prune.compat import Progress
from tf_spline_prune.errors import ModelError
from tf_spline_prune.initialization._drawing import rotation
from tf_spline_prune.initialization._masked_copy import copied, masked_kernels


@checked(weight_std=POSITIVE, seed=SEED)
def exact_orthogonal(masked: Any, weight_std: float = 1.0, seed: int = 0) -> Any:
    """Copy a masked model, with orthogonal weights under new masks of equal density.

    Only how many weights each layer keeps is taken from the masks; where they are is
    drawn anew, so that each kernel H is exactly weight_std times a matrix with
    orthonormal columns (rows, where it has more units than inputs). In a
    convolution that matrix lies in the middle of the window; the weights that it
    leaves over are spread over the window and begin at zero, free to learn.

    Args:
        masked: A masked model of either flavour, before training. It is not changed.
            For densities of your own mask it so: `tsp.prune_once(model, {"conv1": 0.5,
            "fc": 0.9}, criterion="random")`.
        weight_std: The length of every singular value: 1 for linear networks, the edge
            of chaos of `edge_of_chaos` for others. Defaults to `1.0`.
        seed: Seed of the draws. Defaults to `0`.

    Returns:
        A masked model of the same flavour, compiled as `masked` is. Each masked kernel
        keeps as many weights as before.

    Raises:
        FlavourError: If `masked` is no Keras model.
        ModelError: If it has no masked kernel, or one keeps too few weights: it takes
            as many as the smaller number of its inputs and units.
        ValueError: If `weight_std` is not positive.

    Example:

    ```python
    masked = tsp.prune_once(model, 0.9, scope="global")
    masked = tsp.initialization.exact_orthogonal(masked, weight_std=1.0247)
    ```

    Source: Nowak et al., "Sparser, Better, Deeper, Stronger: Improving Static Sparse
    Training with Exact Orthogonal Initialization", ICML 2024.
    """
    for kernel, slot in masked_kernels(masked).values():
        keep = kernel.blocks(slot.keep())
        kept, least = int(keep.sum(axis=(1, 2, 3)).min()), min(keep.shape[2:])
        if kept < least:
            raise ModelError(
                "A kernel keeps too few weights to be orthogonal: it takes one for "
                f"each of its {least} inputs or units, whichever are fewer. Mask less "
                f"of this layer. Received: {kept} kept weights in {kernel.key!r}"
            )
    copy = copied(masked)
    kernels = masked_kernels(copy)
    progress = Progress(len(kernels), "kernel")
    rng = np.random.default_rng(seed)
    for kernel, slot in kernels.values():
        drawn = [_drawn(keep, rng) for keep in kernel.blocks(slot.keep())]
        parts = zip(*drawn, strict=True)
        weights, keep = (kernel.array(np.stack(part)) for part in parts)
        slot.weight.assign((weight_std * weights).astype(slot.read().dtype))
        slot.assign(keep)
        progress.step()
    return copy


def _drawn(keep: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw the weights of a group, and the places that may learn.

    Args:
        keep: Array of shape `(taps, inputs, outputs)`, bool, of which the sum counts.
        rng: Draws.

    Returns:
        Arrays of this shape: float64, and bool with the same sum.
    """
    taps, inputs, outputs = keep.shape
    count, density = int(keep.sum()), keep.mean()
    fraction = density if taps == 1 else min(density * taps, np.sqrt(density))
    inside = min(max(round(fraction * inputs * outputs), min(inputs, outputs)), count)
    weights, places = np.zeros(keep.shape), np.zeros(keep.shape, bool)
    middle = taps // 2
    weights[middle], places[middle] = sparse_rotation(inputs, outputs, inside, rng)
    free = np.flatnonzero(~places)
    chosen = rng.choice(free, count - int(places.sum()), replace=False)
    places.reshape(-1)[chosen] = True
    return weights, places


# So many random pairs are tried before all are looked through.
_GUESSES = 50


def sparse_rotation(
    rows: int, columns: int, count: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Make an orthogonal matrix with a given number of entries.

    A permutation matrix with random signs is rotated in the plane of two random rows,
    or columns, again and again. Each rotation spreads the entries of both over all
    places that either has, and keeps what is orthogonal orthogonal.

    Args:
        rows: Number of rows.
        columns: Number of columns.
        count: How many entries may be other than zero; at least the shorter side.
        rng: Draws.

    Returns:
        Array of shape `(rows, columns)`, whose columns are orthonormal, or its rows
        where it is wide; and the places of its entries, bool. There are at most
        `count`, and as many as rotations reach.
    """
    if rows < columns:
        matrix, keep = sparse_rotation(columns, rows, count, rng)
        return matrix.T, keep.T
    if count == rows * columns:
        return rotation(rows, columns, rng), np.ones((rows, columns), bool)
    matrix = np.zeros((rows, columns))
    signs = rng.choice([-1.0, 1.0], columns)
    matrix[rng.permutation(rows)[:columns], rng.permutation(columns)] = signs
    keep = matrix != 0
    left = count - columns
    while left > 0:
        views = [(matrix, keep), (matrix.T, keep.T)]
        if rng.random() < columns / (rows + columns):
            views.reverse()
        for view in views:
            pair, gain = _fitting_pair(view[1], left, rng)
            if gain:
                break
        else:
            break
        lines, places = view
        angle = rng.uniform(0.0, 2 * np.pi)
        c, s = np.cos(angle), np.sin(angle)
        lines[pair] = np.array([[c, -s], [s, c]]) @ lines[pair]
        places[pair] = places[pair[0]] | places[pair[1]]
        left -= gain
    return matrix, keep


def _fitting_pair(
    places: np.ndarray, left: int, rng: np.random.Generator
) -> tuple[list[int], int]:
    """Find two lines whose rotation makes new entries, but not too many.

    Args:
        places: Where entries are, bool, a row per line.
        left: The most new entries.
        rng: Draws.

    Returns:
        The two lines, and the number of new entries; 0 where no pair fits.
    """
    for first, second in rng.integers(0, len(places), (_GUESSES, 2)):
        gain = int(np.count_nonzero(places[first] ^ places[second]))
        if 0 < gain <= left:
            return [int(first), int(second)], gain
    ones = places.astype("float32")
    sizes = ones.sum(axis=1)
    gains = sizes[:, None] + sizes - 2 * (ones @ ones.T)
    gains[gains > left] = 0
    first, second = divmod(int(gains.argmax()), len(gains))
    return [first, second], int(gains[first, second])
