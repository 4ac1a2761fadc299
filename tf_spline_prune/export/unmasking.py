"""A masked model that is exported leaves without its masks."""

from typing import Any

from tf_spline_prune.compat import mask_slots, require_flavour, say
from tf_spline_prune.masking import strip_masks


def unmasked(model: Any) -> Any:
    """Strip the masks of a model, if it has any, and say so.

    Masks would double the size of what is shipped, and TFMOT's write variables at
    every inference.

    Args:
        model: A model of either flavour.

    Returns:
        The model, or a plain copy of a masked one.
    """
    require_flavour(model)
    if not mask_slots(model):
        return model
    say("The masks are stripped for the export; what they removed is zero in it.")
    return strip_masks(model)
