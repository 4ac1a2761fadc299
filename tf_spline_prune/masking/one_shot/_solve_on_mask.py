"""`solve_on_mask`: the best values for the weights that a mask keeps."""

import numpy as np

from tf_spline_prune._matrices import solver_of
from tf_spline_prune.masking.one_shot._layer_problem import LayerProblem

_AFFORDABLE = 2e11  # operations; beyond, steps towards the solution
_STEPS = 20


def solve_on_mask(
    problem: LayerProblem, keep: np.ndarray, affordable: float = _AFFORDABLE
) -> np.ndarray:
    """Find the weights of least loss among those that a mask lets differ from zero.

    Outputs that keep the same inputs are solved together. Where it would take too long,
    steps of conjugate gradients are taken from the masked weights, for all outputs at
    once: 20 are within 0.2 % of the least loss at a condition number of 1e4.

    Args:
        problem: The layer's problem.
        keep: Array of shape `(groups, n, m)`, bool.
        affordable: How many multiplications an exact solution may take.

    Returns:
        Array of shape `(groups, n, m)`, exactly zero where not kept.
    """
    stacks = (problem.gram, problem.right, problem.first)
    alike = [_alike(one) for one in keep]
    cost = sum(
        np.count_nonzero(one[:, columns[0]]) ** 2
        * (np.count_nonzero(one[:, columns[0]]) / 3 + len(columns))
        for one, together in zip(keep, alike, strict=True)
        for columns in together
    )
    if cost > affordable:
        return np.stack([_steps(*each) for each in zip(*stacks, keep, strict=True)])
    weights = np.zeros(problem.first.shape)
    for *each, mask, together, out in zip(*stacks, keep, alike, weights, strict=True):
        gram, right, first = each
        for columns in together:
            kept = np.flatnonzero(mask[:, columns[0]])
            at = np.ix_(kept, columns)
            inner = gram[np.ix_(kept, kept)]
            out[at] = first[at] + solver_of(inner)(right[at] - inner @ first[at])
    return weights


def _alike(keep: np.ndarray) -> list[np.ndarray]:
    """List the columns of equal masks of shape `(n, m)` together."""
    packed = np.packbits(keep, axis=0).T
    _, which = np.unique(packed, axis=0, return_inverse=True)
    order = np.argsort(which.ravel(), kind="stable")
    ends = np.flatnonzero(np.diff(which.ravel()[order])) + 1
    return np.split(order, ends)


def _steps(
    gram: np.ndarray, right: np.ndarray, first: np.ndarray, keep: np.ndarray
) -> np.ndarray:
    """Take steps of conjugate gradients for all outputs at once, arrays as above.

    The inputs are scaled to unit length, which spares most of the steps.
    """
    scale = np.sqrt(np.diag(gram))
    scale = np.where(scale > 0, scale, 1)[:, None]
    gram = gram / scale / scale.T
    found = keep * first * scale
    rest = keep * (right / scale - gram @ found)
    along = rest
    length = np.einsum("nm,nm->m", rest, rest)
    for _ in range(_STEPS):
        ahead = keep * (gram @ along)
        curve = np.einsum("nm,nm->m", along, ahead)
        by = np.divide(length, curve, out=np.zeros_like(length), where=curve > 0)
        found = found + by * along
        rest = rest - by * ahead
        before, length = length, np.einsum("nm,nm->m", rest, rest)
        turn = np.divide(length, before, out=np.zeros_like(length), where=before > 0)
        along = rest + turn * along
    return np.asarray(found / scale)
