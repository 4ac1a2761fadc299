"""The spline view of a network: codes, regions, distances, probes, slices."""

from tf_spline_prune.partition.coder import PartitionCoder
from tf_spline_prune.partition.codes import PartitionCodes
from tf_spline_prune.partition.complexity import local_complexity
from tf_spline_prune.partition.distances import partition_distance, unit_distances
from tf_spline_prune.partition.local_maps import jacobian_rank, local_affine
from tf_spline_prune.partition.polygon_slice import Slice
from tf_spline_prune.partition.region_bounds import max_regions
from tf_spline_prune.partition.slicing import slice2d

__all__ = [
    "PartitionCoder",
    "PartitionCodes",
    "Slice",
    "jacobian_rank",
    "local_affine",
    "local_complexity",
    "partition_distance",
    "max_regions",
    "slice2d",
    "unit_distances",
]
