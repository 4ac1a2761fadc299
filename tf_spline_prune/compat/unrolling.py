"""Recurrent layers in a form that LiteRT understands."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def plain_recurrence(model: Any, unroll: bool = False) -> Iterator[None]:
    """Let recurrent layers be traced as plain operations.

    LSTM and GRU of tf_keras leave marks in the graph by which LiteRT's converter
    finds them and takes its own kernel. That one carries its state over from one
    inference to the next, so that the second answer is wrong.

    Args:
        model: A built model of either flavour; it is as it was afterwards.
        unroll: Whether timesteps are written out, instead of a loop. A layer whose
            number of timesteps is open keeps its loop.
    """
    wanted = {"_could_use_gpu_kernel": False} | ({"unroll": True} if unroll else {})
    held = [
        (layer, name, getattr(layer, name))
        for layer in model._flatten_layers()
        for name in wanted
        if name in vars(layer)
    ]
    try:
        for layer, name, _ in held:
            object.__setattr__(layer, name, wanted[name])
        yield
    finally:
        for layer, name, value in held:
            object.__setattr__(layer, name, value)
