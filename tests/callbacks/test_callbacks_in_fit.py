"""Early birds in the `fit` of both flavours."""

import csv

import numpy as np
import pytest
import tensorflow as tf
import training
from training import PROBE, Recorder, brute_distance, compiled, fit, network, ready

import tf_spline_prune as tsp
from tf_spline_prune.errors import LearningRateDropWarning


# Keras hands its variables to h5py, which asks NumPy for no copy of them.
def check_records(bird, recorder, epochs):
    """Compare all distances with brute force on the recorded weights."""
    for epoch in range(1, epochs):
        expected = [
            brute_distance(recorder.codes[epoch], recorder.codes[epoch - lag])
            for lag in range(1, min(bird.lookback, epoch) + 1)
        ]
        assert bird.records[epoch] == pytest.approx(
            expected, abs=2 * training.TOLERANCE
        )
    assert max(bird.records[1]) > 0


def unbuilt(K):
    K.utils.set_random_seed(0)

    class Net(K.Model):
        def __init__(self):
            super().__init__()
            self.one = K.layers.Dense(12, activation="relu", name="one")
            self.two = K.layers.Dense(8, activation="relu", name="two")
            self.head = K.layers.Dense(2, name="head")

        def call(self, x):
            return self.head(self.two(self.one(x)))

    return Net()


@pytest.mark.both_flavours
@pytest.mark.parametrize("how", ["plain", "steps", "jit", "unbuilt", "tf_data"])
def test_in_fit(K, how):
    model = compiled(
        K,
        unbuilt(K) if how == "unbuilt" else network(K),
        **{
            "steps": {"steps_per_execution": 2},
            "jit": {"jit_compile": True},
        }.get(how, {}),
    )
    bird, recorder = tsp.SplineEarlyBird(PROBE, stop=False), Recorder()
    if how == "tf_data":
        data = tf.data.Dataset.from_tensor_slices((training.X, training.Y)).batch(16)
        history = model.fit(
            data, epochs=6, verbose=0, shuffle=False, callbacks=[bird, recorder]
        )
    else:
        history = fit(model, [bird, recorder])
    check_records(bird, recorder, 6)
    logged = history.history["spline_distance"]
    assert len(logged) == 6
    assert np.isnan(logged[:3]).all()
    assert logged[3:] == [max(bird.records[e]) for e in (3, 4, 5)]


def test_subclassed_unbuilt_model_with_a_bad_probe(K):
    """Its shape is known after the first epoch only, but not later."""
    model = compiled(K, unbuilt(K))
    with pytest.raises(ValueError, match="does not fit"):
        fit(model, [tsp.SplineEarlyBird(PROBE[:, :3])])


@pytest.mark.parametrize("stop", [True, False])
def test_stop(K, stop):
    bird = tsp.SplineEarlyBird(PROBE, threshold=0.99, lookback=2, stop=stop)
    history = fit(ready(K), [bird]).history
    assert bird.ticket_epoch == 2
    assert len(history["loss"]) == (3 if stop else 6)


def test_no_hit(K):
    bird = tsp.SplineEarlyBird(PROBE, threshold=1e-9)
    history = fit(ready(K, rate=0.5), [bird]).history
    assert bird.ticket_epoch is None
    assert len(history["loss"]) == 6


def test_csv_logger_has_the_column_filled(K, tmp_path):
    bird = tsp.SplineEarlyBird(PROBE, stop=False, lookback=2)
    path = tmp_path / "log.csv"
    history = fit(ready(K), [bird, K.callbacks.CSVLogger(str(path))]).history
    with path.open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 6
    logged = [float(row["spline_distance"]) for row in rows]
    np.testing.assert_allclose(logged, history["spline_distance"], rtol=1e-6)
    assert np.isfinite(logged[2:]).all()


def test_early_stopping_can_watch_the_distance(K):
    bird = tsp.SplineEarlyBird(PROBE, stop=False, lookback=1)
    watch = K.callbacks.EarlyStopping("spline_distance", mode="min", baseline=-1.0)
    watch.patience = 2
    history = fit(ready(K), [bird, watch]).history
    assert len(history["spline_distance"]) < 6


@pytest.mark.both_flavours
def test_all_three_at_once(K):
    model = K.Sequential(
        [
            K.Input((6,)),
            K.layers.Dense(12),
            K.layers.BatchNormalization(),
            K.layers.ReLU(),
            K.layers.Dense(2),
        ]
    )
    birds = [
        tsp.SplineEarlyBird(PROBE, stop=False),
        tsp.MaskEarlyBird(0.5, stop=False),
        tsp.ArchitectureEarlyBird(0.5, stop=False),
    ]
    history = fit(compiled(K, model), birds, epochs=7).history
    nans = {"spline_distance": 3, "mask_distance": 3, "architecture_similarity": 5}
    for name, count in nans.items():
        logged = history[name]
        assert len(logged) == 7
        assert np.isnan(logged[:count]).all()
        assert np.isfinite(logged[count:]).all()


@pytest.mark.both_flavours
def test_a_callback_can_be_used_again(K):
    bird = tsp.SplineEarlyBird(PROBE, threshold=0.99, lookback=2)
    fit(ready(K), [bird])
    first = dict(bird.records)
    fit(ready(K), [bird])
    assert bird.ticket_epoch == 2
    assert bird.records == first
    # Also with another model.
    model = compiled(K, K.Sequential([K.Input((6,)), K.layers.Dense(3, "relu")]))
    fit(model, [bird])
    assert bird.ticket_epoch == 2
    assert bird.coder.layers == (model.layers[0].name,)


# Tickets.


@pytest.mark.both_flavours
def test_ticket_of_the_model(K, tmp_path):
    path = tmp_path / "ticket.keras"
    bird = tsp.SplineEarlyBird(
        PROBE, threshold=0.99, lookback=2, filepath=path, stop=False
    )
    recorder = Recorder()
    model = ready(K)
    fit(model, [bird, recorder])
    loaded = K.models.load_model(path)
    for old, new in zip(recorder.weights[2], loaded.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    assert any(
        (a != b).any()
        for a, b in zip(model.get_weights(), loaded.get_weights(), strict=True)
    )
    assert [p.name for p in tmp_path.iterdir()] == ["ticket.keras"]


@pytest.mark.both_flavours
def test_ticket_of_the_weights(K, tmp_path):
    path = tmp_path / "ticket.weights.h5"
    bird = tsp.SplineEarlyBird(
        PROBE, threshold=0.99, lookback=2, filepath=str(path), stop=False
    )
    recorder = Recorder()
    fit(ready(K), [bird, recorder])
    other = network(K, seed=1)
    other.load_weights(str(path))
    for old, new in zip(recorder.weights[2], other.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize("before", [None, b"an older ticket"])
def test_ticket_appears_whole_or_not_at_all(K, tmp_path, monkeypatch, before):
    path = tmp_path / "ticket.keras"
    if before:
        path.write_bytes(before)
    written = []

    def save(self, file, *args, **kwargs):
        with open(file, "wb") as half:
            half.write(b"half a model")
        written.append(str(file))
        raise RuntimeError("disk full")

    model = ready(K)
    monkeypatch.setattr(type(model), "save", save)
    bird = tsp.SplineEarlyBird(PROBE, threshold=0.99, lookback=2, filepath=path)
    with pytest.raises(RuntimeError, match="disk full"):
        fit(model, [bird])
    assert written
    assert str(path) not in written
    names = [p.name for p in tmp_path.iterdir()]
    assert names == (["ticket.keras"] if before else [])
    if before:
        assert path.read_bytes() == before


# What is kept.


def test_distance_matrix(K):
    bird = tsp.SplineEarlyBird(PROBE, stop=False, keep_history=True)
    recorder = Recorder()
    fit(ready(K), [bird, recorder])
    matrix = bird.distance_matrix()
    codes = recorder.codes
    expected = [[brute_distance(codes[i], codes[j]) for j in codes] for i in codes]
    assert matrix.shape == (6, 6)
    np.testing.assert_array_equal(matrix, matrix.T)
    np.testing.assert_array_equal(np.diag(matrix), 0)
    np.testing.assert_allclose(matrix, expected, atol=2 * training.TOLERANCE)
    assert matrix[0, 5] > 0
    for epoch in range(1, 6):
        assert matrix[epoch, epoch - 1] == bird.records[epoch][0]


@pytest.mark.parametrize("bound", [1000, 4000, 10**6])
@pytest.mark.parametrize("backup", [False, True])
def test_bytes_held(K, tmp_path, bound, backup):
    bird = tsp.SplineEarlyBird(
        PROBE,
        stop=False,
        max_bytes=bound,
        backup_dir=tmp_path if backup else None,
    )
    held, take = [], bird._snapshot

    def snapshot():
        newest = take()
        # What is held while the newest is compared.
        held.append(newest.nbytes + sum(s.nbytes for s in bird._window.values()))
        return newest

    bird._snapshot = snapshot
    fit(ready(K), [bird])
    assert len(held) >= 6
    assert max(held) <= bound
    assert max(held) > 0.4 * min(bound, 4 * 50 * 3)


# Learning rates.


def scheduled(K, rates):
    return K.callbacks.LearningRateScheduler(lambda epoch, rate: rates[epoch])


def test_a_drop_of_the_rate_warns(K):
    rates = [0.5, 0.5, 0.5, 0.005, 0.005, 0.005]
    bird = tsp.SplineEarlyBird(PROBE, threshold=0.99, lookback=3)
    with pytest.warns(LearningRateDropWarning, match="0.5 to 0.005"):
        fit(ready(K), [scheduled(K, rates), bird])
    assert bird.ticket_epoch == 3


@pytest.mark.parametrize("rates", [[0.1] * 6, [0.5] + [0.1] * 5], ids=str)
def test_no_warning_without_a_drop_in_the_window(K, rates):
    """Warnings are errors here."""
    bird = tsp.SplineEarlyBird(PROBE, threshold=0.99, lookback=2, stop=True)
    scripted, settled = bird._settled, []

    def late(value):
        settled.append(value)
        return len(settled) > 2 and scripted(value)

    bird._settled = late
    fit(ready(K), [scheduled(K, rates), bird])
    assert bird.ticket_epoch == 4


@pytest.mark.both_flavours
def test_a_schedule_in_the_optimizer_warns_too(K):
    schedule = K.optimizers.schedules.PiecewiseConstantDecay([8], [0.5, 0.005])
    bird = tsp.SplineEarlyBird(PROBE, threshold=0.99, lookback=3)
    with pytest.warns(LearningRateDropWarning, match="0.5 to 0.005"):
        fit(ready(K, rate=schedule), [bird])
