from tf_spline_prune.partition._local_affine import (
    jacobian_rank as jacobian_rank,
    local_affine as local_affine,
)
from tf_spline_prune.partition.codes._local_complexity import (
    local_complexity as local_complexity,
)
from tf_spline_prune.partition.codes._max_regions import max_regions as max_regions
from tf_spline_prune.partition.codes._partition_coder import (
    PartitionCoder as PartitionCoder,
)
from tf_spline_prune.partition.codes._partition_codes import (
    PartitionCodes as PartitionCodes,
)
from tf_spline_prune.partition.codes._partition_distance import (
    partition_distance as partition_distance,
    unit_distances as unit_distances,
)
from tf_spline_prune.partition.slices._slice import Slice as Slice
from tf_spline_prune.partition.slices._slice2d import slice2d as slice2d
