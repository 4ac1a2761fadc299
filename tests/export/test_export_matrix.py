"""Each kind of model, whole, shrunk and masked, in each format, in a new process."""

import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import zoo

import tf_spline_prune as tsp

# Largest difference from Keras, relative to the largest output, on unseen inputs.
TOLERANCES = {
    "saved_model": 1e-4,
    "float32": 1e-4,
    "float16": 1e-2,
    "dynamic": 0.05,
    "int8": 0.2,
}


def depthwise(K):
    L = K.layers
    x = i = K.Input((12, 12, 3), name="image")
    for width in (16, 24):
        x = L.DepthwiseConv2D(3, padding="same", use_bias=False)(x)
        x = L.ReLU(6.0)(L.BatchNormalization()(x))
        x = L.Conv2D(width, 1, use_bias=False)(x)
        x = L.ReLU(6.0)(L.BatchNormalization()(x))
    return K.Model(i, L.Dense(5)(L.GlobalAveragePooling2D()(x)))


def conv_bn(K):
    L = K.layers
    x = i = K.Input((12, 12, 3), name="image")
    for width in (16, 24):
        x = L.Conv2D(width, 3, padding="same", use_bias=False)(x)
        x = L.MaxPooling2D()(L.ReLU()(L.BatchNormalization()(x)))
    return K.Model(i, L.Dense(5)(L.Flatten()(x)))


def two_outputs(K):
    L = K.layers
    i = K.Input((10,), name="features")
    x = L.Dense(32, activation="relu")(L.Dense(32, activation="relu")(i))
    return K.Model(
        i, {"kind": L.Dense(4, activation="softmax")(x), "size": L.Dense(1)(x)}
    )


def recurrent(K):
    L = K.layers
    i = K.Input((6, 5), name="steps")
    x = L.LSTM(12, return_sequences=True)(i)
    return K.Model(i, L.Dense(3)(L.GRU(8)(x)))


BUILDERS = [zoo.mlp, conv_bn, depthwise, zoo.resnet, two_outputs, recurrent]

FRESH = """
import pathlib, sys
import numpy as np
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter

folder = pathlib.Path(sys.argv[1])
for given in sorted(folder.glob("*.npz")):
    stored = dict(np.load(given))
    x = stored.pop("inputs")
    serve = tf.saved_model.load(str(folder / given.stem / "1"))
    serve = serve.signatures["serving_default"]
    (name,) = serve.structured_input_signature[1]
    answers = {"saved_model": {k: v.numpy() for k, v in serve(**{name: x}).items()}}
    for file in sorted(folder.glob(given.stem + "-*.tflite")):
        runner = Interpreter(str(file)).get_signature_runner("serving_default")
        fixed = runner.get_input_details()[name]["shape_signature"][0]
        size = len(x) if fixed < 0 else fixed
        parts = [runner(**{name: x[i : i + size]}) for i in range(0, len(x), size)]
        joined = {k: np.concatenate([p[k] for p in parts]) for k in parts[0]}
        answers[file.stem.split("-")[1]] = joined
    for format, found in answers.items():
        assert set(found) == set(stored), (format, set(found))
        for key, expected in stored.items():
            error = np.abs(found[key] - expected).max() / np.abs(expected).max()
            print(given.stem, format, key, error)
assert not {"tf_spline_prune", "tf_keras"} & set(sys.modules)
"""


@pytest.mark.slow
@pytest.mark.parametrize("build", BUILDERS, ids=lambda f: f.__name__)
def test_every_format_answers_in_a_fresh_process(K, build, tmp_path):
    model = zoo.settle(build(K))
    variants = {
        "whole": model,
        "shrunk": tsp.prune(model, "magnitude", sparsity=0.5),
        "masked": tsp.strip_masks(tsp.prune_once(model, 0.5)),
    }
    servable = tsp.litert.Servable(model)
    (end,) = servable.inputs
    (seen,) = servable.random_inputs(256, seed=1).values()
    (x,) = servable.random_inputs(16, seed=2).values()
    for name, variant in variants.items():
        expected = tsp.litert.Servable(variant).predict(
            {next(iter(servable.inputs)): x}
        )
        np.savez(tmp_path / f"{name}.npz", inputs=x, **expected)
        tsp.export_saved_model(variant, tmp_path / name)
        for kind in (None, "float16", "dynamic", "int8"):
            file = tmp_path / f"{name}-{kind or 'float32'}.tflite"
            data = seen if kind == "int8" else None
            tsp.export_litert(variant, file, kind, representative_data=data)
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(FRESH), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    assert done.returncode == 0, done.stderr
    cells = [line.split() for line in done.stdout.splitlines()]
    outputs = len(tsp.litert.Servable(model).outputs)
    assert len(cells) == len(variants) * len(TOLERANCES) * outputs
    wrong = [cell for cell in cells if not float(cell[3]) <= TOLERANCES[cell[1]]]
    assert not wrong
