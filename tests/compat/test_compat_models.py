"""Tracing, rebuilding, flavours, and what imports do to the process."""

import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import tf_keras
import zoo

import tf_spline_prune as tsp
from tf_spline_prune import compat
from tf_spline_prune.errors import FlavourError, ModelError

pytestmark = pytest.mark.both_flavours


def run(code, **environment):
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", **environment}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def half(model):
    return tsp.plan(model, sparsity=0.5)


def inputs_for(model, count=4):
    rng = np.random.default_rng(0)
    shapes = [i.shape[1:] for i in compat.trace(model).inputs]
    return [rng.normal(size=(count, *shape)).astype("float32") for shape in shapes]


@pytest.mark.parametrize("build", zoo.ALL, ids=lambda f: f.__name__)
def test_copies_compute_the_same_and_share_nothing(K, build):
    model = build(K)
    (x,) = inputs_for(model)
    expected = np.asarray(model(x, training=False))
    copy = compat.with_weights(model, {})
    np.testing.assert_array_equal(np.asarray(copy(x, training=False)), expected)
    for weight in copy.weights:
        weight.assign(np.zeros(weight.shape))
    np.testing.assert_array_equal(np.asarray(model(x, training=False)), expected)
    assert compat.flavour_of(copy) == K.__name__


@pytest.mark.parametrize("build", [zoo.vgg, zoo.nested], ids=lambda f: f.__name__)
def test_float64_copies(K, build):
    model = build(K)
    (x,) = inputs_for(model)
    exact = compat.with_dtype(model, "float64")
    found = np.asarray(exact(x.astype("float64"), training=False))
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, np.asarray(model(x)), rtol=1e-3, atol=1e-4)
    # No step in between, at the door of a nested model say, is less precise.
    moved = np.asarray(exact(x.astype("float64") * (1 + 1e-12), training=False))
    assert (moved != found).mean() > 0.9


def test_structure_of_inputs_and_outputs_stays(K):
    L = K.layers
    inputs = {"b": K.Input((3,), name="b"), "a": K.Input((2,), name="a")}
    x = L.Dense(6, activation="relu", name="mix")(
        L.Concatenate()([inputs["a"], inputs["b"]])
    )
    outputs = {"two": L.Dense(2, name="two")(x), "one": L.Dense(1, name="one")(x)}
    model = zoo.settle(K.Model(inputs, outputs))
    small = tsp.prune(model, sparsity=0.5)
    data = {"a": np.ones((3, 2), "float32"), "b": np.ones((3, 3), "float32")}
    found, expected = small(data), model(data)
    assert set(found) == set(expected) == {"one", "two"}
    assert {k: tuple(v.shape) for k, v in found.items()} == {
        k: tuple(v.shape) for k, v in expected.items()
    }


def test_nesting_and_names_stay(K):
    model = zoo.nested(K)
    small = tsp.prune(model, sparsity=0.4)
    assert [layer.name for layer in small.layers][1:] == [
        layer.name for layer in model.layers
    ][1:]
    block, tail = small.get_layer("block"), small.get_layer("tail")
    assert block.get_layer("in1_conv").filters < 12
    assert type(tail).__name__ == "Sequential"


def test_initializers_stay(K):
    L, draws = K.layers, K.initializers
    inputs = K.Input((6, 6, 3))
    x = L.Conv2D(8, 3, kernel_initializer=draws.HeNormal(seed=3), name="conv")(inputs)
    x = L.Dense(4, bias_initializer=draws.RandomUniform(1, 2), name="out")(x)
    small = tsp.prune(K.Model(inputs, x), sparsity=0.5)
    conv, out = small.get_layer("conv"), small.get_layer("out")
    assert conv.kernel_initializer.get_config() == draws.HeNormal(seed=3).get_config()
    new = K.models.clone_model(small)
    assert new.get_layer("conv").get_weights()[0].std() > 0.1
    assert (out.get_weights()[1] >= 1).all()
    assert (new.get_layer("out").get_weights()[1] >= 1).all()


def test_shared_layers_stay_shared(K):
    L = K.layers
    x = inputs = K.Input((5,))
    twice = L.Dense(5, activation="relu", name="twice")
    model = zoo.settle(K.Model(inputs, L.Dense(2)(twice(twice(x)))))
    copy = compat.with_weights(model, {})
    assert len(copy.weights) == len(model.weights) == 4
    (points,) = inputs_for(model)
    np.testing.assert_array_equal(np.asarray(copy(points)), np.asarray(model(points)))


def test_paths_tell_uses_apart(K):
    block = K.Sequential(
        [K.Input((4,)), K.layers.Dense(4, activation="relu", name="d")], name="block"
    )
    inputs = K.Input((4,))
    model = K.Model(inputs, block(block(inputs)))
    names = [call.name for call in compat.trace(model).calls]
    assert names == ["block/d", "block/d:1"]


def test_flavours_are_read_from_the_class(K):
    model = zoo.mlp(K)
    other = "tf_keras" if K is keras else "keras"
    assert compat.require_flavour(model) == K.__name__
    with pytest.raises(FlavourError, match=f"`{other}`.*`{K.__name__}`"):
        compat.require_flavour(model, other)


@pytest.mark.parametrize("thing", [None, 3, "model", np.zeros(3), [keras, tf_keras]])
def test_what_is_no_model_is_refused(thing):
    calls = (half, tsp.prune, tsp.PartitionCoder, tsp.cost, tsp.ChannelGraph)
    for call in calls:
        with pytest.raises(FlavourError, match="`keras.Model`.*`tf_keras.Model`"):
            call(thing)


def test_unbuilt_models_are_refused(K):
    class Net(K.Model):
        def call(self, x):
            return x

    for model in (K.Sequential([K.layers.Dense(3)]), Net()):
        for call in (half, tsp.PartitionCoder, tsp.cost):
            with pytest.raises(ModelError, match="not built.*Call it once"):
                call(model)


def test_a_call_that_cannot_be_traced_is_refused(K):
    class Net(K.Model):
        def __init__(self):
            super().__init__()
            self.dense = K.layers.Dense(3)

        def call(self, x):
            if hasattr(x, "numpy"):
                return self.dense(x)
            raise RuntimeError("only with values")

    model = Net()
    model(np.zeros((2, 4), "float32"))
    with pytest.raises(ModelError, match="cannot be traced.*only with values"):
        tsp.plan(model, sparsity=0.5)


@pytest.mark.parametrize(
    ("first", "legacy"),
    [
        ("keras", "0"),
        ("tfmot", None),
        pytest.param("keras", None, marks=pytest.mark.slow),
        pytest.param("tfmot", "0", marks=pytest.mark.slow),
    ],
)
def test_importing_tfmot_changes_nothing(first, legacy):
    environment = {} if legacy is None else {"TF_USE_LEGACY_KERAS": legacy}
    before = "import tensorflow as tf; tf.keras.Model" if first == "keras" else ""
    out = run(
        f"{before}\n"
        "import os, json\n"
        "variable = os.environ.get('TF_USE_LEGACY_KERAS')\n"
        "from tf_spline_prune import compat\n"
        "tfmot = compat.import_tfmot()\n"
        "import tensorflow as tf\n"
        "same = os.environ.get('TF_USE_LEGACY_KERAS') == variable\n"
        "base = tfmot.sparsity.keras.PruningSchedule.__name__\n"
        "print(json.dumps([tf.keras.Model.__module__, same, base]))",
        **environment,
    )
    module, same, base = json.loads(out.splitlines()[-1])
    assert module.startswith("keras.src") and same and base == "PruningSchedule"


def test_the_core_runs_without_tensorflow():
    """On the JAX backend, with TensorFlow made unimportable."""
    run(
        "import sys\n"
        "class Block:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in ('tensorflow', 'tf_keras'):\n"
        "            raise ImportError(name)\n"
        "sys.meta_path.insert(0, Block())\n"
        "import keras, numpy as np\n"
        "import tf_spline_prune as tsp\n"
        "L = keras.layers\n"
        "model = keras.Sequential([keras.Input((8, 8, 3)),\n"
        "    L.Conv2D(8, 3), L.BatchNormalization(), L.ReLU(), L.Flatten(),\n"
        "    L.Dense(6, activation='relu'), L.Dense(2)])\n"
        "codes = tsp.PartitionCoder(model)(tsp.probes.noise((8, 8, 3), 20))\n"
        "assert sum(codes.num_knots.values()) == 6 * 6 * 8 + 6\n"
        "plan = tsp.plan(model, target_macs=0.5)\n"
        "assert tsp.verify(model, plan.apply(model), plan) < 1e-5\n"
        "report = tsp.report(model, tsp.prune(model, sparsity=0.5))\n"
        "assert report.latency_us is None and report.levels['macs'] < 1\n"
        "assert 'tensorflow' in report.unmeasured['latency_us']\n"
        "x = np.random.default_rng(0).normal(size=(64, 8, 8, 3)).astype('float32')\n"
        "plan = tsp.plan(model, 'reconstruction', target_macs=0.5, data=x)\n"
        "small = plan.apply(model)\n"
        "solved = tsp.least_squares(model, small, plan, x, ridge=0.1)\n"
        "gaps = [np.square(np.array(one(x) - model(x))).mean()\n"
        "    for one in (small, solved)]\n"
        "assert gaps[1] < 0.7 * gaps[0], gaps\n"
        "norm = tsp.recalibrate_batchnorm(model, x).layers[1]\n"
        "mean = np.array(model.layers[0](x)).mean(axis=(0, 1, 2))\n"
        "assert np.abs(np.array(norm.moving_mean) - mean).max() < 1e-5\n"
        "x = inputs = keras.Input((5, 8))\n"
        "x = L.LayerNormalization()(L.Dense(8)(x))\n"
        "x = L.LSTM(6)(L.MultiHeadAttention(4, 6)(x, x))\n"
        "mixed = keras.Model(inputs, L.Dense(3)(keras.ops.relu(x) * 2.0))\n"
        "plan = tsp.plan(mixed, sparsity=0.5, approximate=True)\n"
        "assert tsp.verify(mixed, plan.apply(mixed), plan) < 1e-5\n"
        "from tf_spline_prune import compat\n"
        "assert compat.widest_dtype(model) == 'float32'\n"
        "try:\n"
        "    compat.with_dtype(model, 'float64')\n"
        "except tsp.errors.FlavourError as error:\n"
        "    assert 'JAX_ENABLE_X64=1' in str(error)\n"
        "else:\n"
        "    raise SystemExit('no error')\n"
        "model.compile(keras.optimizers.SGD(0.1), 'mse')\n"
        "bird = tsp.SplineEarlyBird(tsp.probes.noise((8, 8, 3), 50), stop=False)\n"
        "x, y = np.random.normal(size=(32, 8, 8, 3)), np.ones((32, 2))\n"
        "history = model.fit(x, y, epochs=5, verbose=0, callbacks=[bird]).history\n"
        "found = history['spline_distance']\n"
        "assert np.isnan(found[:3]).all() and max(found[3:]) > 0, found\n"
        "assert 'tensorflow' not in sys.modules\n",
        KERAS_BACKEND="jax",
        JAX_DISABLE_MOST_OPTIMIZATIONS="1",  # half of the time
    )


def test_a_tf_keras_model_needs_the_tensorflow_backend():
    run(
        "import keras, tf_keras, numpy as np\n"
        "import tf_spline_prune as tsp\n"
        "model = tf_keras.Sequential([tf_keras.Input((4,)),\n"
        "    tf_keras.layers.Dense(3, activation='relu'), tf_keras.layers.Dense(2)])\n"
        "try:\n"
        "    tsp.PartitionCoder(model)(np.zeros((2, 4), 'float32'))\n"
        "except tsp.errors.FlavourError as error:\n"
        "    assert 'KERAS_BACKEND=tensorflow' in str(error)\n"
        "else:\n"
        "    raise SystemExit('no error')\n",
        KERAS_BACKEND="jax",
    )
