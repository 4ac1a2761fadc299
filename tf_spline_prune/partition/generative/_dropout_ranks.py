"""`dropout_ranks`: what dropout does to the dimension of what a generator makes."""

import math
from collections.abc import Sequence
from typing import Any, Literal

import keras
import numpy as np

from tf_spline_prune._checks import COUNT, FRACTION, SEED, ListOf, OneOf, checked
from tf_spline_prune.compat import (
    KERNEL_KINDS,
    Graph,
    Kernel,
    Progress,
    call_layer,
    jacobians_of,
    kernel_of,
    read_weights,
    trace,
    with_dtype,
)
from tf_spline_prune.errors import ModelError
from tf_spline_prune.partition.generative._slopes import check_latents

# The pointwise kernel of a separable one is not all that it has.
_KINDS = [kind for kind in KERNEL_KINDS if not kind.startswith("Separable")]


@checked(rate=FRACTION, drop=OneOf("units", "weights"), masks=COUNT, seed=SEED)
def dropout_ranks(
    model: Any,
    z: Any,
    rate: float,
    *,
    drop: Literal["units", "weights"] = "units",
    masks: int = 100,
    seed: int = 0,
) -> np.ndarray:
    """Return the dimension of what a generator makes under dropout, mask by mask.

    Each mask of dropout makes another generator, and its dimension can only be lower:
    with fewer units left in a hidden layer than there are latents, the layer lets no
    more dimensions pass. Masks are drawn on what goes into every layer with a kernel
    but the first, whether the model has Dropout layers or not.

    Args:
        model: A built model from one tensor of latents to one of outputs.
        z: Latents, of shape `(n, *input shape)`; a few will do, for the masks matter
            more.
        rate: The probability with which a unit or weight is dropped, in [0, 1).
        drop: `"units"`: dropout, of channels in convolutions; `"weights"`: dropconnect.
            Defaults to `"units"`.
        masks: How many to draw. Defaults to `100`.
        seed: Seed of the masks. Defaults to `0`.

    Returns:
        Array of shape `(masks, n)`, int.

    Raises:
        FlavourError: If `model` is no Keras model.
        ModelError: If it cannot be read, has several inputs or outputs, no hidden
            layer, or a hidden layer with a kernel other than of Dense or convolution.
        ValueError: If the latents do not fit the model, or another argument is out of
            range.

    Example:

    ```python
    ranks = tsp.generative.dropout_ranks(decoder, z, rate=0.3)
    (ranks == 8).mean()      # how often all dimensions are kept
    ```

    Source: Balestriero et al., arXiv:2002.11912, section on dropout.
    """
    points = check_latents(model, z)
    exact = with_dtype(model, "float64")
    graph = trace(exact)
    kernels = []
    for one in _hidden(graph):
        # A copy, for what is read may be the variable's own memory.
        kernel = np.array(read_weights(one.layer)[one.name])
        kernels.append((one.variable, kernel, one.input_axis))
    (output,) = graph.run([keras.ops.convert_to_tensor(points[:1])], call_layer)
    rng = np.random.default_rng(seed)
    ranks = []
    progress = Progress(masks, "mask")
    for _ in range(masks):
        for variable, kernel, axis in kernels:
            shape = [1] * kernel.ndim if drop == "units" else list(kernel.shape)
            shape[axis] = kernel.shape[axis]
            variable.assign(kernel * (rng.random(shape) >= rate))
        # Anew for each mask: a backend may keep the weights that it first saw.
        slopes = jacobians_of(
            lambda x: graph.run([x], call_layer)[0],
            exact,
            points[0].size,
            math.prod(output.shape[1:]),
        )(points)[1]
        ranks.append(np.linalg.matrix_rank(slopes))
        progress.step()
    return np.stack(ranks)


@checked(latents=COUNT, widths=ListOf(COUNT, "integers of at least 1"), rate=FRACTION)
def full_rank_probability(latents: int, widths: Sequence[int], rate: float) -> float:
    """Return the probability that dropout leaves a generator all of its dimensions.

    In general position the rank is the number of latents, unless fewer units than that
    are left in a hidden layer. Units are dropped one by one, each with the same
    probability: the product over layers of `P(Binomial(width, 1 - rate) >= latents)`.
    For ReLU, which switches units off by itself, it is an upper bound.

    Args:
        latents: Number of latents, at most that of outputs.
        widths: Number of units of each hidden layer.
        rate: The probability with which a unit is dropped, in [0, 1).

    Returns:
        The probability.

    Raises:
        ValueError: If a number is out of range.

    Example:

    ```python
    tsp.generative.full_rank_probability(6, [8, 8], rate=0.3)    # 0.304
    ```

    Source: our own, from the bound of the rank in Balestriero et al. 2020
    (arXiv:2002.11912).
    """
    return math.prod(
        sum(
            math.comb(width, kept) * (1 - rate) ** kept * rate ** (width - kept)
            for kept in range(latents, width + 1)
        )
        for width in widths
    )


def _hidden(graph: Graph) -> list[Kernel]:
    """Find the kernels behind another one."""
    found: dict[str, Kernel] = {}
    unknown = []
    # Whether a tensor lies behind a layer with a kernel.
    lies_behind = dict.fromkeys(graph.input_tensors, False)
    for call in graph.calls:
        behind = any(lies_behind[tensor] for tensor in call.needs())
        weights = read_weights(call.layer)
        kernel = kernel_of(call)
        if kernel is not None and call.kind in _KINDS:
            if behind:
                found[call.path] = kernel
            behind = True
        elif any(weights[name].ndim > 1 for name in weights):
            unknown.append(f"{call.name} ({call.kind})")
        lies_behind.update(dict.fromkeys(call.outputs, behind))
    if unknown or not found:
        raise ModelError(
            "Dropout is drawn on what goes into the hidden layers, which must be of "
            f"the kinds {', '.join(_KINDS)}. Received: model {graph.model.name!r} with "
            f"{', '.join(unknown) or 'no layer behind another'}"
        )
    return list(found.values())
