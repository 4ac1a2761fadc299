"""Effective weights: a layer with the BatchNormalizations behind it folded in."""

import numpy as np

from tf_spline_prune.graph import ChannelGraph, Group, Member


def effective_weights(
    graph: ChannelGraph, group: Group, member: Member
) -> tuple[np.ndarray, np.ndarray, float]:
    """Give the affine map that each unit applies before its activation.

    Args:
        graph: The channel graph.
        group: A group.
        member: A kernel that makes the group's units or filters them one by one.

    Returns:
        Weights of shape `(units, d)`; offsets of shape `(units, m)`, one an
        output channel of the unit; and the standard deviation of the layer's
        input along a unit's direction, as the statistics of the
        BatchNormalization tell it (1 where there is none).
    """
    arrays = graph.arrays[member.path]
    kernel = arrays[member.name].astype("float64")
    norms = graph.path_of(group).norms.get(member.path, ())
    if member.name == "depthwise_kernel":
        # The first half of a separable layer; the bias is behind the second.
        arrays, norms = {}, ()
    # A depthwise kernel ends in (channels, multiplier), any other in (units,).
    depthwise = member.axis == kernel.ndim - 2
    outputs = kernel.shape[-2:] if depthwise else kernel.shape[-1:]
    offset = arrays.get("bias", np.zeros(outputs)).astype("float64").reshape(outputs)
    scale = None
    for path in norms:
        stats = graph.arrays[path]
        variance = stats["moving_variance"].astype("float64")
        scale = stats.get("gamma", np.ones_like(variance)).astype("float64")
        factor = (scale / np.sqrt(variance + graph.layer(path).epsilon)).reshape(
            outputs
        )
        mean = stats["moving_mean"].astype("float64").reshape(outputs)
        beta = stats.get("beta", np.zeros_like(variance)).astype("float64")
        kernel = kernel * factor
        offset = beta.reshape(outputs) + factor * (offset - mean)
    rows = np.moveaxis(kernel, member.axis, 0)[member.positions]
    rows = rows.reshape(len(member.positions), -1)
    offsets = offset[member.positions].reshape(len(member.positions), -1)
    spread = 1.0
    if scale is not None:
        # Behind a BatchNormalization a unit varies by |scale|: by the length of
        # its weights times the spread of the input in their direction.
        unit_scale = np.abs(scale.reshape(outputs)[member.positions])
        unit_scale = unit_scale.reshape(len(rows), -1).mean(axis=1)
        length = np.linalg.norm(rows, axis=1)
        ratio = unit_scale[length > 0] / length[length > 0]
        spread = float(np.median(ratio)) if ratio.size and np.median(ratio) > 0 else 1.0
    return rows, offsets, spread
