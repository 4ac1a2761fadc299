"""Pictures; matplotlib comes with the extra `viz`."""

from tf_spline_prune.visualize.early_bird import (
    plot_distance_curve,
    plot_distance_matrix,
)

__all__ = ["plot_distance_curve", "plot_distance_matrix"]
