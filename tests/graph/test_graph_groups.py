"""Groups, members and barriers, against hand-made expectations."""

import numpy as np
import pytest
import zoo

import tf_spline_prune as tsp
from tf_spline_prune.graph._recorder import Recorder

pytestmark = pytest.mark.both_flavours


def groups_of(model):
    return {group.name: group for group in tsp.ChannelGraph(model).groups}


def places(group, role):
    return {(m.path, m.name) for m in group.members if m.role == role}


def kept_shapes(model, units):
    small = tsp.remove_units(model, units)
    return {
        layer.name: [tuple(w.shape) for w in layer.weights]
        for layer in small.layers
        if layer.weights
    }


def test_residual_stream_is_one_group(K):
    groups = groups_of(zoo.resnet(K))
    stream = groups["stem_conv"]
    assert places(stream, "out") == {("stem_conv", "kernel"), ("r0b_conv", "kernel")}
    assert places(stream, "in") == {
        ("r0a_conv", "kernel"),
        ("r1a_conv", "kernel"),
        ("r1s_conv", "kernel"),
    }
    wide = groups["r1b_conv"] if "r1b_conv" in groups else groups["r1s_conv"]
    makers = {path for path, _ in places(wide, "out")}
    assert makers == {"r1b_conv", "r1s_conv", "r2b_conv"}
    assert ("head", "kernel") in places(wide, "in")
    inner = groups["r2a_conv"]
    assert places(inner, "out") == {("r2a_conv", "kernel")}
    assert places(inner, "in") == {("r2b_conv", "kernel")}
    assert len(groups) == 5  # two streams, three inner layers


def test_concatenation_lines_units_up(K):
    groups = groups_of(zoo.densenet(K))
    first = groups["d0_conv"]
    reader = first.member("d1_conv", "kernel")
    assert reader.positions.ravel().tolist() == list(range(12, 20))
    assert first.member("t_bn", "gamma").positions.ravel().tolist() == list(
        range(12, 20)
    )
    last = groups["d2_conv"].member("transition", "kernel")
    assert last.positions.ravel().tolist() == list(range(28, 36))


def test_flatten_repeats_units_over_positions(K):
    group = groups_of(zoo.densenet(K))["transition"]
    reader = group.member("head", "kernel")
    expected = np.arange(4 * 4 * 16).reshape(16, 16).T  # (unit, position)
    np.testing.assert_array_equal(reader.positions, expected)


def test_flatten_of_channels_first(K):
    L = K.layers
    x = inputs = K.Input((3, 6, 5))
    x = L.Conv2D(4, 1, data_format="channels_first", name="conv")(x)
    x = L.Flatten(data_format="channels_first")(x)
    model = K.Model(inputs, L.Dense(2, name="head")(x))
    reader = groups_of(model)["conv"].member("head", "kernel")
    # Which positions are a channel's is asked of the layer itself.
    marks = np.zeros((1, 4, 6, 5), "float32") + np.arange(4).reshape(1, 4, 1, 1)
    flat = np.asarray(L.Flatten(data_format="channels_first")(marks))[0]
    for unit in range(4):
        assert set(reader.positions[unit]) == set(np.flatnonzero(flat == unit))


def test_depthwise_units_are_those_of_its_input(K):
    L = K.layers
    x = inputs = K.Input((6, 6, 3))
    x = L.Conv2D(4, 1, name="conv")(x)
    x = L.DepthwiseConv2D(3, depth_multiplier=2, name="dw")(x)
    x = L.GlobalAveragePooling2D()(x)
    model = zoo.settle(K.Model(inputs, L.Dense(2, name="head")(x)))
    shapes = kept_shapes(model, {"conv": [1]})
    assert shapes["conv"] == [(1, 1, 3, 3), (3,)]
    assert shapes["dw"] == [(3, 3, 3, 2), (6,)]
    assert shapes["head"] == [(6, 2), (2,)]
    head = model.get_layer("head").get_weights()[0]
    small = tsp.remove_units(model, {"conv": [1]})
    found = small.get_layer("head").get_weights()[0]
    np.testing.assert_array_equal(found, np.delete(head, [2, 3], axis=0))


@pytest.mark.parametrize("groups", [2, 8])
def test_grouped_convolution_stays_balanced(K, groups):
    L = K.layers
    x = inputs = K.Input((6, 6, 3))
    x = L.Conv2D(8, 1, name="conv")(x)
    x = L.Conv2D(16, 3, groups=groups, activation="relu", name="grouped")(x)
    x = L.GlobalAveragePooling2D()(x)
    model = zoo.settle(K.Model(inputs, L.Dense(2, name="head")(x)))
    plan = tsp.plan(model, "random", sparsity=0.25)
    small = plan.apply(model)
    layer = small.get_layer("grouped")
    assert layer.filters % layer.groups == 0
    assert plan.units["conv"][1] % layer.groups == 0
    if groups == 8:
        assert layer.groups == plan.units["conv"][1]
    assert tsp.verify(model, small, plan) <= 1e-5


def test_separable_convolution(K):
    L = K.layers
    x = inputs = K.Input((6, 6, 3))
    x = L.Conv2D(6, 1, name="conv")(x)
    x = L.SeparableConv2D(8, 3, depth_multiplier=2, name="sep")(x)
    x = L.GlobalMaxPooling2D()(x)
    model = zoo.settle(K.Model(inputs, L.Dense(2, name="head")(x)))
    shapes = kept_shapes(model, {"conv": [0, 5], "sep": [3]})
    assert shapes["sep"] == [(3, 3, 4, 2), (1, 1, 8, 7), (7,)]
    plan = tsp.plan(model, "spline", sparsity=0.5)
    assert tsp.verify(model, plan.apply(model), plan) <= 1e-5


def test_prelu_reshape_permute_and_gate(K):
    L = K.layers
    x = inputs = K.Input((4, 5, 3))
    x = L.Conv2D(6, 1, name="conv")(x)
    x = L.PReLU(shared_axes=[1, 2], name="slope")(x)
    gate = L.GlobalAveragePooling2D()(x)
    gate = L.Dense(3, activation="relu", name="squeeze")(gate)
    gate = L.Dense(6, activation="sigmoid", name="excite")(gate)
    x = L.Multiply()([x, L.Reshape((1, 1, 6))(gate)])
    x = L.Permute((3, 1, 2))(x)
    x = L.Reshape((6, 20))(x)
    x = L.Permute((2, 1))(x)
    x = L.Flatten()(x)
    model = zoo.settle(K.Model(inputs, L.Dense(2, name="head")(x)))
    groups = groups_of(model)
    assert places(groups["conv"], "out") == {("conv", "kernel"), ("excite", "kernel")}
    plan = tsp.plan(model, "magnitude", sparsity=0.5)
    assert plan.units["conv"][1] < 6
    assert tsp.verify(model, plan.apply(model), plan) <= 1e-5


def test_an_unknown_layer_is_a_barrier_and_the_rest_is_not(K):
    class Mix(K.layers.Layer):
        def call(self, x):
            return x[:, ::-1]

    L = K.layers
    model = zoo.settle(
        K.Sequential(
            [
                K.Input((4,)),
                L.Dense(6, activation="relu", name="one"),
                Mix(name="mix"),
                L.Dense(5, activation="relu", name="two"),
                L.Dense(2, name="head"),
            ]
        )
    )
    graph = tsp.ChannelGraph(model)
    assert [group.name for group in graph.groups] == ["two"]
    reasons = {barrier.layer: barrier.reason for barrier in graph.barriers}
    assert "mix" in reasons["one"] and "no rule" in reasons["one"]
    assert "output" in reasons["head"]
    assert "are unprunable" in graph.explain("one")
    assert "consumed by head" in graph.explain("two")
    with pytest.raises(ValueError, match="no rule"):
        tsp.remove_units(model, {"one": [0]})
    with pytest.raises(ValueError, match="produces units"):
        graph.explain("nowhere")


def test_a_softmax_inside_is_a_barrier(K):
    L = K.layers
    x = inputs = K.Input((4,))
    x = L.Dense(6, activation="softmax", name="soft")(x)
    model = K.Model(inputs, L.Dense(2)(x))
    (reason,) = [
        b.reason for b in tsp.ChannelGraph(model).barriers if b.layer == "soft"
    ]
    assert "activation of soft may mix its units" in reason


def test_a_subclass_that_computes_differently_has_no_rule(K):
    class Same(K.layers.Dense):
        pass

    class Other(K.layers.Dense):
        def call(self, x):
            return super().call(x)[:, ::-1]

    for cls, prunable in ((Same, True), (Other, False)):
        model = K.Sequential([K.Input((4,)), cls(6, name="one"), K.layers.Dense(2)])
        assert ("one" in groups_of(model)) is prunable


def test_shared_layers_are_one_group_for_all_uses(K):
    L = K.layers
    a, b = K.Input((4,), name="a"), K.Input((4,), name="b")
    shared = L.Dense(6, activation="relu", name="shared")
    joined = L.Concatenate()([shared(a), shared(b)])
    model = zoo.settle(K.Model([a, b], L.Dense(2, name="head")(joined)))
    group = groups_of(model)["shared"]
    assert group.num_units == 6
    reader = group.member("head", "kernel").positions
    np.testing.assert_array_equal(np.sort(reader, 1), [[i, i + 6] for i in range(6)])
    small = tsp.remove_units(model, {"shared": [2]})
    assert small.get_layer("head").get_weights()[0].shape == (10, 2)
    assert tsp.cost(model).macs == 2 * 4 * 6 + 12 * 2


def test_costs_by_hand(K):
    model = zoo.mobilenet(K)
    cost = tsp.cost(model)
    at = 4 * 4  # after the strided stem
    macs = at * 9 * 3 * 12
    macs += 2 * (at * 12 * 32 + at * 9 * 32 + at * 32 * 12) + 12 * 5
    assert cost.macs == macs
    assert cost.params == model.count_params()
    assert cost.bytes == 4 * cost.params
    assert cost.uncounted == ()


def test_ties_join_like_a_plain_union_find():
    rng = np.random.default_rng(0)
    for _ in range(30):
        recorder = Recorder({}, False)
        labels = recorder.fresh(40)
        parent = list(range(40))

        def find(i, parent=parent):
            while parent[i] != i:
                i = parent[i]
            return i

        for _ in range(rng.integers(1, 12)):
            size = rng.integers(1, 5)
            first, second = rng.choice(40, size), rng.choice(40, size)
            recorder.tie(labels[first], labels[second])
            for i, j in zip(first, second, strict=True):
                parent[find(i)] = find(j)
        barred = rng.choice(40, 2)
        recorder.bar(labels[barred], "because")
        root, reasons = recorder.solve()
        for i in range(40):
            for j in range(40):
                assert (root[i] == root[j]) == (find(i) == find(j))
            expected = any(find(i) == find(b) for b in barred)
            assert (int(root[i]) in reasons) == expected


@pytest.mark.parametrize("layer", ["conv", "pool", "global", "depthwise"])
def test_units_on_a_spatial_axis_must_stay(K, layer):
    """Neurons that a convolution or a pool moves along are no free units."""
    L = K.layers
    x = inputs = K.Input((5,))
    x = L.Dense(8, activation="relu", name="one")(x)
    x = L.Reshape((8, 1))(x)
    x = {
        "conv": L.Conv1D(3, 3),
        "pool": L.MaxPooling1D(2),
        "global": L.GlobalAveragePooling1D(),
        "depthwise": L.DepthwiseConv1D(3),
    }[layer](x)
    if layer != "global":
        x = L.Flatten()(x)
    model = K.Model(inputs, L.Dense(2, name="head")(x))
    assert "one" not in groups_of(model)
    barriers = tsp.ChannelGraph(model).barriers
    assert "mixes positions" in next(b.reason for b in barriers if b.layer == "one")


def test_a_norm_along_space_is_not_folded(K):
    L = K.layers
    x = inputs = K.Input((6, 6, 3))
    x = L.Conv2D(4, 1, name="conv")(x)
    x = L.BatchNormalization(axis=1, name="rows")(x)
    x = L.ReLU()(x)
    x = L.GlobalAveragePooling2D()(x)
    model = zoo.settle(K.Model(inputs, L.Dense(2, name="head")(x)))
    plan = tsp.plan(model, "spline", sparsity=0.5)
    assert plan.merges == {}
    assert tsp.verify(model, plan.apply(model), plan) <= 1e-5


def test_heads_are_units_where_their_dimensions_are_laid_out_in_a_row(K):
    x = K.Input((5, 6))
    y = K.layers.EinsumDense("btd,dnh->btnh", (None, 4, 3), name="heads")(x)
    y = K.layers.Reshape((5, 12))(y)
    model = K.Model(x, K.layers.Dense(2, name="out")(y))
    graph = tsp.ChannelGraph(model)
    assert {g.name: g.num_units for g in graph.groups} == {"heads/n": 4}
    assert "another axis" in graph.explain("heads/h")
    small = tsp.remove_units(model, {"heads/n": [1, 2]})
    kernel, bias = model.get_layer("out").get_weights()
    kernel[3:9] = 0
    model.get_layer("out").set_weights([kernel, bias])
    x = np.random.default_rng(0).normal(size=(3, 5, 6)).astype("float32")
    np.testing.assert_allclose(small(x), model(x), atol=1e-6)
    assert small.get_layer("heads").kernel.shape == (6, 2, 3)


def test_a_reshape_of_two_axes_of_units_that_stay_apart(K):
    x = K.Input((6, 6))
    y = K.layers.EinsumDense("btd,dnh->btnh", (None, 4, 3), name="heads")(x)
    y = K.layers.Reshape((2, 3, 4, 3))(y)
    y = K.layers.Reshape((6, 4, 3))(y)
    y = K.layers.EinsumDense("btnh,nhd->btd", (None, 2), name="out")(y)
    model = K.Model(x, y)
    small = tsp.remove_units(model, {"heads/n": [1], "heads/h": [0]})
    (kernel,) = model.get_layer("out").get_weights()
    kernel[1], kernel[:, 0] = 0, 0
    model.get_layer("out").set_weights([kernel])
    x = np.random.default_rng(0).normal(size=(3, 6, 6)).astype("float32")
    np.testing.assert_allclose(small(x), model(x), atol=1e-6)
