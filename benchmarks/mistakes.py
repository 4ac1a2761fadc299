"""The mistakes that `mutants.py` makes; each is seen by somebody who uses the package.

Texts are formulas rather than names, so that they stay when the code around them moves.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutant:
    """A mistake.

    Attributes:
        name: What it is called.
        wrong: What is wrong with it.
        file: The file that it is made in.
        old: What is there, exactly once.
        new: What stands in its place.
        tests: The tests that ought to see it: files, or single tests.
        cases: Which of their cases, as pytest's `-k` takes them; the others take long.
    """

    name: str
    wrong: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]
    cases: str = ""

    @property
    def package(self) -> str:
        """The package that the mistake is made in."""
        return self.file.partition("/")[0]


def _of(room: str, *tests: str) -> tuple[str, ...]:
    """Name tests of a room in full."""
    return tuple(f"tests/{room}/test_{room}_{test}" for test in tests)


MUTANTS = (
    # compat: what touches Keras
    Mutant(
        "depthwise counted as full",
        "A depthwise convolution in a user's layer costs as a full one.",
        "tf_spline_prune/compat/graph/_traced_macs.py",
        "return _size(op.outputs[0]) * math.prod(_sizes(op.inputs[1])[:-2])",
        "return _size(op.outputs[0]) * math.prod(_sizes(op.inputs[1])[:-1])",
        _of(
            "graph",
            "cost.py::test_layer_without_a_rule_is_traced",
            "cost.py::test_operations_of_a_layer_without_a_rule",
        ),
    ),
    Mutant(
        "adapted statistics are lost",
        "New weights also throw away the mean and variance that `adapt` measured.",
        "tf_spline_prune/compat/build/_rebuild.py",
        "if held and (is_adapted(layer) or not fresh):",
        "if held and not fresh:",
        _of("faults", "preprocessing_layers.py::test_statistics_outlive_new_weights"),
    ),
    Mutant(
        "states are not restored",
        "What a stateful layer has seen stays changed after a look at the model.",
        "tf_spline_prune/compat/run/_states.py",
        "            write_values(variable, value)\n\n\n@contextlib.contextmanager",
        "            pass\n\n\n@contextlib.contextmanager",
        _of("faults", "states.py::test_verification_and_recovery_keep_states"),
        "LSTM",
    ),
    Mutant(
        "Hessian times ones",
        "The product of Hessian and vector forgets the vector.",
        "tf_spline_prune/compat/autodiff/_differentiation.py",
        "outer.gradient(gradients, held, vector, unconnected_gradients=zero)",
        "outer.gradient(gradients, held, unconnected_gradients=zero)",
        _of(
            "initialization",
            "scores.py::test_grasp_is_weight_times_hessian_times_gradient",
            "scores.py::test_grasp_on_a_quadratic",
        ),
    ),
    Mutant(
        "an operation reads any file",
        "The list of operations that do more than compute is not looked at.",
        "tf_spline_prune/compat/files/_pure_operations.py",
        "if family is None or name in _IMPURE_NAMES:",
        "if family is None:",
        _of(
            "faults",
            "code_in_files.py::test_a_graph_that_maps_a_file_is_refused",
            "code_in_files.py::test_a_graph_that_writes_a_file_is_refused",
        ),
    ),
    Mutant(
        "seed of drawn data ignored",
        "The inputs drawn from more data than are used are the same for all seeds.",
        "tf_spline_prune/compat/data/_calibration.py",
        "order = np.random.default_rng(seed)",
        "order = np.random.default_rng(0)",
        _of("compat", "calibration.py"),
    ),
    Mutant(
        "mask not applied after a step",
        "The optimizer's updates bring masked weights back.",
        "tf_spline_prune/compat/tfmot/_mask_slots.py",
        "return tf.math.multiply_no_nan(weight, keep)",
        "return weight",
        _of(
            "callbacks",
            "mask_pruning.py::test_T7_removed_entries_are_zero_after_every_step",
        ),
        "sgd",
    ),
    # graph: who is coupled with whom, and what it costs
    Mutant(
        "biases of heads as int8",
        "A bias with two axes is counted with one byte per entry, as a kernel.",
        "tf_spline_prune/graph/_cost.py",
        "return 1 if len(graph.arrays.shapes(path)[name]) > 1 and not is_bias else 4",
        "return 1 if len(graph.arrays.shapes(path)[name]) > 1 else 4",
        (
            *_of("graph", "cost.py::test_bytes_follow_the_dtype"),
            *_of(
                "pruning", "budgets_more.py::test_biases_of_two_axes_and_whole_numbers"
            ),
        ),
    ),
    Mutant(
        "channels first flattened wrongly",
        "The units of a flattened tensor are taken in another order than Keras'.",
        "tf_spline_prune/graph/rules/_reshaping.py",
        "labels = np.moveaxis(labels, 0, -1)",
        "labels = np.moveaxis(labels, -1, 0)",
        _of("graph", "groups.py::test_flatten_of_channels_first"),
    ),
    Mutant(
        "one group is no group",
        "A GroupNormalization over all channels counts as one for each of them.",
        "tf_spline_prune/graph/rules/_normalization.py",
        "if groups in (-1, len(labels)):",
        "if groups in (-1, 1, len(labels)):",
        _of("graph", "barriers.py::test_a_normalisation_over_units_is_a_barrier"),
    ),
    Mutant(
        "root of the keys turned round",
        "Queries are scaled down, not up, where keys lose dimensions.",
        "tf_spline_prune/graph/rules/_attention.py",
        "recorder.rescale(call, name, keys, 0.5, optional=True)",
        "recorder.rescale(call, name, keys, -0.5, optional=True)",
        _of("graph", "sequence_rules.py::test_removal_equals_masking_by_hand"),
        "key_dim",
    ),
    Mutant(
        "steps begin at the first",
        "A slice with a step takes other units than before once some are gone.",
        "tf_spline_prune/graph/rules/_selecting.py",
        "bounds = (first + start % step, last, step)",
        "bounds = (first, last, step)",
        _of("graph", "selecting_rules.py::test_removal_equals_masking_by_hand"),
        "every_second or rotary_pairs_are",
    ),
    Mutant(
        "units of a step are free",
        "Every second unit of a slice may go without its neighbour.",
        "tf_spline_prune/graph/rules/_selecting.py",
        "recorder.tie(held[runs * step], held)",
        "recorder.tie(held, held)",
        _of("graph", "selecting_rules.py::test_removal_equals_masking_by_hand"),
        "every_second",
    ),
    # partition: the spline view
    Mutant(
        "half of the corners",
        "Knots are looked for on one side of each input only.",
        "tf_spline_prune/partition/codes/_local_complexity.py",
        "both = self._radius * np.concatenate([frame, -frame])",
        "both = self._radius * np.concatenate([frame, frame])",
        _of(
            "partition",
            "complexity.py::test_the_first_layer_is_a_matter_of_distances",
            "complexity.py::test_deeper_layers_are_counted_at_the_corners",
        ),
    ),
    Mutant(
        "distance by padded bits",
        "A distance counts the bits that only fill up a byte.",
        "tf_spline_prune/partition/codes/_partition_distance.py",
        "/ (codes.num_points * codes.num_knots[name])",
        "/ (8 * codes.packed[name].size)",
        _of(
            "partition",
            "distances.py::test_distance_is_the_mean_over_layers",
            "distances.py::test_opposite_codes_are_at_distance_one",
        ),
    ),
    Mutant(
        "upper knot forgotten",
        "ReLU with a `max_value` has one knot.",
        "tf_spline_prune/partition/codes/_knots.py",
        "return Knots(source, (bottom,) if top is None else (bottom, float(top)))",
        "return Knots(source, (bottom,))",
        _of("partition", "knots.py::test_activation_layers"),
    ),
    Mutant(
        "equal functions leave no cell",
        "Where two classes score alike on a whole region, the region is lost.",
        "tf_spline_prune/partition/slices/_polygons.py",
        "stays = (top > 0) | ((top == bottom) & (top == 0) & (own < other))",
        "stays = top > 0",
        _of(
            "partition",
            "slices.py::test_the_boundary_may_run_along_a_knot",
            "slice_decisions.py::test_the_class_of_every_part_is_that_of_the_outputs",
            "slice_decisions.py::test_of_classes_that_score_alike_the_first_wins",
        ),
    ),
    Mutant(
        "standard error of one draw",
        "The error of an entropy is the deviation, not divided by the root of draws.",
        "tf_spline_prune/partition/generative/_densities.py",
        "error = volumes.std(ddof=1) / np.sqrt(samples)",
        "error = volumes.std(ddof=1)",
        _of(
            "partition",
            "generative_densities.py::test_the_entropy_is_that_of_a_histogram",
        ),
    ),
    # criteria: scores
    Mutant(
        "moments about zero",
        "How units vary is measured about zero, and not about their means.",
        "tf_spline_prune/criteria/_reconstruction.py",
        "    rows = rows - mean.astype(rows.dtype)\n    found",
        "    found",
        _of(
            "criteria",
            "reconstruction.py::test_the_first_loss_is_the_unexplained_variance",
            "reconstruction.py::test_units_that_hardly_vary_about_a_large_mean",
        ),
    ),
    Mutant(
        "heads as if they were alone",
        "What the other heads make up for is not looked at.",
        "tf_spline_prune/criteria/_reconstruction.py",
        "np.trace(np.linalg.solve(inverse, products), axis1=1, axis2=2)",
        "np.trace(products, axis1=1, axis2=2)",
        _of("criteria", "attention.py::test_losses_of_heads_are_those_of_brute_force"),
    ),
    Mutant(
        "dimensions of a head summed before they are squared",
        "A head has the sum over its dimensions, and not their length as a vector.",
        "tf_spline_prune/criteria/_activation.py",
        "return np.asarray(np.square(mean).sum(axis=(0, 2, 3)))",
        "return np.asarray(np.square(mean.sum(axis=(2, 3))).sum(axis=0))",
        _of("criteria", "attention.py::test_activity_of_heads"),
    ),
    Mutant(
        "padding counts",
        "Least squares fits positions of padding, too.",
        "tf_spline_prune/pruning/recovery/_recording.py",
        "np.arange(total) if count is None else np.flatnonzero(count)",
        "np.arange(total)",
        _of("criteria", "attention.py::test_positions_of_padding_do_not_count"),
    ),
    Mutant(
        "what a softmax does not see",
        "What all keys have in common counts for the scores.",
        "tf_spline_prune/graph/_readings.py",
        "second = second - (second * wide).sum(axis=alone, keepdims=True) / total",
        "total = total",
        _of("criteria", "attention.py::test_sizes_of_keys_by_what_they_add_to_scores"),
    ),
    Mutant(
        "a short batch counts as a full one",
        "The examples of the last batch count for more than the others.",
        "tf_spline_prune/criteria/_connections.py",
        "total[path][name] += size / len(data) * array",
        "total[path][name] += batch_size / len(data) * array",
        _of(
            "initialization",
            "scores.py::test_snip_is_weight_times_gradient",
            "scores.py::test_grasp_is_weight_times_hessian_times_gradient",
        ),
    ),
    # pruning: plans, recovery, what is lossless, what is proven
    Mutant(
        "kept numbers rounded down",
        "With `round_to` more units go than were asked for.",
        "tf_spline_prune/pruning/planning/_allocation.py",
        "kept = -(-(self.sizes - counts) // self.round_to) * self.round_to",
        "kept = (self.sizes - counts) // self.round_to * self.round_to",
        _of(
            "pruning",
            "plan.py::test_bounds_are_kept",
            "plan.py::test_multiples_are_met_from_above",
        ),
    ),
    Mutant(
        "the worthier twin goes",
        "Of the closest pair the unit of larger weights is removed.",
        "tf_spline_prune/pruning/planning/_ranking.py",
        "pairs.worth[low] >= pairs.worth[high]",
        "pairs.worth[low] <= pairs.worth[high]",
        _of("pruning", "ranking.py::test_worth_decides_who_of_a_pair_goes"),
    ),
    Mutant(
        "padding on the other side",
        "Where a convolution pads by an odd number, its patches are off by one.",
        "tf_spline_prune/pruning/recovery/_linear_views.py",
        "before = max((-(-size // stride) - 1) * stride + reach - size, 0) // 2",
        "before = (max((-(-size // stride) - 1) * stride + reach - size, 0) + 1) // 2",
        _of("pruning", "linear_views.py::test_product_is_what_the_layer_computes"),
    ),
    Mutant(
        "logits are no probabilities",
        "A student learns by the divergence of the teacher's raw logits from its own.",
        "tf_spline_prune/pruning/recovery/_distill.py",
        "loss=keras.losses.KLDivergence()",
        'loss="kl_divergence"',
        _of("pruning", "distill.py::test_the_loss_is_the_divergence_of_probabilities"),
    ),
    Mutant(
        "variance about the first batch",
        "Recalibrated variances hold how far the mean is from the first batch's.",
        "tf_spline_prune/pruning/recovery/_recalibrate_batchnorm.py",
        "np.maximum(squares / count - mean**2, 0.0)",
        "np.maximum(squares / count, 0.0)",
        _of(
            "pruning",
            "batchnorm.py::test_statistics",
            "batchnorm.py::test_memory_and_batches_do_not_matter",
        ),
    ),
    Mutant(
        "bounds without padding",
        "The zeros around a padded convolution are not among its inputs.",
        "tf_spline_prune/pruning/without_loss/_bounds.py",
        '    if site.call.layer.padding != "valid":\n'
        "        value = value.with_zero()\n    depthwise",
        "    depthwise",
        _of(
            "pruning",
            "lossless.py::test_stably_inactive_units_need_a_box",
            "lossless.py::test_padding_is_an_input_too",
        ),
    ),
    Mutant(
        "epsilon forgotten",
        "The scale of BatchNormalization leaves out its epsilon.",
        "tf_spline_prune/graph/_unit_path.py",
        'np.sqrt(weights["moving_variance"] + layer.epsilon)',
        'np.sqrt(weights["moving_variance"])',
        _of(
            "pruning",
            "lossless.py::test_constants_reach_through_normalisation_and_flattening",
            "least_squares.py::test_the_norm_takes_the_intercept",
        ),
    ),
    Mutant(
        "spread over the wrong axis",
        "How much an output varies is measured along its units, not over inputs.",
        "tf_spline_prune/pruning/checks/_closeness.py",
        "np.ma.masked_invalid(output).var(axis=0)",
        "np.ma.masked_invalid(output).var(axis=-1)",
        _of(
            "faults",
            "verification_blind.py::test_a_large_constant_does_not_hide_what_moves",
            "false_alarms.py::test_rounding_is_no_spread",
        ),
    ),
    Mutant(
        "NaN passes verification",
        "A model that differs by NaN is handed over as verified.",
        "tf_spline_prune/pruning/checks/_verify.py",
        "if not verdict.excess <= 1:",
        "if verdict.excess > 1:",
        _of(
            "faults",
            "verification_blind.py::test_what_is_not_finite_is_compared_and_not_called_random",
        ),
    ),
    Mutant(
        "offsets behind a gap are forgotten",
        "The layer before dropped blocks is solved as if no normalisation moved it.",
        "tf_spline_prune/pruning/depth/_close_gaps.py",
        "target = target * gap.tail.unscaled - gap.tail.offset",
        "target = target * gap.tail.unscaled",
        _of(
            "pruning",
            "drop_blocks.py::test_layers_are_solved_before_the_gap_and_behind_it",
        ),
        "keras-1-batchnorm",
    ),
    Mutant(
        "a gain stays in a rotated stream",
        "What reads a stream in another basis does not take the gain over.",
        "tf_spline_prune/pruning/width/_rotation.py",
        "found = scale * back * norm.gain",
        "found = scale * back",
        _of(
            "pruning",
            "hidden.py::test_in_another_basis_the_model_computes_the_same",
            "hidden.py::test_normalisations_see_what_lies_along_the_principal_axes",
        ),
        "keras",
    ),
    Mutant(
        "epsilon of the wide stream",
        "Normalisations of a narrow stream keep the epsilon of the wide one.",
        "tf_spline_prune/pruning/width/_rotation.py",
        '{"epsilon": norm.epsilon * by}',
        '{"epsilon": norm.epsilon}',
        _of(
            "pruning",
            "hidden.py::test_normalisations_see_what_lies_along_the_principal_axes",
        ),
        "keras",
    ),
    # masking and schedules
    Mutant(
        "ragged blocks by their sum",
        "Blocks at the border, of fewer weights, score lower than others.",
        "tf_spline_prune/masking/_granularity.py",
        "pooled = pooled / counts",
        "pooled = pooled / counts.max()",
        _of(
            "masking",
            "patterns.py::test_m5_blocks",
            "patterns.py::test_m5_ragged_blocks_meet_the_target",
        ),
    ),
    Mutant(
        "the last beat is missed",
        "A range of steps that ends with a firing step is said to hold none.",
        "tf_spline_prune/schedules/_schedule.py",
        "return following <= last",
        "return following < last",
        _of(
            "schedules",
            "values.py::test_the_range_of_firing_steps_is_known",
            "firing.py",
        ),
    ),
    # initialization
    Mutant(
        "bias in the signal",
        "Layers are rescaled by what they give with their biases.",
        "tf_spline_prune/initialization/repair/_rescale.py",
        'np.square(sums - bias, dtype="float64")',
        'np.square(sums, dtype="float64")',
        _of("initialization", "rescaling.py::test_data_bring_the_dense_signal_back"),
    ),
    Mutant(
        "deviation for variance",
        "The fixed point of a ReLU net takes biases' deviation for their variance.",
        "tf_spline_prune/initialization/signal/_mean_field.py",
        "return bias_std**2 / (1 - factor)",
        "return bias_std / (1 - factor)",
        _of("faults", "wrong_calls.py::test_a_scaling_activation_sums_its_series"),
    ),
    Mutant(
        "seed of new weights ignored",
        "The weights of controls are the same for all seeds.",
        "tf_spline_prune/initialization/_controls.py",
        "np.random.SeedSequence([seed, 0])",
        "np.random.SeedSequence([0, 0])",
        _of("initialization", "controls.py::test_controls_keep_the_densities"),
    ),
    # callbacks
    Mutant(
        "one step too early",
        "Of the steps since the last look the newest is left out.",
        "tf_spline_prune/callbacks/_mask_pruning.py",
        "window = range(self._last + 1, now + 1)",
        "window = range(self._last, now)",
        _of(
            "callbacks",
            "mask_pruning.py::test_M4_the_sparsity_follows_the_schedule_step_by_step",
        ),
    ),
    Mutant(
        "an epoch remembered twice",
        "A resumed run keeps what the epoch that it repeats has left.",
        "tf_spline_prune/callbacks/_early_bird.py",
        "for later in [e for e in kept if e >= epoch]:",
        "for later in [e for e in kept if e > epoch]:",
        _of("callbacks", "resume.py::test_cut_off_between_the_two_saves"),
    ),
    # export, litert, reporting, cli
    Mutant(
        "NaN passes the comparison",
        "A written model that answers NaN counts as equal.",
        "tf_spline_prune/export/_comparison.py",
        "    if not worst <= tolerance:\n        if varies",
        "    if worst > tolerance:\n        if varies",
        _of("export", "models.py::test_answers_that_are_not_finite"),
    ),
    Mutant(
        "zero point forgotten",
        "Integers become floats without their zero point.",
        "tf_spline_prune/litert/_runner.py",
        'return (values.astype("float32") - zero) * np.float32(scale)',
        'return values.astype("float32") * np.float32(scale)',
        _of("export", "litert.py::test_integers_in_and_out"),
    ),
    Mutant(
        "two passes for three",
        "A training costs two forward passes by default.",
        "tf_spline_prune/reporting/_report.py",
        "epochs: float, factor: float = 3",
        "epochs: float, factor: float = 2",
        _of("reporting", "flops.py"),
    ),
    Mutant(
        "decisions over the wrong axis",
        "`compare` takes the largest over examples for the class of each example.",
        "tf_spline_prune/cli/_comparing_command.py",
        "a.argmax(-1) == b.argmax(-1)",
        "a.argmax(0) == b.argmax(0)",
        _of("cli", "commands.py::test_decisions_are_those_of_each_input"),
    ),
    # classes that say their sizes
    Mutant(
        "what hangs on a size is overlooked",
        "A class that divides by its size is taken for one that only has it.",
        "tf_spline_prune/graph/_stacks.py",
        "true = tuple(stack for stack in found.stacks if self._is_true(stack))",
        "true = found.stacks",
        _of(
            "pruning",
            "own_classes.py::test_a_task_stays_a_task_and_shares_its_preprocessor",
        ),
    ),
    Mutant(
        "forgotten arguments are forgotten",
        "What `get_config` leaves out has its default in the smaller block.",
        "tf_spline_prune/compat/build/_own_class.py",
        "config = completed(owner, config)",
        "config = dict(config)",
        _of(
            "pruning",
            "own_classes.py::test_what_a_config_cannot_say_comes_out_in_the_class_of_its_blocks",
        ),
    ),
    Mutant(
        "a step of one unit in every group",
        "Groups of a stack lose a unit each, however many units one step takes.",
        "tf_spline_prune/pruning/planning/_joint.py",
        "return np.asarray(counts[self._lane] * self._step)",
        "return np.asarray(counts[self._lane])",
        _of("pruning", "own_classes.py::test_steps_are_as_large_as_the_config_says"),
    ),
    # what all of them stand on
    Mutant(
        "scales begin at zero",
        "Images on a scale from -1 to 1 come as 0 to 2.",
        "tf_spline_prune/datasets/_load.py",
        "inputs = inputs * ((high - low) / dtype.max) + low",
        "inputs = inputs * ((high - low) / dtype.max)",
        (
            *_of("datasets", "loading.py::test_batches_of_digits"),
            *_of("faults", "data_range.py::test_data_sets_in_the_range_of_the_model"),
        ),
    ),
    Mutant(
        "the open end is closed",
        "A fraction that must be less than 1 may be 1.",
        "tf_spline_prune/_checks.py",
        'high = operator.le if self.closed in ("both", "right") else operator.lt',
        "high = operator.le",
        _of("project", "checks.py"),
    ),
    Mutant(
        "written in place",
        "A file is written where it will be, so that a failure destroys the old one.",
        "tf_spline_prune/_files.py",
        "temporary = folder / pathlib.Path(path).name",
        "temporary = target",
        _of("project", "files.py"),
    ),
)
