"""`rescale`: masked weights with the variance that they had before pruning."""

from typing import Any, Literal, get_args

import numpy as np

from tf_spline_prune._checks import POSITIVE, OneOf, Real, checked
from tf_spline_prune.compat import (
    Calibration,
    Kernel,
    MaskSlot,
    kernels_of,
    read_weights,
    require_flavour,
    trace,
)
from tf_spline_prune.errors import ModelError, RescaleError, RescaleWarning, warn
from tf_spline_prune.initialization._masked_copy import copied, masked_kernels
from tf_spline_prune.initialization.signal._mean_field import ACTIVATION, edge_of_chaos
from tf_spline_prune.initialization.signal._signal_propagation import mean_squares, walk

Target = Literal["edge_of_chaos", "data"]
Granularity = Literal["unit", "layer", "tap"]
Outcome = Literal["raise", "warn"]

# Mean squares beside those of the dense model that a network still trains with.
_LEAST, _MOST = 0.1, 10.0


@checked(
    target=OneOf(*get_args(Target)),
    granularity=[OneOf(*get_args(Granularity)), None],
    activation=[*ACTIVATION, None],
    bias_std=Real(0),
    weight_std=[POSITIVE, None],
    on_explosion=OneOf(*get_args(Outcome)),
)
def rescale(
    masked: Any,
    target: Target = "edge_of_chaos",
    granularity: Granularity | None = None,
    *,
    activation: Any = None,
    bias_std: float = 0.0,
    weight_std: float | None = None,
    dense: Any = None,
    data: Any = None,
    on_explosion: Outcome = "raise",
) -> Any:
    """Copy a masked model, its kept weights scaled so that the signal keeps its size.

    Pruning takes variance away, so that a deep network on the edge of chaos falls into
    the ordered phase: gradients die out within tens of layers. Scaling the kept
    weights up, once, before training, brings it back. The masks stay as they are.
    Biases, and kernels without a mask, are left alone.

    The theory takes the mask to be independent of the signal. It is not where a score
    reads gradients and units are rectified: SNIP under ReLU keeps weights between
    units that are active together, and rescaled to the edge of chaos such a
    network explodes. So give `dense` and `data`, on which the result is checked.

    Args:
        masked: A masked model of either flavour, before training. It is not changed.
        target: `"edge_of_chaos"`: incoming second moments of the edge of chaos.
            `"data"`: in one layer after the other, what its weights sum up on `data` is
            given the mean square that it has in the dense model. Defaults to
            `"edge_of_chaos"`.
        granularity: What is scaled by one number: `"unit"`; `"layer"`, whose units have
            the target on average; or `"tap"`, the weights of a unit at one place of a
            convolution's window, with the fraction weight_std^2 / places. Defaults to
            `None`: `"unit"` on the edge of chaos, and always `"layer"` by data, for
            units scaled one by one have the right size, but their gradients explode.
        activation: What the network's activation is: a name that Keras knows or
            `"erf"`, a layer or function of either flavour, or a function on arrays.
            Defaults to `None`.
        bias_std: Standard deviation of the biases. Defaults to `0.0`.
        weight_std: Standard deviation of the weights times sqrt(fan-in), in the place
            of `activation`. Defaults to `None`.
        dense: The model before pruning. Defaults to `None`.
        data: Some hundred inputs, shape `(n, *input shape)`; they run all at once.
            Defaults to `None`.
        on_explosion: What follows if, on `data`, the mean square of a layer's
            pre-activations leaves [0.1, 10] times its value in the dense model:
            `"raise"` an error or `"warn"`. Defaults to `"raise"`.

    Returns:
        A masked model of the same flavour, compiled as `masked` is. Units without a
        kept input stay at zero.

    Raises:
        FlavourError: If `masked` or `dense` is no Keras model.
        ModelError: If `masked` has no masked kernel, or `dense` has other layers.
        RescaleError: As `on_explosion` says.
        CalibrationError: If `data` is misshapen or not finite.
        ValueError: If arguments lack or do not go together.

    Example:

    ```python
    masked = tsp.prune_once(tanh_net, 0.9, scope="global")
    masked = tsp.initialization.rescale(
        masked, activation="tanh", bias_std=0.2, dense=tanh_net, data=x_train[:256]
    )
    ```

    Source: Hayou et al., "Robust Pruning at Initialization", ICLR 2021, section 3.
    """
    if (dense is None) != (data is None):
        raise ValueError(
            "`dense` and `data` go together: what the model before pruning does on the "
            "data is what the result is compared with. Received: only "
            f"{'data' if dense is None else 'dense'}"
        )
    if target == "data" and (data is None or granularity not in (None, "layer")):
        raise ValueError(
            "`target='data'` needs `dense` and `data`, and scales whole layers. "
            f"Received: granularity={granularity!r}, "
            f"data={'None' if data is None else 'given'}"
        )
    if target == "edge_of_chaos":
        weight_std = _weight_std(activation, bias_std, weight_std)
    masked_kernels(masked)
    inputs = None if dense is None else _checked(masked, dense, data)
    copy = copied(masked)
    if weight_std is not None:
        for kernel, slot in masked_kernels(copy).values():
            blocks = kernel.blocks(slot.read().astype("float64"))
            scales = _to_moment(blocks, weight_std, granularity or "unit")
            _assign(slot, kernel.array(blocks * scales))
    elif inputs is not None:
        _to_dense(copy, dense, inputs)
    if inputs is not None:
        _compare(dense, copy, inputs, on_explosion)
    return copy


def _weight_std(activation: Any, bias_std: float, weight_std: float | None) -> float:
    if (activation is None) == (weight_std is None):
        raise ValueError(
            "Say either which `activation` the network has, or the `weight_std` to "
            f"reach. Received: activation={activation!r}, weight_std={weight_std!r}"
        )
    if weight_std is None:
        return edge_of_chaos(activation, bias_std).weight_std
    return weight_std


def _checked(masked: Any, dense: Any, data: Any) -> list[np.ndarray]:
    """Check that a model is the dense one of another, and take in the data."""
    require_flavour(dense)
    graph, other = trace(dense), trace(masked)
    shapes, others = (
        {path: tuple(k.variable.shape) for path, k in kernels_of(one).items()}
        for one in (graph, other)
    )
    if shapes != others:
        differ = sorted(shapes.items() ^ others.items())[:3]
        raise ModelError(
            "`dense` must be the model that was pruned: the same layers, of the same "
            f"sizes. Received: model {dense.name!r}, which differs at {differ}"
        )
    return Calibration.of(data, graph).inputs


def _to_moment(
    blocks: np.ndarray, weight_std: float, granularity: Granularity
) -> np.ndarray:
    """Find the factors that give kernels their second moment."""
    if granularity == "tap":
        moments = np.square(blocks).sum(axis=2, keepdims=True)
        return _ratio(weight_std / np.sqrt(blocks.shape[1]), moments)
    moments = np.square(blocks).sum(axis=(1, 2), keepdims=True)
    if granularity == "layer":
        moments = moments.mean(keepdims=True)
    return _ratio(weight_std, moments)


def _ratio(size: Any, moments: np.ndarray) -> np.ndarray:
    """Divide by the roots of second moments; where there is nothing, scale nothing."""
    lengths = np.sqrt(moments)
    return np.divide(size, lengths, out=np.ones_like(lengths), where=lengths > 0)


def _to_dense(copy: Any, dense: Any, inputs: list[np.ndarray]) -> None:
    """Scale each layer so that it sums up to what it does in the dense model."""
    slots = masked_kernels(copy)
    wanted: dict[str, float] = {}

    def remember(kernel: Kernel, sums: np.ndarray) -> bool:
        wanted.setdefault(kernel.path, _without_bias(kernel, sums))
        return False

    def scale(kernel: Kernel, sums: np.ndarray) -> bool:
        goal = wanted.pop(kernel.path, 0.0)  # a second use changes nothing
        if kernel.path not in slots or not goal:
            return False
        slot = slots[kernel.path][1]
        found = np.array(_without_bias(kernel, sums))
        _assign(slot, slot.read() * _ratio(np.sqrt(goal), found))
        return True

    walk(trace(dense), inputs, remember)
    walk(trace(copy), inputs, scale)


def _without_bias(kernel: Kernel, sums: np.ndarray) -> float:
    """Take the mean square of what a layer's weights sum up."""
    bias = 0.0 if kernel.bias is None else read_weights(kernel.layer)["bias"]
    return float(np.mean(np.square(sums - bias, dtype="float64")))


def _assign(slot: MaskSlot, array: np.ndarray) -> None:
    slot.weight.assign(array.astype(slot.read().dtype))


def _compare(
    dense: Any, copy: Any, inputs: list[np.ndarray], on_explosion: Outcome
) -> None:
    """Refuse a copy whose signal is far from that of the dense model."""
    before = mean_squares(trace(dense), inputs)
    after = mean_squares(trace(copy), inputs)
    with np.errstate(all="ignore"):
        ratios = {path: float(np.divide(after[path], before[path])) for path in before}
    bad = {path: r for path, r in ratios.items() if not _LEAST <= r <= _MOST}
    if not bad:
        return
    worst = max(bad, key=lambda path: abs(np.log(max(bad[path], 1e-300))))
    message = (
        "The rescaled network does not carry its signal: the mean square of the "
        "pre-activations on the data should stay within 0.1 to 10 times that of the "
        f"dense model. Received: {len(bad)} of {len(ratios)} layers beyond, first "
        f"{next(iter(bad))!r}; at {worst!r} it is {after[worst]:.3g} beside "
        f"{before[worst]:.3g}. Gradient scores under ReLU cause this; take "
        "`target='data'`, or a mask of another criterion."
    )
    if on_explosion == "raise":
        raise RescaleError(message)
    warn(message, RescaleWarning)
