"""The logger's numbers are those of the functions, in the `fit` of both flavours."""

import math

import numpy as np
import pytest
import zoo

import tf_spline_prune as tsp
from tf_spline_prune.errors import ProbeError


def trained(K, logger, epochs=3):
    model = zoo.mlp(K)
    model.compile(optimizer="sgd", loss="sparse_categorical_crossentropy")
    rng = np.random.default_rng(0)
    x = rng.normal(size=(32, *model.inputs[0].shape[1:])).astype("float32")
    y = rng.integers(0, 3, 32)
    return model, model.fit(x, y, epochs=epochs, verbose=0, callbacks=[logger]).history


def points(K):
    rng = np.random.default_rng(1)
    shape = zoo.mlp(K).inputs[0].shape[1:]
    return {name: rng.normal(size=(20, *shape)) for name in ("train", "random")}


def test_the_logs_hold_what_the_function_gives(K):
    given = points(K)
    logger = tsp.LocalComplexityLogger(given, 0.2, directions=3)
    model, history = trained(K, logger)
    for name, x in given.items():
        near = tsp.local_complexity(model, x, 0.2, directions=3)
        assert history[f"local_complexity/{name}"][-1] == sum(near.values()).mean()
        assert logger.curves[name].keys() == near.keys()
        for layer, counts in near.items():
            assert len(logger.curves[name][layer]) == 3
            assert logger.curves[name][layer][-1] == counts.mean()
        codes = tsp.PartitionCoder(model)(x)
        assert history[f"regions/{name}"][-1] == codes.num_regions
    size = math.prod(model.inputs[0].shape[1:])
    for layer, bound in logger.region_bounds.items():
        exact = tsp.max_regions(codes.num_knots[layer], size)
        assert bound == pytest.approx(math.log2(exact))


def test_every_other_epoch(K):
    logger = tsp.LocalComplexityLogger(points(K), 0.2, directions=3, every=2)
    _, history = trained(K, logger)
    missing = np.isnan(history["local_complexity/train"])
    np.testing.assert_array_equal(missing, [False, True, False])


def test_wrong_input(K):
    with pytest.raises(ValueError, match="by name"):
        tsp.LocalComplexityLogger({}, 0.1)
    with pytest.raises(ValueError, match="radius"):
        tsp.LocalComplexityLogger({"a": np.ones((2, 3))}, 0.0)
    with pytest.raises(ValueError, match="every"):
        tsp.LocalComplexityLogger({"a": np.ones((2, 3))}, 0.1, every=0)
    with pytest.raises(ProbeError, match="shape"):
        trained(K, tsp.LocalComplexityLogger({"a": np.ones((2, 99))}, 0.1))
