"""`approximate_isometry`: kept weights made as orthogonal as their mask allows."""

from typing import Any

import numpy as np

from tf_spline_prune._checks import COUNT, FRACTION, POSITIVE, checked
from tf_spline_prune.compat import Progress
from tf_spline_prune.initialization._masked_copy import copied, masked_kernels

# So many steps without the penalty falling by the tolerance end the descent.
_PATIENCE = 50


@checked(weight_std=POSITIVE, steps=COUNT, learning_rate=POSITIVE, tolerance=FRACTION)
def approximate_isometry(
    masked: Any,
    weight_std: float = 1.0,
    steps: int = 1000,
    learning_rate: float = 0.1,
    tolerance: float = 1e-3,
) -> Any:
    """Copy a masked model, its kept weights moved towards orthogonality.

    Pruning breaks the isometry that orthogonal initial weights have: singular values
    of the Jacobian shrink and spread. Here each masked kernel W is moved, by gradient
    descent and without data, to make ||W^T W - weight_std^2 I|| small (W W^T where
    that is the smaller matrix), what the mask removes staying zero. A
    convolution is taken as the matrix from its window to its units.

    Args:
        masked: A masked model of either flavour, before training. It is not changed.
        weight_std: The length that every singular value is to have: 1 for linear
            networks, the edge of chaos of `edge_of_chaos` for others. Defaults to
            `1.0`.
        steps: The most steps of descent for a kernel. Defaults to `1000`.
        learning_rate: Length of the first step, for weights of `weight_std` 1; it
            halves whenever the penalty rises. Defaults to `0.1`.
        tolerance: The descent of a kernel ends when 50 steps have lowered its penalty
            by less than this fraction. Defaults to `0.001`.

    Returns:
        A masked model of the same flavour, compiled as `masked` is.

    Raises:
        FlavourError: If `masked` is no Keras model.
        ModelError: If it has no masked kernel.
        ValueError: If an argument is out of range.

    Example:

    ```python
    masked = tsp.prune_once(model, 0.9, scope="global")
    masked = tsp.initialization.approximate_isometry(masked)
    ```

    Source: Lee et al., "A Signal Propagation Perspective for Pruning Neural Networks
    at Initialization", ICLR 2020, section 4.2; the smaller Gram matrix, the target for
    other activations than the linear one and the end by tolerance are additions.
    """
    masked_kernels(masked)
    copy = copied(masked)
    kernels = masked_kernels(copy)
    progress = Progress(len(kernels), "kernel")
    for kernel, slot in kernels.values():
        array = slot.read()
        blocks = kernel.blocks(array.astype("float64"))
        keep = kernel.blocks(slot.keep())
        shape = (len(blocks), -1, blocks.shape[-1])
        moved = [
            weight_std * descend(w / weight_std, k, steps, learning_rate, tolerance)
            for w, k in zip(blocks.reshape(shape), keep.reshape(shape), strict=True)
        ]
        found = kernel.array(np.stack(moved).reshape(blocks.shape))
        slot.weight.assign(found.astype(array.dtype))
        progress.step()
    return copy


def descend(
    matrix: np.ndarray, keep: np.ndarray, steps: int, rate: float, tolerance: float
) -> np.ndarray:
    """Move the kept entries of a matrix towards orthogonality.

    Args:
        matrix: Array of shape `(inputs, outputs)`, zero where nothing is kept.
        keep: Array of this shape, bool.
        steps: The most steps.
        rate: Length of the first step.
        tolerance: As in `approximate_isometry`.

    Returns:
        The best matrix on the way.
    """
    wide = matrix.shape[0] < matrix.shape[1]
    now, keep = (matrix.T, keep.T) if wide else (matrix, keep)
    best, least, goal, waited = now, np.inf, np.inf, 0
    before = np.inf
    for _ in range(steps):
        rest = now.T @ now - np.eye(now.shape[1])
        penalty = float(np.linalg.norm(rest))
        if penalty < least:
            best, least = now, penalty
        if penalty == 0.0:
            break
        rate = rate / 2 if penalty > before else rate
        before = penalty
        waited += 1
        if least < goal:
            goal, waited = least * (1 - tolerance), 0
        elif waited == _PATIENCE:
            break
        # The gradient of the norm, which is not squared: steps of one length.
        now = now - rate * keep * (now @ rest) * (2 / penalty)
    return best.T if wide else best
