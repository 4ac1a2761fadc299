"""The one place that knows two Keras flavours and touches Keras internals.

Everything above works on what this package hands out: which flavour an object
belongs to, the graph of a model as a list of calls that can be run with any
meaning of "call", weights by name, rebuilt models, and callbacks that either
flavour's `fit` accepts. Asking costs no import of the other flavour.
"""

from tf_spline_prune.compat._flavour import (
    activation_name,
    flavour_of,
    keras_of,
    keras_root,
    require_flavour,
)
from tf_spline_prune.compat._kinds import check_plain, is_layer, kind_of
from tf_spline_prune.compat._progress import Progress, Stages, say
from tf_spline_prune.compat._weights import (
    CurrentWeights,
    HeldWeight,
    check_finite,
    coarsest_dtype,
    held_weights,
    read_weights,
    weight_names,
    weight_variables,
)
from tf_spline_prune.compat.autodiff._differentiation import (
    Gradients,
    hessian_products,
    weight_gradients,
)
from tf_spline_prune.compat.autodiff._gradients import (
    hand_on_loss,
    loss_hessian_products,
    require_loss,
    value_and_grad,
)
from tf_spline_prune.compat.autodiff._jacobians import jacobians_of
from tf_spline_prune.compat.build._copies import (
    assigned,
    can_overlay,
    copied,
    overlaid,
    with_dtype,
    with_plain_names,
    with_scales,
    with_weights,
)
from tf_spline_prune.compat.build._model_class import warn_of_lost_training
from tf_spline_prune.compat.build._parts import parts_of
from tf_spline_prune.compat.build._probe_model import probe_model, require_layer
from tf_spline_prune.compat.build._rebuild import config_of, rebuild, rewire
from tf_spline_prune.compat.data._calibration import Calibration, arranged, check_inputs
from tf_spline_prune.compat.data._data_range import guesses, misfit
from tf_spline_prune.compat.data._model_inputs import sample_inputs
from tf_spline_prune.compat.data._samples import random_inputs
from tf_spline_prune.compat.files._load_model import (
    check_saved_model,
    load_model,
    model_format,
)
from tf_spline_prune.compat.files._model_files import nested_within
from tf_spline_prune.compat.fit._callback import (
    Callback,
    batches_a_step,
    learning_rate,
    mask_averages,
    optimizer_steps,
    save_model,
)
from tf_spline_prune.compat.fit._compile import (
    compile_alike,
    initializer_base,
    is_compiled,
    require_distillation,
    softmax_outputs,
    trainability_kept,
)
from tf_spline_prune.compat.fit._distribution import Workers
from tf_spline_prune.compat.fit._summaries import SummaryWriter
from tf_spline_prune.compat.graph._blueprint import Input
from tf_spline_prune.compat.graph._endings import run_to_ends
from tf_spline_prune.compat.graph._functions import (
    tensorflow_operations,
    trace_function,
)
from tf_spline_prune.compat.graph._graph import (
    Call,
    Graph,
    Tensor,
    Values,
    fixed_size,
    run_calls,
    with_sizes,
)
from tf_spline_prune.compat.graph._trace import trace
from tf_spline_prune.compat.graph._traced_macs import traced_macs
from tf_spline_prune.compat.run._execution import (
    call_layer,
    call_tapped,
    compiled,
    in_batches,
    on_kept,
    own_outputs,
    plain_recurrence,
    predict,
    run_eagerly,
    to_numpy,
    widest_dtype,
    with_mask,
)
from tf_spline_prune.compat.run._passes import Passes, numpy_of
from tf_spline_prune.compat.run._states import (
    same_randomness,
    states_kept,
    streams_kept,
    values_kept,
)
from tf_spline_prune.compat.tfmot._mask_slots import (
    MaskConstraint,
    MaskSlot,
    mask_slots,
    zeroed,
)
from tf_spline_prune.compat.tfmot._tfmot import (
    drive,
    import_tfmot,
    loading_saved_model,
    register_class,
    restore_schedule,
    take_over,
    wrap_with_tfmot,
)

__all__ = [
    "Calibration",
    "Call",
    "Callback",
    "CurrentWeights",
    "HeldWeight",
    "Gradients",
    "Graph",
    "Input",
    "MaskConstraint",
    "MaskSlot",
    "Passes",
    "Progress",
    "Stages",
    "SummaryWriter",
    "Tensor",
    "Values",
    "Workers",
    "activation_name",
    "arranged",
    "assigned",
    "batches_a_step",
    "call_layer",
    "call_tapped",
    "can_overlay",
    "check_finite",
    "check_inputs",
    "check_plain",
    "check_saved_model",
    "coarsest_dtype",
    "compile_alike",
    "compiled",
    "config_of",
    "copied",
    "drive",
    "fixed_size",
    "flavour_of",
    "guesses",
    "hand_on_loss",
    "held_weights",
    "hessian_products",
    "import_tfmot",
    "initializer_base",
    "in_batches",
    "is_compiled",
    "is_layer",
    "jacobians_of",
    "keras_of",
    "keras_root",
    "kind_of",
    "learning_rate",
    "load_model",
    "loss_hessian_products",
    "loading_saved_model",
    "mask_averages",
    "mask_slots",
    "misfit",
    "model_format",
    "nested_within",
    "numpy_of",
    "on_kept",
    "optimizer_steps",
    "overlaid",
    "own_outputs",
    "parts_of",
    "plain_recurrence",
    "predict",
    "probe_model",
    "random_inputs",
    "read_weights",
    "rebuild",
    "register_class",
    "require_distillation",
    "require_flavour",
    "require_layer",
    "require_loss",
    "restore_schedule",
    "rewire",
    "run_calls",
    "run_eagerly",
    "run_to_ends",
    "same_randomness",
    "sample_inputs",
    "save_model",
    "say",
    "softmax_outputs",
    "states_kept",
    "streams_kept",
    "take_over",
    "tensorflow_operations",
    "to_numpy",
    "trace",
    "trace_function",
    "traced_macs",
    "trainability_kept",
    "value_and_grad",
    "values_kept",
    "warn_of_lost_training",
    "weight_gradients",
    "weight_names",
    "weight_variables",
    "widest_dtype",
    "with_dtype",
    "with_mask",
    "with_plain_names",
    "with_scales",
    "with_sizes",
    "with_weights",
    "wrap_with_tfmot",
    "zeroed",
]
