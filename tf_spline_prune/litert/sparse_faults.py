"""Sparse files that LiteRT is known to refuse or to answer wrongly from."""

from typing import Any

import numpy as np

from tf_spline_prune.compat import CurrentWeights, kind_of, trace
from tf_spline_prune.litert.quantization import Quantize

_SPARSE = 0.3  # share of zeros from which the converter stores a kernel without them
_BLOCKS = {"float16": (4, 0.9), "int8": (16, 0.8)}  # share of zeros in whole blocks


def sparse_fault(model: Any, quantize: Quantize | None) -> str | None:
    """Tell what is known to go wrong if a model is stored without its zeros.

    Measured with LiteRT 2.3.0 and its default kernels. What is not known here is
    caught when the written file is compared with the model.

    Args:
        model: A built model of either flavour.
        quantize: As in `convert`.

    Returns:
        The reason to refuse, or `None`.
    """
    if quantize == "dynamic":
        return (
            'LiteRT does not load files with `quantize="dynamic"` and `sparse=True`, '
            "or answers wrongly from them. Leave out `sparse` (compressed, such a file "
            'is the smaller one anyway), or use quantize="float16".'
        )
    if quantize is None:
        return None
    length, whole = _BLOCKS[quantize]
    found = []
    graph = trace(model)
    weights = CurrentWeights(graph)
    dense = {c.path for c in graph.leaves() if kind_of(c.layer) == "Dense"}
    for path in sorted(dense):
        kernel = weights[path]["kernel"]
        if np.mean(kernel == 0) < _SPARSE:
            continue
        in_blocks = _share_in_blocks(kernel, length) >= whole
        if in_blocks == (quantize == "float16"):
            found.append(path)
    if not found:
        return None
    if quantize == "float16":
        return (
            "LiteRT answers NaN from Dense layers whose zeros come in blocks of 4 "
            "inputs, stored sparse in float16. Leave out `sparse` or `quantize`. "
            f"Received: layers {found}"
        )
    return (
        "LiteRT does not load sparse Dense layers of 8 bits unless their zeros come in "
        "blocks of 16 inputs (`granularity=(16, 1)` in `MaskPruning`). Leave out "
        f"`sparse` or `quantize`. Received: layers {found}"
    )


def _share_in_blocks(kernel: np.ndarray, length: int) -> float:
    """Give the share of zeros in whole blocks of inputs of one output."""
    zero = kernel == 0
    missing = -len(zero) % length
    padded = np.pad(zero, ((0, missing), (0, 0)), constant_values=True)
    blocks = padded.reshape(-1, length, zero.shape[1]).all(1)
    whole = np.repeat(blocks, length, 0)[: len(zero)]
    return float(whole.sum() / zero.sum())
