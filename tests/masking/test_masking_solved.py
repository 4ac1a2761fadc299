"""`prune_once` with data: layer after layer, against `lstsq` on tensors of the test."""

import keras
import numpy as np
import pytest
import zoo
from masked_nets import X, Y, compiled, fit

import tf_spline_prune as tsp
from tf_spline_prune.compat import mask_slots
from tf_spline_prune.errors import CalibrationError, CalibrationWarning
from tf_spline_prune.masking import _prune_once


def points(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype("float32")


def weights_of(model):
    plain = tsp.strip_masks(model) if tsp_masked(model) else model
    found = {}
    for layer in plain.layers:
        if layer.weights:
            names = [w.name.split("/")[-1].split(":")[0] for w in layer.weights]
            found[layer.name] = dict(zip(names, layer.get_weights(), strict=True))
    return found


def tsp_masked(model):
    return any(hasattr(layer, "layer") for layer in model.layers)


def on_columns(x, y, first, keep, ridge):
    """Solve each output on the inputs that it keeps, with an intercept; float64."""
    mean_x, mean_y = x.mean(axis=0), y.mean(axis=0)
    x, y = x - mean_x, y - mean_y
    size = np.sqrt(ridge * np.square(x).sum() / x.shape[1])
    weights = np.zeros(first.shape)
    for output, kept in enumerate(keep.T):
        rows = np.concatenate([x[:, kept], size * np.eye(kept.sum())])
        aims = np.concatenate([y[:, output], size * first[kept, output]])
        weights[kept, output] = np.linalg.lstsq(rows, aims, rcond=None)[0]
    return weights, mean_y - mean_x @ weights


@pytest.mark.both_flavours
@pytest.mark.parametrize("criterion", ["wanda", "sparsegpt", "obs", "magnitude"])
def test_each_layer_is_solved_on_what_the_pruned_ones_before_hand_on(K, criterion):
    model, x = zoo.mlp(K), points(300, 12)
    masked = tsp.prune_once(
        model,
        0.5,
        criterion,
        scope="layer",
        data=x,
        ridge=1e-3,
        recover="least_squares",
    )
    assert tsp.weight_sparsity(masked)["total"] == pytest.approx(0.5, abs=2e-3)
    before, after = weights_of(model), weights_of(masked)
    old = new = x.astype("float64")
    for name in ("first", "second", "head"):
        kernel, bias = (
            before[name][key].astype("float64") for key in ("kernel", "bias")
        )
        keep = after[name]["kernel"] != 0
        assert keep.mean() == pytest.approx(0.5, abs=0.02)
        want, shift = on_columns(new, old @ kernel, kernel, keep, 1e-3)
        np.testing.assert_allclose(after[name]["kernel"], want, atol=2e-4)
        np.testing.assert_allclose(after[name]["bias"], bias + shift, atol=5e-4)
        old = np.maximum(old @ kernel + bias, 0)
        new = np.maximum(new @ after[name]["kernel"] + after[name]["bias"], 0)


@pytest.mark.both_flavours
def test_wanda_without_recovery_is_the_definition_and_leaves_what_it_keeps(K):
    model, x = zoo.mlp(K), points(200, 12)
    masked = tsp.prune_once(model, 0.5, "wanda", scope="output", data=x, recover=None)
    before, after = weights_of(model), weights_of(masked)
    rows = x.astype("float64")
    for name in ("first", "second", "head"):
        kernel = before[name]["kernel"]
        scores = np.abs(kernel) * np.linalg.norm(rows, axis=0)[:, None]
        gone = np.argsort(scores, axis=0, kind="stable")[: len(kernel) // 2]
        want = kernel.copy()
        np.put_along_axis(want, gone, 0, axis=0)
        np.testing.assert_array_equal(after[name]["kernel"], want)
        np.testing.assert_array_equal(after[name]["bias"], before[name]["bias"])
        rows = np.maximum(rows @ want + after[name]["bias"], 0)


@pytest.mark.both_flavours
@pytest.mark.parametrize("build", [zoo.vgg, zoo.resnet])
def test_solving_keeps_more_of_the_answers(K, build):
    model, x = build(K), points(96, *zoo.SHAPE)
    other = points(32, *zoo.SHAPE, seed=1)
    want = np.asarray(model(other, training=False))

    def error(**how):
        masked = tsp.prune_once(model, 0.5, data=x, **how)
        assert tsp.weight_sparsity(masked)["total"] == pytest.approx(0.5, abs=5e-3)
        return np.square(np.asarray(masked(other, training=False)) - want).mean()

    plain = error(criterion="magnitude", recover=None)
    solved = error(criterion="magnitude")
    assert solved < plain / 2
    assert error(criterion="wanda") < plain / 2


@pytest.mark.both_flavours
def test_the_zeros_are_held_when_trained_on(K):
    masked = tsp.prune_once(compiled(K, zoo.mlp(K)), 0.7, "wanda", data=X)
    before = tsp.weight_sparsity(masked)
    fit(masked, epochs=1)
    assert tsp.weight_sparsity(masked) == before
    assert before["total"] == pytest.approx(0.7, abs=1e-2)


@pytest.mark.parametrize(
    "criterion", ["wanda", "obs", "sparsegpt", "magnitude", "lamp"]
)
@pytest.mark.parametrize("granularity", ["2:4", (4, 1)])
def test_patterns_and_blocks_run_along_the_inputs(criterion, granularity):
    model, x = zoo.vgg(keras), points(64, *zoo.SHAPE)
    asked = {"granularity": granularity, "data": x, "layers": ["a2_conv", "b1_conv"]}
    masked = tsp.prune_once(model, 0.5, criterion, **asked)
    for name in ("a2_conv", "b1_conv"):
        keep = weights_of(masked)[name]["kernel"] != 0
        groups = keep.reshape(9, -1, 4, keep.shape[-1])
        if granularity == "2:4":
            assert (groups.sum(axis=2) == 2).all()
        else:
            assert (groups == groups[:, :, :1]).all()


def test_over_all_layers_each_gets_a_fraction():
    model, x = zoo.vgg(keras), points(128, *zoo.SHAPE)
    fractions = {
        criterion: tsp.weight_sparsity(tsp.prune_once(model, 0.6, criterion, data=x))
        for criterion in ("wanda", "obs", "sparsegpt")
    }
    for found in fractions.values():
        assert found["total"] == pytest.approx(0.6, abs=2e-3)
        each = [found[name] for name in found if name != "total"]
        assert max(each) - min(each) > 0.1
        assert found == pytest.approx(fractions["wanda"], abs=0.02)


def test_fractions_by_layer_and_layers_left_alone():
    model = zoo.mlp(keras)
    masked = tsp.prune_once(model, {"second": 0.6}, "wanda", data=points(100, 12))
    before, after = weights_of(model), weights_of(masked)
    assert tsp.weight_sparsity(masked)["second/kernel"] == pytest.approx(0.6, abs=0.02)
    for name in ("first", "head"):
        np.testing.assert_array_equal(after[name]["kernel"], before[name]["kernel"])


@pytest.mark.parametrize("criterion", ["wanda", "obs", "sparsegpt", "magnitude"])
def test_what_is_gone_stays_gone(criterion):
    model, x = zoo.mlp(keras), points(200, 12)
    once = tsp.prune_once(model, 0.4, "random")
    twice = tsp.prune_once(once, 0.7, criterion, data=x)
    for name, weights in weights_of(once).items():
        assert not weights_of(twice)[name]["kernel"][weights["kernel"] == 0].any()
    assert tsp.weight_sparsity(twice)["total"] == pytest.approx(0.7, abs=0.02)


def test_whole_units_are_solved_if_asked():
    model, x = zoo.mlp(keras), points(300, 12)
    want = np.asarray(model(x))
    how = {"granularity": "unit", "data": x}
    plain = tsp.prune_once(model, 0.3, **how)
    solved = tsp.prune_once(model, 0.3, recover="least_squares", **how)
    one, two = (tsp.weight_sparsity(m) for m in (plain, solved))
    assert one == pytest.approx(two)
    errors = [np.square(np.asarray(m(x)) - want).mean() for m in (plain, solved)]
    assert errors[1] < errors[0] / 2


def test_few_inputs_are_told_of_and_how_many_would_do():
    with pytest.warns(CalibrationWarning, match="About 256 inputs would do.*second"):
        tsp.prune_once(zoo.mlp(keras), 0.5, "wanda", data=points(30, 12))
    # Lengths are known from a few.
    tsp.prune_once(zoo.mlp(keras), 0.5, "wanda", data=points(30, 12), recover=None)


def test_what_is_no_product_is_masked_by_magnitude_and_told_of():
    L = keras.layers
    model = keras.Sequential(
        [
            keras.Input((6,), dtype="int32"),
            L.Embedding(20, 8, name="words"),
            L.Flatten(),
            L.Dense(5, name="head"),
        ]
    )
    x = np.random.default_rng(0).integers(0, 20, (500, 6))
    with pytest.warns(CalibrationWarning, match="words/embeddings"):
        masked = tsp.prune_once(model, 0.5, "wanda", data=x)
    found = tsp.weight_sparsity(masked)
    assert found["words/embeddings"] == found["head/kernel"] == 0.5


@pytest.mark.filterwarnings("ignore:The masks remove nothing")
def test_nothing_to_do_leaves_the_weights():
    model, x = zoo.mlp(keras), points(200, 12)
    masked = tsp.prune_once(model, 0.0, "wanda", data=x)
    for name, weights in weights_of(model).items():
        for key, value in weights.items():
            np.testing.assert_allclose(weights_of(masked)[name][key], value, atol=1e-4)


@pytest.mark.parametrize("criterion", ["wanda", "obs", "sparsegpt"])
def test_what_does_not_go_together_is_refused(criterion):
    model, x = zoo.mlp(keras), points(100, 12)
    with pytest.raises(ValueError, match="on calibration data.*data=None"):
        tsp.prune_once(model, 0.5, criterion)
    with pytest.raises(ValueError, match="whole units are chosen by"):
        tsp.prune_once(model, 0.5, criterion, "unit", data=x)
    with pytest.raises(ValueError, match="`scope` must be one of"):
        tsp.prune_once(model, 0.5, criterion, scope="isomorphic", data=x)
    with pytest.raises(ValueError, match="one sparsity per layer"):
        tsp.prune_once(model, {"first": 0.5}, criterion, scope="global", data=x)
    with pytest.raises(CalibrationError, match="NaN"):
        tsp.prune_once(model, 0.5, criterion, data=np.where(x > 2, np.nan, x))
    with pytest.raises(ValueError, match="tsp.prune_once"):
        tsp.update_masks(tsp.wrap_with_masks(model), 0.5, criterion)


def test_more_that_is_refused(monkeypatch):
    model, x = zoo.mlp(keras), points(100, 12)
    with pytest.raises(ValueError, match="on calibration data.*least_squares"):
        tsp.prune_once(model, 0.5, recover="least_squares")
    with pytest.raises(ValueError, match="sparsegpt.*scope='output'"):
        tsp.prune_once(model, 0.5, "sparsegpt", scope="output", data=x)
    with pytest.raises(ValueError, match="auto"):
        tsp.prune_once(model, 0.5, data=x, recover="merge")
    monkeypatch.setattr(_prune_once, "_AFFORDABLE", 1e3)
    with pytest.raises(ValueError, match="too long.*second/kernel.*sparsegpt"):
        tsp.prune_once(model, 0.5, "obs", data=x)


def test_labels_are_left_aside():
    model = zoo.mlp(keras)
    one = tsp.prune_once(model, 0.5, "wanda", data=X)
    two = tsp.prune_once(model, 0.5, "wanda", data=(X, Y))
    for a, b in zip(one.get_weights(), two.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("granularity", ["weight", (4, 2)])
def test_each_output_loses_the_same_without_data(granularity):
    model = zoo.vgg(keras)
    masked = tsp.wrap_with_masks(model, ["a2_conv", "fc"])
    tsp.update_masks(masked, 0.5, "magnitude", granularity, "output")
    before, after = weights_of(model), weights_of(masked)
    for name in ("a2_conv", "fc"):
        sizes, left = (
            np.abs(one[name]["kernel"]).reshape(-1, one[name]["kernel"].shape[-1])
            for one in (before, after)
        )
        assert ((left == 0).mean(axis=0) == 0.5).all()
        if granularity == "weight":
            kept = np.where(left != 0, sizes, np.inf).min(axis=0)
            assert (np.where(left == 0, sizes, 0).max(axis=0) <= kept).all()


OTHER_KINDS = {
    "EinsumDense": {
        "equation": "abc,cde->abde",
        "output_shape": (6, 2, 3),
        "bias_axes": "de",
    },
    "Conv1DTranspose": {"filters": 6, "kernel_size": 3, "padding": "same"},
    "SeparableConv1D": {"filters": 6, "kernel_size": 3, "padding": "same"},
    "LSTM": {"units": 6, "return_sequences": True},
    "GRU": {"units": 6, "return_sequences": True},
    "MultiHeadAttention": {"num_heads": 2, "key_dim": 4},
}


@pytest.mark.parametrize("kind", list(OTHER_KINDS))
def test_kernels_of_every_kind_are_solved(K, kind):
    """Half of the weights of one layer go; solving brings its answer nearer."""
    if kind == "Conv1DTranspose" and K.__name__ == "tf_keras":
        pytest.skip("TFMOT's wrapper does not take it")
    K.utils.set_random_seed(1)
    inputs = K.Input((6, 5))
    x = K.layers.Dense(8, activation="relu", name="before")(inputs)
    layer = getattr(K.layers, kind)(**OTHER_KINDS[kind])
    model = K.Model(inputs, layer(x, x) if kind == "MultiHeadAttention" else layer(x))
    data = np.random.default_rng(0).normal(size=(200, 6, 5)).astype("float32")
    want = np.asarray(model(data))
    losses = []
    for recover in (None, "least_squares"):
        how = {"scope": "layer", "layers": layer.name, "recover": recover}
        small = tsp.prune_once(model, 0.5, "wanda", data=data, **how)
        masks = [slot.keep() for slot in mask_slots(small)]
        assert masks and all(0.4 < mask.mean() < 0.6 for mask in masks)
        losses.append(np.square(np.asarray(small(data)) - want).sum())
    assert losses[1] < 0.8 * losses[0]


def test_a_pattern_is_not_asked_for_more_than_it_removes(K):
    model = zoo.mlp(K)
    masked = tsp.wrap_with_masks(model)
    name = next(layer.name for layer in model.layers if layer.weights)
    for sparsity in (0.8, {name: 0.51}):
        for call in (tsp.update_masks, tsp.prune_once):
            with pytest.raises(ValueError, match="'2:4' removes 0.5 of the weights"):
                call(
                    masked if call is tsp.update_masks else model,
                    sparsity,
                    granularity="2:4",
                )
    tsp.update_masks(masked, 0.5, granularity="2:4")
    sparsity = tsp.weight_sparsity(masked)
    with pytest.raises(ValueError, match="removes 0.5"):
        tsp.update_masks(masked, 0.6, granularity="2:4")
    assert tsp.weight_sparsity(masked) == sparsity
