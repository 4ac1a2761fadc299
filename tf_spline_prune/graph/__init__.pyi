from tf_spline_prune.compat import Call as Call
from tf_spline_prune.graph._channel_graph import ChannelGraph as ChannelGraph
from tf_spline_prune.graph._cost import Cost as Cost, cost as cost
from tf_spline_prune.graph._facts import (
    Barrier as Barrier,
    Group as Group,
    Meeting as Meeting,
    Member as Member,
    TensorAxes as TensorAxes,
    WeightFact as WeightFact,
    channel_axis as channel_axis,
    norm_axis as norm_axis,
    positions as positions,
)
from tf_spline_prune.graph._recorder import Recorder as Recorder
from tf_spline_prune.graph._unit_path import UnitPath as UnitPath
from tf_spline_prune.graph.rules import (
    per_unit as per_unit,
    register_rule as register_rule,
)
