"""The logger's numbers are those of the function, in the `fit` of both flavours."""

import numpy as np
import pytest
import zoo

import tf_spline_prune as tsp
from tf_spline_prune.errors import CalibrationError

RNG = np.random.default_rng(0)
X = RNG.normal(size=(32, 12)).astype("float32")
Y = RNG.integers(0, 5, 32)


def fitted(K, logger, epochs=2):
    model = tsp.prune_once(zoo.mlp(K), 0.5)
    loss = K.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer="sgd", loss=loss)
    before = tsp.initialization.signal_propagation(model, X, Y)
    fit = model.fit(X, Y, epochs=epochs, verbose=0, callbacks=[logger])
    return model, before, fit.history


def test_the_logs_hold_what_the_function_gives(K):
    logger = tsp.SignalPropagationLogger(X, Y, every=2)
    model, before, history = fitted(K, logger, epochs=3)
    after = tsp.initialization.signal_propagation(model, X, Y)
    for name in ("signal/variance", "signal/condition"):
        np.testing.assert_array_equal(np.isnan(history[name]), [False, True, False])
    variance, gradients = (
        list(found.values()) for found in (after.variance, after.gradients)
    )
    expected = {
        "emptied_layers": 0,
        "dead_units": np.mean(list(after.dead_units.values())),
        "variance": variance[-1] / variance[0],
        "gradients": gradients[0] / gradients[-1],
        "singular_values": after.singular_values.mean(),
        "condition": after.jacobian["condition"],
    }
    given = {key: history[f"signal/{key}"][-1] for key in expected}
    assert given == pytest.approx(expected)
    assert list(logger.diagnoses) == [-1, 0, 2]
    assert logger.diagnoses[-1].to_dict() == before.to_dict()
    assert before.variance != after.variance


def test_wrong_input(K):
    with pytest.raises(ValueError, match="every"):
        tsp.SignalPropagationLogger(X, every=0)
    with pytest.raises(CalibrationError, match="does not fit"):
        fitted(K, tsp.SignalPropagationLogger(X[:, :3]))
