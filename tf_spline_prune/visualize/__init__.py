"""Pictures; matplotlib comes with the extra `viz`."""

from tf_spline_prune.visualize.early_bird import (
    plot_distance_curve,
    plot_distance_matrix,
)
from tf_spline_prune.visualize.layer_curves import plot_sensitivity
from tf_spline_prune.visualize.signal_curves import plot_signal_propagation

__all__ = [
    "plot_distance_curve",
    "plot_distance_matrix",
    "plot_sensitivity",
    "plot_signal_propagation",
]
