"""Widened by scaled copies of its units, a network is pruned back to itself.

Every hidden unit is replaced by several copies of the same direction and of
different positive scales, and what reads it is split so that the wide network
computes what the original does. The spline criterion with `recover="merge"` must
find the copies and give the original function back; magnitude cannot.
"""

import numpy as np
import pytest
import zoo

import tf_spline_prune as tsp

SHAPE = (8, 8, 3)
COPIES = 3


def mlp(K, factor):
    L = K.layers
    return K.Sequential(
        [
            K.Input((6,)),
            L.Dense(10 * factor, activation="relu", name="one"),
            L.Dense(8 * factor, name="two"),
            L.LeakyReLU(0.2),
            L.Dense(7 * factor, name="three"),
            L.ReLU(),
            L.Dropout(0.5),
            L.Dense(4, name="head"),
        ]
    )


def chain(K, factor):
    """Convolutions with BatchNormalization, pooling of both kinds, Flatten."""
    L = K.layers
    x = inputs = K.Input(SHAPE)
    x = zoo.conv_bn(K, x, 6 * factor, "a")
    x = L.MaxPooling2D()(x)
    x = zoo.conv_bn(K, x, 5 * factor, "b")
    x = L.AveragePooling2D(2)(x)
    x = L.Flatten()(x)
    x = L.Dense(6 * factor, use_bias=False, name="c_conv")(x)
    x = L.BatchNormalization(scale=False, name="c_bn")(x)
    x = L.ReLU()(x)
    return K.Model(inputs, L.Dense(4, name="head")(x))


def post_activation(K, factor):
    L = K.layers
    x = inputs = K.Input(SHAPE)
    x = zoo.conv_bn(K, x, 6, "stem")
    for i in range(2):
        y = zoo.conv_bn(K, x, 5 * factor, f"r{i}a")
        y = zoo.conv_bn(K, y, 6, f"r{i}b", act=None)
        x = L.ReLU()(L.Add()([y, x]))
    x = L.GlobalAveragePooling2D()(x)
    return K.Model(inputs, L.Dense(4, name="head")(x))


def pre_activation(K, factor):
    L = K.layers
    x = inputs = K.Input(SHAPE)
    x = L.Conv2D(6, 3, padding="same", use_bias=False, name="stem")(x)
    for i in range(2):
        y = L.ReLU()(L.BatchNormalization(name=f"p{i}_bn1")(x))
        y = zoo.conv_bn(K, y, 5 * factor, f"p{i}c")
        y = L.Conv2D(6, 3, padding="same", use_bias=False, name=f"p{i}_c2")(y)
        x = L.Add()([x, y])
    x = L.ReLU()(L.BatchNormalization(name="last_bn")(x))
    x = L.GlobalAveragePooling2D()(x)
    return K.Model(inputs, L.Dense(4, name="head")(x))


# For each net: the layers that are widened, each with its norm and its reader.
NETS = {
    "mlp": (
        mlp,
        [("one", None, "two"), ("two", None, "three"), ("three", None, "head")],
    ),
    "chain": (
        chain,
        [
            ("a_conv", "a_bn", "b_conv"),
            ("b_conv", "b_bn", "c_conv"),
            ("c_conv", "c_bn", "head"),
        ],
    ),
    "post_activation": (
        post_activation,
        [("r0a_conv", "r0a_bn", "r0b_conv"), ("r1a_conv", "r1a_bn", "r1b_conv")],
    ),
    "pre_activation": (
        pre_activation,
        [("p0c_conv", "p0c_bn", "p0_c2"), ("p1c_conv", "p1c_bn", "p1_c2")],
    ),
}


def read(model):
    return {
        layer.name: {
            str(w.name).rpartition("/")[2].partition(":")[0]: a.astype("float64")
            for w, a in zip(layer.weights, layer.get_weights(), strict=True)
        }
        for layer in model.layers
    }


def widen(weights, spec, rng, way):
    """Replace each unit by scaled copies, in a random order."""
    for maker, norm, reader in spec:
        made = weights[maker]
        units = made["kernel"].shape[-1]
        source = rng.permutation(np.repeat(np.arange(units), COPIES))
        scale = np.exp(rng.uniform(-1.5, 1.5, len(source)))
        share = rng.uniform(0.2, 1.0, len(source))
        share /= np.bincount(source, share)[source]
        for name in made:
            made[name] = made[name][..., source]
        stats = {k: v[source] for k, v in weights[norm].items()} if norm else {}
        if norm:
            weights[norm] = stats
        if not norm:
            made["kernel"] = made["kernel"] * scale
            made["bias"] = made["bias"] * scale
        elif way == "gamma" and "gamma" in stats:
            stats["gamma"] = stats["gamma"] * scale
            stats["beta"] = stats["beta"] * scale
        elif way == "renormalised" and "gamma" in stats:
            # As training leaves them: another kernel, seen by its own statistics.
            by = np.exp(rng.uniform(-0.5, 0.5, len(source)))
            made["kernel"] = made["kernel"] * by
            stats["moving_mean"] = stats["moving_mean"] * by
            variance = by**2 * (stats["moving_variance"] + 1e-3) - 1e-3
            stats["moving_variance"] = variance
            stats["gamma"] = stats["gamma"] * scale
            stats["beta"] = stats["beta"] * scale
        else:
            made["kernel"] = made["kernel"] * scale
            stats["moving_mean"] = stats["moving_mean"] * scale
            stats["beta"] = stats["beta"] * scale
        kernel = weights[reader]["kernel"]
        *space, taken, out = kernel.shape
        kernel = kernel.reshape(*space, taken // units, units, out)
        kernel = kernel[..., source, :] * (share / scale)[:, None]
        weights[reader]["kernel"] = kernel.reshape(*space, -1, out)
    return weights


def build(K, name, way="gamma"):
    builder, spec = NETS[name]
    original = zoo.settle(builder(K, 1), seed=3)
    wide = builder(K, COPIES)
    values = widen(read(original), spec, np.random.default_rng(5), way)
    for layer in wide.layers:
        if layer.weights:
            layer.set_weights(
                [v.astype("float32") for v in values[layer.name].values()]
            )
    return original, wide, [maker for maker, _, _ in spec]


def outputs(model):
    shape = tuple(model.inputs[0].shape[1:])
    x = np.random.default_rng(7).standard_normal((16, *shape)).astype("float32")
    return np.asarray(model(x, training=False)).astype("float64")


def relative(found, expected):
    """Give the largest relative error, each output against its own size."""
    return (np.abs(found - expected).max(axis=0) / np.abs(expected).max(axis=0)).max()


def width(model, layer):
    return model.get_layer(layer).get_weights()[0].shape[-1]


WAYS = ["gamma", "kernel", "renormalised"]
CASES = [("mlp", "kernel"), *((n, w) for n in list(NETS)[1:] for w in WAYS)]


@pytest.mark.parametrize(("name", "way"), CASES)
def test_copies_are_merged_without_loss(K, name, way):
    original, wide, makers = build(K, name, way)
    assert relative(outputs(wide), outputs(original)) < 1e-5

    small = tsp.prune(
        wide,
        "spline",
        sparsity=1 - 1 / COPIES,
        layers=makers,
        scope="global",
        recover="merge",
    )

    for maker in makers:
        assert width(wide, maker) == COPIES * width(original, maker)
        assert width(small, maker) == width(original, maker)
    assert relative(outputs(small), outputs(original)) < 1e-5


@pytest.mark.parametrize("name", list(NETS))
def test_magnitude_loses_what_spline_keeps(K, name):
    original, wide, makers = build(K, name)
    small = tsp.prune(wide, "magnitude", sparsity=1 - 1 / COPIES, layers=makers)
    assert relative(outputs(small), outputs(original)) > 1e-2


@pytest.mark.parametrize("name", list(NETS))
def test_without_merging_the_copies_are_missing(K, name):
    """It is the merge that makes the removal lossless, not the choice alone."""
    original, wide, makers = build(K, name)
    small = tsp.prune(
        wide, "spline", sparsity=1 - 1 / COPIES, layers=makers, recover=None
    )
    assert relative(outputs(small), outputs(original)) > 1e-2


def test_target_finds_the_copies_too(K):
    original, wide, makers = build(K, "chain")
    small = tsp.prune(wide, target_params=int(original.count_params()), recover="merge")
    assert [width(small, m) for m in makers] == [width(original, m) for m in makers]
    assert relative(outputs(small), outputs(original)) < 1e-5


def test_one_unit_too_many_is_not_free(K):
    original, wide, makers = build(K, "mlp")
    total = sum(width(wide, maker) for maker in makers)
    gone = total - total // COPIES + 1
    small = tsp.prune(wide, "spline", sparsity=gone / total, recover="merge")
    kept = [width(small, maker) for maker in makers]
    assert sum(kept) == total // COPIES - 1
    assert relative(outputs(small), outputs(original)) > 1e-4


def test_copies_of_opposite_sign_are_no_copies(K):
    model = zoo.settle(mlp(K, 1))
    kernel, bias = model.get_layer("one").get_weights()
    kernel[:, 1], bias[1] = -2.0 * kernel[:, 0], -2.0 * bias[0]
    kernel[:, 3], bias[3] = 2.0 * kernel[:, 2], 2.0 * bias[2]
    model.get_layer("one").set_weights([kernel, bias])
    plan = tsp.plan(model, "spline", sparsity=0.1, layers="one")
    assert plan.removed in ({"one": [2]}, {"one": [3]})


NOT_MERGEABLE = {
    "tanh": lambda L: [L.Dense(8, activation="tanh", name="x")],
    "relu6": lambda L: [L.Dense(8, name="x"), L.ReLU(max_value=6.0)],
    "threshold": lambda L: [L.Dense(8, name="x"), L.ReLU(threshold=0.5)],
    "elu": lambda L: [L.Dense(8, name="x"), L.ELU()],
    "norm_behind_relu": lambda L: [
        L.Dense(8, activation="relu", name="x"),
        L.BatchNormalization(),
    ],
}


@pytest.mark.parametrize("kind", list(NOT_MERGEABLE))
def test_what_hands_no_scale_on_is_not_merged(K, kind):
    L = K.layers
    model = zoo.settle(
        K.Sequential([K.Input((5,)), *NOT_MERGEABLE[kind](L), L.Dense(3, name="head")])
    )
    plan = tsp.plan(model, "spline", sparsity=0.5)
    assert len(plan.removed["x"]) == 4
    assert not plan.merges
    changed = tsp.merge(model, plan)
    x = np.random.default_rng(0).standard_normal((4, 5)).astype("float32")
    np.testing.assert_array_equal(np.asarray(changed(x)), np.asarray(model(x)))
