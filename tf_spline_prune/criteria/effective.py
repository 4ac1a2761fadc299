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
    rows = graph.rows(member)
    prefix, _, name = member.name.rpartition("/")
    norms = graph.path_of(group).norms.get(member.path, ())
    # Of a separable layer, the first half; bias and norms are behind the second.
    # Of a recurrent layer, the second kernel; the first one has the bias.
    inner = name in ("depthwise_kernel", "recurrent_kernel")
    offsets = _vector(graph, group, member.path, f"{prefix}/bias".lstrip("/"))
    if offsets is None or inner:
        offsets = np.zeros((len(rows), 1))
    scale = None
    for path in () if inner else norms:
        variance = _vector(graph, group, path, "moving_variance")
        mean = _vector(graph, group, path, "moving_mean")
        if variance is None or mean is None:
            continue
        given = _vector(graph, group, path, "gamma")
        beta = _vector(graph, group, path, "beta")
        scale = np.ones_like(variance) if given is None else given
        factor = scale / np.sqrt(variance + graph.layer(path).epsilon)
        # A unit may have several places, and a depthwise one several outputs.
        places = member.positions.shape[1]
        shape = (len(rows), places, 1, factor.shape[1] // places)
        blocks = rows.reshape(*shape[:2], -1, shape[3]) * factor.reshape(shape)
        rows = blocks.reshape(len(rows), -1)
        offsets = (0 if beta is None else beta) + factor * (offsets - mean)
    spread = 1.0
    if scale is not None:
        # Behind a BatchNormalization a unit varies by |scale|: by the length of
        # its weights times the spread of the input in their direction.
        unit_scale = np.abs(scale).mean(axis=1)
        length = np.linalg.norm(rows, axis=1)
        ratio = unit_scale[length > 0] / length[length > 0]
        spread = float(np.median(ratio)) if ratio.size and np.median(ratio) > 0 else 1.0
    return rows, offsets, spread


def _vector(
    graph: ChannelGraph, group: Group, path: str, name: str
) -> np.ndarray | None:
    """Read what a weight with one entry an output holds, shape `(units, m)`."""
    member = group.member(path, name)
    return None if member is None else graph.rows(member)
