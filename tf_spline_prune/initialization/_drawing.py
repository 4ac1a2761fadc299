"""Random kernels whose units have a given incoming variance."""

from collections.abc import Callable

import numpy as np

Shape = tuple[int, int, int, int]


def normal(shape: Shape, std: float, rng: np.random.Generator) -> np.ndarray:
    """Draw independent Gaussian weights.

    Args:
        shape: `(groups, taps, inputs, outputs)`.
        std: Standard deviation of the weights times sqrt(fan-in).
        rng: Draws.

    Returns:
        Array of this shape.
    """
    return rng.normal(0.0, std / np.sqrt(shape[1] * shape[2]), shape)


def orthogonal(shape: Shape, std: float, rng: np.random.Generator) -> np.ndarray:
    """Draw kernels whose units read the window in orthogonal directions.

    Every unit's incoming weights have the norm `std` where the units are no more than
    the inputs, and on average otherwise.

    Args:
        shape: As in `normal`.
        std: As in `normal`.
        rng: Draws.

    Returns:
        Array of this shape.
    """
    groups, taps, inputs, outputs = shape
    return std * np.stack(
        [rotation(taps * inputs, outputs, rng) for _ in range(groups)]
    ).reshape(shape)


def delta_orthogonal(shape: Shape, std: float, rng: np.random.Generator) -> np.ndarray:
    """Draw an orthogonal matrix in the middle of each window, and zeros around it.

    Args:
        shape: As in `normal`.
        std: As in `normal`.
        rng: Draws.

    Returns:
        Array of this shape.
    """
    groups, taps, inputs, outputs = shape
    found = np.zeros(shape)
    found[:, taps // 2] = orthogonal((groups, 1, inputs, outputs), std, rng)[:, 0]
    return found


def rotation(rows: int, columns: int, rng: np.random.Generator) -> np.ndarray:
    """Draw a matrix of orthogonal columns or, where it is wide, rows.

    Args:
        rows: Number of rows.
        columns: Number of columns.
        rng: Draws.

    Returns:
        Array of shape `(rows, columns)`, uniform among its like. The columns have the
        norm 1; of a wide one that is their root mean square.
    """
    tall = rows >= columns
    square = rng.normal(size=(rows, columns) if tall else (columns, rows))
    q, r = np.linalg.qr(square)
    q *= np.sign(np.diag(r))  # without it, QR prefers some rotations
    return q if tall else q.T * np.sqrt(columns / rows)


DISTRIBUTIONS: dict[str, Callable[[Shape, float, np.random.Generator], np.ndarray]] = {
    "normal": normal,
    "orthogonal": orthogonal,
    "delta_orthogonal": delta_orthogonal,
}
