from tf_spline_prune.partition.generative._densities import (
    entropy as entropy,
    log_density as log_density,
)
from tf_spline_prune.partition.generative._dropout_ranks import (
    dropout_ranks as dropout_ranks,
    full_rank_probability as full_rank_probability,
)
from tf_spline_prune.partition.generative._neighbour_angles import (
    neighbour_angles as neighbour_angles,
)
from tf_spline_prune.partition.generative._sampler import Sampler as Sampler
from tf_spline_prune.partition.generative._slopes import (
    disentanglement as disentanglement,
    log_volumes as log_volumes,
)
from tf_spline_prune.partition.generative._surface import Surface as Surface
