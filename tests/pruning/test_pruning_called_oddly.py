"""Models whose layers are called in unusual, but allowed, ways."""

import keras
import numpy as np
import pytest
import tf_keras
import zoo

import tf_spline_prune as tsp
from tf_spline_prune.compat import mask_slots, trace, with_dtype


def inputs(shape, count=16, seed=0):
    return np.random.default_rng(seed).normal(size=(count, *shape)).astype("float32")


def same(a, b, data, tolerance=1e-5):
    one, other = (np.asarray(model(data)) for model in (a, b))
    np.testing.assert_allclose(one, other, atol=tolerance, rtol=tolerance)


def head(K, x):
    return K.layers.Dense(2, name="head")(K.layers.Flatten()(x))


def test_attention_that_is_called_twice_is_rescaled_once(K):
    a, b = K.Input((5, 8)), K.Input((5, 8))
    shared = K.layers.MultiHeadAttention(2, 8, name="mha")
    joined = K.layers.Concatenate()([shared(a, a), shared(b, b)])
    model = zoo.settle(K.Model([a, b], head(K, joined)))
    small = tsp.prune(model, "magnitude", sparsity={"mha/key_dim": 0.5}, recover=None)
    gone = tsp.plan(model, "magnitude", sparsity={"mha/key_dim": 0.5}).removed
    left = np.setdiff1d(np.arange(8), gone["mha/key_dim"])
    before, after = (m.get_layer("mha").get_weights()[0] for m in (model, small))
    np.testing.assert_allclose(after, before[..., left] * 0.5**0.5, rtol=1e-6)


@pytest.mark.parametrize("order", ["query key value", "value key query"])
def test_attention_by_name_reads_what_it_is_told(K, order):
    a, b = K.Input((5, 8)), K.Input((5, 8))
    given = {
        "query": K.layers.Dense(10, name="q")(a),
        "key": K.layers.Dense(12, name="k")(b),
        "value": K.layers.Dense(14, name="v")(b),
    }
    layer = K.layers.MultiHeadAttention(2, 4, name="mha", output_shape=6)
    if K is tf_keras:  # its first argument has no name
        query = given.pop("query")
        out = layer(query, **{n: given[n] for n in order.split() if n in given})
    else:
        out = layer(**{name: given[name] for name in order.split()})
    model = zoo.settle(K.Model([a, b], head(K, out)))
    small = tsp.remove_units(model, {"q": [0], "k": [11], "v": [3]})
    for part, gone in (("query", 0), ("key", 11), ("value", 3)):
        before, after = (
            np.asarray(getattr(m.get_layer("mha"), f"_{part}_dense").kernel)
            for m in (model, small)
        )
        np.testing.assert_array_equal(after, np.delete(before, gone, axis=0))


def test_grouped_attention_by_name():
    a = keras.Input((5, 8))
    query, other = (keras.layers.Dense(12, name=n)(a) for n in ("q", "other"))
    layer = keras.layers.GroupQueryAttention(4, 4, 2, name="gqa")
    out = layer(key=other, value=other, query=query)
    model = zoo.settle(keras.Model(a, head(keras, out)))
    assert "gqa" in tsp.ChannelGraph(model).explain("other").partition("consumed by")[2]
    tsp.prune(model, "magnitude", sparsity=0.4, recover=None)  # verified


def test_states_before_sequences(K):
    x = K.Input((5, 3))
    state = K.layers.Dense(4, name="state")(K.layers.Flatten()(x))
    layer = K.layers.SimpleRNN(4, name="rnn")
    if K is keras:
        out = layer(initial_state=state, sequences=x)
    else:
        out = layer(x, initial_state=state)
    model = zoo.settle(K.Model(x, K.layers.Dense(2)(out)))
    small = tsp.prune(model, "magnitude", sparsity={"rnn": 0.5}, recover=None)
    assert small.get_layer("state").units == small.get_layer("rnn").units == 2


def named_twins(K, whole):
    """A nested model that takes y and x, and subtracts them."""
    y, x = K.Input((6,), name="y"), K.Input((6,), name="x")
    L = K.layers
    difference = L.Subtract()([L.Dense(5)(y), L.Dense(5)(x)])
    inner = K.Model(whole(y, x), L.ReLU(name="r")(difference), name="inner")
    return zoo.settle(inner, seed=3)


@pytest.mark.parametrize(
    "whole", [lambda y, x: [y, x], lambda y, x: {"y": y, "x": x}], ids=["list", "dict"]
)
def test_a_nested_model_takes_a_dict_by_name(K, whole):
    inner = named_twins(K, whole)
    a = K.Input((4,))
    hx, hy = (K.layers.Dense(6, name=n)(a) for n in ("hx", "hy"))
    middle = inner({"x": hx, "y": hy})
    model = K.Model(a, K.layers.Dense(2)(middle))
    zoo.settle(model)
    data = inputs((4,), 50)
    codes = tsp.PartitionCoder(model)(data).unpack("inner/r")
    active = np.asarray(K.Model(a, middle)(data)) > 0
    np.testing.assert_array_equal(codes, active)
    small = tsp.prune(model, "magnitude", sparsity={"hx": 0.5, "hy": 0.2}, data=data)
    assert small.get_layer("hx").units == 3


def test_integers_become_what_a_nested_model_declares(K):
    inner = K.Sequential(
        [K.Input((8, 8, 3)), K.layers.Conv2D(6, 3, activation="relu", name="conv")],
        name="inner",
    )
    x = K.Input((8, 8, 3), dtype="uint8")
    pooled = K.layers.GlobalAveragePooling2D()(inner(x))
    model = zoo.settle(K.Model(x, head(K, pooled)))
    data = np.random.default_rng(0).integers(0, 9, (40, 8, 8, 3)).astype("uint8")
    codes = tsp.PartitionCoder(model)(data).unpack("inner/conv")
    active = np.asarray(inner(data.astype("float32"))) > 0
    np.testing.assert_array_equal(codes.reshape(active.shape), active)
    tsp.prune(model, sparsity=0.5, data=data)


def test_a_sequential_with_a_call_of_its_own(K):
    class Residual(K.Sequential):
        def call(self, inputs, training=None, mask=None):
            return inputs + super().call(inputs, training=training)

    model = Residual(
        [K.Input((6,)), K.layers.Dense(8, activation="relu"), K.layers.Dense(6)]
    )
    zoo.settle(model)
    data = inputs((6,))
    masked = tsp.wrap_with_masks(model)
    same(model, masked, data)
    with pytest.warns(tsp.errors.SparsityWarning, match="remove nothing"):
        same(model, tsp.strip_masks(masked), data)
    nested = K.Sequential([K.Input((6,)), K.layers.Dense(6), model, K.layers.Dense(2)])
    zoo.settle(nested)
    same(nested, tsp.wrap_with_masks(nested), data)
    small = tsp.prune(nested, "magnitude", sparsity=0.3, recover=None)  # verified
    assert small.count_params() < nested.count_params()


def test_directions_of_different_sizes():
    K, L = tf_keras, tf_keras.layers  # Keras 3 gets the shape of the output wrong
    x = K.Input((5, 3))
    both = L.Bidirectional(L.LSTM(4), backward_layer=L.LSTM(6, go_backwards=True))
    model = zoo.settle(K.Model(x, L.Dense(2)(L.Dense(8)(both(x)))))
    assert tsp.cost(model).params == model.count_params()
    small = tsp.prune(model, "magnitude", sparsity=0.5, recover=None)
    assert small.count_params() < model.count_params()


def test_layers_inside_layers_change_their_precision(K):
    L = K.layers
    x = K.Input((5, 3))
    low = {"dtype": "mixed_float16"}
    h = L.Bidirectional(L.LSTM(4, return_sequences=True, **low), **low)(x)
    h = L.TimeDistributed(L.Dense(6, **low), **low)(h)
    h = L.RNN(L.GRUCell(4, **low), **low)(h)
    model = zoo.settle(K.Model(x, L.Dense(2, dtype="float32")(h)))
    full = with_dtype(model, "float32")
    policies = {layer.compute_dtype for layer in full._flatten_layers()}
    assert policies == {"float32"}
    same(model, full, inputs((5, 3)), 1e-2)


def test_patterns_lie_along_what_a_kernel_sums():
    L = keras.layers  # TFMOT does not wrap EinsumDense
    x = keras.Input((5, 8))
    h = L.EinsumDense("abc,cde->abde", (5, 4, 6), name="e")(x)
    model = zoo.settle(keras.Model(x, head(keras, h)))
    sparse = tsp.strip_masks(tsp.prune_once(model, 0.5, granularity="2:4", layers="e"))
    kernel = np.asarray(sparse.get_layer("e").kernel)
    zeros = (kernel == 0).reshape(2, 4, 4, 6).sum(axis=1)
    assert (zeros == 2).all()


@pytest.mark.parametrize("array", [np.ones(8, "float32"), keras.ops.ones(8)])
def test_arrays_in_the_graph(K, array):
    x = K.Input((6,))
    h = K.layers.ReLU(name="r")(K.layers.Dense(8)(x) + array)
    model = zoo.settle(K.Model(x, K.layers.Dense(2)(h)))
    data = inputs((6,))
    codes = tsp.PartitionCoder(model)(data).unpack("r")
    np.testing.assert_array_equal(codes, np.asarray(K.Model(x, h)(data)) > 0)


@pytest.mark.filterwarnings("ignore:When providing `inputs` as a dict")
def test_data_come_as_the_model_takes_them(K):
    ins = {"b": K.Input((3,)), "a": K.Input((4,))}
    h = K.layers.Concatenate()([ins["a"], ins["b"]])
    h = K.layers.Dense(8, activation="relu", name="hidden")(h)
    model = zoo.settle(K.Model(ins, K.layers.Dense(2)(h)))
    data = {"a": inputs((4,), 32), "b": inputs((3,), 32)}
    by_dict = tsp.prune(model, sparsity=0.5, data=data)
    in_a_row = [data["a"], data["b"]]  # as Keras sorts them
    first = trace(model).inputs[0].shape[1]
    by_list = tsp.prune(model, sparsity=0.5, data=in_a_row[:: 1 if first == 4 else -1])
    for one, other in zip(by_dict.get_weights(), by_list.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    with pytest.raises(tsp.errors.CalibrationError, match="lack"):
        tsp.prune(model, sparsity=0.5, data={"a": data["a"]})


def test_activations_that_are_layers(K):
    L = K.layers
    x = K.Input((6,))

    def net(activation):
        return zoo.settle(
            K.Model(x, L.Dense(2)(L.Dense(8, activation=activation, name="d")(x)))
        )

    assert "may mix" in tsp.ChannelGraph(net(L.Activation("softmax"))).explain("d")
    small = tsp.prune(net(L.LeakyReLU()), "magnitude", sparsity=0.5, recover=None)
    assert small.get_layer("d").units == 4
    learnt = net(L.PReLU())
    learnt(np.zeros((1, 6), "float32"))
    assert "may mix" in tsp.ChannelGraph(learnt).explain("d")


def test_an_activation_with_weights_is_refused_by_name():
    L = keras.layers
    x = keras.Input((6,))
    out = L.Dense(2)(L.Dense(8, activation=L.PReLU(), name="d")(x))
    model = keras.Model(x, out)
    model(np.zeros((1, 6), "float32"))
    with pytest.raises(tsp.errors.ModelError, match="'d' with 3 weights"):
        tsp.wrap_with_masks(model)


def test_optional_inputs_stay_optional():
    class Either(keras.layers.Layer):
        def call(self, x, y=None):
            return x if y is None else x + y

    a = keras.Input((6,), name="a")
    b = keras.Input((6,), name="b", optional=True)
    h = keras.layers.Dense(16, activation="relu", name="d")(Either()(a, b))
    model = zoo.settle(keras.Model([a, b], keras.layers.Dense(2)(h)))
    data = inputs((6,))
    small = tsp.prune(model, "magnitude", sparsity=0.5, recover=None)
    assert small([data, None]).shape == (16, 2)
    with pytest.warns(tsp.errors.SparsityWarning, match="remove nothing"):
        same(model, tsp.strip_masks(tsp.wrap_with_masks(model)), [data, None])


def test_noise_of_a_shape_that_counts_units(K):
    x = K.Input((6,))
    h = K.layers.Dense(16, activation="relu", name="d")(x)
    h = K.layers.Dropout(0.5, noise_shape=(1, 16))(h)
    h = K.layers.Dropout(0.5, noise_shape=(None, 1))(h)
    model = zoo.settle(K.Model(x, K.layers.Dense(2)(h)))
    small = tsp.prune(model, "magnitude", sparsity=0.5, recover=None)
    small.compile("sgd", "mse")
    small.fit(inputs((6,)), np.zeros((16, 2)), verbose=0)
    shapes = [layer.noise_shape for layer in small.layers if "dropout" in layer.name]
    assert [tuple(shape) for shape in shapes] == [(1, 8), (None, 1)]


def test_outputs_keep_their_structure(K):
    x = K.Input((6,))
    h = K.layers.Dense(8, activation="relu", name="d")(x)
    model = zoo.settle(
        K.Model(x, (K.layers.Dense(2, name="one")(h), K.layers.Dense(3)(h)))
    )
    small = tsp.prune(model, "magnitude", sparsity=0.5, recover=None)
    kinds = {type(m(inputs((6,)))) for m in (model, small)}
    assert len(kinds) == 1


def test_normalization_over_several_axes_is_a_barrier():
    L = tf_keras.layers
    x = tf_keras.Input((4, 6))
    h = L.BatchNormalization(axis=[1, 2])(L.Dense(8, name="d")(x))
    model = zoo.settle(tf_keras.Model(x, head(tf_keras, h)))
    assert "are unprunable" in tsp.ChannelGraph(model).explain("d")


def test_lists_in_configs_of_tf_keras():
    L = tf_keras.layers  # it wraps lists, which configs then hold
    x = tf_keras.Input((4, 4, 2))
    h = L.BatchNormalization()(L.Rescaling([1.0, 2.0])(x))
    h = L.PReLU(shared_axes=[1, 2])(L.LayerNormalization(axis=[1, 2, 3])(h))
    model = zoo.settle(tf_keras.Model(x, head(tf_keras, h)))
    same(model, with_dtype(model, "float64"), inputs((4, 4, 2)), 1e-4)


@pytest.mark.parametrize("where", ["embedding", "masking"])
def test_masks_of_timesteps_are_not_lost(K, where):
    L = K.layers
    if where == "embedding":
        x = K.Input((7,), dtype="int32")
        h = L.Embedding(5, 8, mask_zero=True, name="embedding")(x)
        data = np.random.default_rng(0).integers(0, 5, (32, 7))
    else:
        x = K.Input((7, 3))
        h = L.Dense(8, name="first")(L.Masking()(x))
        data = inputs((7, 3), 32) * (np.arange(7) < 4)[:, None]
    h = L.LSTM(6, name="lstm")(h)
    model = zoo.settle(K.Model(x, L.Dense(2, name="last")(h)))
    if K is keras:
        masked = tsp.wrap_with_masks(model)
    else:  # TFMOT's wrapper would lose them
        with pytest.warns(tsp.errors.NothingPrunedWarning, match="timesteps"):
            masked = tsp.wrap_with_masks(model)
        assert [slot.key for slot in mask_slots(masked)] == ["last/kernel"]
    same(model, masked, data)
    with pytest.warns(tsp.errors.SparsityWarning, match="remove nothing"):
        same(model, tsp.strip_masks(masked), data)


def test_a_model_that_tfmot_does_not_take_at_all():
    x = tf_keras.Input((5, 8))
    out = tf_keras.layers.EinsumDense("abc,cd->abd", (None, 4))(x)
    with pytest.raises(tsp.errors.ModelError, match="does not take any"):
        tsp.wrap_with_masks(tf_keras.Model(x, out))


def test_shares_by_layer_leave_no_scope(K):
    masked = tsp.wrap_with_masks(zoo.mlp(K))
    with pytest.raises(ValueError, match="nothing to decide"):
        tsp.update_masks(masked, {"first": 0.5, "second": 0.9}, scope="global")
    assert tsp.weight_sparsity(masked)["total"] == 0


def test_lossless_through_hard_sigmoids(K):
    x = K.Input((4,))
    hidden = K.layers.Dense(24, activation="hard_sigmoid", name="d")
    model = zoo.settle(K.Model(x, K.layers.Dense(3)(hidden(x))))
    hidden.kernel.assign(np.abs(np.asarray(hidden.kernel)) + 0.5)
    hidden.bias.assign(np.where(np.arange(24) < 9, -20.0, 2.0))  # the rest bend
    small = tsp.lossless(model, box=(0.0, 1.0))
    assert small.get_layer("d").units == 15
    data = np.random.default_rng(0).uniform(size=(64, 4)).astype("float32")
    same(model, small, data)
