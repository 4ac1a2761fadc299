"""Units, groups and barriers of whole architectures, known by hand.

Where units are removed, a second model in which the readers' weights are zeroed by
hand is the reference.
"""

import keras
import numpy as np
import pytest
import zoo

import tf_spline_prune as tsp
from tf_spline_prune.graph._recorder import Recorder


def groups_of(model):
    return {group.name: group for group in tsp.ChannelGraph(model).groups}


def makers(group):
    return {member.path for member in group.producers}


def readers(group):
    return {member.path for member in group.consumers}


def barriers_of(model):
    return {b.layer: (b.units, b.reason) for b in tsp.ChannelGraph(model).barriers}


def finish(K, x, inputs):
    x = K.layers.GlobalAveragePooling2D()(x)
    return zoo.settle(K.Model(inputs, K.layers.Dense(3, name="head")(x)))


def conv(K, filters, name, **kwargs):
    return K.layers.Conv2D(filters, 3, padding="same", name=name, **kwargs)


def test_residual(K):
    groups = groups_of(zoo.resnet(K))
    found = {frozenset(makers(group)): group for group in groups.values()}
    assert set(found) == {
        frozenset({"stem_conv", "r0b_conv"}),
        frozenset({"r0a_conv"}),
        frozenset({"r1a_conv"}),
        frozenset({"r1b_conv", "r1s_conv", "r2b_conv"}),
        frozenset({"r2a_conv"}),
    }
    stem = found[frozenset({"stem_conv", "r0b_conv"})]
    assert stem.num_units == 16
    assert readers(stem) == {"r0a_conv", "r1a_conv", "r1s_conv"}
    norms = {m.path for m in stem.members if m.name == "gamma"}
    assert norms == {"stem_bn", "r0b_bn"}
    last = found[frozenset({"r1b_conv", "r1s_conv", "r2b_conv"})]
    assert readers(last) == {"r2a_conv", "head"}
    for group in groups.values():
        for member in group.members:
            expected = np.arange(group.num_units)[:, None]
            np.testing.assert_array_equal(member.positions, expected)


def test_concatenation(K):
    groups = groups_of(zoo.densenet(K))
    assert {name: g.num_units for name, g in groups.items()} == {
        "stem": 12,
        "d0_conv": 8,
        "d1_conv": 8,
        "d2_conv": 8,
        "transition": 16,
    }
    # Where each layer's units begin in what the transition reads.
    for name, start in {"stem": 0, "d0_conv": 12, "d1_conv": 20, "d2_conv": 28}.items():
        member = groups[name].member("transition", "kernel")
        assert member.role == "in"
        expected = start + np.arange(groups[name].num_units)
        np.testing.assert_array_equal(member.positions[:, 0], expected)
    assert readers(groups["d1_conv"]) == {"d2_conv", "transition"}


def test_flatten_takes_every_position(K):
    groups = groups_of(zoo.vgg(K))
    member = groups["b1_conv"].member("fc", "kernel")
    grid = np.arange(4 * 24).reshape(4, 24)  # 2x2 positions, channels last
    np.testing.assert_array_equal(member.positions, grid.T)


def test_permute_and_reshape(K):
    L = K.layers
    inputs = K.Input((4, 5, 2))
    x = conv(K, 6, "c")(inputs)
    x = L.Permute((3, 1, 2))(x)
    x = L.Reshape((6, 20))(x)
    x = L.Flatten()(x)
    model = zoo.settle(K.Model(inputs, L.Dense(3, name="head")(x)))
    (group,) = groups_of(model).values()
    member = group.member("head", "kernel")
    np.testing.assert_array_equal(member.positions, np.arange(120).reshape(6, 20))
    small = tsp.remove_units(model, {"c": [1, 4]})
    rows = model.get_layer("head").get_weights()[0].reshape(6, 20, 3)
    expected = np.delete(rows, [1, 4], axis=0).reshape(80, 3)
    np.testing.assert_array_equal(small.get_layer("head").get_weights()[0], expected)


def test_reshape_that_splits_units_ties_those_of_equal_place(K):
    L = K.layers
    inputs = K.Input((4,))
    x = L.Dense(12, name="wide")(inputs)
    x = L.Flatten()(L.Reshape((3, 4), name="split")(x))
    x = L.Dense(6, activation="relu", name="free")(x)
    model = zoo.settle(K.Model(inputs, L.Dense(3, name="head")(x)))
    assert groups_of(model)["wide"].num_units == 4
    small = tsp.remove_units(model, {"wide": [1]})
    assert small.get_layer("wide").units == 9
    x = np.random.default_rng(0).standard_normal((5, 4)).astype("float32")
    weights = {layer.name: layer.get_weights() for layer in model.layers}
    read, bias = weights["free"]
    read[[1, 5, 9]] = 0.0
    model.get_layer("free").set_weights([read, bias])
    np.testing.assert_allclose(small(x), model(x), atol=1e-5)


def test_depthwise(K):
    model = zoo.mobilenet(K)
    group = groups_of(model)["m0_expand"]
    assert makers(group) == {"m0_expand"}
    assert readers(group) == {"m0_project"}
    member = group.member("m0_dw", "kernel")
    assert (member.role, member.axis) == ("channel", 2)


def test_depthwise_with_a_multiplier(K):
    L = K.layers
    inputs = K.Input((5, 5, 2))
    x = conv(K, 4, "c")(inputs)
    x = L.DepthwiseConv2D(3, depth_multiplier=3, activation="relu", name="dw")(x)
    x = L.BatchNormalization(name="bn")(x)
    model = finish(K, conv(K, 4, "after")(x), inputs)
    member = groups_of(model)["c"].member("after", "kernel")
    np.testing.assert_array_equal(member.positions, np.arange(12).reshape(4, 3))
    small = tsp.remove_units(model, {"c": [2]})
    old = dict((n, model.get_layer(n)) for n in ("dw", "bn", "after"))
    gone = [6, 7, 8]
    new = {name: small.get_layer(name).get_weights() for name in old}
    kernel, bias = old["dw"].get_weights()
    np.testing.assert_array_equal(new["dw"][0], np.delete(kernel, 2, axis=2))
    np.testing.assert_array_equal(new["dw"][1], np.delete(bias, gone))
    for a, b in zip(new["bn"], old["bn"].get_weights(), strict=True):
        np.testing.assert_array_equal(a, np.delete(b, gone))
    kernel = old["after"].get_weights()[0]
    np.testing.assert_array_equal(new["after"][0], np.delete(kernel, gone, axis=2))


def grouped(K, groups):
    inputs = K.Input((5, 5, 2))
    x = conv(K, 8, "before", activation="relu")(inputs)
    x = conv(K, 16, "grouped", groups=groups, activation="relu")(x)
    return finish(K, x, inputs)


def relative(found, expected):
    return np.abs(found - expected).max() / np.abs(expected).max()


def test_grouped_convolution(K):
    """Two groups: unit i of the one goes with unit i of the other."""
    model = grouped(K, 2)
    groups = groups_of(model)
    assert {n: g.num_units for n, g in groups.items()} == {"before": 4, "grouped": 8}
    np.testing.assert_array_equal(
        groups["grouped"].member("grouped", "kernel").positions,
        np.arange(16).reshape(2, 8).T,
    )
    small = tsp.remove_units(model, {"before": [1], "grouped": [0, 3]})
    layer = small.get_layer("grouped")
    assert layer.groups == 2 and layer.filters == 12
    before, bias = model.get_layer("before").get_weights()
    gone = [1, 5]
    np.testing.assert_array_equal(
        small.get_layer("before").get_weights()[0], np.delete(before, gone, axis=-1)
    )
    # The kernel reads four channels a group, of which the second goes.
    kernel = model.get_layer("grouped").get_weights()[0]
    kernel = np.delete(np.delete(kernel, 1, axis=2), [0, 3, 8, 11], axis=3)
    np.testing.assert_array_equal(layer.get_weights()[0], kernel)

    # The same, with what the readers read set to zero in a second model.
    reference = grouped(K, 2)
    kernel, bias = reference.get_layer("grouped").get_weights()
    kernel[:, :, 1] = 0
    reference.get_layer("grouped").set_weights([kernel, bias])
    head, bias = reference.get_layer("head").get_weights()
    head[[0, 3, 8, 11]] = 0
    reference.get_layer("head").set_weights([head, bias])
    x = np.random.default_rng(0).standard_normal((3, 5, 5, 2)).astype("float32")
    assert relative(np.asarray(small(x)), np.asarray(reference(x))) < 1e-5


def test_convolution_with_a_group_a_channel(K):
    model = grouped(K, 8)
    groups = groups_of(model)
    assert {n: g.num_units for n, g in groups.items()} == {"before": 8}
    np.testing.assert_array_equal(
        groups["before"].member("head", "kernel").positions,
        np.arange(16).reshape(8, 2),
    )
    small = tsp.remove_units(model, {"before": [0, 6]})
    layer = small.get_layer("grouped")
    assert layer.groups == 6 and layer.filters == 12
    reference = grouped(K, 8)
    head, bias = reference.get_layer("head").get_weights()
    head[[0, 1, 12, 13]] = 0
    reference.get_layer("head").set_weights([head, bias])
    x = np.random.default_rng(0).standard_normal((3, 5, 5, 2)).astype("float32")
    assert relative(np.asarray(small(x)), np.asarray(reference(x))) < 1e-5


def test_separable_convolution(K):
    def build():
        inputs = K.Input((5, 5, 2))
        x = conv(K, 6, "before", activation="relu")(inputs)
        x = K.layers.SeparableConv2D(
            7, 3, depth_multiplier=2, activation="relu", name="sep"
        )(x)
        return finish(K, x, inputs)

    model = build()
    groups = groups_of(model)
    assert {n: g.num_units for n, g in groups.items()} == {"before": 6, "sep": 7}
    small = tsp.remove_units(model, {"before": [3], "sep": [0, 5]})
    reference = build()
    depthwise, pointwise, bias = reference.get_layer("sep").get_weights()
    pointwise[:, :, [6, 7]] = 0
    reference.get_layer("sep").set_weights([depthwise, pointwise, bias])
    head, bias = reference.get_layer("head").get_weights()
    head[[0, 5]] = 0
    reference.get_layer("head").set_weights([head, bias])
    assert [w.shape for w in small.get_layer("sep").get_weights()] == [
        (3, 3, 5, 2),
        (1, 1, 10, 5),
        (5,),
    ]
    x = np.random.default_rng(0).standard_normal((3, 5, 5, 2)).astype("float32")
    assert relative(np.asarray(small(x)), np.asarray(reference(x))) < 1e-5


def test_gate_of_squeeze_and_excitation(K):
    """A gate of one entry a channel goes with the channel that it scales."""

    def build():
        L = K.layers
        inputs = K.Input((5, 5, 2))
        x = conv(K, 8, "c", activation="relu")(inputs)
        gate = L.GlobalAveragePooling2D(keepdims=True)(x)
        gate = L.Dense(3, activation="relu", name="squeeze")(gate)
        gate = L.Dense(8, activation="sigmoid", name="excite")(gate)
        return finish(K, L.Multiply()([x, gate]), inputs)

    model = build()
    groups = {frozenset(makers(g)): g for g in groups_of(model).values()}
    assert set(groups) == {frozenset({"c", "excite"}), frozenset({"squeeze"})}
    small = tsp.remove_units(model, {"c": [2, 3], "squeeze": [0]})
    reference = build()
    for name, rows in {"squeeze": [2, 3], "excite": [0], "head": [2, 3]}.items():
        kernel, bias = reference.get_layer(name).get_weights()
        kernel[rows] = 0
        reference.get_layer(name).set_weights([kernel, bias])
    x = np.random.default_rng(0).standard_normal((3, 5, 5, 2)).astype("float32")
    assert relative(np.asarray(small(x)), np.asarray(reference(x))) < 1e-5


def test_unknown_layer_is_a_barrier(K):
    class Odd(K.layers.Layer):
        def call(self, x):
            return x[..., ::-1]

    inputs = K.Input((5, 5, 2))
    x = conv(K, 6, "free", activation="relu")(inputs)
    x = conv(K, 8, "held", activation="relu")(x)
    x = Odd(name="odd")(x)
    x = conv(K, 7, "behind", activation="relu")(x)
    model = finish(K, x, inputs)
    groups = groups_of(model)
    assert set(groups) == {"free", "behind"}
    units, reason = barriers_of(model)["held"]
    assert units == 8 and "odd" in reason and "Odd" in reason
    plan = tsp.plan(model, "random", sparsity=0.5, scope="layer")
    assert set(plan.removed) == {"free", "behind"}
    assert tsp.verify(model, plan.apply(model), plan) < 1e-5


def test_user_subclass_that_computes_as_its_base(K):
    class Mine(K.layers.Dense):
        """The same as `Dense`, with a name of its own."""

    class Doubled(K.layers.Dense):
        def call(self, x):
            return 2 * super().call(x)[..., ::-1]

    inputs = K.Input((4,))
    x = Mine(6, activation="relu", name="mine")(inputs)
    x = K.layers.Dense(5, activation="relu", name="plain")(x)
    x = Doubled(5, name="doubled")(x)
    model = K.Model(inputs, K.layers.Dense(2, name="head")(x))
    assert set(groups_of(model)) == {"mine"}
    assert "doubled" in barriers_of(model)["plain"][1]


def test_constant_vector_is_cut_along():
    """Keras 3 operations: a vector beside units loses the numbers of those that go."""
    inputs = keras.Input((4,))
    x = keras.layers.Dense(6, name="held")(inputs)
    x = x * np.arange(6, dtype="float32")
    x = keras.layers.Dense(5, name="free")(x)
    x = keras.ops.relu(x * 2.0)
    model = keras.Model(inputs, keras.layers.Dense(2, name="head")(x))
    assert set(groups_of(model)) == {"held", "free"}
    small = tsp.remove_units(model, {"held": [1, 4]})
    kernel, bias = model.get_layer("free").get_weights()
    kernel[[1, 4]] = 0
    model.get_layer("free").set_weights([kernel, bias])
    values = np.random.default_rng(0).normal(size=(3, 4)).astype("float32")
    np.testing.assert_allclose(small(values), model(values), atol=1e-6)


@pytest.mark.parametrize("way", ["inside", "layer", "named"])
def test_softmax_mixes_units(K, way):
    L = K.layers
    inputs = K.Input((4,))
    x = L.Dense(6, activation="relu", name="free")(inputs)
    if way == "inside":
        x = L.Dense(5, activation="softmax", name="held")(x)
    else:
        x = L.Dense(5, name="held")(x)
        x = L.Activation("softmax")(x) if way == "named" else L.Softmax()(x)
    model = K.Model(inputs, L.Dense(2, name="head")(x))
    assert set(groups_of(model)) == {"free"}
    units, reason = barriers_of(model)["held"]
    assert units == 5 and ("may mix its units" in reason or "softmax" in reason)
    head = zoo.mobilenet(K)
    assert barriers_of(head)["head"][0] == 5
    assert "head" not in groups_of(head)


def test_normalisation_across_channels_is_no_free_pass(K):
    L = K.layers
    inputs = K.Input((4,))
    x = L.Dense(6, activation="relu", name="a")(inputs)
    x = L.LayerNormalization(name="ln")(x)
    model = K.Model(inputs, L.Dense(2, name="head")(x))
    assert "a" not in groups_of(model)
    assert "ln" in barriers_of(model)["a"][1]


def test_explain(K):
    graph = tsp.ChannelGraph(zoo.resnet(K))
    text = graph.explain("stem_conv")
    assert text.startswith("stem_conv: 16 units may be pruned")
    assert "produced by stem_conv, r0b_conv" in text
    assert {"r0a_conv", "r1a_conv", "r1s_conv"} <= set(
        text.partition("consumed by ")[2].rstrip(".").split(", ")
    )
    assert graph.explain("head") == (
        "head: 5 units are unprunable: they are the model's output."
    )
    with pytest.raises(ValueError, match="'stem_bn'"):
        graph.explain("stem_bn")


def test_model_is_only_read(K):
    model = zoo.resnet(K)
    before = [w.copy() for w in model.get_weights()]
    names = [layer.name for layer in model.layers]
    tsp.ChannelGraph(model)
    assert names == [layer.name for layer in model.layers]
    for a, b in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def components(count, ties):
    """Find the smallest label of each label's component, one tie at a time."""
    parent = list(range(count))

    def find(i):
        while parent[i] != i:
            i = parent[i]
        return i

    for a, b in ties:
        a, b = find(a), find(b)
        parent[max(a, b)] = min(a, b)
    return [find(i) for i in range(count)]


@pytest.mark.parametrize("seed", range(20))
def test_solve_finds_connected_components(seed):
    rng = np.random.default_rng(seed)
    count = int(rng.integers(1, 200))
    recorder = Recorder({}, False)
    recorder.fresh(count)
    ties = []
    for _ in range(rng.integers(0, 8)):
        size = int(rng.integers(1, 1 + max(1, count // 4)))
        first, second = rng.integers(0, count, (2, size))
        recorder.tie(first, second)
        ties += zip(first.tolist(), second.tolist(), strict=True)
    barred = rng.integers(0, count, 3)
    recorder.bar(barred[:2], "first")
    recorder.bar(barred[2:], "second")
    root, reasons = recorder.solve()
    expected = components(count, ties)
    assert root.tolist() == expected
    assert set(reasons) == {expected[i] for i in barred}
    assert all(reasons[expected[i]] == "first" for i in barred[:2])


def test_solve_long_chains():
    """A chain in the worst order, and a star."""
    recorder = Recorder({}, False)
    labels = recorder.fresh(3000)
    recorder.tie(labels[:-1][::-1], labels[1:][::-1])
    assert (recorder.solve()[0] == 0).all()
    recorder = Recorder({}, False)
    labels = recorder.fresh(3000)
    recorder.tie(labels, np.full(3000, 2999))
    assert (recorder.solve()[0] == 0).all()
