"""`DataAware`: initial weights whose knots lie where the data are."""

from typing import Any

import numpy as np

from tf_spline_prune._checks import SEED, Data, checked
from tf_spline_prune.compat import (
    Calibration,
    Call,
    call_layer,
    compile_alike,
    require_flavour,
    run_eagerly,
    to_numpy,
    trace,
    weight_variables,
    with_weights,
)
from tf_spline_prune.errors import ModelError
from tf_spline_prune.initialization._masked_copy import refuse_masks
from tf_spline_prune.pruning.recovery._linear_views import Arrangement, linear_views

# Whose knots are placed.
_PLACED = ("Dense", "Conv1D", "Conv2D", "Conv3D")
# So many rows of a layer's input are looked at.
_ROWS = 4096
# How far apart the fitted logits of two classes are.
_APART = 4.0
_RIDGE = 1e-3


class DataAware:
    """Place the knots of a small network where its data are.

    A small network has few hyperplanes, and drawn at random most of them miss the data.
    Here, in one layer after the other, each unit gets the hyperplane halfway between
    two neighbouring clusters of what goes into the layer, scaled so that its
    pre-activations have the variance 1. In a convolution these are clusters of windows.
    A unit without a bias gets the direction alone. Where there are labels, the last
    layer is fitted to them by least squares.

    Args:
        data: Some hundred inputs, or `(inputs, labels)`; labels are classes, or what
            the model's output should be.
        seed: Seed of the clusters. Defaults to `0`.

    Raises:
        ValueError: If `seed` is negative.

    Example:

    ```python
    start = tsp.initialization.DataAware((x_train[:1000], y_train[:1000]))
    small = start.apply_to(small)
    small.compile("adam", loss)
    small.fit(train, epochs=10)
    ```

    Source: the motive is that of You et al., "Max-Affine Spline Insights Into Deep
    Network Pruning", TMLR 2022, section 3; the method is our own.
    """

    @checked(data=Data(), seed=SEED)
    def __init__(self, data: Any, seed: int = 0) -> None:
        self.data = data
        self.seed = seed

    def apply_to(self, model: Any) -> Any:
        """Copy a model, with new weights for its dense and convolution layers.

        A layer that is used twice is placed by its first use. Whatever else has weights
        keeps them.

        Args:
            model: A built model of either flavour. It is not changed.

        Returns:
            A new model of the same flavour, compiled as `model` is.

        Raises:
            FlavourError: If `model` is no Keras model.
            ModelError: If it cannot be traced, has none of these layers, or has masks.
            CalibrationError: If the data are empty, misshapen or not finite.
            ValueError: If labels do not fit the output.
        """
        require_flavour(model)
        refuse_masks(model, "Place the knots before the weights are masked")
        copy = with_weights(model, {})
        graph = trace(copy)
        data = Calibration.of(self.data, graph)
        rng = np.random.default_rng(self.seed)
        ends = graph.ends()
        seen: set[int] = set()

        def apply(call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            if call.kind in _PLACED and id(call.layer) not in seen:
                seen.add(id(call.layer))
                (view,) = linear_views(call)
                if call.name not in ends:
                    _place(call, view.arrangement, to_numpy(args[0]), rng)
                elif data.labels is not None:
                    _fit(call, view.arrangement, to_numpy(args[0]), data.labels)
            return call_layer(call, args, kwargs)

        run_eagerly(graph, data.inputs, apply)
        if not seen:
            raise ModelError(
                "The model has neither dense nor convolution layers, so there is "
                f"nothing to place. Received: model {model.name!r}"
            )
        compile_alike(model, copy)
        return copy


def _place(call: Call, how: Arrangement, x: np.ndarray, rng: Any) -> None:
    """Assign each unit of a layer the hyperplane between two clusters."""
    held = weight_variables(call.layer)
    kernel, bias = held["kernel"], held.get("bias")
    total = how.num_rows(x)
    chosen = np.sort(rng.choice(total, min(total, _ROWS), replace=False))
    matrices, offsets = [], []
    shape = how.matrix(np.empty(tuple(kernel.shape), "float32")).shape
    for rows in how.rows(x, chosen).astype("float64"):
        matrix, offset = _between(rows, shape[-1], rng)
        ahead = rows @ matrix
        scale = np.sqrt(np.square(ahead).mean(axis=0)) if bias is None else ahead.std(0)
        scale = np.where(scale > 0, scale, 1.0)
        matrices.append(matrix / scale)
        offsets.append(offset / scale)
    kernel.assign(how.of_matrix(np.stack(matrices), tuple(kernel.shape)))
    if bias is not None:
        bias.assign(np.concatenate(offsets))


def _between(
    rows: np.ndarray, units: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return the hyperplanes between clusters that are neighbours."""
    # Some pairs more than units, so that only neighbours are taken.
    count = int(np.ceil(np.sqrt(4 * units))) + 1
    centres = centres_of(rows, count, rng)
    pairs = pairs_of(centres)
    if not len(pairs):
        return np.zeros((rows.shape[1], units)), np.zeros(units)
    pairs = pairs[np.arange(units) % len(pairs)]
    # Both sides in turn, so that the units of a layer look in all directions.
    turned = np.where(np.arange(units)[:, None] % 2, pairs[:, ::-1], pairs)
    ahead, behind = centres[turned[:, 0]], centres[turned[:, 1]]
    weights = ahead - behind
    return weights.T, -np.sum(weights * (ahead + behind) / 2, axis=1)


def _fit(call: Call, how: Arrangement, x: np.ndarray, labels: Any) -> None:
    """Fit the layer that makes the output to the labels, by least squares."""
    held = weight_variables(call.layer)
    kernel, bias = held["kernel"], held.get("bias")
    outputs = int(kernel.shape[-1])
    rows = how.rows(x, np.arange(how.num_rows(x)))[0].astype("float64")
    wanted = _targets(labels, outputs, len(rows))
    centre = rows.mean(axis=0) if bias is not None else np.zeros(rows.shape[1])
    level = wanted.mean(axis=0) if bias is not None else np.zeros(outputs)
    moved = rows - centre
    gram = moved.T @ moved
    gram += _RIDGE * max(np.trace(gram) / len(gram), 1e-12) * np.eye(len(gram))
    matrix = np.linalg.solve(gram, moved.T @ (wanted - level))
    kernel.assign(how.of_matrix(matrix[None], tuple(kernel.shape)))
    if bias is not None:
        bias.assign(level - centre @ matrix)


def _targets(labels: Any, outputs: int, count: int) -> np.ndarray:
    """Make of labels what goes into the model's last function."""
    labels = np.asarray(labels)
    classes = labels.reshape(len(labels), -1)
    if classes.shape[1] == 1 and labels.dtype.kind in "iu" and outputs > 1:
        if classes.min() < 0 or classes.max() >= outputs:
            raise ValueError(
                f"Labels must be classes from 0 to {outputs - 1}. Received: from "
                f"{classes.min()} to {classes.max()}"
            )
        return _APART * (np.eye(outputs)[classes[:, 0]] - 1 / outputs)
    if classes.shape != (count, outputs):
        raise ValueError(
            f"Labels must be classes or fit the output, of shape {(count, outputs)}. "
            f"Received: shape {labels.shape}"
        )
    return classes.astype("float64")


_ROUNDS = 20


def centres_of(rows: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Find centres by k-means, begun by k-means++.

    Args:
        rows: Array of shape `(n, d)`.
        count: How many; fewer come if there are fewer different rows.
        rng: Draws the first ones.

    Returns:
        Array of shape `(k, d)`, `k` at most `count`.

    Source: Lloyd, 1982; Arthur and Vassilvitskii, SODA 2007 (k-means++).
    """
    centres = rows[rng.integers(len(rows))][None]
    nearest = np.square(rows - centres[0]).sum(axis=1)
    while len(centres) < count and nearest.sum() > 0:
        chosen = rows[rng.choice(len(rows), p=nearest / nearest.sum())]
        centres = np.concatenate([centres, chosen[None]])
        nearest = np.minimum(nearest, np.square(rows - chosen).sum(axis=1))
    for _ in range(_ROUNDS):
        owner = squared_distances(rows, centres).argmin(axis=1)
        sizes = np.bincount(owner, minlength=len(centres))
        sums = np.zeros_like(centres)
        np.add.at(sums, owner, rows)
        moved = np.where(sizes[:, None], sums / np.maximum(sizes, 1)[:, None], centres)
        if np.array_equal(moved, centres):
            break
        centres = moved
    return centres


def pairs_of(centres: np.ndarray) -> np.ndarray:
    """List pairs of centres, those of the nearest neighbours first.

    First come each centre and the one nearest to it, then each and the next, and so
    on; each pair once.

    Args:
        centres: Array of shape `(k, d)`.

    Returns:
        Array of shape `(k (k - 1) / 2, 2)`, int.
    """
    count = len(centres)
    order = squared_distances(centres, centres)
    np.fill_diagonal(order, np.inf)
    neighbours = order.argsort(axis=1, kind="stable")[:, : count - 1]
    found: dict[tuple[int, int], None] = {}
    for rank in range(count - 1):
        for one in range(count):
            other = int(neighbours[one, rank])
            found.setdefault((min(one, other), max(one, other)))
    return np.array(list(found), int).reshape(-1, 2)


def squared_distances(rows: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Return the squared distances of rows to centres, `(n, k)`."""
    lengths = np.square(rows).sum(axis=1)[:, None] + np.square(centres).sum(axis=1)
    return np.asarray(np.maximum(lengths - 2 * rows @ centres.T, 0.0))
