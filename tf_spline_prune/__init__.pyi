from tf_spline_prune import (
    callbacks as callbacks,
    criteria as criteria,
    datasets as datasets,
    errors as errors,
    graph as graph,
    initialization as initialization,
    litert as litert,
    reporting as reporting,
    schedules as schedules,
    visualize as visualize,
)
from tf_spline_prune.callbacks import (
    ArchitectureEarlyBird as ArchitectureEarlyBird,
    LocalComplexityLogger as LocalComplexityLogger,
    MaskEarlyBird as MaskEarlyBird,
    MaskPruning as MaskPruning,
    PruningSummaries as PruningSummaries,
    SignalPropagationLogger as SignalPropagationLogger,
    SliceRecorder as SliceRecorder,
    SplineEarlyBird as SplineEarlyBird,
)
from tf_spline_prune.criteria import check_criterion as check_criterion
from tf_spline_prune.export import (
    ExportReport as ExportReport,
    export_litert as export_litert,
    export_onnx as export_onnx,
    export_saved_model as export_saved_model,
    write_serving_config as write_serving_config,
)
from tf_spline_prune.graph import (
    ChannelGraph as ChannelGraph,
    Cost as Cost,
    cost as cost,
    register_rule as register_rule,
)
from tf_spline_prune.initialization import prune_at_init as prune_at_init
from tf_spline_prune.masking import (
    MaskedLayer as MaskedLayer,
    apply_masks as apply_masks,
    load_weights as load_weights,
    prune_once as prune_once,
    shrink as shrink,
    strip_masks as strip_masks,
    update_masks as update_masks,
    weight_sparsity as weight_sparsity,
    wrap_with_masks as wrap_with_masks,
)
from tf_spline_prune.partition import (
    PartitionCoder as PartitionCoder,
    PartitionCodes as PartitionCodes,
    Slice as Slice,
    generative as generative,
    jacobian_rank as jacobian_rank,
    local_affine as local_affine,
    local_complexity as local_complexity,
    max_regions as max_regions,
    partition_distance as partition_distance,
    probes as probes,
    slice2d as slice2d,
    unit_distances as unit_distances,
)
from tf_spline_prune.pruning import (
    PruningPlan as PruningPlan,
    ResidualBlock as ResidualBlock,
    ResidualStream as ResidualStream,
    SanityReport as SanityReport,
    Sensitivity as Sensitivity,
    check_rule as check_rule,
    compose as compose,
    distill as distill,
    drop_blocks as drop_blocks,
    least_squares as least_squares,
    lossless as lossless,
    merge as merge,
    plan as plan,
    prune as prune,
    prune_hidden as prune_hidden,
    prune_in_rounds as prune_in_rounds,
    recalibrate_batchnorm as recalibrate_batchnorm,
    refit_data_free as refit_data_free,
    remove_units as remove_units,
    residual_blocks as residual_blocks,
    residual_streams as residual_streams,
    sanity_checks as sanity_checks,
    sensitivity as sensitivity,
    verify as verify,
)
from tf_spline_prune.reporting import (
    Report as Report,
    report as report,
    training_flops as training_flops,
)

__version__: str
