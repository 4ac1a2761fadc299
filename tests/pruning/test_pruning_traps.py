"""Traps that were once stepped into, each with its own reference."""

import numpy as np
import pytest
import zoo

import tf_spline_prune as tsp
from tf_spline_prune.errors import ModelError, PlanError


def points(shape, count=16, seed=0):
    return np.random.default_rng(seed).normal(size=(count, *shape)).astype("float32")


def outputs(model, x):
    return np.asarray(model(x, training=False))


def test_verify_does_not_take_nan_for_exact(K):
    model = zoo.mlp(K)
    plan = tsp.plan(model, sparsity=0.5)
    small = plan.apply(model)
    small.set_weights([w * np.nan for w in small.get_weights()])
    assert np.isnan(tsp.verify(model, small, plan))


def test_adapted_normalization_is_copied(K):
    L = K.layers
    norm = L.Normalization(name="norm")
    x = 3 * points((4,), 64) + 5
    norm.adapt(x)
    model = zoo.settle(
        K.Sequential([K.Input((4,)), L.Dense(6, activation="relu"), L.Dense(2)])
    )
    model = K.Sequential([K.Input((4,)), norm, *model.layers])
    plan = tsp.plan(model, "random", sparsity=0.5)
    merged = tsp.merge(model, plan)
    np.testing.assert_allclose(outputs(merged, x), outputs(model, x), rtol=1e-5)
    assert tsp.verify(model, plan.apply(model), plan) <= 1e-5


def test_a_shrunk_subclassed_model_still_trains_its_norms(K):
    model = zoo.subclassed(K)
    small = tsp.prune(model, sparsity=0.3)
    small.compile("sgd", K.losses.SparseCategoricalCrossentropy(from_logits=True))
    before = np.asarray(small.get_layer("norm").moving_mean).copy()
    small.fit(points(zoo.SHAPE, 32), np.arange(32) % 5, epochs=1, verbose=0)
    assert np.abs(np.asarray(small.get_layer("norm").moving_mean) - before).max() > 1e-3


def test_weights_without_a_layer_are_not_lost(K):
    class Block(K.layers.Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.dense = K.layers.Dense(5, name="inside")

        def build(self, shape):
            self.gain = self.add_weight(name="gain", shape=(5,), initializer="ones")
            super().build(shape)

        def call(self, x):
            return self.dense(x) * self.gain

    class Net(K.Model):
        def __init__(self):
            super().__init__()
            self.dense = K.layers.Dense(5)

        def build(self, shape):
            self.gain = self.add_weight(name="gain", shape=(5,), initializer="ones")
            super().build(shape)

        def call(self, x):
            return self.dense(x) * self.gain

    inputs = K.Input((4,))
    x = K.layers.Dense(8, activation="relu", name="one")(inputs)
    x = Block(name="block")(x)
    model = K.Model(inputs, K.layers.Dense(2)(x))
    barriers = {b.layer: b.reason for b in tsp.ChannelGraph(model).barriers}
    assert "block" in barriers["one"]
    net = Net()
    net(points((4,)))
    with pytest.raises(ModelError, match="belong to no layer.*gain"):
        tsp.plan(net, sparsity=0.5)


@pytest.mark.parametrize("kind", ["SeparableConv2D", "DepthwiseConv2D", "own"])
def test_activations_that_mix_units_are_barriers(K, kind):
    L = K.layers

    class Standardised(L.Conv2D):
        def convolution_op(self, inputs, kernel):
            return super().convolution_op(inputs, kernel * 2.0)

    x = inputs = K.Input((6, 6, 3))
    x = L.Conv2D(8, 1, name="conv")(x)
    if kind == "SeparableConv2D":
        x = L.SeparableConv2D(8, 3, activation="softmax", name="mixed")(x)
    elif kind == "DepthwiseConv2D":
        x = L.DepthwiseConv2D(3, activation="softmax", name="mixed")(x)
    else:
        x = Standardised(8, 3, name="mixed")(x)
    x = L.GlobalAveragePooling2D()(x)
    graph = tsp.ChannelGraph(K.Model(inputs, L.Dense(2, name="head")(x)))
    free = {group.name for group in graph.groups}
    assert "mixed" not in free
    assert ("conv" in free) == (kind == "SeparableConv2D")


def test_twins_read_by_a_separable_layer_are_not_merged(K):
    L = K.layers
    x = inputs = K.Input((6, 6, 3))
    x = L.Conv2D(6, 1, activation="relu", name="conv")(x)
    x = L.SeparableConv2D(4, 3, name="sep")(x)
    x = L.GlobalAveragePooling2D()(x)
    model = zoo.settle(K.Model(inputs, L.Dense(2, name="head")(x)))
    assert "conv" not in tsp.plan(model, "spline", sparsity=0.5).merges


def test_a_norm_behind_an_activation_layer_is_not_folded(K):
    L = K.layers
    model = zoo.settle(
        K.Sequential(
            [
                K.Input((4,)),
                L.Dense(6, activation=L.ReLU(), name="one"),
                L.BatchNormalization(),
                L.Dense(2),
            ]
        )
    )
    graph = tsp.ChannelGraph(model)
    path = graph.path_of(graph.groups[0])
    assert path.norms == {"one": ()} and not path.mergeable


def test_layers_with_own_functions_are_rebuilt(K):
    def cube(x):
        return x * x * x

    L = K.layers
    model = K.Sequential(
        [
            K.Input((4,)),
            L.Dense(6, activation="relu", name="one"),
            L.Dense(5, activation=cube, name="cube"),
            L.Lambda(lambda x: x + 1.0, name="shift"),
            L.Dense(2),
        ]
    )
    plan = tsp.plan(zoo.settle(model), sparsity=0.5)
    assert plan.removed.keys() == {"one"}
    assert tsp.verify(model, plan.apply(model), plan) <= 1e-5


def test_a_layer_without_config_is_named(K):
    class Scale(K.layers.Layer):
        def __init__(self, by):
            super().__init__(name="scale")
            self.by = by

        def get_config(self):
            raise NotImplementedError

        def call(self, x):
            return x * self.by

    model = K.Sequential(
        [K.Input((4,)), K.layers.Dense(3, activation="relu"), Scale(2.0)]
    )
    with pytest.warns(tsp.errors.NothingPrunedWarning):
        plan = tsp.plan(model, sparsity=0.0)
    with pytest.raises(ModelError, match="get_config.*scale"):
        plan.apply(model)


def test_a_plan_knows_wiring_and_activations(K):
    def net(wiring, activation="relu"):
        L = K.layers
        inputs = K.Input((4,))
        a = L.Dense(4, activation=activation, name="a")(inputs)
        b = L.Dense(4, activation=activation, name="b")(a)
        return K.Model(inputs, L.Dense(4, name="o")(b if wiring == "chain" else a + b))

    plan = tsp.plan(net("chain"), sparsity=0.5)
    plan.apply(net("chain"))
    for other in (net("sum"), net("chain", "tanh")):
        with pytest.raises(PlanError, match="another structure"):
            plan.apply(other)


@pytest.mark.parametrize("triple", [[0, 1, float("nan")], [0, 1, -1.0], [0, 99, 1.0]])
def test_merges_of_an_edited_plan_are_checked(K, triple):
    model = zoo.mlp(K)
    values = tsp.plan(model, sparsity=0.5).to_dict()
    values["merges"] = {"first": [triple]}
    with pytest.raises(PlanError, match="merges"):
        tsp.merge(model, tsp.PruningPlan.from_dict(values))


def test_units_on_the_axis_of_another_layers_rows_are_counted(K):
    L = K.layers
    x = inputs = K.Input((5, 4))
    x = L.Dense(6, activation="relu", name="tokens")(L.Permute((2, 1))(x))
    x = L.Dense(7, activation="relu", name="features")(L.Permute((2, 1))(x))
    x = L.Dense(3, name="mix")(L.Permute((2, 1))(x))
    x = L.Flatten()(x)
    model = zoo.settle(K.Model(inputs, L.Dense(2, name="head")(x)))
    plan = tsp.plan(model, "random", target_macs=0.6)
    assert plan.removed.keys() == {"tokens"}
    small = plan.apply(model)
    assert tsp.cost(small) == plan.after
    assert tsp.cost(model).macs == 4 * 5 * 6 + 6 * 4 * 7 + 7 * 6 * 3 + 21 * 2
    assert tsp.verify(model, small, plan) <= 1e-5


@pytest.mark.parametrize(
    "bad",
    [
        {"layers": "dense("},
        {"layers": 5},
        {"round_to": 2.5},
        {"min_units": float("nan")},
        {"max_sparsity": "x"},
    ],
    ids=str,
)
def test_misfit_arguments_are_named(K, bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        tsp.plan(zoo.mlp(K), sparsity=0.5, **bad)


def test_recover_must_be_steps(K):
    with pytest.raises(ValueError, match="recover"):
        tsp.prune(zoo.mlp(K), sparsity=0.5, recover=3)


def test_units_of_channels_first_activations(K):
    L = K.layers
    inputs = K.Input((3, 8, 8))
    x = L.Conv2D(6, 3, padding="same", data_format="channels_first")(inputs)
    model = K.Model(inputs, L.ReLU(name="r")(x))
    codes = tsp.PartitionCoder(model)(points((3, 8, 8)))
    np.testing.assert_array_equal(codes.units["r"], np.repeat(np.arange(6), 64))
    assert tsp.unit_distances(codes, codes)["r"].shape == (6,)


def test_two_detectors_share_a_backup_folder(K, tmp_path):
    model = zoo.vgg(K)
    model.compile("sgd", K.losses.SparseCategoricalCrossentropy(from_logits=True))
    x = points(zoo.SHAPE, 32)
    birds = [
        tsp.SplineEarlyBird(
            x[:8], stop=False, keep_history=True, backup_dir=tmp_path / "b"
        ),
        tsp.MaskEarlyBird(stop=False, keep_history=True, backup_dir=tmp_path / "b"),
    ]
    model.fit(x, np.arange(32) % 5, epochs=2, verbose=0, callbacks=birds)
    assert birds[0].distance_matrix().shape == (2, 2)
    assert birds[1].distance_matrix().shape == (3, 3)
