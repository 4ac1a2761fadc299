"""Wrapping and stripping: what a masked model is, and what comes out again."""

import subprocess
import sys

import keras
import numpy as np
import pytest
import zoo
from masked_nets import IMAGES, LABELS, X, compiled, fit, kernel, mlp, shared, zeros

import tf_spline_prune as tsp
from tf_spline_prune.compat import mask_slots

FAMILIES = [zoo.mlp, zoo.vgg, zoo.resnet, zoo.mobilenet, zoo.nested, zoo.subclassed]


def keys(model):
    return [slot.key for slot in mask_slots(model)]


@pytest.mark.both_flavours
@pytest.mark.parametrize("build", FAMILIES, ids=lambda f: f.__name__)
def test_W7_a_fresh_wrap_computes_the_same_bits(K, build):
    model = build(K)
    x = X if build is zoo.mlp else IMAGES
    masked = tsp.wrap_with_masks(model)
    np.testing.assert_array_equal(np.asarray(masked(x)), np.asarray(model(x)))


@pytest.mark.both_flavours
@pytest.mark.parametrize("build", FAMILIES, ids=lambda f: f.__name__)
def test_X1_strip_gives_back_structure_names_and_weights(K, build):
    model = build(K)
    x = X if build is zoo.mlp else IMAGES
    with pytest.warns(tsp.errors.SparsityWarning, match="remove nothing"):
        plain = tsp.strip_masks(tsp.wrap_with_masks(model))
    if build is not zoo.subclassed:
        assert type(plain) is type(model)
        names = [layer.name for layer in model.layers]
        assert [layer.name for layer in plain.layers] == names
        for one, other in zip(plain.layers, model.layers, strict=True):
            assert type(one) is type(other)
    assert not mask_slots(plain)
    for one, other in zip(plain.weights, model.weights, strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy())
    np.testing.assert_array_equal(np.asarray(plain(x)), np.asarray(model(x)))


def test_X1_strip_masks_first(K):
    masked = tsp.wrap_with_masks(zoo.mlp(K))
    slot = mask_slots(masked)[0]
    keep = np.random.default_rng(0).random(slot.weight.shape) > 0.5
    weights = slot.read().copy()
    slot.mask.assign(keep if K is keras else keep.astype("float32"))  # weights stay
    found = tsp.strip_masks(masked).layers[0].get_weights()[0]
    np.testing.assert_array_equal(found, np.where(keep, weights, 0))
    np.testing.assert_array_equal(slot.read(), weights)  # nothing is mutated


def every_kind(K):
    """A model with a layer of each kind that has prunable weights."""
    L = K.layers
    x = inputs = K.Input((10,), dtype="int32")
    x = L.Embedding(20, 8, name="table")(x)
    x = L.Bidirectional(L.LSTM(4, return_sequences=True), name="both")(x)
    x = L.GRU(4, return_sequences=True, name="gru")(x)
    x = L.MultiHeadAttention(2, 4, name="attention")(x, x)
    x = L.Conv1D(6, 3, name="conv")(x)
    x = L.SeparableConv1D(6, 3, name="apart")(x)
    x = L.BatchNormalization()(x)
    x = L.Dropout(0.1)(L.Flatten()(x))
    return K.Model(inputs, L.Dense(3, name="head")(x))


@pytest.mark.both_flavours
def test_W2_kernels_get_masks_and_nothing_else(K):
    model = every_kind(K)
    if K is keras:
        found = keys(tsp.wrap_with_masks(model))
    else:
        with pytest.warns(tsp.errors.NothingPrunedWarning, match="both"):
            found = keys(tsp.wrap_with_masks(model))
    both = [
        f"both/{w}/{n}"
        for w in ("forward", "backward")
        for n in ("kernel", "recurrent_kernel")
    ]
    parts = ("query", "key", "value", "attention_output")
    expected = [
        "table/embeddings",
        *both,
        *("gru/kernel", "gru/recurrent_kernel"),
        *(f"attention/{part}/kernel" for part in parts),
        *("conv/kernel", "apart/pointwise_kernel", "head/kernel"),
    ]
    if K is not keras:  # what TFMOT takes
        expected = [key for key in expected if not key.startswith("both")]
    assert sorted(found) == sorted(expected)


def test_T1_fit_reaches_the_target_in_every_kind_of_layer(K):
    model = every_kind(K)
    names = [layer.name for layer in model.layers if layer.name != "both"]
    layers = None if K is keras else [n for n in names if "head" in n or n == "gru"]
    masked = compiled(K, tsp.wrap_with_masks(model, layers))
    tokens = np.random.default_rng(0).integers(0, 20, (32, 10))
    pruning = tsp.MaskPruning(tsp.schedules.OneShot(0.6, step=2))
    masked.fit(tokens, LABELS % 3, 8, epochs=1, verbose=0, callbacks=[pruning])
    for slot in mask_slots(masked):
        size = slot.read().size
        assert (slot.read() == 0).sum() == round(0.6 * size), slot.key
    plain = tsp.strip_masks(masked)
    np.testing.assert_array_equal(np.asarray(plain(tokens)), np.asarray(masked(tokens)))


def test_X4_a_function_decides_and_a_reason_names_the_layer(K):
    masked = tsp.wrap_with_masks(zoo.mlp(K), lambda layer: layer.name != "second")
    assert keys(masked) == ["first/kernel", "head/kernel"]
    with pytest.raises(ValueError, match="none of the layers"):
        tsp.wrap_with_masks(zoo.mlp(K), lambda layer: False)
    with pytest.raises(ValueError, match="'a1_bn' cannot be masked: it has no weights"):
        tsp.wrap_with_masks(zoo.vgg(K), "a1_bn")


@pytest.mark.both_flavours
def test_T9_depthwise_kernels_and_frozen_layers_stay(K):
    model = zoo.mobilenet(K)
    next(
        layer for layer in model.layers if "Conv2D" in type(layer).__name__
    ).trainable = False
    frozen = next(layer.name for layer in model.layers if not layer.trainable)
    with pytest.warns(tsp.errors.NothingPrunedWarning, match=f"{frozen}: it is frozen"):
        masked = tsp.wrap_with_masks(model)
    paths = {slot.path for slot in mask_slots(masked)}
    depthwise = {x.name for x in model.layers if "Depthwise" in type(x).__name__}
    assert depthwise and not paths & depthwise
    assert paths and frozen not in paths


def test_W3_a_layer_of_ones_own_takes_part_by_its_method(K):
    class Own(K.layers.Layer):
        def build(self, shape):
            self.table = self.add_weight(name="table", shape=(shape[-1], 4))
            self.offset = self.add_weight(name="offset", shape=(4,))

        def call(self, x):
            return x @ self.table + self.offset

        def get_config(self):
            return super().get_config()

    class Asked(Own):
        def get_prunable_weights(self):
            return [self.table]

    x = inputs = K.Input((6,))
    model = K.Model(inputs, Asked(name="asked")(Own(name="own")(x)))
    zoo.settle(model)
    with pytest.warns(tsp.errors.NothingPrunedWarning, match="own: it is a layer of"):
        masked = tsp.wrap_with_masks(model)
    assert keys(masked) == ["asked/table"]
    with pytest.raises(ValueError, match="without `get_prunable_weights`"):
        tsp.wrap_with_masks(model, layers="own")


def test_W5_a_layer_is_wrapped_once(K):
    model = shared(K)
    once = tsp.wrap_with_masks(model)
    assert keys(once) == ["same/kernel", "head/kernel"]
    tsp.update_masks(once, 0.5)
    twice = tsp.wrap_with_masks(once)
    assert keys(twice) == keys(once)
    np.testing.assert_array_equal(kernel(twice, "same"), kernel(once, "same"))
    assert tsp.weight_sparsity(twice)["total"] == 0.5


def test_W6_nested_models_have_paths(K):
    found = keys(tsp.wrap_with_masks(zoo.nested(K)))
    assert any("/" in key.rpartition("/")[0] for key in found)


def test_W8_wrappers_in_subclassed_models_are_found(K):
    if K is not keras:
        pytest.skip("in tf_keras TFMOT's wrapper is the one")

    class Block(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.inner = tsp.MaskedLayer(keras.layers.Dense(6, name="inner"))

        def call(self, x):
            return self.inner(x)

    class Net(keras.Model):
        def __init__(self):
            super().__init__()
            self.block = Block()
            self.head = tsp.MaskedLayer(keras.layers.Dense(5, name="head"))

        def call(self, x):
            return self.head(self.block(x))

    net = compiled(K, Net())
    fit(net, [tsp.MaskPruning(tsp.schedules.OneShot(0.5, step=2))])
    assert {slot.path.rpartition("/")[2] for slot in mask_slots(net)} == {
        "inner",
        "head",
    }
    assert zeros(net, "inner") == zeros(net, "head") == 0.5


@pytest.mark.both_flavours
def test_W9_X2_a_masked_model_saves_and_loads_without_any_scope(K, tmp_path):
    masked = tsp.wrap_with_masks(mlp(K))
    tsp.update_masks(masked, 0.7)
    expected = {slot.key: slot.keep() for slot in mask_slots(masked)}
    masked.save(tmp_path / "masked.keras")
    if K is keras:
        again = K.models.load_model(tmp_path / "masked.keras")
    else:
        sparsity = tsp.compat.import_tfmot().sparsity.keras
        with sparsity.prune_scope():
            again = K.models.load_model(tmp_path / "masked.keras")
    for slot in mask_slots(again):
        np.testing.assert_array_equal(slot.keep(), expected[slot.key])
    np.testing.assert_array_equal(np.asarray(again(X)), np.asarray(masked(X)))
    fit(again, [tsp.MaskPruning(tsp.schedules.OneShot(0.8, step=3))])
    assert abs(tsp.weight_sparsity(again)["total"] - 0.8) < 0.005


def test_W9_a_process_that_has_only_imported_the_package_loads_it(tmp_path):
    file = tmp_path / "masked.keras"
    tsp.prune_once(zoo.mlp(keras), 0.7).save(file)
    code = "import keras, tf_spline_prune\n"
    code += f"print(len(keras.models.load_model({str(file)!r}).layers))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ran.stdout.split()[-1:] == ["3"], ran.stderr


@pytest.mark.both_flavours
def test_X2_weights_of_masked_and_of_plain_models_load(K, tmp_path):
    model = zoo.mlp(K)
    model.save_weights(str(tmp_path / "plain.weights.h5"))
    other = tsp.wrap_with_masks(zoo.settle(zoo.mlp(K), seed=5))
    tsp.update_masks(other, 0.5)
    keep = [slot.keep() for slot in mask_slots(other)]
    tsp.load_weights(other, tmp_path / "plain.weights.h5")
    for slot, mask in zip(mask_slots(other), keep, strict=True):
        layer = next(x for x in model.layers if x.name == slot.path)
        expected = np.where(mask, layer.get_weights()[0], 0)
        np.testing.assert_array_equal(slot.read(), expected)
        np.testing.assert_array_equal(slot.keep(), mask)
    # Biases too.
    bias = tsp.strip_masks(other).layers[0].get_weights()[1]
    np.testing.assert_array_equal(bias, model.layers[0].get_weights()[1])
    other.save_weights(str(tmp_path / "masked.weights.h5"))
    third = tsp.wrap_with_masks(zoo.mlp(K))
    third.load_weights(str(tmp_path / "masked.weights.h5"))
    for slot, mask in zip(mask_slots(third), keep, strict=True):
        np.testing.assert_array_equal(slot.keep(), mask)


def test_X2_plain_weights_into_a_masked_model_say_where_to_go(tmp_path):
    model = zoo.mlp(keras)
    model.save_weights(tmp_path / "plain.weights.h5")
    with pytest.raises(ValueError, match=r"tsp\.load_weights"):
        tsp.wrap_with_masks(model).load_weights(tmp_path / "plain.weights.h5")


def test_a_file_of_another_model_changes_nothing(K, tmp_path):
    small = K.Sequential([K.Input((12,)), K.layers.Dense(3)])
    small.save_weights(str(tmp_path / "other.weights.h5"))
    masked = tsp.wrap_with_masks(zoo.mlp(K))
    before = masked.get_weights()
    with pytest.raises(ValueError):
        tsp.load_weights(masked, tmp_path / "other.weights.h5")
    for one, other in zip(before, masked.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.both_flavours
def test_W4_the_compile_configuration_is_kept_and_the_weights_are_copies(K):
    model = mlp(K, optimizer=K.optimizers.SGD(0.25))
    masked = tsp.wrap_with_masks(model)
    assert isinstance(masked.optimizer, K.optimizers.SGD)
    assert float(masked.optimizer.learning_rate) == 0.25
    assert masked.optimizer is not model.optimizer
    before = model.get_weights()
    tsp.update_masks(masked, 0.9)
    fit(masked)
    for one, other in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_metric_that_cannot_be_copied_is_said(K):
    class Own(K.metrics.Metric):
        def __init__(self, needed, name="own"):
            super().__init__(name=name)

        def update_state(self, *args, **kwargs):
            pass

        def result(self):
            return 0.0

    model = compiled(K, zoo.mlp(K), metrics=[Own(3)])
    with pytest.warns(tsp.errors.SplinePruneWarning, match="not compiled"):
        masked = tsp.wrap_with_masks(model)
    assert mask_slots(masked)


def test_X3_wrong_input(K):
    with pytest.raises(tsp.errors.FlavourError, match="dict"):
        tsp.wrap_with_masks({})
    with pytest.raises(tsp.errors.ModelError, match="not built"):
        tsp.wrap_with_masks(K.Sequential([K.layers.Dense(3)]))
    model = zoo.mlp(K)
    with pytest.raises(ValueError, match="first"):
        tsp.wrap_with_masks(model, layers="frist")
    with pytest.raises(tsp.errors.ModelError, match="no masks"):
        tsp.strip_masks(model)
    with pytest.raises(tsp.errors.ModelError, match="no masks"):
        tsp.update_masks(model, 0.5)
    masked = tsp.wrap_with_masks(model)
    for wrong in (-0.1, 1.0, 1.5, float("nan")):
        with pytest.raises(ValueError, match="at least 0 and less than 1"):
            tsp.update_masks(masked, wrong)
    assert tsp.weight_sparsity(masked)["total"] == 0
    flat = K.Sequential([K.Input((4,)), K.layers.ReLU()])
    with pytest.raises(tsp.errors.ModelError, match="has no weights"):
        tsp.wrap_with_masks(flat)


def test_masked_layer_refuses_what_it_cannot_hold():
    import tf_keras

    with pytest.raises(tsp.errors.FlavourError, match="TFMOT"):
        tsp.MaskedLayer(tf_keras.layers.Dense(3))
    norm = keras.layers.BatchNormalization()
    norm.build((None, 4))
    with pytest.raises(tsp.errors.ModelError, match="nothing to mask"):
        tsp.MaskedLayer(norm)
    assert list(tsp.MaskedLayer(norm, weights=["gamma"]).masks) == ["gamma"]


def test_a_constraint_of_the_user_comes_first_and_is_given_back(K):
    L = K.layers
    model = K.Sequential(
        [
            K.Input((12,)),
            L.Dense(8, name="hidden", kernel_constraint=K.constraints.UnitNorm(axis=0)),
            L.Dense(5, name="head"),
        ]
    )
    masked = compiled(K, tsp.wrap_with_masks(zoo.settle(model)))
    fit(masked, [tsp.MaskPruning(tsp.schedules.OneShot(0.5, step=0))])
    assert zeros(masked, "hidden") == 0.5
    lengths = np.linalg.norm(kernel(masked, "hidden"), axis=0)
    assert (lengths < 1.0).all()  # of a unit vector some entries are gone
    plain = compiled(K, tsp.strip_masks(masked))
    assert isinstance(plain.layers[0].kernel_constraint, K.constraints.UnitNorm)
    fit(plain, epochs=1)
    lengths = np.linalg.norm(plain.layers[0].get_weights()[0], axis=0)
    np.testing.assert_allclose(lengths, 1.0, rtol=1e-5)


def test_attention_called_by_names_and_masks_of_time_steps():
    L = keras.layers
    x = inputs = keras.Input((6,), dtype="int32")
    x = L.Embedding(9, 8, mask_zero=True)(x)
    x = L.MultiHeadAttention(2, 4)(query=x, value=x)
    model = zoo.settle(keras.Model(inputs, L.LSTM(3)(x)))
    tokens = np.array([[1, 2, 0, 0, 0, 0], [3, 4, 5, 6, 7, 8]])
    masked = tsp.wrap_with_masks(model)
    np.testing.assert_array_equal(masked(tokens), model(tokens))


def test_the_graph_and_the_codes_look_through_masks(K):
    model = zoo.vgg(K)
    masked = tsp.wrap_with_masks(model)
    names = {group.name for group in tsp.ChannelGraph(model).groups}
    assert {group.name for group in tsp.ChannelGraph(masked).groups} == names
    one = tsp.PartitionCoder(model)(IMAGES)
    assert tsp.partition_distance(tsp.PartitionCoder(masked)(IMAGES), one) == 0
    small = tsp.prune(masked, "magnitude", sparsity=0.5)
    assert not mask_slots(small)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision(K, policy):
    L = K.layers
    policy = K.mixed_precision.Policy(policy) if K is not keras else policy
    inputs = K.Input(zoo.SHAPE)
    x = L.Conv2D(8, 3, dtype=policy, activation="relu")(inputs)
    x = L.GlobalAveragePooling2D(dtype=policy)(x)
    model = compiled(K, K.Model(inputs, L.Dense(5, dtype="float32")(x)))
    masked = tsp.wrap_with_masks(model)
    np.testing.assert_array_equal(np.asarray(masked(IMAGES)), np.asarray(model(IMAGES)))
    masked.fit(
        IMAGES,
        LABELS,
        epochs=3,
        verbose=0,
        callbacks=[tsp.MaskPruning(tsp.schedules.OneShot(0.75, step=1))],
    )
    found = tsp.weight_sparsity(masked)
    assert all(abs(share - 0.75) < 0.01 for share in found.values())
