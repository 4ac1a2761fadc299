"""Slices while training are those of the network as it was then."""

import numpy as np
import pytest
from training import Recorder, X, _Plain, compiled, fit, network, ready

import tf_spline_prune as tsp

ANCHORS = X[:3]
EXTENT = (-1.0, 2.0)
STEPS = 4  # an epoch


def outputs(weights, x):
    """The network of `training` in float64 NumPy."""
    *hidden, (kernel, bias) = np.array(weights, object).reshape(-1, 2)
    for k, b in hidden:
        x = np.maximum(x @ np.float64(k) + b, 0)
    return x @ np.float64(kernel) + bias


def check(s, weights):
    """Hold the affine map of every region against the network of these weights."""
    inner = [region.polygon.mean(axis=0) for region in s.regions]
    first, *others = np.float64(ANCHORS)
    x = first + np.array(inner) @ np.stack([other - first for other in others])
    A, b = s.affine
    found = np.einsum("rod,rd->ro", A, inner) + b
    np.testing.assert_allclose(found, outputs(weights, x), rtol=0, atol=1e-9)
    assert s.areas.sum() == pytest.approx(9) and s.num_regions > 10


def test_slices_are_those_of_the_moment(K):
    weights, recorder = Recorder(), tsp.SliceRecorder(ANCHORS, EXTENT, epochs=(0, 1, 3))
    model = ready(K)
    before = model.get_weights()
    history = fit(model, [recorder, weights], epochs=3).history
    assert list(recorder.slices) == [0, STEPS, 3 * STEPS]
    assert recorder.epochs_done == {0: 0, STEPS: 1, 3 * STEPS: 3}
    # Nothing is computed before it is asked for, and the weights have moved since.
    check(recorder.slices[0], before)
    check(recorder.slices[STEPS], weights.weights[0])
    check(recorder.slices[3 * STEPS], weights.weights[2])
    assert recorder.losses == dict(
        zip((STEPS, 2 * STEPS, 3 * STEPS), history["loss"], strict=True)
    )


class Losses(_Plain):
    """Keeps the loss that each batch reports."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def _implements_train_batch_hooks(self):
        return True

    def on_train_batch_end(self, batch, logs=None):
        self.seen.append(logs["loss"])


def test_slices_after_steps(K):
    recorder = tsp.SliceRecorder(ANCHORS, EXTENT, epochs=(), steps=(2, 4, 5))
    losses = Losses()
    fit(ready(K), [recorder, losses], epochs=2)
    assert recorder.epochs_done == {2: 0, 4: 1, 5: 1}
    assert set(recorder.losses) == {2, 4, 5, 8}
    for step in (2, 5):
        assert recorder.losses[step] == pytest.approx(losses.seen[step - 1])


def test_every_so_many(K):
    recorder = tsp.SliceRecorder(ANCHORS, EXTENT, epochs=2, steps=3, layers="one")
    fit(ready(K), [recorder], epochs=2)
    assert list(recorder.slices) == [0, 3, 6, 8]
    assert all(s.layers == ("one",) for s in recorder.slices.values())
    # Another run starts anew, with steps and epochs that go on.
    fit(recorder.model, [recorder], epochs=5, initial_epoch=4)
    assert recorder.epochs_done == {8: 4, 9: 4, 12: 5}


def test_batches_in_groups(K):
    recorder = tsp.SliceRecorder(ANCHORS, EXTENT, epochs=(), steps=(1, 3))
    fit(ready(K, steps_per_execution=2), [recorder], epochs=1)
    assert list(recorder.slices) == [2, 4]


def test_a_model_of_float64_is_kept_as_it_was(K):
    K.backend.set_floatx("float64")
    try:
        model = compiled(K, network(K))
    finally:
        K.backend.set_floatx("float32")
    recorder = tsp.SliceRecorder(ANCHORS, EXTENT, epochs=(0,))
    before = model.get_weights()
    fit(model, [recorder], epochs=1)
    check(recorder.slices[0], before)


def test_too_many_regions_do_not_end_the_training(K):
    recorder = tsp.SliceRecorder(ANCHORS, EXTENT, epochs=(1,), max_regions=5)
    with pytest.warns(tsp.errors.SliceWarning, match="after 4 steps.*more than 5"):
        history = fit(ready(K), [recorder], epochs=1).history
    assert len(history["loss"]) == len(recorder.losses) == 1
    assert not recorder.slices


class Ruin(_Plain):
    """Makes a weight NaN after the second epoch."""

    def on_epoch_end(self, epoch, logs=None):
        if epoch == 1:
            bad = [np.full_like(w, np.nan) for w in self.model.get_weights()]
            self.model.set_weights(bad)


def test_a_network_that_diverges_is_left_out():
    import keras

    recorder = tsp.SliceRecorder(ANCHORS, EXTENT)
    with pytest.warns(tsp.errors.SliceWarning, match="after 8 steps.*NaN"):
        history = fit(ready(keras), [Ruin(), recorder], epochs=2).history
    assert len(history["loss"]) == 2
    assert list(recorder.slices) == [0, 4]


WRONG = {
    "extent": {"extent": (1.0, 0.0)},
    "max_regions": {"max_regions": 0},
    "epochs": {"epochs": 0},
    "a bool": {"epochs": True},
    "half an epoch": {"epochs": [0.5]},
    "before all": {"steps": [-1]},
    "words": {"steps": "all"},
    "never": {"epochs": (), "steps": ()},
}


@pytest.mark.parametrize("arguments", WRONG.values(), ids=WRONG)
def test_wrong_arguments(arguments):
    with pytest.raises(ValueError, match=f"`{next(iter(arguments))}`.*Received"):
        tsp.SliceRecorder(ANCHORS, **{"epochs": 1, **arguments})


def test_what_the_model_refuses_is_refused_before_the_first_step(K):
    refused = {
        "one line": {"anchors": np.stack([0 * X[1], X[1], 2 * X[1]])},
        "does not fit": {"anchors": X[:3, :4]},
        "`classes`": {"anchors": ANCHORS, "classes": (0, 2)},
        "head": {"anchors": ANCHORS, "layers": ["head"]},
    }
    model = ready(K)
    before = model.get_weights()
    for message, arguments in refused.items():
        with pytest.raises(ValueError, match=message):
            fit(model, [tsp.SliceRecorder(**arguments)], epochs=1)
    smooth = compiled(
        K, K.Sequential([K.Input((6,)), K.layers.Dense(3, "gelu"), K.layers.Dense(2)])
    )
    with pytest.raises(tsp.errors.ModelError, match="gelu"):
        fit(smooth, [tsp.SliceRecorder(ANCHORS)], epochs=1)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
