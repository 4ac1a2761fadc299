from tf_spline_prune.callbacks._architecture_early_bird import (
    ArchitectureEarlyBird as ArchitectureEarlyBird,
)
from tf_spline_prune.callbacks._early_bird import EarlyBird as EarlyBird
from tf_spline_prune.callbacks._local_complexity_logger import (
    LocalComplexityLogger as LocalComplexityLogger,
)
from tf_spline_prune.callbacks._mask_early_bird import MaskEarlyBird as MaskEarlyBird
from tf_spline_prune.callbacks._mask_pruning import MaskPruning as MaskPruning
from tf_spline_prune.callbacks._pruning_summaries import (
    PruningSummaries as PruningSummaries,
)
from tf_spline_prune.callbacks._signal_propagation_logger import (
    SignalPropagationLogger as SignalPropagationLogger,
)
from tf_spline_prune.callbacks._slice_recorder import SliceRecorder as SliceRecorder
from tf_spline_prune.callbacks._spline_early_bird import (
    SplineEarlyBird as SplineEarlyBird,
)
