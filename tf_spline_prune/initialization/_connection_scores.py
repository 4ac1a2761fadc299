"""`connection_scores`: what each weight of an untrained network is worth."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from tf_spline_prune._checks import SELECTOR, Instance, OneOf, Options, checked
from tf_spline_prune.compat import Calibration, MaskSlot, mask_slots, trace
from tf_spline_prune.criteria import ConnectionCriterion, Connections
from tf_spline_prune.criteria._gates import LOSS, LossCriterion
from tf_spline_prune.criteria._get import BY_NAME
from tf_spline_prune.graph._selection import Selector
from tf_spline_prune.masking._wrap_with_masks import wrap_with_masks

_NAMED = {n: kind for n, kind in BY_NAME.items() if issubclass(kind, LossCriterion)}
CONNECTIONS = [n for n, kind in _NAMED.items() if issubclass(kind, ConnectionCriterion)]
"""The names of the criteria of connections."""
_CONNECTIONS: Options = [
    OneOf(*CONNECTIONS),
    Instance(ConnectionCriterion, what="a criterion of connections"),
]


@checked(criterion=_CONNECTIONS, loss=LOSS, layers=SELECTOR)
def connection_scores(
    model: Any,
    criterion: Any = "snip",
    *,
    data: Any = None,
    loss: Any = None,
    layers: Selector = None,
) -> dict[str, np.ndarray]:
    """Score each weight of a network, as the first round of `prune_at_init` does.

    Args:
        model: A built model of either flavour, masked or not. It is not changed.
        criterion: `"snip"`, `"force"`, `"grasp"`, `"synflow"` or an instance. Defaults
            to `"snip"`.
        data: Inputs and labels for criteria that need any: about ten of each class are
            enough. Inputs alone if the loss needs no labels. Defaults to `None`.
        loss: What `compile` takes as `loss`; `"uniform"`, `"raw"` or `"softmax"` need
            no labels. Defaults to `None`, which takes what the model was compiled with.
        layers: Which layers take part: a path or name, a regular expression, a list of
            these, or a function of the layer. Defaults to `None`, which means all.

    Returns:
        By layer path and weight name, `"conv1/kernel"`, an array in the shape of the
        weight, float64; higher means keep. Those of SNIP add up to 1.

    Raises:
        FlavourError: As `prune_at_init`.
        ModelError: As `prune_at_init`.
        CalibrationError: If inputs or labels are missing or do not fit.
        CriterionError: If the loss is not finite.
        ValueError: If the criterion scores no connections.

    Example:

    ```python
    scores = tsp.initialization.connection_scores(model, "synflow")
    {name: array.sum() for name, array in scores.items()}   # alike in every layer
    ```
    """
    criterion = with_loss(criterion, loss)
    if data is not None:
        data = Calibration.of(data, trace(model))
    data = criterion.check_data(model, data)
    slots = mask_slots(wrap_with_masks(model, layers))
    connections = Connections(model, names_of(slots))
    found = criterion.saliencies(connections, data)
    return {s.key: criterion.worth(found[s.path][s.name]) for s in slots}


def with_loss(criterion: Any, loss: Any) -> Any:
    """Find a criterion by name, where it may look at a loss, and give it one.

    Args:
        criterion: What a user gave.
        loss: The loss, or `None`.

    Returns:
        An instance, or what was given if it scores something else.

    Raises:
        ValueError: If there is a loss, and the criterion looks at none.
    """
    if isinstance(criterion, str) and criterion in _NAMED:
        criterion = _NAMED[criterion]()
    if loss is None:
        return criterion
    reads = isinstance(criterion, LossCriterion) and "loss" in criterion.get_config()
    if not reads:
        raise ValueError(
            "This criterion looks at no loss. Leave `loss` out. Received: "
            f"criterion={criterion!r}, loss={loss!r}"
        )
    return dataclasses.replace(criterion, loss=loss)


def names_of(slots: Sequence[MaskSlot]) -> dict[str, list[str]]:
    """List the masked weights of each layer, by path."""
    names: dict[str, list[str]] = {}
    for slot in slots:
        names.setdefault(slot.path, []).append(slot.name)
    return names
