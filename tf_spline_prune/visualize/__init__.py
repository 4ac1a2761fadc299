"""Pictures; matplotlib comes with the extra `viz`."""

from tf_spline_prune.visualize._plot_distance_curve import (
    plot_distance_curve,
    plot_distance_matrix,
)
from tf_spline_prune.visualize._plot_local_complexity import plot_local_complexity
from tf_spline_prune.visualize._plot_plan import plot_plan
from tf_spline_prune.visualize._plot_redundancy import plot_redundancy
from tf_spline_prune.visualize._plot_sensitivity import plot_sensitivity
from tf_spline_prune.visualize._plot_signal_propagation import plot_signal_propagation
from tf_spline_prune.visualize._plot_slice import plot_slice, plot_slices
from tf_spline_prune.visualize._plot_training_slices import (
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
