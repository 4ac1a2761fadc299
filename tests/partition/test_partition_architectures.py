"""Codes of nested, shared, composite and subclassed models, and of the zoo."""

import numpy as np
import partition_reference as ref
import pytest
import zoo

import tf_spline_prune as tsp
from tf_spline_prune.errors import ModelError

pytestmark = pytest.mark.both_flavours

IMAGES = np.random.default_rng(4).normal(0, 1, (40, *zoo.SHAPE)).astype("float32")
POINTS = np.random.default_rng(1).normal(0, 1.5, (60, 6)).astype("float32")


def test_functional_and_sequential_in_functional(K):
    L = K.layers
    block_in = K.Input((6,))
    y = L.Dense(6, name="a")(block_in)
    block = K.Model(block_in, L.Add()([block_in, L.ReLU(name="act")(y)]), name="block")
    inner = K.Sequential(
        [K.Input((6,)), L.Dense(10, activation="relu", name="b")], name="deep"
    )
    tail = K.Sequential([inner, L.Dense(7, name="c"), L.ReLU(name="act")], name="tail")
    inputs = K.Input((6,))
    x = L.Dense(6, activation="relu", name="stem")(inputs)
    model = K.Model(inputs, L.Dense(2, name="head")(tail(block(x))))
    ref.randomize(model)
    codes = tsp.PartitionCoder(model)(POINTS)
    assert codes.layers == ("stem", "block/act", "tail/deep/b", "tail/act")
    pre = ref.dense(POINTS.astype("float64"), model.get_layer("stem"))
    ref.check(codes, "stem", pre)
    x = ref.relu(pre)
    pre = ref.dense(x, block.get_layer("a"))
    ref.check(codes, "block/act", pre)
    pre = ref.dense(x + ref.relu(pre), inner.get_layer("b"))
    ref.check(codes, "tail/deep/b", pre)
    pre = ref.dense(ref.relu(pre), tail.get_layer("c"))
    ref.check(codes, "tail/act", pre)


def test_a_block_used_twice_has_a_code_a_use(K):
    L = K.layers
    block = K.Sequential(
        [K.Input((6,)), L.Dense(6, activation="relu", name="lin")], name="block"
    )
    shared = L.ReLU(name="act")
    inputs = K.Input((6,))
    x = shared(block(block(inputs)))
    x = shared(L.Dense(5, name="mid")(x))
    model = K.Model(inputs, L.Dense(2)(x))
    ref.randomize(model)
    codes = tsp.PartitionCoder(model)(POINTS)
    assert codes.layers == ("block/lin", "block/lin:1", "act", "act:1")
    lin = block.get_layer("lin")
    first = ref.dense(POINTS.astype("float64"), lin)
    ref.check(codes, "block/lin", first)
    second = ref.dense(ref.relu(first), lin)
    ref.check(codes, "block/lin:1", second)
    mid = ref.dense(ref.relu(second), model.get_layer("mid"))
    ref.check(codes, "act:1", mid)
    # The input of the first use is not negative anywhere: strictly above, or zero.
    sure = np.abs(second) > ref.MARGIN * second.std()
    taken = codes.unpack("act")
    np.testing.assert_array_equal(taken[sure], (second > 0)[sure])


def test_subclassed_model(K):
    model = zoo.subclassed(K)
    codes = tsp.PartitionCoder(model)(IMAGES)
    assert len(codes.layers) == 2
    pre = ref.conv(IMAGES.astype("float64"), model.one, 1, "same")
    pre = ref.batch_norm(pre, model.norm)
    ref.check(codes, codes.layers[0], pre)
    ref.check(codes, "two", ref.conv(ref.relu(pre), model.two))


def test_composite_layer_of_a_user(K):
    L = K.layers

    class Block(L.Layer):
        def __init__(self, units, **kwargs):
            super().__init__(**kwargs)
            self.lin = L.Dense(units, name="lin")
            self.norm = L.BatchNormalization(name="norm")
            self.act = L.ReLU(6.0, name="act")

        def build(self, shape):
            self.lin.build(shape)
            self.norm.build((*shape[:-1], self.lin.units))
            super().build(shape)

        def call(self, x, training=False):
            return self.act(self.norm(self.lin(x), training=training))

    inputs = K.Input((6,))
    one, two = Block(8, name="one"), Block(7, name="two")
    model = K.Model(inputs, L.Dense(2)(two(one(inputs))))
    ref.randomize(model, scale=6.0)
    codes = tsp.PartitionCoder(model)(POINTS)
    assert codes.layers == ("one/act", "two/act")
    x = POINTS.astype("float64")
    for block in (one, two):
        pre = ref.batch_norm(ref.dense(x, block.lin), block.norm)
        ref.check(codes, f"{block.name}/act", pre, 0, 6)
        x = np.clip(pre, 0, 6)


def test_subclass_of_a_keras_layer_is_read_as_it(K):
    class MyDense(K.layers.Dense):
        pass

    inputs = K.Input((6,))
    x = MyDense(8, activation="relu", name="mine")(inputs)
    model = K.Model(inputs, K.layers.Dense(2)(x))
    ref.randomize(model)
    codes = tsp.PartitionCoder(model)(POINTS)
    assert codes.layers == ("mine",)
    pre = ref.dense(POINTS.astype("float64"), model.get_layer("mine"))
    ref.check(codes, "mine", pre)


def test_residual_network_is_coded_after_the_addition(K):
    """Where BatchNormalization does not feed a ReLU its output is no boundary."""
    L = K.layers
    inputs = K.Input(zoo.SHAPE)
    x = zoo.conv_bn(K, inputs, 5, "stem")
    y = zoo.conv_bn(K, x, 5, "a")
    y = zoo.conv_bn(K, y, 5, "b", act=None)
    x = L.Activation("relu", name="out")(L.Add()([x, y]))
    model = K.Model(inputs, L.Dense(2)(L.GlobalAveragePooling2D()(x)))
    zoo.settle(model)
    codes = tsp.PartitionCoder(model)(IMAGES)
    assert codes.layers == ("stem_act", "a_act", "out")

    def pre(x, name):
        kernel = np.asarray(model.get_layer(f"{name}_conv").get_weights()[0], "float64")
        windows = ref._windows(x, kernel.shape[:2], 1, "same", 0.0)
        linear = sum(picked @ kernel[offset] for offset, picked in windows)
        return ref.batch_norm(linear, model.get_layer(f"{name}_bn"))

    stem = pre(IMAGES.astype("float64"), "stem")
    ref.check(codes, "stem_act", stem)
    a = pre(ref.relu(stem), "a")
    ref.check(codes, "a_act", a)
    ref.check(codes, "out", ref.relu(stem) + pre(ref.relu(a), "b"))


def test_pooling_of_rectified_images(K):
    """In float32 too: wherever no tie is in doubt."""
    L = K.layers
    inputs = K.Input(zoo.SHAPE)
    x = L.Conv2D(4, 3, activation="relu", name="conv")(inputs)
    x = L.MaxPooling2D(3, 2, name="pool")(x)
    model = K.Model(inputs, L.Dense(2)(L.Flatten()(x)))
    ref.randomize(model)
    conv = model.get_layer("conv")
    conv.set_weights([conv.get_weights()[0], np.full(4, -1.0)])
    codes = tsp.PartitionCoder(model)(IMAGES)
    pre = ref.conv(IMAGES.astype("float64"), conv)
    ref.check(codes, "conv", pre)
    pooled, ties = ref.max_pool(ref.relu(pre), 3, 2)
    margin = ref.MARGIN * pre.std()
    seen = np.stack([p for _, p in ref._windows(pre, (3, 3), (2, 2), "valid", 0)], -1)
    runner_up = np.sort(ref.relu(seen), -1)[..., -2]
    # All negative, or one clear winner.
    sure = (seen.max(-1) < -margin) | (pooled - runner_up > margin)
    assert sure.mean() >= 0.99
    assert (ties.all(-1) & sure).mean() > 0.01  # exact ties at zero
    taken = codes.unpack("pool").reshape(ties.shape)
    np.testing.assert_array_equal(taken[sure], ties[sure])


def test_several_inputs(K):
    L = K.layers
    one, two = K.Input((6,), name="one_in"), K.Input((4,), name="two_in")
    x = L.Concatenate()(
        [L.Dense(5, activation="relu", name="a")(one), L.Dense(3, name="b")(two)]
    )
    model = K.Model([one, two], L.Dense(6, activation="relu", name="c")(x))
    ref.randomize(model)
    other = np.random.default_rng(2).normal(0, 1, (60, 4)).astype("float32")
    codes = tsp.PartitionCoder(model, batch_size=16)([POINTS, other])
    a = ref.dense(POINTS.astype("float64"), model.get_layer("a"))
    b = ref.dense(other.astype("float64"), model.get_layer("b"))
    ref.check(codes, "a", a)
    joined = np.concatenate([ref.relu(a), b], -1)
    ref.check(codes, "c", ref.dense(joined, model.get_layer("c")))


def test_dropout_and_noise_do_not_reach_the_codes(K):
    model = K.Sequential(
        [
            K.Input((6,)),
            K.layers.GaussianNoise(0.9),
            K.layers.Dense(8, activation="relu", name="one"),
            K.layers.Dropout(0.5),
            K.layers.Dense(8, activation="relu", name="two"),
        ]
    )
    ref.randomize(model)
    codes = tsp.PartitionCoder(model)(POINTS)
    pre = ref.dense(POINTS.astype("float64"), model.get_layer("one"))
    ref.check(codes, "one", pre)
    ref.check(codes, "two", ref.dense(ref.relu(pre), model.get_layer("two")))


def test_unbuilt_models_are_refused(K):
    with pytest.raises(ModelError, match="not built"):
        tsp.PartitionCoder(K.Sequential([K.layers.Dense(3, activation="relu")]))

    class Net(K.Model):
        def __init__(self):
            super().__init__()
            self.lin = K.layers.Dense(3, activation="relu")

        def call(self, x):
            return self.lin(x)

    with pytest.raises(ModelError, match="not built"):
        tsp.PartitionCoder(Net())
