"""The example of every public docstring runs, and what it says it gives is so.

All share small models and a few images, in a folder of their own. Names that an
example leaves to its reader are prepared here.
"""

import ast
import contextlib
import inspect
import json
import re

import numpy as np
import pytest

import tf_spline_prune as tsp

pytestmark = [
    # So few images, and so short a training, are told of.
    pytest.mark.filterwarnings("ignore::tf_spline_prune.errors.SplinePruneWarning"),
    # Keras says so of every `fit` on a `tf.data.Dataset`.
    pytest.mark.filterwarnings("ignore:.shuffle=True. was passed:UserWarning"),
]
# What an example may use and still stand for itself.
FREE = {"tsp", "np", "keras", "tf"}


def named_things():
    """Yield every public function, class and method, under the name users write."""
    public = {name: getattr(tsp, name) for name in tsp.__all__}
    modules = {n: thing for n, thing in public.items() if inspect.ismodule(thing)}
    found = {name: public[name] for name in public.keys() - modules.keys()}
    for short, module in modules.items():
        for name in getattr(module, "__all__", [*vars(module)]):
            thing = getattr(module, name)
            if callable(thing) and not any(thing is one for one in found.values()):
                found[f"{short}.{name}"] = thing
    for name, thing in found.items():
        yield name, thing
        if isinstance(thing, type):
            for part, method in vars(thing).items():
                if inspect.isfunction(method) and not part.startswith("_"):
                    yield f"{name}.{part}", method


def example_of(thing):
    """Give the code of a docstring's example, or None."""
    text = inspect.getdoc(thing) if isinstance(thing.__doc__, str) else ""
    found = re.search(r"^Example:\n\n```python\n(.*?)^```", text, re.S | re.M)
    return found and found[1]


EXAMPLES = {name: code for name, t in named_things() if (code := example_of(t))}


def small_model(keras):
    L = keras.layers
    inputs = keras.Input((28, 28, 1), name="image")
    x = L.Conv2D(8, 14, strides=14, use_bias=False, name="conv2d_2")(inputs)
    x = L.BatchNormalization(momentum=0.9, name="bn")(x)
    x = L.ReLU(name="relu")(x)
    x = L.Conv2D(8, 1, activation="relu", name="conv2d_3")(x)
    x = L.GlobalAveragePooling2D(name="pool")(x)
    model = keras.Model(inputs, L.Dense(10, name="scores")(x))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss, metrics=["accuracy"], run_eagerly=True)
    return model


def decoder_of(keras, latents):
    return keras.Sequential(
        [
            keras.Input((latents,)),
            keras.layers.Dense(8, activation="leaky_relu"),
            keras.layers.Dense(12),
        ]
    )


def tanh_model(keras):
    model = keras.Sequential([keras.Input((28, 28, 1)), keras.layers.Flatten()])
    for _ in range(3):
        model.add(keras.layers.Dense(32, "tanh"))
    return model


def residual_model(keras):
    inputs = keras.Input((16,))
    x = keras.layers.Dense(16, activation="relu", name="stem")(inputs)
    y = keras.layers.Dense(16, activation="relu", name="inner")(x)
    y = keras.layers.Dense(16, name="outer")(y)
    x = keras.layers.Add(name="sum")([x, y])
    return keras.Model(inputs, keras.layers.Dense(10, name="scores")(x))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("examples")


@pytest.fixture(scope="module")
def prepared(folder):
    """Make the names that examples leave to their reader."""
    import keras
    import tensorflow as tf

    keras.utils.set_random_seed(0)

    class MyScale(keras.layers.Layer):
        def __init__(self, dim, **kwargs):
            super().__init__(**kwargs)
            self.dim = dim

        def build(self, shape):
            self.gamma = self.add_weight(shape=(self.dim,), name="gamma")

        def call(self, inputs):
            return inputs * self.gamma

        def get_config(self):
            return {**super().get_config(), "dim": self.dim}

    rng = np.random.default_rng(0)
    x = rng.normal(size=(16, 28, 28, 1)).astype("float32")
    y = rng.integers(10, size=16)
    y[:10] = range(10)
    train = tf.data.Dataset.from_tensor_slices((x, y)).batch(32)
    model = small_model(keras)
    plan = tsp.plan(model, sparsity=0.5)
    masked = tsp.prune_once(model, 0.8)
    coder = tsp.PartitionCoder(model)
    before = coder(x)
    bird = tsp.SplineEarlyBird(x, stop=False, keep_history=True)
    complexity = tsp.LocalComplexityLogger({"train": x[:8]}, 0.05)
    model.fit(train, epochs=5, verbose=0, callbacks=[bird])
    model.save_weights(folder / "pretrained.weights.h5")
    tsp.export_litert(model, folder / "fashion.tflite")
    tsp.export_litert(model, folder / "digits.tflite", labels=list("0123456789"))
    z = tsp.probes.noise((8,), 16)
    ramp = tsp.schedules.OneShot(0.5, 2)
    w1, g1, w2, g2 = rng.normal(size=(4, 8, 8))
    return {
        **{"tsp": tsp, "np": np, "keras": keras, "tf": tf},
        **{"json": json, "MyScale": MyScale, "loss": model.loss},
        **{"x": x, "y": y, "x_train": x, "y_train": y, "x_test": x, "y_test": y},
        **{"train": train, "test": train, "anchors": x[:3]},
        **{"images": (100 + 20 * x).clip(0, 255).astype("uint8")},
        **{"class_names": [f"class {i}" for i in range(10)]},
        **{"model": model, "early": small_model(keras), "wide": small_model(keras)},
        **{"fresh": small_model(keras), "tanh_net": tanh_model(keras)},
        **{"small": plan.apply(model), "plan": plan, "resnet": residual_model(keras)},
        **{"masked": masked, "weights": masked.get_weights(), "schedule": ramp},
        **{"pruning": tsp.MaskPruning(ramp), "bird": bird, "complexity": complexity},
        **{"coder": coder, "before": before, "after": coder(x)},
        **{"logits": model.predict(x, verbose=0)},
        **{"decoder": decoder_of(keras, 8), "planar": decoder_of(keras, 2)},
        **{"latents": z, "z": z},
        **{"z_start": z[0], "z_end": z[1]},
        **{"w1": w1, "g1": g1, "w2": w2, "g2": g2},
        "evaluate": lambda one: float(one(x).numpy().mean()),
        "teach": lambda one: one.compile("adam", model.loss),
        "train_step": lambda one, batch: one.train_on_batch(*batch),
    }


def briefly(code):
    """Train for two epochs, and draw few, where the example does more."""
    return re.sub(r"20_000", "500", re.sub(r"\bepochs=\d+", "epochs=2", code))


def run(code, names):
    """Run an example; give what its lines give beside what they say they give."""
    lines = code.splitlines()
    for statement in ast.parse(code).body:
        source = ast.unparse(statement)
        if not isinstance(statement, ast.Expr):
            exec(source, names)
            continue
        value = eval(source, names)
        _, _, said = lines[statement.end_lineno - 1].partition("# ")
        for words in (said, said.partition(": ")[0]):
            with contextlib.suppress(ValueError, SyntaxError):
                yield value, ast.literal_eval(words)


def test_no_example_is_overlooked():
    said = [name for name, thing in named_things() if "Example" in str(thing.__doc__)]
    assert [name for name in said if name not in EXAMPLES] == []


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example(name, prepared, folder, monkeypatch):
    monkeypatch.chdir(folder)
    told = list(run(briefly(EXAMPLES[name]), dict(prepared)))
    tree = ast.walk(ast.parse(EXAMPLES[name]))
    words = {node.id for node in tree if isinstance(node, ast.Name)}
    if not words & (prepared.keys() - FREE):
        for value, said in told:
            assert value == said or value == pytest.approx(said, rel=2e-3)


def test_what_an_example_says_it_gives_is_seen():
    code = "a = 1  # 7\na + 1  # 3: three\na  # one\n{a: 2}  # {1: 2}\n"
    assert list(run(code, {})) == [(2, 3), ({1: 2}, {1: 2})]
