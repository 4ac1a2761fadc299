"""The spline view of a network: codes, regions, distances, probes, slices."""

from tf_spline_prune.partition.coder import PartitionCoder
from tf_spline_prune.partition.codes import PartitionCodes
from tf_spline_prune.partition.distances import partition_distance, unit_distances
from tf_spline_prune.partition.polygon_slice import Slice
from tf_spline_prune.partition.slicing import check_limits, slice2d

__all__ = [
    "PartitionCoder",
    "PartitionCodes",
    "Slice",
    "check_limits",
    "partition_distance",
    "slice2d",
    "unit_distances",
]
