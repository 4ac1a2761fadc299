"""`Regression`: least squares whose rows come batch by batch."""

import numpy as np

# The rounding of float32, in products; and the ridge beside which it is nothing.
_ROUNDING = float(np.finfo("float32").eps) ** 2
_FORGIVING = 1e-6


class Regression:
    """Finds the weights that map rows `x` to rows `y`, from first ones.

    Minimises `|X W + b - Y|^2 + ridge * s * |W - W0|^2`, where `s` is the mean square
    of the centred columns of `X`, so that `ridge` has no unit. Memory is bounded by
    the smaller of the number of rows and of columns: with more rows only their
    products are kept, with fewer the rows themselves.

    Args:
        first: The weights to start from, array of shape `(d, m)`.
        num_rows: How many rows will come, at most.
        ridge: How strongly the first weights are held to.
        centred: Whether there is an intercept `b` to find.
    """

    def __init__(
        self, first: np.ndarray, num_rows: int, ridge: float, centred: bool = True
    ) -> None:
        self.first = first.astype("float32")
        self.ridge = ridge
        self.centred = centred
        self.num_rows = 0
        self._products = num_rows > len(first)
        size = len(first) + first.shape[1]
        self._sums = np.zeros(size)
        self._shift = np.zeros(0)
        self._rows: list[np.ndarray] = []
        if self._products:
            self._gram = np.zeros((len(first), len(first)))
            self._cross = np.zeros(first.shape)

    def add(self, x: np.ndarray, y: np.ndarray) -> None:
        """Take in rows.

        Args:
            x: Array of shape `(n, d)`.
            y: Array of shape `(n, m)`.
        """
        rest = np.concatenate([x, y - x @ self.first], axis=1)
        if not self.num_rows:
            # Products of numbers near their mean lose nothing to rounding.
            mean = rest.mean(axis=0) if self.centred else np.zeros(rest.shape[1])
            self._shift = mean.astype(rest.dtype)
        rest -= self._shift
        self.num_rows += len(rest)
        self._sums += rest.sum(axis=0, dtype="float64")
        if self._products:
            if self.ridge < _FORGIVING:
                rest = rest.astype("float64")
            x, left = np.split(rest, [len(self.first)], axis=1)
            self._gram += x.T @ x
            self._cross += x.T @ left
        else:
            self._rows.append(rest)

    def solve(self) -> tuple[np.ndarray, np.ndarray]:
        """Solve.

        Returns:
            The weights, shape `(d, m)`, and the intercept, shape `(m,)`.
        """
        size = len(self.first)
        mean = self._sums / self.num_rows if self.centred else 0 * self._sums
        inner, outer = mean[:size], mean[size:]
        if self._products:
            gram = self._gram - self.num_rows * np.outer(inner, inner)
            cross = self._cross - self.num_rows * np.outer(inner, outer)
            change = _solved(gram, cross, self.ridge * np.trace(gram) / size)
        else:
            rows = np.concatenate(self._rows).astype("float64") - mean
            x, left = rows[:, :size], rows[:, size:]
            small = x @ x.T
            change = x.T @ _solved(small, left, self.ridge * np.trace(small) / size)
        middle = mean + self._shift
        intercept = middle[size:] - middle[:size] @ change
        if not self.centred:
            intercept = np.zeros(len(outer))
        return self.first + change, intercept


def _solved(matrix: np.ndarray, right: np.ndarray, ridge: float) -> np.ndarray:
    """Solve a symmetric system; the shortest solution where there are many."""
    if ridge > 0:
        matrix[np.diag_indices(len(matrix))] += ridge
        try:
            return np.linalg.solve(matrix, right)
        except np.linalg.LinAlgError:  # all is zero
            pass
    rounding = _ROUNDING * len(matrix)
    return np.asarray(np.linalg.lstsq(matrix, right, rcond=rounding)[0])
