from tf_spline_prune.compat._flavour import (
    activation_name as activation_name,
    check_plain as check_plain,
    flavour_of as flavour_of,
    is_layer as is_layer,
    keras_of as keras_of,
    keras_root as keras_root,
    kind_of as kind_of,
    require_flavour as require_flavour,
)
from tf_spline_prune.compat._progress import (
    Progress as Progress,
    Stages as Stages,
    say as say,
)
from tf_spline_prune.compat._weights import (
    CurrentWeights as CurrentWeights,
    HeldWeight as HeldWeight,
    check_finite as check_finite,
    coarsest_dtype as coarsest_dtype,
    held_weights as held_weights,
    read_weights as read_weights,
    weight_names as weight_names,
    weight_variables as weight_variables,
)
from tf_spline_prune.compat.autodiff._differentiation import (
    Gradients as Gradients,
    hessian_products as hessian_products,
    jacobians_of as jacobians_of,
    weight_gradients as weight_gradients,
)
from tf_spline_prune.compat.autodiff._gradients import (
    hand_on_loss as hand_on_loss,
    loss_hessian_products as loss_hessian_products,
    loss_of_outputs as loss_of_outputs,
    require_loss as require_loss,
    value_and_grad as value_and_grad,
)
from tf_spline_prune.compat.build._config import config_of as config_of
from tf_spline_prune.compat.build._copies import (
    assigned as assigned,
    can_overlay as can_overlay,
    copied as copied,
    model_around as model_around,
    overlaid as overlaid,
    require_layer as require_layer,
    with_dtype as with_dtype,
    with_plain_names as with_plain_names,
    with_scales as with_scales,
    with_weights as with_weights,
    without_calls as without_calls,
)
from tf_spline_prune.compat.build._model_class import (
    warn_of_lost_training as warn_of_lost_training,
)
from tf_spline_prune.compat.build._own_class import (
    NotMade as NotMade,
    Place as Place,
    SizeEntry as SizeEntry,
    is_own_class as is_own_class,
    size_entries as size_entries,
    sketch as sketch,
)
from tf_spline_prune.compat.build._parts import (
    parts_of as parts_of,
    working_layer as working_layer,
)
from tf_spline_prune.compat.build._rebuild import (
    rebuild as rebuild,
    rewire as rewire,
)
from tf_spline_prune.compat.build._same_graph import difference_of as difference_of
from tf_spline_prune.compat.data._calibration import (
    Calibration as Calibration,
    Watcher as Watcher,
    arranged as arranged,
    check_inputs as check_inputs,
    counted as counted,
)
from tf_spline_prune.compat.data._data_range import guesses as guesses, misfit as misfit
from tf_spline_prune.compat.data._model_inputs import sample_inputs as sample_inputs
from tf_spline_prune.compat.data._samples import random_inputs as random_inputs
from tf_spline_prune.compat.files._load_model import (
    check_saved_model as check_saved_model,
    load_model as load_model,
    model_format as model_format,
)
from tf_spline_prune.compat.files._model_files import nested_within as nested_within
from tf_spline_prune.compat.fit._callback import (
    Callback as Callback,
    SummaryWriter as SummaryWriter,
    batches_a_step as batches_a_step,
    learning_rate as learning_rate,
    mask_averages as mask_averages,
    optimizer_steps as optimizer_steps,
    save_model as save_model,
)
from tf_spline_prune.compat.fit._compile import (
    compile_alike as compile_alike,
    initializer_base as initializer_base,
    is_compiled as is_compiled,
    require_distillation as require_distillation,
    softmax_outputs as softmax_outputs,
    trainability_kept as trainability_kept,
)
from tf_spline_prune.compat.fit._distribution import Workers as Workers
from tf_spline_prune.compat.graph._blueprint import (
    Blueprint as Blueprint,
    Input as Input,
    Node as Node,
    Shape as Shape,
)
from tf_spline_prune.compat.graph._endings import (
    Ends as Ends,
    run_to_ends as run_to_ends,
)
from tf_spline_prune.compat.graph._graph import (
    Call as Call,
    Graph as Graph,
    Tensor as Tensor,
    Values as Values,
    fixed_size as fixed_size,
    run_calls as run_calls,
    with_sizes as with_sizes,
)
from tf_spline_prune.compat.graph._kernels import (
    KERNEL_KINDS as KERNEL_KINDS,
    Kernel as Kernel,
    array_of as array_of,
    blocks_of as blocks_of,
    kernel_of as kernel_of,
    kernels_of as kernels_of,
)
from tf_spline_prune.compat.graph._own_weights import (
    entries_that_count as entries_that_count,
    graphs_of_call as graphs_of_call,
    table_given as table_given,
)
from tf_spline_prune.compat.graph._trace import (
    is_its_graph as is_its_graph,
    tensorflow_operations as tensorflow_operations,
    trace as trace,
    trace_function as trace_function,
)
from tf_spline_prune.compat.graph._traced_macs import traced_macs as traced_macs
from tf_spline_prune.compat.run._execution import (
    array_cut as array_cut,
    call_layer as call_layer,
    call_tapped as call_tapped,
    compiled as compiled,
    in_batches as in_batches,
    on_kept as on_kept,
    own_outputs as own_outputs,
    plain_recurrence as plain_recurrence,
    predict as predict,
    run_eagerly as run_eagerly,
    to_numpy as to_numpy,
    widest_dtype as widest_dtype,
    with_mask as with_mask,
)
from tf_spline_prune.compat.run._inside import (
    arguments_inside as arguments_inside,
    depthwise_output as depthwise_output,
    sequence_and_states as sequence_and_states,
    states_before as states_before,
    without_scale as without_scale,
)
from tf_spline_prune.compat.run._passes import (
    Passes as Passes,
    as_numbers as as_numbers,
    fitting_batch as fitting_batch,
    numpy_of as numpy_of,
    watch as watch,
)
from tf_spline_prune.compat.run._states import (
    changed_at_inference as changed_at_inference,
    same_randomness as same_randomness,
    states_kept as states_kept,
    streams_kept as streams_kept,
    values_kept as values_kept,
)
from tf_spline_prune.compat.tfmot._mask_slots import (
    MaskConstraint as MaskConstraint,
    MaskSlot as MaskSlot,
    mask_slots as mask_slots,
    zeroed as zeroed,
)
from tf_spline_prune.compat.tfmot._tfmot import (
    drive as drive,
    import_tfmot as import_tfmot,
    loading_saved_model as loading_saved_model,
    register_class as register_class,
    restore_schedule as restore_schedule,
    take_over as take_over,
    wrap_with_tfmot as wrap_with_tfmot,
)
