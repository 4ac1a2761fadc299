"""The channel view of a network: units, groups, barriers, cost."""

from tf_spline_prune.graph.channel_graph import ChannelGraph
from tf_spline_prune.graph.costing import Cost, cost
from tf_spline_prune.graph.facts import Barrier, Group, Member, WeightFact
from tf_spline_prune.graph.unit_path import UnitPath

__all__ = [
    "Barrier",
    "ChannelGraph",
    "Cost",
    "Group",
    "Member",
    "UnitPath",
    "WeightFact",
    "cost",
]
