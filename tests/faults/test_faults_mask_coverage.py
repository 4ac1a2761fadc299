"""Masks cover every kernel, wherever a layer holds it, and every number counts all."""

import warnings

import h5py
import keras
import numpy as np
import pytest
import tf_keras

import tf_spline_prune as tsp
from tf_spline_prune.compat import mask_slots, weight_names
from tf_spline_prune.errors import NothingPrunedWarning

CELLS = ("lstm_cell", "lstm_cell_1")
RNN = {f"rnn/{c}/{w}kernel" for c in CELLS for w in ("", "recurrent_")}
BLOCK = {
    *("block/feedforward/kernel", "block/out/kernel", "block/mixer/kernel"),
    *("block/dense/kernel", "block/dense_1/kernel"),
}
HALF = tsp.schedules.OneShot(0.5, step=1)


def block_of(K):
    class Block(K.layers.Layer):
        """Its own gain makes it opaque: it cannot be read through."""

        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            L = K.layers
            self.feedforward = L.Dense(16, kernel_constraint="max_norm")
            self.out = L.Dense(8)
            self.some = L.Dense(8, name="mixer")
            self.more = [L.Dense(8, use_bias=False), L.Dense(8)]
            self.norm = L.LayerNormalization()

        def build(self, shape):
            self.gain = self.add_weight(name="gain", shape=(8,), initializer="ones")
            super().build(shape)

        def call(self, x):
            y = self.some(self.out(self.feedforward(x))) * self.gain
            for layer in self.more:
                y = y + layer(x)
            return self.norm(y)

        def get_config(self):
            return super().get_config()

    return Block


def with_block(K):
    inputs = K.Input((8,))
    x = block_of(K)(name="block")(inputs)
    return K.Model(inputs, K.layers.Dense(4, name="head")(x))


def with_cells(K):
    inputs = K.Input((5, 4))
    cells = [K.layers.LSTMCell(8), K.layers.LSTMCell(8)]
    x = K.layers.RNN(cells, name="rnn")(inputs)
    return K.Model(inputs, K.layers.Dense(4, name="head")(x))


def train(model, pruning=None, epochs=2):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(32, *model.input_shape[1:])).astype("float32")
    model.compile("adam", "mse")
    callbacks = [] if pruning is None else [pruning]
    y = np.zeros((32, 4), "float32")
    model.fit(x, y, 8, epochs=epochs, verbose=0, callbacks=callbacks)
    return x


def counted(model):
    """Count the zeros among the float matrices of a plain model, by NumPy alone."""
    arrays = [w for w in model.get_weights() if w.ndim > 1]
    return sum((a == 0).sum() for a in arrays) / sum(a.size for a in arrays)


def keys(model):
    return [slot.key for slot in mask_slots(model)]


def test_every_kernel_of_a_composite_gets_a_mask():
    model = with_block(keras)
    masked = tsp.wrap_with_masks(model)
    assert sorted(keys(masked)) == sorted({*BLOCK, "head/kernel"})
    train(masked, tsp.MaskPruning(HALF, below_target="raise"))
    plain = tsp.strip_masks(masked)
    assert counted(plain) == 0.5
    assert tsp.weight_sparsity(plain) == tsp.weight_sparsity(masked)
    assert tsp.weight_sparsity(plain)["total"] == 0.5
    assert set(tsp.weight_sparsity(model)) == set(tsp.weight_sparsity(plain))
    # The constraint that a layer inside has is given back.
    held = {type(w.constraint).__name__ for w in plain.layers[1].weights}
    assert held == {"NoneType", "MaxNorm"}


def test_a_composite_that_tfmot_does_not_take_counts_all_the_same():
    with pytest.warns(tsp.errors.NothingPrunedWarning, match="block"):
        masked = tsp.wrap_with_masks(with_block(tf_keras))
    assert keys(masked) == ["head/kernel"]
    train(masked, tsp.MaskPruning(HALF))
    found = tsp.weight_sparsity(masked)
    assert set(found) == {*BLOCK, "head/kernel", "total"}
    plain = tsp.strip_masks(masked)
    assert tsp.weight_sparsity(plain) == found
    assert found["total"] == counted(plain) < 0.1


def test_all_cells_of_a_recurrent_layer_are_masked_and_reported(K):
    masked = tsp.wrap_with_masks(with_cells(K))
    assert set(keys(masked)) == {*RNN, "head/kernel"}
    train(masked, tsp.MaskPruning(HALF, below_target="raise"))
    plain = tsp.strip_masks(masked)
    assert counted(plain) == 0.5
    assert tsp.weight_sparsity(plain) == tsp.weight_sparsity(masked)
    assert set(tsp.weight_sparsity(plain)) == {*RNN, "head/kernel", "total"}


def test_both_directions_of_several_cells():
    L = keras.layers
    inputs = keras.Input((5, 4))
    inner = L.RNN([L.LSTMCell(4), L.SimpleRNNCell(4)])
    x = L.Bidirectional(inner, name="both")(inputs)
    model = keras.Model(inputs, L.Dense(4, name="head")(x))
    masked = tsp.prune_once(model, 0.5)
    assert set(keys(masked)) == {"head/kernel"} | {
        f"both/{direction}/{cell}/{weight}"
        for direction in ("forward", "backward")
        for cell in ("lstm_cell", "simple_rnn_cell")
        for weight in ("kernel", "recurrent_kernel")
    }
    assert counted(tsp.strip_masks(masked)) == 0.5


def test_a_model_at_every_timestep_and_the_axes_of_its_layers():
    L = keras.layers
    inner = keras.Sequential(
        [
            keras.Input((4, 4, 8)),
            L.Conv2DTranspose(3, 2, name="up"),
            L.DepthwiseConv2D(2, name="apart"),
            L.Flatten(),
            L.Dense(8, name="last"),
        ]
    )
    inputs = keras.Input((2, 4, 4, 8))
    x = L.Flatten()(L.TimeDistributed(inner, name="steps")(inputs))
    model = keras.Model(inputs, L.Dense(4, name="head")(x))
    masked = tsp.prune_once(model, 0.5, granularity="2:4")
    assert set(keys(masked)) == {"steps/up/kernel", "steps/last/kernel", "head/kernel"}
    held = {slot.key: slot.read() for slot in mask_slots(masked)}
    # A transposed convolution has its inputs last, a Dense layer first.
    up = held["steps/up/kernel"].reshape(-1, 4)
    last = held["steps/last/kernel"].T.reshape(-1, 4)
    assert ((up == 0).sum(1) == 2).all() and ((last == 0).sum(1) == 2).all()


def test_two_weights_of_one_name_in_one_layer(K):
    class Twice(K.layers.Layer):
        def build(self, shape):
            self.one = self.add_weight(name="kernel", shape=(shape[-1], 4))
            self.two = self.add_weight(name="kernel", shape=(4, 4))

        def call(self, x):
            return x @ self.one @ self.two

        def get_config(self):
            return super().get_config()

    inputs = K.Input((4,))
    model = K.Model(inputs, Twice(name="twice")(inputs))
    weights = model.get_weights()
    model.set_weights([weights[0], np.zeros_like(weights[1])])
    found = tsp.weight_sparsity(model)
    assert found == {"twice/kernel": 0.0, "twice/kernel_1": 1.0, "total": 0.5}


def test_paths_do_not_hang_on_what_was_made_before(K):
    K.layers.Dense(1), K.layers.LSTMCell(1)
    first = weight_names(with_block(K).layers[1])
    assert weight_names(with_block(K).layers[1]) == first
    assert {f"block/{name}" for name in first if "kernel" in name} == BLOCK
    assert len(set(first)) == len(first)


def test_masks_of_a_composite_are_saved_and_loaded(tmp_path):
    masked = tsp.wrap_with_masks(with_block(keras))
    x = train(masked, tsp.MaskPruning(HALF))
    want = masked.predict(x, verbose=0)
    known = {"Block": block_of(keras)}
    masked.save(tmp_path / "m.keras")
    again = keras.saving.load_model(tmp_path / "m.keras", known)
    assert keys(again) == keys(masked)
    np.testing.assert_array_equal(again.predict(x, verbose=0), want)
    train(again)
    assert tsp.weight_sparsity(again)["total"] == 0.5
    masked.save_weights(tmp_path / "m.weights.h5")
    other = tsp.wrap_with_masks(with_block(keras))
    other.load_weights(tmp_path / "m.weights.h5")
    np.testing.assert_array_equal(other.predict(x, verbose=0), want)
    with_block(keras).save_weights(tmp_path / "plain.weights.h5")
    tsp.load_weights(masked, tmp_path / "plain.weights.h5")
    assert tsp.weight_sparsity(masked)["total"] == 0.5
    twice = tsp.wrap_with_masks(masked)
    assert tsp.weight_sparsity(twice)["total"] == 0.5


def test_masks_before_training_have_the_same_paths():
    model = with_block(keras)
    data = (np.ones((4, 8), "float32"), np.zeros(4, "int32"))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    masked = tsp.prune_at_init(model, "snip", 0.5, data=data, loss=loss)
    assert sorted(keys(masked)) == sorted({*BLOCK, "head/kernel"})
    assert tsp.weight_sparsity(masked)["total"] == pytest.approx(0.5, abs=2e-3)
    scores = tsp.initialization.connection_scores(model, "snip", data=data, loss=loss)
    assert set(scores) == {*BLOCK, "head/kernel"}


def test_freezing_does_not_change_the_count(K):
    plain = tsp.strip_masks(tsp.prune_once(with_cells(K), 0.5))
    before = tsp.weight_sparsity(plain)
    plain.trainable = False
    assert tsp.weight_sparsity(plain) == before
    assert before["total"] == 0.5


def test_what_stays_dense_is_named():
    class Mixer(keras.layers.Layer):
        def build(self, shape):
            self.table = self.add_weight(name="table", shape=(shape[-1], 8))

        def call(self, x):
            return x @ self.table

    class Outer(keras.layers.Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.inside = keras.layers.Dense(8)
            self.mixing = Mixer()

        def build(self, shape):
            self.gain = self.add_weight(name="gain", shape=(8,))
            super().build(shape)

        def call(self, x):
            return self.mixing(self.inside(x)) * self.gain

    inputs = keras.Input((8,))
    model = keras.Model(inputs, Outer(name="outer")(inputs))
    why = "outer/mixing: it is a layer of your own without `get_prunable_weights`"
    with pytest.warns(tsp.errors.NothingPrunedWarning, match=why):
        masked = tsp.wrap_with_masks(model)
    assert keys(masked) == ["outer/inside/kernel"]


def test_masks_in_a_model_that_cannot_be_traced_are_counted_with_the_rest():
    class Net(keras.Model):
        def __init__(self):
            super().__init__()
            self.first = tsp.MaskedLayer(keras.layers.Dense(8))
            self.last = keras.layers.Dense(8)
            self.gain = self.add_weight(name="gain", shape=(8,))

        def call(self, x):
            return self.last(self.first(x)) * self.gain

    net = Net()
    net(np.ones((1, 8), "float32"))
    tsp.update_masks(net, 0.5)
    found = tsp.weight_sparsity(net)
    assert found == {"first/kernel": 0.5, "last/kernel": 0.0, "total": 0.25}


# Layers of all kinds that hold kernels, with the number of matrices in each.
KINDS = {
    "Dense": ((8,), lambda L: L.Dense(6), 1),
    "EinsumDense": ((4, 8), lambda L: L.EinsumDense("abc,cd->abd", (4, 6)), 1),
    "Embedding": ((8,), lambda L: L.Embedding(20, 6), 1),
    "grouped": ((6, 6, 4), lambda L: L.Conv2D(6, 2, groups=2), 1),
    "transposed": ((6, 6, 4), lambda L: L.Conv2DTranspose(6, 2), 1),
    "separable": ((6, 6, 4), lambda L: L.SeparableConv2D(6, 2), 1),
    "depthwise": ((6, 6, 4), lambda L: L.DepthwiseConv2D(2), 0),
    "ConvLSTM": ((3, 6, 6, 2), lambda L: L.ConvLSTM2D(4, 2), 2),
    "cell": ((5, 4), lambda L: L.RNN(L.GRUCell(6)), 2),
    "stacked": (
        (5, 4),
        lambda L: L.RNN(L.StackedRNNCells([L.LSTMCell(6), L.SimpleRNNCell(5)])),
        4,
    ),
    "both ways": ((5, 4), lambda L: L.Bidirectional(L.LSTM(6)), 4),
    "in time": ((5, 4), lambda L: L.TimeDistributed(L.Dense(6)), 1),
    "twice in time": (
        (2, 3, 5, 4),
        lambda L: L.TimeDistributed(L.TimeDistributed(L.Bidirectional(L.GRU(6)))),
        4,
    ),
    "normalised": ((8,), lambda L: L.SpectralNormalization(L.Dense(6)), 1),
    "PReLU": ((6, 6, 4), lambda L: L.PReLU(), 0),
}


@pytest.mark.parametrize("kind", list(KINDS))
def test_the_numbers_of_every_kind_of_layer_are_those_in_the_file(K, kind, tmp_path):
    """What is said is counted in the saved file; what is left out is in a warning."""
    shape, make, matrices = KINDS[kind]
    L = K.layers
    inputs = K.Input(shape)
    x = L.Flatten()(make(L)(inputs))
    model = K.Model(inputs, L.Dense(3, name="head")(x))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        masked = tsp.prune_once(model, 0.5)
    found = tsp.weight_sparsity(masked)
    assert len(found) == matrices + 2
    plain = tsp.strip_masks(masked)
    plain.save_weights(tmp_path / "m.weights.h5")
    held = []
    with h5py.File(tmp_path / "m.weights.h5") as file:
        file.visititems(lambda _, one: held.append(one))
        arrays = [np.array(one) for one in held if isinstance(one, h5py.Dataset)]
    kernels = {one.tobytes(): one for one in arrays if multiplies(one, kind)}
    zeros = sum(int((one == 0).sum()) for one in kernels.values())
    assert found["total"] == zeros / sum(one.size for one in kernels.values())
    assert found == tsp.weight_sparsity(plain)
    told = any(issubclass(one.category, NothingPrunedWarning) for one in said)
    assert told == (abs(found["total"] - 0.5) > 0.01)
    again = K.models.clone_model(plain)
    again.load_weights(tmp_path / "m.weights.h5")
    assert tsp.weight_sparsity(again) == found


def multiplies(array, kind):
    """Tell matrices from all else of two axes and more; the file says only sizes."""
    if array.ndim < 2 or array.dtype.kind != "f":
        return False
    if kind in ("depthwise", "PReLU"):
        return array.ndim == 2
    if kind == "separable":  # of two arrays, the one at a single place
        return array.ndim == 2 or array.shape[:2] == (1, 1)
    # The biases of a GRU are two rows, and a power iteration is one.
    return array.shape[0] > 2 or kind in ("grouped", "transposed", "ConvLSTM")


def test_frozen_layers_are_named(K):
    L = K.layers
    model = K.Sequential([K.Input((8,)), *(L.Dense(8, name=f"d{i}") for i in range(9))])
    for layer in model.layers[:7]:
        layer.trainable = False
    with pytest.warns(NothingPrunedWarning, match="d0: it is frozen.*and 2 more"):
        masked = tsp.prune_once(model, 0.5)
    assert tsp.weight_sparsity(masked)["total"] == pytest.approx(0.5 * 2 / 9)
    assert keys(tsp.wrap_with_masks(model, ["d7", "d8"])) == ["d7/kernel", "d8/kernel"]
