"""Which weights of one layer go: what Wanda, OBS and SparseGPT say.

Stacks are of shape `(groups, n, m)`. The `n` inputs of a layer are those of each place
of a window in turn; blocks and patterns do not reach beyond the `run` of one place.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.linalg

from tf_spline_prune._matrices import inverse_of
from tf_spline_prune.criteria._lamp import fractions_among_larger
from tf_spline_prune.masking._choosing import Scope, choose
from tf_spline_prune.masking._granularity import Granularity, Pooling, aim, lowest
from tf_spline_prune.masking._slots import KernelAxes
from tf_spline_prune.masking.one_shot._layer_problem import LayerProblem
from tf_spline_prune.masking.one_shot._solve_on_mask import solve_on_mask

_BLOCK = 128  # inputs that SparseGPT chooses among at once
_LAZY = 32  # removals by OBS before what is left is brought up to date
_AT_ONCE = 2**27  # bytes of the matrices that OBS works on together


def wanda_scores(problem: LayerProblem) -> np.ndarray:
    """Score weights by their size times the length of the input that they multiply.

    The square of a score is the loss of removing that weight alone.

    Args:
        problem: The layer's problem.

    Returns:
        A stack; higher means keep.

    Source: Sun et al., "A Simple and Effective Pruning Approach for Large Language
    Models", ICLR 2024, equation 1.
    """
    return np.asarray(np.abs(problem.first) * np.sqrt(problem.squares)[:, :, None])


def obs_cost(groups: int, size: int, outputs: int) -> float:
    """Return about how many multiplications `obs_scores` takes."""
    return groups * outputs * size**3 / 3


def obs_scores(
    problem: LayerProblem,
    granularity: Granularity,
    run: int,
    gone: np.ndarray | None = None,
) -> np.ndarray:
    """Score weights by the loss at which greedy removal takes them.

    From each output that weight goes whose removal loses least, all others solved
    again, until none is left. Blocks go as a whole; of the groups of an m:n pattern m
    weights go, and the others score above all.

    Args:
        problem: The layer's problem.
        granularity: What goes at once.
        run: How many inputs there are at one place.
        gone: A stack, bool: what goes first.

    Returns:
        A stack; higher means keep. In no output a score is below that of what went
        before.

    Source: Frantar and Alistarh, "Optimal Brain Compression", NeurIPS 2022, section 4.
    """
    early = np.broadcast_to(problem.dead()[:, :, None], problem.first.shape)
    if gone is not None:
        early = early | gone
    return np.stack(
        [
            _obs_of_group(inverse_of(gram), best, granularity, run, first)
            for gram, best, first in zip(problem.gram, problem.best, early, strict=True)
        ]
    )


def _obs_of_group(
    inverse: np.ndarray,
    best: np.ndarray,
    granularity: Granularity,
    run: int,
    gone: np.ndarray,
) -> np.ndarray:
    """Do what `obs_scores` does for one group: arrays `(n, n)`, `(n, m)`, `(n, m)`."""
    long, wide = granularity.cell
    cells = _cells(len(best), run, long)
    groups = None
    if granularity.zeros:  # weights go one by one, so many of each group
        there = cells >= 0
        most = granularity.zeros - np.count_nonzero(~there, axis=1)
        groups = np.nonzero(there)[0], np.maximum(most, 0)
        cells = cells[there][:, None]
    # Rows and columns of zeros fill up what is ragged; they go first and cost nothing.
    count, outputs = cells.size, best.shape[1]
    real = np.flatnonzero(cells.ravel() >= 0)
    rows = cells.ravel()[real]
    whole = np.eye(count)
    whole[np.ix_(real, real)] = inverse[np.ix_(rows, rows)]
    columns = -(-outputs // wide) * wide
    weights = np.zeros((count, columns))
    weights[real, :outputs] = best[rows]
    early = np.ones((count, columns), bool)
    early[real, :outputs] = gone[rows]
    shape = (*cells.shape, -1, wide)
    weights = np.moveaxis(weights.reshape(shape), 2, 0)
    first = np.all(np.moveaxis(early.reshape(shape), 2, 0), axis=(2, 3))
    at_once = max(1, _AT_ONCE // (8 * count**2))
    scores = np.concatenate(
        [
            _removed_in_turn(
                whole,
                weights[start : start + at_once],
                first[start : start + at_once],
                groups,
            )
            for start in range(0, len(weights), at_once)
        ]
    )
    spread = np.broadcast_to(scores[:, :, None, None], weights.shape)
    flat = np.moveaxis(spread, 0, 2).reshape(count, columns)
    found = np.empty(best.shape)
    found[rows] = flat[real, :outputs]
    return found


def _cells(size: int, run: int, long: int) -> np.ndarray:
    """List the rows of each cell: array of shape `(cells, long)`, -1 past the end."""
    within = np.arange(-(-run // long) * long).reshape(-1, long)
    starts = np.arange(0, size, run)[:, None, None]
    return np.where(within < run, starts + within, -1).reshape(-1, long)


def _removed_in_turn(
    inverse: np.ndarray,
    weights: np.ndarray,
    early: np.ndarray,
    groups: tuple[np.ndarray, np.ndarray] | None,
) -> np.ndarray:
    """Remove cell after cell from several outputs at once, each by itself.

    The inverse of what is left in an output is that of all, less a product of a few
    rows; these are gathered, and multiplied out from time to time.

    Args:
        inverse: The inverse of the products of inputs, `(cells * a, cells * a)`.
        weights: Array of shape `(outputs, cells, a, b)`.
        early: Array of shape `(outputs, cells)`, bool: what goes first.
        groups: The group of each cell, and how many may go of each group; `None`
            where all may go.

    Returns:
        Array of shape `(outputs, cells)`: the loss at which each went.
    """
    count, cells, long, _ = weights.shape
    each = np.arange(count)[:, None]
    scores = np.full((count, cells), np.inf)
    highest, step = np.zeros(count), 0
    left = np.broadcast_to(np.arange(cells), (count, cells))
    apart = np.broadcast_to(inverse, (count, *inverse.shape))
    which, quotas = groups or (np.zeros(cells, int), np.array([cells]))
    may = np.repeat(quotas[None], count, axis=0)
    number = int(quotas.sum())
    while number:
        size = left.shape[1]
        several = min(_LAZY, number)
        rows = np.empty((count, several * long, size * long))
        inner = np.arange(size)
        blocks = apart.reshape(count, size, long, size, long)[:, inner, :, inner]
        blocks = np.array(np.moveaxis(blocks, 0, 1))  # (outputs, cells, a, a)
        there = np.ones((count, size), bool)
        for turn in range(several):
            losses = _losses(blocks, weights)
            losses[early[each, left]] = -1.0
            losses[~there] = np.inf
            losses[may[each, which[left]] == 0] = np.inf
            one = losses.argmin(axis=1)[:, None]
            highest = np.maximum(highest, losses[each, one][:, 0])
            # Later ones score higher, also where their loss is not.
            scores[each, left[each, one]] = (highest * (1 + 1e-9 * step))[:, None]
            step += 1
            there[each, one] = False
            may[each, which[left[each, one]]] -= 1
            at = one * long + np.arange(long)
            done = rows[:, : turn * long]
            lines = (
                apart[each, at]
                - np.swapaxes(np.take_along_axis(done, at[:, None], 2), 1, 2) @ done
            )
            root = np.linalg.cholesky(np.take_along_axis(lines, at[:, None], 2))
            scale = np.linalg.inv(root)
            new, fall = scale @ lines, scale @ weights[each, one][:, 0]
            rows[:, turn * long : (turn + 1) * long] = new
            shape = (count, size, long, -1)
            weights = weights - (np.swapaxes(new, 1, 2) @ fall).reshape(shape)
            lines = np.swapaxes(new, 1, 2).reshape(count, size, long, long)
            blocks = blocks - np.einsum("scin,scjn->scij", lines, lines)
            blocks[each, one] = np.eye(long)
        number -= several
        keep = np.argsort(~there, axis=1, kind="stable")[:, : size - several]
        left, weights = left[each, keep], weights[each, keep]
        at = (keep[:, :, None] * long + np.arange(long)).reshape(count, -1)
        rows = np.take_along_axis(rows, at[:, None], 2)
        whole, apart = apart, np.swapaxes(rows, 1, 2) @ rows
        for one, rest, stay in zip(whole, apart, at, strict=True):
            np.subtract(one.take(stay, 0).take(stay, 1), rest, out=rest)
    return np.where(np.isfinite(scores), scores, 2 * highest.max() + 1)


def _losses(blocks: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return what removing each cell alone loses: array of shape `(outputs, cells)`."""
    if blocks.shape[-1] == 1:
        squares = np.square(weights).sum(axis=(2, 3))
        return np.asarray(squares / np.maximum(blocks[:, :, 0, 0], 1e-300))
    return np.asarray((weights * np.linalg.solve(blocks, weights)).sum(axis=(2, 3)))


def sparsegpt(
    problem: LayerProblem,
    fraction: float,
    granularity: Granularity,
    run: int,
    gone: np.ndarray | None = None,
    pooling: Pooling = "mean",
    at_once: int = _BLOCK,
) -> tuple[np.ndarray, np.ndarray, float]:
    """Remove weights input by input; those of later inputs make up for them.

    Args:
        problem: The layer's problem.
        fraction: The fraction to go, in [0, 1).
        granularity: What goes at once.
        run: How many inputs there are at one place.
        gone: A stack, bool: what is gone already.
        pooling: How the scores of a block become one.
        at_once: Among the weights of how many inputs those to go are chosen; for the
            groups of a pattern, when their first input is reached.

    Returns:
        A stack, bool, true means keep; the weights, a stack; and their loss.

    Source: Frantar and Alistarh, "SparseGPT", ICML 2023, algorithm 1.
    """
    weights, dead = np.array(problem.best), problem.dead()
    keep = np.ones(weights.shape, bool)
    total = 0.0

    def scores_at(place: int, rows: slice) -> np.ndarray:
        scores = np.square(weights[place, rows] / lengths[rows])
        scores[dead[place, rows]] = 0
        if gone is not None:
            scores[gone[place, rows]] = -1
        return scores

    for place, gram in enumerate(problem.gram):
        root = scipy.linalg.cholesky(inverse_of(gram))  # upper
        lengths = np.diag(root)[:, None]
        left, stay = weights[place], keep[place]
        for start, stop in _pieces(len(gram), run, granularity.cell[0], at_once):
            scores = scores_at(place, slice(start, stop))
            # So many that the layer is on target again.
            asked = fraction * stop * left.shape[1] - np.count_nonzero(~stay[:start])
            part = _lowest_cells(
                scores, max(0.0, asked / scores.size), granularity, pooling
            )
            errors = np.zeros((stop - start, left.shape[1]))
            for row in range(start, stop):
                if granularity.zeros and not row % run % granularity.cell[0]:
                    ends = slice(row, min(row + granularity.cell[0], stop))
                    inside = slice(row - start, ends.stop - start)
                    part[inside] = _best_of_group(scores_at(place, ends), part[inside])
                stay[row] = part[row - start]
                if gone is not None:
                    stay[row] &= ~gone[place, row]
                error = np.where(stay[row], 0, left[row]) / lengths[row]
                left[row:stop] -= root[row, row:stop, None] * error
                left[row, ~stay[row]] = 0
                errors[row - start] = error
            left[stop:] -= root[start:stop, stop:].T @ errors
            total += float(np.square(errors).sum())
    return keep, weights, total


def _pieces(size: int, run: int, long: int, at_once: int) -> Iterator[tuple[int, int]]:
    """Cut the inputs into pieces that cut no cell."""
    step = max(1, at_once // long) * long
    period = size if not run % long else run
    for first in range(0, size, period):
        for start in range(first, first + period, step):
            yield start, min(start + step, first + period)


def _lowest_cells(
    scores: np.ndarray, fraction: float, granularity: Granularity, pooling: Pooling
) -> np.ndarray:
    """Return which weights of a piece, array of shape `(inputs, m)`, stay."""
    cells = granularity.cells(scores, KernelAxes(), pooling)
    target = aim(cells.sizes, cells.num_weights, min(fraction, 1.0))
    return cells.mask(lowest(cells.scores, target, cells.sizes))


def _best_of_group(scores: np.ndarray, keep: np.ndarray) -> np.ndarray:
    """Let as many weights of each output stay as before, but those that score best."""
    rank = np.argsort(np.argsort(scores, axis=0, kind="stable"), axis=0)
    return np.asarray(rank >= np.count_nonzero(~keep, axis=0))


@dataclass(frozen=True, eq=False)
class MaskRule:
    """How the weights to go are chosen, one layer after the other.

    Args:
        method: What says so.
        granularity: What goes at once.
        scope: What is ranked together. Over all layers together only the fraction of
            each is found; then each is ranked by itself.
        pooling: How the scores of a block become one.
    """

    method: str
    granularity: Granularity
    scope: Scope
    pooling: Pooling = "mean"

    def __call__(
        self, problem: LayerProblem, run: int, fraction: float, gone: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Choose in one layer.

        Args:
            problem: The layer's problem.
            run: How many inputs there are at one place.
            fraction: The fraction to go, in [0, 1), with what is gone.
            gone: A stack, bool: what is gone already.

        Returns:
            What is kept, a stack of bool, and what the method makes of it, a stack.
        """
        if fraction <= gone.mean():
            keep = ~gone
        elif self.method == "sparsegpt":
            kind, pooling = self.granularity, self.pooling
            return sparsegpt(problem, fraction, kind, run, gone, pooling)[:2]
        else:
            keep = self._best(problem, run, fraction, gone)
        if self.method == "obs":  # each removal goes with a solution
            return keep, solve_on_mask(problem, keep)
        return keep, problem.first * keep

    def _best(
        self, problem: LayerProblem, run: int, fraction: float, gone: np.ndarray
    ) -> np.ndarray:
        """Keep what scores best, as in a call."""
        if self.method == "obs":
            scores = obs_scores(problem, self.granularity, run, gone)
        else:
            scores = wanda_scores(problem)
        if self.method == "wanda" and self.scope == "output":
            # So many whole weights of each output, by the definition.
            size = scores.shape[1]
            fraction = math.floor(round(size * fraction, 4)) / size
        scores[gone] = -1.0
        scope: Scope = "output" if self.scope == "output" else "layer"
        (keep,) = self._chosen([scores], [run], fraction, scope)
        return np.asarray(keep & ~gone)

    def allocated(
        self, scores: Sequence[np.ndarray], runs: Sequence[int], fraction: float
    ) -> list[float]:
        """Find the fractions of layers by one ranking of all their weights.

        Args:
            scores: What `allocation_scores` gave for each layer.
            runs: How many inputs each has at one place.
            fraction: The fraction of all weights that is to go.

        Returns:
            One fraction per layer.
        """
        keeps = self._chosen(scores, runs, fraction, "global")
        return [1 - float(keep.mean()) for keep in keeps]

    def _chosen(
        self,
        stacks: Sequence[np.ndarray],
        runs: Sequence[int],
        fraction: float,
        scope: Scope,
    ) -> list[np.ndarray]:
        """Choose among stacks of scores; gives stacks of bool, true means keep."""
        shapes = [
            (run, s.shape[0] * s.shape[2]) for run, s in zip(runs, stacks, strict=True)
        ]
        tensors = [
            np.moveaxis(stack, 0, 1).reshape(-1, *shape)
            for stack, shape in zip(stacks, shapes, strict=True)
        ]
        keeps = choose(tensors, fraction, self.granularity, scope, self.pooling)
        return [
            np.moveaxis(keep.reshape(s.shape[1], s.shape[0], s.shape[2]), 1, 0)
            for keep, s in zip(keeps, stacks, strict=True)
        ]


def allocation_scores(problem: LayerProblem) -> np.ndarray:
    """Score weights so that they can be ranked with those of other layers.

    What is lost with a weight alone, as a fraction of what is lost with all that score
    at least as high: LAMP, on losses in the place of squares of weights.

    Args:
        problem: The layer's problem.

    Returns:
        A stack, float32.
    """
    scores = wanda_scores(problem)
    found = fractions_among_larger(scores.ravel()).reshape(scores.shape)
    return np.asarray(found.astype("float32"))
