"""Every public docstring states each default, and its example is true.

Examples share small models and a few images, in a folder of their own; names that
they leave to the reader are prepared here. A value behind a line, and what is written
below a `print`, is compared with what comes out.
"""

import ast
import contextlib
import dataclasses
import decimal
import inspect
import io
import itertools
import json
import math
import pathlib
import re
import types

import numpy as np
import pytest

import tf_spline_prune as tsp

pytestmark = [
    # So few images, and so short a training, are told of.
    pytest.mark.filterwarnings("ignore::tf_spline_prune.errors.SplinePruneWarning"),
    # Keras says so of every `fit` on a `tf.data.Dataset`.
    pytest.mark.filterwarnings("ignore:.shuffle=True. was passed:UserWarning"),
]
# How a value that a comment states begins.
VALUE = re.compile(r"[-.\d\"'(\[{]|True\b|False\b|None\b|sqrt\(")
NUMBER = r"\d[\d,.]*(?:e[-+]\d+)?"


def public(module):
    """Return the public names of a module, also of one that does not list them."""
    own = {
        name
        for name, thing in vars(module).items()
        if name[0] != "_" and getattr(thing, "__module__", "") == module.__name__
    }
    return getattr(module, "__all__", sorted(own))


def named_things():
    """Yield every public function, class and method, under the name users write."""
    found = {name: getattr(tsp, name) for name in tsp.__all__}
    modules = {n: m for n, m in found.items() if isinstance(m, types.ModuleType)}
    found = {name: thing for name, thing in found.items() if name not in modules}
    for short, module in modules.items():
        for name in public(module):
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
    """Return the code of a docstring's example, or None."""
    text = inspect.getdoc(thing) if isinstance(thing.__doc__, str) else ""
    found = re.search(r"^Example:\n\n```python\n(.*?)^```", text, re.S | re.M)
    return found and found[1]


THINGS = [*named_things()]
EXAMPLES = {name: code for name, thing in THINGS if (code := example_of(thing))}
# Words with which nobody else begins.
NOT_IMPERATIVE = {"Give", "Gives", "Name", "Say", "Says", "Tell", "Tells"}


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
    """Run an example; yield what its lines return beside what they say they return."""
    lines = code.splitlines()
    for statement in ast.parse(code).body:
        source = ast.unparse(statement)
        if not isinstance(statement, ast.Expr):
            exec(source, names)
            continue
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            value = eval(source, names)
        _, _, said = lines[statement.end_lineno - 1].partition("# ")
        if VALUE.match(said):
            yield value, said
        below = lines[statement.end_lineno :]
        below = [*itertools.takewhile(lambda line: line.startswith("# "), below)]
        if below and source.startswith("print("):
            said = " ".join(line.removeprefix("# ") for line in below)
            yield without_numbers(printed.getvalue()), repr(without_numbers(said))


def without_numbers(text):
    """Return a printed text with a 0 for each number, as times and sizes vary."""
    return re.sub(NUMBER, "0", " ".join(text.split()))


def agrees(value, said):
    """Return whether a value is the one that a comment begins with.

    Numbers are compared to the digits that are written.
    """
    for words in (said, said.partition(": ")[0], said.partition(" (")[0]):
        with contextlib.suppress(SyntaxError):
            return _agrees(value, ast.parse(words, mode="eval").body, words)
    raise ValueError(f"No value: {said}")


def _agrees(value, node, text):
    if isinstance(node, ast.Tuple | ast.List):
        return len(value) == len(node.elts) and all(
            _agrees(one, part, text) for one, part in zip(value, node.elts, strict=True)
        )
    expected = eval(ast.unparse(node), {"sqrt": math.sqrt})
    if not isinstance(expected, float):
        return bool(value == expected)
    slack = 1e-9
    if not isinstance(node, ast.Call):
        digits = decimal.Decimal(ast.get_source_segment(text, node).replace("_", ""))
        slack = 0.5 * 10.0 ** digits.as_tuple().exponent
    return abs(value - expected) <= slack * (1 + 1e-6)


def test_no_example_is_overlooked():
    said = [name for name, thing in THINGS if "Example" in str(thing.__doc__)]
    assert [name for name in said if name not in EXAMPLES] == []


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example(name, prepared, folder, monkeypatch):
    monkeypatch.chdir(folder)
    for value, said in run(briefly(EXAMPLES[name]), dict(prepared)):
        assert agrees(value, said), (value, said)


def test_what_an_example_says_it_returns_is_seen():
    code = (
        "a = 1  # 7\na + 1  # 3: three\na  # one\n{a: 2}  # {1: 2}\n"
        "print('in 12.5 s')\n# in 7 s\na  # (2\n"
    )
    seen = list(run(code, {}))
    assert seen[:2] == [(2, "3: three"), ({1: 2}, "{1: 2}")]
    assert [agrees(*pair) for pair in seen[:3]] == [False, True, True]
    with pytest.raises(ValueError, match="No value"):
        agrees(*seen[3])
    assert agrees(0.304, "0.30") and not agrees(0.306, "0.30")
    assert agrees((1.259e18, 2), "(1.26e18, 2) (of each)")


def parameters():
    """Yield every parameter with a default of what is public, and the text on it."""
    import keras

    hooks = {*vars(keras.layers.Layer), *vars(keras.callbacks.Callback)}
    for name, thing in THINGS:
        made = thing.__init__ if isinstance(thing, type) else thing
        home = getattr(inspect.unwrap(made), "__module__", None) or ""
        if not home.startswith("tf_spline_prune") or name.split(".")[-1] in hooks:
            continue  # what Keras, TFMOT or TFDS document
        for parameter in inspect.signature(thing).parameters.values():
            default = parameter.default
            if default is parameter.empty or type(default) is object:
                continue
            if dataclasses.is_dataclass(thing) and repr(default) == "<factory>":
                default = thing.__dataclass_fields__[parameter.name].default_factory()
            yield name, parameter.name, default, said_of(thing, parameter.name)


def said_of(thing, name):
    """Return what a docstring says of an argument, on one line, or None."""
    text = inspect.getdoc(thing) or ""
    sections = re.findall(r"^(?:Args|Attributes):\n((?: .*\n?|\n)*)", text, re.M)
    for section in sections:
        found = re.search(rf"^    {name}: (.*(?:\n     .*)*)", section, re.M)
        if found:
            return " ".join(found[1].split())
    return None


def fault(default, said):
    """Return what is wrong with what is said of an argument, if anything is."""
    if said is None:
        return "not in Args"
    stated = re.search(r"Defaults to `([^`]+)`", said)
    if not stated:
        return "no default"
    if eval(stated[1], {}) != default:
        return f"{stated[1]} is not the default"
    if re.match(r"(As in|See) \S+$", said.partition(" Defaults to")[0]):
        return "sends away"
    return None


def test_every_default_is_stated_and_true():
    told = [*parameters()]
    faults = [(*one[:2], found) for one in told if (found := fault(*one[2:]))]
    assert len(told) > 300 and faults == []


def test_faults_of_arguments_are_seen():
    assert fault(1, None) and fault(1, "A size.") and fault(1, "Defaults to `2`.")
    assert fault(1, "As in `plan`. Defaults to `1`.")
    assert fault(True, "Whether. Defaults to `True`.") is None
    assert fault("a", 'A name. Defaults to `"a"`.') is None


def test_first_lines_are_in_the_imperative():
    for path in pathlib.Path(tsp.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and (text := ast.get_docstring(node)):
                assert text.split()[0] not in NOT_IMPERATIVE, f"{path}: {text}"
