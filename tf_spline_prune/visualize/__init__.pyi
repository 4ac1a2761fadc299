from tf_spline_prune.visualize._plot_distance_curve import (
    plot_distance_curve as plot_distance_curve,
    plot_distance_matrix as plot_distance_matrix,
)
from tf_spline_prune.visualize._plot_local_complexity import (
    plot_local_complexity as plot_local_complexity,
)
from tf_spline_prune.visualize._plot_plan import plot_plan as plot_plan
from tf_spline_prune.visualize._plot_redundancy import (
    plot_redundancy as plot_redundancy,
)
from tf_spline_prune.visualize._plot_sensitivity import (
    plot_sensitivity as plot_sensitivity,
)
from tf_spline_prune.visualize._plot_signal_propagation import (
    plot_signal_propagation as plot_signal_propagation,
)
from tf_spline_prune.visualize._plot_slice import (
    plot_slice as plot_slice,
    plot_slices as plot_slices,
)
from tf_spline_prune.visualize._plot_training_slices import (
    animate_slices as animate_slices,
    plot_training_slices as plot_training_slices,
)
