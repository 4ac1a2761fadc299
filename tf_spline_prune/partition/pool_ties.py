"""The knots of a max-pool: where two positions of a window tie."""

import itertools
from typing import Any

import keras

from tf_spline_prune.compat import Call


def pool_ties(call: Call, tensor: Any, pooled: Any) -> list[Any]:
    """Tell for every position of every window whether it attains the maximum.

    Args:
        call: A call of a `MaxPooling` or `GlobalMaxPooling` layer.
        tensor: Its input, of shape `(n, *spatial, channels)` or, with
            `channels_first`, `(n, channels, *spatial)`.
        pooled: Its output.

    Returns:
        One boolean tensor of the shape of `pooled` a window position; for a
        global pool a single one of the shape of `tensor`. Where several positions
        tie, all of them are true.
    """
    if "pool_size" not in call.layer.get_config():
        axes = _spatial_axes(call, tensor)
        return [tensor >= keras.ops.max(tensor, axis=axes, keepdims=True)]
    return [seen >= pooled for seen in pool_windows(call, tensor, pooled)]


def pool_windows(call: Call, tensor: Any, pooled: Any) -> list[Any]:
    """Give what each position of a pooling window sees.

    Args:
        call: A call of a `MaxPooling` or `GlobalMaxPooling` layer.
        tensor: Its input.
        pooled: Its output.

    Returns:
        One tensor a window position, of the shape of `pooled` where axes of size
        one are left out; minus infinity where the position is outside.
    """
    config = call.layer.get_config()
    axes = _spatial_axes(call, tensor)
    rank = len(axes)
    if "pool_size" in config:
        window = _tuple(config["pool_size"], rank)
        stride = _tuple(config["strides"], rank)
        sizes = [int(pooled.shape[axis]) for axis in axes]
    else:
        window = tuple(int(tensor.shape[axis]) for axis in axes)
        stride, sizes = (1,) * rank, [1] * rank
    if config.get("padding") == "same":
        pads = [(0, 0)] * len(tensor.shape)
        for axis, size, w, s in zip(axes, sizes, window, stride, strict=True):
            total = max((size - 1) * s + w - int(tensor.shape[axis]), 0)
            pads[axis] = (total // 2, total - total // 2)
        tensor = keras.ops.pad(tensor, pads, constant_values=float("-inf"))
    seen = []
    for offset in itertools.product(*map(range, window)):
        index: list[slice] = [slice(None)] * len(tensor.shape)
        for axis, start, size, s in zip(axes, offset, sizes, stride, strict=True):
            index[axis] = slice(start, start + (size - 1) * s + 1, s)
        seen.append(tensor[tuple(index)])
    return seen


def _spatial_axes(call: Call, tensor: Any) -> tuple[int, ...]:
    first = 2 if call.layer.get_config().get("data_format") == "channels_first" else 1
    return tuple(range(first, first + len(tensor.shape) - 2))


def _tuple(value: Any, rank: int) -> tuple[int, ...]:
    return (value,) * rank if isinstance(value, int) else tuple(value)
