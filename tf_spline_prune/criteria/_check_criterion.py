"""`check_criterion`: whether a criterion keeps to the protocol."""

import json
from typing import Any

import numpy as np

from tf_spline_prune._checks import SEED, Flag, checked
from tf_spline_prune.compat import (
    Calibration,
    hand_on_loss,
    predict,
    require_flavour,
    sample_inputs,
    with_weights,
)
from tf_spline_prune.criteria._criterion import AnyCriterion, Criterion, PairCriterion
from tf_spline_prune.criteria._get import CRITERION, get
from tf_spline_prune.errors import CriterionError
from tf_spline_prune.graph import ChannelGraph, Group

# Scores and distances are compared to this fraction of the largest.
_TOLERANCE = 1e-4
_BLOCK = 256


@checked(criterion=CRITERION, permute=Flag(), seed=SEED)
def check_criterion(
    criterion: AnyCriterion,
    model: Any,
    data: Any = None,
    *,
    permute: bool = True,
    seed: int = 0,
) -> dict[str, np.ndarray]:
    """Check a criterion on a model: one finite score per unit, and the same again.

    Of every group that the criterion can score: the scores have the shape
    `(units,)`, are floating-point numbers and finite, and come out the same when
    the criterion is prepared again with the same seed. In a copy of the model whose
    units stand in another order the scores stand in that order too. The distances
    of pair criteria are symmetric, not negative, and zero from a unit to itself.
    The arguments of the criterion fit into a plan's file.

    Args:
        criterion: A name, a criterion, or a function `(graph, group) -> scores`.
        model: A built model of either flavour. It is not changed.
        data: Inputs, or a tuple of inputs and labels, where the criterion reads any.
            Defaults to `None`.
        permute: Whether the order of units is tried; `False` for a criterion that is
            random, or looks at the place of a unit. Defaults to `True`.
        seed: Seed of whatever is random. Defaults to `0`.

    Returns:
        The scores by group, in the order of computation.

    Raises:
        CriterionError: If the criterion does not keep to the protocol, or cannot
            score a single group of the model.
        TypeError: If `criterion` is none of the above.
        FlavourError: If `model` is no Keras model.
        CalibrationError: If data are needed that were not given.

    Example:

    ```python
    def largest(graph, group):
        return sum(graph.lengths(member) for member in group.producers)

    tsp.check_criterion(largest, model)
    ```
    """
    require_flavour(model)
    criterion = get(criterion)
    _check_config(criterion)
    graph = ChannelGraph(model)
    if data is not None:
        data = Calibration.of(data, graph.graph)
    found = _scores(criterion, graph, data, seed)
    again = _scores(criterion, graph, data, seed)
    for (group, scores), (_, other) in zip(found, again, strict=True):
        _require_alike(
            scores, other, criterion, group, "when prepared again with the same seed"
        )
    if permute:
        _check_order(criterion, graph, data, seed, found)
    names = [group.name for group, _ in found]
    return {
        name if names.count(name) == 1 else f"{name}:{number}": scores
        for number, (name, (_, scores)) in enumerate(zip(names, found, strict=True))
    }


def _check_config(criterion: Criterion) -> None:
    try:
        json.dumps(criterion.get_config())
    except (TypeError, ValueError) as error:
        raise CriterionError(
            "The arguments of a criterion go into the plan's file, so `get_config` "
            "must give numbers, strings, lists and dicts; a dataclass has it already. "
            f"Received: {criterion.name!r}, which raised {type(error).__name__}: "
            f"{error}"
        ) from error


def _scores(
    criterion: Criterion, graph: ChannelGraph, data: Calibration | None, seed: int
) -> list[tuple[Group, np.ndarray]]:
    """Prepare a criterion and score every group that it can score."""
    criterion.prepare(graph, data=data, seed=seed)
    found, reasons = [], [f"{b.layer}: {b.reason}" for b in graph.barriers]
    for group in graph.groups:
        reason = criterion.reason_against(group)
        if reason is not None:
            reasons.append(f"{group.name}: {reason}")
            continue
        if isinstance(criterion, PairCriterion):
            _check_pairs(criterion, group)
        found.append((group, _checked(criterion, group)))
    if not found:
        raise CriterionError(
            f"There is nothing to check {criterion.name!r} on, because it can score no "
            f"group of this model. Received: {'; '.join(reasons) or 'no groups'}"
        )
    return found


def _checked(criterion: Criterion, group: Group) -> np.ndarray:
    scores = criterion.scores(group)
    shape = getattr(scores, "shape", None)
    if shape != (group.num_units,):
        _fail(
            criterion,
            group,
            f"gives one score per unit, an array of shape {(group.num_units,)}",
            f"shape {shape}" if shape is not None else f"a {type(scores).__name__}",
        )
    if not np.issubdtype(scores.dtype, np.floating):
        _fail(criterion, group, "gives floating-point scores", f"dtype {scores.dtype}")
    bad = int(np.count_nonzero(~np.isfinite(scores)))
    if bad:
        _fail(
            criterion, group, "gives finite scores", f"{bad} that are NaN or infinite"
        )
    return scores.astype("float64")


def _check_pairs(criterion: PairCriterion, group: Group) -> None:
    pairs = criterion.pairs(group)
    count = group.num_units
    for name, array in (("worth", pairs.worth), ("dead", pairs.dead)):
        shape = np.shape(array)
        if shape != (count,):
            _fail(criterion, group, f"gives one `{name}` per unit", f"shape {shape}")
    if not np.isfinite(pairs.worth).all():
        _fail(criterion, group, "gives finite worths", "NaN or infinite values")
    largest = 0.0
    for start in range(0, count, _BLOCK):
        chosen = np.arange(start, min(start + _BLOCK, count))
        rows = np.asarray(pairs.rows(chosen))
        if rows.shape != (len(chosen), count):
            expected = f"gives distances of shape {(len(chosen), count)}"
            _fail(criterion, group, expected, f"shape {rows.shape}")
        if not np.isfinite(rows).all() or (rows < 0).any():
            expected = "gives finite distances that are not negative"
            _fail(criterion, group, expected, f"from {rows.min()} to {rows.max()}")
        largest = max(largest, float(rows.max()))
        own = float(rows[np.arange(len(chosen)), chosen].max())
        if own > _TOLERANCE * largest:
            expected = "gives a zero distance from a unit to itself"
            _fail(criterion, group, expected, f"{own:.3g}")
        for other in range(0, start + 1, _BLOCK):
            columns = np.arange(other, min(other + _BLOCK, count))
            back = np.asarray(pairs.rows(columns))[:, chosen].T
            gap = float(np.abs(rows[:, columns] - back).max())
            if gap > _TOLERANCE * largest:
                expected = "gives the same distance there and back"
                _fail(criterion, group, expected, f"distances {gap:.3g} apart")


def _check_order(
    criterion: Criterion,
    graph: ChannelGraph,
    data: Calibration | None,
    seed: int,
    found: list[tuple[Group, np.ndarray]],
) -> None:
    """Compare with a copy of the model whose units stand in another order."""
    rng = np.random.default_rng(seed)
    weights = {path: dict(arrays) for path, arrays in graph.arrays.items()}
    orders = []
    for group, _ in found:
        order = rng.permutation(group.num_units)
        orders.append(order)
        for member in group.members:
            array = weights[member.path][member.name]
            index = np.arange(array.shape[member.axis])
            index[member.positions] = member.positions[order]
            weights[member.path][member.name] = np.take(array, index, member.axis)
    model = with_weights(graph.model, weights)
    if not _computes_the_same(graph, model):
        return  # the order of these units means something
    hand_on_loss(graph.model, model)
    other = ChannelGraph(model)
    if [g.num_units for g in other.groups] != [g.num_units for g in graph.groups]:
        return
    for (group, scores), order, (_, moved) in zip(
        found, orders, _scores(criterion, other, data, seed), strict=True
    ):
        what = "in a model whose units stand in another order"
        _require_alike(scores[order], moved, criterion, group, what)


def _computes_the_same(graph: ChannelGraph, model: Any) -> bool:
    inputs = sample_inputs(graph.graph, count=2, seed=0)
    try:
        one, two = predict(graph.model, inputs), predict(model, inputs)
    except Exception:  # whatever a layer raises on drawn inputs
        return False
    return all(
        np.allclose(a, b, rtol=1e-3, atol=1e-5) for a, b in zip(one, two, strict=True)
    )


def _require_alike(
    scores: np.ndarray, other: np.ndarray, criterion: Criterion, group: Group, when: str
) -> None:
    gap = float(np.abs(scores - other).max(initial=0.0))
    largest = float(np.abs(scores).max(initial=0.0))
    if gap > _TOLERANCE * largest:
        _fail(
            criterion,
            group,
            f"gives the same scores {when}",
            f"scores up to {gap:.3g} apart, the largest being {largest:.3g}",
        )


def _fail(criterion: Criterion, group: Group, expected: str, received: str) -> None:
    raise CriterionError(
        f"A criterion {expected}. Received: {received}, from {criterion.name!r} for "
        f"the {group.num_units} units of {group.name!r}."
    )
