"""What masks say: never set, short of the end, and names that come from TFMOT."""

import pathlib
import sys

import pytest
import zoo

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "masking"))
from masked_nets import compiled, fit  # noqa: E402

import tf_spline_prune as tsp  # noqa: E402

S = tsp.schedules
SparsityWarning = tsp.errors.SparsityWarning
TFMOT = tsp.compat.import_tfmot().sparsity.keras


def masked_mlp(K):
    return compiled(K, tsp.wrap_with_masks(zoo.mlp(K)))


def test_training_without_the_callback_is_said(K):
    model = masked_mlp(K)
    fit(model, epochs=1)
    with pytest.warns(SparsityWarning, match="remove nothing.*tsp.MaskPruning"):
        plain = tsp.strip_masks(model)
    assert tsp.weight_sparsity(plain)["total"] == 0


def test_tfmots_callback_left_in_is_said():
    import tf_keras

    model = masked_mlp(tf_keras)
    fit(model, [TFMOT.UpdatePruningStep()], epochs=1)
    with pytest.warns(SparsityWarning, match="`UpdatePruningStep` does nothing here"):
        tsp.strip_masks(model)


def test_shrinking_what_was_never_masked_is_said(K):
    with pytest.warns() as seen:  # and that nothing goes
        tsp.shrink(masked_mlp(K))
    assert any(w.category is SparsityWarning for w in seen)


def test_a_training_that_was_masked_says_nothing(K):
    model = masked_mlp(K)
    fit(model, [tsp.MaskPruning(S.OneShot(0.5, 1))], epochs=1)
    tsp.strip_masks(model)


def test_an_end_on_which_no_firing_falls_by_the_default_frequency(K):
    """0.5 + 0.3 (1 - (1 - 100 / 170)^3) = 0.779 at step 100, the last firing."""
    model = masked_mlp(K)
    pruning = tsp.MaskPruning(S.PolynomialDecay(0.5, 0.8, 0, 170))
    said = []

    class Listen(K.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            said.append(len(seen))

    with pytest.warns(SparsityWarning) as seen:
        fit(model, [pruning, Listen()], epochs=11, batch_size=4)
    assert said[0] == 1  # before the first step
    start, end = (str(one.message) for one in seen)
    cause = r"`end_step=170`: it fires every `frequency=100` steps"
    for message in (start, end):
        assert cause in message and "`frequency=85`" in message
        assert "restored" not in message and "too early" not in message
    assert start.startswith("The masks will end at 77.9%, and not at 80.0%")
    with pytest.warns(SparsityWarning, match=cause):
        tsp.strip_masks(model)


def test_a_training_too_short_for_the_schedule_says_so(K):
    pruning = tsp.MaskPruning(S.PolynomialDecay(0.0, 0.8, 0, 100, frequency=4))
    with pytest.warns(SparsityWarning, match="The training ends at step 12") as seen:
        model = masked_mlp(K)
        fit(model, [pruning], epochs=3)
    assert len(seen) == 1  # at the end only, for another `fit` may follow
    decay = S.PolynomialDecay(0.0, 0.8, 0, 20, frequency=4)
    fit(model, [tsp.MaskPruning(decay)], epochs=2)


@pytest.mark.parametrize("end, every", [(12, 5), (8, 8), (11, 100)])
def test_our_own_schedules_too(end, every):
    import keras

    pruning = tsp.MaskPruning(S.Exponential(0.8, 0, end, 0.1, frequency=every))
    if end % every == 0:
        fit(masked_mlp(keras), [pruning], epochs=3)
        return
    with pytest.warns(SparsityWarning, match=f"`frequency={every}` steps"):
        fit(masked_mlp(keras), [pruning], epochs=3)


@pytest.mark.parametrize("granularity, share", [("2:4", 0.5), ((16, 3), 0.3)])
def test_weights_that_are_too_small_for_what_goes_at_once(K, granularity, share):
    """A pattern fits twice into ten inputs, and two are left: 8 of 20 may go."""
    inputs = K.Input((12,))
    x = K.layers.Dense(10, name="first")(inputs)
    model = K.Model(inputs, K.layers.Dense(5, name="head")(x))
    model = compiled(K, tsp.wrap_with_masks(model, layers="head"))
    pruning = tsp.MaskPruning(S.OneShot(share, 1), granularity=granularity)
    cause = "The schedule came to its end, and granularity="
    with pytest.warns(SparsityWarning, match=cause) as seen:
        fit(model, [pruning], epochs=1)
    assert "Training ended" not in str(seen[0].message)
    with pytest.warns(SparsityWarning, match=cause):
        tsp.strip_masks(model)


def test_a_schedule_that_falls_is_told_that_masks_only_grow(K):
    model = masked_mlp(K)
    fall = S.PolynomialDecay(0.8, 0.5, 0, 8, frequency=4)
    with pytest.warns(SparsityWarning, match="falls from 80.0% to 50.0%. Masks only"):
        fit(model, [tsp.MaskPruning(fall)], epochs=3)
    assert tsp.weight_sparsity(model)["total"] == pytest.approx(0.8, abs=0.01)


@pytest.mark.parametrize("granularity", ["weight", "unit"])
def test_a_share_that_is_not_one_weight_or_unit(K, granularity):
    why = "because 0.03% of so few (weights|units) is not one"
    with pytest.warns(tsp.errors.NothingPrunedWarning, match=why):
        once = tsp.prune_once(zoo.mlp(K), 3e-4, granularity=granularity)
    with pytest.warns(SparsityWarning, match=why):
        tsp.strip_masks(once)
    model = masked_mlp(K)
    pruning = tsp.MaskPruning(S.OneShot(3e-4, 1), granularity=granularity)
    with pytest.warns(tsp.errors.SplinePruneWarning, match=why):
        fit(model, [pruning], epochs=1)
    with pytest.warns(SparsityWarning, match=why):
        tsp.strip_masks(model)


def only_outputs(K):
    """A model of which no whole unit may go."""
    inputs = K.Input((12,))
    return K.Model(inputs, K.layers.Dense(5, name="head")(inputs))


def test_units_of_which_none_may_go(K):
    why = "because no units may be masked: head: they are the model's output"
    with pytest.warns(tsp.errors.NothingPrunedWarning, match=why):
        tsp.prune_once(only_outputs(K), 0.5, granularity="unit")
    model = compiled(K, tsp.wrap_with_masks(only_outputs(K)))
    pruning = tsp.MaskPruning(
        S.OneShot(0.5, 1), granularity="unit", below_target="raise"
    )
    said = pytest.warns(tsp.errors.NothingPrunedWarning, match=f"will be.*{why}")
    with said, pytest.raises(tsp.errors.SparsityError, match=why):
        fit(model, [pruning], epochs=1)
    with pytest.warns(SparsityWarning, match=why):
        tsp.strip_masks(model)


def test_units_short_of_the_target_are_said(K):
    """Of whole units nothing was said, nor raised."""

    def pruning(end, **settings):
        decay = S.PolynomialDecay(0.0, 0.5, 0, end, frequency=4)
        return tsp.MaskPruning(decay, granularity="unit", **settings)

    with pytest.warns(SparsityWarning, match="still there: .*The training ends at"):
        fit(masked_mlp(K), [pruning(100)], epochs=2)
    with pytest.raises(tsp.errors.SparsityError, match="still there: .*reach 50.0%"):
        fit(masked_mlp(K), [pruning(100, below_target="raise")], epochs=2)
    fit(masked_mlp(K), [pruning(100, below_target="ignore")], epochs=2)
    model = masked_mlp(K)
    fit(model, [pruning(8)], epochs=2)
    assert [d.units for d in tsp.shrink(model).layers if hasattr(d, "units")][0] == 16


def test_units_that_came_back_are_said(K):
    stopping = K.callbacks.EarlyStopping(
        "loss", mode="max", patience=1, restore_best_weights=True
    )
    model = masked_mlp(K)
    pruning = tsp.MaskPruning(S.OneShot(0.5, 6), granularity="unit")
    back = r"remove 0.0% of the weights, and removed .*Older weights were restored"
    with pytest.warns(SparsityWarning, match=back):
        fit(model, [stopping, pruning], epochs=4)
    with pytest.warns(SparsityWarning, match=back):
        tsp.strip_masks(model)


def test_units_of_some_layers_by_schedules_of_their_own(K):
    """The end of the training was a KeyError."""
    model = masked_mlp(K)
    fit(model, [tsp.MaskPruning({"first": S.OneShot(0.5, 1)}, granularity="unit")])
    assert [d.units for d in tsp.shrink(model).layers if hasattr(d, "units")][:2] == [
        16,
        24,
    ]


def test_a_share_of_units_out_of_reach_is_refused_before_the_first_step(K):
    model = masked_mlp(K)
    before = model.get_weights()
    pruning = tsp.MaskPruning(S.OneShot(0.99, 3), granularity="unit")
    with pytest.raises(tsp.errors.BudgetError):
        fit(model, [pruning])
    for one, other in zip(before, model.get_weights(), strict=True):
        assert (one == other).all()


def test_below_target_ignore_says_nothing_at_the_start(K):
    decay = S.PolynomialDecay(0.5, 0.8, 0, 7)
    fit(masked_mlp(K), [tsp.MaskPruning(decay, below_target="ignore")])


def test_the_order_of_tfmot(K):
    model, schedule = zoo.mlp(K), S.OneShot(0.5, 1)
    with pytest.raises(TypeError, match=r"tsp.MaskPruning\(schedule\).*Received"):
        tsp.wrap_with_masks(model, schedule)
    with pytest.raises(TypeError, match=r"tsp.MaskPruning\(schedule\)"):
        tsp.prune_once(model, 0.5, layers=TFMOT.ConstantSparsity(0.5, 0))
    with pytest.raises(TypeError, match=r"`schedule`.*`tsp.MaskPruning`.*Received"):
        tsp.wrap_with_masks(model, pruning_schedule=schedule)
    with pytest.raises(TypeError, match="`granularity`.*Received"):
        tsp.wrap_with_masks(model, block_size=(4, 1))


def test_the_arguments_of_the_callback():
    with pytest.raises(TypeError, match="`schedule`, the first argument"):
        tsp.MaskPruning(pruning_schedule=S.OneShot(0.5, 1))
    with pytest.raises(TypeError, match="`pooling`"):
        tsp.MaskPruning(S.OneShot(0.5, 1), block_pooling_type="MAX")
    for number in (0.8, {"first": 0.8}):
        with pytest.raises(ValueError, match=r"ConstantSparsity\(0.8, begin_step=0\)"):
            tsp.MaskPruning(number)


@pytest.mark.parametrize(
    "theirs, ours",
    [
        ("prune_low_magnitude", "wrap_with_masks"),
        ("strip_pruning", "strip_masks"),
        ("UpdatePruningStep", "MaskPruning"),
        ("PolynomialDecay", "schedules.PolynomialDecay"),
    ],
)
def test_names_of_tfmot_name_their_successors(theirs, ours):
    with pytest.raises(AttributeError, match=f"{theirs}.*tsp.{ours}"):
        getattr(tsp, theirs)
    assert not hasattr(tsp, theirs)
