"""Models that are wired in ways which are easy to get wrong.

Each is settled, pruned in every group, and compared with the original in which nobody
reads the removed units; what it costs must be what the plan said.
"""

import keras
import numpy as np
import pytest
import tensorflow as tf
import zoo

import tf_spline_prune as tsp


def shrunk(model, **settings):
    """Prune, verify, and tell how many units went."""
    zoo.settle(model)
    plan = tsp.plan(model, "magnitude", sparsity=0.3, scope="layer", **settings)
    small = plan.apply(model)
    assert tsp.verify(model, small, plan) < 1e-5
    assert tsp.cost(small) == plan.after
    return sum(before - after for before, after in plan.units.values())


def block(K):
    """Make the class of a layer that is made of a convolution and an operation."""

    class Block(K.layers.Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.conv = K.layers.Conv2D(6, 1)

        def call(self, x):
            return K.activations.relu(self.conv(x))

        def build(self, shape):
            self.conv.build(shape)
            self.built = True

    return Block


def cross(K):
    """Make the class of a layer of two layers, each with an input of its own."""

    class Cross(K.layers.Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.one, self.two = K.layers.Dense(8), K.layers.Dense(8)

        def call(self, x, context=None, flip=False):
            return self.one(x) - self.two(context) * (-1.0 if flip else 1.0)

    return Cross


def embedded(K, inputs):
    return K.layers.Embedding(5, 8, mask_zero=True)(inputs)


def build_shared_block(K, L, x):
    shared = block(K)()
    return shared(shared(L.Conv2D(6, 3, padding="same")(x)))


def build_grouped_behind_a_concatenation(K, L, x):
    x = L.Concatenate()([L.Conv2D(3, 1)(x), L.Conv2D(5, 1)(x)])
    return L.Conv2D(8, 3, groups=4)(x)


def build_channel_shuffle(K, L, x):
    x = L.Conv2D(12, 1)(x)
    x = L.Permute((1, 2, 4, 3))(L.Reshape((8, 8, 3, 4))(x))
    return L.Reshape((8, 8, 12))(x)


def build_subclass_of_a_layer(K, L, x):
    class Depthwise(L.DepthwiseConv2D):
        pass

    return Depthwise(3)(L.Conv2D(6, 1)(x))


def build_cut_resizing(K, L, x):
    return L.Resizing(6, 4)(L.Conv2D(6, 1, activation="relu")(x))


@pytest.mark.parametrize(
    "build",
    [value for name, value in dict(globals()).items() if name.startswith("build_")],
    ids=lambda build: build.__name__.removeprefix("build_"),
)
def test_images(K, build):
    inputs = K.Input((8, 8, 3))
    x = build(K, K.layers, inputs)
    x = K.layers.Conv2D(4, 1, activation="relu")(x)
    model = K.Model(inputs, K.layers.Dense(3)(K.layers.Flatten()(x)))
    assert shrunk(model) > 0


@pytest.mark.parametrize("how", ["position", "name", "flag"])
def test_layers_of_layers_with_several_inputs(K, how):
    one, two = K.Input((6,)), K.Input((6,))
    layer = cross(K)()
    x = {
        "position": lambda: layer(one, two),
        "name": lambda: layer(one, context=two),
        "flag": lambda: layer(one, context=two, flip=True),
    }[how]()
    assert shrunk(K.Model([one, two], K.layers.Dense(3)(x))) == 2 * 2


def test_a_layer_of_layers_called_in_two_ways_is_refused(K):
    one, two = K.Input((6,)), K.Input((6,))
    layer = cross(K)()
    x = K.layers.Add()([layer(one, context=two), layer(two, context=one, flip=True)])
    with pytest.raises(tsp.errors.ModelError, match="two different ways"):
        tsp.cost(K.Model([one, two], K.layers.Dense(3)(x)))


def test_one_tensor_in_two_places_is_another_way_to_call(K):
    one = K.Input((6,))
    layer = cross(K)()
    same, other = layer(one, context=one), layer(one, context=K.layers.Dense(6)(one))
    assert shrunk(K.Model(one, K.layers.Dense(3)(same))) == 2 * 2
    with pytest.raises(tsp.errors.ModelError, match="two different ways"):
        tsp.cost(K.Model(one, K.layers.Add()([same, other])))


@pytest.mark.filterwarnings("ignore:Layer .* was passed an input with a mask")
def test_a_mask_into_a_nested_model(K):
    nested = K.Sequential([K.Input((6, 8)), K.layers.LSTM(12)])
    inputs = K.Input((6,), dtype="int32")
    model = K.Model(inputs, K.layers.Dense(3)(nested(embedded(K, inputs))))
    assert shrunk(model) > 0


def test_initial_values_that_are_a_matrix(K):
    table = K.initializers.Constant(np.ones((5, 8)))
    inputs = K.Input((6,), dtype="int32")
    x = K.layers.Embedding(5, 8, embeddings_initializer=table)(inputs)
    x = K.layers.GlobalAveragePooling1D()(x)
    assert shrunk(K.Model(inputs, K.layers.Dense(3)(x))) == 2


def test_attention_that_follows_its_query(K):
    inputs = K.Input((6, 8))
    x = K.layers.Dense(10, name="before")(inputs)
    model = K.Model(inputs, K.layers.Dense(3)(K.layers.MultiHeadAttention(2, 4)(x, x)))
    small = tsp.remove_units(zoo.settle(model), {"before": [0, 1]})
    assert small.output_shape == model.output_shape
    assert shrunk(model) > 0


def test_wrappers_of_wrappers(K):
    L = K.layers

    class Both(L.Bidirectional):
        pass

    inputs = K.Input((3, 6, 8))
    x = L.TimeDistributed(L.Bidirectional(L.LSTM(8)))(L.Dense(10)(inputs))
    assert shrunk(K.Model(inputs, L.Dense(3)(Both(L.LSTM(4))(x)))) > 0


def test_a_wrapper_over_an_axis_of_units(K):
    L = K.layers
    inputs = K.Input((3, 8))
    x = L.TimeDistributed(L.Dense(4))(L.Permute((2, 1))(L.Dense(10)(inputs)))
    assert shrunk(K.Model(inputs, L.Dense(3)(L.Permute((2, 1))(x)))) == 3


def fixed(K, x, how):
    array = tf.ones((1, 6, 12))
    if K is keras:
        return {
            "concatenate": lambda: keras.ops.concatenate([x * 1.0, x], -1),
            "clip": lambda: keras.ops.clip(x, np.zeros((6, 12)), np.ones((6, 12))),
            "add": lambda: K.layers.Add()([x, array]),
            "multiply": lambda: K.layers.Multiply()([x, array]),
            "fold": lambda: keras.ops.reshape(x, (-1, 4)),
        }[how]()
    return {
        "concatenate": lambda: tf.concat([x * 1.0, x], -1),
        "clip": lambda: tf.clip_by_value(x, array[0] * 0.0, array[0]),
        "add": lambda: K.layers.Add()([x, array]),
        "multiply": lambda: K.layers.Multiply()([x, array]),
        "fold": lambda: tf.reshape(x, (-1, 4)),
    }[how]()


@pytest.mark.parametrize("how", ["concatenate", "clip", "add", "multiply", "fold"])
def test_fixed_arrays_and_batches_that_grow(K, how):
    inputs = K.Input((6, 8))
    x = fixed(K, K.layers.Dense(12)(inputs), how)
    gone = shrunk(K.Model(inputs, K.layers.Dense(3)(K.layers.Dense(4)(x))))
    assert gone == (5 if how == "concatenate" else 1)


def test_units_that_meet_on_two_axes(K):
    L = K.layers
    inputs = K.Input((6,))
    wide = lambda shape: L.Reshape(shape)(L.Dense(8)(inputs))  # noqa: E731
    first = L.Multiply()([wide((8, 1)), wide((1, 8))])
    second = L.Multiply()([wide((8, 1)), wide((1, 8))])
    einsum = keras.ops.einsum if K is keras else tf.einsum
    x = L.Reshape((1,))(einsum("bij,bij->b", first, second))
    assert shrunk(K.Model(inputs, L.Dense(3)(x))) == 4 * 2


def test_a_wrapped_normalisation(K):
    inputs = K.Input((3, 8))
    x = K.layers.TimeDistributed(K.layers.LayerNormalization())(
        K.layers.Dense(6)(inputs)
    )
    model = K.Model(inputs, K.layers.Dense(3)(x))
    assert shrunk(model, approximate=True) == 2


def test_a_normalisation_over_axes_in_another_order(K):
    inputs = K.Input((5, 8))
    x = K.layers.LayerNormalization(axis=[-1, 1])(K.layers.Dense(6)(inputs))
    assert shrunk(K.Model(inputs, K.layers.Dense(3)(x)), approximate=True) == 2


def test_a_softmax_inside_an_einsum_layer_bars_all_its_axes(K):
    inputs = K.Input((4, 8))
    x = K.layers.EinsumDense("abc,bd->adc", output_shape=(5, 8), activation="softmax")(
        K.layers.Dense(8, name="before")(inputs)
    )
    model = K.Model(inputs, K.layers.Dense(3)(K.layers.Dense(6, name="after")(x)))
    assert [group.name for group in tsp.ChannelGraph(model).groups] == ["after"]


def test_a_lambda_that_uses_a_name_from_outside(K):
    inputs = K.Input((8,))
    x = K.layers.Lambda(lambda t: tf.nn.relu(t) * 1.5)(K.layers.Dense(6)(inputs))
    assert shrunk(K.Model(inputs, K.layers.Dense(3)(K.layers.Dense(6)(x)))) == 2


def test_a_dict_of_inputs_into_a_subclassed_model(K):
    class Net(K.Model):
        def __init__(self):
            super().__init__()
            self.a, self.b = K.layers.Dense(6), K.layers.Dense(6)
            self.c = K.layers.Dense(3)

        def call(self, x):
            return {"out": self.c(self.a(x["u"]) + self.b(x["v"]))}

    model = Net()
    model({"u": np.zeros((2, 4), "float32"), "v": np.zeros((2, 5), "float32")})
    assert shrunk(model) == 2 * 2


def test_a_functional_model_with_a_call_of_its_own(K):
    class Doubled(K.Model):
        def call(self, x, training=None, mask=None):
            return super().call(x) * 2.0

    inputs = K.Input((6,))
    model = Doubled(inputs, K.layers.Dense(3)(K.layers.Dense(8)(inputs)))
    assert shrunk(model) == 2


def test_tied_weights_are_refused(K):
    class Tied(K.Model):
        def __init__(self):
            super().__init__()
            self.embed = K.layers.Embedding(11, 8)
            self.dense = K.layers.Dense(8)

        def call(self, x):
            x = self.dense(self.embed(x))
            if K is keras:
                return keras.ops.matmul(x, keras.ops.transpose(self.embed.embeddings))
            return tf.matmul(x, self.embed.embeddings, transpose_b=True)

    model = Tied()
    model(np.zeros((2, 5), "int32"))
    with pytest.raises(tsp.errors.ModelError, match="uses weights outside"):
        tsp.cost(model)


def test_another_computation_in_training_is_refused(K):
    class Net(K.Model):
        def __init__(self):
            super().__init__()
            self.a, self.b = K.layers.Dense(8), K.layers.Dense(3)

        def call(self, x, training=False):
            x = self.a(x)
            return self.b(x + 100.0 if training else x)

    model = Net()
    model(np.ones((2, 5), "float32"))
    with pytest.raises(tsp.errors.ModelError, match="in training"):
        tsp.cost(model)


def test_a_function_that_is_only_named_like_a_plain_one(K):
    def relu(x):
        return tf.nn.relu(x - 0.5)

    inputs = K.Input((6,))
    x = K.layers.Dense(8, activation=relu, name="odd")(inputs)
    model = K.Model(inputs, K.layers.Dense(3)(x))
    # It is judged by what it runs, which treats each entry alone.
    assert [group.name for group in tsp.ChannelGraph(model).groups] == ["odd"]


def test_an_overridden_property_makes_a_layer_of_its_own(K):
    class Scaled(K.layers.Dense):
        @property
        def units(self):
            return 8

        @units.setter
        def units(self, value):
            pass

    inputs = K.Input((6,))
    model = K.Model(inputs, K.layers.Dense(3)(Scaled(8, name="odd")(inputs)))
    assert "odd" in {barrier.layer for barrier in tsp.ChannelGraph(model).barriers}


def test_operations_of_the_original_are_not_touched():
    inputs = keras.Input((8,))
    x = keras.ops.relu(keras.layers.Dense(6)(inputs))
    model = keras.Model(inputs, keras.layers.Dense(3)(x))
    before = len(x._keras_history.operation._inbound_nodes)
    assert shrunk(model) == 2
    assert len(x._keras_history.operation._inbound_nodes) == before
