"""Pictures; matplotlib comes with the extra `viz`."""

from tf_spline_prune.visualize.complexity_curves import plot_local_complexity
from tf_spline_prune.visualize.early_bird import (
    plot_distance_curve,
    plot_distance_matrix,
)
from tf_spline_prune.visualize.layer_curves import plot_sensitivity
from tf_spline_prune.visualize.plan_map import plot_plan
from tf_spline_prune.visualize.redundancy import plot_redundancy
from tf_spline_prune.visualize.signal_curves import plot_signal_propagation
from tf_spline_prune.visualize.slices import plot_slice, plot_slices
from tf_spline_prune.visualize.training_slices import (
    animate_slices,
    plot_training_slices,
)

__all__ = [
    "animate_slices",
    "plot_distance_curve",
    "plot_distance_matrix",
    "plot_local_complexity",
    "plot_plan",
    "plot_redundancy",
    "plot_sensitivity",
    "plot_signal_propagation",
    "plot_slice",
    "plot_slices",
    "plot_training_slices",
]
