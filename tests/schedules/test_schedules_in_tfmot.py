"""Our schedules inside TFMOT's wrappers: training, files, loading without a scope."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras

import tf_spline_prune as tsp
from tf_spline_prune.compat import import_tfmot, restore_schedule

schedules = tsp.schedules
kinds = import_tfmot().sparsity.keras

RNG = np.random.default_rng(0)
X = RNG.normal(0, 1, (64, 8)).astype("float32")
Y = X @ RNG.normal(0, 1, (8, 3)).astype("float32")
PER_EPOCH = 4


def wrapped(schedule, jit=False):
    tf_keras.utils.set_random_seed(0)
    model = tf_keras.Sequential(
        [
            tf_keras.Input((8,)),
            tf_keras.layers.Dense(10, "relu"),
            tf_keras.layers.Dense(3),
        ]
    )
    model = kinds.prune_low_magnitude(model, schedule)
    model.compile("sgd", "mse", jit_compile=jit)
    return model


class Sparsities(tf_keras.callbacks.Callback):
    """Notes the share of masked weights after each batch."""

    def __init__(self):
        super().__init__()
        self.seen = [None]

    def on_train_batch_end(self, batch, logs=None):
        mask = self.model.layers[0].pruning_vars[0][1].numpy()
        self.seen.append(1 - mask.mean())


def fit(model, callbacks=(), epochs=3, **kwargs):
    noted = Sparsities()
    model.fit(
        X,
        Y,
        batch_size=16,
        epochs=epochs,
        verbose=0,
        callbacks=[kinds.UpdatePruningStep(), *callbacks, noted],
        **kwargs,
    )
    return noted.seen


class Own(schedules.Schedule):
    """A schedule of the user's, made from ours."""

    def __init__(self, level):
        super().__init__()
        self.level = level

    def at(self, step):
        return step == 5, self.level

    def __call__(self, step):
        return tf.equal(tf.cast(step, tf.int64), 5), tf.constant(self.level)


def started(step):
    schedule = schedules.EarlyBirdSparsity(None, 0.75, 4, frequency=2)
    schedule.start(step)
    return schedule


SCHEDULES = {
    "one shot": lambda: schedules.OneShot(0.5, 5),
    "exponential": lambda: schedules.Exponential(0.75, 2, 10, frequency=4),
    "cyclic": lambda: schedules.Cyclic(0.75, 1, 9, 3),
    "bird": lambda: started(5),
    "bird not found": lambda: schedules.EarlyBirdSparsity(None, 0.75),
    "epochs": lambda: schedules.Timed(
        schedules.PolynomialDecay(0.0, 0.75, 1, 2, frequency=1), "epochs", PER_EPOCH
    ),
    "percent": lambda: schedules.Timed(started(50), "percent", PER_EPOCH, 3),
    "own": lambda: Own(0.5),
}
CASES = pytest.mark.parametrize("make", SCHEDULES.values(), ids=SCHEDULES)


def expected(schedule, steps):
    """What 8 x 10 weights without ties show after each step."""
    level, levels = 0.0, [None]
    for step in range(1, steps + 1):
        fires, sparsity = schedule.at(step)
        level = 1 - round(80 * (1 - sparsity)) / 80 if fires else level
        levels.append(level)
    return levels


@pytest.mark.parametrize(
    ("name", "jit"),
    [
        *((name, False) for name in ("exponential", "cyclic", "epochs", "own")),
        *((name, True) for name in ("one shot", "bird", "percent")),
    ],
)
def test_wrappers_follow_the_schedule(name, jit):
    schedule = SCHEDULES[name]()
    seen = fit(wrapped(schedule, jit))
    assert seen[1:] == pytest.approx(expected(schedule, 12)[1:], abs=1e-6)


class Bird(tsp.callbacks.EarlyBird):
    """Finds its early bird after a given epoch."""

    log_name = "distance"

    def __init__(self, epoch, **kwargs):
        super().__init__(1, False, None, False, kwargs.get("backup_dir"), 0)
        self.epoch = epoch
        self.now = -1

    def _snapshot(self):
        self.now += 1
        return np.zeros(1, np.uint8)

    def _distance(self, first, second):
        return float(self.now)

    def _value(self, recent):
        return recent[-1][0] if recent else np.nan

    def _settled(self, value):
        return value == self.epoch


@pytest.mark.parametrize("jit", [False, True], ids=["graph", "jit"])
def test_sparsity_rises_only_after_the_bird_is_found(jit):
    bird = Bird(epoch=1)
    schedule = schedules.EarlyBirdSparsity(bird, 0.75, 4, power=1, frequency=2)
    model = wrapped(schedule, jit)
    seen = fit(model, [bird], epochs=5)
    found = 2 * PER_EPOCH
    assert bird.ticket_step == found
    assert schedule.start_step == found + 1
    assert seen[1 : found + 2] == [0.0] * (found + 1)
    ramp = {found + 3: 0.375, found + 5: 0.75, 5 * PER_EPOCH: 0.75}
    for step, sparsity in ramp.items():
        assert seen[step] == pytest.approx(sparsity, abs=1e-6)


def test_it_is_no_weight_of_the_model():
    plain = wrapped(schedules.ConstantSparsity(0.5, 0))
    ours = wrapped(started(5))
    timed = wrapped(SCHEDULES["percent"]())
    assert len(ours.weights) == len(timed.weights) == len(plain.weights)
    assert len(ours.get_weights()) == len(plain.get_weights())
    assert len(ours.trainable_weights) == len(plain.trainable_weights)


@CASES
@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5")
def test_s5_s6_files_load_without_a_scope_of_their_own(make, tmp_path):
    model = wrapped(make())
    fit(model, epochs=1)
    for ending in (".h5", ".keras"):
        model.save(str(tmp_path / f"model{ending}"))
        with kinds.prune_scope():
            loaded = tf_keras.models.load_model(str(tmp_path / f"model{ending}"))
        schedule = loaded.layers[0].pruning_schedule
        assert schedule == make() and type(schedule) is type(make())
        for mine, theirs in zip(model.weights, loaded.weights, strict=True):
            np.testing.assert_array_equal(mine.numpy(), theirs.numpy())
    # Training goes on where it was.
    seen = fit(loaded, epochs=2)
    after = expected(schedule, 12)[PER_EPOCH + 1 :]
    assert seen[1:] == pytest.approx(after, abs=1e-6)


@pytest.mark.parametrize(
    "name", [pytest.param("one shot", marks=pytest.mark.slow), "bird", "percent"]
)
def test_saved_models_hold_the_state(name, tmp_path):
    model = wrapped(SCHEDULES[name]())
    fit(model, epochs=1)
    model.save(str(tmp_path / "keras"), save_format="tf")
    with kinds.prune_scope():
        loaded = tf_keras.models.load_model(str(tmp_path / "keras"))
    schedule = loaded.layers[0].pruning_schedule
    assert schedule == SCHEDULES[name]()
    assert fit(loaded, epochs=2)[1:] == pytest.approx(
        expected(schedule, 12)[PER_EPOCH + 1 :], abs=1e-6
    )
    tf.saved_model.save(model, str(tmp_path / "plain"))
    answer = tf.saved_model.load(str(tmp_path / "plain"))(X, training=False)
    np.testing.assert_allclose(answer, model.predict(X, 64, 0), rtol=1e-5, atol=1e-6)


def test_checkpoints_hold_the_state(tmp_path):
    model = wrapped(started(5))
    model.save_weights(str(tmp_path / "checkpoint"))
    fresh = schedules.EarlyBirdSparsity(None, 0.75, 4, frequency=2)
    wrapped(fresh).load_weights(str(tmp_path / "checkpoint")).expect_partial()
    assert fresh.start_step == 5


def test_s5_configs_round_trip():
    for make in SCHEDULES.values():
        schedule = make()
        kind = type(schedule)
        config = json.loads(json.dumps(schedule.get_config()))
        assert set(config) == {"class_name", "config"}
        copies = [kind.from_config(config["config"]), kind.from_config(config)]
        for copy in (*copies, restore_schedule(config)):
            assert copy == schedule and hash(copy) == hash(schedule)
            assert repr(copy) == repr(schedule)
        assert keras.saving.get_registered_object(config["class_name"]) is kind
        serialized = keras.saving.serialize_keras_object(schedule)
        assert keras.saving.deserialize_keras_object(serialized) == schedule


def test_s5_other_settings_are_not_equal():
    one = schedules.OneShot(0.5, 5)
    assert one != schedules.OneShot(0.5, 6)
    assert one != schedules.ConstantSparsity(0.5, 5)
    assert started(5) != started(6)
    timed, other = SCHEDULES["epochs"](), SCHEDULES["epochs"]()
    assert timed == other
    other.resolve(None, 7)
    assert timed != other


def test_s5_tfmots_own_and_custom_ones_go_into_a_clock():
    class Custom(kinds.ConstantSparsity):
        pass

    timed = schedules.Timed(Custom(0.5, 0), "epochs")
    with tf_keras.utils.custom_object_scope({"Custom": Custom}):
        copy = schedules.Timed.from_config(timed.get_config())
    assert type(copy.schedule) is Custom
    assert copy == timed


def test_an_unset_clock_stops_training_with_advice():
    timed = schedules.Timed(schedules.OneShot(0.5, 1), "epochs")
    model = wrapped(timed)
    model.predict(X, verbose=0)
    with pytest.raises(ValueError, match="steps_per_epoch.*resolve"):
        fit(model, epochs=1)
    timed.resolve(PER_EPOCH, 2)
    model.compile("sgd", "mse")
    assert fit(model, epochs=2)[-1] == pytest.approx(0.5)
