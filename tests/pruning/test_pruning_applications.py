"""Models of every family of `keras.applications`, shrunk to half of their MACs.

At small input sizes and with ten classes; `benchmarks/applications.py` does the same
to all of them as they are.
"""

import importlib
import subprocess
import sys

import numpy as np
import pytest

import tf_spline_prune as tsp

# Name and side of the input, per Keras.
MODELS = {
    "keras": [
        *[("VGG16", 32), ("MobileNet", 64), ("MobileNetV2", 64)],
        *[("MobileNetV3Small", 64), ("ResNet50", 64), ("ResNet50V2", 64)],
        *[("DenseNet121", 64), ("InceptionV3", 75), ("Xception", 71)],
        *[("NASNetMobile", 64), ("EfficientNetB0", 64), ("EfficientNetV2B0", 64)],
        *[("ConvNeXtTiny", 64), ("InceptionResNetV2", 75)],
    ],
    "tf_keras": [
        *[("ResNet50", 64), ("MobileNetV2", 64), ("EfficientNetB0", 64)],
        *[("RegNetX002", 64), ("ConvNeXtTiny", 64)],
    ],
}
CASES = [(K, *model) for K, models in MODELS.items() for model in models]


def build(K, name, size):
    """Build a model without the softmax, which would hide differences."""
    model = getattr(K.applications, name)(
        weights=None,
        input_shape=(size, size, 3),
        classes=10,
        classifier_activation=None,
    )
    return settle(model)


def leaves(layer):
    inner = getattr(layer, "layers", None)
    return [leaf for one in inner for leaf in leaves(one)] if inner else [layer]


def settle(model):
    """Give all weights values through which the input reaches the output."""
    rng = np.random.default_rng(0)
    for layer in leaves(model):
        kind = type(layer).__name__
        for weight in layer.weights if kind != "Normalization" else ():
            name, shape = weight.name, tuple(weight.shape)
            if kind == "LayerScale" or "gamma" in name:
                weight.assign(rng.uniform(0.5, 1.5, shape))
            elif "variance" in name:
                weight.assign(rng.uniform(0.5, 2.0, shape))
            elif "kernel" in name:
                # A depthwise kernel sums over its window only.
                depthwise = kind == "DepthwiseConv2D" or "depthwise_kernel" in name
                fan_in = np.prod(shape[:2] if depthwise else shape[:-1])
                weight.assign(rng.normal(0.0, np.sqrt(2 / fan_in), shape))
            else:
                weight.assign(rng.normal(0.0, 0.1, shape))
    return model


def images(model, count, seed=1):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(count, *model.input_shape[1:])).astype("float32")


def prunable_fraction(graph):
    """Give the share of the MACs in which a unit that may go takes part."""
    free = graph.nothing_removed()
    for group in graph.groups:
        free[group.roots] = True
    total = fixed = 0
    for fact in graph.weights.values():
        pairs = [*zip(fact.shape, fact.axes, strict=True)]
        pairs += [(len(labels), labels) for labels in fact.rows]
        stay = [
            size if labels is None else int((~free[graph.units_of(labels)]).sum())
            for size, labels in pairs
        ]
        total += fact.uses * int(np.prod([size for size, _ in pairs], dtype=object))
        fixed += fact.uses * int(np.prod(stay, dtype=object))
    return 1 - fixed / total


def reloaded(K, model, file):
    model.save(file)
    custom = {}
    if K.__name__ == "tf_keras" and model.name.startswith("convnext"):
        # Keras' own class, which it does not find by itself in a file.
        home = importlib.import_module("tf_keras.src.applications.convnext")
        custom = {"LayerScale": home.LayerScale}
    return K.models.load_model(file, custom_objects=custom)


@pytest.mark.slow
@pytest.mark.parametrize(("K", "name", "size"), CASES, indirect=["K"])
def test_application(K, name, size, tmp_path):
    model = build(K, name, size)
    normed = name.startswith("ConvNeXt")  # over its units, which then must stay
    assert prunable_fraction(tsp.ChannelGraph(model)) >= (0.9 if normed else 0.95)

    plan = tsp.plan(model, "magnitude", target_macs=0.5)
    small = plan.apply(model)
    assert tsp.cost(small) == plan.after
    assert 0.49 <= plan.after.macs / plan.before.macs <= 0.5
    assert tsp.verify(model, small, plan) <= 1e-4

    x = images(model, 2)
    before = np.asarray(model(x, training=False))
    expected = np.asarray(small(x, training=False))
    largest = np.abs(expected).max()
    # What was removed mattered, or the comparisons would say nothing.
    assert np.abs(before - expected).max() > 1e-2 * np.abs(before).max()
    again = reloaded(K, small, tmp_path / "small.keras")
    assert np.abs(again(x, training=False) - expected).max() <= 1e-5 * largest

    loss = K.losses.CategoricalCrossentropy(from_logits=True)
    small.compile("sgd", loss, run_eagerly=True)
    old = [np.array(weight) for weight in small.trainable_weights]
    assert np.isfinite(small.train_on_batch(x, np.eye(10)[[3, 7]]))
    new = [np.array(weight) for weight in small.trainable_weights]
    moved = [not np.array_equal(a, b) for a, b in zip(old, new, strict=True)]
    assert sum(moved) > len(moved) / 2


@pytest.mark.slow
def test_convnext_through_its_normalisations(K):
    model = build(K, "ConvNeXtTiny", 64)
    assert prunable_fraction(tsp.ChannelGraph(model, approximate=True)) > 0.999
    plan = tsp.plan(model, "magnitude", target_macs=0.5, approximate=True)
    assert "convnext_tiny_stage_1_block_0_layernorm" in plan.approximate
    small = plan.apply(model)
    assert tsp.cost(small) == plan.after
    assert 0.49 <= plan.after.macs / plan.before.macs <= 0.5
    assert tsp.verify(model, small, plan) <= 1e-4


@pytest.mark.parametrize(
    ("K", "name"),
    [("keras", "MobileNetV2"), ("tf_keras", "RegNetX002")],
    indirect=["K"],
)
def test_application_ships(K, name, tmp_path):
    """Both exports compare the outputs themselves, and raise."""
    model = build(K, name, 64)
    small = tsp.plan(model, "magnitude", target_macs=0.5).apply(model)
    saved = tsp.export_saved_model(small, tmp_path / "served")
    file = tsp.export_litert(small, tmp_path / "small.tflite")
    assert max(saved.max_difference, file.max_difference) <= 1e-4
    small.save(tmp_path / "small.keras")
    x = images(small, 2)
    np.savez(tmp_path / "given.npz", x=x, y=np.asarray(small(x, training=False)))
    code = (
        f"import sys, numpy as np, {K.__name__} as K\n"
        "model, given = K.models.load_model(sys.argv[1]), np.load(sys.argv[2])\n"
        "found, y = np.asarray(model(given['x'], training=False)), given['y']\n"
        "assert 'tf_spline_prune' not in sys.modules\n"
        "assert np.abs(found - y).max() <= 1e-5 * np.abs(y).max()\n"
    )
    arguments = [tmp_path / "small.keras", tmp_path / "given.npz"]
    subprocess.run([sys.executable, "-c", code, *map(str, arguments)], check=True)
