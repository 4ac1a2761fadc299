"""`controls`: what shows whether a mask is more than its densities."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from tf_spline_prune._checks import SEED, checked
from tf_spline_prune.compat import (
    CurrentWeights,
    MaskSlot,
    compile_alike,
    keras_of,
    mask_slots,
    rebuild,
    trace,
)
from tf_spline_prune.errors import InitializationWarning, ModelError, warn
from tf_spline_prune.initialization._masked_copy import refuse_masks
from tf_spline_prune.masking._slots import require_slots
from tf_spline_prune.masking._wrap_with_masks import wrap_with_masks


@checked(seed=SEED)
def controls(masked: Any, model: Any, seed: int = 0) -> dict[str, Any]:
    """Return the networks that a mask should beat.

    All have the densities of the mask, layer by layer. If they learn as well, then
    the densities are all that the criterion has found.

    `"shuffled"`: the mask permuted within each tensor, the weights those of `model`.
    `"reinitialized"`: the mask as it is, new weights from the layers' initializers.
    `"random"`: the mask permuted, and new weights.

    For new weights `keras.utils.set_random_seed` is called with a seed derived from
    `seed`.

    Args:
        masked: A masked model of either flavour. It is not changed.
        model: The model that was masked, with its initial weights: those that a mask
            has removed are found nowhere else. It is not changed.
        seed: Seed of the draws. Defaults to `0`.

    Returns:
        Masked models by name, compiled as `model` is.

    Raises:
        FlavourError: If one is no Keras model.
        ModelError: If `masked` has no masks or `model` has some, if weights have other
            shapes, or a model is unbuilt or cannot be traced.
        ValueError: If `seed` is out of range.

    Example:

    ```python
    for name, control in tsp.initialization.controls(masked, model).items():
        control.fit(train, epochs=10)
        print(name, control.evaluate(test))
    ```

    Source: Frankle et al., "Pruning Neural Networks at Initialization: Why Are We
    Missing the Mark?", ICLR 2021; Su et al., "Sanity-Checking Pruning Methods",
    NeurIPS 2020.
    """
    slots = require_slots(masked)
    rng = np.random.default_rng(seed)

    def made(source: Any, permuted: bool) -> Any:
        found, targets = wrapped_alike(source, slots)
        for slot, target in zip(slots, targets, strict=True):
            keep = slot.keep()
            if permuted:
                keep = rng.permutation(keep.ravel()).reshape(keep.shape)
            target.assign(keep)
        return found

    found = {"shuffled": made(model, True)}
    # Not `seed` itself, which may be the one that `model` was built with.
    drawn = np.random.SeedSequence([seed, 0]).generate_state(1)
    keras_of(model).utils.set_random_seed(int(drawn[0]))
    fresh = rebuild(trace(model), fresh=True)
    compile_alike(model, fresh)
    found |= {"reinitialized": made(fresh, False), "random": made(fresh, True)}
    old, new = (CurrentWeights(trace(one)) for one in (model, fresh))
    same = [
        slot.key
        for slot in mask_slots(found["random"])
        if np.array_equal(old[slot.path][slot.name], new[slot.path][slot.name])
    ]
    if same:
        warn(
            "New weights are the same as the old ones: their initializers have a seed, "
            "or give constants. Build the model without these. Received: "
            f"{', '.join(same)}",
            InitializationWarning,
        )
    return found


def transfer_masks(masked: Any, model: Any) -> Any:
    """Put the masks of one model on a copy of another.

    So a mask that was drawn on one data set is used on a second one, or the mask of
    a trained net on its initial weights. Layers belong together by path; where the
    paths differ, by their order.

    Args:
        masked: A masked model of either flavour. It is not changed.
        model: A built model without masks, of either flavour. It is not changed.

    Returns:
        A masked copy of `model`, compiled as it is.

    Raises:
        FlavourError: If one is no Keras model.
        ModelError: If `masked` has no masks or `model` has some, if weights have other
            shapes, or a model is unbuilt or cannot be traced.

    Example:

    ```python
    masked = tsp.prune_at_init(model, "snip", 0.9, data=(x_train, y_train))
    other = tsp.initialization.transfer_masks(masked, fresh)
    ```

    Source: Lee et al., "A Signal Propagation Perspective for Pruning Neural Networks at
    Initialization", ICLR 2020, section 5 (transfer of sparsity).
    """
    slots = require_slots(masked)
    found, targets = wrapped_alike(model, slots)
    for slot, target in zip(slots, targets, strict=True):
        target.assign(slot.keep())
    return found


def wrapped_alike(
    model: Any, slots: Sequence[MaskSlot]
) -> tuple[Any, Sequence[MaskSlot]]:
    """Copy a model with masks around the counterparts of masked weights.

    Args:
        model: A built model without masks.
        slots: The masked weights of another model.

    Returns:
        The masked copy, and its slots, in the order of `slots`.

    Raises:
        ModelError: As `transfer_masks`.
    """
    refuse_masks(model, "Take the model that was masked, or `tsp.strip_masks(model)`")
    paths = list(dict.fromkeys(slot.path for slot in slots))
    known = trace(model).layers.keys()
    found = wrap_with_masks(model, paths if known >= set(paths) else None)
    targets = mask_slots(found)
    keys = [slot.key for slot in slots]
    if set(keys) == {slot.key for slot in targets}:
        targets.sort(key=lambda slot: keys.index(slot.key))
    expected, received = (
        [(slot.key, tuple(slot.mask.shape)) for slot in some]
        for some in (slots, targets)
    )
    if [shape for _, shape in expected] != [shape for _, shape in received]:
        raise ModelError(
            "Masks go onto weights of their own shapes only. Expected: "
            f"{_listed(expected)}. Received: {_listed(received)}"
        )
    return found, targets


def _listed(shapes: list[tuple[str, tuple[int, ...]]]) -> str:
    return ", ".join(f"{key} {shape}" for key, shape in shapes) or "none"
