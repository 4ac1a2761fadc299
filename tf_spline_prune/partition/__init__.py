"""The spline view of a network: codes, regions, distances, probes, slices."""

from tf_spline_prune.partition._local_affine import jacobian_rank, local_affine
from tf_spline_prune.partition.codes._local_complexity import local_complexity
from tf_spline_prune.partition.codes._max_regions import max_regions
from tf_spline_prune.partition.codes._partition_coder import PartitionCoder
from tf_spline_prune.partition.codes._partition_codes import PartitionCodes
from tf_spline_prune.partition.codes._partition_distance import (
    partition_distance,
    unit_distances,
)
from tf_spline_prune.partition.slices._slice import Slice
from tf_spline_prune.partition.slices._slice2d import slice2d

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
