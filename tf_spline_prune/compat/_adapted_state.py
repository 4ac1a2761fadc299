"""What a layer has learnt of data by `adapt`, in its weights or outside of them."""

import tempfile
from typing import Any

import numpy as np


def is_adapted(layer: Any) -> bool:
    """Tell whether a layer is one that is adapted to data, and not trained."""
    return hasattr(layer, "adapt")


def keeps_words(layer: Any) -> bool:
    """Tell whether a layer keeps a vocabulary, and its weights are made from that."""
    return hasattr(layer, "get_vocabulary") and hasattr(layer, "set_vocabulary")


def has_no_words(layer: Any) -> bool:
    """Tell whether a layer's config has no vocabulary, so that it must have adapted."""
    lookup = getattr(layer, "_lookup_layer", layer)  # of TextVectorization
    return keeps_words(layer) and lookup.input_vocabulary is None


def draw_boundaries(layer: Any) -> None:
    """Draw the boundaries between bins that tf_keras forgets when it loads a layer.

    Args:
        layer: A layer of either flavour; only one with a summary of what it has seen,
            and without boundaries, changes.
    """
    seen = getattr(layer, "summary", None)
    if hasattr(layer, "bin_boundaries") and not layer.bin_boundaries:
        if seen is not None and not callable(seen) and np.size(seen):
            layer.finalize_state()


def hand_on_state(source: Any, target: Any) -> None:
    """Hand on what a layer keeps outside its weights, such as a vocabulary.

    Args:
        source: A layer of either flavour.
        target: A layer that was built from its config; only this one changes.
    """
    if keeps_words(source):
        # Not by a file, as Keras does: a word may be a line break.
        words = source.get_vocabulary()
        lookup = getattr(source, "_lookup_layer", source)  # of TextVectorization
        if getattr(lookup, "output_mode", None) != "tf_idf":
            target.set_vocabulary(words)
        else:  # of which there may be more than words, padded with zeros
            counts = np.asarray(lookup.idf_weights_const)[: len(words)]
            target.set_vocabulary(words, idf_weights=counts)
    elif hasattr(source, "bin_boundaries"):
        target.bin_boundaries = source.bin_boundaries
    elif hasattr(source, "save_assets"):
        with tempfile.TemporaryDirectory() as folder:
            source.save_assets(folder)
            target.load_assets(folder)
