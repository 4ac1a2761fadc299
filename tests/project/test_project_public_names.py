"""Every public name stays: those that are promised, and those that there were.

Names are added here as they are added to the package; none is taken out.
"""

import importlib
import inspect

import pytest

import tf_spline_prune as tsp

# By room, "" is the package itself.
NAMES = {
    "": """
        ArchitectureEarlyBird ChannelGraph Cost ExportReport
        LocalComplexityLogger MaskEarlyBird MaskPruning MaskedLayer
        PartitionCoder PartitionCodes PruningPlan PruningSummaries Report
        ResidualBlock ResidualStream SanityReport Sensitivity
        SignalPropagationLogger Slice
        SliceRecorder SplineEarlyBird apply_masks callbacks check_criterion
        check_rule compose cost criteria datasets distill drop_blocks errors
        export_litert export_onnx export_saved_model generative graph
        initialization jacobian_rank least_squares litert load_weights
        local_affine local_complexity lossless max_regions merge
        partition_distance plan probes prune prune_at_init prune_hidden
        prune_in_rounds prune_once recalibrate_batchnorm refit_data_free
        register_rule remove_units report reporting residual_blocks
        residual_streams sanity_checks
        schedules sensitivity shrink slice2d strip_masks training_flops
        unit_distances update_masks verify visualize weight_sparsity
        wrap_with_masks write_serving_config
    """,
    "callbacks": """
        ArchitectureEarlyBird EarlyBird LocalComplexityLogger MaskEarlyBird
        MaskPruning PruningSummaries SignalPropagationLogger SliceRecorder
        SplineEarlyBird
    """,
    "cli": """
        main
    """,
    "criteria": """
        Activation AnyCriterion BatchNormScale ConnectionCriterion Connections
        Criterion FORCE FPGM Fisher GraSP LAMP Magnitude Normalizer
        PairCriterion Random Reconstruction Reduction SNIP Spline SynFlow Taylor
        UnitPairs UserFunction check_criterion get
    """,
    "datasets": """
        DatasetInfo OpticalDigits XQuadrants describe load
    """,
    "errors": """
        ArgumentError BackupWarning BlindVerificationWarning BudgetError
        CalibrationError CalibrationWarning CriterionError DataRangeWarning
        DatasetError ExportError FlavourError InitializationWarning
        LearningRateDropWarning ModelError NothingPrunedWarning PlanError
        ProbeError RegionLimitError RescaleError RescaleWarning RuleError
        SliceWarning SmoothActivationWarning SparsityError SparsityWarning
        SplinePruneWarning UnreadActivationWarning UsageError VerificationError
    """,
    "export": """
        ExportReport export_litert export_onnx export_saved_model
        write_serving_config
    """,
    "graph": """
        Barrier Call ChannelGraph Cost Group Meeting Member Recorder TensorAxes
        UnitPath WeightFact channel_axis cost norm_axis per_unit positions
        register_rule
    """,
    "initialization": """
        DataAware EdgeOfChaos EdgePoint MeanField SignalPropagation
        approximate_isometry connection_scores controls critical_sparsity
        edge_of_chaos exact_orthogonal magnitude_critical_sparsity prune_at_init
        rescale signal_propagation stable_residual transfer_masks
    """,
    "litert": """
        Quantize Runner SIGNATURE Servable attach convert interleaved_latencies
        read_attachments
    """,
    "masking": """
        MaskedLayer apply_masks load_weights prune_once shrink strip_masks
        update_masks weight_sparsity wrap_with_masks
    """,
    "partition": """
        PartitionCoder PartitionCodes Slice jacobian_rank local_affine
        local_complexity max_regions partition_distance slice2d unit_distances
    """,
    "partition.generative": """
        Sampler Surface disentanglement dropout_ranks entropy
        full_rank_probability log_density log_volumes neighbour_angles
    """,
    "partition.probes": """
        minibatch mix noise plane
    """,
    "pruning": """
        PruningPlan ResidualBlock ResidualStream SanityReport Sensitivity check_rule
        compose distill drop_blocks least_squares lossless merge plan prune
        prune_hidden prune_in_rounds recalibrate_batchnorm refit_data_free
        remove_units residual_blocks residual_streams sanity_checks sensitivity
        verify
    """,
    "reporting": """
        Report report training_flops
    """,
    "schedules": """
        ConstantSparsity Cyclic EarlyBirdSparsity Exponential OneShot
        PolynomialDecay Schedule Timed evaluate final_sparsity fires_within
    """,
    "visualize": """
        animate_slices plot_distance_curve plot_distance_matrix
        plot_local_complexity plot_plan plot_redundancy plot_sensitivity
        plot_signal_propagation plot_slice plot_slices plot_training_slices
    """,
}

# Further words of the public names: methods and attributes of classes.
PARTS = {
    "MaskedLayer": "from_config get_config",
    "PartitionCodes": "layers num_knots unpack",
    "PruningPlan": "apply from_dict load save summary to_dict",
    "Slice": "boundary num_regions regions",
    "SplineEarlyBird": "distance_matrix",
    "initialization.EdgeOfChaos": "apply_to",
}
ARGUMENTS = {
    "PartitionCoder": "model layers max_units_per_layer seed",
    "SplineEarlyBird": "probe threshold lookback mode stop filepath keep_history "
    "backup_dir",
    "criteria.Magnitude": "p",
    "criteria.Spline": "mode rho",
    "datasets.load": "name split batch_size",
    "export_litert": "quantize representative_data",
    "export_saved_model": "version",
    "initialization.EdgeOfChaos": "bias_std seed",
    "partition_distance": "per_layer",
    "plan": "model criterion sparsity target_macs target_params target_bytes "
    "target_latency scope layers data round_to min_units max_sparsity seed",
    "probes.plane": "a b n",
    "prune": "model criterion sparsity target_macs target_params target_bytes "
    "target_latency scope layers data round_to min_units max_sparsity seed "
    "recover weights verify",
    "prune_at_init": "model sparsity data loss rounds granularity",
    "schedules.OneShot": "target_sparsity step",
    "slice2d": "model anchors extent",
    "wrap_with_masks": "model layers",
}
CRITERIA = """
    activation batchnorm_scale fisher force fpgm grasp lamp magnitude random
    reconstruction snip spline synflow taylor
"""


def found(dotted):
    thing = tsp
    for part in dotted.split("."):
        thing = getattr(thing, part)
    return thing


@pytest.mark.parametrize("room", NAMES)
def test_every_name_of_a_room_is_there(room):
    module = importlib.import_module(f"tf_spline_prune.{room}".rstrip("."))
    names = NAMES[room].split()
    assert names == sorted(names)
    assert [name for name in names if not hasattr(module, name)] == []
    listed = getattr(module, "__all__", names)
    assert set(names) <= set(listed), set(names) - set(listed)
    assert sorted(set(listed)) == sorted(listed)
    assert set(listed) <= set(dir(module))


def test_every_part_of_a_name_is_there():
    for name, parts in PARTS.items():
        known = {*dir(found(name)), *getattr(found(name), "__annotations__", ())}
        assert set(parts.split()) <= known, name


def test_every_argument_is_there():
    for name, arguments in ARGUMENTS.items():
        known = inspect.signature(found(name)).parameters
        assert set(arguments.split()) <= known.keys(), name


def test_every_criterion_is_known_by_its_name():
    for name in CRITERIA.split():
        assert tsp.criteria.get(name).name == name
