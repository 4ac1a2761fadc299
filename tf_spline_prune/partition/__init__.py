"""The spline view of a network: codes, regions, distances, probes."""

from tf_spline_prune.partition.coder import PartitionCoder
from tf_spline_prune.partition.codes import PartitionCodes
from tf_spline_prune.partition.distances import partition_distance, unit_distances

__all__ = ["PartitionCoder", "PartitionCodes", "partition_distance", "unit_distances"]
