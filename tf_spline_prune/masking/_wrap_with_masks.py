"""`wrap_with_masks`: a masked copy of a model."""

import functools
from collections.abc import Callable
from typing import Any, TypeVar

from tf_spline_prune._checks import SELECTOR, checked
from tf_spline_prune.compat import (
    check_plain,
    compile_alike,
    drive,
    flavour_of,
    mask_slots,
    rebuild,
    require_flavour,
    rewire,
    trace,
    warn_of_lost_training,
    wrap_with_tfmot,
)
from tf_spline_prune.errors import ModelError, NothingPrunedWarning, warn
from tf_spline_prune.graph._selection import Selector
from tf_spline_prune.masking._masked_layer import MaskedLayer, left_out, why_not
from tf_spline_prune.masking._slots import chosen_layers

F = TypeVar("F", bound=Callable[..., Any])

_SUCCESSORS = {
    "to_prune": "`model`, of `tsp.wrap_with_masks`",
    "pruning_schedule": "`schedule`, the first argument of `tsp.MaskPruning`",
    "block_size": "`granularity`, of `tsp.MaskPruning`",
    "block_pooling_type": '`pooling`, of `tsp.MaskPruning`: "mean" or "max"',
    "sparsity_m_by_n": '`granularity`, of `tsp.MaskPruning`, such as "2:4"',
    "pruning_policy": "`layers`, of `tsp.wrap_with_masks`",
}


def names_successors(function: F) -> F:
    """Let a function answer arguments of TFMOT with the names that they have here."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        for name in kwargs:
            if name in _SUCCESSORS:
                raise TypeError(
                    f"TFMOT's `{name}` is {_SUCCESSORS[name]} here. Received: "
                    f"{name}={kwargs[name]!r}"
                )
        return function(*args, **kwargs)

    return call  # type: ignore[return-value]


@names_successors
@checked(layers=SELECTOR)
def wrap_with_masks(model: Any, layers: Selector = None) -> Any:
    """Copy a model, with masks around its prunable layers.

    Layers that have nothing to mask, and frozen ones, stay as they are. A layer made
    of layers has a mask for each kernel inside it; where matrices stay dense because
    nobody says that they may be thinned out, or they are frozen, a warning names them.
    A masked model computes what the model computes, until its masks are set: by the
    callback `MaskPruning` while it trains, or by `update_masks` at once.

    In Keras 3 the wrapper is `MaskedLayer`; in tf_keras it is TFMOT's own, with a
    schedule that never fires. A layer that is masked already keeps its masks. A
    subclassed model comes out as a functional one. Under a distribution strategy call
    this inside its scope, as the model is made there.

    Args:
        model: A built model of either flavour. It is not changed, and shares no
            weights with the copy.
        layers: Which layers get masks: a path or name, a regular expression, a list of
            these, or a function of the layer. Defaults to `None`, which means all that
            have prunable weights.

    Returns:
        A masked model of the same flavour, layer names kept (TFMOT's wrappers put
        their own before them), compiled as the model is.

    Raises:
        FlavourError: If `model` is no Keras model.
        ModelError: If it is unbuilt or cannot be traced, if a layer is quantised,
            or if none can be masked. TFMOT's wrapper takes some kinds of layers only,
            and none that reads, makes or hands on a mask of timesteps; these are left
            out, with a warning.
        ValueError: If `layers` names a layer that has nothing to mask.
        TypeError: If it is a schedule, which `MaskPruning` takes.

    Example:

    ```python
    masked = tsp.wrap_with_masks(model)
    masked.fit(x, y, callbacks=[tsp.MaskPruning(schedule)])
    ```
    """
    require_flavour(model)
    graph = trace(model)
    calls = {call.path: call for call in graph.calls}
    reasons = {path: why_not(call.layer) for path, call in calls.items()}
    chosen = chosen_layers(
        {path: calls[path].layer for path in calls},
        layers,
        {path: why for path, why in reasons.items() if why},
    )
    old = mask_slots(model)
    chosen |= {slot.path for slot in old}
    if not chosen:
        raise ModelError(
            f"No layer of this model can be masked. Received: model {model.name!r}, "
            "whose layers get no masks because "
            f"{_listed({path: why for path, why in reasons.items() if why})}"
        )
    for path in chosen:
        check_plain(path, calls[path].layer)
    plain = trace(rebuild(graph))
    wrap = MaskedLayer if flavour_of(model) == "keras" else wrap_with_tfmot
    refused: dict[str, str] = {}

    def wrapped(call: Any) -> Any:
        if call.path not in chosen:
            return call.layer
        try:
            return wrap(call.layer)
        except ValueError as error:
            if flavour_of(model) == "keras":
                raise
            refused[call.path] = str(error)
            return call.layer

    masked = rewire(plain, wrapped)
    if refused and not mask_slots(masked):
        raise ModelError(
            "No layer of this model can be masked: TFMOT's wrapper does not take any. "
            f"Received: model {model.name!r}: {_listed(refused)}"
        )
    if refused:
        warn(
            f"TFMOT's wrapper does not take {sorted(refused)}; they get no masks: "
            f"{_listed(refused)}",
            NothingPrunedWarning,
        )
    asked = set(calls) if layers is None else chosen
    left = _left_out(calls, asked - set(refused))
    if left:
        warn(
            f"Some matrices get no masks, and stay dense: {_listed(left)}. A layer of "
            "your own names them by a method `get_prunable_weights()`, with those of "
            "the layers inside it; a frozen one must be trainable. Where it is meant, "
            "choose the other layers by `layers=`.",
            NothingPrunedWarning,
        )
    slots = {slot.key: slot for slot in mask_slots(masked)}
    for slot in old:
        slots[slot.key].assign(slot.keep())
    drive(masked)
    warn_of_lost_training(model, masked)
    compile_alike(model, masked)
    return masked


def _left_out(calls: dict[str, Any], paths: set[str]) -> dict[str, str]:
    """Return what stays dense though nobody left it out by name, by path of layer."""
    found = {}
    for path in sorted(paths):
        for part, why in left_out(calls[path].layer).items():
            found[f"{path}/{part}".rstrip("/")] = why
    return found


def _listed(reasons: dict[str, str]) -> str:
    some = [f"{path}: {why}" for path, why in list(reasons.items())[:5]]
    more = [f"and {len(reasons) - 5} more"] if len(reasons) > 5 else []
    return "; ".join(some + more) or "it has none"
