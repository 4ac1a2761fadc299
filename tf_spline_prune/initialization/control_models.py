"""`controls`: what shows whether a mask is more than its densities."""

from typing import Any

import numpy as np

from tf_spline_prune._checks import SEED, checked
from tf_spline_prune.compat import (
    CurrentWeights,
    compile_alike,
    keras_of,
    mask_slots,
    rebuild,
    trace,
)
from tf_spline_prune.errors import InitializationWarning, warn
from tf_spline_prune.initialization.mask_transfer import wrapped_alike
from tf_spline_prune.masking.slots import require_slots


@checked(seed=SEED)
def controls(masked: Any, model: Any, seed: int = 0) -> dict[str, Any]:
    """Make the networks that a mask should beat.

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
        seed: Seed of the draws.

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
