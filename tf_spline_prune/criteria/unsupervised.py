"""Losses that need no labels: what a network answers stands in for them."""

from typing import Any, Literal

import keras

from tf_spline_prune.partition.logits import Logits

Unsupervised = Literal["uniform", "raw", "softmax"]


def without_labels(logits: Logits, kind: Unsupervised, temperature: float = 1.0) -> Any:
    """Make a function that computes a loss without labels.

    The cross-entropy of the network's answer with, by `kind`: every class alike
    (`"uniform"`), its own logits (`"raw"`), or its own probabilities (`"softmax"`).
    The last two are differentiated through the target too; for else the third would
    have no gradient. A lone logit tells two classes apart, as a sigmoid has it.

    Args:
        logits: The network up to its last softmax.
        kind: Which.
        temperature: What logits are divided by.

    Returns:
        A function of the inputs, one tensor each, and of labels, which are not read.

    Source: Lee et al., "A Signal Propagation Perspective for Pruning Neural Networks
    at Initialization", ICLR 2020, section 5.
    """

    def total(inputs: list[Any], labels: Any) -> Any:
        losses = []
        for output in logits(inputs):
            z = keras.ops.reshape(output, (-1, output.shape[-1])) / temperature
            if z.shape[-1] == 1:  # the other class of a sigmoid has the logit 0
                z = keras.ops.concatenate([keras.ops.zeros_like(z), z], axis=-1)
            log = keras.ops.log_softmax(z, axis=-1)
            if kind == "uniform":
                losses.append(-keras.ops.mean(log))
                continue
            target = z if kind == "raw" else keras.ops.exp(log)
            losses.append(-keras.ops.mean(keras.ops.sum(target * log, axis=-1)))
        return sum(losses)

    return total
