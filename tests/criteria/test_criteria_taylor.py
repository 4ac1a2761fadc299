"""Taylor and Fisher scores against gates that are multiplied in and differentiated."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
import zoo
from criteria_models import (
    applies,
    cross_entropy,
    examples,
    gated_outputs,
    prepared,
    small_residual,
)

import tf_spline_prune as tsp
from tf_spline_prune import criteria
from tf_spline_prune.compat import value_and_grad
from tf_spline_prune.errors import CalibrationError

pytestmark = pytest.mark.both_flavours


def losses(K):
    return K.losses.SparseCategoricalCrossentropy(from_logits=True)


def per_example(model, x, y):
    """Differentiate each example's loss by explicit gates on both groups."""
    found = []
    for i in range(len(x)):
        gates = [tf.ones(6), tf.ones(5)]
        with tf.GradientTape() as tape:
            tape.watch(gates)
            outputs = gated_outputs(tf, model, x[i : i + 1], gates)
            loss = tf.reduce_mean(cross_entropy(tf, y[i : i + 1], outputs))
        found.append([g.numpy().astype("float64") for g in tape.gradient(loss, gates)])
    return [np.array(one) for one in zip(*found, strict=True)]


@pytest.mark.parametrize("frozen", [False, True])
def test_scores_are_the_derivatives_by_gates(K, frozen):
    model = small_residual(K, frozen)
    x, y = examples()
    expected = per_example(model, x, y)
    before = model.get_weights()
    for size in (5, 64):
        criterion = criteria.Taylor(loss=losses(K), batch_size=size)
        groups = prepared(model, criterion, (x, y))
        for name, gates in zip(("stem", "inner"), expected, strict=True):
            scores = criterion.scores(groups[name])
            assert scores.dtype == np.float64
            want = np.abs(gates.mean(axis=0))
            np.testing.assert_allclose(scores, want, rtol=1e-3, atol=1e-5)
    criterion = criteria.Fisher(loss=losses(K))
    groups = prepared(model, criterion, (x, y))
    for name, gates in zip(("stem", "inner"), expected, strict=True):
        want = (gates**2).mean(axis=0)
        np.testing.assert_allclose(
            criterion.scores(groups[name]), want, rtol=1e-3, atol=1e-5
        )
    criterion = criteria.Fisher(loss=losses(K), batch_size=4)
    groups = prepared(model, criterion, (x, y))
    want = (expected[0].reshape(3, 4, -1).mean(axis=1) ** 2).mean(axis=0)
    np.testing.assert_allclose(
        criterion.scores(groups["stem"]), want, rtol=1e-3, atol=1e-5
    )
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_reductions_of_readers(K):
    """The sum of the readers is taken before the absolute value, and so on."""
    model = small_residual(K)
    data = examples()
    _, gradients = value_and_grad(model, losses(K))([data[0]], data[1])
    inner = (
        model.get_layer("inner").get_weights()[0] * gradients["inner"]["kernel"]
    ).sum(axis=(0, 1, 3))
    head = model.get_layer("head").get_weights()[0] * gradients["head"]["kernel"]
    head = head.reshape(3, 3, 6, 4).sum(axis=(0, 1, 3))
    expected = {
        "sum": np.abs(inner + head),
        "mean": np.abs(inner + head) / 2,
        "max": np.maximum(np.abs(inner), np.abs(head)),
        "first": np.abs(inner),
    }
    for reduction, want in expected.items():
        criterion = criteria.Taylor(loss=losses(K), reduction=reduction)
        groups = prepared(model, criterion, data)
        found = criterion.scores(groups["stem"])
        np.testing.assert_allclose(found, want, rtol=1e-3, atol=1e-6)


def test_the_compiled_loss_is_used(K):
    model = small_residual(K)
    data = examples()
    given = criteria.Taylor(loss=losses(K))
    groups = prepared(model, given, data)
    want = given.scores(groups["stem"])
    model.compile("sgd", losses(K))
    compiled = criteria.Taylor()
    groups = prepared(model, compiled, data)
    np.testing.assert_allclose(compiled.scores(groups["stem"]), want, rtol=1e-5)

    def own(y_true, y_pred):
        return K.losses.sparse_categorical_crossentropy(
            y_true, y_pred, from_logits=True
        )

    groups = prepared(model, mine := criteria.Taylor(loss=own), data)
    np.testing.assert_allclose(mine.scores(groups["stem"]), want, rtol=1e-5)
    assert mine.get_config()["loss"] == "own"
    json.dumps(mine.get_config())
    assert given.get_config()["loss"] == "SparseCategoricalCrossentropy"


def test_penalties_are_no_part_of_the_loss(K):
    L = K.layers
    regular = {"kernel_regularizer": "l2", "activity_regularizer": "l1"}
    layers = [K.Input((4,)), L.Dense(6, activation="relu", name="one", **regular)]
    model = zoo.settle(K.Sequential([*layers, L.Dense(2, name="head", **regular)]))
    model.compile("sgd", "mse")
    x = np.random.default_rng(0).standard_normal((8, 4)).astype("float32")
    y = np.ones((8, 2), "float32")
    value, gradients = value_and_grad(model)([x], y)
    kernel, bias = model.get_layer("one").get_weights()
    hidden = np.maximum(x @ kernel + bias, 0)
    kernel, bias = model.get_layer("head").get_weights()
    error = hidden @ kernel + bias - y
    assert value == pytest.approx((error**2).mean(), rel=1e-5)
    want = hidden.T @ error * 2 / error.size
    np.testing.assert_allclose(gradients["head"]["kernel"], want, rtol=1e-4, atol=1e-6)


def test_gradients_of_nested_and_subclassed_models(K):
    """Names are those of the graph; every gradient is TensorFlow's own."""
    for build in (zoo.nested, zoo.subclassed):
        model = build(K)
        rng = np.random.default_rng(0)
        x = rng.standard_normal((4, *zoo.SHAPE)).astype("float32")
        y = rng.integers(0, 5, 4)
        value, gradients = value_and_grad(model, losses(K))([x], y)
        graph = tsp.ChannelGraph(model)
        assert set(gradients) == set(graph.arrays)
        with tf.GradientTape() as tape:
            outputs = model(x, training=False)
            loss = tf.reduce_mean(cross_entropy(tf, y, outputs))
        assert value == pytest.approx(float(loss), rel=1e-5)
        held = [
            v.value if K.__name__ == "keras" else v for v in model.trainable_weights
        ]
        truth = tape.gradient(loss, held)
        norms = sorted(float(tf.norm(g)) for g in truth)
        trained = {"kernel", "bias", "gamma", "beta"}
        found = [
            np.linalg.norm(g)
            for per in gradients.values()
            for name, g in per.items()
            if name in trained
        ]
        np.testing.assert_allclose(sorted(found), norms, rtol=1e-4, atol=1e-6)


def test_chosen_weights_only(K):
    model = small_residual(K)
    x, y = examples()
    wanted = {"inner": ["kernel"]}
    _, gradients = value_and_grad(model, losses(K), wanted)([x], y)
    assert {path: list(per) for path, per in gradients.items()} == wanted


@pytest.mark.parametrize("name", ["taylor", "fisher"])
def test_plans(K, name):
    model = small_residual(K)
    model.compile("sgd", losses(K))
    plan = applies(model, name, examples())
    assert plan.criterion == name


def test_models_with_several_outputs(K):
    L = K.layers
    inputs = K.Input((5,))
    x = L.Dense(8, activation="relu", name="trunk")(inputs)
    heads = [L.Dense(3, name="a")(x), L.Dense(1, name="b")(x)]
    model = zoo.settle(K.Model(inputs, heads))
    model.compile("sgd", ["mse", "mae"], loss_weights=[1.0, 0.5])
    rng = np.random.default_rng(0)
    x = rng.standard_normal((10, 5)).astype("float32")
    y = [rng.standard_normal((10, n)).astype("float32") for n in (3, 1)]
    criterion = criteria.Taylor()
    group = prepared(model, criterion, (x, y))["trunk"]
    gate = tf.ones(8)
    with tf.GradientTape() as tape:
        tape.watch(gate)
        hidden = model.get_layer("trunk")(x) * gate
        a, b = model.get_layer("a")(hidden), model.get_layer("b")(hidden)
        loss = tf.reduce_mean((a - y[0]) ** 2) + 0.5 * tf.reduce_mean(tf.abs(b - y[1]))
    want = np.abs(tape.gradient(loss, gate).numpy())
    np.testing.assert_allclose(criterion.scores(group), want, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("cls", [criteria.Taylor, criteria.Fisher])
def test_what_is_missing_is_named(K, cls):
    model = small_residual(K)
    x, y = examples()
    with pytest.raises(CalibrationError, match=r"data=\(x, y\).*no data"):
        tsp.plan(model, cls(loss="mse"), sparsity=0.2)
    with pytest.raises(CalibrationError, match="without labels"):
        tsp.plan(model, cls(loss="mse"), sparsity=0.2, data=x)
    with pytest.raises(ValueError, match="not compiled"):
        tsp.plan(model, cls(), sparsity=0.2, data=(x, y))
    with pytest.raises(CalibrationError, match="these labels"):
        wrong = np.zeros((len(x), 9), "float32")
        tsp.plan(model, cls(loss="mse"), sparsity=0.2, data=(x, wrong))


@pytest.mark.parametrize("cls", [criteria.Taylor, criteria.Fisher])
@pytest.mark.parametrize(
    ("kwargs", "match"),
    [
        ({"loss": 3}, "loss=3"),
        ({"loss": ["mse", 3]}, "mse"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"batch_size": True}, "batch_size=True"),
        ({"batch_size": 2.5}, "2.5"),
        ({"reduction": "median"}, "'median'"),
        ({"normalizer": None}, "None"),
    ],
)
def test_wrong_arguments(cls, kwargs, match):
    with pytest.raises(ValueError, match=match):
        cls(**kwargs)


def test_products_of_tensors_are_not_looked_into(K):
    L = K.layers
    inputs = K.Input((6, 8))
    a = L.Dense(7, name="a")(inputs)
    z = L.Dot(2)([a, a])
    x = L.Concatenate()([z, L.Dense(3, name="d")(a)])
    model = zoo.settle(K.Model(inputs, L.Dense(2, name="head")(x)))
    data = np.zeros((4, 6, 8), "float32"), np.zeros((4, 6, 2), "float32")
    criterion = criteria.Taylor(loss="mse")
    groups = prepared(model, criterion, data)
    assert "multiplies tensors" in criterion.reason_against(groups["a"])


@pytest.mark.slow
def test_on_jax(tmp_path):
    """The same scores on the backend jax."""
    code = (
        "import sys, numpy as np, keras\n"
        "sys.path[:0] = sys.argv[1:3]\n"
        "import criteria_models as m\n"
        "from tf_spline_prune import criteria\n"
        "keras.utils.set_random_seed(0)\n"
        "model = m.small_residual(keras, frozen=True)\n"
        "loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)\n"
        "found = {}\n"
        "for c in (criteria.Taylor(loss=loss), criteria.Fisher(loss=loss),\n"
        "          criteria.Activation()):\n"
        "    for name, group in m.prepared(model, c, m.examples()).items():\n"
        "        found[c.name + name] = c.scores(group)\n"
        "np.savez(sys.argv[3], **found)\n"
    )
    here = os.path.dirname(__file__)
    found = []
    for backend in ("tensorflow", "jax"):
        file = tmp_path / f"{backend}.npz"
        subprocess.run(
            [sys.executable, "-c", code, here, os.path.dirname(here), str(file)],
            check=True,
            env={**os.environ, "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"},
        )
        found.append(np.load(file))
    assert len(found[0].files) == 6
    for key in found[0].files:
        np.testing.assert_allclose(found[0][key], found[1][key], rtol=2e-3, atol=1e-5)
