"""Backups of detectors: whose they are, and where they lie."""

import functools
import warnings

import numpy as np
import pytest

import tf_spline_prune as tsp
from tf_spline_prune.errors import BackupWarning

RNG = np.random.default_rng(0)
X = RNG.normal(0, 1, (64, 6)).astype("float32")
Y = (X[:, 0] * X[:, 1] > 0).astype("int32")
PROBE = RNG.normal(0, 1, (50, 6)).astype("float32")


class Cut(Exception):
    pass


def network(K, seed=0, activation="relu", name="one", **dense):
    K.utils.set_random_seed(seed)
    model = K.Sequential(
        [
            K.Input((6,)),
            K.layers.Dense(12, activation=activation, name=name, **dense),
            K.layers.BatchNormalization(),
            K.layers.Dense(8, activation="relu"),
            K.layers.Dense(2),
        ]
    )
    loss = K.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(K.optimizers.SGD(0.3), loss)
    return model


def spline(folder, **changes):
    settings = {"threshold": 1e-9, "stop": False, "backup_dir": folder, **changes}
    return tsp.SplineEarlyBird(PROBE, **settings)


def fit(model, callbacks, **epochs):
    settings = {"batch_size": 16, "shuffle": False, "verbose": 0, **epochs}
    return model.fit(X, Y, callbacks=callbacks, **settings)


def cut_off(K, callbacks, model=None, epochs=3):
    """Train for some epochs, and give the weights that a run would resume from."""
    model = model or network(K)
    at = K.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, logs: cut() if epoch == epochs else None
    )

    def cut():
        raise Cut

    with pytest.raises(Cut):
        fit(model, [*callbacks, at], epochs=9)
    return model


def resumed(K, model, bird, saying=None, epoch=3):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit(model, [bird], initial_epoch=epoch, epochs=epoch + 2)
    said = [str(w.message) for w in caught if w.category is BackupWarning]
    if saying is None:
        assert not said and sorted(bird.records) == list(range(1, epoch + 2))
    else:
        assert len(said) == 1 and saying in said[0]
        assert sorted(bird.records) == [epoch + 1]  # a window that starts anew


def test_the_same_run_goes_on(K, tmp_path):
    """Names that Keras numbered anew, and a new optimizer, are no fault."""
    trained = cut_off(K, [spline(tmp_path)])
    again = network(K, seed=5)
    again.set_weights(trained.get_weights())
    resumed(K, again, spline(tmp_path))


@pytest.mark.parametrize(
    "changes",
    [{"activation": "leaky_relu"}, {"name": "another"}, {"use_bias": False}],
    ids=lambda changes: next(iter(changes)),
)
def test_of_another_model_of_the_same_shapes(K, tmp_path, changes):
    trained = cut_off(K, [spline(tmp_path)])
    other = network(K, **changes)
    if "use_bias" not in changes:
        other.set_weights(trained.get_weights())
    resumed(K, other, spline(tmp_path), "another model")


def test_of_a_model_with_a_function_without_a_name(K, tmp_path):
    """Keras cannot put it into a config, which ended the training."""
    bent = functools.partial(K.activations.elu, alpha=0.5)
    bird = tsp.MaskEarlyBird(stop=False, backup_dir=tmp_path)
    cut_off(K, [bird], network(K, activation=bent))
    assert [p.name for p in tmp_path.iterdir()] == ["mask_distance.npz"]


def test_of_another_run_of_the_same_model(K, tmp_path):
    """The same lines, other weights: as if the folder of another run had been named."""
    cut_off(K, [spline(tmp_path)])
    other = cut_off(K, [], network(K, seed=9))
    resumed(K, other, spline(tmp_path), "another run")


def test_of_another_run_by_masks(K, tmp_path):
    first, second = network(K), network(K)
    for model, order in ((first, 1), (second, -1)):
        model.layers[1].gamma.assign(np.linspace(0.1, 2.0, 12)[::order])
    cut_off(K, [tsp.MaskEarlyBird(stop=False, backup_dir=tmp_path)], first)
    bird = tsp.MaskEarlyBird(stop=False, backup_dir=tmp_path)
    with pytest.warns(BackupWarning, match="another run"):
        fit(second, [bird], initial_epoch=3, epochs=4)
    assert sorted(bird.records) == [3]  # from the mask before the first epoch on


def test_weights_from_before_the_end_of_the_epoch_are_not_those(K, tmp_path):
    """A checkpoint of the first epoch, resumed as if it were that of the third."""
    early = cut_off(K, [], epochs=1).get_weights()
    cut_off(K, [spline(tmp_path)])
    model = network(K)
    model.set_weights(early)
    resumed(K, model, spline(tmp_path), "another run")


def test_two_birds_of_one_fit(K, tmp_path):
    """Two settings, one folder: two numbers in the logs, two files, no warning."""
    pair = [spline(tmp_path, lookback=1), spline(tmp_path, lookback=2)]
    model = cut_off(K, [*pair, tsp.MaskEarlyBird(stop=False, backup_dir=tmp_path)])
    names = sorted(p.name for p in tmp_path.iterdir())
    assert names == [
        "mask_distance.npz",
        "spline_distance.npz",
        "spline_distance_2.npz",
    ]
    again = [spline(tmp_path, lookback=1), spline(tmp_path, lookback=2)]
    history = fit(model, again, initial_epoch=3, epochs=5).history
    for old, new in zip(pair, again, strict=True):
        assert sorted(new.records) == [1, 2, 3, 4]
        assert [new.records[e] for e in (1, 2)] == [old.records[e] for e in (1, 2)]
    for name, bird in zip(["spline_distance", "spline_distance_2"], again, strict=True):
        assert bird.log_name == name
        assert history[name] == [max(bird.records[e]) for e in (3, 4)]
    assert history["spline_distance"] != history["spline_distance_2"]
    assert [p.name for p in tmp_path.iterdir()] == ["mask_distance.npz"]


def test_two_probes_in_the_logs(K):
    """The number of each is that of its probe alone."""
    near, far = PROBE * 0.1, PROBE * 10
    alone = []
    for probe in (near, far):
        bird = tsp.SplineEarlyBird(probe, threshold=1e-9, lookback=1)
        alone.append(fit(network(K), [bird], epochs=3).history["spline_distance"])
    pair = [tsp.SplineEarlyBird(p, threshold=1e-9, lookback=1) for p in (near, far)]
    model = network(K)
    history = fit(model, pair, epochs=3).history
    np.testing.assert_allclose(history["spline_distance"], alone[0], atol=0.01)
    np.testing.assert_allclose(history["spline_distance_2"], alone[1], atol=0.01)
    assert alone[0][1:] != alone[1][1:]
    # Alone again, it has the plain name; with a third one it is counted once.
    last = fit(model, [pair[1]], epochs=2).history
    assert "spline_distance" in last and pair[1].log_name == "spline_distance"


def test_callbacks_of_one_kind_log_under_names_of_their_own(K):
    """The second one's numbers stood in the place of the first one's."""
    model = tsp.wrap_with_masks(build_two(K))
    model.compile("sgd", "mse")
    x = np.random.default_rng(0).normal(size=(16, 4)).astype("float32")
    once = tsp.schedules.OneShot
    callbacks = [
        tsp.MaskPruning({"one": once(0.5, 1)}),
        tsp.MaskPruning({"two": once(0.25, 1)}),
        tsp.LocalComplexityLogger({"train": x[:4]}, radius=0.1),
        tsp.LocalComplexityLogger({"train": x[4:8], "test": x[8:]}, radius=0.5),
        tsp.SignalPropagationLogger(x[:4]),
        tsp.SignalPropagationLogger(x[4:]),
    ]
    logs = model.fit(x, x[:, :2], verbose=0, callbacks=callbacks).history
    assert logs["sparsity"] == [0.5] and logs["sparsity_2"] == [0.25]
    for name in ("local_complexity/train", "regions/train", "signal/variance"):
        assert name in logs and f"{name}_2" in logs
    assert "local_complexity/test" in logs and "local_complexity/test_2" not in logs


def build_two(K):
    L = K.layers
    layers = [L.Dense(8, activation="relu", name="one"), L.Dense(8, name="two")]
    return K.Sequential([K.Input((4,)), *layers, L.ReLU(), L.Dense(2, name="out")])
