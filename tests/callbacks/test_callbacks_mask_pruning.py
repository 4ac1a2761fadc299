"""Masks while training: when they change, to what, and that they hold."""

import pathlib
import sys

import keras
import numpy as np
import pytest
import zoo

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "masking"))
from masked_nets import X, compiled, fit, kernel, mlp, shared, zeros  # noqa: E402

import tf_spline_prune as tsp  # noqa: E402
from tf_spline_prune.compat import mask_slots  # noqa: E402

LAYERS = ("first", "second", "head")


def masked_mlp(K, **kwargs):
    return compiled(K, tsp.wrap_with_masks(zoo.mlp(K)), **kwargs)


def shot(sparsity=0.5, step=0):
    return tsp.schedules.OneShot(sparsity, step=step)


def ramp(final=0.8, end=8, frequency=1):
    return tsp.schedules.PolynomialDecay(0.0, final, 0, end, frequency=frequency)


def recorder(K, read):
    """A callback that keeps what `read(model)` says after each batch."""

    class Record(K.callbacks.Callback):
        def __init__(self):
            super().__init__()
            self.seen = []

        def on_train_batch_end(self, batch, logs=None):
            self.seen.append(read(self.model))

    return Record()


def optimizers(K):
    momentum = {"momentum": 0.9, "nesterov": True}
    return {
        "sgd": lambda: K.optimizers.SGD(0.1, **momentum),
        "adam": lambda: K.optimizers.Adam(0.05),
        "adamw": lambda: K.optimizers.AdamW(0.05, weight_decay=0.1),
        "average": lambda: K.optimizers.Adam(
            0.05, use_ema=True, ema_overwrite_frequency=3
        ),
        "average_at_end": lambda: K.optimizers.Adam(0.05, use_ema=True),
    }


@pytest.mark.both_flavours
@pytest.mark.parametrize(
    "name, jit",
    [
        ("sgd", False),
        ("adam", True),
        ("adamw", False),
        ("average", False),
        ("average_at_end", True),
    ],
)
def test_T7_removed_entries_are_zero_after_every_step(K, name, jit):
    model = masked_mlp(K, optimizer=optimizers(K)[name](), jit_compile=jit)
    pruning = tsp.MaskPruning(ramp())
    after = recorder(
        K,
        lambda m: [
            bool((slot.read()[~slot.keep()] == 0).all()) for slot in mask_slots(m)
        ],
    )
    shares = recorder(K, lambda m: np.mean([zeros(m, layer) for layer in LAYERS]))
    fit(model, [after, pruning, shares], epochs=4)
    assert len(after.seen) == 16 and all(all(step) for step in after.seen)
    assert shares.seen == sorted(shares.seen) and shares.seen[-1] > 0.79
    for layer in LAYERS:
        size = kernel(model, layer).size
        assert zeros(model, layer) == round(0.8 * size) / size


@pytest.mark.both_flavours
def test_M4_the_sparsity_follows_the_schedule_step_by_step(K):
    model = masked_mlp(K)
    shares = recorder(K, lambda m: int((kernel(m, "first") == 0).sum()))
    fit(model, [tsp.MaskPruning(ramp(0.8, 8, frequency=2)), shares], epochs=3)
    at = [0.8 * (1 - (1 - min(s // 2 * 2, 8) / 8) ** 3) for s in range(1, 13)]
    assert shares.seen == [round(384 * share) for share in at]


def test_M1_the_largest_stay(K):
    model = masked_mlp(K)
    before = np.abs(kernel(model, "first"))
    fit(model, [tsp.MaskPruning(shot(0.5, 0))], epochs=1)
    kept = mask_slots(model)[0].keep()
    assert kept.sum() == kept.size // 2
    assert before[kept].min() >= before[~kept].max()


def test_M7_nothing_pruned_is_plain_training(K):
    plain = mlp(K)
    model = tsp.wrap_with_masks(plain)
    fit(plain)
    fit(model, [tsp.MaskPruning(shot(0.0, 1))])
    np.testing.assert_array_equal(np.asarray(model(X)), np.asarray(plain(X)))


def test_M9_one_ranking_for_all_layers(K):
    model = masked_mlp(K)
    fit(model, [tsp.MaskPruning(shot(0.7, 4), scope="global")])
    found = tsp.weight_sparsity(model)
    size = sum(kernel(model, layer).size for layer in LAYERS)
    assert found["total"] == round(0.7 * size) / size
    assert len({round(share, 3) for share in found.values()}) > 2


def test_M9_each_layer_its_schedule(K):
    model = masked_mlp(K)
    schedules = {"first": shot(0.25, 2), "sec.*": shot(0.5, 3)}
    fit(model, [tsp.MaskPruning(schedules)])
    assert [zeros(model, layer) for layer in LAYERS] == [0.25, 0.5, 0.0]


def test_some_layers_only(K):
    model = masked_mlp(K)
    fit(model, [tsp.MaskPruning(shot(), layers=["first"])])
    assert [zeros(model, layer) for layer in LAYERS] == [0.5, 0.0, 0.0]


@pytest.mark.parametrize("granularity", [(4, 1), "2:4"])
def test_M5_M6_blocks_and_patterns(K, granularity):
    model = masked_mlp(K)
    fit(model, [tsp.MaskPruning(shot(0.5, 2), granularity=granularity)])
    for layer in LAYERS:
        array = kernel(model, layer)
        fours = (array.T.reshape(-1, 4) == 0).sum(axis=1)
        allowed = {2} if granularity == "2:4" else {0, 4}
        assert set(fours) == allowed and zeros(model, layer) == 0.5


def test_22_the_pattern_comes_by_the_schedule(K):
    """A pattern knows its schedule: half of 2:4 is half of the groups."""
    model = masked_mlp(K)
    schedules = tsp.schedules.PolynomialDecay(0.0, 0.5, 0, 6, power=1, frequency=3)
    shares = recorder(K, lambda m: zeros(m, "first"))
    fit(model, [tsp.MaskPruning(schedules, granularity="2:4"), shares])
    assert shares.seen == [0, 0, 0.25, 0.25, 0.25, 0.5, 0.5, 0.5]


def test_T3_steps_are_updates_of_the_optimizer(K):
    model = compiled(K, tsp.wrap_with_masks(shared(K)), steps_per_execution=2)
    shares = recorder(K, lambda m: zeros(m, "same"))
    fit(model, [tsp.MaskPruning(shot(0.5, 5)), shares], epochs=3)
    # Batches end in pairs: step 5 lies in the third pair.
    assert shares.seen == [0, 0, 0.5, 0.5, 0.5, 0.5]


def test_T3_gradients_that_are_only_accumulated_are_no_steps():
    optimizer = keras.optimizers.SGD(0.1, gradient_accumulation_steps=3)
    model = masked_mlp(keras, optimizer=optimizer)
    shares = recorder(keras, lambda m: zeros(m, "first"))
    fit(model, [tsp.MaskPruning(shot(0.5, 2)), shares], epochs=2)
    assert shares.seen == [0, 0, 0, 0, 0, 0.5, 0.5, 0.5]


def test_a_schedule_that_is_over_costs_no_look_at_the_steps(K, monkeypatch):
    looks = []

    def count(model):
        looks.append(1)
        return tsp.compat.optimizer_steps(model)

    monkeypatch.setattr(
        "tf_spline_prune.callbacks._mask_pruning.optimizer_steps", count
    )
    model = masked_mlp(K)
    fit(model, [tsp.MaskPruning(shot(0.5, 2))], epochs=1)  # 4 batches
    few = len(looks)
    fit(model, [tsp.MaskPruning(shot(0.5, 2))], epochs=11)
    assert few >= 4 and len(looks) < few + 3 * 11
    assert abs(tsp.weight_sparsity(model)["total"] - 0.5) < 0.005


def test_steps_that_are_set_back_are_seen_in_the_next_epoch(K):
    class SetBack(K.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 2:
                self.model.optimizer.iterations.assign(0)
                slot = mask_slots(self.model)[0]
                slot.assign(np.ones(slot.mask.shape, bool))

    model = masked_mlp(K)
    shares = recorder(K, lambda m: zeros(m, "first"))
    fit(model, [SetBack(), tsp.MaskPruning(shot(0.5, 3)), shares], epochs=3)
    assert shares.seen == [0, 0] + [0.5] * 6 + [0, 0, 0.5, 0.5]


@pytest.mark.both_flavours
def test_T5_training_goes_on_where_it_stopped(K, tmp_path):
    model = masked_mlp(K)
    schedule = ramp(0.8, 12)
    fit(model, [tsp.MaskPruning(schedule, below_target="ignore")], epochs=2)
    halfway = tsp.weight_sparsity(model)["total"]
    model.save(tmp_path / "half.keras")
    if K is keras:
        again = K.models.load_model(tmp_path / "half.keras")
    else:
        with tsp.compat.import_tfmot().sparsity.keras.prune_scope():
            again = K.models.load_model(tmp_path / "half.keras")
    assert tsp.weight_sparsity(again)["total"] == halfway
    shares = recorder(K, lambda m: tsp.weight_sparsity(m)["total"])
    fit(again, [tsp.MaskPruning(schedule), shares], epochs=2)
    assert shares.seen[0] > halfway and shares.seen == sorted(shares.seen)
    assert abs(shares.seen[-1] - 0.8) < 0.005
    # Past the end, and under a schedule that asks for less, nothing comes back.
    fit(again, [tsp.MaskPruning(schedule)], epochs=1)
    fit(again, [tsp.MaskPruning(tsp.schedules.ConstantSparsity(0.1, 0, frequency=1))])
    assert tsp.weight_sparsity(again)["total"] == shares.seen[-1]


def test_T7_checkpoints_of_single_batches_are_sparse(K, tmp_path):
    model = masked_mlp(K)
    file = str(tmp_path / "{epoch}-{batch}.weights.h5")
    save = K.callbacks.ModelCheckpoint(file, save_weights_only=True, save_freq=1)
    fit(model, [save, tsp.MaskPruning(shot(0.5, 0))], epochs=1)
    files = sorted(tmp_path.iterdir())
    assert len(files) == 4
    for one in files:
        other = tsp.wrap_with_masks(zoo.mlp(K))
        other.load_weights(str(one))
        assert zeros(other, "first") == 0.5


def test_T7_an_exception_in_the_middle_of_an_epoch(K):
    class Stop(K.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 2:
                raise KeyboardInterrupt

    model = masked_mlp(K)
    with pytest.raises(KeyboardInterrupt):
        fit(model, [tsp.MaskPruning(shot(0.5, 1)), Stop()])
    for slot in mask_slots(model):
        assert (slot.read()[~slot.keep()] == 0).all()
    assert tsp.weight_sparsity(tsp.strip_masks(model))["first/kernel"] == 0.5


@pytest.mark.both_flavours
def test_T8_best_weights_restored_below_the_target(K):
    class Worse(K.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            logs["worse"] = float(epoch)

    def stop():
        best = {"mode": "min", "restore_best_weights": True}
        return K.callbacks.EarlyStopping("worse", patience=1, **best)

    def callbacks(**kwargs):
        pruning = tsp.MaskPruning(ramp(0.8, 30), **kwargs)
        return [pruning, Worse(), stop()] if late else [Worse(), stop(), pruning]

    late = False
    with pytest.warns(tsp.errors.SparsityWarning, match="start_from_epoch"):
        fit(masked_mlp(K), callbacks(), epochs=5)
    with pytest.raises(tsp.errors.SparsityError, match="was to reach 80"):
        fit(masked_mlp(K), callbacks(below_target="raise"), epochs=5)
    fit(masked_mlp(K), callbacks(below_target="ignore"), epochs=5)
    late = True  # the weights are restored after our callback has looked
    model = masked_mlp(K)
    with pytest.warns(tsp.errors.SparsityWarning):
        fit(model, callbacks(), epochs=5)
        tsp.strip_masks(model)


def test_S7_a_schedule_that_never_fires_is_said_at_the_start(K):
    late = tsp.schedules.OneShot(0.5, step=100)
    with pytest.warns(tsp.errors.SparsityWarning, match="never fires"):
        fit(masked_mlp(K), [tsp.MaskPruning(late, below_target="ignore")])
    # Step 0 counts here; TFMOT never sees it.
    model = masked_mlp(K)
    rare = tsp.schedules.ConstantSparsity(0.5, 0, frequency=100)
    fit(model, [tsp.MaskPruning(rare)])
    assert zeros(model, "first") == 0.5


def test_percents_of_optimizer_steps_where_gradients_are_accumulated():
    optimizer = keras.optimizers.SGD(0.1, gradient_accumulation_steps=2)
    model = masked_mlp(keras, optimizer=optimizer)
    half = tsp.schedules.Timed(shot(0.5, 50), "percent")
    shares = recorder(keras, lambda m: zeros(m, "head"))
    fit(model, [tsp.MaskPruning(half), shares], epochs=4)  # 8 steps in 16 batches
    assert shares.seen == [0] * 7 + [0.5] * 9


def test_schedules_in_epochs_and_percent(K):
    model = masked_mlp(K)
    epochs = tsp.schedules.Timed(shot(0.5, 2), "epochs")
    fit(
        model,
        [tsp.MaskPruning(epochs), log := recorder(K, lambda m: zeros(m, "head"))],
        epochs=4,
    )
    assert log.seen == [0] * 7 + [0.5] * 9
    model = masked_mlp(K)
    percent = tsp.schedules.Timed(shot(0.5, 50), "percent")
    fit(
        model,
        [tsp.MaskPruning(percent), log := recorder(K, lambda m: zeros(m, "head"))],
        epochs=3,
    )
    assert log.seen == [0] * 5 + [0.5] * 7


def test_S6_a_schedule_of_ones_own_with_python_state(K):
    class Mine(type(ramp()).__mro__[1]):
        sparsity = 0.2

        def __call__(self, step):
            return True, self.sparsity

        def get_config(self):
            return {"class_name": "Mine", "config": {}}

    mine = Mine()
    model = masked_mlp(K)
    fit(model, [tsp.MaskPruning(mine)], epochs=1)
    low = zeros(model, "second")
    mine.sparsity = 0.6
    fit(model, [tsp.MaskPruning(mine)], epochs=1)
    assert (low, zeros(model, "second")) == (
        round(768 * 0.2) / 768,
        round(768 * 0.6) / 768,
    )


def test_an_early_bird_starts_the_ramp(K):
    bird = tsp.SplineEarlyBird(X, threshold=0.99, lookback=1, stop=False)
    schedule = tsp.schedules.EarlyBirdSparsity(bird, 0.6, ramp_steps=4, frequency=2)
    model = masked_mlp(K)
    log = recorder(K, lambda m: zeros(m, "second"))
    fit(model, [bird, tsp.MaskPruning(schedule), log], epochs=5)
    found = (bird.ticket_epoch + 1) * 4
    assert not any(log.seen[:found])
    assert log.seen[found + 4] == log.seen[-1] == round(768 * 0.6) / 768
    assert 0 == log.seen[found + 1] < log.seen[found + 2] < log.seen[-1]


@pytest.mark.both_flavours
def test_backup_and_restore_goes_on_with_the_same_masks(K, tmp_path):
    class Crash(K.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 2:
                raise RuntimeError("crash")

    def run(*more):
        model = masked_mlp(K, optimizer=K.optimizers.SGD(0.05))
        back = [K.callbacks.BackupAndRestore(str(tmp_path / "backup"))] if more else []
        fit(model, [*back, tsp.MaskPruning(ramp(0.8, 14)), *more], epochs=4)
        return model

    with pytest.raises(RuntimeError, match="crash"):
        run(Crash())
    resumed, undisturbed = run(K.callbacks.Callback()), run()
    for one, other in zip(mask_slots(resumed), mask_slots(undisturbed), strict=True):
        np.testing.assert_array_equal(one.keep(), other.keep())
        np.testing.assert_array_equal(one.read(), other.read())


def test_the_sparsity_is_in_the_logs(K):
    model = masked_mlp(K)
    history = fit(model, [tsp.MaskPruning(shot(0.5, 6))], epochs=3)
    assert history.history["sparsity"] == [0.0, 0.5, 0.5]


def test_T4_a_training_loop_of_ones_own():
    model = tsp.wrap_with_masks(zoo.mlp(keras))
    optimizer = keras.optimizers.Adam(0.01)
    import tensorflow as tf

    for step in range(6):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(model(X)))
        variables = model.trainable_variables
        optimizer.apply(tape.gradient(loss, variables), variables)
        if step == 2:
            tsp.update_masks(model, 0.5)
        if step >= 2:
            assert [zeros(model, layer) for layer in LAYERS] == [0.5] * 3
    model.set_weights([w + 1 if w.dtype != bool else w for w in model.get_weights()])
    tsp.apply_masks(model)
    assert zeros(model, "first") == 0.5


def test_a_model_that_tfmot_has_wrapped():
    """Existing pipelines: TFMOT's own wrappers, with a schedule of their own."""
    import tf_keras

    sparsity = tsp.compat.import_tfmot().sparsity.keras
    model = zoo.mlp(tf_keras)
    theirs = sparsity.prune_low_magnitude(
        model, sparsity.ConstantSparsity(0.9, 0, frequency=1)
    )
    compiled(tf_keras, theirs)
    shares = recorder(tf_keras, lambda m: zeros(m, "first"))
    fit(theirs, [tsp.MaskPruning(shot(0.5, 2)), shares])
    assert shares.seen == [0] + [0.5] * 7
    plain = sparsity.strip_pruning(theirs)
    assert (plain.layers[0].get_weights()[0] == 0).mean() == 0.5
    assert tsp.weight_sparsity(tsp.strip_masks(theirs))["first/kernel"] == 0.5


def test_tfmot_has_wrapped_layers_without_weights():
    """Those, and layers that take no part, train on without `UpdatePruningStep`."""
    import tf_keras

    sparsity = tsp.compat.import_tfmot().sparsity.keras
    L = tf_keras.layers
    inner = [L.Input((12,)), L.Reshape((12, 1)), L.Flatten(), L.Dense(12, name="first")]
    layers = [tf_keras.Sequential(inner), L.Dense(5, name="second")]
    model = tf_keras.Sequential([L.Input((12,)), *layers])
    theirs = sparsity.prune_low_magnitude(model, sparsity.ConstantSparsity(0.9, 0))
    compiled(tf_keras, theirs)
    fit(theirs, [tsp.MaskPruning(shot(0.5, 2), layers="first")])
    assert [zeros(theirs, name) for name in ("first", "second")] == [0.5, 0]
    plain = sparsity.strip_pruning(theirs)
    assert tsp.weight_sparsity(plain)["second/kernel"] == 0


def test_tfmots_wrappers_call_their_layer_and_nothing_else(tmp_path):
    """Training and inference are the layers' own; alone TFMOT refuses, as ever."""
    import tensorflow as tf
    import tf_keras

    sparsity = tsp.compat.import_tfmot().sparsity.keras
    L = tf_keras.layers
    layers = [L.Dense(12), L.BatchNormalization(), L.Dropout(0.5), L.Dense(5)]
    model = tf_keras.Sequential([L.Input((12,)), *layers])
    theirs = sparsity.prune_low_magnitude(model, sparsity.ConstantSparsity(0.9, 0))
    compiled(tf_keras, theirs)
    fit(theirs, [tsp.MaskPruning(shot(0.5, 2))])
    assert {int(wrapper.pruning_step) for wrapper in theirs.layers} == {-1}
    assert np.any(layers[1].moving_mean != 0)
    outputs = theirs.predict(X, verbose=0)
    np.testing.assert_array_equal(theirs.predict(X, verbose=0), outputs)
    np.testing.assert_array_equal(
        tsp.strip_masks(theirs).predict(X, verbose=0), outputs
    )
    assert np.any(theirs(X, training=True) != theirs(X, training=True))
    theirs.save(tmp_path / "theirs.keras")
    with sparsity.prune_scope():
        again = tf_keras.models.load_model(tmp_path / "theirs.keras")
    with pytest.raises(tf.errors.InvalidArgumentError, match="UpdatePruningStep"):
        fit(again, [])


def test_W1_wrong_arguments(K):
    with pytest.raises(ValueError, match="pruning schedule"):
        tsp.MaskPruning(0.5)
    with pytest.raises(ValueError, match="below_target"):
        tsp.MaskPruning(shot(), below_target="shout")
    with pytest.raises(ValueError, match="scope"):
        tsp.MaskPruning({"first": shot()}, scope="global")
    with pytest.raises(ValueError, match="empty"):
        tsp.MaskPruning({})
    with pytest.raises(tsp.errors.ModelError, match="no masks"):
        fit(mlp(K), [tsp.MaskPruning(shot())])
    wrong = {
        "scope": "nowhere",
        "granularity": "5:4",
        "criterion": "spline",
        "layers": "nobody",
    }
    for name, value in wrong.items():
        model = masked_mlp(K)
        before = model.get_weights()
        with pytest.raises(ValueError):
            fit(model, [tsp.MaskPruning(shot(), **{name: value})])
        for one, other in zip(before, model.get_weights(), strict=True):
            np.testing.assert_array_equal(one, other)
    with pytest.raises(ValueError, match="nobody"):
        fit(masked_mlp(K), [tsp.MaskPruning({"nobody": shot()})])


def test_an_optimizer_that_makes_no_step(K):
    class Idle(K.Model):
        def train_step(self, data):
            return {"loss": 0.0}

    masked = tsp.wrap_with_masks(zoo.mlp(K))
    model = compiled(K, Idle(masked.inputs, masked.outputs))
    with pytest.warns(tsp.errors.SparsityWarning, match="made no step"):
        fit(model, [tsp.MaskPruning(shot(0.5, step=2))], epochs=1)
