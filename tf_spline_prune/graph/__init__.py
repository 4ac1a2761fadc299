"""The channel view of a network: units, groups, barriers, cost."""

from tf_spline_prune.compat import Call
from tf_spline_prune.graph._axes import (
    TensorAxes,
    channel_axis,
    norm_axis,
    positions,
)
from tf_spline_prune.graph._channel_graph import ChannelGraph
from tf_spline_prune.graph._cost import Cost, cost
from tf_spline_prune.graph._facts import Barrier, Group, Meeting, Member, WeightFact
from tf_spline_prune.graph._recorder import Recorder
from tf_spline_prune.graph._unit_path import UnitPath
from tf_spline_prune.graph.rules import per_unit, register_rule

__all__ = [
    "Barrier",
    "Call",
    "ChannelGraph",
    "Cost",
    "Group",
    "Meeting",
    "Member",
    "Recorder",
    "TensorAxes",
    "UnitPath",
    "WeightFact",
    "channel_axis",
    "cost",
    "norm_axis",
    "per_unit",
    "positions",
    "register_rule",
]
