"""`stable_residual`: residual branches whose sum does not grow with depth."""

import math
from typing import Any

from tf_spline_prune._checks import Flag, checked
from tf_spline_prune.compat import (
    Call,
    CurrentWeights,
    Graph,
    Tensor,
    compile_alike,
    rebuild,
    trace,
    with_scales,
)
from tf_spline_prune.errors import ModelError
from tf_spline_prune.initialization._masked_copy import refuse_masks


@checked(decrease=Flag())
def stable_residual(model: Any, decrease: bool = False) -> Any:
    """Copy a residual network, its branches scaled so that depth does no harm.

    Each block of a residual network adds its branch to the signal, whose mean square
    grows by a factor a block; gradients grow with it, and scores by gradients keep the
    weights of some blocks only. Here every branch is scaled by 1 / sqrt(L), where L is
    the number of all blocks, right before the addition: after the BatchNormalization
    that may end it. Shortcuts, projected ones too, are left alone. Keras' own
    `Rescaling` layers do it, so the copy needs no custom objects.

    A block is an addition, as a layer or an operation, of tensors of which one has gone
    through fewer layers with kernels than the others since they parted: the shortcut.

    Args:
        model: A built model of either flavour, without masks. It is not changed.
        decrease: Whether block l, counted from 1, is scaled by 1 / (sqrt(l) log(l + 1))
            instead, so that early blocks count more. Defaults to `False`.

    Returns:
        A new model of the same flavour, compiled as `model` is.

    Raises:
        FlavourError: If `model` is no Keras model.
        ModelError: If it cannot be traced, has no residual block, or has masks: scale
            first.

    Example:

    ```python
    model = tsp.initialization.stable_residual(resnet)
    masked = tsp.prune_once(model, 0.98, criterion="magnitude", scope="global")
    ```

    Source: Hayou et al., "Stable ResNet", AISTATS 2021; "Robust Pruning at
    Initialization", ICLR 2021, section 4.
    """
    refuse_masks(model, "Scale the branches before the weights are masked")
    graph = trace(model)
    blocks = residual_blocks(graph)
    if not blocks:
        raise ModelError(
            "The model has no residual block: no addition of a shortcut and a branch "
            f"that has more layers with kernels. Received: model {model.name!r}"
        )
    scales: dict[str, dict[int, float]] = {}
    for number, (path, branches) in enumerate(blocks, 1):
        root = math.sqrt(number) * math.log(number + 1) if decrease else None
        factor = 1 / (root or math.sqrt(len(blocks)))
        # A block that is used again keeps the factor of its first use.
        scales.setdefault(path, dict.fromkeys(branches, factor))
    weights = CurrentWeights(graph).__getitem__
    copy = rebuild(with_scales(graph, scales), weights=weights)
    compile_alike(model, copy)
    return copy


def residual_blocks(graph: Graph) -> list[tuple[str, list[int]]]:
    """Find the residual blocks of a model.

    Args:
        graph: What `trace` gave.

    Returns:
        For each block, in the order of computation, the path of its addition and the
        places of its branches among the inputs.
    """
    behind: dict[Tensor, frozenset[Call]] = {
        t: frozenset() for t in graph.input_tensors
    }
    found = []
    for call in graph.calls:
        before = [behind[tensor] for tensor in call.inputs]
        everything = frozenset({call}).union(*before)
        behind.update(dict.fromkeys(call.outputs, everything))
        if call.kind not in ("Add", "op:add") or len(before) < 2:
            continue
        shared = frozenset.intersection(*before)
        kernels = [sum(map(_has_kernel, one - shared)) for one in before]
        if kernels.count(min(kernels)) == 1:
            least = min(kernels)
            branches = [i for i, count in enumerate(kernels) if count > least]
            found.append((call.path, branches))
    return found


def _has_kernel(call: Call) -> bool:
    weights = getattr(call.layer, "weights", ())
    return any(len(getattr(weight, "shape", ())) > 1 for weight in weights)
