"""Symmetric systems: solved, and inverted, whatever rounding has made of them."""

from collections.abc import Callable

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from scipy.linalg.lapack import dpotrf, dpotri

# The rounding of float32, in products.
_ROUNDING = float(np.finfo("float32").eps) ** 2
# Noise that is tried in turn, as a fraction of the mean entry of the diagonal.
_NOISE = (0.0, 1e-8, 1e-6, 1e-4, 1e-2)

Solver = Callable[[np.ndarray], np.ndarray]


def solver_of(gram: np.ndarray) -> Solver:
    """Factor a symmetric system, to solve it as often as is wanted.

    Args:
        gram: Array of shape `(n, n)`, positive semidefinite up to rounding.

    Returns:
        A function from right sides of shape `(n, m)` to solutions, the shortest ones
        where there are many.
    """
    try:
        factor = cho_factor(gram, lower=True, check_finite=False)
        sizes = np.square(np.diag(factor[0]))
        if len(gram) and sizes.min() > _ROUNDING * len(gram) * sizes.max():
            return lambda right: np.asarray(
                cho_solve(factor, right, check_finite=False)
            )
    except np.linalg.LinAlgError:
        pass
    inverse = np.linalg.pinv(gram, _ROUNDING * len(gram), hermitian=True)
    return lambda right: np.asarray(inverse @ right)


def inverse_of(gram: np.ndarray) -> np.ndarray:
    """Invert a symmetric matrix, with noise on its diagonal where it has no inverse.

    Args:
        gram: Array of shape `(n, n)`, float64, positive semidefinite up to rounding.

    Returns:
        Array of the same shape, row by row in memory.
    """
    size, count = float(np.diag(gram).mean()) or 1.0, len(gram)
    for noise in _NOISE:
        factor = np.array(gram, order="F")
        factor[np.diag_indices(count)] += noise * size
        factor, failed = dpotrf(factor, lower=True, overwrite_a=True)
        if not failed:
            inverse, _ = dpotri(factor, lower=True, overwrite_c=True)
            lower = np.tril_indices(count, -1)
            inverse[lower[1], lower[0]] = inverse[lower]
            return np.asarray(inverse.T)  # which is the same, row by row
    return np.eye(count) / size
